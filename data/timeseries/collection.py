"""What a forecasting data set is here: series to train on, forecasts to make, and the protocol they are judged by."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DataError

__all__ = ["Entry", "ForecastingData", "entry", "first_period", "judgeable", "rolling_windows", "truth_of"]

Entry = dict[str, Any]
"""A GluonTS data entry: `target` (float64, NaN where missing), `start` (pd.Period), `item_id` and, where there are
covariates, `feat_dynamic_real` and `feat_static_real`."""


@dataclass(frozen=True)
class ForecastingData:
    """A data set with its split.

    Args:
        name: name of the data set.
        freq: pandas frequency.
        prediction_length: horizon H.
        season: length in steps of the season of the seasonal naive forecast (and of MASE).
        train: series to learn from; they end before the first forecast of the test begins.
        test: series whose last H values are to be forecast from the rest.
        protocol: split and windows in words, stored beside every metric.
        licence: of the data.
        notes: what was left out or repaired while reading, in words.
    """

    name: str
    freq: str
    prediction_length: int
    season: int
    train: Sequence[Entry]
    test: Sequence[Entry]
    protocol: str
    licence: str = ""
    notes: tuple[str, ...] = field(default=())

    def inputs(self) -> list[Entry]:
        """The test entries without their horizon: what a forecaster may see."""
        return [{**e, "target": e["target"][: -self.prediction_length]} for e in self.test]

    def truth(self) -> NDArray[np.float64]:
        """The horizons of the test entries, shape `(N, H)`."""
        return truth_of(self.test, self.prediction_length)


def entry(
    target: NDArray[np.floating] | Sequence[float],
    start: pd.Period,
    item_id: str,
    dynamic: Any = None,
    static: Any = None,
) -> Entry:
    """A GluonTS data entry.

    Args:
        target: shape `(T,)`.
        start: period of the first value.
        item_id: name of the series.
        dynamic: covariates known for the future too, shape `(F, T')` with T' >= T, or None.
        static: covariates of the series, shape `(F,)`, or None.
    """
    made = {"target": np.asarray(target, dtype=np.float64), "start": start, "item_id": item_id}
    if dynamic is not None:
        made["feat_dynamic_real"] = np.asarray(dynamic, dtype=np.float64)
    if static is not None:
        made["feat_static_real"] = np.asarray(static, dtype=np.float64)
    return made


def first_period(start: Any, freq: str) -> pd.Period:
    """The period of the given frequency that a date, a text or a period names.

    Raises:
        ValueError: if it names none.
    """
    if isinstance(start, pd.Period):
        return start
    period = pd.Period(str(start), freq=freq)
    if not isinstance(period, pd.Period):
        raise ValueError(f"{start!r} is not a date")
    return period


def truth_of(test: Sequence[Entry], prediction_length: int) -> NDArray[np.float64]:
    """The last `prediction_length` values of every entry, shape `(N, H)`."""
    return np.stack([e["target"][-prediction_length:] for e in test])


def rolling_windows(
    series: Sequence[Entry], prediction_length: int, windows: int, distance: int
) -> tuple[list[Entry], list[Entry]]:
    """Cuts series into a training part and rolling forecasts at their end.

    The horizons of the `windows` forecasts of a series start `distance` steps apart, the last one ends with the series.

    Args:
        series: entries.
        prediction_length: H.
        windows: forecasts per series.
        distance: steps between the starts of two forecasts.

    Returns:
        Training entries, which end where the first horizon starts, and test entries, earliest window first.

    Raises:
        DataError: if a series is too short to leave anything to train on.
    """
    held_out = (windows - 1) * distance + prediction_length
    for e in series:
        if len(e["target"]) <= held_out:
            raise DataError(
                f"series {e['item_id']!r} has {len(e['target'])} values; {windows} windows of {prediction_length} "
                f"steps, {distance} apart, hold out {held_out} and leave none to train on: use fewer windows"
            )
    train = [{**e, "target": e["target"][:-held_out]} for e in series]
    test = []
    for back in range((windows - 1) * distance, -1, -distance):
        test += [{**e, "target": e["target"][: len(e["target"]) - back]} for e in series]
    return train, test


def judgeable(test: Sequence[Entry], prediction_length: int, recent: int) -> tuple[list[Entry], int]:
    """Leaves out forecasts that nobody could make or judge.

    Args:
        test: test entries.
        prediction_length: H.
        recent: steps before the horizon of which at least one must be observed.

    Returns:
        The entries with some observed value in the horizon and among the `recent` steps before it, and how many were
        left out.
    """
    kept = []
    for e in test:
        horizon, before = (
            e["target"][-prediction_length:],
            e["target"][-prediction_length - recent : -prediction_length],
        )
        if np.isfinite(horizon).any() and np.isfinite(before).any():
            kept.append(e)
    return kept, len(test) - len(kept)
