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
            column; the index of both holds dates (or periods) in regular steps. With a time zone, days keep their local
            date, times are taken in UTC.

    Raises:
        ValueError: for duplicate or irregular dates, steps that are no periods (half months, ...), an index without
            dates, an empty table, or values that are not numbers.
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

    if not len(index):
        raise ValueError("the table holds no row")
    if index.has_duplicates:
        raise ValueError(f"the dates of a series must differ: {index[index.duplicated()][0]} occurs more than once")
    if isinstance(index, pd.PeriodIndex):
        periods, freq = index, index.freqstr
    elif isinstance(index, pd.DatetimeIndex):
        freq = index.freqstr or (pd.infer_freq(index) if len(index) > 2 else None)
        if freq is None:
            raise ValueError(
                "the dates of a series must have one regular step, these have none: use table.asfreq(...), which makes "
                "absent dates missing values"
            )
        periods = _on_grid(index, freq)
    else:
        raise ValueError(f"the index of a series must hold dates or periods, got {type(index).__name__}")
    regular = pd.period_range(periods[0], periods=len(index), freq=periods.freq)
    if not periods.equals(regular):
        position = int(np.flatnonzero(periods != regular)[0])
        remedy = "; use table.asfreq('B'), which makes holidays missing values" if freq.startswith("C") else ""
        raise ValueError(
            f"the dates of a series must follow each other in steps of {freq}: {index[position]} does not{remedy}"
        )
    return periods[0]


def _on_grid(index: Any, freq: str) -> Any:
    """Periods of dates. Days keep their local date; times with a time zone become UTC, in which no hour is twice."""
    from .frequencies import first_off_grid, is_daily_or_coarser, period_frequency

    if index.tz is not None:
        index = (index if is_daily_or_coarser(freq) else index.tz_convert("UTC")).tz_localize(None)
    off = first_off_grid(index, freq)
    if off is not None:
        raise ValueError(f"the dates of a series must follow each other in steps of {freq}: {index[off]} does not")
    return index.to_period(period_frequency(freq))
