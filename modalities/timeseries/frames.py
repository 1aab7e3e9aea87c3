"""Series out of whatever a user holds: arrays, GluonTS entries, a pandas Series, or a wide pandas table."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from .histories import History, hash_key, histories

__all__ = ["series_of"]


def series_of(data: Any) -> list[History]:
    """The series of a data set.

    Args:
        data: anything that :func:`.histories.histories` takes, a pandas Series, or a DataFrame with one series per
            column; the index of both holds dates (or periods) in regular steps.

    Raises:
        ValueError: for duplicate or irregular dates, an index without dates, or values that are not numbers.
    """
    import pandas as pd

    if isinstance(data, pd.Series):
        data = data.to_frame("" if data.name is None else data.name)
    return list(_columns(data) if isinstance(data, pd.DataFrame) else histories(data))


def _columns(table: Any) -> Iterator[History]:
    start = _first_period(table.index)
    for name in table.columns:
        try:
            values = np.array(table[name], dtype=np.float64)
        except (ValueError, TypeError) as error:
            raise ValueError(f"column {name!r} holds something that is not a number: {error}") from error
        values[~np.isfinite(values)] = np.nan
        yield History(values, start, str(name), hash_key(f"item {name}", str(start + len(values))))


def _first_period(index: Any) -> Any:
    import pandas as pd

    if index.has_duplicates:
        raise ValueError(f"the dates of a series must differ: {index[index.duplicated()][0]} occurs more than once")
    if isinstance(index, pd.PeriodIndex):
        regular = pd.period_range(index[0], periods=len(index), freq=index.freq)
        first, freq = index[0], index.freqstr
    elif isinstance(index, pd.DatetimeIndex):
        freq = index.freqstr or (pd.infer_freq(index) if len(index) > 2 else None)
        if freq is None:
            raise ValueError(
                "the dates of a series must have one regular step, these have none: use table.asfreq(...), which makes "
                "absent dates missing values"
            )
        regular, first = pd.date_range(index[0], periods=len(index), freq=freq), _period(index[0], freq)
    else:
        raise ValueError(f"the index of a series must hold dates or periods, got {type(index).__name__}")
    if not index.equals(regular):
        position = int(np.flatnonzero(index != regular)[0])
        raise ValueError(f"the dates of a series must follow each other in steps of {freq}: {index[position]} does not")
    return first


def _period(stamp: Any, freq: str) -> Any:
    # Periods have no start or end of their own: month ends and month starts are the same month.
    base = {"ME": "M", "MS": "M", "QE": "Q", "QS": "Q", "YE": "Y", "YS": "Y"}.get(freq.split("-")[0], freq)
    return stamp.to_period(base)
