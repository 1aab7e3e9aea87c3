r"""Forecasts that need no training; every table of results holds them.

From the last known places $x_0, x_{-1}, x_{-2}$ of an agent, at times $t_0 > t_{-1} > t_{-2}$, with divided differences
$v = [x_0, x_{-1}]$ and $a = [x_0, x_{-1}, x_{-2}]$:

    repeat last             x(t) = x_0
    constant velocity       x(t) = x_0 + v (t - t_0)
    constant acceleration   x(t) = x_0 + v (t - t_0) + a (t - t_0) (t - t_{-1})
    mean velocity           x(t) = x_0 + [x_0, x_first] (t - t_0)
    mean of observed        x(t) = mean of all known places
    linear interpolation    x(t) on the line between the observed neighbours in time

Times may be irregular and agents may be absent for a while: only known places count. An agent seen once stands still;
seen twice, it keeps its velocity; an agent never seen has no forecast (NaN).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BASELINES",
    "constant_acceleration",
    "constant_velocity",
    "linear_interpolation",
    "mean_of_observed",
    "mean_velocity",
    "repeat_last",
]

_Floats = NDArray[np.float64]


def repeat_last(positions: Any, times: Any, observed: Any) -> _Floats:
    """Every agent stays where it was last seen.

    Args:
        positions: places, shape `(B, N, T, D)`, array or tensor; only those with `observed` are looked at.
        times: `(B, T)`, strictly increasing.
        observed: `(B, N, T)`, True where a place is known and may be used.

    Returns:
        Places of all agents at all times, `(B, N, T, D)`.
    """
    return _extrapolate(*_arrays(positions, times, observed), order=0)


def constant_velocity(positions: Any, times: Any, observed: Any) -> _Floats:
    """Every agent keeps the velocity of its last two known places; arguments and result as in :func:`repeat_last`."""
    return _extrapolate(*_arrays(positions, times, observed), order=1)


def constant_acceleration(positions: Any, times: Any, observed: Any) -> _Floats:
    """Every agent follows the parabola of its last three known places; arguments and result as in
    :func:`repeat_last`."""
    return _extrapolate(*_arrays(positions, times, observed), order=2)


def mean_velocity(positions: Any, times: Any, observed: Any) -> _Floats:
    """Every agent keeps its mean velocity between its first and last known place; arguments and result as in
    :func:`repeat_last`."""
    x, t, known = _arrays(positions, times, observed)
    first = known.argmax(2)[..., None]
    last = (known.shape[2] - 1 - known[..., ::-1].argmax(2))[..., None]
    when = np.broadcast_to(t[:, None], known.shape)
    start, stop = (np.take_along_axis(x, i[..., None], 2)[:, :, 0] for i in (first, last))
    begun, ended = (np.take_along_axis(when, i, 2)[..., 0] for i in (first, last))
    velocity = _slope(stop, start, ended, begun, (last > first))
    forecast = stop[:, :, None] + velocity[:, :, None] * (when - ended[..., None])[..., None]
    return np.where(np.any(known, axis=-1, keepdims=True)[..., None], forecast, np.nan)


def mean_of_observed(positions: Any, times: Any, observed: Any) -> _Floats:
    """Every agent stands at the mean of its known places; arguments and result as in :func:`repeat_last`."""
    x, _, known = _arrays(positions, times, observed)
    count = known.sum(-1)[..., None]
    with np.errstate(invalid="ignore"):
        mean = np.where(known[..., None], x, 0).sum(2) / np.where(count > 0, count, np.nan)
    return np.repeat(mean[:, :, None], x.shape[2], axis=2)


def linear_interpolation(positions: Any, times: Any, observed: Any) -> _Floats:
    """Straight lines between observed neighbours in time, standing still outside; arguments and result as in
    :func:`repeat_last`."""
    x, t, known = _arrays(positions, times, observed)
    frames = np.broadcast_to(np.arange(known.shape[2]), known.shape)
    before = np.maximum.accumulate(np.where(known, frames, -1), axis=2)
    after = np.minimum.accumulate(np.where(known, frames, known.shape[2])[..., ::-1], axis=2)[..., ::-1]
    seen = np.any(known, axis=-1, keepdims=True)
    before, after = np.where(before < 0, after, before), np.where(after == known.shape[2], before, after)
    before, after = np.where(seen, before, 0), np.where(seen, after, 0)
    t = np.broadcast_to(t[:, None], known.shape)
    start, stop = np.take_along_axis(t, before, 2), np.take_along_axis(t, after, 2)
    weight = np.where(stop > start, (t - start) / np.where(stop > start, stop - start, 1), 0)[..., None]
    left, right = (np.take_along_axis(x, i[..., None], 2) for i in (before, after))
    return np.where(seen[..., None], left + weight * (right - left), np.nan)


#: The baselines of every forecasting table.
BASELINES: dict[str, Callable[[Any, Any, Any], _Floats]] = {
    "repeat last": repeat_last,
    "constant velocity": constant_velocity,
    "constant acceleration": constant_acceleration,
    "mean velocity": mean_velocity,
    "mean of observed": mean_of_observed,
}


def _arrays(positions: Any, times: Any, observed: Any) -> tuple[_Floats, _Floats, NDArray[np.bool_]]:
    x, t = np.asarray(positions, np.float64), np.asarray(times, np.float64)
    known = np.asarray(observed).astype(bool)
    if x.ndim != 4 or t.shape != (x.shape[0], x.shape[2]) or known.shape != x.shape[:3]:
        raise ValueError(
            "expected positions (B, N, T, D), times (B, T) and observed (B, N, T), "
            f"got {x.shape}, {t.shape} and {known.shape}"
        )
    if (np.diff(t, axis=1) <= 0).any():
        raise ValueError("times must strictly increase")
    return x, t, known


def _extrapolate(x: _Floats, t: _Floats, known: NDArray[np.bool_], order: int) -> _Floats:
    frames = np.where(known, np.arange(known.shape[2]), -1)
    # The last known frames of each agent, newest first; -1 where there are fewer.
    order = min(order, known.shape[2] - 1)
    last = -np.sort(-frames, axis=2)[..., : order + 1]
    safe = np.maximum(last, 0)
    places = np.take_along_axis(x, safe[..., None], 2)
    when = np.take_along_axis(np.broadcast_to(t[:, None], known.shape), safe, 2)
    exists = (last >= 0)[..., None]
    now = t[:, None, :, None]
    forecast = np.broadcast_to(np.where(exists[:, :, :1], places[:, :, :1], np.nan), x.shape).copy()
    if order == 0:
        return forecast
    velocity = _slope(places[:, :, 0], places[:, :, 1], when[..., 0], when[..., 1], exists[:, :, 1])
    forecast += velocity[:, :, None] * (now - when[..., :1, None])
    if order == 2:
        earlier = _slope(places[:, :, 1], places[:, :, 2], when[..., 1], when[..., 2], exists[:, :, 2])
        span = np.where(exists[:, :, 2], (when[..., 0] - when[..., 2])[..., None], 1)
        acceleration = np.where(exists[:, :, 2], (velocity - earlier) / span, 0)
        forecast += acceleration[:, :, None] * (now - when[..., :1, None]) * (now - when[..., 1:2, None])
    return forecast


def _slope(late: _Floats, early: _Floats, t_late: _Floats, t_early: _Floats, exists: NDArray[np.bool_]) -> _Floats:
    span = np.where(exists, (t_late - t_early)[..., None], 1)
    return np.where(exists, (late - early) / span, 0)
