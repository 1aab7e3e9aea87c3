"""Lightning's Trainer with a run folder, and with the commands sample, evaluate and export."""

from __future__ import annotations

import logging
import math
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger

from ..modalities.storage import is_model_folder
from .checkpoints import AtomicCheckpointIO, LastCheckpoint, best_checkpoint, read_checkpoint
from .errors import CheckpointError, UserError
from .interrupts import StopBetweenBatches
from .metrics import AppendLogger, LatestMetrics
from .pictures import SamplePictures
from .progress import progress_callback
from .runs import RunFolder
from .task import DiffusionTask

_NOT_FOR_US = (
    ".*does not have many workers.*",
    ".*Checkpoint directory .* exists.*",
    ".*srun.*",
    ".*LeafSpec.*",
    ".*your dataloader is not resumable.*",
    ".*callbacks used to create the checkpoint need to be provided.*",
    ".*smaller than the logging interval.*",
)


class TaskTrainer(Trainer):
    """Lightning's Trainer; the added methods become commands whose options are the arguments below."""

    def sample(
        self,
        model: DiffusionTask,
        datamodule: LightningDataModule | None = None,
        ckpt_path: str | None = None,
        num_samples: int = 8,
        steps: int | None = None,
        seed: int = 0,
        out: str | None = None,
    ) -> list[Path]:
        """Draw samples from a trained model and write them into a folder.

        Args:
            model: The task.
            datamodule: Its data.
            ckpt_path: Checkpoint, or "best" or "last" of --run.
            num_samples: How many samples to draw.
            steps: Sampler steps; default: what the model recommends.
            seed: Seed of the samples.
            out: Folder to write into; default: samples/ in the run folder.
        """
        data = self.prepare(model, datamodule, ckpt_path)
        folder = self._out(out, "samples")
        with torch.no_grad():
            files = model.write_samples(data, folder, num_samples=num_samples, steps=steps, seed=seed)
        for file in files:
            print(file)
        return files

    def evaluate(
        self,
        model: DiffusionTask,
        datamodule: LightningDataModule | None = None,
        ckpt_path: str | None = None,
        num_samples: int = 100,
        steps: int | None = None,
        seed: int = 0,
        out: str | None = None,
    ) -> dict[str, dict[str, float]]:
        """Measure a trained model by its task's protocol, beside the baselines.

        Args:
            model: The task.
            datamodule: Its data.
            ckpt_path: Checkpoint, or "best" or "last" of --run.
            num_samples: Samples per item.
            steps: Sampler steps; default: what the model recommends.
            seed: Seed of the samples.
            out: Folder for metrics.json and pictures; default: the run folder.
        """
        data = self.prepare(model, datamodule, ckpt_path)
        folder = self._out(out, "")
        with torch.no_grad():
            table = model.measure(data, folder, num_samples=num_samples, steps=steps, seed=seed)
        metrics = {method: {name: float(value) for name, value in row.items()} for method, row in table.items()}
        settings = {"num_samples": num_samples, "steps": steps, "seed": seed, "checkpoint": ckpt_path}
        protocol = getattr(data, "protocol", None)
        RunFolder(folder).record("evaluate", {**settings, "protocol": protocol, "metrics": metrics})
        print(format_table(metrics))
        return metrics

    def export(
        self,
        model: DiffusionTask,
        datamodule: LightningDataModule | None = None,
        ckpt_path: str | None = None,
        out: str | None = None,
        max_megabytes: float | None = None,
        overwrite: bool = False,
    ) -> Path:
        """Save a trained model as a folder that fourfold.load reads.

        Args:
            model: The task.
            datamodule: Its data, for the protocol in the card.
            ckpt_path: Checkpoint, or "best" or "last" of --run.
            out: Folder to write; required.
            max_megabytes: Round weights to 16 bits, and the largest matrices to 8 where the file would be larger.
            overwrite: Replace a saved model in that folder.
        """
        if out is None:
            raise UserError("export needs --out FOLDER")
        if is_model_folder(out) and not overwrite:
            raise UserError(f"{out} holds a saved model; choose another folder or replace it with --overwrite")
        checkpoint = load_weights(model, ckpt_path)
        model.restored(checkpoint)
        card = {
            "trained steps": checkpoint.get("global_step"),
            "checkpoint": Path(str(ckpt_path)).name,
            "protocol": getattr(datamodule, "protocol", None),
            "best validation loss": _best_score(checkpoint),
        }
        try:
            folder = model.adapter.save(
                out, card={k: v for k, v in card.items() if v is not None}, max_megabytes=max_megabytes
            )
        except ValueError as error:
            raise UserError(f"--max_megabytes: {error}") from error
        print(folder)
        return folder

    def prepare(
        self, model: DiffusionTask, datamodule: LightningDataModule | None, ckpt_path: str | None
    ) -> LightningDataModule:
        """Load averaged weights, move the model to the device in evaluation mode, and set up the data."""
        if datamodule is None:
            raise UserError("this command needs data")
        load_weights(model, ckpt_path)
        model.to(self.strategy.root_device).eval()
        datamodule.prepare_data()
        datamodule.setup("predict")
        return datamodule

    def _out(self, out: str | None, default: str) -> Path:
        folder = Path(out) if out is not None else Path(self.default_root_dir) / default
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def run_trainer(
    folder: str | Path,
    *,
    trainer_class: type[TaskTrainer] = TaskTrainer,
    monitor: str = "val_loss",
    checkpoint_every: int = 200,
    picture_every: int = 1,
    **kwargs: Any,
) -> TaskTrainer:
    """A trainer that keeps everything a run needs in one folder, the way the command line does it.

    Args:
        folder: The run folder.
        trainer_class: The class to make.
        monitor: Which value decides about best.ckpt (smaller is better).
        checkpoint_every: Optimiser steps between two writes of last.ckpt.
        picture_every: Validation epochs between two sets of pictures.
        kwargs: Any argument of Lightning's Trainer; callbacks and loggers are added to ours.
    """
    quieten()
    run = RunFolder(Path(folder))
    given = kwargs.pop("callbacks", None) or []
    callbacks: list[Callback] = [*(given if isinstance(given, list) else [given]), StopBetweenBatches()]
    if kwargs.get("enable_progress_bar") is not False:
        callbacks.append(progress_callback())
    callbacks += [SamplePictures(run, picture_every), LatestMetrics(run)]
    if kwargs.get("enable_checkpointing") is not False and not kwargs.get("fast_dev_run"):
        callbacks += [best_checkpoint(run.checkpoints, monitor), LastCheckpoint(run.last, checkpoint_every)]
    plugins = kwargs.pop("plugins", None) or []
    loggers = _loggers(run, kwargs.pop("logger", None))
    return trainer_class(
        **{
            "enable_model_summary": False,
            **kwargs,
            "default_root_dir": str(run.path),
            "callbacks": callbacks,
            "logger": loggers,
            "plugins": [*(plugins if isinstance(plugins, list) else [plugins]), AtomicCheckpointIO()],
            # The data modules shard by rank themselves, which is what lets them resume exactly.
            "use_distributed_sampler": False,
        }
    )


def load_weights(model: DiffusionTask, ckpt_path: str | Path | None) -> dict[str, Any]:
    """Load a checkpoint's (averaged) weights into a task; returns the checkpoint.

    Raises:
        CheckpointError: No checkpoint given, damaged, or not of this model.
    """
    if ckpt_path is None:
        raise CheckpointError("no trained weights given: add --run runs/TASK/NAME or --ckpt_path FILE")
    checkpoint = read_checkpoint(ckpt_path)
    try:
        model.load_state_dict(checkpoint["state_dict"])
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise CheckpointError(f"{ckpt_path} does not fit this model: {' '.join(lines[1:2] or lines)[:200]}") from error
    return checkpoint


def format_table(metrics: dict[str, dict[str, float]]) -> str:
    """Metrics by method as aligned text, - where there is none or it is NaN."""
    names = list(dict.fromkeys(name for row in metrics.values() for name in row))
    rows = [["", *names]]
    rows += [
        [m, *("-" if math.isnan(row.get(n, math.nan)) else f"{row[n]:.5g}" for n in names)]
        for m, row in metrics.items()
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(names) + 1)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _loggers(run: RunFolder, given: Any) -> list[Logger] | bool:
    if given is False:
        return False
    own: list[Logger] = [AppendLogger(run), TensorBoardLogger(run.path, name="", version="", default_hp_metric=False)]
    extra = [] if given in (None, True) else given if isinstance(given, list) else [given]
    return own + extra


def _best_score(checkpoint: dict[str, Any]) -> float | None:
    for state in checkpoint.get("callbacks", {}).values():
        score = state.get("best_model_score") if isinstance(state, dict) else None
        if score is not None:
            return float(score)
    return None


def quieten() -> None:
    """Keep Lightning's advertisements and advice that does not apply here out of the output."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for text in _NOT_FOR_US:
        warnings.filterwarnings("ignore", text)
