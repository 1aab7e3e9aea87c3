r"""Forecast metrics, vectorised over a test set, equal to GluonTS' own to rounding.

With samples `(N, S, H)`, truth `(N, H)` and NaN wherever the truth is unknown (other shapes raise ValueError):

    wQL(q)  = sum 2 |(y_q - y) (1[y <= y_q] - q)| / sum |y|      over series and time
    CRPS    = mean of wQL over q = 0.1 ... 0.9                   (mean_wQuantileLoss)
    ND      = sum |y_0.5 - y| / sum |y|
    MASE    = mean over series of (mean |y_0.5 - y| / mean of the seasonal differences of the past)

Relative to nothing there is no error: where the whole truth is zero, CRPS and ND are NaN, and so is MASE where no past
varies.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .predictive_scores import linear_predictive_score

__all__ = ["LEVELS", "coverage", "crps", "linear_predictive_score", "mase", "nd", "quantiles", "seasonal_error"]

LEVELS: tuple[float, ...] = tuple(i / 10 for i in range(1, 10))


def quantiles(samples: NDArray[np.floating], levels: Sequence[float] = LEVELS) -> NDArray[np.float64]:
    """Empirical quantiles as GluonTS' `SampleForecast` takes them: the sample of rank round((S - 1) q).

    Args:
        samples: shape `(N, S, H)`.
        levels: Q numbers in [0, 1].

    Returns:
        Shape `(N, Q, H)`.
    """
    ordered = np.sort(np.asarray(samples, dtype=np.float64), axis=1)
    ranks = [int(np.round((ordered.shape[1] - 1) * level)) for level in levels]
    return ordered[:, ranks]


def crps(samples: NDArray[np.floating], truth: NDArray[np.floating], levels: Sequence[float] = LEVELS) -> float:
    """Mean weighted quantile loss over all series and times together.

    Args:
        samples: forecasts, shape `(N, S, H)`; `S = 1` makes it the ND of a point forecast.
        truth: shape `(N, H)`, NaN where unknown.
        levels: quantile levels.

    Returns:
        The metric, 0 for a perfect forecast, NaN if the whole truth is zero.

    Raises:
        ValueError: if the shapes do not fit, or no truth is known.
    """
    y, known = _known(samples, truth)
    q = np.asarray(levels)[None, :, None]
    error = y[:, None] - quantiles(samples, levels)
    loss = 2 * np.maximum(q * error, (q - 1) * error) * known[:, None]
    return _relative(loss.sum(axis=(0, 2)).mean(), np.abs(y).sum())


def nd(samples: NDArray[np.floating], truth: NDArray[np.floating]) -> float:
    """Normalised deviation of the median: sum |error| / sum |truth|; NaN if the whole truth is zero."""
    y, known = _known(samples, truth)
    error = np.abs(y - quantiles(samples, (0.5,))[:, 0]) * known
    return _relative(error.sum(), np.abs(y).sum())


def seasonal_error(past: Sequence[NDArray[np.floating]], season: int) -> NDArray[np.float64]:
    """Mean |y_t - y_{t - season}| over the known past of each series, shape `(N,)`; NaN where there is none."""
    errors = []
    for series in past:
        difference = np.abs(series[season:] - series[:-season]) if len(series) > season else np.empty(0)
        difference = difference[np.isfinite(difference)]
        errors.append(difference.mean() if difference.size else np.nan)
    return np.asarray(errors)


def mase(samples: NDArray[np.floating], truth: NDArray[np.floating], scale: NDArray[np.floating]) -> float:
    """Mean absolute scaled error of the median, averaged over the series with a positive scale and some truth; NaN if
    there is none.

    Args:
        samples: shape `(N, S, H)`.
        truth: shape `(N, H)`.
        scale: :func:`seasonal_error` of each series, shape `(N,)`.
    """
    y, known = _known(samples, truth)
    if np.shape(scale) != (len(y),):
        raise ValueError(f"expected a scale for each of {len(y)} series, got shape {np.shape(scale)}")
    error = np.abs(y - quantiles(samples, (0.5,))[:, 0]) * known
    count = known.sum(axis=1)
    valid = (count > 0) & (scale > 0)
    return float(np.mean(error[valid].sum(axis=1) / count[valid] / scale[valid])) if valid.any() else float("nan")


def coverage(
    samples: NDArray[np.floating], truth: NDArray[np.floating], levels: Sequence[float] = (0.1, 0.5, 0.9)
) -> dict[float, float]:
    """Fraction of known truths at or below each forecast quantile; a calibrated forecast returns the level."""
    y, known = _known(samples, truth)
    below = (y[:, None] <= quantiles(samples, levels)) & known[:, None]
    return {level: float(below[:, i].sum() / known.sum()) for i, level in enumerate(levels)}


def _relative(error: float, scale: float) -> float:
    return float(error / scale) if scale > 0 else float("nan")


def _known(samples: NDArray[np.floating], truth: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    drawn, y = np.shape(samples), np.asarray(truth, dtype=np.float64)
    # Other shapes would broadcast against each other.
    if len(drawn) != 3 or drawn[1] < 1 or y.shape != drawn[::2]:
        raise ValueError(f"samples (N, S, H) and truth (N, H) do not fit each other: {drawn} and {y.shape}")
    known = np.isfinite(y)
    if not known.any():
        raise ValueError("the truth holds no known value: nothing to measure")
    return np.where(known, y, 0.0), known
