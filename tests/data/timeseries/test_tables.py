from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fourfold.data.errors import DataError
from fourfold.data.timeseries import read_csv, series_from_frame


def frame(freq: str = "h", length: int = 30, **columns: object) -> pd.DataFrame:
    stamps = pd.date_range("2024-01-01", periods=length, freq=freq)
    return pd.DataFrame({"ds": stamps.astype(str), "y": np.arange(length, dtype=float), **columns})


@pytest.mark.parametrize("freq", ["h", "30min", "D", "B", "W-SUN", "ME", "MS", "QE", "2h", "YE"])
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
        ({}, {"target": "y", "freq": "D"}, "several values in the period 2024-01-01"),
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
    with pytest.raises(DataError, match="'days' has a value at every 24th step of the frequency 'h' only"):
        series_from_frame(mixed, "y", item="item")
    with pytest.raises(DataError, match="every 24th step"):
        series_from_frame(frame("D"), "y", freq="h")


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_csv(tmp_path / "x.csv", "y")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(DataError, match="not a readable CSV"):
        read_csv(tmp_path / "empty.csv", "y")
