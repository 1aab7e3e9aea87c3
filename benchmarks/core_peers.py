"""The samplers compared by the core benchmark: ours, and azula's and diffusers' own, behind one small interface."""
# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from core_targets import Denoise, Levels
from torch import Tensor

from fourfold.core import (
    DDIM,
    DEIS,
    EDM,
    BaseDenoiser,
    DPMSolver,
    DPMSolverPP,
    GaussianPath,
    Grid,
    KarrasGrid,
    LogSNRGrid,
    Multistep,
    PublicDPMSolverPP3M,
    RungeKutta,
    Sampler,
    Singlestep,
    Stepper,
    StochasticHeun,
    StraightGrid,
    UniPC,
)

__all__ = ["BEST", "DEFAULT", "Configuration", "Run", "azula", "diffusers", "ours"]

SIGMA_MIN, SIGMA_MAX = 0.002, 80.0

DEFAULT = "Multistep()"
BEST = "Multistep(3)"


@dataclass(frozen=True)
class Run:
    """What a sampler did: its end points x at ``end``, from ``start``, with how many evaluations."""

    x: Tensor
    start: Levels
    end: Levels
    evaluations: int


@dataclass(frozen=True)
class Configuration:
    """A sampler with its settings.

    ``run(denoise, noise, budget)`` starts from sigma * noise and uses at most ``budget`` evaluations.
    """

    library: str
    name: str
    run: Callable[[Denoise, Tensor, int], Run]


class _Ours(BaseDenoiser):
    def __init__(self, denoise: Denoise, path: GaussianPath) -> None:
        super().__init__()
        self.denoise, self.path, self.calls = denoise, path, 0

    def forward(self, x_t: Tensor, t: Tensor, *, mask: Any = None, condition: Any = None) -> Tensor:
        self.calls += 1
        return self.denoise(x_t, *_levels(self.path.schedule, t)).to(x_t.dtype)


def _levels(schedule: Any, t: Tensor | float) -> Levels:
    t = torch.as_tensor(t, dtype=torch.float64)
    return float(schedule.alpha(t)), float(schedule.sigma(t))


def _run_ours(stepper: Stepper, grid: Grid, stages: int, denoise: Denoise, noise: Tensor, budget: int) -> Run:
    schedule = EDM(SIGMA_MIN, SIGMA_MAX)
    denoiser = _Ours(denoise, GaussianPath(schedule))
    start, end = _levels(schedule, schedule.t_max), _levels(schedule, schedule.t_min)
    result = Sampler(stepper, grid, budget // stages)(denoiser, (start[1] * noise).float(), generator=0)
    return Run(result.x, start, end, denoiser.calls)


def ours() -> Iterator[Configuration]:
    """fourfold on its EDM path, sigma 80 to 0.002; the grid is StraightGrid where none is named."""

    def entry(stepper: Stepper, grid: Grid, label: str, stages: int = 1) -> Configuration:
        suffix = "" if isinstance(grid, StraightGrid) else f", {type(grid).__name__}"
        return Configuration("fourfold", label + suffix, partial(_run_ours, stepper, grid, stages))

    straight, karras, logsnr = StraightGrid(), KarrasGrid(), LogSNRGrid()
    yield entry(Multistep(), straight, DEFAULT)
    for order in (2, 3):
        for coordinate in ("straight", "trig"):
            prefix = f"Multistep({order}" if coordinate == "straight" else f"Multistep({order}, 'trig'"
            if prefix != "Multistep(2":  # the default
                yield entry(Multistep(order, coordinate), straight, f"{prefix})")
            lowered = Multistep(order, coordinate, lower_order_final=True)
            yield entry(lowered, straight, f"{prefix}, lower_order_final=True)")
        yield entry(Multistep(order, corrector=False), straight, f"Multistep({order}, corrector=False)")
        yield entry(Multistep(order), karras, f"Multistep({order})")
        for grid in (karras, logsnr):
            yield entry(UniPC(order), grid, f"UniPC({order})")
            yield entry(DPMSolverPP(order), grid, f"DPMSolverPP({order})")
        yield entry(UniPC(order), straight, f"UniPC({order})")
        yield entry(DPMSolver(order), logsnr, f"DPMSolver({order})")
        yield entry(DEIS(order), karras, f"DEIS({order})")
        yield entry(Singlestep(order), logsnr, f"Singlestep({order})")
    yield entry(PublicDPMSolverPP3M(), karras, "PublicDPMSolverPP3M()")
    yield entry(DDIM(), karras, "DDIM()")
    yield entry(DDIM(), straight, "DDIM()")
    for solver in (RungeKutta("midpoint"), RungeKutta("heun"), RungeKutta("rk4")):
        yield entry(solver, straight, f"RungeKutta('{solver.method}')", solver.stages)
    yield entry(StochasticHeun(), karras, "StochasticHeun(churn=0)", 2)


# ---------------------------------------------------------------------------------------------------------------- azula


def azula_denoiser(denoise: Callable[[Tensor, Tensor], Tensor], schedule: Any) -> Any:
    """An azula denoiser from a function of (x, t)."""
    from azula.denoise import Denoiser, DiracPosterior

    class Exact(Denoiser):
        def __init__(self) -> None:
            super().__init__()
            self.schedule, self.calls = schedule, 0

        def forward(self, x_t: Tensor, t: Tensor, **kwargs: Any) -> DiracPosterior:
            self.calls += 1
            return DiracPosterior(denoise(x_t, t))

    return Exact()


def _run_azula(
    sampler: Callable[..., Any], schedule: Any, stages: int, denoise: Denoise, noise: Tensor, budget: int
) -> Run:
    start, end = _levels(schedule, 1.0), _levels(schedule, 0.0)
    denoiser = azula_denoiser(lambda x, t: denoise(x, *_levels(schedule, t)).to(x.dtype), schedule)
    # float64 times, so that single-precision schedules do not count against the solver
    solver = sampler(denoiser, steps=budget // stages, silent=True, dtype=torch.float64)
    return Run(solver((start[1] * noise).float()), start, end, denoiser.calls)


def azula() -> Iterator[Configuration]:
    """azula's samplers on its own schedules and on Karras', sigma/alpha 80 to 0.002 (own ends: 1000 to 0.001)."""
    from azula import noise as schedules
    from azula import sample

    class KarrasSchedule(schedules.VESchedule):
        def sigma(self, t: Tensor) -> Tensor:
            low, high = self.sigma_min ** (1 / 7), self.sigma_max ** (1 / 7)
            return (low + t * (high - low)) ** 7

    alpha_min, sigma_min = 1 / SIGMA_MAX, SIGMA_MIN
    grids: dict[str, Any] = {
        "VE": schedules.VESchedule(SIGMA_MIN, SIGMA_MAX),
        "Karras": KarrasSchedule(SIGMA_MIN, SIGMA_MAX),
        "rectified": schedules.RectifiedSchedule(alpha_min, sigma_min),
        "VP": schedules.VPSchedule(alpha_min, sigma_min),
        "cosine": schedules.CosineSchedule(alpha_min, sigma_min),
        "decay": schedules.DecaySchedule(alpha_min, sigma_min),
        "rectified, own ends": schedules.RectifiedSchedule(),
    }
    for grid, schedule in grids.items():
        for name, stages in (("Euler", 1), ("DDIM", 1), ("Heun", 2)):
            run = partial(_run_azula, getattr(sample, f"{name}Sampler"), schedule, stages)
            yield Configuration("azula", f"{name}, {grid}", run)
        for kind in ("zAB", "vAB", "zEAB", "xEAB", "REAB"):
            for order in (2, 3, 4):
                run = partial(_run_azula, partial(getattr(sample, f"{kind}Sampler"), order=order), schedule, 1)
                yield Configuration("azula", f"{kind}({order}), {grid}", run)


# ------------------------------------------------------------------------------------------------------------ diffusers


def _vp(ratio: float) -> Levels:
    return (1 + ratio * ratio) ** -0.5, ratio * (1 + ratio * ratio) ** -0.5


def _edm(ratio: float) -> Levels:
    return 1.0, ratio


def _flow(sigma: float) -> Levels:
    return 1 - sigma, sigma


def _noise_output(x: Tensor, clean: Tensor, alpha: float, sigma: float) -> Tensor:
    return (x - alpha * clean) / sigma


def _velocity_output(x: Tensor, clean: Tensor, alpha: float, sigma: float) -> Tensor:
    # equal to noise - clean, and finite at alpha = 0
    return (x - (alpha + sigma) * clean) / sigma


def _edm_output(x: Tensor, clean: Tensor, alpha: float, sigma: float, sigma_data: float = 0.5) -> Tensor:
    total = sigma**2 + sigma_data**2
    return (clean - sigma_data**2 / total * x) * total**0.5 / (sigma * sigma_data)


def _run_diffusers(
    make: Callable[[], Any],
    scale: Callable[[float], Levels],
    output: Callable[[Tensor, Tensor, float, float], Tensor],
    steps: Callable[[int], int],
    denoise: Denoise,
    noise: Tensor,
    budget: int,
) -> Run:
    scheduler = make()
    scheduler.set_timesteps(steps(budget))
    if hasattr(scheduler, "sigmas"):
        levels = [scale(float(s)) for s in scheduler.sigmas]
    else:
        last = scheduler.final_alpha_cumprod
        levels = [_vp(float((1 - a) / a) ** 0.5) for a in (*scheduler.alphas_cumprod[scheduler.timesteps], last)]
    x = (levels[0][1] * noise).float()
    for (alpha, sigma), t in zip(levels, scheduler.timesteps, strict=False):
        if hasattr(scheduler, "scale_model_input"):
            scheduler.scale_model_input(x, t)
        clean = denoise(x, alpha, sigma)
        x = scheduler.step(output(x.double(), clean, alpha, sigma).float(), t, x).prev_sample
    return Run(x, levels[0], levels[-1], len(scheduler.timesteps))


def diffusers() -> Iterator[Configuration]:
    """diffusers' schedulers with their default betas (sigma/alpha 157, or flow sigmas from 1), to their own end."""
    import diffusers as library
    from diffusers.utils import logging

    logging.set_verbosity_error()

    def same(budget: int) -> int:
        return budget

    def heun(budget: int) -> int:
        return (budget + 1) // 2

    def entry(
        name: str,
        scheduler: str,
        scale: Callable[[float], Levels] = _vp,
        output: Callable[[Tensor, Tensor, float, float], Tensor] = _noise_output,
        steps: Callable[[int], int] = same,
        **options: Any,
    ) -> Configuration:
        make = partial(getattr(library, f"{scheduler}Scheduler"), **options)
        return Configuration("diffusers", name, partial(_run_diffusers, make, scale, output, steps))

    trailing: dict[str, Any] = {"timestep_spacing": "trailing"}
    flow: dict[str, Any] = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
    for spacing in ("karras", "exponential"):
        options: dict[str, Any] = {"sigma_schedule": spacing}
        yield entry(f"EDMEuler, {spacing}", "EDMEuler", _edm, _edm_output, **options)
        for order in (2, 3):
            solver = "EDMDPMSolverMultistep"
            yield entry(f"EDM DPM++{order}M, {spacing}", solver, _edm, _edm_output, solver_order=order, **options)
    yield entry("DDIM", "DDIM", clip_sample=False, **trailing)
    yield entry("Euler", "EulerDiscrete", _edm, **trailing)
    yield entry("Euler, karras", "EulerDiscrete", _edm, use_karras_sigmas=True, **trailing)
    betas: dict[str, Any] = {"beta_start": 1e-4, "beta_end": 0.02}
    yield entry("Heun", "HeunDiscrete", _edm, steps=heun, **betas, **trailing)
    yield entry("Heun, karras", "HeunDiscrete", _edm, steps=heun, use_karras_sigmas=True, **betas, **trailing)
    yield entry("LMS, karras", "LMSDiscrete", _edm, use_karras_sigmas=True, **trailing)
    for solver, name in (
        ("DPMSolverMultistep", "DPM++{}M"),
        ("UniPCMultistep", "UniPC{}"),
        ("DEISMultistep", "DEIS{}"),
    ):
        for order in (2, 3):
            short = name.format(order)
            yield entry(f"{short}, trailing", solver, solver_order=order, **trailing)
            yield entry(f"{short}, linspace", solver, solver_order=order)
            yield entry(f"{short}, karras", solver, solver_order=order, use_karras_sigmas=True)
            yield entry(f"{short}, exponential", solver, solver_order=order, use_exponential_sigmas=True)
            for shift in (1.0, 3.0):
                if solver != "DEISMultistep":  # DEIS' flow sigmas end at 1/n: noisy samples
                    label = f"{short}, flow" if shift == 1 else f"{short}, flow, shift {shift:g}"
                    yield entry(label, solver, _flow, _velocity_output, solver_order=order, flow_shift=shift, **flow)
    for order in (2, 3):
        yield entry(f"DPM++{order}M, lu", "DPMSolverMultistep", solver_order=order, use_lu_lambdas=True)
    for shift in (1.0, 3.0):
        label = "" if shift == 1 else f", shift {shift:g}"
        yield entry(f"FlowMatchEuler{label}", "FlowMatchEulerDiscrete", _flow, _velocity_output, shift=shift)
        yield entry(f"FlowMatchHeun{label}", "FlowMatchHeunDiscrete", _flow, _velocity_output, steps=heun, shift=shift)
