"""The forecasting commands as a user types them, on small models."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from fourfold.modalities.timeseries import Mean, ReferenceTSDiff, TSDiff, ZScore
from fourfold.tasks import names
from fourfold.tasks.forecasting import ForecastingTask, main

pytestmark = pytest.mark.filterwarnings("ignore")

TINY = [
    "--model.adapter.init_args.prediction_length=6",
    "--model.adapter.init_args.context_length=18",
    "--model.adapter.init_args.hidden=8",
    "--model.adapter.init_args.modes=2",
    "--model.adapter.init_args.blocks=1",
    "--trainer.max_epochs=1",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--data.batches_per_epoch=4",
    "--data.batch_size=8",
]


@pytest.fixture
def csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    stamps = pd.date_range("2024-01-01", periods=240, freq="h")
    tables = [
        pd.DataFrame(
            {
                "ds": stamps,
                "shop": shop,
                "y": level * (2 + np.sin(np.arange(240) * np.pi / 12)) + rng.normal(size=240) / 9,
            }
        )
        for shop, level in (("north", 1.0), ("south", 5.0))
    ]
    pd.concat(tables).to_csv("sales.csv", index=False)
    return "sales.csv"


def test_predict_trains_on_the_spot_and_writes_samples_quantiles_and_chart(csv: str) -> None:
    words = ["predict", "--data", csv, "--target", "y", "--item=shop", "--num_samples", "9", "--csv_samples=true"]
    assert main([*words, *TINY, "--out", "made"]) == 0
    stored = np.load("made/samples.npz")
    assert stored["samples"].shape == (2, 9, 6)
    assert stored["item_id"].tolist() == ["north", "south"]
    assert stored["dates"][0].tolist()[0] == "2024-01-11 00:00"
    table = pd.read_csv("made/quantiles.csv")
    assert len(table) == 12
    assert (table["q0.05"] <= table["q0.5"]).all()
    assert (table["q0.5"] <= table["q0.95"]).all()
    assert len(pd.read_csv("made/samples.csv")) == 2 * 9 * 6
    assert Path("made/forecasts.png").stat().st_size > 10_000
    # the run is kept: the second time nothing is trained, and the forecasts are the same
    before = Path("runs/forecasting/sales/checkpoints/last.ckpt").stat().st_mtime_ns
    assert main(["predict", "--run", "sales", "--num_samples", "9", "--out", "again"]) == 0
    assert Path("runs/forecasting/sales/checkpoints/last.ckpt").stat().st_mtime_ns == before
    assert np.array_equal(np.load("again/samples.npz")["samples"], stored["samples"])


def test_evaluate_shows_the_model_beside_three_baselines(csv: str, capsys: pytest.CaptureFixture[str]) -> None:
    fit = ["fit", "--config", "forecasting/tsdiff-csv", "--data", csv, "--target", "y", "--item", "shop", *TINY]
    assert main([*fit, "--run", "r", "--data.test_windows=3"]) == 0
    assert main(["evaluate", "--run", "r", "--num_samples", "7", "--seed", "3"]) == 0
    shown = capsys.readouterr().out
    stored = json.loads(Path("runs/forecasting/r/metrics.json").read_text())["evaluate"]
    assert list(stored["metrics"]) == ["tsdiff", "seasonal naive (24)", "naive", "random walk (bootstrap)"]
    assert stored["seed"] == 3
    assert stored["num_samples"] == 7
    assert "3 rolling window(s) of 6 steps" in stored["protocol"]
    assert "seasonal naive (24)" in shown
    assert "crps" in shown
    assert stored["protocol"] in shown
    assert all(np.isfinite(list(row.values())).all() for row in stored["metrics"].values())
    assert Path("runs/forecasting/r/forecasts.png").is_file()
    assert main(["sample", "--run", "r", "--num_samples", "3"]) == 0
    assert np.load("runs/forecasting/r/samples/samples.npz")["windows"].shape == (3, 24)
    for command in ("validate", "test"):
        assert main([command, "--run", "r"]) == 0
    assert main(["export", "--run", "r", "--out", "model"]) == 0
    assert TSDiff.load("model").prediction_length == 6


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--target", "Y"], "no column 'Y' (asked for as target); it has 'ds', 'shop', 'y'"),
        (["--target", "y"], "duplicate dates"),
        (["--target", "y", "--item", "shop", "--time", "when"], "no column 'when'"),
        (
            ["--target", "y", "--item", "shop", "--model.adapter.init_args.context_length=900"],
            "choose a shorter context_length",
        ),
    ],
)
def test_mistakes_in_the_data_are_one_line(
    csv: str, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", "--data", csv, *TINY, *words]) != 0
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_series_of_nothing_but_missing_values_are_reported(csv: str, capsys: pytest.CaptureFixture[str]) -> None:
    table = pd.read_csv(csv)
    table.assign(y=np.nan).to_csv("nothing.csv", index=False)
    assert main(["predict", "--data", "nothing.csv", "--target", "y", "--item", "shop", *TINY]) == 1
    assert "holds no number in any of the 2 series" in capsys.readouterr().err
    table.assign(y=table["y"].where(table["shop"] == "north")).to_csv("half.csv", index=False)
    words = ["predict", "--data", "half.csv", "--target", "y", "--item", "shop", *TINY, "--out", "h"]
    with pytest.warns(UserWarning, match="1 of 2 series left out, without any value: south"):
        status = main(words)
    assert status == 0
    assert np.load("h/samples.npz")["samples"].shape[0] == 1


def test_shipped_configurations_parse(capsys: pytest.CaptureFixture[str]) -> None:
    shipped = [name for name in names.shipped() if name.startswith("forecasting/")]
    papers = ("solar", "electricity", "traffic", "exchange_rate", "m4_hourly", "uber_tlc", "kdd_cup", "wiki2000")
    small = ("exchange_rate", "m4_hourly", "pedestrian", "vic_elec")
    expected = {"csv", *papers, *(f"reference-{name}" for name in papers), *(f"{name}-cpu" for name in small)}
    assert {f"forecasting/tsdiff-{name}" for name in expected} <= set(shipped)
    for name in shipped:
        status = main(["fit", "--config", name, "--print_config"])
        assert status == 0
        assert "prediction_length" in capsys.readouterr().out


def test_every_shipped_configuration_builds_its_model() -> None:
    import yaml
    from jsonargparse import ArgumentParser

    from fourfold.data.timeseries import dataset_names

    built = set()
    for name in (name for name in names.shipped() if name.startswith("forecasting/")):
        config = yaml.safe_load(names.find(name).read_text(encoding="utf-8"))
        # small, so that building takes no time; the rest is as shipped
        config["model"]["adapter"]["init_args"] |= {"hidden": 8, "modes": 2}
        parser = ArgumentParser(exit_on_error=False)
        parser.add_class_arguments(ForecastingTask, "model")
        task = parser.instantiate_classes(parser.parse_object({"model": config["model"]})).model
        built.add(task.adapter.name)
        assert type(task.adapter)(**task.adapter.config()).config() == task.adapter.config()
        assert config["data"]["name"] in (None, *dataset_names())
    assert built == {"tsdiff", "tsdiff-reference"}


def test_the_published_model_trains_and_forecasts(csv: str) -> None:
    small = [word for word in TINY if "modes" not in word]
    words = ["--data", csv, "--target", "y", "--item", "shop", *small, "--model.adapter.init_args.modes=2"]
    lags = ["--model.adapter.init_args.lags=[6, 24]", "--data.name=null"]
    assert main(["fit", "--config", "forecasting/tsdiff-reference-m4_hourly", *words, *lags, "--run", "ref"]) == 0
    assert main(["evaluate", "--run", "ref", "--num_samples", "4", "--steps", "5"]) == 0
    stored = json.loads(Path("runs/forecasting/ref/metrics.json").read_text())["evaluate"]
    assert np.isfinite(stored["metrics"]["tsdiff-reference"]["crps"])
    assert main(["sample", "--run", "ref", "--num_samples", "2", "--steps", "5"]) == 0
    assert main(["export", "--run", "ref", "--out", "model"]) == 0
    assert ReferenceTSDiff.load("model").lags == (6, 24)


@pytest.mark.slow
def test_a_short_training_beats_the_seasonal_naive_forecast() -> None:
    """Noisy sine waves of random phase: half a minute of training must beat repeating the last season."""
    from torch.optim.swa_utils import AveragedModel

    from fourfold.core import EMA, NoiseSource
    from fourfold.modalities.timeseries.baselines import seasonal_naive
    from fourfold.modalities.timeseries.metrics import coverage, crps

    rng = np.random.default_rng(0)

    def waves(count: int) -> np.ndarray:
        phase, noise = rng.uniform(0, 2 * np.pi, (count, 1)), rng.normal(size=(count, 36))
        return 10 + 3 * np.sin(2 * np.pi * np.arange(36) / 12 + phase) + 0.5 * noise

    torch.manual_seed(0)
    model = TSDiff(12, 24, scaler=ZScore(), hidden=32, modes=8, blocks=2, patch=2)
    averaged = AveragedModel(model, multi_avg_fn=EMA(0.99))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(300):
        target = torch.from_numpy(waves(64))
        batch = {"target": target, "level": target.abs().mean(1)}
        loss = model.loss(batch, NoiseSource(step, range(64))).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        averaged.update_parameters(model)
    test = waves(40)
    past, truth = list(test[:, :24]), test[:, 24:]
    samples = averaged.module.eval().forecast(past, 30)
    assert isinstance(samples, np.ndarray)
    ours, naive = crps(samples, truth), crps(seasonal_naive(past, 12, 12), truth)
    assert ours < 0.8 * naive
    below = coverage(samples, truth)
    assert 0.02 < below[0.1] < 0.3
    assert 0.35 < below[0.5] < 0.65
    assert 0.7 < below[0.9] < 0.98


def test_task_is_a_plain_lightning_module() -> None:
    task = ForecastingTask(TSDiff(4, 8, scaler=Mean(), hidden=8, modes=2))
    batch = {"target": torch.randn(3, 12, dtype=torch.float64), "level": torch.ones(3, dtype=torch.float64)}
    assert task.batch_size(batch) == 3
    assert task.model() is task.adapter


def fit(csv: str, run: str, *words: str) -> int:
    shipped = ["fit", "--config", "forecasting/tsdiff-csv", "--data", csv, "--target", "y", "--item", "shop"]
    return main([*shipped, *TINY, "--run", run, *words])


def test_predict_without_a_run_never_touches_a_trained_one(csv: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(csv, "sales") == 0
    kept = {path: path.read_bytes() for path in sorted(Path("runs/forecasting/sales").rglob("*")) if path.is_file()}
    words = ["predict", "--data", csv, "--target", "y", "--item=shop", "--num_samples", "3", *TINY]
    for name in ("sales-2", "sales-3"):
        assert main(words) == 0
        assert f"runs/forecasting/{name}" in capsys.readouterr().out
        assert Path(f"runs/forecasting/{name}/forecasts/samples.npz").is_file()
    assert all(path.read_bytes() == content for path, content in kept.items())


def test_predict_takes_any_horizon(csv: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["predict", "--data", csv, "--target", "y", "--item=shop", "--num_samples", "3", "--horizon", "8", *TINY]
    assert main([*words, "--out", "long"]) == 0
    assert np.load("long/samples.npz")["samples"].shape == (2, 3, 8)
    assert np.load("long/samples.npz")["dates"].shape == (2, 8)
    assert main(["predict", "--run", "sales", "--num_samples", "3", "--horizon=2", "--out", "short"]) == 0
    assert np.load("short/samples.npz")["samples"].shape == (2, 3, 2)
    assert main(["predict", "--run", "sales", "--horizon", "0"]) == 2
    assert "--horizon must be at least 1, got 0" in capsys.readouterr().err


@pytest.fixture
def promoted(csv: str) -> str:
    """Sales that are what the promotion says; 8 rows of promotions beyond the last value."""
    rng = np.random.default_rng(1)
    stamps = pd.date_range("2024-01-01", periods=240, freq="h")
    tables = []
    for shop, size in (("north", 1.0), ("south", 2.0)):
        promo = rng.normal(size=240)
        y = np.where(np.arange(240) < 232, 5 * size + promo, np.nan)
        tables.append(pd.DataFrame({"ds": stamps, "shop": shop, "y": y, "promo": promo, "size": size}))
    pd.concat(tables).to_csv("promoted.csv", index=False)
    return "promoted.csv"


FEATURES = ["--model.adapter.init_args.dynamic_features=1", "--model.adapter.init_args.static_features=1"]


def test_covariates_from_a_file(promoted: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(promoted, "p", "--dynamic", "promo", "--data.static=[size]", *FEATURES) == 0
    assert main(["predict", "--run", "p", "--num_samples", "3", "--out", "made"]) == 0
    stored = np.load("made/samples.npz")
    assert stored["samples"].shape == (2, 3, 6)
    assert stored["dates"][0][0] == "2024-01-10 16:00"
    assert main(["evaluate", "--run", "p", "--num_samples", "3", "--steps", "3"]) == 0
    assert main(["sample", "--run", "p", "--num_samples", "2", "--steps", "3"]) == 0
    # the covariates of the future are used: others give other forecasts
    table = pd.read_csv(promoted)
    table.assign(promo=table["promo"].where(table["y"].notna(), 9.0)).to_csv("other.csv", index=False)
    assert main(["predict", "--run", "p", "--num_samples", "3", "--data", "other.csv", "--out", "other"]) == 0
    assert not np.array_equal(np.load("other/samples.npz")["samples"], stored["samples"])
    assert main(["predict", "--run", "p", "--num_samples", "3", "--horizon", "9"]) == 1
    assert "covariates are known for 8 steps after its last value, a forecast of 9" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (FEATURES[:1], "the model takes 1 dynamic covariates (model.adapter.init_args.dynamic_features), data.dynamic"),
        (["--dynamic", "promo"], "the model takes 0 dynamic covariates"),
        (["--static", "size"], "the model takes 0 static covariates"),
        (["--dynamic", "promo,size", *FEATURES[:1]], "data.dynamic names 2 (promo, size)"),
        (["--dynamic", "prmo", *FEATURES[:1]], "no column 'prmo' (asked for as dynamic)"),
        (["--static", "promo", *FEATURES[1:]], "static covariate 'promo' of series 'north' must be one number"),
        (["--data.csv=null", "--data.name=vic_elec", *FEATURES[:1]], "series 'Victoria' has 0 (feat_dynamic_real)"),
    ],
)
def test_covariates_that_do_not_fit_the_model_are_one_line(
    promoted: str, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(promoted, "p", *words) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_series_of_zeros_have_no_relative_error(csv: str, capsys: pytest.CaptureFixture[str]) -> None:
    pd.read_csv(csv).assign(y=0.0).to_csv("zeros.csv", index=False)
    assert fit("zeros.csv", "z") == 0
    assert main(["evaluate", "--run", "z", "--num_samples", "3", "--steps", "3"]) == 0
    text = Path("runs/forecasting/z/metrics.json").read_text()

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    stored = json.loads(text, parse_constant=refuse)["evaluate"]["metrics"]
    assert {row[name] for row in stored.values() for name in ("crps", "nd", "mase")} == {None}
    assert all(row["coverage_0.5"] is not None for row in stored.values())
    assert "nan" not in capsys.readouterr().out
