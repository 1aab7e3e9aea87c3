"""Forecasting: `fourfold forecasting fit|validate|test|predict|sample|evaluate|export`."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Mapping, Sequence
from inspect import signature
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.cli import OptimizerCallable
from numpy.typing import NDArray
from torch.optim import AdamW

from ..data.errors import DataError
from ..data.timeseries import ForecastingData, ForecastingDataModule
from ..data.timeseries.collection import Entry
from ..modalities.timeseries import Forecaster
from ..modalities.timeseries.baselines import bootstrap_random_walk, naive, seasonal_naive
from ..modalities.timeseries.histories import History, histories
from ..modalities.timeseries.metrics import coverage, crps, mase, nd, quantiles, seasonal_error
from ..modalities.timeseries.plots import FanChart, fan_charts, save_figure
from .cli import run_cli
from .errors import UserError
from .task import DiffusionTask
from .trainer import TaskTrainer

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["ForecastingTask", "ForecastingTrainer", "baseline_forecasts", "main", "score"]

QUANTILE_COLUMNS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)


class ForecastingTask(DiffusionTask):
    """Trains a model of windows and judges its forecasts.

    Args:
        adapter: The model.
        optimizer: Makes the optimiser from the parameters.
        warmup_steps: Optimiser steps of linear warm-up of the learning rate.
        decay_steps: If given, the rate falls to zero at this step, as half a cosine; otherwise it stays constant.
        ema_decay: Decay of the averaged weights; 0 trains without averaging.
        skip_nonfinite: How many steps in a row with a NaN or infinite loss or gradient are left out before the run
            stops.
        picture_samples: Samples per forecast in the pictures drawn while training; 0 draws none.
        seed: Seed of all noise; the command line sets it from `seed_everything`.
    """

    def __init__(
        self,
        adapter: Forecaster,
        optimizer: OptimizerCallable = lambda parameters: AdamW(parameters, lr=2e-3, weight_decay=0.0),
        warmup_steps: int = 50,
        decay_steps: int | None = None,
        ema_decay: float = 0.998,
        skip_nonfinite: int = 0,
        picture_samples: int = 20,
        seed: int = 42,
    ) -> None:
        super().__init__(adapter, optimizer, warmup_steps, decay_steps, ema_decay, skip_nonfinite, seed)
        self.picture_samples = picture_samples

    def model(self) -> Forecaster:
        """The adapter, typed."""
        assert isinstance(self.adapter, Forecaster)
        return self.adapter

    def figures(self) -> dict[str, Figure]:
        datamodule = getattr(self.trainer, "datamodule", None)
        if self.picture_samples == 0 or not isinstance(datamodule, ForecastingDataModule):
            return {}
        # Held-out ends of the training series, never the test entries.
        horizon = self.model().prediction_length
        shown = [
            e for e in datamodule.data.train if np.isfinite(_recent(e, horizon, self.model().context_length)).any()
        ][:4]
        if not shown:
            return {}
        known = list(histories([{**e, "target": e["target"][:-horizon]} for e in shown]))
        drawn = self.model().forecast_histories(known, self.picture_samples)
        charts = [_chart(h, s, e["target"][-horizon:]) for h, s, e in zip(known, drawn, shown, strict=True)]
        return {"forecasts": fan_charts(charts)}

    def write_samples(
        self, datamodule: LightningDataModule, out: Path, *, num_samples: int, steps: int | None, seed: int
    ) -> list[Path]:
        """Unconditional windows in scaled units: samples.npz and samples.png."""
        data = _data_of(datamodule)
        model, first = self.model(), next(histories(data.train[:1]))
        options: dict[str, Any] = {"start": first.start} if model.calendar else {}
        if model.dynamic_features and first.dynamic is not None:
            options["dynamic"] = first.dynamic[: model.context_length + model.prediction_length]
        if model.static_features:
            options["static"] = first.static
        windows = model.sample(num_samples, seed=seed, steps=steps, **options)
        out.mkdir(parents=True, exist_ok=True)
        np.savez(out / "samples.npz", windows=windows, seed=seed)
        c = self.model().context_length
        charts = [FanChart(f"sample {i}", w[:c], w[None, c:]) for i, w in enumerate(windows[:8])]
        return [out / "samples.npz", save_figure(fan_charts(charts, history=c), out / "samples.png")]

    def measure(
        self, datamodule: LightningDataModule, out: Path, *, num_samples: int, steps: int | None, seed: int
    ) -> Mapping[str, Mapping[str, float]]:
        """CRPS, ND, MASE and coverage of the model and of three baselines on every test entry; draws forecasts.png."""
        data = _data_of(datamodule)
        if not data.test:
            raise UserError("there are no test windows to evaluate on: set data.test_windows to 1 or more")
        known = list(histories(data.inputs()))
        samples = np.stack(_forecasts(self.model(), known, num_samples, steps, seed))
        past, truth = [h.values for h in known], data.truth()
        methods = {self.adapter.name: samples, **baseline_forecasts(past, data, num_samples, seed)}
        table = {name: score(drawn, truth, past, data.season) for name, drawn in methods.items()}
        chosen = np.linspace(0, len(known) - 1, min(6, len(known))).round().astype(int)
        charts = [_chart(known[i], samples[i], truth[i]) for i in chosen]
        save_figure(fan_charts(charts, title=f"{data.name}: {num_samples} samples"), out / "forecasts.png")
        print(
            f"{data.protocol}\nseed {seed}, {num_samples} samples, season {data.season}, {len(known)} forecasts",
            flush=True,
        )
        return table


class ForecastingTrainer(TaskTrainer):
    """Adds to the trainer a `predict` that writes forecasts as files."""

    def prepare(
        self, model: DiffusionTask, datamodule: LightningDataModule | None, ckpt_path: str | None
    ) -> LightningDataModule:
        if isinstance(datamodule, ForecastingDataModule) and isinstance(model, ForecastingTask):
            datamodule.bind(model.model())
        return super().prepare(model, datamodule, ckpt_path)

    def predict(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        model: DiffusionTask,
        datamodule: LightningDataModule | None = None,
        ckpt_path: str | None = None,
        weights_only: bool | None = None,
        num_samples: int = 100,
        steps: int | None = None,
        seed: int = 0,
        out: str | None = None,
        csv_samples: bool = False,
        horizon: int | None = None,
    ) -> list[Path]:
        """Forecast what comes after the end of each series.

        Writes samples.npz (array `samples` of shape (N, S, H), `item_id`, `dates`), quantiles.csv and forecasts.png.

        Args:
            model: The task.
            datamodule: Its data.
            ckpt_path: Checkpoint, or "best" or "last" of --run.
            weights_only: Kept for Lightning.
            num_samples: Samples per series.
            steps: Sampler steps; default: what the model recommends.
            seed: Seed of the samples.
            out: Folder to write into; default: forecasts/ in the run folder.
            csv_samples: Also write every sample into samples.csv.
            horizon: Steps to forecast; default: those the model was trained for. More are made block by block.
        """
        data = self.prepare(model, datamodule, ckpt_path)
        assert isinstance(model, ForecastingTask)
        assert isinstance(data, ForecastingDataModule)
        folder = self._out(out, "forecasts")
        wanted = _horizon(model.model(), horizon)
        known = _forecastable(list(histories(data.future)), model.model().context_length)
        _need_future(model.model(), known, wanted.get("prediction_length", model.model().prediction_length))
        with torch.no_grad():
            samples = _forecasts(model.model(), known, num_samples, steps, seed, **wanted)
        files = _write(folder, known, samples, seed, csv_samples)
        charts = [_chart(h, s, None) for h, s in zip(known[:12], samples[:12], strict=True)]
        files.append(save_figure(fan_charts(charts), folder / "forecasts.png"))
        for file in files:
            print(file)
        return files


def baseline_forecasts(
    past: Sequence[NDArray[np.floating]], data: ForecastingData, num_samples: int, seed: int
) -> dict[str, NDArray[np.float64]]:
    """Samples of the baselines every table shows, by name."""
    horizon = data.prediction_length
    return {
        f"seasonal naive ({data.season})": seasonal_naive(past, horizon, data.season),
        "naive": naive(past, horizon),
        "random walk (bootstrap)": bootstrap_random_walk(past, horizon, num_samples, seed),
    }


def score(
    samples: NDArray[np.floating], truth: NDArray[np.floating], past: Sequence[NDArray[np.floating]], season: int
) -> dict[str, float]:
    """All metrics of one method: samples `(N, S, H)`, truth `(N, H)`."""
    below = coverage(samples, truth)
    return {
        "crps": crps(samples, truth),
        "nd": nd(samples, truth),
        "mase": mase(samples, truth, seasonal_error(past, season)),
        **{f"coverage_{level:g}": value for level, value in below.items()},
    }


def main(args: Sequence[str] | None = None) -> int:
    """The command line. `--data FILE.csv --target COLUMN [--time] [--time_format] [--item] [--freq] [--dynamic A,B]
    [--static C,D]` are short for the keys `data.*`.

    `predict` on a CSV file without trained weights trains first, by the configuration given (default:
    forecasting/tsdiff-csv), in a new run folder named after the file (FILE, FILE-2, ...).
    """
    # Business-day periods are what GluonTS uses; pandas announces their end with every touch.
    warnings.filterwarnings("ignore", message=".*(BDay|PeriodDtype).*deprecated", category=FutureWarning)
    words = _spell_out(list(sys.argv[1:] if args is None else args))
    csv = _value(words, "--data.csv")
    trained = _value(words, "--run") or _value(words, "--ckpt_path")
    if words[:1] == ["predict"] and csv and not trained:
        words = _train_first(words, csv)
        if not words:
            return 1
    return run_cli("forecasting", ForecastingTask, ForecastingDataModule, words, trainer_class=ForecastingTrainer)


def _train_first(words: list[str], csv: str) -> list[str]:
    run = str(_fresh(Path("runs") / "forecasting" / Path(csv).stem))
    options, predicting = [], {"--num_samples", "--steps", "--seed", "--out", "--csv_samples", "--horizon"}
    rest = iter(words[1:])
    for word in rest:
        name, has_value = word.partition("=")[::2]
        if name in predicting:
            if not has_value and name != "--csv_samples":
                next(rest, None)
            continue
        options.append(word)
    if not any(word in ("-c", "--config") or word.startswith("--config=") for word in options):
        options = ["--config", "forecasting/tsdiff-csv", *options]
    print(f"no trained weights given: training on {csv} first, in {run}", flush=True)
    status = run_cli(
        "forecasting",
        ForecastingTask,
        ForecastingDataModule,
        ["fit", *options, "--run", run],
        trainer_class=ForecastingTrainer,
    )
    return [] if status else [*words, "--run", run]


def _fresh(folder: Path) -> Path:
    """The folder, or the first of FOLDER-2, FOLDER-3, ... if there is one already."""
    numbered = (folder.with_name(f"{folder.name}-{i}") for i in count(2))
    return next(path for path in chain((folder,), numbered) if not path.exists())


def _spell_out(words: list[str]) -> list[str]:
    """`--data my.csv --target y --dynamic a,b` -> `--data.csv my.csv --data.target y --data.dynamic ["a","b"]`."""
    short = {f"--{name}": f"--data.{name}" for name in ("target", "time", "item", "freq", "time_format")}
    lists = {"--dynamic", "--static", "--data.dynamic", "--data.static"}
    spelled, listed = [], False
    for i, word in enumerate(words):
        if listed:
            spelled.append(_list(word))
            listed = False
            continue
        name, equals, value = word.partition("=")
        following = value if equals else (words[i + 1] if i + 1 < len(words) else "")
        if name == "--data" and following.lower().endswith((".csv", ".csv.gz", ".txt")):
            spelled.append("--data.csv" + equals + value)
        elif name in lists:
            spelled.append(f"--data.{name.rpartition('.')[2].lstrip('-')}" + equals + (_list(value) if equals else ""))
            listed = not equals
        else:
            spelled.append(short.get(name, name) + equals + value)
    return spelled


def _list(value: str) -> str:
    return value if value.startswith("[") else json.dumps([name.strip() for name in value.split(",")])


def _value(words: Sequence[str], name: str) -> str | None:
    for i, word in enumerate(words):
        if word == name and i + 1 < len(words):
            return words[i + 1]
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return None


def _forecasts(
    model: Forecaster, known: Sequence[History], num_samples: int, steps: int | None, seed: int, **options: int
) -> list[NDArray[np.float64]]:
    try:
        return list(model.forecast_histories(known, num_samples, steps=steps, seed=seed, **options))
    except ValueError as error:
        raise DataError(str(error)) from error


def _horizon(model: Forecaster, horizon: int | None) -> dict[str, int]:
    """The option of the model that sets its horizon; none for that it was built for."""
    if horizon is None or horizon == model.prediction_length:
        return {}
    if horizon < 1:
        raise UserError(f"--horizon must be at least 1, got {horizon}")
    if "prediction_length" not in signature(model.forecast_histories).parameters:
        raise UserError(f"{model.name} forecasts the {model.prediction_length} steps it was trained for, not {horizon}")
    return {"prediction_length": horizon}


def _need_future(model: Forecaster, known: Sequence[History], horizon: int) -> None:
    for h in known if model.dynamic_features else ():
        ahead = 0 if h.dynamic is None else len(h.dynamic) - len(h.values)
        if ahead < horizon:
            raise DataError(
                f"series {h.item_id!r}: covariates are known for {max(ahead, 0)} steps after its last value, a "
                f"forecast of {horizon} steps needs {horizon}: add rows with the covariates and an empty target"
            )


def _forecastable(known: list[History], context: int) -> list[History]:
    kept = [h for h in known if np.isfinite(h.values[-context:]).any()]
    if len(kept) < len(known):
        left = ", ".join(str(h.item_id) for h in known if not np.isfinite(h.values[-context:]).any())
        print(f"no forecast for {left}: no observed value among the last {context}", file=sys.stderr)
    if not kept:
        raise DataError(f"no series has an observed value among its last {context}: nothing to forecast")
    return kept


def _write(
    folder: Path, known: Sequence[History], samples: Sequence[NDArray[np.float64]], seed: int, csv_samples: bool
) -> list[Path]:
    import pandas as pd

    names = [str(h.item_id) for h in known]
    dates = [_dates(h, s.shape[1]) for h, s in zip(known, samples, strict=True)]
    stacked = np.stack(samples)
    levels = quantiles(stacked, QUANTILE_COLUMNS)
    files = [folder / "samples.npz", folder / "quantiles.csv"]
    np.savez(
        files[0],
        samples=stacked,
        item_id=np.array(names),
        dates=np.array([d.astype(str) for d in dates], dtype=np.str_),
        seed=seed,
    )
    rows = [
        pd.DataFrame(
            {"item_id": name, "time": when.astype(str), "mean": drawn.mean(axis=0)}
            | {f"q{level:g}": q[i] for i, level in enumerate(QUANTILE_COLUMNS)}
        )
        for name, when, drawn, q in zip(names, dates, samples, levels, strict=True)
    ]
    pd.concat(rows).to_csv(files[1], index=False)
    if csv_samples:
        files.append(folder / "samples.csv")
        every = [
            pd.DataFrame(
                {
                    "item_id": name,
                    "sample": np.repeat(np.arange(len(drawn)), drawn.shape[1]),
                    "time": np.tile(when.astype(str), len(drawn)),
                    "value": drawn.ravel(),
                }
            )
            for name, when, drawn in zip(names, dates, samples, strict=True)
        ]
        pd.concat(every).to_csv(files[-1], index=False)
    return files


def _dates(history: History, horizon: int) -> pd.PeriodIndex:
    import pandas as pd

    assert history.start is not None
    return pd.period_range(history.start + len(history.values), periods=horizon, freq=history.start.freq)


def _chart(history: History, samples: NDArray[np.float64], truth: NDArray[np.float64] | None) -> FanChart:
    return FanChart(str(history.item_id or ""), history.values, samples, truth, history.start)


def _recent(entry: Entry, horizon: int, context: int) -> NDArray[np.float64]:
    return entry["target"][:-horizon][-context:]


def _data_of(datamodule: Any) -> ForecastingData:
    if not isinstance(datamodule, ForecastingDataModule):
        raise UserError(f"this command needs a ForecastingDataModule, not a {type(datamodule).__name__}")
    return datamodule.data


if __name__ == "__main__":
    sys.exit(main())
