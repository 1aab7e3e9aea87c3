r"""Forecasters without parameters, the ones every table must show beside a model.

All take the known past of each series (NaN where missing) and return samples `(N, S, H)`.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .drawing import check_count

__all__ = ["bootstrap_random_walk", "naive", "seasonal_naive"]


def naive(past: Sequence[NDArray[np.floating]], horizon: int) -> NDArray[np.float64]:
    """Repeats the last observed value; a point forecast, `S = 1`.

    Args:
        past: N one-dimensional arrays.
        horizon: H.

    Returns:
        Shape `(N, 1, H)`.
    """
    return np.stack([np.full((1, horizon), _observed(series)[-1]) for series in past])


def seasonal_naive(past: Sequence[NDArray[np.floating]], horizon: int, season: int) -> NDArray[np.float64]:
    """Repeats the last season; a missing value is replaced by the latest observed one of the same phase, else by the
    last.

    Args:
        past: N one-dimensional arrays.
        horizon: H.
        season: length of the season in steps, at least 1.

    Returns:
        Shape `(N, 1, H)`.
    """
    if season < 1:
        raise ValueError(f"a season has at least 1 step, got {season}")
    forecasts = []
    for series in past:
        last = _observed(series)[-1]
        cycle = np.empty(season)
        for phase in range(season):
            same = series[len(series) - season + phase :: -season] if len(series) + phase >= season else np.empty(0)
            known = same[np.isfinite(same)]
            cycle[phase] = known[0] if known.size else last
        forecasts.append(cycle[np.arange(horizon) % season][None])
    return np.stack(forecasts)


def bootstrap_random_walk(
    past: Sequence[NDArray[np.floating]], horizon: int, num_samples: int = 100, seed: int = 0, memory: int = 250
) -> NDArray[np.float64]:
    """Random walk whose steps are drawn from the last centred returns of the series itself.

    Log-returns where the remembered past is positive, plain differences elsewhere. Centring removes the trend: the
    forecast has no drift.

    Args:
        past: N one-dimensional arrays.
        horizon: H.
        num_samples: S.
        seed: seed of the draws; series i draws from the generator (seed, i).
        memory: number of latest returns to draw from.

    Returns:
        Shape `(N, S, H)`.
    """
    check_count(num_samples)
    forecasts = []
    for index, series in enumerate(past):
        known = _observed(series)[-(memory + 1) :]
        positive = bool((known > 0).all())
        returns = np.diff(np.log(known)) if positive else np.diff(known)
        returns = returns - returns.mean() if returns.size else np.zeros(1)
        draws = np.random.default_rng((seed, index)).choice(returns, size=(num_samples, horizon)).cumsum(axis=1)
        forecasts.append(known[-1] * np.exp(draws) if positive else known[-1] + draws)
    return np.stack(forecasts)


def _observed(series: NDArray[np.floating]) -> NDArray[np.float64]:
    values = np.asarray(series, dtype=np.float64)
    known = values[np.isfinite(values)]
    if known.size == 0:
        raise ValueError("a series without any observed value cannot be forecast")
    return known
