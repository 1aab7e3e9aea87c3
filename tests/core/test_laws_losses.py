"""Laws 7-10 and 35: parameterizations, weights and losses, and what padding may do to them."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fourfold.core import (
    EDM,
    OUVE,
    VP,
    CategoricalDenoiser,
    CategoricalLoss,
    CategoricalPath,
    Centered,
    Data,
    DataWeight,
    Denoiser,
    DenoisingLoss,
    DiscreteTime,
    EDMWeight,
    GaussianPath,
    JointDenoiser,
    JointLoss,
    JointPath,
    Karras,
    LogitNormalTime,
    LogSNRInput,
    NetworkWeight,
    Noise,
    NoiseSource,
    NoiseWeight,
    Parameterization,
    Rectified,
    Schedule,
    Score,
    StepInput,
    Symmetric,
    TimeDensity,
    V,
    Velocity,
    VelocityWeight,
    VWeight,
    Weight,
)


def double(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def times_inside(schedule: Schedule, n: int) -> Tensor:
    return double(np.linspace(schedule.t_min, schedule.t_max, n + 2)[1:-1])


def shaped(value: Tensor, x: Tensor) -> Tensor:
    return value.reshape(-1, *(1,) * (x.ndim - 1))


class Written(nn.Module):
    """A network that returns what it is told to, and remembers what it saw."""

    def __init__(self, output: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.output = output
        self.seen: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor, t: Tensor, *, mask: Any = None, condition: Any = None) -> Tensor:
        self.seen = (x, t)
        return self.output(x, t)


def exact_network(denoise: Callable[..., Tensor], schedule: Schedule, parameterization: Parameterization) -> Written:
    """The network whose denoiser is ``denoise`` (for inputs that are not scaled)."""

    def output(x: Tensor, t: Tensor) -> Tensor:
        skip, out = (shaped(c, x) for c in parameterization.scalings(schedule, t))
        return (denoise(x, t) - skip * x) / out

    return Written(output)


def test_7_exact_targets_give_exact_data(schedule: Schedule, parameterization: Parameterization) -> None:
    t = times_inside(schedule, 7)
    x_0, eps = torch.randn(2, 7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    path = GaussianPath(schedule)
    on_data, on_noise = (shaped(c, x_0) for c in parameterization.target_weights(schedule, t))
    denoiser = Denoiser(Written(lambda x, t: on_data * x_0 + on_noise * eps), path, parameterization)
    x_t = path.perturb(x_0, t, eps)
    scale = float((schedule.sigma(t) / schedule.alpha(t)).max())
    torch.testing.assert_close(denoiser(x_t, t), x_0, rtol=1e-9, atol=1e-10 * max(scale, 1))


def test_7_targets_are_what_their_names_say(schedule: Schedule) -> None:
    t = times_inside(schedule, 5)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    zero, one = torch.zeros_like(t), torch.ones_like(t)
    expected = [
        (Data(), one, zero),
        (Noise(), zero, one),
        (Score(), zero, -1 / sigma),
        (V(), -sigma, alpha),
        (Velocity(), schedule.d_alpha(t), schedule.d_sigma(t)),
    ]
    for parameterization, on_data, on_noise in expected:
        ours = parameterization.target_weights(schedule, t)
        torch.testing.assert_close(ours[0], on_data)
        torch.testing.assert_close(ours[1], on_noise)


def test_7_velocity_of_a_rectified_flow_is_noise_minus_data() -> None:
    t = times_inside(Rectified(), 4)
    skip, out = Velocity().scalings(Rectified(), t)
    torch.testing.assert_close(skip, torch.ones_like(t))
    torch.testing.assert_close(out, -t)


@pytest.mark.parametrize("weight", [DataWeight(), NoiseWeight(), VWeight(), VelocityWeight(), EDMWeight(0.6)])
def test_8_the_same_denoiser_has_the_same_loss_in_every_parameterization(
    schedule: Schedule, weight: Weight, registry: SimpleNamespace, targets: SimpleNamespace
) -> None:
    path = GaussianPath(schedule)
    oracle = targets.m2(path)
    x_0, t = oracle.sample(5, 0), times_inside(schedule, 5)
    values = []
    for parameterization in registry.parameterizations.values():
        network = exact_network(oracle.denoise, schedule, parameterization)
        denoiser = Denoiser(network, path, parameterization, data_std=None)
        values.append(DenoisingLoss(denoiser, weight)(x_0, NoiseSource(3, range(5)), t=t).value)
    for value in values[1:]:
        torch.testing.assert_close(value, values[0], rtol=1e-8, atol=1e-10)


WEIGHT_OF: dict[str, Callable[[float, float], float]] = {
    "Data": lambda a, s: 1,
    "Noise": lambda a, s: (a / s) ** 2,
    "V": lambda a, s: 1 + (a / s) ** 2,
    "Velocity": lambda a, s: (1 + a / s) ** 2,
    "EDM": lambda a, s: 1 / 0.36 + (a / s) ** 2,
    "MinSNR": lambda a, s: min((a / s) ** 2, 5.0),
    "Sigmoid": lambda a, s: (a / s) ** 2 / (1 + np.exp(-0.3) * (a / s) ** 2),
}


@pytest.mark.parametrize("name", list(WEIGHT_OF))
def test_9_loss_is_the_weighted_error_of_the_denoiser(
    name: str,
    schedule: Schedule,
    parameterization: Parameterization,
    registry: SimpleNamespace,
    make_mixer: Callable[..., nn.Module],
) -> None:
    """The same number through ``forward`` and through the loss in network space, with the weight in closed form."""
    path = GaussianPath(schedule)
    denoiser = Denoiser(make_mixer(), path, parameterization, data_std=0.8)
    x_0, eps = torch.randn(2, 6, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = times_inside(schedule, 6)
    result = DenoisingLoss(denoiser, registry.weights[name])(x_0, NoiseSource(3, range(6)), t=t, eps=eps)
    error = ((denoiser(path.perturb(x_0, t, eps), t) - x_0) ** 2).flatten(1).mean(1)
    weights = [WEIGHT_OF[name](float(schedule.alpha(v)), float(schedule.sigma(v))) for v in t]
    torch.testing.assert_close(result.value, double(weights) * error, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(result.logsnr, schedule.logsnr(t))
    assert result.t is t


@pytest.mark.parametrize(
    ("schedule", "parameterization", "weight"),
    [
        (VP(), Noise(), NoiseWeight()),
        (VP(), Data(), DataWeight()),
        (VP(), V(), VWeight()),
        (Rectified(), Velocity(), VelocityWeight()),
        (EDM(), Karras(0.6), EDMWeight(0.6)),
    ],
    ids=["eps", "data", "v", "flow", "edm"],
)
def test_9_famous_losses_are_plain_network_errors(
    schedule: Schedule, parameterization: Parameterization, weight: Weight, make_mixer: Callable[..., nn.Module]
) -> None:
    denoiser = Denoiser(make_mixer(), GaussianPath(schedule), parameterization)
    x_0 = torch.randn(6, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plain, weighted = (DenoisingLoss(denoiser, w)(x_0, NoiseSource(3, range(6))) for w in (NetworkWeight(), weight))
    torch.testing.assert_close(plain.value, weighted.value, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(plain.value, DenoisingLoss(denoiser)(x_0, NoiseSource(3, range(6))).value)


def test_9_network_weight_alone_has_no_meaning() -> None:
    with pytest.raises(TypeError, match="relative to a parameterization"):
        NetworkWeight().log(torch.zeros(2))


def test_10_karras_inputs_and_targets_have_unit_variance(schedule: Schedule) -> None:
    t, std = times_inside(schedule, 7), 0.7
    on_data, on_noise = Karras(std).target_weights(schedule, t)
    torch.testing.assert_close((on_data * std) ** 2 + on_noise**2, torch.ones_like(t))
    network = Written(lambda x, t: x)
    for denoiser, sd in (
        (Denoiser(network, GaussianPath(schedule), Karras(std)), std),
        (Denoiser(network, GaussianPath(schedule), Noise()), 1.0),
        (Denoiser(network, GaussianPath(schedule), Karras(std), data_std=1.3), 1.3),
    ):
        denoiser.output(torch.ones(7, 1, dtype=torch.float64), t)
        assert network.seen is not None
        variance = (schedule.alpha(t) * sd) ** 2 + schedule.sigma(t) ** 2
        torch.testing.assert_close(network.seen[0][:, 0] ** 2 * variance, torch.ones_like(t))


def test_10_published_checkpoints_see_the_state_as_it_is() -> None:
    network = Written(lambda x, t: x)
    x, t = torch.full((2, 1), 3.0), torch.tensor(0.3)
    Denoiser(network, GaussianPath(VP()), data_std=None).output(x, t)
    assert network.seen is not None
    torch.testing.assert_close(network.seen[0], x)
    torch.testing.assert_close(network.seen[1], t.expand(2))


def test_networks_must_return_the_shape_of_the_state() -> None:
    denoiser = Denoiser(Written(lambda x, t: x[..., :1]), GaussianPath(VP()))
    with pytest.raises(ValueError, match=r"returned shape \(2, 1\), expected \(2, 3\)"):
        denoiser(torch.zeros(2, 3), torch.tensor(0.5))
    categorical = CategoricalDenoiser(Logits(), CategoricalPath.uniform(VP(), 4))
    with pytest.raises(ValueError, match=r"returned shape \(2, 5, 3\), expected \(2, 5, 4\)"):
        categorical(torch.zeros(2, 5, dtype=torch.long), torch.tensor(0.5))


def test_networks_are_shown_the_time_they_were_trained_on() -> None:
    network = Written(lambda x, t: x)
    x, t = torch.zeros(2, 1), torch.tensor(0.3, dtype=torch.float64)
    for time_input, expected in ((StepInput(100), 29.0), (LogSNRInput(), float(-0.25 * VP().logsnr(t)))):
        Denoiser(network, GaussianPath(VP()), time_input=time_input)(x, t)
        assert network.seen is not None
        assert network.seen[1].dtype == torch.float32
        assert network.seen[1].tolist() == pytest.approx([expected] * 2, rel=1e-6)


def test_networks_on_centered_paths_see_the_state_without_its_center(parameterization: Parameterization) -> None:
    y = double([[2.0, -1.0]])
    t = double([0.2, 0.9])
    x_0, eps = torch.randn(2, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plain, centered = GaussianPath(OUVE()), Centered(GaussianPath(OUVE()), y)
    network = Written(lambda x, t: x.sin())
    ours, theirs = (Denoiser(network, path, parameterization) for path in (centered, plain))
    torch.testing.assert_close(
        ours(centered.perturb(x_0, t, eps), t), theirs(plain.perturb(x_0, t, eps), t), rtol=1e-9, atol=1e-9
    )
    source = NoiseSource(0, range(2))
    torch.testing.assert_close(
        DenoisingLoss(ours)(x_0, source).value, DenoisingLoss(theirs)(x_0, source).value, rtol=1e-9, atol=1e-12
    )


class Line(nn.Module):
    """F = slope x + offset with one pair of coefficients per sample."""

    def __init__(self, slope: Tensor, offset: Tensor) -> None:
        super().__init__()
        self.slope, self.offset = nn.Parameter(slope), nn.Parameter(offset)

    def forward(self, x: Tensor, t: Tensor, *, mask: Any = None, condition: Any = None) -> Tensor:
        return self.slope[:, None] * x + self.offset[:, None]


def test_35_the_loss_is_least_at_the_analytic_regression(
    schedule: Schedule, parameterization: Parameterization, weight: Weight
) -> None:
    """Gaussian data: four points (mean +- std, eps +- 1) have its exact second moments."""
    mean, std, t = 0.4, 0.7, times_inside(schedule, 5)
    x_0 = double([mean + std, mean + std, mean - std, mean - std]).expand(5, 4)
    eps = double([1.0, -1.0, 1.0, -1.0]).expand(5, 4)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    on_data, on_noise = parameterization.target_weights(schedule, t)
    slope = (on_data * alpha * std**2 + on_noise * sigma) / (alpha**2 * std**2 + sigma**2)
    offset = on_data * mean - slope * alpha * mean
    network = Line(slope, offset)
    denoiser = Denoiser(network, GaussianPath(schedule), parameterization, data_std=None)
    value = DenoisingLoss(denoiser, weight)(x_0, NoiseSource(0, range(5)), t=t, eps=eps).value
    value.sum().backward()
    assert network.slope.grad is not None
    assert network.offset.grad is not None
    size = (value.detach() + 1) * (1 + alpha + sigma) * (1 + slope.abs()) * 1e-7
    assert (network.slope.grad.abs() < size).all()
    assert (network.offset.grad.abs() < size).all()
    assert (value > 0).all()


# how losses draw


def test_losses_draw_times_from_the_density(density: TimeDensity, make_mixer: Callable[..., nn.Module]) -> None:
    n, schedule = 4000, VP(t_min=0.1, t_max=0.8)
    denoiser = Denoiser(make_mixer(), GaussianPath(schedule))
    result = DenoisingLoss(denoiser, density=density)(torch.zeros(n, 1).double(), NoiseSource(0, range(n)))
    t = ((result.t - 0.1) / 0.7).sort().values
    expected = density.quantile((torch.arange(n, dtype=torch.float64) + 0.5) / n)
    assert float((t - expected).abs().mean()) < 0.02
    assert result.value.shape == result.t.shape == result.logsnr.shape == (n,)


def test_discrete_times_are_steps_of_the_table() -> None:
    from fourfold.core import Discrete

    table = Discrete.linear(20)
    network = Written(lambda x, t: x)
    denoiser = Denoiser(network, GaussianPath(table), time_input=StepInput(20))
    DenoisingLoss(denoiser, density=DiscreteTime(20))(torch.zeros(500, 1), NoiseSource(0, range(500)))
    assert network.seen is not None
    steps = network.seen[1]
    torch.testing.assert_close(steps, steps.round(), atol=1e-5, rtol=0)
    assert sorted(set(steps.round().tolist())) == list(range(20))


def test_noise_and_times_of_a_loss_are_independent(make_mixer: Callable[..., nn.Module]) -> None:
    n = 4000
    network = Written(lambda x, t: torch.zeros_like(x))
    denoiser = Denoiser(network, GaussianPath(VP()), data_std=None)
    result = DenoisingLoss(denoiser)(torch.zeros(n, 1).double(), NoiseSource(0, range(n)))
    assert network.seen is not None
    eps = network.seen[0][:, 0] / VP().sigma(result.t)
    assert abs(float(torch.corrcoef(torch.stack([eps, result.t]))[0, 1])) < 5 / n**0.5
    torch.testing.assert_close(result.value, eps**2, rtol=1e-9, atol=1e-12)  # F = 0 against the target eps


# padding


def test_20_loss_does_not_depend_on_padding(
    case: Any, parameterization: Parameterization, make_mixer: Callable[..., nn.Module]
) -> None:
    path = GaussianPath(VP(), case.support)
    denoiser = Denoiser(make_mixer(), path, parameterization)
    x_0, mask, source = case.support.project(case.state(0), case.mask()), case.mask(), NoiseSource(1, range(3))
    loss = DenoisingLoss(denoiser, NoiseWeight())
    short = loss(x_0, source, mask=mask)
    long = loss(case.pad(x_0, 3), source, mask=case.mask(size=8))
    torch.testing.assert_close(long.value, short.value, rtol=1e-9, atol=1e-12)
    garbage = loss(case.pad(x_0, 3, float("nan")), source, mask=case.mask(size=8))
    torch.testing.assert_close(garbage.value, short.value, rtol=1e-9, atol=1e-12)
    alone = torch.cat([loss(x_0[b : b + 1], source[b : b + 1], mask=mask[b : b + 1]).value for b in range(3)])
    torch.testing.assert_close(alone, short.value, rtol=1e-9, atol=1e-12)


def test_21_networks_never_see_garbage_in_padding(case: Any) -> None:
    path, mask, source = GaussianPath(VP(), case.support), case.mask(size=8), NoiseSource(1, range(3))
    network = Written(lambda x, t: x)
    DenoisingLoss(Denoiser(network, path))(case.pad(case.state(0), 3, float("nan")), source, mask=mask)
    assert network.seen is not None
    padding = ~case.support.real(network.seen[0], mask).expand(network.seen[0].shape)
    assert (network.seen[0][padding] == 0).all()
    torch.testing.assert_close(case.support.project(network.seen[0], mask), network.seen[0], rtol=0, atol=1e-12)


def test_21_loss_does_not_see_what_a_network_writes_on_padding(case: Any) -> None:
    """The mean runs over real entries: with zero data and F = 0 on them it is the mean of eps^2 there."""
    path, mask, source = GaussianPath(VP(), case.support), case.mask(), NoiseSource(1, range(3))
    x_0 = torch.zeros_like(case.state(0))
    eps = path.noise(x_0, source, mask, key=2)
    real = case.support.real(x_0, mask).expand(x_0.shape)
    network = Written(lambda x, t: torch.where(real, 0.0, float("nan")))
    value = DenoisingLoss(Denoiser(network, path))(x_0, source, mask=mask).value
    expected = torch.stack([eps[b][real[b]].square().mean() for b in range(3)])
    torch.testing.assert_close(value, expected)


def test_21_output_is_projected_before_it_is_compared(case: Any, make_mixer: Callable[..., nn.Module]) -> None:
    """Loss and denoiser see the same projected output: error of D and of F agree entry by entry."""
    path, mask, source = GaussianPath(VP(), case.support), case.mask(), NoiseSource(1, range(3))
    denoiser = Denoiser(make_mixer(), path, Noise())
    x_0, t = case.support.project(case.state(0), mask), double([0.2, 0.5, 0.8])
    value = DenoisingLoss(denoiser, DataWeight())(x_0, source, mask=mask, t=t).value
    x_t = path.perturb(x_0, t, path.noise(x_0, source, mask, key=2))
    real = case.support.real(x_0, mask).expand(x_0.shape)
    error = (denoiser(x_t, t, mask=mask) - x_0) ** 2
    expected = torch.stack([error[b][real[b]].mean() for b in range(3)])
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12)


def test_observed_weights_select_entries(make_mixer: Callable[..., nn.Module]) -> None:
    path = GaussianPath(VP())
    network = Written(lambda x, t: torch.zeros_like(x))
    loss = DenoisingLoss(Denoiser(network, path))
    x_0, source = torch.zeros(2, 6, 1).double(), NoiseSource(1, range(2))
    eps = path.noise(x_0, source, key=2)
    observed = double([[1, 1, 0, 0, 1, 0], [0, 0, 0, 0, 0, 2]])[..., None]
    value = loss(x_0, source, weights=observed).value
    expected = torch.stack([eps[0, [0, 1, 4], 0].square().mean(), eps[1, 5, 0].square()])
    torch.testing.assert_close(value, expected)
    nothing = loss(x_0, source, weights=torch.zeros_like(observed)).value
    assert nothing.tolist() == [0, 0]


def test_losses_are_differentiable_and_finite_at_both_ends(schedule: Schedule) -> None:
    network = Line(torch.ones(2).double(), torch.zeros(2).double())
    denoiser = Denoiser(network, GaussianPath(schedule))
    t = double([schedule.t_min, schedule.t_max])
    for dtype in (torch.float32, torch.float64):
        value = DenoisingLoss(denoiser.to(dtype))(torch.ones(2, 3, dtype=dtype), NoiseSource(0, range(2)), t=t).value
        value.sum().backward()
        assert value.dtype == dtype
        assert torch.isfinite(value).all()
        assert network.slope.grad is not None
        assert torch.isfinite(network.slope.grad).all()


# categorical and joint losses


class Logits(nn.Module):
    """Logits that depend on the class of an entry, its place and the time, not symmetric in pairs."""

    def forward(self, x: Tensor, t: Tensor, *, mask: Any = None, condition: Any = None) -> Tensor:
        place = torch.arange(x.shape[-1], dtype=torch.float64).expand(x.shape)
        parts = [torch.sin(place * (k + 1) + x.double() * k + shaped(t.double(), x)) for k in range(3)]
        return torch.stack(parts, -1)


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_categorical_loss_is_the_cross_entropy_over_real_entries(power: float) -> None:
    path = CategoricalPath.uniform(VP(), 3, power=power)
    denoiser = CategoricalDenoiser(Logits(), path)
    x_0 = torch.tensor([[0, 1, 2, 2, 0], [2, 1, 1, 0, 0]])
    mask, source = torch.tensor([[True] * 5, [True] * 3 + [False] * 2]), NoiseSource(0, range(2))
    result = CategoricalLoss(denoiser)(x_0, source, mask=mask)
    x_t = path.perturb(x_0, result.t, source, mask, key=2)
    log_p = denoiser(x_t, result.t, mask=mask).log()
    picked = -log_p.gather(-1, x_0[..., None])[..., 0]
    torch.testing.assert_close(result.value, torch.stack([picked[0].mean(), picked[1, :3].mean()]).to(result.value))
    garbage = torch.where(mask, x_0, -7)
    torch.testing.assert_close(CategoricalLoss(denoiser)(garbage, source, mask=mask).value, result.value)
    padded = torch.nn.functional.pad(x_0, (0, 3)), torch.nn.functional.pad(mask, (0, 3))
    longer = CategoricalLoss(denoiser)(padded[0], source, mask=padded[1])
    torch.testing.assert_close(longer.value, result.value)
    weights = double([[0, 1, 0, 0, 0], [0, 0, 1, 0, 1]])
    weighted = CategoricalLoss(denoiser)(x_0, source, mask=mask, weights=weights).value
    torch.testing.assert_close(weighted, torch.stack([picked[0, 1], picked[1, 2]]).to(weighted))


def test_categorical_edges_are_predicted_symmetrically() -> None:
    path = CategoricalPath.uniform(VP(), 3, support=Symmetric())
    denoiser = CategoricalDenoiser(Logits(), path)
    source, mask = NoiseSource(0, range(2)), torch.tensor([[True] * 4, [True, True, True, False]])
    x_t = path.prior(torch.zeros(2, 4, 4, dtype=torch.long), source, mask)
    assert torch.equal(x_t, x_t.transpose(1, 2))
    p = denoiser(x_t, double(0.3), mask=mask)
    assert torch.equal(p, p.transpose(1, 2))
    torch.testing.assert_close(p.sum(-1), torch.ones_like(p[..., 0]))
    t = double([0.3, 0.3])
    value = CategoricalLoss(denoiser)(x_t, source, mask=mask, t=t).value
    noisy = path.perturb(x_t, t, source, mask, key=2)
    log_p = denoiser(noisy, t, mask=mask).log().gather(-1, x_t[..., None])[..., 0]
    real = path.support.real(x_t, mask).expand(x_t.shape)
    torch.testing.assert_close(value, torch.stack([-log_p[b][real[b]].mean() for b in range(2)]).to(value))


class Pair(nn.Module):
    """One network for a Gaussian, a symmetric Gaussian and a categorical component."""

    def __init__(self, mixer: nn.Module) -> None:
        super().__init__()
        self.mixer, self.logits = mixer, Logits()

    def forward(self, x: dict[str, Tensor], t: Tensor, *, mask: Any = None, condition: Any = None) -> dict[str, Tensor]:
        masks = mask or {}
        out = {k: self.mixer(v, t, mask=masks.get(k)) for k, v in x.items() if k != "c"}
        return {**out, "c": self.logits(x["c"], t)}


def test_joint_loss_is_the_scaled_sum_of_the_components(make_mixer: Callable[..., nn.Module]) -> None:
    path = JointPath(
        {
            "x": GaussianPath(VP()),
            "adj": GaussianPath(Rectified(), Symmetric()),
            "c": CategoricalPath.absorbing(VP(), 3),
        }
    )
    mixer = make_mixer()
    denoiser = JointDenoiser(Pair(mixer), path, {"x": V(), "adj": Velocity()})
    generator = torch.Generator().manual_seed(0)
    adj = Symmetric().project(torch.randn(2, 4, 4, generator=generator).double())
    x_0 = {"x": torch.randn(2, 4, 3, generator=generator).double(), "adj": adj, "c": torch.tensor([[0, 1, 1, 0]] * 2)}
    nodes = torch.tensor([[True] * 4, [True, True, False, False]])
    mask, source, t = dict.fromkeys(x_0, nodes), NoiseSource(4, range(2)), double([0.3, 0.7])
    total, parts = JointLoss(denoiser, NoiseWeight(), scales={"adj": 0.25})(x_0, source, mask=mask, t=t)
    torch.testing.assert_close(total.value, parts["x"] + 0.25 * parts["adj"] + parts["c"].double())
    for index, (name, parameterization) in enumerate((("x", V()), ("adj", Velocity()))):
        component = path[name]
        assert isinstance(component, GaussianPath)
        alone = DenoisingLoss(Denoiser(mixer, component, parameterization, data_std=None), NoiseWeight())
        expected = alone(x_0[name], source.spawn(index), mask=nodes, t=t).value
        torch.testing.assert_close(parts[name], expected)
    garbage = {k: v.clone() for k, v in x_0.items()}
    garbage["x"][1, 2:], garbage["adj"][1, 2:], garbage["c"][1, 2:] = float("nan"), float("nan"), -3
    again, _ = JointLoss(denoiser, NoiseWeight(), scales={"adj": 0.25})(garbage, source, mask=mask, t=t)
    torch.testing.assert_close(again.value, total.value)
    drawn, _ = JointLoss(denoiser, density=LogitNormalTime())(x_0, source, mask=mask)
    assert drawn.t.shape == (2,)


def test_joint_denoisers_need_a_parameterization_for_every_gaussian_component() -> None:
    path = JointPath({"x": GaussianPath(VP()), "adj": GaussianPath(VP())})
    with pytest.raises(ValueError, match="adj"):
        JointDenoiser(nn.Identity(), path, {"x": V()})


def test_vector_valued_losses_are_one_loss_per_channel(vector: VP) -> None:
    """With F = 0 and the noise as target the loss is the mean of eps^2, whatever the rates."""
    path, source = GaussianPath(vector), NoiseSource(0, range(3))
    x_0 = torch.randn(3, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = double([0.1, 0.5, 0.9])
    denoiser = Denoiser(Written(lambda x, t: torch.zeros_like(x)), path, Noise())
    eps = path.noise(x_0, source, key=2)
    torch.testing.assert_close(DenoisingLoss(denoiser)(x_0, source, t=t).value, eps.square().flatten(1).mean(1))
    error = (denoiser(path.perturb(x_0, t, eps), t) - x_0) ** 2
    value = DenoisingLoss(denoiser, DataWeight())(x_0, source, t=t).value
    torch.testing.assert_close(value, error.flatten(1).mean(1))
