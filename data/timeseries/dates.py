"""Dates out of a column of a table, read in one way from its first row to its last."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import numpy as np
import pandas as pd

from ..errors import DataError

__all__ = ["Dates", "date_column", "read_dates"]

_ZONE = r"^(?P<wall>.*[T ]\d{1,2}.*?)\s*(?P<zone>Z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)$"
_DAYS = (
    *(f"{a}{sep}{b}{sep}{c}" for sep in "/.-" for a, b, c in (("%d", "%m", "%Y"), ("%m", "%d", "%Y"))),
    *(f"{a}{sep}{b}{sep}%y" for sep in "/.-" for a, b in (("%d", "%m"), ("%m", "%d"))),
    *(f"%y{sep}%m{sep}%d" for sep in "/.-"),
    *(f"%d{sep}{month}{sep}%Y" for sep in (" ", "-", "/", "") for month in ("%b", "%B")),
    *(f"{month} {day} %Y" for month in ("%b", "%B") for day in ("%d", "%d,")),
    *(f"{month}{sep}%Y" for month in ("%b", "%B", "%m") for sep in (" ", "-", "/")),
    "%d-%b-%y",
    "%b-%y",
    "%Y-%m-%d",
    "%Y/%m/%d",
    "%Y%m",
)
_TIMES = ("", "%H:%M", "%H:%M:%S", "%H:%M:%S.%f", "%I:%M %p", "%I:%M:%S %p", "%I:%M%p")


@dataclass(frozen=True)
class Dates:
    """Dates of a column.

    Args:
        local: on the clock of their place, datetime64 without time zone.
        utc: the same moments in UTC, without time zone, or None if they came without time zone.
        freq: period frequency, where the column consists of periods.
    """

    local: pd.Series
    utc: pd.Series | None = None
    freq: str | None = None


def date_column(frame: Any, skip: set[str | None]) -> str | None:
    """The first column, numbers and `skip` aside, of which every value is a date in ISO 8601."""
    for name in frame.columns:
        if name in skip or pd.api.types.is_numeric_dtype(frame[name]) or frame[name].isna().any():
            continue
        if isinstance(frame[name].dtype, pd.PeriodDtype) or pd.api.types.is_datetime64_any_dtype(frame[name]):
            return str(name)
        if _iso(_split_zone(_texts(frame[name]))[0]).notna().all():
            return str(name)
    return None


def read_dates(column: pd.Series, source: str, time_format: str | None = None) -> Dates:
    """Reads a column of dates: datetimes, periods, texts, or whole numbers that are years.

    Texts are in ISO 8601 or another common notation, the same in the whole column. Day and month are told apart by the
    column (a number above 12 somewhere), never by a single row.

    Args:
        column: its name is used in messages.
        source: what to call the table in messages.
        time_format: notation of the dates, as of `strptime`; default: found by itself.

    Raises:
        DataError: for values that are no dates, of which it names the first, for dates that can be read in two ways,
            for numbers that are not years, and for a column in which only some dates have a time zone.
    """
    empty = column.isna().to_numpy()
    if empty.any():
        _refuse(column, int(empty.argmax()), source, "which is not a date: every row needs one")
    if isinstance(column.dtype, pd.PeriodDtype):
        return Dates(column.dt.to_timestamp(), freq=column.dtype.freq.freqstr)
    if pd.api.types.is_datetime64_any_dtype(column):
        if column.dt.tz is None:
            return Dates(column)
        return Dates(column.dt.tz_localize(None), column.dt.tz_convert("UTC").dt.tz_localize(None))
    if pd.api.types.is_numeric_dtype(column) and time_format is None:
        return Dates(_years(column, source))
    local, zone = _split_zone(_texts(column))
    if time_format is None:
        stamps = _parse(column, local, source)
    else:
        stamps = _strict(local, time_format.replace("%z", "").strip())
        if stamps.isna().any():
            row = int(stamps.isna().to_numpy().argmax())
            _refuse(column, row, source, f"which is not a date of the form {time_format}")
    if zone.isna().all():
        return Dates(stamps)
    if zone.isna().any():
        with_zone, without = int(zone.notna().to_numpy().argmax()), int(zone.isna().to_numpy().argmax())
        raise DataError(
            f"{source}: column {str(column.name)!r} holds dates with a time zone ({column.iloc[with_zone]!r}) and "
            f"dates without one ({column.iloc[without]!r}): write all of them in one way"
        )
    return Dates(stamps, stamps - pd.to_timedelta(zone.map(_minutes), unit="min"))


def _parse(column: pd.Series, texts: pd.Series, source: str) -> pd.Series:
    iso = _iso(texts)
    if iso.notna().all():
        return iso
    if texts.str.fullmatch(r"\d{4}-?[Qq][1-4]").all():
        quarters = pd.PeriodIndex(texts.str.replace("-", "").str.upper(), freq="Q")
        return pd.Series(quarters.to_timestamp(), index=texts.index)
    forms = [form for form in _forms() if _fits(texts.iloc[0], form)]
    read = {form: _strict(texts, form) for form in forms}
    whole = {form: stamps for form, stamps in read.items() if stamps.notna().all()}
    if not whole:
        best, stamps = max(
            (("of ISO 8601", iso), *((f"of the form {form}", read[form]) for form in forms)),
            key=lambda candidate: int(candidate[1].notna().sum()),
        )
        row = int(stamps.isna().to_numpy().argmax())
        if stamps.notna().any():
            _refuse(column, row, source, f"which is not a date {best}, as others in the column are")
        _refuse(column, row, source, "which is not a date; name an unusual notation with --time_format")
    (form, stamps), *others = whole.items()
    for other, different in others:
        apart = (stamps != different).to_numpy()
        if apart.any():
            row = int(apart.argmax())
            raise DataError(
                f"{source}: the dates of column {str(column.name)!r} can be read in two ways, {column.iloc[row]!r} "
                f"as {stamps.iloc[row]:%Y-%m-%d} ({form}) or as {different.iloc[row]:%Y-%m-%d} ({other}): write them "
                f'as YYYY-MM-DD, or name their notation, for example --time_format "{form}"'
            )
    return stamps


def _forms() -> list[str]:
    return [f"{day}{gap}{time}" for day in _DAYS for time in _TIMES for gap in ((" ", "T") if time else ("",))]


def _fits(text: str, form: str) -> bool:
    try:
        datetime.strptime(text, form)
    except ValueError:
        return False
    return True


def _strict(texts: pd.Series, form: str) -> pd.Series:
    return pd.to_datetime(_with_digits(texts), format=form, errors="coerce")


def _iso(texts: pd.Series) -> pd.Series:
    return pd.to_datetime(_with_digits(texts), format="ISO8601", errors="coerce")


def _with_digits(texts: pd.Series) -> pd.Series:
    # pandas takes "now" and "today" for dates in any notation.
    return texts.where(texts.str.contains(r"\d"))


def _texts(column: pd.Series) -> pd.Series:
    return column.map(_text).astype(str).str.strip()


def _text(value: Any) -> str:
    if isinstance(value, pd.Period):
        value = value.to_timestamp()
    return value.isoformat() if isinstance(value, date) else str(value)


def _split_zone(texts: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Texts without their time zone, and the time zones (NaN where there is none)."""
    parts = texts.str.extract(_ZONE)
    return parts["wall"].where(parts["zone"].notna(), texts), parts["zone"]


def _minutes(zone: str) -> int:
    if zone in ("Z", "UTC", "GMT"):
        return 0
    digits = zone[1:].replace(":", "").ljust(4, "0")
    return (int(digits[:2]) * 60 + int(digits[2:])) * (-1 if zone[0] == "-" else 1)


def _years(column: pd.Series, source: str) -> pd.Series:
    numbers = column.to_numpy(np.float64)
    if ((numbers >= 1678) & (numbers <= 2261) & (numbers == np.round(numbers))).all():
        return pd.to_datetime(column.astype(int).astype(str), format="%Y")
    row = int(((numbers < 1678) | (numbers > 2261) | (numbers != np.round(numbers))).argmax())
    name, value = str(column.name), float(numbers[row])
    remedy = "whole numbers are read as years from 1678 to 2261; write other dates as YYYY-MM-DD"
    if 19000101 <= value <= 21001231:
        remedy = f"if they mean YYYYMMDD, say so: --time_format %Y%m%d, or pd.to_datetime(table[{name!r}].astype(str))"
    for unit, word, low in (("ns", "nano", 1e17), ("us", "micro", 1e14), ("ms", "milli", 1e11), ("s", "", 1e8)):
        if value >= low:
            remedy = (
                f"if they are {word}seconds since 1970 (epoch numbers), convert them to dates first: "
                f"pd.to_datetime(table[{name!r}], unit={unit!r})"
            )
            break
    raise DataError(f"{source}, data row {row + 1}: column {name!r} holds the number {value:.15g} as a date: {remedy}")


def _refuse(column: pd.Series, row: int, source: str, why: str) -> None:
    raise DataError(f"{source}, data row {row + 1}: column {str(column.name)!r} holds {column.iloc[row]!r}, {why}")
