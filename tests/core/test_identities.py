"""Exact identities I1-I8 between methods of different origin, to 1e-9."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from fourfold.core import (
    DDIM,
    EDM,
    VP,
    Centered,
    Cosine,
    Data,
    Discrete,
    DPMSolver,
    DPMSolverPP,
    GaussianPath,
    LogSNRGrid,
    MeanReverting,
    Multistep,
    Rectified,
    RungeKutta,
    Sampler,
    SASolver,
    Schedule,
    TimesGrid,
    UniformGrid,
    V,
)
from fourfold.core.paths import posterior_coefficients


def double(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def close(ours: Tensor, theirs: Tensor, bar: float = 1e-9) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=bar)


def test_i1_first_order_solvers_are_ddim(g10_starts: Tensor, targets: SimpleNamespace) -> None:
    oracle = targets.g10(GaussianPath(VP()))
    results = [
        Sampler(s, LogSNRGrid(), 12)(oracle, g10_starts).x
        for s in (
            DDIM(),
            DPMSolver(1),
            DPMSolverPP(1),
            Multistep(1, "straight", corrector=False),
            RungeKutta("euler", "sigma"),
            RungeKutta("euler", "data"),
        )
    ]
    for result in results[1:]:
        close(result, results[0])
    times = LogSNRGrid()(VP(), 12)
    x = g10_starts
    for t, s in itertools.pairwise(times):  # Song et al. 2021, eq. 12 with eta = 0
        a_t, s_t, a_s, s_s = (f(double(v)) for v in (t, s) for f in (VP().alpha, VP().sigma))
        clean = oracle.denoise(x, double(t))
        x = a_s * clean + s_s * (x - a_t * clean) / s_t
    close(results[0], x)


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_i2_ddim_with_noise_is_song_s_rule_and_at_eta_one_the_ddpm_posterior(eta: float) -> None:
    """Variance eta^2 (1 - abar_s)/(1 - abar_t) (1 - abar_t/abar_s), on consecutive steps of a table of betas."""
    table = Discrete.linear(50)
    times = tuple((i + 1) / 50 for i in range(49, -1, -1))
    rows = DDIM(eta).plan(table, times)
    bar = torch.cumprod(1 - double(table.betas), 0).flip(0)
    for i, row in enumerate(rows):
        variance = eta**2 * (1 - bar[i + 1]) / (1 - bar[i]) * (1 - bar[i] / bar[i + 1])
        noise = float((1 - bar[i + 1] - variance).sqrt() / (1 - bar[i]).sqrt())
        assert row.noise == pytest.approx(float(variance.sqrt()), abs=1e-12)
        assert row.decay == pytest.approx(noise, abs=1e-11)
        assert row.weights[0] == pytest.approx(float(bar[i + 1].sqrt() - noise * bar[i].sqrt()), abs=1e-11)
        if eta == 1:
            beta = table.betas[49 - i]  # Ho et al. 2020, eq. 7
            mean_x = math.sqrt(1 - beta) * float((1 - bar[i + 1]) / (1 - bar[i]))
            mean_0 = float(bar[i + 1].sqrt()) * beta / float(1 - bar[i])
            assert (row.decay, row.weights[0]) == pytest.approx((mean_x, mean_0), abs=1e-11)
            ours = posterior_coefficients(table, double(times[i]), double(times[i + 1]))
            assert [float(v) for v in ours] == pytest.approx([mean_0, mean_x, float(variance.sqrt())], abs=1e-11)


def test_i3_stochastic_2m_without_noise_is_2m(g10_starts: Tensor, targets: SimpleNamespace) -> None:
    oracle = targets.g10(GaussianPath(VP()))
    a, b = (
        Sampler(s, LogSNRGrid(), 10)(oracle, g10_starts, generator=0).x
        for s in (SASolver(2, tau=0.0), Multistep(2, "data"))
    )
    close(a, b)
    times = LogSNRGrid()(VP(), 10)
    nearly, none = (DPMSolverPP(2, eta=eta).plan(VP(), times) for eta in (1e-13, 0.0))
    for row, other in zip(nearly, none, strict=True):
        assert [row.decay, *row.weights] == pytest.approx([other.decay, *other.weights], abs=1e-11)


@pytest.mark.parametrize("tau", [0.5, 1.0])
def test_i3_stochastic_2m_has_the_published_coefficients(tau: float) -> None:
    """x' = (s'/s) e^{-tau^2 h} x - a' expm1(-(1 + tau^2) h) (D + D1/2) + s' sqrt(1 - e^{-2 tau^2 h}) z."""
    times = LogSNRGrid()(VP(), 9)
    rows = DPMSolverPP(2, eta=tau**2).plan(VP(), times)
    t = double(times)
    alpha, sigma, logsnr = VP().alpha(t), VP().sigma(t), VP().logsnr(t)
    for i, row in enumerate(rows):
        h = float(logsnr[i + 1] - logsnr[i])
        whole = -float(alpha[i + 1]) * math.expm1(-(1 + tau**2) * h)
        assert row.decay == pytest.approx(float(sigma[i + 1] / sigma[i]) * math.exp(-(tau**2) * h), abs=1e-10)
        assert row.noise == pytest.approx(float(sigma[i + 1]) * math.sqrt(-math.expm1(-2 * tau**2 * h)), abs=1e-10)
        if 0 < i < len(rows) - 1:
            r = float(logsnr[i] - logsnr[i - 1]) / h
            assert list(row.weights) == pytest.approx([whole * (1 + 0.5 / r), -whole * 0.5 / r], abs=1e-10)
        else:
            assert list(row.weights) == pytest.approx([whole], abs=1e-10)


@pytest.mark.parametrize("schedule", [VP(), Cosine(), Rectified()], ids=lambda s: type(s).__name__)
def test_i4_inverse_of_logsnr(schedule: Schedule) -> None:
    t = torch.linspace(schedule.t_min, schedule.t_max, 1001, dtype=torch.float64)
    close(schedule.time(schedule.logsnr(t)), t, 1e-12)


def test_i5_2m_gives_the_same_samples_under_every_schedule(g10_starts: Tensor, targets: SimpleNamespace) -> None:
    logsnr = torch.linspace(-4, 5, 11, dtype=torch.float64)
    results = []
    for schedule in (VP(), EDM(), Rectified()):
        times = tuple(schedule.time(logsnr).tolist())
        alpha = schedule.alpha(double([times[0], times[-1]]))
        sampler = Sampler(DPMSolverPP(2, extrapolation="lagrange"), TimesGrid(times=times), 10)
        x = sampler(targets.g10(GaussianPath(schedule)), alpha[0] * 50 * g10_starts).x
        results.append(x / alpha[1])
    close(results[1], results[0])
    close(results[2], results[0])


def test_i6_shifted_solvers_are_the_mean_reverting_solvers() -> None:
    """The second-order data solver of mean-reverting SDEs, written with its explicit terms in the center."""
    schedule, y = MeanReverting(stationary_std=0.5, steps=100), double([[0.9, -0.6]])
    path = Centered(GaussianPath(schedule), y)
    from fourfold.core.testing import GaussianOracle

    oracle = GaussianOracle(double([0.2, 0.1]), double([0.04, 0.09]), path)
    times = tuple(torch.linspace(1.0, 0.05, 8).double().tolist())
    x = y + 0.5 * torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    solver = Multistep(2, "data", corrector=False, lower_order_final=False)
    ours = Sampler(solver, TimesGrid(times=times), 7)(oracle, x).x
    t = double(times)
    alpha, sigma, logsnr = schedule.alpha(t), schedule.sigma(t), schedule.logsnr(t)
    previous = None
    for i in range(7):
        clean = oracle(x, t[i]) + 0.0
        h, ratio = logsnr[i + 1] - logsnr[i], sigma[i + 1] / sigma[i]
        center = y * (1 - ratio + ratio * alpha[i] - alpha[i + 1])
        x = ratio * x + center - alpha[i + 1] * torch.expm1(-h) * clean
        if previous is not None:
            slope = (clean - previous) * h / (logsnr[i] - logsnr[i - 1])
            x = x + alpha[i + 1] * (torch.expm1(-h) / h + 1) * slope
        previous = clean
    close(ours, x)


def test_i7_residual_diffusion_without_noise_is_shifted_ddim(targets: SimpleNamespace) -> None:
    """x_s = x_t - (A_t - A_s) residual - (B_t - B_s) eps for x_t = x_0 + A (y - x_0) + B eps, A = t, B^2 = 0.09 t."""

    class Residual(Schedule):
        t_min, t_max = 1e-3, 0.999

        def _alpha(self, t: Tensor) -> Tensor:
            return 1 - t

        def _sigma(self, t: Tensor) -> Tensor:
            return 0.3 * t.sqrt()

        def _d_alpha(self, t: Tensor) -> Tensor:
            return -torch.ones_like(t)

        def _d_sigma(self, t: Tensor) -> Tensor:
            return 0.15 / t.sqrt()

    y = double([[0.4, 2.0]])
    path = Centered(GaussianPath(Residual()), y)
    oracle = targets.small(path)
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.3 + y
    times = UniformGrid()(Residual(), 6)
    ours = Sampler(DDIM(), UniformGrid(), 6)(oracle, x).x
    for t, s in itertools.pairwise(times):
        clean = oracle(x, double(t))
        eps = (x - clean - t * (y - clean)) / (0.3 * math.sqrt(t))
        x = x - (t - s) * (y - clean) - 0.3 * (math.sqrt(t) - math.sqrt(s)) * eps
    close(ours, x)


def test_i8_one_ddim_step_with_the_distilled_target_is_two_steps(targets: SimpleNamespace) -> None:
    """Progressive distillation: D' = (x_s - (sigma_s/sigma_t) x_t)/(alpha_s - (sigma_s/sigma_t) alpha_t)."""
    schedule = Cosine()
    oracle = targets.m2(GaussianPath(schedule))
    times = (0.8, 0.7, 0.55)
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    two = Sampler(DDIM(), TimesGrid(times=times), 2)(oracle, x).x
    t, s = double(times[0]), double(times[-1])
    ratio = schedule.sigma(s) / schedule.sigma(t)
    target = (two - ratio * x) / (schedule.alpha(s) - ratio * schedule.alpha(t))
    row = DDIM().plan(schedule, (times[0], times[-1]))[0]
    close(row.decay * x + row.weights[0] * target, two)
    for parameterization in (Data(), V()):  # and the network that predicts it has that target
        skip, out = parameterization.scalings(schedule, t)
        on_data, on_noise = parameterization.target_weights(schedule, t)
        eps = (x - schedule.alpha(t) * target) / schedule.sigma(t)
        close(skip * x + out * (on_data * target + on_noise * eps), target)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_single_precision_keeps_the_identities(order: int, targets: SimpleNamespace, g10_starts: Tensor) -> None:
    """Bar 1e-4 in float32."""
    oracle = targets.g10(GaussianPath(VP()))
    sampler = Sampler(DPMSolverPP(order), LogSNRGrid(), 10)
    close(sampler(oracle, g10_starts.float()).x.double(), sampler(oracle, g10_starts.float().double()).x, 1e-4)
