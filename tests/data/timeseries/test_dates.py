"""Columns of dates: one interpretation from the first row to the last, or an error."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fourfold.data.errors import DataError
from fourfold.data.timeseries import read_csv, series_from_frame

DAYS = pd.date_range("2024-01-01", periods=60, freq="D")


def read(stamps: object, freq: str | None = None, **options: object):
    return series_from_frame(pd.DataFrame({"ds": stamps, "y": np.arange(60.0)}), "y", "ds", freq=freq, **options)


def check(table: object, freq: str = "D", start: str = "2024-01-01") -> None:
    (series,) = table.series  # pyright: ignore[reportAttributeAccessIssue]
    assert series["start"] == pd.Period(start, freq=freq)
    assert series["target"].tolist() == list(range(60))


@pytest.mark.parametrize(
    "form",
    [
        *("%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%m-%d-%Y", "%d/%m/%Y %H:%M", "%m/%d/%Y %I:%M:%S %p"),
        *("%d %b %Y", "%B %d, %Y", "%d-%b-%Y", "%Y%m%d", "%Y/%m/%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %I:%M %p"),
    ],
)
def test_notations_are_read_alike_in_every_row(form: str, tmp_path: Path) -> None:
    check(read(DAYS.strftime(form)))
    check(read(DAYS.strftime(form), time_format=form))
    pd.DataFrame({"ds": DAYS.strftime(form), "y": np.arange(60)}).to_csv(tmp_path / "a.csv", index=False)
    check(read_csv(tmp_path / "a.csv", "y", "ds", time_format=form if form == "%Y%m%d" else None))


def test_dates_that_can_be_read_in_two_ways_are_refused() -> None:
    months = [f"{day:02d}/{month:02d}/{year}" for year in range(2000, 2005) for month in range(1, 13) for day in (1,)]
    with pytest.raises(DataError, match=r"read in two ways, '01/02/2000' as 2000-02-01 \(%d/%m/%Y\) or as 2000-01-02"):
        read(months)
    check(read(months, time_format="%d/%m/%Y"), "M", "2000-01")
    check(read(months, freq="ME", time_format="%d/%m/%Y"), "M", "2000-01")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.strftime("%d/%m/%Y").where(d != d[40], "02/28/2024"), "data row 41: .*'02/28/2024'.*%d/%m/%Y"),
        (lambda d: d.strftime("%Y-%m-%d").where(d != d[12], "13/01/2024"), "data row 13: .*'13/01/2024'.*ISO 8601"),
        (lambda d: d.strftime("%Y-%m-%d").where(d != d[12], "today"), "data row 13: .*'today', which is not a date"),
        (lambda d: d.where(d != d[12]), "data row 13: column 'ds' holds NaT, which is not a date"),
        (lambda d: d.astype(np.int64) // 10**9, r"number 1704067200.*seconds since 1970 .*unit='s'"),
        (lambda d: d.astype(np.int64) // 10**6, "milliseconds since 1970.*unit='ms'"),
        (lambda d: d.astype(np.int64), "nanoseconds since 1970"),
        (lambda d: d.strftime("%Y%m%d").astype(int), "--time_format %Y%m%d"),
        (lambda _: np.arange(60), "data row 1: column 'ds' holds the number 0 as a date.*years from 1678 to 2261"),
        (lambda _: 2000 + np.arange(60) / 12, "data row 2: .*2000.08333"),
        (lambda d: [f"{x}+01:00" if i else str(x) for i, x in enumerate(d)], "with a time zone .* without one"),
    ],
)
def test_what_is_no_date_is_named(change: Callable, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(change(DAYS))


def test_whole_numbers_are_years() -> None:
    years = read(range(1960, 2020))
    check(years, "Y", "1960")
    assert years.freq == "YS-JAN"
    gap = pd.DataFrame({"year": [*range(1960, 1990), *range(1993, 2020)], "y": 1.0})
    assert np.isnan(series_from_frame(gap, "y", "year").series[0]["target"]).sum() == 3


def test_quarters_and_periods() -> None:
    check(read([f"{year}Q{q}" for year in range(2000, 2015) for q in (1, 2, 3, 4)]), "Q", "2000Q1")
    check(read(pd.period_range("2024-01-03", periods=60, freq="W-SUN")), "W-SUN", "2024-01-03")
    indexed = pd.DataFrame({"y": np.arange(60.0)}, index=pd.period_range("2024-01-03", periods=60, freq="W-SUN"))
    check(series_from_frame(indexed, "y"), "W-SUN", "2024-01-03")


def test_days_with_a_time_zone_keep_their_local_date(tmp_path: Path) -> None:
    berlin = pd.date_range("2024-03-01", periods=60, freq="D", tz="Europe/Berlin")
    for freq in (None, "D"):
        check(read(berlin, freq), "D", "2024-03-01")
        check(read(berlin.astype(object), freq), "D", "2024-03-01")
    pd.DataFrame({"ds": berlin, "y": np.arange(60)}).to_csv(tmp_path / "days.csv", index=False)
    table = read_csv(tmp_path / "days.csv", "y")
    check(table, "D", "2024-03-01")
    assert "dates with a time zone, of which the local day is kept" in table.notes
    indexed = pd.DataFrame({"y": np.arange(60.0)}, index=berlin)
    check(series_from_frame(indexed, "y"), "D", "2024-03-01")


@pytest.mark.parametrize("freq", ["h", "2h", "30min"])
def test_times_with_a_time_zone_become_utc_across_a_change_of_clocks(freq: str, tmp_path: Path) -> None:
    for day, start in (("2024-03-30", "2024-03-29 23:00"), ("2024-10-26", "2024-10-25 22:00")):
        berlin = pd.date_range(day, periods=60, freq=freq, tz="Europe/Berlin")
        check(read(berlin), freq, start)
        pd.DataFrame({"ds": berlin, "y": np.arange(60)}).to_csv(tmp_path / "hours.csv", index=False)
        assert pd.read_csv(tmp_path / "hours.csv")["ds"].str[-6:].nunique() == 2
        table = read_csv(tmp_path / "hours.csv", "y")
        check(table, freq, start)
        assert "dates with a time zone, in UTC" in table.notes


def test_local_times_without_a_time_zone_across_a_change_of_clocks_are_refused() -> None:
    local = pd.date_range("2024-03-30", periods=60, freq="2h", tz="Europe/Berlin").tz_localize(None)
    with pytest.raises(
        DataError, match=r"2024-03-31 03:00:00, which is no date of the frequency '2h'.*change of clocks"
    ):
        read(local)
