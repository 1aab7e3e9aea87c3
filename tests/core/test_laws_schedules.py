"""Laws 1-4 and 25: schedules, their derivatives and inverses, time grids and densities of time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import mpmath as mp
import pytest
import torch
from torch import Tensor

from fourfold.core import (
    EDM,
    OUVE,
    VE,
    VP,
    Cosine,
    CosMapTime,
    Discrete,
    DiscreteTime,
    Grid,
    KarrasGrid,
    LogitNormalTime,
    LogSNRGrid,
    MeanReverting,
    ModeTime,
    QuadraticGrid,
    Rectified,
    Schedule,
    ShiftedTime,
    StraightGrid,
    SubVP,
    TimeDensity,
    TimesGrid,
    UniformGrid,
)


def inside(schedule: Schedule, n: int = 41) -> Tensor:
    return torch.linspace(schedule.t_min, schedule.t_max, n, dtype=torch.float64)


# published closed forms: (alpha, sigma, f, g^2) at t
def _vp(s: VP, t: Any) -> tuple[Any, ...]:
    beta, integral = s.beta_min + t * (s.beta_max - s.beta_min), s.beta_min * t + (s.beta_max - s.beta_min) * t**2 / 2
    return mp.exp(-integral / 2), mp.sqrt(1 - mp.exp(-integral)), -beta / 2, beta


def _subvp(s: SubVP, t: Any) -> tuple[Any, ...]:
    alpha, sigma, f, beta = _vp(s, t)
    return alpha, sigma**2, f, beta * (1 - alpha**4)


def _ve(s: VE, t: Any) -> tuple[Any, ...]:
    ratio = mp.mpf(s.sigma_max) / mp.mpf(s.sigma_min)
    sigma = s.sigma_min * ratio**t
    return mp.mpf(1), sigma, mp.mpf(0), 2 * sigma**2 * mp.log(ratio)


def _edm(s: EDM, t: Any) -> tuple[Any, ...]:
    low, high = mp.mpf(s.sigma_min) ** (1 / mp.mpf(s.rho)), mp.mpf(s.sigma_max) ** (1 / mp.mpf(s.rho))
    root = low + t * (high - low)
    return mp.mpf(1), root**s.rho, mp.mpf(0), 2 * root**s.rho * s.rho * root ** (s.rho - 1) * (high - low)


def _rectified(s: Rectified, t: Any) -> tuple[Any, ...]:
    return 1 - t, t, -1 / (1 - t), 2 * t / (1 - t)


def _cosine(s: Cosine, t: Any) -> tuple[Any, ...]:
    offset = mp.mpf(s.s)
    angle, first = (mp.pi / 2 * (v + offset) / (1 + offset) for v in (t, mp.mpf(0)))
    alpha = mp.cos(angle) / mp.cos(first)
    f = -mp.pi / 2 / (1 + offset) * mp.tan(angle)
    return alpha, mp.sqrt(1 - alpha**2), f, -2 * f


def _ouve(s: OUVE, t: Any) -> tuple[Any, ...]:
    k, theta = mp.log(mp.mpf(s.sigma_max) / mp.mpf(s.sigma_min)), mp.mpf(s.theta)
    variance = mp.mpf(s.sigma_min) ** 2 * k * (mp.exp(2 * k * t) - mp.exp(-2 * theta * t)) / (theta + k)
    return mp.exp(-theta * t), mp.sqrt(variance), -theta, 2 * k * mp.mpf(s.sigma_min) ** 2 * mp.exp(2 * k * t)


CLOSED: dict[type, Callable[..., tuple[Any, ...]]] = {
    VP: _vp,
    SubVP: _subvp,
    VE: _ve,
    EDM: _edm,
    Rectified: _rectified,
    Cosine: _cosine,
    OUVE: _ouve,
}


def test_1_signal_and_noise_are_positive_and_logsnr_falls(schedule: Schedule) -> None:
    for dtype in (torch.float32, torch.float64):
        t = inside(schedule).to(dtype)
        alpha, sigma, logsnr = schedule.alpha(t), schedule.sigma(t), schedule.logsnr(t)
        assert alpha.dtype == sigma.dtype == logsnr.dtype == dtype
        for value in (alpha, sigma, logsnr, schedule.drift(t), schedule.diffusion(t)):
            assert value.shape == t.shape
            assert torch.isfinite(value).all()
        assert (alpha > 0).all()
        assert (sigma > 0).all()
        assert (logsnr.diff() < 0).all()
        torch.testing.assert_close(logsnr, (alpha / sigma).log(), rtol=1e-5, atol=1e-5)


def test_1_shapes_follow_t(schedule: Schedule) -> None:
    for shape in ((), (3,), (2, 3)):
        t = torch.full(shape, 0.5)
        values = schedule.alpha(t), schedule.d_sigma(t), schedule.logsnr(t), schedule.time(schedule.logsnr(t))
        assert all(value.shape == shape for value in values)


def test_2_levels_drift_and_diffusion_equal_the_published_forms(schedule: Schedule) -> None:
    closed = CLOSED.get(type(schedule))
    if closed is None:
        return  # tables have their own tests below
    with mp.workdps(40):
        for t in inside(schedule, 9).tolist():
            moment = torch.tensor(t, dtype=torch.float64)
            alpha, sigma, f, g2 = (float(v) for v in closed(schedule, mp.mpf(t)))
            assert float(schedule.alpha(moment)) == pytest.approx(alpha, rel=1e-12, abs=0)
            assert float(schedule.sigma(moment)) == pytest.approx(sigma, rel=1e-12, abs=0)
            assert float(schedule.logsnr(moment)) == pytest.approx(math.log(alpha / sigma), rel=1e-12, abs=1e-12)
            assert float(schedule.drift(moment)) == pytest.approx(f, rel=1e-11)
            assert float(schedule.diffusion(moment)) ** 2 == pytest.approx(g2, rel=1e-9, abs=0)


def test_2_derivatives_equal_autograd(schedule: Schedule) -> None:
    t = (inside(schedule, 37)[1:-1] + 1e-4).requires_grad_()
    for level, derivative in ((schedule.alpha, schedule.d_alpha), (schedule.sigma, schedule.d_sigma)):
        value = level(t)
        expected = torch.autograd.grad(value.sum(), t)[0] if value.requires_grad else torch.zeros_like(t)
        torch.testing.assert_close(derivative(t).detach(), expected, rtol=1e-9, atol=1e-11)


def test_2_diffusion_is_minus_the_slope_of_logsnr(schedule: Schedule) -> None:
    t = (inside(schedule, 37)[1:-1] + 1e-4).requires_grad_()
    slope = torch.autograd.grad(schedule.logsnr(t).sum(), t)[0]
    expected = -2 * schedule.sigma(t).detach() ** 2 * slope
    torch.testing.assert_close(schedule.diffusion(t).detach() ** 2, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("small", [1e-7, 1e-5, 1e-3])
def test_3_no_cancellation_near_the_data(schedule: Schedule, small: float) -> None:
    closed = CLOSED.get(type(schedule))
    if closed is None:
        return
    moment = torch.tensor(small, dtype=torch.float64)
    with mp.workdps(60):
        alpha, sigma, _, _ = closed(schedule, mp.mpf(small))
        assert float(schedule.sigma(moment)) == pytest.approx(float(sigma), rel=1e-12, abs=0)
        assert float(schedule.logsnr(moment)) == pytest.approx(float(mp.log(alpha / sigma)), rel=1e-12)
        single = float(schedule.sigma(moment.float()))
        assert single == pytest.approx(float(closed(schedule, mp.mpf(float(moment.float())))[1]), rel=2e-6, abs=0)


def test_4_time_inverts_logsnr(schedule: Schedule) -> None:
    t = inside(schedule)
    torch.testing.assert_close(schedule.time(schedule.logsnr(t)), t, rtol=1e-9, atol=1e-11)


def test_4_bisection_agrees_with_the_closed_inverse(schedule: Schedule) -> None:
    logsnr = schedule.logsnr(inside(schedule, 11))
    torch.testing.assert_close(Schedule._time(schedule, logsnr), schedule.time(logsnr), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("steps", [1, 7, 100])
def test_discrete_is_the_table_at_integer_steps(steps: int) -> None:
    table = Discrete.linear(steps, 1e-3, 0.05)
    expected = torch.cumprod(1 - torch.linspace(1e-3, 0.05, steps, dtype=torch.float64), 0)
    t = torch.arange(1, steps + 1, dtype=torch.float64) / steps
    torch.testing.assert_close(table.alpha(t) ** 2, expected, rtol=1e-13, atol=0)
    torch.testing.assert_close(table.sigma(t) ** 2, 1 - expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(table.time(table.logsnr(t)), t, rtol=1e-12, atol=0)
    assert table.t_min == pytest.approx(1 / steps)
    assert float(table.alpha(torch.zeros(()))) == 1


def test_discrete_interpolates_log_alpha_between_the_steps() -> None:
    table = Discrete.linear(10, 1e-3, 0.3)
    ends = table.alpha(torch.tensor([0.4, 0.5], dtype=torch.float64)).log()
    between = table.alpha(torch.tensor(0.43, dtype=torch.float64)).log()
    assert float(between) == pytest.approx(float(ends[0] + 0.3 * (ends[1] - ends[0])), rel=1e-12)


def test_discrete_cosine_is_nichols_table() -> None:
    table = Discrete.cosine(20)
    bar = torch.cos((torch.arange(21, dtype=torch.float64) / 20 + 0.008) / 1.008 * math.pi / 2) ** 2
    t = torch.arange(1, 20, dtype=torch.float64) / 20  # the last beta is clipped
    torch.testing.assert_close(table.alpha(t) ** 2, (bar / bar[0])[1:-1], rtol=1e-10, atol=0)
    assert max(table.betas) == 0.999


@pytest.mark.parametrize("betas", [(), (0.1, 1.0), (0.0, 0.1), (-0.1,)])
def test_discrete_refuses_impossible_tables(betas: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="inside"):
        Discrete(betas)


def test_p1_ouve_golden_numbers() -> None:
    s = OUVE()
    sigma = s.sigma(torch.tensor([0.03, 0.5, 1.0], dtype=torch.float64))
    assert sigma.tolist() == pytest.approx([0.018830, 0.121657, 0.388983], abs=1e-6)
    assert float(s.alpha(torch.ones((), dtype=torch.float64))) == pytest.approx(0.223130, abs=1e-6)


def test_p1_and_25_ouve_moments_equal_the_simulated_sde() -> None:
    """dx = theta (y - x) dt + g dW with g = sigma_min r^t sqrt(2 log r), 40,000 paths, 200 midpoint steps."""
    s, y, x_0, steps = OUVE(), 0.3, -2.5, 200
    k = math.log(s.sigma_max / s.sigma_min)
    generator = torch.Generator().manual_seed(0)
    x = torch.full((40_000,), x_0, dtype=torch.float64)
    for i in range(steps):
        g = s.sigma_min * math.exp(k * (i + 0.5) / steps) * math.sqrt(2 * k)
        shift = s.theta * (y - x) / steps
        x = x + s.theta * (y - x - shift / 2) / steps
        x = x + g * math.sqrt(1 / steps) * torch.randn(len(x), generator=generator, dtype=torch.float64)
    alpha, sigma = (float(f(torch.ones((), dtype=torch.float64))) for f in (s.alpha, s.sigma))
    assert float(x.mean()) == pytest.approx(alpha * x_0 + (1 - alpha) * y, abs=0.01)
    assert float(x.std()) == pytest.approx(sigma, rel=0.01)


def test_p2_mean_reverting_golden_numbers() -> None:
    s = MeanReverting(stationary_std=10 / 255, delta=0.01, steps=100)
    t = torch.tensor([0.01, 0.5, 1.0], dtype=torch.float64)
    assert s.alpha(t).tolist() == pytest.approx([0.999847, 0.412296, 0.01], abs=1e-6)
    assert float(s.sigma(t[2])) == pytest.approx(0.0392137, abs=1e-7)
    torch.testing.assert_close(s.sigma(t), 10 / 255 * (1 - s.alpha(t) ** 2).sqrt(), rtol=1e-10, atol=0)
    torch.testing.assert_close(s.diffusion(t) ** 2, -2 * (10 / 255) ** 2 * s.drift(t), rtol=1e-8, atol=1e-12)


def test_p9_densities_of_time() -> None:
    u = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    normal = LogitNormalTime()
    assert float(normal.quantile(u).var()) == pytest.approx(0.043379, abs=1e-4)
    assert float(normal.quantile(torch.tensor(0.1, dtype=torch.float64))) == pytest.approx(0.217286, abs=1e-4)
    one_sigma = torch.special.ndtr(torch.tensor([-1.0, 1.0], dtype=torch.float64))
    moved = LogitNormalTime(0.5, 0.8).quantile(one_sigma).logit()
    assert moved.tolist() == pytest.approx([-0.3, 1.3], abs=1e-10)
    assert float(ModeTime(1.29).quantile(u).var()) == pytest.approx(0.0464, abs=1e-4)
    assert float(CosMapTime().quantile(torch.tensor(0.25, dtype=torch.float64))) == pytest.approx(0.29289, abs=1e-5)
    assert float(ShiftedTime(3.0).quantile(torch.tensor(0.5, dtype=torch.float64))) == pytest.approx(0.75, abs=1e-12)


def test_densities_are_distributions_on_the_unit_interval(density: TimeDensity) -> None:
    t = density.quantile((torch.arange(1000, dtype=torch.float64) + 0.5) / 1000)
    assert (t.diff() >= 0).all()
    assert t.min() >= 0
    assert t.max() <= 1


def test_discrete_time_hits_the_table_points() -> None:
    u = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    t = DiscreteTime(5).quantile(u)
    assert t.unique().tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert torch.bincount((t * 4).long()).tolist() == [200] * 5


def test_mode_density_has_its_mass_where_sd3_puts_it() -> None:
    """Heavier in the middle than uniform for positive scales, and the same spread from both sides of u."""
    u = torch.tensor([0.1, 0.3], dtype=torch.float64)
    v = 1 - u
    published = 1 - u - 1.29 * (torch.cos(math.pi / 2 * u) ** 2 - 1 + u)
    torch.testing.assert_close(ModeTime(1.29).quantile(v), published)


# grids


def test_grids_fall_from_t_max_to_t_min(grid: Grid, schedule: Schedule) -> None:
    for steps in (1, 2, 5, 20):
        times = grid(schedule, steps)
        assert len(times) == steps + 1
        assert times[0] == schedule.t_max
        assert times[-1] == schedule.t_min
        assert all(a > b for a, b in itertools.pairwise(times))


def test_grids_can_end_with_the_data_and_start_anywhere(grid: Grid, schedule: Schedule) -> None:
    to_data = type(grid)(end=0.0)
    for steps in (1, 2, 5):
        for start in (None, 0.4):
            times = to_data(schedule, steps, start)
            assert len(times) == steps + 1
            assert times[0] == (schedule.t_max if start is None else start)
            assert times[-1] == 0
            assert all(a > b for a, b in itertools.pairwise(times))
    assert type(grid)(end=0.3)(schedule, 4)[-1] == 0.3


@pytest.mark.parametrize(
    ("kind", "coordinate"),
    [
        (UniformGrid(), lambda s, t: t),
        (QuadraticGrid(), lambda s, t: t.sqrt()),
        (LogSNRGrid(), lambda s, t: s.logsnr(t)),
        (KarrasGrid(), lambda s, t: (s.sigma(t) / s.alpha(t)) ** (1 / 7)),
        (KarrasGrid(5.0), lambda s, t: (s.sigma(t) / s.alpha(t)) ** (1 / 5)),
        (StraightGrid(), lambda s, t: s.sigma(t) / (s.alpha(t) + s.sigma(t))),
    ],
    ids=["uniform", "quadratic", "logsnr", "karras", "karras-5", "straight"],
)
def test_grids_are_even_in_their_coordinate(kind: Grid, coordinate: Callable[..., Tensor], schedule: Schedule) -> None:
    u = coordinate(schedule, torch.tensor(kind(schedule, 8), dtype=torch.float64)).diff()
    torch.testing.assert_close(u, u.mean().expand(8), rtol=1e-7, atol=1e-10)


def test_uniform_steps_of_edm_are_karras_steps() -> None:
    for schedule in (EDM(), EDM(rho=3.0)):
        uniform, karras = UniformGrid()(schedule, 9), KarrasGrid(schedule.rho)(schedule, 9)
        assert uniform == pytest.approx(karras, abs=1e-12)


@pytest.mark.parametrize(
    ("grid", "steps", "start", "message"),
    [
        (UniformGrid(), 0, None, "at least 1 step"),
        (UniformGrid(), 3, 1.5, "end < start <= 1"),
        (UniformGrid(), 3, 0.0, "end < start <= 1"),
        (UniformGrid(end=0.9), 3, 0.5, "end < start <= 1"),
        (LogSNRGrid(), 3, 1.0, "singular at t=1.0.*t_max"),
        (KarrasGrid(end=1e-5), 3, 1.0, "singular"),
        (TimesGrid(times=(1.0, 0.5)), 3, None, "3 steps need 4 times, got 2"),
        (TimesGrid(times=(0.5, 0.5, 0.1)), 2, None, "strictly decreasing"),
        (TimesGrid(times=(0.5,)), 0, None, "strictly decreasing"),
    ],
)
def test_grids_explain_what_is_wrong(grid: Grid, steps: int, start: float | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        grid(Rectified(), steps, start)


def test_given_times_are_kept_and_can_be_entered_late() -> None:
    grid = TimesGrid(times=(1.0, 0.6, 0.3, 0.0))
    assert grid(VP(), 3) == (1.0, 0.6, 0.3, 0.0)
    assert grid(VP(), 3, start=0.5) == (0.5, 0.3, 0.0)


# vector-valued schedules


def test_vector_valued_levels_have_the_channel_last(vector: VP) -> None:
    t = torch.tensor([0.2, 0.7], dtype=torch.float64)
    for value in (vector.alpha(t), vector.sigma(t), vector.logsnr(t), vector.drift(t), vector.diffusion(t)):
        assert value.shape == (2, 3)
    plain = VP()
    torch.testing.assert_close(vector.alpha(t)[:, 1], plain.alpha(t))
    torch.testing.assert_close(vector.alpha(t)[:, 2], plain.alpha(t) ** 2)
    torch.testing.assert_close(vector.diffusion(t)[:, 2] ** 2, 2 * plain.diffusion(t) ** 2)


@pytest.mark.parametrize("grid", [LogSNRGrid(), KarrasGrid(), StraightGrid()])
def test_vector_valued_schedules_need_a_grid_in_t(vector: VP, grid: Grid) -> None:
    with pytest.raises(ValueError, match="scalar schedule"):
        grid(vector, 4)
