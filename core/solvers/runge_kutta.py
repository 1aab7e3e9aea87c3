r"""Single-step solvers of the probability-flow ODE.

:class:`RungeKutta` applies a classical tableau to :math:`dy = F du` in any coordinate, or to :math:`dx/dt` itself
("time").
:class:`Singlestep` is DPM-Solver's exponential pair of orders 2 and 3 in :math:`\lambda`, on the noise or the data
prediction (Lu et al. 2022, arXiv 2206.00927, algorithms 1-2; arXiv 2211.01095, algorithm 1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..paths import GaussianPath
from ..schedules import Schedule, schedule_values
from .coordinates import Coordinate, coordinate_named
from .sampler import Draw, Solution, Stepper

__all__ = ["RungeKutta", "Singlestep"]

Method = Literal["euler", "midpoint", "heun", "rk4"]

# (nodes c, rows a, weights b)
_TABLEAUS: dict[str, tuple[tuple[float, ...], tuple[tuple[float, ...], ...], tuple[float, ...]]] = {
    "euler": ((0.0,), ((),), (1.0,)),
    "midpoint": ((0.0, 0.5), ((), (0.5,)), (0.0, 1.0)),
    "heun": ((0.0, 1.0), ((), (1.0,)), (0.5, 0.5)),
    "rk4": ((0.0, 0.5, 0.5, 1.0), ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6)),
}


def _levels(schedule: Schedule, t: float) -> tuple[np.ndarray, np.ndarray]:
    alpha, sigma, _ = schedule_values(schedule, [t])
    if alpha.ndim > 1:
        raise ValueError("single-step solvers need a scalar schedule; use Multistep with a vector-valued one")
    return alpha[0].numpy(), sigma[0].numpy()


@dataclass(frozen=True)
class RungeKutta(Stepper):
    """Explicit Runge-Kutta; ``stages`` evaluations per step (Euler 1, midpoint and Heun 2, RK4 4).

    Args:
        method: "euler", "midpoint", "heun" or "rk4".
        coordinate: as in ``Multistep``, or "time" for dx/dt.
    """

    method: Method = "heun"
    coordinate: str | Coordinate = "straight"

    def __post_init__(self) -> None:
        if self.method not in _TABLEAUS:
            raise ValueError(f"unknown method {self.method!r}; choose one of {', '.join(_TABLEAUS)}")
        if self.coordinate != "time":
            coordinate_named(self.coordinate)

    @property
    def stages(self) -> int:
        return len(_TABLEAUS[self.method][0])

    def solve(self, path: GaussianPath, times: Sequence[float], x: Tensor, draw: Draw) -> Solution:
        for i, (t, s) in enumerate(pairwise(times)):
            x = yield from self.step(path, x, t, s, i)
        return x

    def step(self, path: GaussianPath, x: Tensor, t: float, s: float, index: int) -> Solution:
        """One step from t to s."""
        if float(_levels(path.schedule, s)[1]) == 0:  # the last step to clean data
            clean = yield x, t, index
            return clean * float(_levels(path.schedule, s)[0])
        nodes, rows, weights = _TABLEAUS[self.method]
        stage_times, span = self._stage_times(path.schedule, t, s, nodes)
        start_scale = self._scale(path.schedule, t)
        y = x / start_scale
        slopes: list[Tensor] = []
        for stage_time, row in zip(stage_times, rows, strict=True):
            state = _combine(y, slopes, [span * a for a in row]) * self._scale(path.schedule, stage_time)
            clean = yield state, stage_time, index
            p, q = self._feature(path.schedule, stage_time)
            slopes.append(p * state + q * clean)
        return _combine(y, slopes, [span * b for b in weights]) * self._scale(path.schedule, s)

    def _scale(self, schedule: Schedule, t: float) -> float:
        return (
            1.0 if self.coordinate == "time" else float(coordinate_named(self.coordinate).scale(*_levels(schedule, t)))
        )

    def _stage_times(
        self, schedule: Schedule, t: float, s: float, nodes: tuple[float, ...]
    ) -> tuple[list[float], float]:
        if self.coordinate == "time":
            return [t + c * (s - t) for c in nodes], s - t
        coordinate = coordinate_named(self.coordinate)
        begin, end = (float(coordinate.position(*_levels(schedule, moment))) for moment in (t, s))
        known = {0.0: t, 1.0: s}
        return [
            known[c]
            if c in known
            else _time(schedule, float(coordinate.logsnr_at(np.asarray(begin + c * (end - begin)))))
            for c in nodes
        ], end - begin

    def _feature(self, schedule: Schedule, t: float) -> tuple[float, float]:
        alpha, sigma = (float(v) for v in _levels(schedule, t))
        if self.coordinate != "time":
            p, q = coordinate_named(self.coordinate).feature(np.asarray(alpha), np.asarray(sigma))
            return float(p), float(q)
        moment = torch.tensor(t, dtype=torch.float64)
        growth = float(schedule.d_sigma(moment)) / sigma
        return growth, float(schedule.d_alpha(moment)) - alpha * growth


def _combine(y: Tensor, slopes: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    for slope, weight in zip(slopes, weights, strict=True):
        if weight:
            y = y.add(slope, alpha=weight)
    return y


def _time(schedule: Schedule, logsnr: float) -> float:
    return float(schedule.time(torch.tensor(logsnr, dtype=torch.float64)))


@dataclass(frozen=True)
class Singlestep(Stepper):
    """DPM-Solver's single-step method within a budget of evaluations: the grid's n steps are the budget n.

    The budget is divided over fewer intervals, even in :math:`\\lambda`, of the given order, with lower orders at
    the end ("DPM-Solver-fast"): use it with ``LogSNRGrid``, whose inner times it replaces.

    Args:
        order: 2 or 3.
        coordinate: "data" (DPM-Solver++) or "noise" (DPM-Solver).
    """

    order: int = 3
    coordinate: Literal["data", "noise"] = "data"

    def __post_init__(self) -> None:
        if self.order not in (2, 3) or self.coordinate not in ("data", "noise"):
            raise ValueError("Singlestep has the orders 2 and 3 in the coordinates 'data' and 'noise'")

    def orders(self, budget: int) -> list[int]:
        """Order of each interval; they sum to the budget."""
        if self.order == 2:
            return [2] * (budget // 2) + [1] * (budget % 2)
        if budget % 3 == 0:
            return [3] * (budget // 3 - 1) + [2, 1]
        return [3] * (budget // 3) + [budget % 3]

    def solve(self, path: GaussianPath, times: Sequence[float], x: Tensor, draw: Draw) -> Solution:
        schedule = path.schedule
        orders = self.orders(len(times) - 1)
        ends = [float(schedule_values(schedule, [t])[2]) for t in (times[0], times[-1])]
        if not math.isfinite(ends[1]):
            raise ValueError("Singlestep steps in log-SNR: the grid must end at t_min, not at 0")
        outer = np.linspace(ends[0], ends[1], len(orders) + 1).tolist()
        for i, order in enumerate(orders):
            t = times[0] if i == 0 else _time(schedule, outer[i])
            x = yield from self._interval(schedule, x, t, outer[i], outer[i + 1], order, i)
        return x

    def _interval(
        self, schedule: Schedule, x: Tensor, t: float, begin: float, end: float, order: int, index: int
    ) -> Solution:
        h = end - begin
        alpha, sigma = (float(v) for v in _levels(schedule, t))
        data = self.coordinate == "data"

        def first_order(x: Tensor, feature: Tensor, fraction: float) -> tuple[Tensor, float, float]:
            """(order-1 solution, weight of features, time) at a fraction of the step."""
            time = _time(schedule, begin + fraction * h)
            a, s = (float(v) for v in _levels(schedule, time))
            decay, weight = (s / sigma, a) if data else (a / alpha, s)
            growth = math.expm1(-fraction * h) if data else math.expm1(fraction * h)
            return decay * x - weight * growth * feature, weight, time

        def feature(state: Tensor, clean: Tensor, time: float) -> Tensor:
            if data:
                return clean
            a, s = (float(v) for v in _levels(schedule, time))
            return (state - a * clean) / s

        clean = yield x, t, index
        f0 = feature(x, clean, t)
        final, weight, _ = first_order(x, f0, 1.0)
        if order == 1:
            return final
        sign = -1.0 if data else 1.0
        first = 1 / order
        middle, _, time_1 = first_order(x, f0, first)
        clean = yield middle, time_1, index
        difference = feature(middle, clean, time_1) - f0
        growth = math.expm1(sign * h)
        if order == 2:
            return final - weight * growth / (2 * first) * difference
        second = 2 / 3
        state, weight_2, time_2 = first_order(x, f0, second)
        bend = math.expm1(sign * second * h) / (second * h) - sign
        state = state - sign * second / first * weight_2 * bend * difference
        # for data the local expansion reads +, for noise -, hence -sign
        clean = yield state, time_2, index
        curve = growth / h - sign
        return final - sign * weight * curve / second * (feature(state, clean, time_2) - f0)
