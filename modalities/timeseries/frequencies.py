"""Frequencies: which period stands for a step of a pandas offset, and which dates lie on its grid.

Series begin at a `pd.Period`, and periods know less than offsets: month ends, month starts and the third Fridays of
months are all one value a month. So a grid is a period frequency and a rule that says where in its period a date lies.
"""

import re
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.tseries import offsets
from pandas.tseries.frequencies import to_offset

__all__ = ["first_off_grid", "is_daily_or_coarser", "period_frequency", "same_step"]

_OLD_NAMES = {
    "M": "ME",
    "Q": "QE",
    "Y": "YE",
    "A": "YE",
    "BM": "BME",
    "BQ": "BQE",
    "BY": "BYE",
    "BA": "BYE",
    "H": "h",
    "T": "min",
    "S": "s",
}
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_MONTHLY = (
    offsets.MonthEnd,
    offsets.MonthBegin,
    offsets.BusinessMonthEnd,
    offsets.BusinessMonthBegin,
    offsets.CustomBusinessMonthEnd,
    offsets.CustomBusinessMonthBegin,
    offsets.WeekOfMonth,
    offsets.LastWeekOfMonth,
)


def period_frequency(freq: str) -> str:
    """The period frequency of a pandas offset: `ME`, `MS`, `BME`, `WOM-3FRI` -> `M`, `QS-JAN` -> `Q-DEC`, `C` -> `B`.

    Args:
        freq: name of an offset or of a period frequency, with a count or without.

    Raises:
        ValueError: for an unknown name, or one whose steps are no periods (half months, business hours, ...).
    """
    offset = _offset(freq)
    if isinstance(offset, offsets.Tick):
        return offset.freqstr
    code = {
        "W": lambda: offset.rule_code,
        "B": lambda: "B",
        "M": lambda: "M",
        "Q": lambda: f"Q-{_MONTHS[_last_month(offset) - 1]}",
        "Y": lambda: f"Y-{_MONTHS[_last_month(offset) - 1]}",
    }[_kind(offset)]()
    return code if offset.n == 1 else f"{offset.n}{code}"


def same_step(first: str, second: str) -> bool:
    """Whether two frequencies step alike, wherever in a period their dates lie: `h` and `60min`, `ME` and `M`."""
    return _step(first) == _step(second)


def is_daily_or_coarser(freq: str) -> bool:
    """Whether dates of this frequency are days rather than times."""
    offset = _offset(freq)
    return not isinstance(offset, offsets.Tick) or offset.nanos % pd.Timedelta(days=1).value == 0


def first_off_grid(stamps: Any, freq: str) -> int | None:
    """Position of the first date that does not lie on the grid of a frequency through the first date; None if all do.

    Dates may be absent. Fixed steps and weeks count from the first date; business days must not be weekends; dates of
    months, quarters and years must follow one rule (first, last or another fixed day, first or last business day, n-th
    weekday).

    Args:
        stamps: a DatetimeIndex, ascending, without time zone.
        freq: as for :func:`period_frequency`.
    """
    offset = _offset(freq)
    since = (stamps - stamps[0]).to_numpy().astype("timedelta64[ns]").astype(np.int64)
    if isinstance(offset, offsets.Tick):
        return _first(since % offset.nanos != 0)
    kind = _kind(offset)
    if kind == "W":
        return _first(since % (offset.n * pd.Timedelta(days=7).value) != 0)
    time_of_day = (stamps - stamps.normalize()).to_numpy()
    ordinals = stamps.to_period(period_frequency(freq)).asi8
    off = (time_of_day != time_of_day[0]) | ((ordinals - ordinals[0]) % offset.n != 0)
    if kind == "B":
        return _first(off | (stamps.dayofweek.to_numpy() >= 5))
    months = stamps.month.to_numpy()
    off |= (months - months[0]) % {"M": 1, "Q": 3, "Y": 12}[kind] != 0
    firsts = [_first(off | broken) for broken in _broken_rules(stamps)]
    return None if None in firsts else max(first for first in firsts if first is not None)


def _broken_rules(stamps: Any) -> list[NDArray[np.bool_]]:
    """For every rule of a day in a month: which dates break it."""
    day, length = stamps.day.to_numpy(), stamps.days_in_month.to_numpy()
    weekday, to_end = stamps.dayofweek.to_numpy(), length - day
    days = stamps.normalize().to_numpy().astype("datetime64[D]")
    month = days.astype("datetime64[M]")
    first_business = np.busday_offset(month.astype("datetime64[D]"), 0, roll="forward")
    last_business = np.busday_offset((month + 1).astype("datetime64[D]"), -1, roll="forward")
    return [
        day != np.minimum(day.max() if day[0] >= 28 else day[0], length),
        to_end != to_end[0],
        days != first_business,
        days != last_business,
        (weekday != weekday[0]) | ((day - 1) // 7 != (day[0] - 1) // 7),
        (weekday != weekday[0]) | (to_end >= 7),
    ]


def _first(off: NDArray[np.bool_]) -> int | None:
    return int(np.argmax(off)) if off.any() else None


def _step(freq: str) -> tuple[str, int]:
    offset = _offset(freq)
    return ("", offset.nanos) if isinstance(offset, offsets.Tick) else (_kind(offset), offset.n)


def _offset(freq: str) -> Any:
    count, name, anchor = _parts(freq)
    offset: Any = to_offset(f"{count}{_OLD_NAMES.get(name, name)}{anchor}")
    if offset is None or offset.n < 1:
        raise ValueError("steps must go forward")
    if not isinstance(offset, offsets.Tick):
        _kind(offset)
    return offset


def _parts(freq: str) -> tuple[str, str, str]:
    found = re.fullmatch(r"([\d.]*)([A-Za-z]+)(-.*)?", freq.strip())
    return ("", freq, "") if found is None else (found[1], found[2], found[3] or "")


def _kind(offset: Any) -> str:
    if isinstance(offset, offsets.Week) and offset.rule_code != "W":
        return "W"
    if isinstance(offset, offsets.BusinessDay):
        return "B"
    if isinstance(offset, _MONTHLY):
        return "M"
    if isinstance(offset, offsets.QuarterEnd | offsets.QuarterBegin | offsets.BQuarterEnd | offsets.BQuarterBegin):
        return "Q"
    if isinstance(offset, offsets.YearEnd | offsets.YearBegin | offsets.BYearEnd | offsets.BYearBegin):
        return "Y"
    raise ValueError(
        f"a step of {offset.freqstr} is no period of time: resample the data to seconds, minutes, hours, D, B, W, ME, "
        "QE or YE"
    )


def _last_month(offset: Any) -> int:
    """Month (1 ... 12) in which the quarters or years of an offset end; of quarters that of the calendar if it fits."""
    quarterly = _kind(offset) == "Q"
    month = offset.startingMonth if quarterly else offset.month
    begins = isinstance(offset, offsets.QuarterBegin | offsets.BQuarterBegin | offsets.YearBegin | offsets.BYearBegin)
    last = (month - 2) % 12 + 1 if begins else month
    return 12 if quarterly and last % 3 == 0 else last
