"""Grids of dates: every pandas offset of which a step is a period, and what does not lie on one."""

import numpy as np
import pandas as pd
import pytest

from fourfold.modalities.timeseries.frames import series_of
from fourfold.modalities.timeseries.frequencies import first_off_grid, is_daily_or_coarser, period_frequency, same_step

pytestmark = pytest.mark.filterwarnings("ignore:.*(BDay|PeriodDtype).*deprecated:FutureWarning")

OFFSETS = [
    *("15min", "h", "90min", "2h", "D", "7D", "B", "2B", "C", "W", "W-WED", "2W", "ME", "MS", "2MS", "BME", "BMS"),
    *("QE", "QS", "QS-FEB", "BQE", "BQS", "2QE", "YE", "YS", "YE-JUN", "YS-JUL", "BYE", "BYS", "WOM-3FRI", "CBMS"),
]


@pytest.mark.parametrize("freq", OFFSETS)
def test_dates_of_an_offset_are_consecutive_periods_and_any_may_be_absent(freq: str) -> None:
    dates = pd.date_range("2023-11-30 00:00", periods=60, freq=freq)
    assert first_off_grid(dates, freq) is None
    assert first_off_grid(dates[[0, 3, 4, 17, 59]], freq) is None
    periods = dates.to_period(period_frequency(freq))
    assert periods.equals(pd.period_range(periods[0], periods=60, freq=periods.freq))
    assert (periods.start_time <= dates).all()
    assert (dates <= periods.end_time).all()
    (history,) = series_of(pd.Series(np.arange(60.0), index=dates))
    assert history.start == periods[0]
    assert len(history.values) == 60


@pytest.mark.parametrize(
    ("freq", "other", "position"),
    [
        ("h", "2024-01-01 05:17", 5),
        ("D", "2024-01-06 01:00", 5),
        ("2D", "2024-01-12", 5),
        ("B", "2024-01-06", 5),
        ("W-MON", "2024-02-06", 5),
        ("MS", "2024-06-02", 5),
        ("ME", "2024-06-29", 5),
        ("BMS", "2024-06-04", 5),
        ("WOM-3FRI", "2024-06-28", 5),
        ("QS", "2025-05-01", 5),
        ("YE", "2029-11-30", 5),
    ],
)
def test_the_first_date_off_the_grid_is_found(freq: str, other: str, position: int) -> None:
    dates = pd.date_range("2024-01-01", periods=9, freq=freq)
    moved = dates[:position].append(pd.DatetimeIndex([other])).append(dates[position + 1 :])
    assert moved.is_monotonic_increasing
    assert first_off_grid(moved, freq) == position


def test_names_of_frequencies() -> None:
    assert [period_frequency(f) for f in ("M", "2MS", "BQE", "QS-FEB", "Y", "BYS", "YS-JUL", "H", "W")] == [
        *("M", "2M", "Q-DEC", "Q-JAN", "Y-DEC", "Y-DEC", "Y-JUN", "h", "W-SUN")
    ]
    assert same_step("h", "60min")
    assert same_step("ME", "M")
    assert same_step("W-MON", "W")
    assert not same_step("D", "B")
    assert not same_step("2MS", "MS")
    assert is_daily_or_coarser("MS")
    assert not is_daily_or_coarser("12h")
    for none in ("SME", "SMS", "bh", "fortnightly", "-1D"):
        with pytest.raises(ValueError, match=r"no period of time|Invalid frequency|forward"):
            period_frequency(none)


def test_tables_with_time_zones_and_holidays() -> None:
    table = pd.Series(np.arange(200.0), index=pd.date_range("2024-03-25", periods=200, freq="D", tz="Europe/Berlin"))
    assert series_of(table)[0].start == pd.Period("2024-03-25", "D")
    hours = table.set_axis(pd.date_range("2024-03-30 12:00", periods=200, freq="h", tz="Europe/Berlin"))
    assert series_of(hours)[0].start == pd.Period("2024-03-30 11:00", "h")
    holidays = pd.offsets.CustomBusinessDay(holidays=["2024-05-01"])
    worked = table.set_axis(pd.date_range("2024-04-22", periods=200, freq=holidays))
    with pytest.raises(ValueError, match=r"2024-05-02 00:00:00 does not; use table.asfreq\('B'\)"):
        series_of(worked)
    with pytest.raises(ValueError, match="SME-15 is no period of time: resample"):
        series_of(table.set_axis(pd.date_range("2024-01-15", periods=200, freq="SME")))
    with pytest.raises(ValueError, match="no row"):
        series_of(pd.DataFrame({"y": []}, index=pd.DatetimeIndex([])))
