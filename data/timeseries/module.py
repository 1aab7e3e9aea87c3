"""The Lightning data module of forecasting: named data sets or a user's CSV file, random training windows, held-out
validation."""

import re
import warnings
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from ...modalities.timeseries.frequencies import period_frequency
from ...modalities.timeseries.windows import Part, RandomWindows, ValidationWindows, WindowError, split_series
from ..errors import DataError
from ..resume import FreshSampler, eval_loader, train_loader
from .catalog import load_dataset
from .collection import Entry, ForecastingData, judgeable, rolling_windows
from .tables import read_csv

__all__ = ["ForecastingDataModule", "WindowedModel"]


class WindowedModel(Protocol):
    """What the data module asks the model: the shape of its windows."""

    prediction_length: int
    context_length: int
    lookback: int
    calendar: tuple[str, ...]
    dynamic_features: int
    static_features: int


class ForecastingDataModule(LightningDataModule):
    """Windows of a data set for training and validation, entries for forecasts.

    Lengths come from the model (`model.adapter`), so that they are said once.

    Args:
        name: data set (see `fourfold.data.timeseries.dataset_names`); ignored if `csv` is given.
        csv: a CSV file in long format.
        target: column of the values in `csv`.
        time: column of the dates in `csv`; default: found by itself.
        item: column that tells the series in `csv` apart.
        time_format: notation of the dates in `csv`, as of `strptime`; default: found by itself.
        freq: pandas frequency of `csv`; default: inferred.
        dynamic: columns of `csv` that are known for the future too. Rows after the last value of a series that hold
            them and no value are its future. The model takes as many: its `dynamic_features`.
        static: columns of `csv` that belong to the series, the same in all its rows; the model's `static_features`.
        season: season of the seasonal naive forecast for `csv`; default: by the frequency.
        test_windows: rolling forecasts at the end of each series of `csv` that `test` and `evaluate` use; 0 trains on
            everything.
        root: folder of data sets; default: FOURFOLD_DATA or ~/.cache/fourfold.
        batch_size: windows per step.
        batches_per_epoch: steps per epoch.
        held_out: horizons at the end of each training series that training never sees; they give the validation loss.
        validation_repeats: how often each validation window is used, every time with other noise.
        seed: seed of the choice of windows.
        num_workers: loader processes.
    """

    def __init__(
        self,
        name: str | None = "pedestrian",
        csv: str | None = None,
        target: str | None = None,
        time: str | None = None,
        item: str | None = None,
        freq: str | None = None,
        season: int | None = None,
        test_windows: int = 1,
        root: str | None = None,
        batch_size: int = 64,
        batches_per_epoch: int = 100,
        held_out: int = 5,
        validation_repeats: int = 8,
        seed: int = 0,
        num_workers: int = 0,
        time_format: str | None = None,
        dynamic: list[str] | None = None,
        static: list[str] | None = None,
    ) -> None:
        super().__init__()
        if csv is None and name is None:
            raise ValueError("give a data set (data.name) or a file (data.csv and data.target)")
        if csv is not None and target is None:
            raise ValueError(f"data.csv={csv} needs data.target, the column to forecast")
        self.name, self.csv, self.target, self.time, self.item = name, csv, target, time, item
        self.time_format, self.dynamic, self.static = time_format, dynamic or [], static or []
        self.freq, self.season, self.test_windows, self.root = freq, season, test_windows, root
        self.batch_size, self.batches_per_epoch, self.held_out = batch_size, batches_per_epoch, held_out
        self.validation_repeats, self.seed, self.num_workers = validation_repeats, seed, num_workers
        self.model: WindowedModel | None = None
        self._data: ForecastingData | None = None
        self._future: list[Entry] = []
        self._parts: tuple[list[Part], list[Part]] | None = None

    @property
    def protocol(self) -> str | None:
        """Split and windows in words; None before `setup`."""
        return None if self._data is None else self._data.protocol

    @property
    def data(self) -> ForecastingData:
        """The data set, after `setup`."""
        if self._data is None:
            raise RuntimeError("the data are available after setup()")
        return self._data

    @property
    def future(self) -> list[Entry]:
        """What `predict` forecasts: whole series of a CSV file; for named sets the latest test window without its
        truth."""
        return self._future

    def bind(self, model: WindowedModel) -> None:
        """Says which model the windows are for; inside a trainer this happens by itself."""
        self.model = model

    def setup(self, stage: str | None = None) -> None:
        if self._data is None:
            model = self._model()
            if self.csv is not None:
                self._data, self._future = self._from_csv(model.prediction_length)
            else:
                assert self.name is not None
                self._data = load_dataset(self.name, self.root)
                self._future = _latest(self._data)
            _check_covariates(model, self._data.train, (self.dynamic, self.static) if self.csv is not None else None)
            if self._data.prediction_length != model.prediction_length:
                raise DataError(
                    f"the data set {self._data.name!r} is judged on {self._data.prediction_length} steps, the model "
                    f"forecasts {model.prediction_length}: set model.adapter's prediction_length="
                    f"{self._data.prediction_length}"
                )

    def train_dataloader(self) -> DataLoader[Any]:
        model = self._model()
        size = self.batch_size * self.batches_per_epoch
        try:
            windows = RandomWindows(
                self._split()[0], sum(_lengths(model)), model.context_length, size, self.seed, model.lookback
            )
        except WindowError as error:
            raise DataError(f"{self.data.name}: {error}") from error
        return train_loader(
            windows,
            batch_size=self.batch_size,
            seed=self.seed,
            trainer=self.trainer,
            sampler=FreshSampler,
            num_workers=self.num_workers,
        )

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        model = self._model()
        parts = self._split()[1]
        if not parts:
            return []
        windows = ValidationWindows(parts, sum(_lengths(model)), model.prediction_length, self.validation_repeats)
        return eval_loader(windows, batch_size=self.batch_size)

    def test_dataloader(self) -> DataLoader[Any]:
        model = self._model()
        length = sum(_lengths(model))
        parts = [
            part for e in self.data.test for part in split_series([e], *_lengths(model), 0, *_covariates(model))[0]
        ]
        ends = [
            Part(p.values[-length:], p.level, None if p.covariates is None else p.covariates[-length:]) for p in parts
        ]
        return eval_loader(ValidationWindows(ends, length, length), batch_size=self.batch_size)

    def _split(self) -> tuple[list[Part], list[Part]]:
        if self._parts is None:
            model = self._model()
            held_out = self.held_out * model.prediction_length
            try:
                train, validation, _ = split_series(self.data.train, *_lengths(model), held_out, *_covariates(model))
            except WindowError as error:
                raise DataError(f"{self.data.name}: {error}") from error
            self._parts = (train, validation)
        return self._parts

    def _from_csv(self, horizon: int) -> tuple[ForecastingData, list[Entry]]:
        assert self.csv is not None
        assert self.target is not None
        columns = {"dynamic": self.dynamic, "static": self.static, "time_format": self.time_format}
        table = read_csv(self.csv, self.target, self.time, self.item, self.freq, **columns)
        for note in table.notes:
            warnings.warn(f"{self.csv}: {note}", UserWarning, stacklevel=2)
        season = self.season or _season(table.freq)
        long_enough = [e for e in table.series if len(e["target"]) > self.test_windows * horizon]
        train, test = list(table.series), []
        if self.test_windows and long_enough:
            train, test = rolling_windows(long_enough, horizon, self.test_windows, horizon)
            test, _ = judgeable(test, horizon, recent=max(season, horizon))
        data = ForecastingData(
            name=self.csv,
            freq=table.freq,
            prediction_length=horizon,
            season=season,
            train=train,
            test=test,
            protocol=f"{self.csv}, column {self.target!r}: {len(table.series)} series, freq {table.freq}, "
            f"{self.test_windows} rolling window(s) of {horizon} steps at the end of each, trained on what precedes",
            notes=table.notes,
        )
        return data, table.series

    def _model(self) -> WindowedModel:
        if self.model is not None:
            return self.model
        adapter = getattr(getattr(self.trainer, "lightning_module", None), "adapter", None)
        if adapter is None:
            raise RuntimeError("the data module knows no model yet: call bind(model) before setup()")
        return adapter


def _lengths(model: WindowedModel) -> tuple[int, int]:
    return model.lookback + model.context_length, model.prediction_length


def _covariates(model: WindowedModel) -> tuple[tuple[str, ...], tuple[int, int]]:
    return model.calendar, (model.dynamic_features, model.static_features)


def _check_covariates(
    model: WindowedModel, series: Sequence[Entry], columns: tuple[Sequence[str], Sequence[str]] | None
) -> None:
    """Refuses a model that takes other covariates than the data have; `columns` of a file must all be taken."""
    kinds = (
        ("dynamic", "feat_dynamic_real", model.dynamic_features),
        ("static", "feat_static_real", model.static_features),
    )
    for i, (kind, key, taken) in enumerate(kinds):
        option = f"model.adapter.init_args.{kind}_features"
        if columns is not None:
            if len(columns[i]) != taken:
                raise DataError(
                    f"the model takes {taken} {kind} covariates ({option}), data.{kind} names {len(columns[i])} "
                    f"({', '.join(columns[i]) or 'none'}): make them agree"
                )
            continue
        for e in series if taken else ():
            had = len(np.atleast_2d(e[key])) if kind == "dynamic" and key in e else np.size(e.get(key, ()))
            if had != taken:
                raise DataError(
                    f"the model takes {taken} {kind} covariates ({option}), series {e['item_id']!r} has {had} ({key})"
                )


def _latest(data: ForecastingData) -> list[Entry]:
    latest: dict[str, Entry] = {}
    for e in data.inputs():
        name = str(e["item_id"])
        if name not in latest or len(e["target"]) > len(latest[name]["target"]):
            latest[name] = e
    return list(latest.values())


def _season(freq: str) -> int:
    from gluonts.time_feature import get_seasonality

    # GluonTS knows the ends of months and quarters, not their business days and the like.
    name = re.sub(r"^(\d*)([MQY])(-.*)?$", r"\1\2E", period_frequency(freq))
    try:
        return max(1, get_seasonality(name))
    except (ValueError, KeyError):
        return 1
