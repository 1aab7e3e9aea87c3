r"""Linear multistep solvers: DDIM, DEIS, DPM-Solver(++), UniPC, SA-Solver and Adams-Bashforth are points of one family.

In a coordinate :math:`dy = F\,du` (coordinates.py) the past features define a Lagrange polynomial in the node
variable, which is integrated exactly to the next time:

.. math:: x_{i+1} = A_i x_i + \textstyle\sum_j B_{ij} F_{i-j} + C_i z, \qquad F_i = p_i x_i + q_i D(x_i, t_i)

All coefficients are Python floats, computed in float64 before the first network call. The free corrector (Zhao et
al. 2023, "UniPC", arXiv 2302.04867) repeats a step with the new feature as an additional node: order + 1 without an
extra evaluation.

Stochastic members (:math:`\eta > 0`) add noise of variance :math:`\sigma_{i+1}^2(1 - e^{-2\eta h})`, :math:`h =
\Delta\lambda`: the exact solution of the reverse SDE with that much noise (SDE-DPM-Solver++, Lu et al. 2022, arXiv
2211.01095; SA-Solver, Xue et al. 2023, arXiv 2309.05019); order 1 with :math:`\eta = 1` is ancestral DDPM sampling.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..paths import GaussianPath
from ..schedules import Schedule, schedule_values
from .coordinates import Coordinate, DataCoordinate, NoiseCoordinate, coordinate_named
from .sampler import Draw, Solution, Stepper

__all__ = ["Multistep", "Row", "multistep_update"]

Coefficient = float | Tensor
Kernel = Callable[[np.ndarray], np.ndarray]
Extrapolation = Literal["lagrange", "midpoint", "public3"]

_POINTS, _WEIGHTS = np.polynomial.legendre.leggauss(32)


class Row(NamedTuple):
    """Coefficients of one step.

    Attributes:
        p, q: feature F = p x + q D at the start of the step.
        decay: A.
        weights: B_j, newest feature first.
        noise: C, 0 for deterministic steps.
        corrector: the weights of the corrected step, new feature first; empty without corrector.
    """

    p: Coefficient
    q: Coefficient
    decay: Coefficient
    weights: tuple[Coefficient, ...]
    noise: Coefficient
    corrector: tuple[Coefficient, ...]


def _scaled(x: Tensor, c: Coefficient) -> Tensor:
    return x * c


def _add(total: Tensor, x: Tensor, c: Coefficient) -> Tensor:
    return total.addcmul_(x, c) if isinstance(c, Tensor) else total.add_(x, alpha=c)


def multistep_update(
    x: Tensor, features: Sequence[Tensor], decay: Coefficient, weights: Sequence[Coefficient], noise: Tensor | None
) -> Tensor:
    """:math:`A x + \\sum_j B_j F_j + n`: the pure, compilable step. ``features`` are newest first, ``noise`` already
    scaled."""
    total = _scaled(x, decay)
    for feature, weight in zip(features, weights, strict=False):
        total = _add(total, feature, weight)
    return total if noise is None else total.add_(noise)


@dataclass(frozen=True)
class Multistep(Stepper):
    """A member of the family. The default is the best all-rounder at few steps.

    Args:
        order: number of features used, 1 to 3.
        coordinate: "straight", "trig", "data", "noise" or "sigma", or a ``Coordinate``.
        eta: amount of noise; 0 is the probability-flow ODE, 1 the reverse SDE. With noise prefer the coordinate "data":
            it alone keeps its order (at most a third of the number of steps) and the corrector. Past features of the
            others contain noise that has since been replaced, so they fall back to order 1.
        corrector: whether to use the free corrector.
        extrapolation: "lagrange" (exact), "midpoint" (the public second-order "2M" weights), or "public3" (the
            public third order, whose second difference lacks a factor 2 and which therefore has order 2).
        lower_order_final: fall back to lower orders in the last steps. Default: only in the exponential coordinates
            "data" and "noise", where extrapolating over the last, long steps in log-SNR is unsafe.
        ddim_eta: read ``eta`` as DDIM's :math:`\\eta` (standard deviation relative to ancestral sampling).

    Raises:
        ValueError: for an order outside 1..3, a negative eta, or an extrapolation that the coordinate or the order
            does not have.
    """

    order: int = 2
    coordinate: str | Coordinate = "straight"
    eta: float = 0.0
    corrector: bool = True
    extrapolation: Extrapolation = "lagrange"
    lower_order_final: bool | None = None
    ddim_eta: bool = False

    def __post_init__(self) -> None:
        coordinate = coordinate_named(self.coordinate)
        if not 1 <= self.order <= 3:
            raise ValueError(f"order must be 1, 2 or 3, got {self.order}")
        if self.eta < 0 or (self.ddim_eta and self.eta > 1):
            raise ValueError(f"eta must be >= 0 (and <= 1 for DDIM), got {self.eta}")
        if self.extrapolation not in ("lagrange", "midpoint", "public3"):
            raise ValueError(f"unknown extrapolation {self.extrapolation!r}")
        if self.extrapolation != "lagrange" and not isinstance(coordinate, DataCoordinate | NoiseCoordinate):
            raise ValueError("midpoint and public3 weights exist in the data and noise coordinates only")
        if self.extrapolation == "midpoint" and self.order > 2:
            raise ValueError(f"midpoint weights exist up to order 2, got order {self.order}")

    def plan(self, schedule: Schedule, times: Sequence[float]) -> tuple[Row, ...]:
        """Compile the steps between ``times`` into coefficients (float64; arrays for vector-valued schedules)."""
        coordinate = coordinate_named(self.coordinate)
        alpha, sigma, logsnr = (v.numpy() for v in schedule_values(schedule, times))
        steps = len(times) - 1
        limit = self.order
        if self.eta > 0:  # extrapolating features that hold replaced noise would blow up at few steps
            limit = min(limit, max(1, steps // 3)) if isinstance(coordinate, DataCoordinate) else 1
        lower = self.lower_order_final
        if lower is None:
            lower = isinstance(coordinate, DataCoordinate | NoiseCoordinate)
        orders = [min(limit, i + 1, steps - i if lower else limit) for i in range(steps)]
        to_clean = bool(np.all(sigma[-1] == 0))
        rows: list[Row] = []
        for order, run in groupby(range(steps - to_clean), orders.__getitem__):
            rows += self._rows(coordinate, alpha, sigma, logsnr, np.array(list(run)), order)
        # nothing follows, or a data prediction, which forgets the state it was made at: not worth correcting
        rows[-1:] = [row._replace(corrector=()) for row in rows[-1:]]
        if to_clean:  # x = alpha D
            nothing = np.zeros_like(alpha[-1:])
            rows += _compiled(nothing, nothing + 1, nothing, [alpha[-1:]], nothing, [])
        return tuple(rows)

    def _rows(
        self,
        coordinate: Coordinate,
        alpha: np.ndarray,
        sigma: np.ndarray,
        logsnr: np.ndarray,
        i: np.ndarray,
        order: int,
    ) -> list[Row]:
        """The steps i, all of one order, at once."""
        h = logsnr[i + 1] - logsnr[i]
        eta_h = self.eta * h
        if self.ddim_eta:
            eta_h = -np.log1p(self.eta**2 * np.expm1(-2 * h)) / 2
        target = (alpha[i + 1], sigma[i + 1] * np.exp(-eta_h))
        history = [coordinate.node(alpha[i - j], sigma[i - j]) for j in range(order)]
        begin, end = history[0], coordinate.node(alpha[i + 1], sigma[i + 1])
        decay = coordinate.scale(*target) / coordinate.scale(alpha[i], sigma[i])
        if isinstance(coordinate, DataCoordinate):
            rate = 1 + eta_h / h  # the exponent of the SDE's integrating factor

            def kernel(node: np.ndarray) -> np.ndarray:
                return target[0] * rate * np.exp(rate * (node - end))
        else:
            # deterministic move to a lower noise level, then noise
            end = coordinate.node(*target)

            def kernel(node: np.ndarray) -> np.ndarray:
                return coordinate.kernel(node, *target)

        weights = _integrate(kernel, begin, end, history)
        if self.extrapolation != "lagrange" and order > 1:
            weights = self._public_weights(kernel, begin, end, history)
        corrector: list[np.ndarray] = []
        if self.corrector and (self.eta == 0 or isinstance(coordinate, DataCoordinate)):
            # the stochastic end point is not on the deterministic trajectory: its feature sits at the true next time
            new = coordinate.node(alpha[i + 1], sigma[i + 1])
            corrector = _integrate(kernel, begin, end, [new, *history])
        noise = sigma[i + 1] * np.sqrt(-np.expm1(-2 * eta_h))
        p, q = coordinate.feature(alpha[i], sigma[i])
        return _compiled(p, q, decay, weights, noise, corrector)

    def _public_weights(
        self, kernel: Kernel, begin: np.ndarray, end: np.ndarray, history: list[np.ndarray]
    ) -> list[np.ndarray]:
        whole = _integrate(kernel, begin, end, history[:1])[0]
        h = end - begin
        r0 = (history[0] - history[1]) / h
        if len(history) == 2:
            return [whole * (1 + 1 / (2 * r0)), -whole / (2 * r0)]
        # moments of the local variable (v - v_0)/h: the exact rule is whole f0 + first D1 + second D2 / 2
        first = _moment(kernel, begin, end, 1)
        second = _moment(kernel, begin, end, 2) / 2
        r1 = (history[1] - history[2]) / h
        d1_0, d1_1 = np.array([1 / r0, -1 / r0, 0 * r0]), np.array([0 * r1, 1 / r1, -1 / r1])
        slope = d1_0 + r0 / (r0 + r1) * (d1_0 - d1_1)
        curvature = (d1_0 - d1_1) / (r0 + r1)
        unit = np.array([1.0, 0.0, 0.0]).reshape(3, *(1,) * np.ndim(h))
        return list(whole * unit + first * slope + second * curvature)

    def solve(self, path: GaussianPath, times: Sequence[float], x: Tensor, draw: Draw) -> Solution:
        rows = self.plan(path.schedule, times)
        if path.schedule.logsnr(torch.zeros(())).ndim:
            rows = tuple(_on_device(row, x) for row in rows)
        history: list[Tensor] = []
        previous, shift = x, None
        for i, row in enumerate(rows):
            clean = yield x, times[i], i
            feature = clean if _is_zero(row.p) else _add(_scaled(x, row.p), clean, row.q)
            if i > 0 and rows[i - 1].corrector:
                last = rows[i - 1]
                x = multistep_update(previous, [feature, *history], last.decay, last.corrector, shift)
            history = [feature, *history[: self.order - 1]]
            previous = x
            shift = None if _is_zero(row.noise) else _scaled(draw(i), row.noise)
            x = multistep_update(x, history, row.decay, row.weights, shift)
        return x


def _is_zero(c: Coefficient) -> bool:
    return isinstance(c, float) and c == 0.0


def _split(values: np.ndarray) -> list[Coefficient]:
    """One coefficient per step: a float, or a tensor for vector-valued schedules."""
    if values.ndim == 1:
        return values.tolist()
    # zeros need no tensor, and no draw where they multiply noise
    return [torch.from_numpy(np.ascontiguousarray(v)) if np.any(v) else 0.0 for v in values]


def _compiled(
    p: np.ndarray,
    q: np.ndarray,
    decay: np.ndarray,
    weights: Sequence[np.ndarray],
    noise: np.ndarray,
    corrector: Sequence[np.ndarray],
) -> list[Row]:
    """Rows from arrays with one entry per step."""
    predictors, correctors = (list(zip(*map(_split, group), strict=True)) for group in (weights, corrector))
    columns = _split(p), _split(q), _split(decay), predictors, _split(noise), correctors or [()] * len(p)
    return [Row(*row) for row in zip(*columns, strict=True)]


def _on_device(row: Row, like: Tensor) -> Row:
    def move(value: Coefficient) -> Coefficient:
        return value.to(like) if isinstance(value, Tensor) else value

    return Row(
        move(row.p),
        move(row.q),
        move(row.decay),
        tuple(map(move, row.weights)),
        move(row.noise),
        tuple(map(move, row.corrector)),
    )


def _quadrature(kernel: Kernel, begin: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(nodes, weights times kernel, local variable in [0, 1])."""
    shape = (-1,) + (1,) * np.ndim(begin)
    v = (_POINTS.reshape(shape) + 1) / 2
    node = begin + v * (end - begin)
    return node, _WEIGHTS.reshape(shape) / 2 * (end - begin) * kernel(node), v


def _moment(kernel: Kernel, begin: np.ndarray, end: np.ndarray, power: int) -> np.ndarray:
    _, density, v = _quadrature(kernel, begin, end)
    return (density * v**power).sum(0)


def _integrate(kernel: Kernel, begin: np.ndarray, end: np.ndarray, nodes: list[np.ndarray]) -> list[np.ndarray]:
    """Integrals of the Lagrange basis on ``nodes`` against the kernel from begin to end."""
    node, density, _ = _quadrature(kernel, begin, end)
    result = []
    for j, own in enumerate(nodes):
        basis = np.ones_like(node)
        for k, other in enumerate(nodes):
            if k != j:
                basis = basis * (node - other) / (own - other)
        result.append((density * basis).sum(0))
    return result
