import json
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fourfold.data.errors import DataError
from fourfold.data.timeseries import DATASETS, ForecastingDataModule, load_dataset, rolling_windows
from fourfold.modalities.timeseries import TSDiff
from fourfold.modalities.timeseries.windows import RandomWindows, ValidationWindows, WindowError, split_series


def entry(length: int, name: str = "a", first: float = 0.0) -> dict:
    return {
        "target": first + np.arange(length, dtype=float),
        "start": pd.Period("2024-01-01", freq="h"),
        "item_id": name,
    }


def test_the_papers_data_sets_are_listed() -> None:
    horizons = {name: (facts.freq, facts.prediction_length) for name, facts in DATASETS.items()}
    assert len(horizons) == 8
    assert horizons["exchange_rate_nips"] == ("B", 30)
    assert horizons["m4_hourly"] == ("h", 48)
    with pytest.raises(DataError, match="unknown data set 'weather'; known are pedestrian"):
        load_dataset("weather")


def test_official_exchange_rate_split_from_the_old_archive(shared: Path) -> None:
    data = load_dataset("exchange_rate_nips", shared / "data")
    assert [len(e["target"]) for e in data.train] == [6071] * 8
    assert len(data.test) == 40
    assert data.train[0]["start"] == pd.Period("1990-01-01", freq="B")
    assert all(np.array_equal(t["target"][:6071], data.train[i % 8]["target"]) for i, t in enumerate(data.test))
    assert data.truth().shape == (40, 30)
    assert "40 test entries" in data.protocol


@pytest.mark.parametrize("packed", [True, False])
def test_local_folder_and_archive(packed: bool, tmp_path: Path) -> None:
    folder = tmp_path / "wiki2000_nips"
    for part, length in (("train", 100), ("test", 130)):
        (folder / part).mkdir(parents=True)
        lines = [json.dumps({"start": "2020-01-01 00:00:00", "target": [*range(length - 1), "NaN"]}) for _ in range(3)]
        (folder / part / "data.json").write_text("\n".join(lines))
    if packed:
        with tarfile.open(tmp_path / "wiki2000_nips.tar.gz", "w:gz") as archive:
            archive.add(folder, "wiki2000_nips")
        for file in sorted(folder.rglob("*.json")):
            file.unlink()
        for part in ("train", "test"):
            (folder / part).rmdir()
        folder.rmdir()
    data = load_dataset("wiki2000_nips", tmp_path)
    assert len(data.train) == 3
    assert np.isnan(data.test[0]["target"][-1])
    assert data.truth().shape == (3, 30)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "m4_hourly.tar.gz").write_bytes(b"not an archive")
    with pytest.raises(DataError, match=r"m4_hourly.tar.gz cannot be read[\s\S]*delete it"):
        load_dataset("m4_hourly", tmp_path)
    (tmp_path / "solar_nips" / "train").mkdir(parents=True)
    (tmp_path / "solar_nips" / "train" / "data.json").write_text('{"start": "2020-01-01"}')
    with pytest.raises(DataError, match="line 1: not a series"):
        load_dataset("solar_nips", tmp_path)


def test_embedded_sets_are_whole_and_split_in_time() -> None:
    data = load_dataset("pedestrian")
    assert len(data.train) == 4
    assert data.freq == "h"
    assert "CC BY" in data.licence
    ends = {e["item_id"]: e["start"] + len(e["target"]) for e in data.train}
    first = {}
    for test in data.test:
        first.setdefault(test["item_id"], test["start"] + len(test["target"]) - 24)
    assert all(first[name] >= ends[name] for name in first)
    assert sum(np.isfinite(e["target"]).sum() for e in data.train) > 55_000
    assert np.isfinite(data.truth()).any(axis=1).all()
    assert "9 left out" in data.protocol
    # 8 o'clock on a working day is busy at the station, on the local clock in summer and in winter
    station = next(e for e in data.train if e["item_id"] == "Southern Cross Station")
    hours = pd.period_range(station["start"], periods=len(station["target"]), freq="h")
    for month in (2, 7):
        chosen = (hours.month == month) & (hours.dayofweek < 5)
        assert pd.Series(station["target"][chosen]).groupby(hours[chosen].hour).mean().loc[:12].idxmax() == 8
    demand = load_dataset("vic_elec")
    assert demand.test[-1]["target"].size == 52_608
    assert demand.freq == "30min"


def test_rolling_windows_hold_out_what_they_judge() -> None:
    train, test = rolling_windows([entry(100), entry(90, "b")], 10, 3, 5)
    assert [len(e["target"]) for e in train] == [80, 70]
    assert [len(e["target"]) for e in test] == [90, 80, 95, 85, 100, 90]
    with pytest.raises(DataError, match="series 'a' has 20 values; 3 windows"):
        rolling_windows([entry(20)], 10, 3, 5)


def test_training_never_sees_the_held_out_end() -> None:
    train, validation, _ = split_series([entry(100), entry(60, "b", first=1000.0)], 12, 6, held_out=12)
    windows = RandomWindows(train, 18, 12, size=4000)
    seen = np.unique(np.concatenate([windows[i]["target"].numpy() for i in range(4000)]))
    assert seen[seen < 500].max() == 87
    assert seen[seen > 500].max() == 1047
    assert {0.0, 1000.0, 87.0, 1047.0} <= set(seen)  # and no window is unreachable
    held = ValidationWindows(validation, 18, 6, repeats=2)
    horizons = np.unique(np.concatenate([held[i]["target"].numpy()[12:] for i in range(len(held))]))
    assert len(held) == 8
    assert horizons.tolist() == [*range(88, 100), *range(1048, 1060)]


def test_windows_can_be_drawn_again_and_avoid_gaps() -> None:
    gappy = entry(200)
    gappy["target"][50:150] = np.nan
    (part,), _, _ = split_series([gappy], 12, 6, 0)
    windows = RandomWindows([part], 18, 12, size=10, seed=3)
    for i in (0, 7, 123_456):
        assert np.array_equal(windows[i]["target"], windows[i]["target"], equal_nan=True)
        target = windows[i]["target"]
        assert target[:12].isfinite().sum() >= 6
        assert target[12:].isfinite().sum() >= 3
    assert not np.array_equal(windows[0]["target"], windows[1]["target"], equal_nan=True)


def test_short_and_empty_series_are_counted() -> None:
    empty = {**entry(50, "c"), "target": np.full(50, np.nan)}
    with pytest.warns(UserWarning, match="left out of training"):
        _, _, notes = split_series([entry(50), entry(10, "b"), empty], 12, 6, 0)
    assert notes[0].startswith("1 of 3")
    assert notes[0].endswith("b")
    assert notes[1].endswith("without any value: c")
    with pytest.raises(WindowError, match="choose a shorter context_length"):
        split_series([entry(10)], 12, 6, 0)


def test_data_module_takes_lengths_from_the_model(tmp_path: Path) -> None:
    stamps = pd.date_range("2024-01-01", periods=300, freq="h")
    pd.DataFrame({"t": stamps, "v": np.sin(np.arange(300))}).to_csv(tmp_path / "s.csv", index=False)
    module = ForecastingDataModule(
        csv=str(tmp_path / "s.csv"), target="v", batch_size=4, batches_per_epoch=3, held_out=2
    )
    module.bind(TSDiff(6, 12, hidden=8, modes=2, calendar=("hour_of_day",)))
    with pytest.warns(UserWarning, match="inferred"):
        module.setup()
    batches = list(module.train_dataloader())
    assert len(batches) == 3
    assert batches[0]["target"].shape == (4, 18)
    assert batches[0]["covariates"].shape == (4, 18, 6)
    assert len(module.future[0]["target"]) == 300
    assert len(module.data.train[0]["target"]) == 294
    wrong = ForecastingDataModule("pedestrian")
    wrong.bind(TSDiff(6, 12, hidden=8, modes=2))
    with pytest.raises(DataError, match="judged on 24 steps, the model forecasts 6"):
        wrong.setup()


def test_covariates_of_files_are_kept(tmp_path: Path) -> None:
    for part, length in (("train", 100), ("test", 130)):
        (tmp_path / "wiki2000_nips" / part).mkdir(parents=True)
        line = {"start": "2020-01-01", "target": [*range(length)], "feat_dynamic_real": [[0.5] * length]}
        text = json.dumps({**line, "feat_static_real": [1, 2]})
        (tmp_path / "wiki2000_nips" / part / "data.json").write_text(text)
    data = load_dataset("wiki2000_nips", tmp_path)
    assert data.test[0]["feat_dynamic_real"].shape == (1, 130)
    assert data.inputs()[0]["feat_dynamic_real"].shape == (1, 130)
    assert data.train[0]["feat_static_real"].tolist() == [1, 2]


@pytest.mark.filterwarnings("ignore:.*inferred:UserWarning")
@pytest.mark.parametrize(
    ("freq", "season"),
    [
        ("h", 24),
        ("B", 5),
        ("W-WED", 1),
        ("MS", 12),
        ("BME", 12),
        ("WOM-3FRI", 12),
        ("QS-FEB", 4),
        ("BQE", 4),
        ("2MS", 6),
    ],
)
def test_the_season_of_a_frequency_is_that_of_its_periods(freq: str, season: int, tmp_path: Path) -> None:
    stamps = pd.date_range("2000-01-01", periods=60, freq=freq)
    pd.DataFrame({"t": stamps, "v": np.sin(np.arange(60))}).to_csv(tmp_path / "s.csv", index=False)
    module = ForecastingDataModule(csv=str(tmp_path / "s.csv"), target="v")
    module.bind(TSDiff(6, 12, hidden=8, modes=2))
    module.setup()
    assert module.data.season == season
