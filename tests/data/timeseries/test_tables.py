from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fourfold.data.errors import DataError
from fourfold.data.timeseries import read_csv, series_from_frame


def frame(freq: str = "h", length: int = 30, **columns: object) -> pd.DataFrame:
    stamps = pd.date_range("2024-01-01", periods=length, freq=freq)
    return pd.DataFrame({"ds": stamps.astype(str), "y": np.arange(length, dtype=float), **columns})


@pytest.mark.parametrize(
    "freq",
    [
        *(
            "h",
            "30min",
            "D",
            "B",
            "W-SUN",
            "ME",
            "MS",
            "QE",
            "2h",
            "YE",
            "BME",
            "BMS",
            "BQE",
            "BQS",
            "BYE",
            "WOM-3FRI",
            "2MS",
        )
    ],
)
def test_any_frequency_is_inferred_and_kept_regular(freq: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    frame(freq).to_csv(path, index=False)
    table = read_csv(path, "y")
    (series,) = table.series
    assert series["target"].tolist() == list(range(30))
    assert "inferred" in table.notes[0]
    explicit = read_csv(path, "y", time="ds", freq=freq)
    assert explicit.series[0]["start"] == series["start"]
    last = pd.date_range("2024-01-01", periods=30, freq=freq)[-1]
    assert (series["start"] + 29).start_time <= last <= (series["start"] + 29).end_time


def test_gaps_and_empty_cells_become_missing_values() -> None:
    table = frame(length=20).drop(index=[3, 4])
    table.loc[10, "y"] = np.nan
    read = series_from_frame(table.sample(frac=1, random_state=0), "y")
    target = read.series[0]["target"]
    assert np.flatnonzero(np.isnan(target)).tolist() == [3, 4, 10]
    assert len(target) == 20
    assert any("3 missing values" in note for note in read.notes)


def test_items_and_series_without_values() -> None:
    table = pd.concat([frame(item="a"), frame(item="b", y=np.nan)])
    read = series_from_frame(table, "y", item="item")
    assert [s["item_id"] for s in read.series] == ["a"]
    assert any("1 of 2 series left out, without any value: b" in note for note in read.notes)
    with pytest.raises(DataError, match="holds no number in any of the 1 series"):
        series_from_frame(frame(y=np.nan), "y")


def test_pandas_index_of_dates() -> None:
    table = frame().set_index(pd.date_range("2024-01-01", periods=30, freq="h"))[["y"]]
    assert series_from_frame(table, "y").series[0]["start"] == pd.Period("2024-01-01", freq="h")


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        ({}, {"target": "Y"}, r"no column 'Y' \(asked for as target\); it has 'ds', 'y'"),
        ({}, {"target": "y", "time": "date"}, "no column 'date'"),
        ({}, {"target": "y", "item": "shop"}, "no column 'shop'"),
        (
            {"ds": ["soon"] * 30},
            {"target": "y", "time": "ds"},
            "data row 1: column 'ds' holds 'soon', which is not a date",
        ),
        ({"ds": ["soon"] * 30}, {"target": "y"}, "no column of dates"),
        ({"ds": ["2024-01-01"] * 30}, {"target": "y"}, "29 duplicate dates.*--item"),
        ({"y": ["1"] * 29 + ["many"]}, {"target": "y"}, "data row 30: column 'y' holds 'many', not a number"),
        ({}, {"target": "y", "freq": "fortnightly"}, "'fortnightly' is not a frequency"),
        ({}, {"target": "y", "freq": "D"}, "series 'y' has the frequency 'h', not the 'D'"),
        ({}, {"target": "y", "freq": "SME"}, "'SME' is not a frequency .* no period of time"),
        ({"y": np.arange(30)}, {"target": "y", "freq": "30min"}, "series 'y' has the frequency 'h', not the '30min'"),
        ({"shop": [None, *["a"] * 29]}, {"target": "y", "item": "shop"}, "data row 1: column 'shop' is empty"),
        ({"shop": [*["a"] * 29, " "]}, {"target": "y", "item": "shop"}, "data row 30: column 'shop' is empty"),
    ],
)
def test_mistakes_are_named(change: dict, arguments: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        series_from_frame(frame().assign(**change), **arguments)


def test_irregular_dates_are_refused() -> None:
    rng = np.random.default_rng(0)
    stamps = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.choice(100000, 30, replace=False), unit="s")
    with pytest.raises(DataError, match="no regular frequency"):
        series_from_frame(frame().assign(ds=stamps.astype(str)), "y")


def test_series_of_another_frequency_are_refused() -> None:
    mixed = pd.concat([frame("h", 60, item="hours"), frame("D", 20, item="days")])
    with pytest.raises(DataError, match="'days' has the frequency 'D', not the 'h' of series 'hours'"):
        series_from_frame(mixed, "y", item="item")
    with pytest.raises(DataError, match="'y' has the frequency 'D', not the 'h': keep series"):
        series_from_frame(frame("D"), "y", freq="h")


@pytest.mark.parametrize(
    ("freq", "length", "absent", "named"),
    [
        ("W-WED", 20, 4, "W-WED"),
        ("MS", 9, 3, "MS"),
        ("BME", 9, 3, "BME|MS"),
        ("W-MON", 2, None, "W-MON"),
        ("2D", 9, 3, "2D"),
    ],
)
def test_coarser_series_are_refused_with_gaps_too(freq: str, length: int, absent: int | None, named: str) -> None:
    coarse = frame(freq, length, item="coarse").drop(index=[] if absent is None else [absent])
    mixed = pd.concat([frame("D", 90, item="days"), coarse])
    with pytest.raises(DataError, match=f"'coarse' has the frequency '({named})', not the 'D' of series 'days'"):
        series_from_frame(mixed, "y", item="item")


def test_series_of_few_dates_and_with_many_gaps_are_kept() -> None:
    rng = np.random.default_rng(0)
    rare = frame("D", 90, item="rare").iloc[np.sort(rng.choice(90, 20, replace=False))]
    few = frame("D", 90, item="few").iloc[[3, 5, 7]]
    one = frame("D", 90, item="one").iloc[[50]]
    read = series_from_frame(pd.concat([frame("D", 90, item="days"), rare, few, one]), "y", item="item")
    assert [int(np.isfinite(s["target"]).sum()) for s in read.series] == [90, 3, 1, 20]
    assert len(read.series[1]["target"]) == 5


def moved(freq: str, length: int, first: int, shift: str, last: int | None = None) -> pd.DataFrame:
    stamps = pd.Series(pd.date_range("2024-01-01", periods=length, freq=freq))
    stamps.iloc[first:last] += pd.Timedelta(shift)
    return frame(length=length).assign(ds=stamps)


@pytest.mark.parametrize(
    ("table", "freq", "stamp"),
    [
        (moved("15min", 96, 11, "5min"), None, "2024-01-01 02:50:00"),
        (moved("15min", 96, 11, "5min"), "15min", "2024-01-01 02:50:00"),
        (moved("h", 48, 17, "17min", 18), None, "2024-01-01 17:17:00"),
        (moved("D", 40, 20, "1h", 21), "D", "2024-01-21 01:00:00"),
        (moved("W-SUN", 40, 20, "1D", 21), None, "2024-05-27 00:00:00"),
        (moved("MS", 40, 20, "1D", 21), None, "2025-09-02 00:00:00"),
        (moved("SME", 40, 0, "0D"), None, "2024-01-31 00:00:00"),
    ],
)
def test_the_first_date_off_the_frequency_is_named(table: pd.DataFrame, freq: str | None, stamp: str) -> None:
    with pytest.raises(DataError, match=f"series 'y' has a value of {stamp}, which is no date of the frequency"):
        series_from_frame(table, "y", "ds", freq=freq)


def test_weekends_are_no_business_days() -> None:
    with pytest.raises(DataError, match=r"has the frequency 'D', not the 'B' \(2024-01-06 00:00:00 is no date of it\)"):
        series_from_frame(frame("D"), "y", freq="B")


def test_values_at_random_minutes_are_not_rounded_to_hours() -> None:
    rng = np.random.default_rng(0)
    stamps = pd.date_range("2024-01-01", periods=30, freq="h") + pd.to_timedelta(rng.integers(1, 59, 30), unit="min")
    with pytest.raises(DataError, match="no date of the frequency 'h'"):
        series_from_frame(frame().assign(ds=stamps), "y", freq="h")
    late = series_from_frame(frame().assign(ds=pd.date_range("2024-01-01 00:17", periods=30, freq="h")), "y")
    assert late.series[0]["target"].tolist() == list(range(30))
    assert any("0 days 00:17:00 after the beginning of a step of 'h'" in note for note in late.notes)


@pytest.mark.parametrize(
    ("freq", "found"),
    [("MS", "MS"), ("YS", "YS"), ("QS", "QS"), ("W-TUE", "W-TUE"), ("B", "B"), ("h", "h"), ("D", "D")],
)
def test_frequencies_are_seen_through_gaps(freq: str, found: str) -> None:
    read = series_from_frame(frame(freq, 40).drop(index=[3, 17, 18]), "y")
    assert read.freq == found
    assert np.flatnonzero(np.isnan(read.series[0]["target"])).tolist() == [3, 17, 18]


def test_an_empty_table_is_refused() -> None:
    with pytest.raises(DataError, match="is empty: it has the columns 'ds', 'y' and no row"):
        series_from_frame(frame(length=0), "y")


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_csv(tmp_path / "x.csv", "y")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(DataError, match="not a readable CSV"):
        read_csv(tmp_path / "empty.csv", "y")


def covered() -> pd.DataFrame:
    """30 hours of two series, of which the second ends 4 hours earlier than its covariates, the first 2."""
    a = frame(shop="a", promo=np.arange(30.0), price=1.5, size=3).assign(y=[*range(28), np.nan, np.nan])
    b = frame(shop="b", promo=-np.arange(30.0), price=2.5, size=4).assign(y=[*range(26), *[np.nan] * 4])
    return pd.concat([a, b])


def test_covariates_reach_beyond_the_last_value() -> None:
    read = series_from_frame(covered(), "y", item="shop", dynamic=["promo", "price"], static=["size"])
    first, second = read.series
    assert [len(s["target"]) for s in read.series] == [28, 26]
    assert first["feat_dynamic_real"].tolist() == [list(range(30)), [1.5] * 30]
    assert second["feat_dynamic_real"].shape == (2, 30)
    assert [s["feat_static_real"].tolist() for s in read.series] == [[3], [4]]
    without = series_from_frame(covered(), "y", item="shop")
    assert [len(s["target"]) for s in without.series] == [30, 30]
    assert "feat_dynamic_real" not in without.series[0]


def test_values_missing_in_between_keep_their_covariates() -> None:
    table = covered().assign(y=lambda t: t["y"].where(t["y"] != 7))
    read = series_from_frame(table, "y", item="shop", dynamic=["promo"])
    assert np.flatnonzero(np.isnan(read.series[0]["target"])).tolist() == [7]
    assert read.series[0]["feat_dynamic_real"][0].tolist() == list(range(30))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.iloc[[i for i in range(60) if i != 40]], "'promo' of series 'b' is unknown at 2024-01-01 10:00"),
        (
            lambda t: t.assign(promo=t["promo"].where(t["promo"] != 28)),
            "'promo' of series 'a' is unknown at 2024-01-02 04",
        ),
        (lambda t: t.assign(promo="yes"), "column 'promo' holds 'yes', not a number"),
        (
            lambda t: t.assign(size=t["promo"]),
            "static covariate 'size' of series 'a' must be one number in all its rows",
        ),
        (lambda t: t.assign(size=np.nan), "static covariate 'size' of series 'a'"),
        (lambda t: t.drop(columns="promo"), r"no column 'promo' \(asked for as dynamic\)"),
    ],
)
def test_covariates_have_to_be_known(change: Callable, message: str) -> None:
    with pytest.raises(DataError, match=message):
        series_from_frame(change(covered()), "y", item="shop", dynamic=["promo"], static=["size"])


def test_the_target_is_no_covariate() -> None:
    with pytest.raises(DataError, match="'y' of the table is the target"):
        series_from_frame(covered(), "y", item="shop", dynamic=["y"])
