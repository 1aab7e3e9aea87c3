"""Solvers of the core by the names that users choose them by, and the grids they need."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ...core import (
    DDIM,
    DEIS,
    AdamsBashforth,
    Ancestral,
    DPMSolverPP,
    EulerMaruyama,
    LogSNRGrid,
    Multistep,
    RungeKutta,
    SASolver,
    Singlestep,
    UniPC,
)
from ...core.grids import Grid
from ...core.solvers.sampler import Stepper

__all__ = ["SOLVERS", "grid_for", "solver_named"]

SOLVERS: dict[str, Callable[[], Stepper]] = {
    "multistep": Multistep,
    "euler": partial(RungeKutta, "euler"),
    "heun": partial(RungeKutta, "heun"),
    "rk4": partial(RungeKutta, "rk4"),
    "adams-bashforth": AdamsBashforth,
    "ddim": DDIM,
    "deis": DEIS,
    "dpm-solver++": DPMSolverPP,
    "dpm-solver++-singlestep": Singlestep,
    "unipc": UniPC,
    "sa-solver": SASolver,
    "ancestral": Ancestral,
    "euler-maruyama": EulerMaruyama,
}


def solver_named(name: str | None) -> Stepper | None:
    """The solver of that name; None for None.

    Raises:
        KeyError: No solver of that name.
    """
    return None if name is None else SOLVERS[name]()


def grid_for(stepper: Stepper, usual: Grid) -> Grid:
    """The grid for a solver: the usual one, which ends at clean data, unless it cannot step there."""
    return LogSNRGrid() if isinstance(stepper, Singlestep) else usual
