"""How sure a number is: Wilson's interval for shares, percentiles of resamples for everything else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Interval:
    """A value with the limits of its interval.

    Args:
        value: The estimate.
        low: Lower limit.
        high: Upper limit.
        level: Coverage.
    """

    value: float
    low: float
    high: float
    level: float = 0.95

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


def share_interval(successes: int, trials: int, level: float = 0.95) -> Interval:
    """Wilson's interval of a share.

    Raises:
        ValueError: No trials, or more successes than trials.
    """
    from scipy.stats import norm

    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"a share needs 0 <= successes <= trials and a trial, got {successes} of {trials}")
    z, p = float(norm.ppf((1 + level) / 2)), successes / trials
    centre = (p + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z * np.sqrt(p * (1 - p) / trials + z**2 / (4 * trials**2)) / (1 + z**2 / trials)
    return Interval(p, float(max(0.0, centre - half)), float(min(1.0, centre + half)), level)


def centred_percentiles(value: float, resampled: np.ndarray, level: float = 0.95) -> Interval:
    """Percentiles of resampled values, moved so that their mean is `value`."""
    low, high = np.quantile(resampled - resampled.mean(), [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, value + float(low), value + float(high), level)
