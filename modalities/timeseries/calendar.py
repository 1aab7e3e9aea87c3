r"""Covariates that are known for any past or future date: the position in the hour, day, week and year.

A GluonTS time feature v in [-1/2, 1/2] becomes sin and cos of 2 pi k v for k = 1 ... K, so that midnight is near
midnight and a linear layer can express any smooth daily or weekly shape.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from gluonts import time_feature
from numpy.typing import NDArray

__all__ = ["CALENDAR_FEATURES", "HARMONICS", "calendar_covariates", "window_covariates"]

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


def window_covariates(
    start: "pd.Period | None",
    begin: int,
    length: int,
    features: Sequence[str],
    dynamic: NDArray[np.float32] | None = None,
    static: NDArray[np.float32] | None = None,
    counts: tuple[int, int] = (0, 0),
) -> NDArray[np.float32]:
    """All covariates of a window: calendar, then dynamic ones, then static ones (the same at every step).

    Args:
        start: first period of the series, or None where dates play no part.
        begin: position of the window in the series; negative where it begins before the series does.
        length: steps L of the window.
        features: names out of :data:`CALENDAR_FEATURES`.
        dynamic: shape `(T', F)`, or None.
        static: shape `(F,)`, or None.
        counts: how many dynamic and static covariates the model takes.

    Returns:
        Shape `(L, 2 * HARMONICS * len(features) + sum(counts))`. Before the start of the series dynamic covariates take
        their first value.

    Raises:
        ValueError: if something is missing that the model needs, or not finite.
    """
    if features and start is None:
        raise ValueError("this model uses the calendar: give it entries that have a `start`, not plain arrays")
    parts = [calendar_covariates(start + begin, length, features)] if features and start is not None else []
    if counts[0]:
        got = "none" if dynamic is None else f"{dynamic.shape[1]} for {len(dynamic)} steps"
        if dynamic is None or dynamic.shape[1] != counts[0] or len(dynamic) < begin + length:
            raise ValueError(
                f"this model needs {counts[0]} known covariates (feat_dynamic_real) for {begin + length} steps, the "
                f"future included, got {got}"
            )
        parts.append(dynamic[np.clip(np.arange(begin, begin + length), 0, None)])
    if counts[1]:
        if static is None or len(static) != counts[1]:
            got = "none" if static is None else str(len(static))
            raise ValueError(f"this model needs {counts[1]} static covariates (feat_static_real), got {got}")
        parts.append(np.broadcast_to(static, (length, counts[1])))
    whole = np.concatenate(parts, axis=1).astype(np.float32) if parts else np.zeros((length, 0), np.float32)
    if not np.isfinite(whole).all():
        raise ValueError("covariates must be known at every step: some are not finite")
    return whole
