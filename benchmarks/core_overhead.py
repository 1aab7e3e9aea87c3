"""Cost of a sampler per evaluation, network excluded: the slope of process time between 10 and 50 evaluations."""
# pyright: reportMissingImports=false

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from core_peers import azula_denoiser
from torch import Tensor

from fourfold.core import EDM, BaseDenoiser, DPMSolverPP, GaussianPath, KarrasGrid, Multistep, Sampler, StraightGrid

__all__ = ["SHAPES", "Overhead", "overheads"]

SHAPES = ((1, 64), (1, 64, 64))

_FEW, _MANY = 10, 50

Task = Callable[[Tensor, int], Any]
"""Samples from a state with so many evaluations, set-up of the sampler included."""


@dataclass(frozen=True)
class Overhead:
    """Microseconds per evaluation of an order-2 sampler, one for each of SHAPES."""

    library: str
    name: str
    stochastic: bool
    microseconds: tuple[float, ...]


def _clean(x: Tensor) -> Tensor:
    """The network of everybody: one multiplication."""
    return x * 0.5


class _Trivial(BaseDenoiser):
    def __init__(self) -> None:
        super().__init__()
        self.path = GaussianPath(EDM())

    def forward(self, x_t: Tensor, t: Tensor, *, mask: Any = None, condition: Any = None) -> Tensor:
        return _clean(x_t)


def _ours() -> dict[tuple[str, bool], Task]:
    denoiser = _Trivial()

    def task(stepper: Multistep, grid: Any) -> Task:
        return lambda x, n: Sampler(stepper, grid, n)(denoiser, x, generator=0)

    return {
        ("Multistep(corrector=False)", False): task(Multistep(corrector=False), StraightGrid()),
        ("Multistep() (with corrector)", False): task(Multistep(), StraightGrid()),
        ("DPMSolverPP()", False): task(DPMSolverPP(), KarrasGrid()),
        ("DPMSolverPP(eta=1)", True): task(DPMSolverPP(eta=1.0), KarrasGrid()),
    }


def _azula() -> dict[tuple[str, bool], Task]:
    from azula import noise, sample

    denoiser = azula_denoiser(lambda x, t: _clean(x), noise.VESchedule(0.002, 80))

    def task(kind: Any, **options: Any) -> Task:
        return lambda x, n: kind(denoiser, steps=n, silent=True, **options)(x)

    kinds = {f"{kind}(2)": getattr(sample, f"{kind}Sampler") for kind in ("zAB", "vAB", "zEAB", "xEAB", "REAB")}
    tasks: dict[tuple[str, bool], Task] = {(name, False): task(kind, order=2) for name, kind in kinds.items()}
    return tasks | {("DDPM (order 1)", True): task(sample.DDPMSampler)}


def _diffusers() -> dict[tuple[str, bool], Task]:
    import diffusers
    from diffusers.utils import logging

    logging.set_verbosity_error()

    def task(name: str, **options: Any) -> Task:
        scheduler = getattr(diffusers, f"{name}Scheduler")(**options)

        def run(x: Tensor, n: int) -> Tensor:
            scheduler.set_timesteps(n)
            for t in scheduler.timesteps:
                x = scheduler.step(_clean(scheduler.scale_model_input(x, t)), t, x, return_dict=False)[0]
            return x

        return run

    sde: dict[str, Any] = {"algorithm_type": "sde-dpmsolver++"}
    return {
        ("DPM++2M", False): task("DPMSolverMultistep", timestep_spacing="trailing"),
        ("DPM++2M, karras", False): task("DPMSolverMultistep", use_karras_sigmas=True),
        ("EDM DPM++2M", False): task("EDMDPMSolverMultistep"),
        ("UniPC2", False): task("UniPCMultistep", timestep_spacing="trailing"),
        ("DEIS2", False): task("DEISMultistep", timestep_spacing="trailing"),
        ("SDE-DPM++2M", True): task("DPMSolverMultistep", timestep_spacing="trailing", **sde),
        ("EDM SDE-DPM++2M", True): task("EDMDPMSolverMultistep", **sde),
    }


@torch.no_grad()
def overheads(repeats: int) -> list[Overhead]:
    """Measure everybody, in turns so that a busy machine disturbs all alike; the minimum over the repeats counts."""
    libraries = {"fourfold": _ours(), "azula": _azula(), "diffusers": _diffusers()}
    tasks = [(library, *key, task) for library, tasks in libraries.items() for key, task in tasks.items()]
    best: dict[tuple[int, int, int], float] = {}
    states = [torch.randn(shape, generator=torch.Generator().manual_seed(0)) for shape in SHAPES]
    for _ in range(repeats):
        for index, (*_, task) in enumerate(tasks):
            for size, x in enumerate(states):
                for n in (_FEW, _MANY):
                    begin = time.process_time()
                    task(x, n)
                    elapsed = time.process_time() - begin
                    best[index, size, n] = min(elapsed, best.get((index, size, n), elapsed))
    return [
        Overhead(
            library,
            name,
            stochastic,
            tuple((best[i, s, _MANY] - best[i, s, _FEW]) / (_MANY - _FEW) * 1e6 for s in range(len(SHAPES))),
        )
        for i, (library, name, stochastic, _) in enumerate(tasks)
    ]
