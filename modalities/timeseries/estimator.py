"""TSDiff as a GluonTS estimator: `TSDiffEstimator(...).train(dataset).predict(dataset)`.

GluonTS reloads the checkpoint with the lowest logged loss by its state dict alone. So the averaged weights are a
submodule of the Lightning module, and nothing but plain values is kept as a hyper-parameter.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from math import cos, pi
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from gluonts.core.component import validated
from gluonts.model.forecast import SampleForecast
from gluonts.model.predictor import Predictor
from gluonts.torch.model.estimator import PyTorchLightningEstimator
from gluonts.transform import Identity, Transformation
from torch import Tensor
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Sampler

from ...core import EMA, NoiseSource
from ...core.noise import hash_seed
from .drawing import check_count
from .histories import histories
from .tsdiff import TSDiff
from .windows import RandomWindows, split_series

__all__ = ["TSDiffEstimator", "TSDiffLightningModule", "TSDiffPredictor"]


class TSDiffPredictor(Predictor):
    """Forecasts with a trained model; a GluonTS predictor.

    Args:
        model: the trained model.
        num_samples: samples per forecast where `predict` is not told.
        seed: seed of the samples; the same seed gives the same forecasts.
        steps: sampling steps, default the model's.
        freq: frequency of the data the model was trained on; others are refused. None takes any.
    """

    def __init__(
        self,
        model: TSDiff,
        num_samples: int = 100,
        seed: int = 0,
        steps: int | None = None,
        freq: str | None = None,
    ) -> None:
        check_count(num_samples)
        super().__init__(prediction_length=model.prediction_length)
        self.model = model.eval()
        self.num_samples, self.seed, self.steps, self.freq = num_samples, seed, steps, freq

    @property
    def network(self) -> TSDiff:
        """The model, under the name GluonTS uses."""
        return self.model

    def predict(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, dataset: Iterable[Mapping[str, Any]], num_samples: int | None = None, batch_rows: int = 512
    ) -> Iterator[SampleForecast]:
        """One forecast per entry, in order, each of exactly `num_samples` samples.

        Args:
            dataset: GluonTS entries; missing values are NaN.
            num_samples: default that of the predictor.
            batch_rows: samples per network call.
        """
        count = self.num_samples if num_samples is None else num_samples
        check_count(count)
        known = histories(dataset, self.freq)
        # Entries may be an endless stream, hence groups instead of a list.
        while group := list(islice(known, max(1, batch_rows // count))):
            drawn = self.model.forecast_histories(group, count, seed=self.seed, steps=self.steps, batch_rows=batch_rows)
            for history, samples in zip(group, drawn, strict=True):
                yield self.model.as_forecast(history, samples)

    def serialize(self, path: Path) -> None:
        """Writes the model and the settings of the predictor into an existing folder."""
        path = Path(path)
        super().serialize(path)
        settings = {"num_samples": self.num_samples, "seed": self.seed, "steps": self.steps, "freq": self.freq}
        self.model.save(path / "model", card={"predictor": settings})
        (path / "predictor.json").write_text(json.dumps(settings), encoding="utf-8")

    @classmethod
    def deserialize(cls, path: Path, device: Any = None, **kwargs: Any) -> "TSDiffPredictor":
        """Reads a folder written by :meth:`serialize`; forecasts are those of the predictor that was stored."""
        path = Path(path)
        model = TSDiff.load(path / "model")
        predictor = cls(model, **json.loads((path / "predictor.json").read_text(encoding="utf-8")))
        if device is not None and str(device) != "auto":
            model.to(device)
        return predictor


class TSDiffLightningModule(pl.LightningModule):
    """Training of a model inside GluonTS' estimator: AdamW with warm-up and cosine decay, averaged weights.

    The learning rate falls to zero over the steps that the trainer is going to do, whatever limits them. Where no
    number of steps is known beforehand (`max_time`, or no limit) it stays at its peak after the warm-up.

    Args:
        config: arguments of :class:`TSDiff`.
        lr: peak learning rate.
        warmup_steps: steps of linear warm-up; a tenth of all steps where that is less.
        ema_decay: decay of the averaged weights.
        seed: seed of noise and initial weights.
    """

    @validated()
    def __init__(
        self,
        config: dict[str, Any],
        lr: float = 2e-3,
        warmup_steps: int = 50,
        ema_decay: float = 0.998,
        seed: int = 0,
    ) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = TSDiff(**config)
        self.averaged = AveragedModel(self.model, multi_avg_fn=EMA(ema_decay)).requires_grad_(False)
        self.lr, self.warmup_steps, self.seed = lr, warmup_steps, seed

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        size = len(batch["target"])
        noise = NoiseSource(hash_seed(self.seed, 0, self.global_step, self.global_rank), range(size))
        loss = self.model.loss(batch, noise).mean()
        self.log("train_loss", loss, on_epoch=True, on_step=False, prog_bar=True, batch_size=size)
        return loss

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        size = len(batch["target"])
        averaged = self.averaged.module
        assert isinstance(averaged, TSDiff)
        loss = averaged.loss(batch, NoiseSource(hash_seed(self.seed, 1, batch_idx), range(size))).mean()
        self.log("val_loss", loss, on_epoch=True, on_step=False, prog_bar=True, batch_size=size)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.averaged.update_parameters(self.model)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=self.lr, weight_decay=0.0)

        total = self.trainer.estimated_stepping_batches  # infinite where the trainer knows no number
        warmup = max(1.0, min(self.warmup_steps, total / 10))

        def rate(step: int) -> float:
            return min(1, (step + 1) / warmup) * 0.5 * (1 + cos(pi * min(step / max(total, 1), 1)))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class TSDiffEstimator(PyTorchLightningEstimator):
    """GluonTS estimator of TSDiff.

    Args:
        freq: pandas frequency of the data; series of another one are refused.
        prediction_length: horizon in steps.
        context_length: context in steps; default four horizons.
        model: further arguments of :class:`TSDiff` (scaler, guidance, calendar, patch, ...; components or
            descriptions).
        lr: peak learning rate.
        batch_size: windows per step.
        num_batches_per_epoch: steps per epoch.
        ema_decay: decay of the averaged weights.
        num_samples: samples per forecast where `predict` is not told.
        sampling_steps: sampling steps of forecasts, default the model's.
        seed: seed of initial weights, windows, noise and forecasts.
        trainer_kwargs: arguments of Lightning's Trainer, for example `max_epochs` (default 10, or no limit if
            `max_steps` or `max_time` is given).
    """

    @validated()
    def __init__(
        self,
        freq: str,
        prediction_length: int,
        context_length: int | None = None,
        model: dict[str, Any] | None = None,
        lr: float = 2e-3,
        batch_size: int = 64,
        num_batches_per_epoch: int = 50,
        ema_decay: float = 0.998,
        num_samples: int = 100,
        sampling_steps: int | None = None,
        seed: int = 0,
        trainer_kwargs: dict[str, Any] | None = None,
    ) -> None:
        check_count(num_samples)
        given = trainer_kwargs or {}
        limited = given.get("max_steps", -1) != -1 or given.get("max_time") is not None
        super().__init__(trainer_kwargs={"max_epochs": -1 if limited else 10, "gradient_clip_val": 0.5, **given})
        self.freq, self.prediction_length = freq, prediction_length
        self.context_length = context_length or 4 * prediction_length
        self.lr, self.batch_size, self.num_batches_per_epoch = lr, batch_size, num_batches_per_epoch
        self.ema_decay, self.num_samples, self.sampling_steps, self.seed = ema_decay, num_samples, sampling_steps, seed
        arguments = {"prediction_length": prediction_length, "context_length": self.context_length, **(model or {})}
        with torch.random.fork_rng(devices=[]):
            self._config = TSDiff(**arguments).config()
        self.calendar: tuple[str, ...] = tuple(self._config["calendar"])
        self.counts: tuple[int, int] = (self._config["dynamic_features"], self._config["static_features"])

    def create_transformation(self) -> Transformation:
        """The identity: windows are cut by the data loader, missing values stay NaN."""
        return Identity()

    def create_lightning_module(self) -> TSDiffLightningModule:
        return TSDiffLightningModule(config=self._config, lr=self.lr, ema_decay=self.ema_decay, seed=self.seed)

    def create_training_data_loader(
        self, data: Any, module: Any, shuffle_buffer_length: int | None = None, **kwargs: Any
    ) -> DataLoader[Any]:
        size = self.batch_size * self.num_batches_per_epoch
        return self._loader(data, size, epochs=True)

    def create_validation_data_loader(self, data: Any, module: Any, **kwargs: Any) -> DataLoader[Any]:
        return self._loader(data, 4 * self.batch_size, epochs=False)

    def create_predictor(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, transformation: Transformation, module: TSDiffLightningModule
    ) -> TSDiffPredictor:
        model = TSDiff(**self._config)
        model.load_state_dict(module.averaged.module.state_dict())
        return TSDiffPredictor(model, self.num_samples, self.seed, self.sampling_steps, self.freq)

    def train_from(self, predictor: Predictor, *args: Any, **kwargs: Any) -> TSDiffPredictor:  # pyright: ignore
        """Trains on from the weights of a predictor; arguments as of `train`."""
        if not isinstance(predictor, TSDiffPredictor):
            raise TypeError(f"train_from needs a TSDiffPredictor, got {type(predictor).__name__}")
        create = self.create_lightning_module

        def started() -> TSDiffLightningModule:
            module = create()
            module.model.load_state_dict(predictor.model.state_dict())
            module.averaged.module.load_state_dict(predictor.model.state_dict())
            return module

        self.create_lightning_module = started
        try:
            return self.train(*args, **kwargs)  # pyright: ignore[reportReturnType]
        finally:
            del self.create_lightning_module

    def _loader(self, data: Any, size: int, *, epochs: bool) -> DataLoader[Any]:
        parts, _, _ = split_series(
            list(data), self.context_length, self.prediction_length, 0, self.calendar, self.counts, self.freq
        )
        length = self.context_length + self.prediction_length
        windows = RandomWindows(parts, length, self.context_length, size, self.seed)
        return DataLoader(windows, batch_size=self.batch_size, sampler=_Counting(size, epochs))


class _Counting(Sampler[int]):
    """0 ... size - 1 in the first epoch and, if `epochs`, new numbers in every later one."""

    def __init__(self, size: int, epochs: bool) -> None:
        self.size, self.epochs, self.epoch = size, epochs, 0

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        first = self.epoch * self.size if self.epochs else 0
        self.epoch += 1
        return iter(range(first, first + self.size))
