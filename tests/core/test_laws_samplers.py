"""Laws 13-15, 20-22, 27-29, 34 and 37: what must hold for every sampler."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fourfold.core import (
    DDIM,
    EDM,
    VE,
    VP,
    AdamsBashforth,
    Ancestral,
    AnnealedLangevin,
    BaseDenoiser,
    CategoricalDenoiser,
    CategoricalPath,
    Centered,
    CenterFree,
    Cosine,
    Data,
    Denoiser,
    DPMSolverPP,
    EulerMaruyama,
    GaussianPath,
    JointDenoiser,
    JointPath,
    KarrasGrid,
    Langevin,
    LogSNRGrid,
    Multistep,
    NoiseSource,
    Parameterization,
    PredictorCorrector,
    Rectified,
    RungeKutta,
    Sampler,
    Schedule,
    Singlestep,
    Stepper,
    StochasticHeun,
    StraightGrid,
    SubVP,
    Symmetric,
    TimesGrid,
    UniformGrid,
    V,
    Velocity,
)
from fourfold.core.paths import posterior_coefficients
from fourfold.core.schedules import schedule_values
from fourfold.core.solvers import COORDINATES, multistep_update
from fourfold.core.solvers.coordinates import Coordinate, Trig
from fourfold.core.testing import GaussianOracle


def double(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# 13: the schedule is only a clock


@pytest.mark.parametrize("target", [Cosine(), EDM(), Rectified()], ids=lambda s: type(s).__name__)
def test_13_samples_depend_on_the_logsnr_grid_only(
    deterministic: Stepper, target: Schedule, targets: SimpleNamespace
) -> None:
    """Multistep and exponential solvers on one log-SNR grid give the same x/alpha under every schedule."""
    coordinate = getattr(deterministic, "coordinate", "")
    if isinstance(deterministic, EulerMaruyama) or coordinate == "time":
        return  # these solve in t
    logsnr = torch.linspace(-3, 4, 7, dtype=torch.float64)
    results = []
    for schedule in (VP(), target):
        times = TimesGrid(times=tuple(schedule.time(logsnr).tolist()))
        start = schedule.alpha(double(times.times[0])) * normal(5, 2) * 3
        x = Sampler(deterministic, times, 6)(targets.m2(GaussianPath(schedule)), start).x
        results.append(x / schedule.alpha(double(times.times[-1])))
    torch.testing.assert_close(results[1], results[0], rtol=1e-7, atol=1e-7)


# 14: ancestral sampling is the first member of the stochastic family


def test_14_order_one_with_eta_one_is_ancestral(schedule: Schedule) -> None:
    times = LogSNRGrid()(schedule, 6)
    for coordinate in ("straight", "sigma", "noise", "data"):
        rows = Multistep(1, coordinate, 1.0, corrector=False).plan(schedule, times)
        alpha, sigma, _ = schedule_values(schedule, times)
        for i, row in enumerate(rows):
            clean, noisy, std = posterior_coefficients(schedule, double(times[i]), double(times[i + 1]))
            # x = A x + B (p x + q D) + C z
            assert isinstance(row.decay, float)
            assert isinstance(row.noise, float)
            p, q, weight = float(row.p), float(row.q), float(row.weights[0])
            assert row.decay + weight * p == pytest.approx(float(noisy), rel=1e-8, abs=1e-12)
            assert weight * q == pytest.approx(float(clean), rel=1e-8, abs=1e-12)
            assert row.noise == pytest.approx(float(std), rel=1e-9)
            reached = (float(alpha[i + 1]), float(sigma[i + 1]))
            kept = row.decay + weight * p
            assert kept * float(alpha[i]) + weight * q == pytest.approx(reached[0], rel=1e-8)
            assert kept**2 * float(sigma[i]) ** 2 + row.noise**2 == pytest.approx(reached[1] ** 2, rel=1e-8)


def test_14_ancestral_samples_equal_ddim_with_eta_one(targets: SimpleNamespace) -> None:
    oracle = targets.m2(GaussianPath(Cosine()))
    a, b, c = (
        Sampler(s, UniformGrid(end=0.0), 9)(oracle, normal(6, 2), generator=3).x
        for s in (Ancestral(), DDIM(1.0), Multistep(1, "data", 1.0, corrector=False))
    )
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(a, c, rtol=1e-9, atol=1e-9)


# 15: the law of the result


def test_15_stochastic_samplers_reach_the_law_of_the_data(
    affine: Stepper, schedule: Schedule, moments: Callable[..., Any], moderate: Callable[[Schedule], Schedule]
) -> None:
    """Exact moments for Gaussian data: close at n steps, and at least 1.5 times closer at 2n."""
    in_time = isinstance(affine, EulerMaruyama)
    if in_time:
        schedule = moderate(schedule)
    errors = []
    for steps in (50, 100) if in_time else (32, 64):
        m = moments(schedule, affine, (UniformGrid() if in_time else LogSNRGrid())(schedule, steps), 0.8, 0.6)
        mean = abs(m.mean - m.true_mean)
        errors.append(math.hypot(mean, math.sqrt(m.variance) - math.sqrt(m.true_variance)) / math.sqrt(m.true_variance))
    assert errors[0] < 0.25
    assert errors[1] < max(errors[0] / 1.5, 0.01)


def test_15_noise_never_blows_up_at_few_steps(affine: Stepper, schedule: Schedule, moments: Callable[..., Any]) -> None:
    if isinstance(affine, EulerMaruyama | StochasticHeun):
        return  # explicit: stable at many steps only
    for steps in (1, 2, 3, 5, 8):
        m = moments(schedule, affine, LogSNRGrid()(schedule, steps), 0.8, 0.6)
        assert m.variance < 3 * m.true_variance
        assert abs(m.mean - m.true_mean) < 1


@pytest.mark.parametrize(
    "stepper",
    [
        PredictorCorrector(),
        PredictorCorrector(Ancestral(), AnnealedLangevin(0.2, steps=2)),
        PredictorCorrector(EulerMaruyama(), Langevin(0.1, steps=2)),
    ],
    ids=["norms", "annealed", "euler"],
)
def test_15_predictor_correctors_reach_the_law_of_the_data(stepper: Stepper) -> None:
    n, d = 600, 32
    path = GaussianPath(VP())
    oracle = GaussianOracle(torch.full((d,), 0.8), torch.full((d,), 0.36), path)
    sampler = Sampler(stepper, UniformGrid(), 120)
    x = sampler(oracle, normal(n, d), generator=0).x
    assert float(x.mean()) == pytest.approx(0.8, abs=0.02)
    assert float(x.std()) == pytest.approx(0.6, rel=0.05)


@pytest.mark.parametrize("corrector", [Langevin(0.15, steps=120), AnnealedLangevin(0.15, steps=250)])
def test_15_correctors_leave_the_marginal_alone_and_pull_towards_it(corrector: Any) -> None:
    n, d, t = 60, 256, 0.3  # steps scaled by norms are unbiased for many entries only
    path = GaussianPath(VP())
    oracle = GaussianOracle(torch.full((d,), 0.8), torch.full((d,), 0.36), path)
    alpha, sigma = (float(v) for v in (VP().alpha(double(t)), VP().sigma(double(t))))
    std, source = math.hypot(0.6 * alpha, sigma), NoiseSource(0, range(n))
    for start in (alpha * 0.8 + std * normal(n, d), 0.5 * normal(n, d)):
        solution = corrector.correct(path, start, t, 0, lambda key: source.normal((n, d), key).double())
        reply: Any = None
        while True:
            try:
                x, moment, _ = solution.send(reply)
            except StopIteration as stop:
                result = stop.value
                break
            reply = oracle.denoise(x, double(moment))
        assert float(result.mean()) == pytest.approx(alpha * 0.8, abs=0.03)
        assert float(result.std()) == pytest.approx(std, rel=0.05)


def test_15_langevin_steps_have_the_asked_signal_to_noise_ratio() -> None:
    path, x = GaussianPath(VE()), normal(3, 50)
    clean, z = normal(3, 50, seed=1), normal(3, 50, seed=2)
    solution = Langevin(snr=0.2).correct(path, x, 0.5, 0, lambda key: z)
    next(solution)
    with pytest.raises(StopIteration) as stop:
        solution.send(clean)
    score = (clean - x) / VE().sigma(double(0.5)) ** 2
    step = 2 * (0.2 * z.norm(dim=1) / score.norm(dim=1)) ** 2
    expected = x + step[:, None] * score + (2 * step).sqrt()[:, None] * z
    torch.testing.assert_close(stop.value.value, expected)


@pytest.mark.parametrize("churn", [0.0, 5.0, 40.0, 1000.0])
def test_15_churned_heun_never_exceeds_the_first_level_and_asks_at_the_raised_time(churn: float) -> None:
    schedule = EDM()
    times = UniformGrid()(schedule, 5)
    draw = lambda key: torch.ones(1, 1, dtype=torch.float64)  # noqa: E731
    solution = StochasticHeun(churn=churn).solve(GaussianPath(schedule), times, double([[80.0]]), draw)
    asked, reply = [], None
    while True:
        try:
            x, t, _ = solution.send(reply)  # pyright: ignore[reportArgumentType]
        except StopIteration:
            break
        asked.append(t)
        reply = 0 * x
    gamma = min(churn / 5, math.sqrt(2) - 1)
    raised = [min(float(schedule.sigma(double(t))) * (1 + gamma), 80.0) for t in times[:-1]]
    assert [float(schedule.sigma(double(t))) for t in asked[::2]] == pytest.approx(raised, rel=1e-9)
    assert asked[1::2] == pytest.approx(times[1:], abs=1e-12)


def test_15_churn_happens_inside_its_range_only(targets: SimpleNamespace) -> None:
    oracle, start = targets.m2(GaussianPath(VE())), 50 * normal(3, 2)
    plain = Sampler(StochasticHeun(), LogSNRGrid(), 6)(oracle, start).x
    outside = Sampler(StochasticHeun(churn=5.0, noise_min=60.0), LogSNRGrid(), 6)(oracle, start).x
    inside = Sampler(StochasticHeun(churn=5.0, noise_min=0.1, noise_max=1.0), LogSNRGrid(), 6)(
        oracle, start, generator=0
    ).x
    assert torch.equal(plain, outside)
    assert not torch.allclose(plain, inside)


# 20, 21, 22: supports, padding, symmetry


def on_support(
    case: Any, schedule: Schedule, network: nn.Module, parameterization: Parameterization | None = None
) -> Denoiser:
    return Denoiser(network, GaussianPath(schedule, case.support), parameterization or V())


def test_20_samples_do_not_depend_on_padding_or_batch_mates(
    few: Stepper, case: Any, make_mixer: Callable[..., nn.Module]
) -> None:
    denoiser = on_support(case, VP(), make_mixer())
    sampler, source, mask = Sampler(few, LogSNRGrid(), 3), NoiseSource(11, [4, 9, 2]), case.mask()
    like = case.state(0)
    x_T = denoiser.path.prior(like, source, mask)
    short = sampler(denoiser, x_T, generator=source, mask=mask).x
    long = sampler(denoiser, case.pad(x_T, 3), generator=source, mask=case.mask(size=8)).x
    torch.testing.assert_close(case.crop(long), short, rtol=1e-8, atol=1e-9)
    assert torch.equal(long, case.pad(case.crop(long), 3))
    garbage = sampler(denoiser, case.pad(x_T, 3, float("nan")), generator=source, mask=case.mask(size=8)).x
    torch.testing.assert_close(garbage, long)
    for b in range(3):
        alone = sampler(denoiser, x_T[b : b + 1], generator=source[b : b + 1], mask=mask[b : b + 1]).x
        torch.testing.assert_close(alone, short[b : b + 1], rtol=1e-8, atol=1e-9)


def test_21_samples_stay_on_their_support(few: Stepper, case: Any, make_mixer: Callable[..., nn.Module]) -> None:
    denoiser, mask = on_support(case, VP(), make_mixer()), case.mask()
    like = case.state(0)
    x_T = denoiser.path.prior(like, NoiseSource(0, range(3)), mask)
    x = Sampler(few, LogSNRGrid(), 3)(denoiser, x_T, generator=0, mask=mask).x
    assert x.shape == like.shape
    torch.testing.assert_close(case.support.project(x, mask), x, rtol=0, atol=1e-9)
    assert (x[~case.support.real(x, mask).expand(x.shape)] == 0).all()


def test_21_drawn_states_have_the_asked_shape_and_symmetry(
    stepper: Stepper, make_mixer: Callable[..., nn.Module]
) -> None:
    denoiser, mask = Denoiser(make_mixer(), GaussianPath(VP(), Symmetric()), V()), torch.ones(2, 5, dtype=torch.bool)
    mask[1, 3:] = False
    x = Sampler(stepper, LogSNRGrid(), 3)(denoiser, (2, 5, 5), generator=0, mask=mask).x
    assert x.shape == (2, 5, 5)
    assert torch.equal(x, x.transpose(1, 2))
    assert (torch.diagonal(x, dim1=1, dim2=2) == 0).all()
    assert (x[1, 3:] == 0).all()


def test_21_given_states_are_projected_on_the_support(case: Any, make_mixer: Callable[..., nn.Module]) -> None:
    denoiser, mask = on_support(case, VP(), make_mixer()), case.mask()
    x, sampler = case.state(3), Sampler(Multistep(), UniformGrid(), 3)
    ours = sampler(denoiser, x, mask=mask, start=0.5).x
    torch.testing.assert_close(ours, sampler(denoiser, case.support.project(x, mask), mask=mask, start=0.5).x)


class Equivariant(nn.Module):
    """Moves every particle along its neighbours and along a vector that is not center-free."""

    def forward(self, x: Tensor, t: Tensor, *, mask: Tensor | None = None, condition: Any = None) -> Tensor:
        real = torch.ones(x.shape[:2], dtype=torch.bool) if mask is None else mask
        offset = x[:, :, None] - x[:, None]
        weight = torch.exp(-(offset**2).sum(-1) - t[:, None, None]) * (real[:, :, None] & real[:, None])
        pull = (weight[..., None] * offset).sum(2)
        return pull + x[:, :1] * 0.7 + torch.tanh(x.pow(2).sum((1, 2), keepdim=True)) * x[:, 1:2]


def test_22_rotated_starts_and_noise_give_rotated_samples(few: Stepper) -> None:
    path = GaussianPath(VP(), CenterFree())
    mask = torch.tensor([[True] * 5, [True, True, True, True, False]])
    rotation, _ = torch.linalg.qr(normal(3, 3))
    times = LogSNRGrid()(VP(), 4)
    source = NoiseSource(0, range(2))

    def run(turn: Tensor) -> Tensor:
        denoiser = Denoiser(Equivariant(), path, Data())
        x = path.prior(normal(2, 5, 3), source, mask) @ turn
        solution = few.solve(path, times, x, lambda key: path.noise(x, source, mask, key + 1) @ turn)
        reply: Any = None
        while True:
            try:
                x_t, t, _ = solution.send(reply)
            except StopIteration as stop:
                return stop.value
            assert float(x_t.sum(1).abs().max()) < 1e-9 * (1 + float(x_t.abs().max()))
            reply = denoiser(x_t, double(t), mask=mask)

    straight = run(torch.eye(3, dtype=torch.float64)) @ rotation
    torch.testing.assert_close(run(rotation), straight, rtol=1e-6, atol=1e-7 * (1 + float(straight.abs().max())))


# 27, 37: determinism


def test_27_the_same_generator_gives_the_same_sample(stepper: Stepper, make_mixer: Callable[..., nn.Module]) -> None:
    denoiser, sampler = Denoiser(make_mixer(), GaussianPath(VP())), Sampler(stepper, LogSNRGrid(), 4)
    first, again, other = (sampler(denoiser, (5, 3), generator=g).x for g in (7, 7, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    by_ids = sampler(denoiser, (2, 3), generator=NoiseSource(7, [3, 1])).x
    torch.testing.assert_close(by_ids, first[[3, 1]])
    torch_generators = [sampler(denoiser, (5, 3), generator=torch.Generator().manual_seed(7)).x for _ in range(2)]
    assert torch.equal(*torch_generators)


def test_27_every_step_draws_its_own_noise(affine: Stepper) -> None:
    used: list[int] = []
    x = torch.zeros(2, 1, dtype=torch.float64)

    def draw(key: int) -> Tensor:
        used.append(key)
        return x

    steps = 5
    solution = affine.solve(GaussianPath(VP()), LogSNRGrid()(VP(), steps), x, draw)
    reply: Any = None
    try:
        while True:
            reply = 0 * solution.send(reply)[0]
    except StopIteration:
        pass
    assert len(set(used)) == len(used)
    assert len(used) == steps - isinstance(affine, StochasticHeun)  # it does not churn above the first level


def test_27_correctors_and_predictors_draw_different_noise() -> None:
    used: list[int] = []

    def draw(key: int) -> Tensor:
        used.append(key)
        return torch.ones(2, 1, dtype=torch.float64)

    stepper = PredictorCorrector(Ancestral(), Langevin(steps=2))
    solution = stepper.solve(GaussianPath(VP()), UniformGrid()(VP(), 4), torch.ones(2, 1).double(), draw)
    reply: Any = None
    try:
        while True:
            reply = 0 * solution.send(reply)[0]
    except StopIteration:
        pass
    assert len(used) == len(set(used)) == 12


def test_27_the_prior_and_the_steps_draw_different_noise() -> None:
    """Key 0 is the prior: the first step's noise must not be the noise of the start."""
    n = 2000
    path = GaussianPath(VP())
    source = NoiseSource(0, range(n))
    seen: list[Tensor] = []

    class Zero(BaseDenoiser):
        def __init__(self) -> None:
            super().__init__()
            self.path = path

        def forward(self, x_t: Tensor, t: Tensor, *, mask: Any = None, condition: Any = None) -> Tensor:
            seen.append(x_t)
            return torch.zeros_like(x_t)

    x = Sampler(Ancestral(), TimesGrid(times=(1.0, 0.5)), 1)(Zero(), (n, 1), generator=source).x
    _, noisy, std = posterior_coefficients(VP(), double(1.0), double(0.5))
    noise = (x - noisy * seen[0]) / std
    assert abs(float(torch.corrcoef(torch.stack([noise[:, 0], seen[0][:, 0].double()]))[0, 1])) < 5 / math.sqrt(n)


def test_37_samplers_leave_the_global_generator_alone(few: Stepper, make_mixer: Callable[..., nn.Module]) -> None:
    denoiser = Denoiser(make_mixer(), GaussianPath(VP()))
    state = torch.get_rng_state()
    a = Sampler(few, LogSNRGrid(), 3)(denoiser, (2, 3), generator=5).x
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert torch.equal(Sampler(few, LogSNRGrid(), 3)(denoiser, (2, 3), generator=5).x, a)


# 28: few steps, single precision


def test_28_few_steps_are_finite_in_single_precision(schedule: Schedule, make_mixer: Callable[..., nn.Module]) -> None:
    tame = Multistep(), Multistep(3, "data", 1.0), Multistep(1, "straight", 1.0), DDIM(), Ancestral()
    wild = StochasticHeun(churn=5.0), RungeKutta("midpoint"), PredictorCorrector(), Multistep(3, "noise")
    denoiser = Denoiser(make_mixer(), GaussianPath(schedule), V())
    for stepper in (*tame, *wild):
        for grid, steps in ((UniformGrid(), 1), (LogSNRGrid(end=0.0), 2), (KarrasGrid(), 2), (StraightGrid(), 5)):
            x = Sampler(stepper, grid, steps)(denoiser, (3, 4), generator=0).x
            assert x.dtype == torch.float32
            assert torch.isfinite(x).all()
            if stepper in tame:
                assert float(x.abs().max()) < 100


def test_28_single_precision_follows_double_precision(stepper: Stepper, make_mixer: Callable[..., nn.Module]) -> None:
    denoiser, sampler = Denoiser(make_mixer(), GaussianPath(VP())), Sampler(stepper, LogSNRGrid(), 5)
    x = normal(4, 3)
    single = sampler(denoiser, x.float(), generator=2).x
    torch.testing.assert_close(single.double(), sampler(denoiser, x, generator=2).x, rtol=2e-3, atol=2e-3)


# ends and starts


@pytest.mark.parametrize("schedule", [VP(), Cosine(), Rectified(), SubVP()], ids=lambda s: type(s).__name__)
def test_a_last_step_to_zero_is_the_data_prediction(
    schedule: Schedule, stepper: Stepper, make_mixer: Callable[..., nn.Module]
) -> None:
    if isinstance(stepper, Singlestep):
        with pytest.raises(ValueError, match="must end at t_min"):
            Sampler(stepper, UniformGrid(end=0.0), 3)(
                Denoiser(make_mixer(), GaussianPath(schedule)), (2, 3), generator=0
            )
        return
    if EulerMaruyama in (type(stepper), type(getattr(stepper, "predictor", None))):
        return  # solves in t: no data prediction
    last: list[Tensor] = []
    base = Denoiser(make_mixer(), GaussianPath(schedule))

    class Recorder(BaseDenoiser):
        def __init__(self) -> None:
            super().__init__()
            self.path = base.path

        def forward(self, x_t: Tensor, t: Tensor, *, mask: Any = None, condition: Any = None) -> Tensor:
            last.append(base(x_t, t))
            return last[-1]

    result = Sampler(stepper, UniformGrid(end=0.0), 3)(Recorder(), normal(2, 3), generator=0)
    torch.testing.assert_close(result.x, last[-1], rtol=1e-9, atol=1e-9)
    assert result.times[-1] == 0


def test_runs_can_be_cut_anywhere_and_continued(make_mixer: Callable[..., nn.Module]) -> None:
    """Order-1 solvers have no memory: two runs with a hand-over state are one run."""
    denoiser = Denoiser(make_mixer(), GaussianPath(VP()))
    for stepper in (DDIM(), RungeKutta("heun", "sigma"), StochasticHeun()):
        whole = Sampler(stepper, TimesGrid(times=(1.0, 0.7, 0.4, 0.1)), 3)(denoiser, normal(2, 3)).x
        first = Sampler(stepper, TimesGrid(times=(1.0, 0.7, 0.4)), 2)(denoiser, normal(2, 3)).x
        second = Sampler(stepper, TimesGrid(times=(0.4, 0.1)), 1)(denoiser, first, start=0.4).x
        torch.testing.assert_close(second, whole, rtol=1e-9, atol=1e-10)


def test_starting_late_follows_the_exact_flow(deterministic: Stepper, targets: SimpleNamespace) -> None:
    oracle = targets.small(GaussianPath(VP()))
    x = normal(20, 2)
    sample = Sampler(deterministic, LogSNRGrid(), 40)(oracle, x, start=0.3)
    assert sample.times[0] == 0.3
    exact = oracle.flow(x, double(0.3), double(VP().t_min))
    assert float((sample.x - exact).abs().mean()) < 0.08


def test_starting_states_are_not_changed_in_place(stepper: Stepper, make_mixer: Callable[..., nn.Module]) -> None:
    x = normal(2, 3)
    before = x.clone()
    Sampler(stepper, LogSNRGrid(), 3)(Denoiser(make_mixer(), GaussianPath(VP())), x, generator=0)
    assert torch.equal(x, before)


def test_predictions_are_not_changed_in_place(stepper: Stepper) -> None:
    """A denoiser may return a tensor it keeps."""
    kept = normal(2, 3)

    class Keeper(BaseDenoiser):
        def __init__(self) -> None:
            super().__init__()
            self.path = GaussianPath(VP())

        def forward(self, x_t: Tensor, t: Tensor, *, mask: Any = None, condition: Any = None) -> Tensor:
            return kept

    before = kept.clone()
    Sampler(stepper, LogSNRGrid(), 4)(Keeper(), (2, 3), generator=0)
    assert torch.equal(kept, before)


# order lowering


def effective_orders(stepper: Multistep, steps: int) -> list[int]:
    return [len(row.weights) for row in stepper.plan(VP(), LogSNRGrid()(VP(), steps))]


def test_orders_rise_at_the_start_and_fall_at_the_end() -> None:
    assert effective_orders(Multistep(3, "data"), 6) == [1, 2, 3, 3, 2, 1]
    assert effective_orders(Multistep(2, "noise"), 5) == [1, 2, 2, 2, 1]
    assert effective_orders(Multistep(3, lower_order_final=True), 6) == [1, 2, 3, 3, 2, 1]
    assert effective_orders(Multistep(3), 5) == effective_orders(Multistep(3, "trig"), 5) == [1, 2, 3, 3, 3]
    assert effective_orders(Multistep(2), 1) == [1]
    assert effective_orders(Multistep(3, "data", eta=1.0), 6) == [1, 2, 2, 2, 2, 1]
    assert effective_orders(Multistep(2, "data", eta=1.0), 5) == [1] * 5
    rows = Multistep(2).plan(VP(), LogSNRGrid()(VP(), 4))
    assert [len(row.corrector) for row in rows] == [2, 3, 3, 0]
    assert all(row.corrector == () for row in Multistep(2, corrector=False).plan(VP(), (1.0, 0.5, 0.1)))


def test_plans_to_clean_data_end_with_a_plain_prediction() -> None:
    for coordinate in COORDINATES:
        row = Multistep(3, coordinate).plan(VP(), (1.0, 0.5, 0.2, 0.0))[-1]
        assert (row.decay, row.p, row.q, row.weights, row.noise) == (0, 0, 1, (1.0,), 0)


@pytest.mark.parametrize("stepper", [Multistep(), Multistep(2, "data", 0.5), RungeKutta(), Ancestral()])
def test_single_steps_from_anywhere_work(stepper: Stepper, targets: SimpleNamespace) -> None:
    x = Sampler(stepper, UniformGrid(), 1)(targets.m2(GaussianPath(VP())), normal(3, 2), start=0.01, generator=0).x
    assert torch.isfinite(x).all()


# evaluations, callbacks


def test_evaluations_are_counted_per_sample(make_mixer: Callable[..., nn.Module]) -> None:
    denoiser = Denoiser(make_mixer(), GaussianPath(VP()))
    expected = [
        (Multistep(), 6),
        (RungeKutta("heun"), 12),
        (RungeKutta("rk4"), 24),
        (StochasticHeun(), 12),
        (Ancestral(), 6),
        (PredictorCorrector(), 12),
        (PredictorCorrector(Ancestral(), Langevin(steps=3)), 24),
        (Singlestep(3), 6),
        (Singlestep(2), 6),
    ]
    for stepper, evaluations in expected:
        sample = Sampler(stepper, LogSNRGrid(), 6)(denoiser, (4, 2), generator=0)
        assert sample.evaluations == evaluations
        assert sample.seconds > 0
        assert len(sample.times) == 7
    assert Sampler(RungeKutta("heun"), UniformGrid(end=0.0), 6)(denoiser, (4, 2), generator=0).evaluations == 11


def test_callbacks_see_every_step_and_can_interrupt(few: Stepper, make_mixer: Callable[..., nn.Module]) -> None:
    denoiser, sampler = Denoiser(make_mixer(), GaussianPath(VP())), Sampler(few, LogSNRGrid(), 6)
    seen: list[tuple[int, int, float]] = []

    def watch(step: int, steps: int, t: float, x: Any) -> None:
        assert x.shape == (2, 3)
        seen.append((step, steps, t))

    sampler(denoiser, (2, 3), generator=0, callback=watch)
    assert [step for step, _, _ in seen] == list(range(len(seen)))
    assert all(steps == 6 for _, steps, _ in seen)
    assert [t for _, _, t in seen] == sorted((t for _, _, t in seen), reverse=True)
    if not isinstance(few, Singlestep):
        assert len(seen) == 6

    def stop(step: int, steps: int, t: float, x: Any) -> None:
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sampler(denoiser, (2, 3), generator=0, callback=stop)


def test_samplers_do_not_track_gradients(make_mixer: Callable[..., nn.Module]) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor, t: Tensor, *, mask: Any = None, condition: Any = None) -> Tensor:
            return self.scale * x

    denoiser = Denoiser(Scaled(), GaussianPath(VP()))
    x = Sampler(Multistep(), steps=2)(denoiser, (2, 3), generator=0).x
    assert not x.requires_grad
    assert denoiser(x, torch.tensor(0.5)).requires_grad


@pytest.mark.parametrize("coordinate", [*COORDINATES.values(), Trig(0.3), Trig(4.0)], ids=str)
def test_coordinates_know_the_logsnr_of_their_positions(coordinate: Coordinate) -> None:
    alpha, sigma = np.array([0.9, 0.5, 0.1]), np.array([0.1, 0.5, 2.0])
    there = coordinate.logsnr_at(coordinate.position(alpha, sigma))
    np.testing.assert_allclose(there, np.log(alpha / sigma), rtol=1e-12, atol=1e-12)


# centered paths


def test_centered_samples_are_plain_samples_plus_the_center(stepper: Stepper, targets: SimpleNamespace) -> None:
    """With data shifted by y and the default weight, x - beta y runs exactly as without a center."""
    y = double([[2.0, -1.0]])
    plain = targets.small(GaussianPath(VP()))
    centered = targets.small(Centered(GaussianPath(VP()), y))
    sampler, x = Sampler(stepper, LogSNRGrid(), 5), normal(3, 2)
    beta = 1 - VP().alpha(double([VP().t_max, VP().t_min]))
    ours = sampler(centered, x + beta[0] * y, generator=1).x
    torch.testing.assert_close(ours, sampler(plain, x, generator=1).x + beta[1] * y, rtol=1e-8, atol=1e-9)
    start = centered.path.prior(torch.empty(3, 2), NoiseSource(1, range(3)))
    torch.testing.assert_close(sampler(centered, (3, 2), generator=1).x, sampler(centered, start, generator=1).x)


# vector-valued schedules


@pytest.mark.parametrize(
    "stepper",
    [
        Multistep(),
        Multistep(3, "data"),
        Multistep(2, "noise", corrector=False),
        Multistep(2, "trig"),
        DDIM(),
        DPMSolverPP(2),
        AdamsBashforth(3),
    ],
    ids=str,
)
def test_vector_valued_schedules_run_every_channel_on_its_own(
    stepper: Stepper, vector: VP, targets: SimpleNamespace
) -> None:
    """No generator is needed at eta = 0, and channel c is the scalar run with its own rate."""
    rates = (0.5, 1.0, 2.0)
    x = normal(4, 3)
    variances, mean = double([0.2, 0.5, 1.3]), double([0.4, -0.3, 1.0])

    class PerChannel(BaseDenoiser):
        def __init__(self) -> None:
            super().__init__()
            self.path = GaussianPath(vector)

        def forward(self, x_t: Tensor, t: Tensor, *, mask: Any = None, condition: Any = None) -> Tensor:
            alpha, sigma = vector.alpha(t), vector.sigma(t)
            return mean + alpha * variances / (alpha**2 * variances + sigma**2) * (x_t - alpha * mean)

    for end in (None, 0.0):
        together = Sampler(stepper, UniformGrid(end=end), 6)(PerChannel(), x).x
        for c, rate in enumerate(rates):
            scalar = GaussianPath(VP(beta_min=0.1 * rate, beta_max=20.0 * rate))
            oracle = GaussianOracle(mean[c : c + 1], variances[c : c + 1], scalar)
            alone = Sampler(stepper, UniformGrid(end=end), 6)(oracle, x[:, c : c + 1]).x
            torch.testing.assert_close(together[:, c : c + 1], alone, rtol=1e-8, atol=1e-9)
    single = Sampler(stepper, UniformGrid(), 6)(PerChannel(), x.float()).x
    assert single.dtype == torch.float32


@pytest.mark.parametrize("stepper", [Ancestral(), DDIM(1.0), Multistep(2, "data", 0.5), EulerMaruyama()], ids=str)
def test_vector_valued_schedules_take_noise(stepper: Stepper, vector: VP, make_mixer: Callable[..., nn.Module]) -> None:
    denoiser = Denoiser(make_mixer(), GaussianPath(vector))
    x = Sampler(stepper, UniformGrid(), 100)(denoiser, (2, 5, 3), generator=0).x
    assert x.shape == (2, 5, 3)
    assert torch.isfinite(x).all()
    if isinstance(stepper, Ancestral):
        same = Sampler(DDIM(1.0), UniformGrid(), 100)(denoiser, (2, 5, 3), generator=0).x
        torch.testing.assert_close(x, same, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("stepper", [RungeKutta(), StochasticHeun()])
def test_one_step_solvers_say_that_they_need_a_scalar_schedule(
    stepper: Stepper, vector: VP, make_mixer: Callable[..., nn.Module]
) -> None:
    with pytest.raises(ValueError, match="scalar schedule; use Multistep"):
        Sampler(stepper, UniformGrid(), 2)(Denoiser(make_mixer(), GaussianPath(vector)), (2, 3), generator=0)


# 29: joint paths


class Separate(nn.Module):
    """Independent networks behind one call."""

    def __init__(self, mixer: nn.Module) -> None:
        super().__init__()
        self.mixer = mixer

    def forward(self, x: dict[str, Tensor], t: Tensor, *, mask: Any = None, condition: Any = None) -> dict[str, Tensor]:
        masks = mask or {}
        return {
            k: self.mixer(v, t, mask=masks.get(k))
            if v.dtype.is_floating_point
            else torch.stack([torch.sin(v.double() * k + t[:, None].double()) for k in range(3)], -1)
            for k, v in x.items()
        }


def test_29_independent_components_are_sampled_as_if_alone(few: Stepper, make_mixer: Callable[..., nn.Module]) -> None:
    components = {"x": GaussianPath(VP()), "adj": GaussianPath(VP(), Symmetric())}
    mixer, nodes = make_mixer(), torch.tensor([[True] * 4, [True, True, True, False]])
    joint = JointDenoiser(Separate(mixer), JointPath(components), V())
    shapes, mask = {"x": (2, 4, 3), "adj": (2, 4, 4)}, {"x": nodes, "adj": nodes}
    source, sampler = NoiseSource(9, range(2)), Sampler(few, LogSNRGrid(), 4)
    together = sampler(joint, shapes, generator=source, mask=mask)
    for index, name in enumerate(components):
        alone = Denoiser(mixer, components[name], V(), data_std=None)
        expected = sampler(alone, shapes[name], generator=source.spawn(index), mask=nodes)
        torch.testing.assert_close(together.x[name], expected.x, rtol=1e-5, atol=1e-5)
        assert together.evaluations == expected.evaluations


def test_29_components_may_have_their_own_schedules_and_steppers(make_mixer: Callable[..., nn.Module]) -> None:
    mixer = make_mixer()
    path = JointPath({"x": GaussianPath(VP()), "c": CategoricalPath.uniform(VP(), 3), "y": GaussianPath(SubVP())})
    joint = JointDenoiser(Separate(mixer), path, {"x": V(), "y": Velocity()})
    steppers = {"x": Multistep(), "c": Ancestral(), "y": DDIM(1.0)}
    shapes = {"x": (2, 4, 3), "c": (2, 4), "y": (2, 5)}
    seen: list[Any] = []
    sample = Sampler(steppers, UniformGrid(end=0.0), 5)(
        joint, shapes, generator=0, callback=lambda step, steps, t, x: seen.append(set(x))
    )
    assert seen == [set(shapes)] * 5
    assert sample.evaluations == 5
    assert sample.x["c"].dtype == torch.int64
    source = NoiseSource(0, range(2))
    for index, name in ((0, "x"), (2, "y")):
        component, parameterization = path[name], joint.heads[name]
        assert isinstance(component, GaussianPath)
        assert isinstance(parameterization, Denoiser)
        alone = Denoiser(mixer, component, parameterization.parameterization, data_std=None)
        expected = Sampler(steppers[name], UniformGrid(end=0.0), 5)(alone, shapes[name], generator=source.spawn(index))
        torch.testing.assert_close(sample.x[name], expected.x, rtol=1e-5, atol=1e-5)
    alone = CategoricalDenoiser(Only(joint.network), path.components["c"])  # pyright: ignore[reportArgumentType]
    expected = Sampler(Ancestral(), UniformGrid(end=0.0), 5)(alone, (2, 4), generator=source.spawn(1))
    assert torch.equal(sample.x["c"], expected.x)


class Only(nn.Module):
    """The categorical part of a joint network."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor, *, mask: Any = None, condition: Any = None) -> Tensor:
        return self.network({"c": x}, t)["c"]


def test_29_joint_samplers_explain_what_is_wrong(make_mixer: Callable[..., nn.Module]) -> None:
    path = JointPath({"x": GaussianPath(VP()), "y": GaussianPath(VE())})
    joint = JointDenoiser(Separate(make_mixer()), path, V())
    with pytest.raises(ValueError, match=r"keys \['x', 'y'\]"):
        Sampler(Multistep())(joint, (2, 3), generator=0)
    with pytest.raises(ValueError, match=r"keys \['x', 'y'\]"):
        Sampler(Multistep())(joint, {"x": (2, 3)}, generator=0)
    with pytest.raises(ValueError, match=r"steppers are given for \['x'\]"):
        Sampler({"x": Multistep()})(joint, {"x": (2, 3), "y": (2, 3)}, generator=0)
    shapes = {"x": (2, 3), "y": (2, 3)}
    with pytest.raises(ValueError, match=r"at different times|same number of evaluations"):
        Sampler({"x": Multistep(), "y": RungeKutta("heun")}, steps=2)(joint, shapes, generator=0)
    with pytest.raises(ValueError, match="at different times"):
        Sampler(RungeKutta("midpoint", "sigma"), steps=2)(joint, shapes, generator=0)
    with pytest.raises(ValueError, match="same number of evaluations"):
        Sampler({"x": Multistep(), "y": RungeKutta("heun")}, steps=1)(joint, shapes, generator=0)


# 34: the compiled step


def test_34_the_step_compiles_and_equals_eager() -> None:
    compiled = torch.compile(multistep_update, backend="eager", fullgraph=True)
    x, features = normal(3, 4), [normal(3, 4, seed=i + 1) for i in range(3)]
    for coefficient in (float, lambda v: torch.full((4,), v, dtype=torch.float64)):
        decay, weights = coefficient(0.7), [coefficient(v) for v in (0.4, -0.2, 0.05)]
        for noise in (None, normal(3, 4, seed=9)):
            expected = 0.7 * x + 0.4 * features[0] - 0.2 * features[1] + 0.05 * features[2]
            expected = expected if noise is None else expected + noise
            for function in (multistep_update, compiled):
                torch.testing.assert_close(function(x, features, decay, weights, noise), expected)


def test_34_samplers_take_compiled_networks(make_mixer: Callable[..., nn.Module]) -> None:
    network = make_mixer()
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    assert isinstance(compiled, nn.Module)
    path, sampler, x = GaussianPath(VP()), Sampler(Multistep(), StraightGrid(), 3), normal(2, 3)
    torch.testing.assert_close(sampler(Denoiser(compiled, path), x).x, sampler(Denoiser(network, path), x).x)


# borders


def test_samplers_explain_what_is_wrong(make_mixer: Callable[..., nn.Module]) -> None:
    denoiser = Denoiser(make_mixer(), GaussianPath(VP()))
    with pytest.raises(ValueError, match="draws noise: pass generator="):
        Sampler(Multistep())(denoiser, (2, 3))
    with pytest.raises(ValueError, match="draws noise: pass generator="):
        Sampler(Ancestral())(denoiser, normal(2, 3))
    with pytest.raises(ValueError, match="3 sample ids, the batch has 2"):
        Sampler(Multistep())(denoiser, (2, 3), generator=NoiseSource(0, range(3)))
    with pytest.raises(ValueError, match="start needs the state at that time"):
        Sampler(Multistep())(denoiser, (2, 3), generator=0, start=0.5)
    with pytest.raises(ValueError, match="at least 1 step"):
        Sampler(Multistep(), steps=0)(denoiser, (2, 3), generator=0)
    with pytest.raises(ValueError, match="mask of shape"):
        Sampler(Multistep())(denoiser, (2, 3), generator=0, mask=torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="mask of shape"):
        Sampler(Multistep())(denoiser, normal(2, 3), mask=torch.ones(3, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="steppers are given for"):
        Sampler({"x": Multistep()})(denoiser, (2, 3), generator=0)
    assert Sampler(Multistep())(denoiser, normal(2, 3)).x.shape == (2, 3)


@pytest.mark.parametrize("stepper", [Multistep(), Multistep(eta=1.0), Ancestral(), RungeKutta("euler", "time")])
def test_singular_starts_are_refused_by_name(stepper: Stepper, make_mixer: Callable[..., nn.Module]) -> None:
    denoiser = Denoiser(make_mixer(), GaussianPath(Rectified()))
    with pytest.raises(ValueError, match=r"Rectified is singular at t=1.0: start at most at its t_max=0.9999"):
        Sampler(stepper, UniformGrid(), 3)(denoiser, normal(2, 3), start=1.0, generator=0)
    open_ended = Denoiser(make_mixer(), GaussianPath(replace(Rectified(), t_max=1.0)))
    with pytest.raises(ValueError, match=r"singular at t=1\.0"):
        Sampler(stepper, UniformGrid(), 3)(open_ended, (2, 3), generator=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Multistep(4), "order must be 1, 2 or 3"),
        (lambda: Multistep(0), "order must be 1, 2 or 3"),
        (lambda: Multistep(2, "polar"), "unknown coordinate 'polar'; choose one of straight, trig"),
        (lambda: Multistep(eta=-0.1), "eta must be >= 0"),
        (lambda: DDIM(1.2), "eta must be >= 0"),
        (lambda: Multistep(2, "straight", extrapolation="midpoint"), "data and noise coordinates only"),
        (lambda: Multistep(3, "data", extrapolation="midpoint"), "up to order 2"),
        (lambda: Multistep(2, "data", extrapolation="cubic"), "unknown extrapolation 'cubic'"),  # pyright: ignore
        (lambda: RungeKutta("rk5"), "unknown method 'rk5'; choose one of euler"),  # pyright: ignore
        (lambda: RungeKutta("heun", "polar"), "unknown coordinate"),
        (lambda: Singlestep(4), "orders 2 and 3"),
        (lambda: Singlestep(2, "straight"), "orders 2 and 3"),  # pyright: ignore
    ],
)
def test_steppers_explain_what_is_wrong(make: Callable[[], Stepper], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
