"""Golden numbers: schedules, a Karras grid, an oracle and 18 samplers, to 1e-8."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fourfold.core import (
    DDIM,
    EDM,
    VP,
    Cosine,
    GaussianPath,
    KarrasGrid,
    LogSNRGrid,
    Multistep,
    PublicDPMSolverPP3M,
    Rectified,
    RungeKutta,
    Sampler,
    Schedule,
    Singlestep,
    Stepper,
    StochasticHeun,
)


@pytest.mark.parametrize(
    ("name", "schedule"), [("vp_linear", VP()), ("vp_cosine_s0.008", Cosine()), ("condot", Rectified())]
)
def test_schedules(name: str, schedule: Schedule, golden: Callable[[str], Any]) -> None:
    for t, (alpha, sigma, logsnr) in golden("core/golden_schedules.json")[name].items():
        moment = torch.tensor(float(t), dtype=torch.float64)
        ours = [float(f(moment)) for f in (schedule.alpha, schedule.sigma, schedule.logsnr)]
        assert ours == pytest.approx([alpha, sigma, logsnr], rel=1e-8, abs=1e-8)
        assert float(schedule.time(torch.tensor(logsnr, dtype=torch.float64))) == pytest.approx(float(t), abs=1e-8)


def test_karras_grid(golden: Callable[[str], Any]) -> None:
    expected = golden("core/golden_schedules.json")["karras_18_rho7_80_0.002"]
    times = torch.tensor(KarrasGrid()(EDM(), len(expected) - 1), dtype=torch.float64)
    assert EDM().sigma(times).tolist() == pytest.approx(expected, rel=1e-8)


def multistep(order: int, coordinate: str, weights: Any, lower: bool) -> Multistep:
    return Multistep(order, coordinate, corrector=False, extrapolation=weights, lower_order_final=lower)


SAMPLERS: dict[str, Stepper] = {
    "DDIM": DDIM(),
    **{
        f"{prefix}2M-{name}-{end}": multistep(2, coordinate, weights, end == "lof")
        for prefix, coordinate in (("++", "data"), ("eps", "noise"))
        for name, weights in (("midpoint", "midpoint"), ("taylor", "lagrange"))
        for end in ("lof", "nolof")
    },
    "++3M-reference(half D2)-lof": PublicDPMSolverPP3M(),
    "eps3M-reference(half D2)-lof": multistep(3, "noise", "public3", True),
    "++2S-single": Singlestep(2, "data"),
    "++3S-fast": Singlestep(3, "data"),
    "eps2S-single": Singlestep(2, "noise"),
    "eps3S-fast": Singlestep(3, "noise"),
    "heun(x/alpha,sigma/alpha)": RungeKutta("heun", "sigma"),
    "euler_t": RungeKutta("euler", "time"),
}


@pytest.mark.parametrize("steps", [5, 10])
@pytest.mark.parametrize("name", list(SAMPLERS))
def test_samplers(name: str, steps: int, golden: Callable[[str], Any], targets: SimpleNamespace) -> None:
    numbers = golden("core/golden_samplers_gmm2.json")
    expected = numbers["out"][str(steps)]
    key = name if name in expected else f"{name} NFE={steps}"
    start = torch.tensor(numbers["x_T"], dtype=torch.float64)
    sample = Sampler(SAMPLERS[name], LogSNRGrid(), steps)(targets.m2(GaussianPath(VP())), start)
    torch.testing.assert_close(sample.x, torch.tensor(expected[key], dtype=torch.float64), rtol=0, atol=1e-8)
    assert sample.times == pytest.approx(expected["grid_t"], abs=1e-12)


def test_heun_without_churn_is_the_golden_heun(golden: Callable[[str], Any], targets: SimpleNamespace) -> None:
    numbers = golden("core/golden_samplers_gmm2.json")
    start = torch.tensor(numbers["x_T"], dtype=torch.float64)
    x = Sampler(StochasticHeun(), LogSNRGrid(), 10)(targets.m2(GaussianPath(VP())), start).x
    expected = torch.tensor(numbers["out"]["10"]["heun(x/alpha,sigma/alpha)"], dtype=torch.float64)
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-8)


def test_every_golden_sampler_is_compared(golden: Callable[[str], Any]) -> None:
    for steps, numbers in golden("core/golden_samplers_gmm2.json")["out"].items():
        assert {key.removesuffix(f" NFE={steps}") for key in numbers} == {*SAMPLERS, "grid_t"}


def test_mixture_oracle(golden: Callable[[str], Any], targets: SimpleNamespace) -> None:
    numbers = golden("core/golden_samplers_gmm2.json")
    start, half = torch.tensor(numbers["x_T"], dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)
    oracle = targets.m2(GaussianPath(VP()))
    for ours, name in ((oracle.denoise, "x0hat_at_t0.5"), (oracle.score, "score_at_t0.5")):
        torch.testing.assert_close(ours(start, half), torch.tensor(numbers[name]).double(), rtol=0, atol=1e-6)
        expected = torch.tensor(numbers[name], dtype=torch.float64)
        torch.testing.assert_close(ours(start, half), expected, rtol=0, atol=1e-8)


def test_reference_solution_is_approached(golden: Callable[[str], Any], targets: SimpleNamespace) -> None:
    numbers = golden("core/golden_samplers_gmm2.json")
    start = torch.tensor(numbers["x_T"], dtype=torch.float64)
    expected = torch.tensor(numbers["reference_solution"], dtype=torch.float64)
    x = Sampler(RungeKutta("rk4", "straight"), LogSNRGrid(), 300)(targets.m2(GaussianPath(VP())), start).x
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-5)
