"""Series out of CSV files and pandas tables, with complaints a user can act on."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.tseries.frequencies import to_offset

from ...modalities.timeseries.frequencies import first_off_grid, is_daily_or_coarser, period_frequency, same_step
from ..errors import DataError
from .collection import Entry, entry
from .dates import Dates, date_column, read_dates

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
    path: str | Path,
    target: str,
    time: str | None = None,
    item: str | None = None,
    freq: str | None = None,
    *,
    dynamic: Sequence[str] = (),
    static: Sequence[str] = (),
    time_format: str | None = None,
) -> TableSeries:
    """Reads series from a CSV file in long format, one row per time (and item).

    Args:
        path: the file.
        target: column of the values.
        time: column of the dates; default: the first column of which every value is a date in ISO 8601.
        item: column that tells several series apart.
        freq: pandas frequency; default: inferred.
        dynamic: columns of covariates that are known for the future too.
        static: columns of covariates of the series.
        time_format: notation of the dates, as of `strptime`; default: found by itself.

    Raises:
        DataError: see :func:`series_from_frame`; also for a file that is missing or is no CSV file.
    """
    try:
        frame = pd.read_csv(path)
    except FileNotFoundError as error:
        raise DataError(f"no such file: {path}") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a readable CSV file: {error}") from error
    options = {"dynamic": dynamic, "static": static, "time_format": time_format}
    return series_from_frame(frame, target, time, item, freq, str(path), **options)


def series_from_frame(
    frame: pd.DataFrame,
    target: str,
    time: str | None = None,
    item: str | None = None,
    freq: str | None = None,
    source: str = "the table",
    *,
    dynamic: Sequence[str] = (),
    static: Sequence[str] = (),
    time_format: str | None = None,
) -> TableSeries:
    """Series out of a table in long format.

    Dates that are absent between the first and the last of a series become missing values. Series without any value
    are left out and reported. Dates with a time zone keep their local day if the frequency is a day or coarser;
    otherwise they are read as UTC.

    Args:
        frame: the table.
        target: column of the values.
        time: column of the dates; default: the index if it holds dates, else the first column of which every value is
            a date in ISO 8601. Whole numbers are years.
        item: column that tells several series apart.
        freq: pandas frequency (`h`, `30min`, `B`, `W`, `ME`, ...); default: inferred from the dates.
        source: what to call the table in messages.
        dynamic: columns of covariates F that are known for the future too; they become `feat_dynamic_real` `(F, T')`.
            The rows after the last value of a series that hold them and no value are its future, so that T' > T.
        static: columns of covariates of the series, the same in all its rows; they become `feat_static_real`.
        time_format: notation of the dates, as of `strptime`; default: found by itself, see :func:`.dates.read_dates`.

    Raises:
        DataError: for a missing column, an empty table, dates that cannot be read or can be read in two ways, rows
            without item, duplicate dates, values that are not numbers, dates off the frequency, series of another
            frequency, unknown covariates, or if no series has a value.
    """
    if target in dynamic or target in static:
        raise DataError(f"column {target!r} of {source} is the target: it cannot be a covariate, too")
    roles = [("target", target), ("time", time), ("item", item)]
    roles += [("dynamic", column) for column in dynamic] + [("static", column) for column in static]
    for role, column in roles:
        if column is not None and column not in frame.columns:
            near = get_close_matches(column, [str(c) for c in frame.columns], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise DataError(f"{source} has no column {column!r} (asked for as {role}); it has {_columns(frame)}{hint}")
    if not len(frame):
        raise DataError(f"{source} is empty: it has the columns {_columns(frame)} and no row")
    columns = {column: _numbers(frame, column, source) for column in (target, *dynamic, *static)}
    names = _names(frame, item, target, source)
    dates = _dates(frame, {target, item, *dynamic, *static}, time, source, time_format)
    notes: list[str] = []
    stamps = _moments(dates, names, freq, notes)
    table = pd.DataFrame({**columns, **{_NAME: names, _STAMP: stamps.to_numpy()}})
    _refuse_duplicates(table, source, item)
    groups: dict[str, Any] = {
        str(name): rows.set_index(_STAMP).sort_index() for name, rows in table.groupby(_NAME, sort=True)
    }
    model = None
    if freq is None and dates.freq is not None:
        freq = dates.freq
    elif freq is None:
        freq, model = _infer(groups, source)
        notes.append(f"frequency {freq!r} inferred from the dates")
    try:
        period = period_frequency(freq)
    except ValueError as error:
        raise DataError(f"{freq!r} is not a frequency that fits the dates of {source}: {error}") from error
    series, empty, gaps, late = [], [], 0, None
    for name, rows in groups.items():
        if not np.isfinite(rows[target].to_numpy()).any():
            empty.append(name)
            continue
        regular = _regular(rows, freq, period, name, model, source)
        known, covariates = _covariates(regular, target, dynamic, name, source)
        gaps += int(known.isna().sum())
        late = late or _lateness(rows.index[0], regular.index[0], freq)
        fixed = _constants(rows, static, name, source) if static else None
        series.append(entry(known.to_numpy(np.float64), regular.index[0], name, covariates, fixed))
    if empty:
        notes.append(f"{len(empty)} of {len(groups)} series left out, without any value: {', '.join(empty[:5])}")
    if gaps:
        notes.append(f"{gaps} missing values (absent rows or empty cells), to be filled in by the model")
    if late:
        notes.append(f"dates {late} after the beginning of a step of {freq!r}: forecasts are dated by the beginning")
    if not series:
        raise DataError(f"{source}: column {target!r} holds no number in any of the {len(groups)} series")
    return TableSeries(series, freq, tuple(notes))


# Names that no column of a user has.
_NAME, _STAMP = "\0name", "\0stamp"


def _columns(frame: pd.DataFrame) -> str:
    return ", ".join(repr(str(c)) for c in frame.columns)


def _numbers(frame: pd.DataFrame, column: str, source: str) -> NDArray[np.float64]:
    """The values of a column, NaN where it is empty."""
    values = pd.Series(pd.to_numeric(frame[column], errors="coerce"), index=frame.index)
    bad = values.isna() & frame[column].notna() & (frame[column].astype(str).str.strip() != "")
    if bad.any():
        row = int(np.flatnonzero(bad.to_numpy())[0])
        raise DataError(
            f"{source}, data row {row + 1}: column {column!r} holds {frame[column].iloc[row]!r}, not a number"
        )
    return values.to_numpy(np.float64, na_value=np.nan)


def _names(frame: pd.DataFrame, item: str | None, target: str, source: str) -> NDArray[np.object_]:
    if item is None:
        return np.full(len(frame), target, dtype=object)
    missing = frame[item].isna() | (frame[item].astype(str).str.strip() == "")
    if missing.any():
        row = int(np.flatnonzero(missing.to_numpy())[0])
        raise DataError(
            f"{source}, data row {row + 1}: column {item!r} is empty, every row needs the name of its series "
            "(texts such as NA are read as empty, too)"
        )
    return frame[item].astype(str).to_numpy(object)


def _dates(frame: Any, taken: set[str | None], time: str | None, source: str, time_format: str | None) -> Dates:
    if time is None and isinstance(frame.index, pd.DatetimeIndex | pd.PeriodIndex):
        return read_dates(pd.Series(frame.index, index=frame.index, name=frame.index.name or "index"), source)
    time = time or date_column(frame, taken)
    if time is None:
        raise DataError(
            f"{source} has no column of dates that can be recognised; name it with --time (columns: {_columns(frame)})"
        )
    return read_dates(frame[time], source, time_format)


def _moments(dates: Dates, names: NDArray[np.object_], freq: str | None, notes: list[str]) -> pd.Series:
    """The local dates, or those in UTC where the frequency is finer than a day."""
    if dates.utc is None:
        return dates.local
    if freq is not None:
        daily = is_daily_or_coarser(freq)
    else:
        time_of_day = dates.local - dates.local.dt.normalize()
        daily = bool((time_of_day.groupby(names).transform("nunique") == 1).all())
    notes.append(
        "dates with a time zone, of which the local day is kept" if daily else "dates with a time zone, in UTC"
    )
    return dates.local if daily else dates.utc


def _refuse_duplicates(table: pd.DataFrame, source: str, item: str | None) -> None:
    double = table.duplicated([_NAME, _STAMP])
    if double.any():
        first = table[double].iloc[0]
        hint = "" if item is not None else "; if the file holds several series, name their column with --item"
        raise DataError(
            f"{source}: {int(double.sum())} duplicate dates, the first is {first[_STAMP]} of {first[_NAME]!r}{hint}"
        )


def _infer(groups: dict[str, Any], source: str) -> tuple[str, str | None]:
    """The frequency of most rows, and the longest series that has it."""
    longest = sorted(groups.items(), key=lambda group: -len(group[1]))
    own = {name: _own_frequency(pd.DatetimeIndex(rows.index)) for name, rows in longest[:200]}
    votes = Counter()
    for name, freq in own.items():
        if freq is not None:
            votes[freq] += len(groups[name])
    if votes:
        freq = votes.most_common(1)[0][0]
        return freq, next(name for name in own if own[name] == freq)
    steps = np.concatenate([np.diff(rows.index.to_numpy()) for _, rows in longest])
    if not len(steps):
        raise DataError(
            f"{source} is too short to see the frequency of its dates: name it with --freq (for example h, D, B, W)"
        )
    usual, share = _usual_step(steps)
    if share < 0.5:
        raise DataError(
            f"{source}: the dates have no regular frequency (the most common step, {usual}, makes up {share:.0%}); "
            "name it with --freq, or resample the data"
        )
    return _name_of(usual), None


def _own_frequency(stamps: Any) -> str | None:
    """The frequency of one series by itself, with gaps or without; None if it shows none."""
    if len(stamps) < 2:
        return None
    if len(stamps) >= 3 and (freq := pd.infer_freq(stamps)) is not None:
        return freq
    steps = np.diff(stamps.to_numpy())
    calendar = (("YS", 365, 366), ("QS", 90, 92), ("MS", 28, 31))
    for freq, least, _ in calendar:
        if steps.min() >= np.timedelta64(least, "D") and first_off_grid(stamps, freq) is None:
            return freq
    usual, share = _usual_step(steps)
    nothing = np.timedelta64(0)
    if (steps % np.timedelta64(7, "D") == nothing).all():
        weeks = usual.days // 7 if (steps % usual.to_numpy() == nothing).all() else 1
        return f"{'' if weeks == 1 else weeks}W-{stamps[0].strftime('%a').upper()}"
    if share < 0.5:
        return None
    if usual == pd.Timedelta(days=1) and len(stamps) >= 10 and first_off_grid(stamps, "B") is None:
        return "B"
    return next((freq for freq, least, most in calendar if least <= usual.days <= most), _name_of(usual))


def _usual_step(steps: NDArray[np.timedelta64]) -> tuple[pd.Timedelta, float]:
    """The most common step and its share."""
    kinds, counts = np.unique(steps, return_counts=True)
    usual = pd.Timedelta(kinds[counts.argmax()])
    assert isinstance(usual, pd.Timedelta)
    return usual, float(counts.max() / counts.sum())


def _name_of(step: pd.Timedelta) -> str:
    offset = to_offset(step.to_pytimedelta())
    assert offset is not None
    return offset.freqstr


def _regular(rows: Any, freq: str, period: str, name: str, model: str | None, source: str) -> Any:
    """The rows of a series on the whole grid, NaN where they are absent.

    Args:
        rows: columns over ascending dates.
        freq: frequency they should have.
        period: its period frequency.
        name: of the series.
        model: series that the frequency was inferred from, or None.
        source: what to call the table in messages.
    """
    stamps = pd.DatetimeIndex(rows.index)
    off = first_off_grid(stamps, freq)
    other = _other_frequency(stamps, freq, period, off is not None)
    if other is not None:
        whose = "" if model is None else f" of series {model!r}"
        whose += "" if off is None else f" ({stamps[off]} is no date of it)"
        raise DataError(
            f"{source}: series {name!r} has the frequency {other!r}, not the {freq!r}{whose}: keep series of different "
            "frequencies in files of their own, or name the right one with --freq (a series with gaps shows its "
            "frequency by rows with an empty value)"
        )
    periods = stamps.to_period(period)
    if periods.has_duplicates:
        row = int(np.argmax(periods.duplicated()))
        raise DataError(
            f"{source}: series {name!r} has several values in the period {periods[row]} of frequency {freq!r}, the "
            f"second one of {stamps[row]}: choose a finer --freq"
        )
    if off is not None:
        raise DataError(
            f"{source}: series {name!r} has a value of {stamps[off]}, which is no date of the frequency {freq!r} "
            f"counted from {stamps[0]}: resample the data, or name the right frequency with --freq"
            f"{_clock(stamps, off, freq)}"
        )
    return rows.set_axis(periods).reindex(pd.period_range(periods[0], periods[-1], freq=periods.freq))


def _other_frequency(stamps: Any, freq: str, period: str, off: bool) -> str | None:
    """The frequency a series shows by itself if it is clearly another one than `freq`."""
    own = _own_frequency(stamps)
    if own is None or same_step(own, freq) or first_off_grid(stamps, own) is not None:
        return None
    if off:
        return own if len(stamps) > 2 else None
    # On a finer grid a coarser series looks like one with gaps, but has no two dates next to each other.
    periods = stamps.to_period(period)
    if (np.diff(periods.asi8) <= periods.freq.n).any():
        return None
    if len(stamps) > 3:
        return own
    # Two or three dates may be apart by chance, unless by exactly one of the usual steps.
    coarse = stamps.to_period(period_frequency(own))
    usual = any(same_step(own, step) for step in ("min", "h", "D", "W", "ME", "QE", "YE"))
    return own if usual and (np.diff(coarse.asi8) == 1).any() else None


def _clock(stamps: Any, off: int, freq: str) -> str:
    """A hint where dates are an hour off, as local times are after a change of clocks."""
    if is_daily_or_coarser(freq):
        return ""
    step, hour = pd.Timedelta(to_offset(freq)), pd.Timedelta(hours=1)
    rest = (stamps[off] - stamps[0]) % step
    return "; local times across a change of clocks need their offset from UTC" if rest in (hour, step - hour) else ""


def _covariates(
    rows: Any, target: str, dynamic: Sequence[str], name: str, source: str
) -> tuple[pd.Series, NDArray[np.float64] | None]:
    """Values of a series `(T,)` and its covariates `(F, T')`: rows after its last value are its future."""
    values = rows[target]
    if not dynamic:
        return values, None
    told = np.isfinite(rows[list(dynamic)].to_numpy())
    length = int(np.flatnonzero(values.notna())[-1]) + 1
    until = max(length, int(np.flatnonzero(told.any(axis=1))[-1]) + 1 if told.any() else 0)
    if not told[:until].all():
        row, column = np.argwhere(~told[:until])[0]
        raise DataError(
            f"{source}: covariate {dynamic[column]!r} of series {name!r} is unknown at {rows.index[row]}: covariates "
            "are needed at every date from the first to the last, those of missing values and of the future too"
        )
    return values.iloc[:length], rows[list(dynamic)].to_numpy()[:until].T


def _constants(rows: pd.DataFrame, static: Sequence[str], name: str, source: str) -> NDArray[np.float64]:
    """Covariates `(F,)` of a series, which are the same in all its rows."""
    for column in static:
        kinds = np.unique(rows[column].to_numpy())
        if len(kinds) != 1 or not np.isfinite(kinds[0]):
            held = ", ".join(f"{kind:g}" for kind in kinds[:3])
            raise DataError(
                f"{source}: static covariate {column!r} of series {name!r} must be one number in all its rows, it "
                f"holds {held}; what changes with time goes with the dynamic ones"
            )
    return rows[list(static)].iloc[0].to_numpy(np.float64)


def _lateness(stamp: pd.Timestamp, period: pd.Period, freq: str) -> pd.Timedelta | None:
    """How long after the beginning of its step a date lies, for steps of fixed length."""
    if not isinstance(to_offset(period_frequency(freq)), pd.tseries.offsets.Tick):
        return None
    return (stamp - period.start_time) or None
