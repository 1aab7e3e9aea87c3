"""Law 12 and bars O1-O4, O8, O9, P3: orders of convergence and errors at few steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from fourfold.core import (
    DDIM,
    OUVE,
    VE,
    VP,
    AnnealedLangevin,
    Centered,
    DPMSolver,
    DPMSolverPP,
    EulerMaruyama,
    GaussianPath,
    LogSNRGrid,
    Multistep,
    NoiseSource,
    PredictorCorrector,
    PublicDPMSolverPP3M,
    RungeKutta,
    Sampler,
    Schedule,
    Singlestep,
    Stepper,
    UniformGrid,
)
from fourfold.core.testing import GaussianOracle


def double(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def rmse(a: Tensor, b: Tensor) -> float:
    return float(((a - b) ** 2).mean().sqrt())


@pytest.mark.parametrize("schedule", [VP(), VE()], ids=["VP", "VE"])
def test_12_orders_of_convergence(ordered: tuple[Stepper, float], schedule: Schedule, targets: SimpleNamespace) -> None:
    """The slope between 36 and 72 steps is the order, less at most 0.3, without lower orders at the end."""
    stepper, order = ordered
    if isinstance(stepper, Multistep):
        stepper = replace(stepper, lower_order_final=False)
    oracle = targets.small(GaussianPath(schedule))
    start, end = schedule.t_max, float(schedule.time(double(3.0)))
    x = torch.randn(30, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = x * schedule.sigma(double(start))
    exact = oracle.flow(x, double(start), double(end))
    in_time = getattr(stepper, "coordinate", "") == "time" or isinstance(stepper, EulerMaruyama)
    grid = UniformGrid(end=end) if in_time else LogSNRGrid(end=end)
    errors = [rmse(Sampler(stepper, grid, n)(oracle, x).x, exact) for n in (36, 72)]
    assert math.log2(errors[0] / errors[1]) > order - 0.3
    assert errors[1] < (0.2 if in_time else 0.03)


def slope(stepper: Stepper, low: int, high: int, oracle: Any, starts: Tensor, per_step: int = 1) -> float:
    exact = oracle.flow(starts, double(1.0), double(1e-3))
    errors = [rmse(Sampler(stepper, LogSNRGrid(), n // per_step)(oracle, starts).x, exact) for n in (low, high)]
    return math.log(errors[0] / errors[1]) / math.log(high / low)


@pytest.mark.parametrize(
    ("stepper", "order", "per_step"),
    [
        (DDIM(), 1, 1),
        (DPMSolver(2), 2, 1),
        (DPMSolverPP(2), 2, 1),
        (Singlestep(2, "data"), 2, 1),
        (Singlestep(2, "noise"), 2, 1),
        (RungeKutta("heun", "sigma"), 2, 2),
    ],
    ids=["DDIM", "eps2M", "++2M", "++2S", "eps2S", "heun"],
)
def test_o1_orders_from_80_to_320_evaluations(
    stepper: Stepper, order: int, per_step: int, targets: SimpleNamespace, g10_starts: Tensor
) -> None:
    oracle = targets.g10(GaussianPath(VP()))
    assert slope(stepper, 80, 320, oracle, g10_starts[:100], per_step) == pytest.approx(order, abs=0.1)


def test_o2_third_order_single_step(targets: SimpleNamespace, g10_starts: Tensor) -> None:
    oracle = targets.g10(GaussianPath(VP()))
    stepper = Singlestep(3, "noise")
    assert slope(stepper, 40, 160, oracle, g10_starts[:100]) >= 2
    exact = oracle.flow(g10_starts, double(1.0), double(1e-3))
    assert rmse(Sampler(stepper, LogSNRGrid(), 40)(oracle, g10_starts).x, exact) <= 5e-4


def test_o3_third_order_multistep_and_its_public_form(targets: SimpleNamespace, g10_starts: Tensor) -> None:
    oracle = targets.g10(GaussianPath(VP()))
    exact_weights = Multistep(3, "data", corrector=False, lower_order_final=False)
    public = Multistep(3, "data", corrector=False, extrapolation="public3", lower_order_final=False)
    assert slope(exact_weights, 20, 320, oracle, g10_starts[:100]) >= 2.9
    assert slope(public, 80, 320, oracle, g10_starts[:100]) == pytest.approx(2, abs=0.15)
    assert PublicDPMSolverPP3M().extrapolation == "public3"


def test_o4_errors_at_few_steps(targets: SimpleNamespace, g10_starts: Tensor) -> None:
    oracle = targets.g10(GaussianPath(VP()))
    exact = oracle.flow(g10_starts, double(1.0), double(1e-3))

    def error(stepper: Stepper, steps: int) -> float:
        return rmse(Sampler(stepper, LogSNRGrid(), steps)(oracle, g10_starts).x, exact)

    solver = DPMSolverPP(2)
    assert error(solver, 10) <= 0.0125
    assert error(solver, 20) <= 0.006
    assert error(solver, 40) <= 0.0016
    assert error(DDIM(), 80) >= 0.010
    assert error(Multistep(), 10) < error(solver, 10)


def test_o8_lower_order_final_matters_on_uniform_times(targets: SimpleNamespace) -> None:
    oracle = targets.m2(GaussianPath(VP()))
    x = torch.randn(300, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = Sampler(RungeKutta("rk4", "straight"), LogSNRGrid(), 80)(oracle, x).x
    on, off = (
        rmse(
            Sampler(
                Multistep(2, "data", corrector=False, extrapolation="midpoint", lower_order_final=lower),
                UniformGrid(),
                5,
            )(oracle, x).x,
            exact,
        )
        for lower in (True, False)
    )
    assert off >= 3 * on


def test_o9_stochastic_2m_keeps_the_spread(moments: Callable[..., Any]) -> None:
    """Gaussian data of standard deviation 0.5: exact standard deviations instead of 200,000 samples."""

    def std(stepper: Stepper, steps: int) -> float:
        return math.sqrt(moments(VP(), stepper, LogSNRGrid()(VP(), steps), 0.0, 0.5).variance)

    solver = DPMSolverPP(2, eta=1.0)
    assert 0.49 <= std(solver, 10) <= 0.52
    assert 0.497 <= std(solver, 50) <= 0.508
    assert std(DDIM(), 10) <= 0.41


def test_p3_centered_ouve_needs_a_stochastic_solver() -> None:
    """x_0 ~ N(.8, .1^2) about y = .3, started from the prior, which forgets the signal left at t = 1."""
    n = 20_000
    path = Centered(GaussianPath(OUVE()), double([[0.3]]))
    oracle = GaussianOracle(double([0.8]), double([0.01]), path)
    truth = float(OUVE().alpha(double(0.03))) * 0.5 + 0.3
    source = NoiseSource(0, range(n))
    start = path.prior(torch.empty(n, 1, dtype=torch.float64), source)

    def bias(stepper: Stepper, steps: int) -> float:
        return abs(float(Sampler(stepper, LogSNRGrid(), steps)(oracle, start, generator=source).x.mean()) - truth)

    assert bias(DPMSolverPP(2, eta=1.0), 10) <= 0.005
    assert bias(PredictorCorrector(EulerMaruyama(), AnnealedLangevin(0.5)), 30) <= 0.012
    assert 0.020 <= bias(DPMSolverPP(2), 20) <= 0.034
