"""Time grids: where a sampler evaluates the denoiser.

A grid of n steps is n + 1 decreasing times. It starts at t_max (or at the time of a given state) and ends at t_min,
or at 0 if ``end=0``: then the last step is the data prediction, if the schedule has no noise at t = 0 (VE and EDM keep
sigma_min). Categorical paths should always end at 0. With n steps a multistep solver needs n evaluations.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch

from .schedules import Schedule

__all__ = ["Grid", "KarrasGrid", "LogSNRGrid", "QuadraticGrid", "StraightGrid", "TimesGrid", "UniformGrid"]


@dataclass(frozen=True)
class Grid(ABC):
    """Base of all grids.

    Args:
        end: last time; None is the schedule's t_min, 0 the clean data.
    """

    end: float | None = field(default=None, kw_only=True)

    @abstractmethod
    def _between(self, schedule: Schedule, steps: int, start: float, end: float) -> np.ndarray:
        """steps + 1 times from start to end, both included."""

    def __call__(self, schedule: Schedule, steps: int, start: float | None = None) -> tuple[float, ...]:
        """The times, strictly decreasing.

        Args:
            schedule: the schedule sampled.
            steps: number of steps, at least 1.
            start: first time; default t_max.

        Raises:
            ValueError: if there is no step to make or ``start`` is outside (end, 1].
        """
        end = schedule.t_min if self.end is None else self.end
        start = schedule.t_max if start is None else start
        if steps < 1:
            raise ValueError(f"a sampler needs at least 1 step, got {steps}")
        if not end < start <= 1:
            raise ValueError(f"cannot sample from t={start} to t={end}: need end < start <= 1")
        if end == 0 < schedule.t_min and self._resolves_zero():
            last = min(schedule.t_min, start / 2)
            inner = self._between(schedule, steps - 1, start, last) if steps > 1 else np.array([start])
            times = np.append(inner, 0.0)
        else:
            times = self._between(schedule, steps, start, end)
            times[-1] = end
        times[0] = start
        return tuple(float(t) for t in times)

    def _resolves_zero(self) -> bool:
        """Whether t = 0 has to be appended because the grid's own coordinate is infinite there."""
        return True


@dataclass(frozen=True)
class UniformGrid(Grid):
    """Evenly spaced in t."""

    def _between(self, schedule: Schedule, steps: int, start: float, end: float) -> np.ndarray:
        return np.linspace(start, end, steps + 1)

    def _resolves_zero(self) -> bool:
        return False


@dataclass(frozen=True)
class QuadraticGrid(Grid):
    """Evenly spaced in the square root of t: finer near the data. Source: Song et al. 2021 (DDIM), arXiv 2010.02502."""

    def _between(self, schedule: Schedule, steps: int, start: float, end: float) -> np.ndarray:
        return np.linspace(start**0.5, end**0.5, steps + 1) ** 2

    def _resolves_zero(self) -> bool:
        return False


@dataclass(frozen=True)
class LogSNRGrid(Grid):
    """Evenly spaced in :math:`\\lambda`. Source: Lu et al. 2022 (DPM-Solver), arXiv 2206.00927."""

    def _between(self, schedule: Schedule, steps: int, start: float, end: float) -> np.ndarray:
        first, last = (_logsnr(schedule, t) for t in (start, end))
        return _times(schedule, np.linspace(first, last, steps + 1))


@dataclass(frozen=True)
class KarrasGrid(Grid):
    """Evenly spaced in :math:`(\\sigma/\\alpha)^{1/\\rho}`. Source: Karras et al. 2022, arXiv 2206.00364, eq. 5."""

    rho: float = 7.0

    def _between(self, schedule: Schedule, steps: int, start: float, end: float) -> np.ndarray:
        first, last = (np.exp(-_logsnr(schedule, t) / self.rho) for t in (start, end))
        return _times(schedule, -self.rho * np.log(np.linspace(first, last, steps + 1)))


@dataclass(frozen=True)
class StraightGrid(Grid):
    """Evenly spaced in :math:`u = \\sigma/(\\alpha + \\sigma)`: the natural grid of the straight coordinate, best at
    few steps."""

    def _between(self, schedule: Schedule, steps: int, start: float, end: float) -> np.ndarray:
        first, last = (1 / (1 + np.exp(_logsnr(schedule, t))) for t in (start, end))
        u = np.linspace(first, last, steps + 1)
        return _times(schedule, np.log1p(-u) - np.log(u))


@dataclass(frozen=True)
class TimesGrid(Grid):
    """Given times, whatever the schedule; ``steps`` must be their number minus 1."""

    times: tuple[float, ...] = ()

    def __call__(self, schedule: Schedule, steps: int, start: float | None = None) -> tuple[float, ...]:
        times = tuple(float(t) for t in self.times)
        if start is not None:
            times = (start, *(t for t in times if t < start))
        elif len(times) != steps + 1:
            raise ValueError(f"{steps} steps need {steps + 1} times, got {len(times)}")
        if len(times) < 2 or any(a <= b for a, b in pairwise(times)):
            raise ValueError("the times of a grid must be at least two and strictly decreasing")
        return times

    def _between(self, schedule: Schedule, steps: int, start: float, end: float) -> np.ndarray:
        return np.array(self.times)


def _logsnr(schedule: Schedule, t: float) -> float:
    value = schedule.logsnr(torch.tensor(t, dtype=torch.float64))
    if value.ndim:
        raise ValueError("this grid needs a scalar schedule; use UniformGrid with a vector-valued one")
    if not torch.isfinite(value):
        raise ValueError(
            f"{type(schedule).__name__} is singular at t={t}; choose a time between t_min={schedule.t_min} and "
            f"t_max={schedule.t_max}"
        )
    return float(value)


def _times(schedule: Schedule, logsnr: np.ndarray) -> np.ndarray:
    return schedule.time(torch.from_numpy(np.ascontiguousarray(logsnr))).numpy()
