r"""Covariates that are known for any past or future date: the position in the hour, day, week and year.

A GluonTS time feature v in [-1/2, 1/2] becomes sin and cos of 2 pi k v for k = 1 ... K, so that midnight is near
midnight and a linear layer can express any smooth daily or weekly shape.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from gluonts import time_feature
from numpy.typing import NDArray

__all__ = ["CALENDAR_FEATURES", "HARMONICS", "calendar_covariates"]

CALENDAR_FEATURES: tuple[str, ...] = (
    "second_of_minute",
    "minute_of_hour",
    "hour_of_day",
    "day_of_week",
    "day_of_month",
    "day_of_year",
    "week_of_year",
    "month_of_year",
)
HARMONICS = 3


def calendar_covariates(start: pd.Period, length: int, features: Sequence[str]) -> NDArray[np.float32]:
    """Covariates of consecutive periods.

    Args:
        start: first period; its frequency is the step.
        length: number of periods L.
        features: names out of :data:`CALENDAR_FEATURES`.

    Returns:
        Shape `(L, 2 * HARMONICS * len(features))`.

    Raises:
        ValueError: for an unknown name.
    """
    unknown = sorted(set(features) - set(CALENDAR_FEATURES))
    if unknown:
        raise ValueError(f"unknown calendar features {unknown}; known are {', '.join(CALENDAR_FEATURES)}")
    index = pd.period_range(start, periods=length, freq=start.freq)
    columns = []
    for name in features:
        angle = 2 * np.pi * np.asarray(getattr(time_feature, name)(index), dtype=np.float64)
        for k in range(1, HARMONICS + 1):
            columns += [np.sin(k * angle), np.cos(k * angle)]
    return np.stack(columns, axis=-1).astype(np.float32) if columns else np.zeros((length, 0), np.float32)
