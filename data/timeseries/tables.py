"""Series out of CSV files and pandas tables, with complaints a user can act on."""

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..errors import DataError
from .collection import Entry, entry, first_period

__all__ = ["TableSeries", "read_csv", "series_from_frame"]


@dataclass(frozen=True)
class TableSeries:
    """Series read from a table.

    Args:
        series: entries with at least one value.
        freq: their frequency.
        notes: what was left out, filled or guessed, in words; to be shown to the user.
    """

    series: list[Entry]
    freq: str
    notes: tuple[str, ...]


def read_csv(
    path: str | Path, target: str, time: str | None = None, item: str | None = None, freq: str | None = None
) -> TableSeries:
    """Reads series from a CSV file in long format, one row per time (and item).

    Args:
        path: the file.
        target: column of the values.
        time: column of the dates; default: the first column of which every value is a date.
        item: column that tells several series apart.
        freq: pandas frequency; default: inferred.

    Raises:
        DataError: see :func:`series_from_frame`; also for a file that is missing or is no CSV file.
    """
    try:
        frame = pd.read_csv(path)
    except FileNotFoundError as error:
        raise DataError(f"no such file: {path}") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a readable CSV file: {error}") from error
    return series_from_frame(frame, target, time, item, freq, source=str(path))


def series_from_frame(
    frame: pd.DataFrame,
    target: str,
    time: str | None = None,
    item: str | None = None,
    freq: str | None = None,
    source: str = "the table",
) -> TableSeries:
    """Series out of a table in long format.

    Dates that are absent between the first and the last of a series become missing values. Series without any value
    are left out and reported.

    Args:
        frame: the table.
        target: column of the values.
        time: column of the dates; default: the index if it holds dates, else the first column of which every value is
            a date.
        item: column that tells several series apart.
        freq: pandas frequency (`h`, `30min`, `B`, `W`, `ME`, ...); default: inferred from the dates.
        source: what to call the table in messages.

    Raises:
        DataError: for a missing column, dates that cannot be read, duplicate dates, values that are not numbers, dates
            off the frequency, series of another frequency, or if no series has a value.
    """
    for role, column in (("target", target), ("time", time), ("item", item)):
        if column is not None and column not in frame.columns:
            near = get_close_matches(column, [str(c) for c in frame.columns], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            known = ", ".join(repr(str(c)) for c in frame.columns)
            raise DataError(f"{source} has no column {column!r} (asked for as {role}); it has {known}{hint}")
    stamps = _stamps(frame, target, time, item, source)
    values = pd.Series(pd.to_numeric(frame[target], errors="coerce"), index=frame.index)
    bad = values.isna() & frame[target].notna() & (frame[target].astype(str).str.strip() != "")
    if bad.any():
        row = int(np.flatnonzero(bad.to_numpy())[0])
        raise DataError(
            f"{source}, data row {row + 1}: column {target!r} holds {frame[target].iloc[row]!r}, not a number"
        )
    names = pd.Series(target, index=frame.index) if item is None else frame[item].astype(str)
    table = pd.DataFrame({"name": names.to_numpy(), "stamp": stamps.to_numpy(), "value": values.to_numpy(np.float64)})
    _refuse_duplicates(table, source, item)
    groups = [
        (str(name), rows.set_index("stamp")["value"].sort_index()) for name, rows in table.groupby("name", sort=True)
    ]
    notes: list[str] = []
    if freq is None:
        freq = _infer(groups, source)
        notes.append(f"frequency {freq!r} inferred from the dates")
    series, empty, gaps = [], [], 0
    for name, rows in groups:
        if not np.isfinite(rows.to_numpy()).any():
            empty.append(name)
            continue
        regular = _regular(rows, freq, name, source)
        gaps += int(regular.isna().sum())
        start = first_period(regular.index[0], freq)
        series.append(entry(regular.to_numpy(np.float64), start, name))
    if empty:
        notes.append(f"{len(empty)} of {len(groups)} series left out, without any value: {', '.join(empty[:5])}")
    if gaps:
        notes.append(f"{gaps} missing values (absent rows or empty cells), to be filled in by the model")
    if not series:
        raise DataError(f"{source}: column {target!r} holds no number in any of the {len(groups)} series")
    return TableSeries(series, freq, tuple(notes))


def _stamps(frame: pd.DataFrame, target: str, time: str | None, item: str | None, source: str) -> pd.Series:
    if time is None:
        if isinstance(frame.index, pd.DatetimeIndex | pd.PeriodIndex):
            index = frame.index.to_timestamp() if isinstance(frame.index, pd.PeriodIndex) else frame.index
            return pd.Series(index, index=frame.index)
        for column in frame.columns:
            if column not in (target, item) and not pd.api.types.is_numeric_dtype(frame[column]):
                parsed = pd.to_datetime(frame[column], errors="coerce", format="ISO8601")
                if parsed.notna().all():
                    time = str(column)
                    break
        if time is None:
            known = ", ".join(repr(str(c)) for c in frame.columns)
            raise DataError(
                f"{source} has no column of dates that can be recognised; name it with --time (columns: {known})"
            )
    column = frame[time]
    try:
        stamps = pd.to_datetime(
            column, format="ISO8601" if column.dtype == object or str(column.dtype) == "str" else None
        )
    except (ValueError, TypeError):
        stamps = pd.to_datetime(column, errors="coerce", format="mixed")
    if stamps.isna().any():
        row = int(np.flatnonzero(stamps.isna().to_numpy())[0])
        raise DataError(
            f"{source}, data row {row + 1}: column {time!r} holds {column.iloc[row]!r}, which is not a date"
        )
    return stamps.dt.tz_convert("UTC").dt.tz_localize(None) if stamps.dt.tz is not None else stamps


def _refuse_duplicates(table: pd.DataFrame, source: str, item: str | None) -> None:
    double = table.duplicated(["name", "stamp"])
    if double.any():
        first = table[double].iloc[0]
        hint = "" if item is not None else "; if the file holds several series, name their column with --item"
        raise DataError(
            f"{source}: {int(double.sum())} duplicate dates, the first is {first['stamp']} of {first['name']!r}{hint}"
        )


def _infer(groups: list[tuple[str, Any]], source: str) -> str:
    for _, rows in sorted(groups, key=lambda group: -len(group[1])):
        index = pd.DatetimeIndex(rows.index)
        if len(index) >= 3 and (freq := pd.infer_freq(index)) is not None:
            return freq
    steps = pd.Series(np.concatenate([np.diff(rows.index.to_numpy()) for _, rows in groups]))
    if steps.empty:
        raise DataError(
            f"{source} is too short to see the frequency of its dates: name it with --freq (for example h, D, B, W)"
        )
    usual, share = steps.mode().iloc[0], float((steps == steps.mode().iloc[0]).mean())
    if share < 0.5:
        raise DataError(
            f"{source}: the dates have no regular frequency (the most common step, {pd.Timedelta(usual)}, makes up "
            f"{share:.0%}); name it with --freq, or resample the data"
        )
    step = pd.Timedelta(usual)
    assert isinstance(step, pd.Timedelta)
    return pd.tseries.frequencies.to_offset(step.to_pytimedelta()).freqstr  # pyright: ignore[reportOptionalMemberAccess]


def _regular(rows: Any, freq: str, name: str, source: str) -> pd.Series:
    try:
        periods = pd.DatetimeIndex(rows.index).to_period(_period_freq(freq))
    except (ValueError, AttributeError) as error:
        raise DataError(f"{freq!r} is not a frequency that fits the dates of {source}: {error}") from error
    if periods.has_duplicates:
        twice = periods[periods.duplicated()][0]
        raise DataError(
            f"{source}: series {name!r} has several values in the period {twice} of frequency {freq!r}: "
            "choose a finer --freq"
        )
    whole = pd.period_range(periods[0], periods[-1], freq=periods.freq)
    steps = np.unique(np.diff(whole.get_indexer(periods)))
    if len(periods) > 2 and len(steps) == 1 and steps[0] > 1:
        raise DataError(
            f"{source}: series {name!r} has a value at every {steps[0]}th step of the frequency {freq!r} only: keep "
            "series of different frequencies in files of their own, or name the right one with --freq"
        )
    return pd.Series(rows.to_numpy(), index=periods).reindex(whole)


def _period_freq(freq: str) -> str:
    offset = pd.tseries.frequencies.to_offset(freq)
    if offset is None:
        raise ValueError("unknown frequency")
    # Periods have no start or end of their own: month ends and month starts are the same month.
    name, count = offset.name if offset.n == 1 else offset.base.name, offset.n
    base = {"ME": "M", "MS": "M", "QE": "Q", "QS": "Q", "YE": "Y", "YS": "Y"}.get(name.split("-")[0])
    if base is None:
        return freq
    return f"{count if count != 1 else ''}{base}"
