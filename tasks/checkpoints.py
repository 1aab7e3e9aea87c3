"""Checkpoints one can trust: written all or nothing, at a clean point of training, and checked before they are used.

A run keeps two files: `last.ckpt`, from which training continues as if nothing had happened, and `best.ckpt`, the best
validation value so far. Both hold averaged weights in `state_dict` and only plain values otherwise.
"""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn

from ..modalities.adapter import Adapter
from ..modalities.registry import UnknownAdapter, find
from .errors import CheckpointError, UserError


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, flushes to disk, then renames: a killed or failed write never leaves half a file.

    (Lightning's own goes through the system's temporary folder, from where a rename may become a copy.)
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        target = Path(path)
        temporary = target.with_name(f".{target.name}-{os.getpid()}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except (OSError, RuntimeError) as error:
            # torch reports a failed write as a RuntimeError of its zip writer.
            if not _is_write_failure(error):
                raise
            kept = "; the previous one is intact" if target.is_file() else ""
            reason = error.strerror if isinstance(error, OSError) else "the disk is full or the file size is limited"
            raise CheckpointError(
                f"cannot write {target} ({_bytes(checkpoint):,} bytes needed): {reason}{kept}"
            ) from error
        finally:
            temporary.unlink(missing_ok=True)


class LastCheckpoint(Checkpoint):
    """Keeps `path` up to date: every n optimiser steps, at every epoch's end, and when the run is stopped.

    Args:
        path: The file.
        every_n_steps: Optimiser steps between two writes.
    """

    def __init__(self, path: str | Path, every_n_steps: int = 200) -> None:
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps must be at least 1, got {every_n_steps}")
        self.path = Path(path)
        self.every_n_steps = every_n_steps
        self._saved_step = 0
        self._trained = False
        self._gradients: dict[str, torch.Tensor] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._saved_step, self._trained = trainer.global_step, False
        parameters = dict(pl_module.named_parameters())
        for name, gradient in self._gradients.items():
            parameters[name].grad = gradient.to(parameters[name].device)
        self._gradients = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        # The step that loggers show; resuming at an epoch's end Lightning (2.6) counts one too many.
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._trained = True
        # With accumulated gradients several batches share a step; only the first follows the optimiser's step. After an
        # epoch's last batch the epoch's end is the point that can be resumed from exactly.
        due = trainer.global_step % self.every_n_steps == 0 and trainer.global_step != self._saved_step
        if due and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._trained:
            self._save(trainer)
            return
        # Resumed at an epoch's end with max_steps set, Lightning (2.6) ends that epoch, and counts it, a second time.
        for progress in (trainer.fit_loop.epoch_progress.current, trainer.fit_loop.epoch_progress.total):
            cast(Any, progress).processed = cast(Any, progress).started

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        # Lightning forgets gradients that are being accumulated, and would continue with a part of them.
        progress: Any = trainer.fit_loop.epoch_loop.batch_progress
        if progress.current.processed % trainer.accumulate_grad_batches and not progress.is_last_batch:
            checkpoint["gradients"] = {
                name: p.grad.clone() for name, p in pl_module.named_parameters() if p.grad is not None
            }

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._gradients = checkpoint.get("gradients", {})

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        # Inside a batch weights and optimiser may be half-way through a step: then the previous file is the better one.
        progress: Any = trainer.fit_loop.epoch_loop.batch_progress.current
        fitting = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        if fitting and trainer.global_step > 0 and progress.started == progress.processed:
            try:
                self._save(trainer)
            except UserError as error:
                trainer.print(str(error))

    def _save(self, trainer: Trainer) -> None:
        self._saved_step = trainer.global_step
        trainer.save_checkpoint(self.path, weights_only=False)


def best_checkpoint(folder: str | Path, monitor: str) -> ModelCheckpoint:
    """Lightning's callback, set to keep `best.ckpt`, the smallest value of `monitor`."""
    return ModelCheckpoint(
        dirpath=folder,
        filename="best",
        monitor=monitor,
        mode="min",
        save_top_k=1,
        save_last=False,
        auto_insert_metric_name=False,
        enable_version_counter=False,
        save_on_train_epoch_end=False,
    )


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Load a training checkpoint on the CPU, refusing anything that is damaged or more than plain values.

    Raises:
        CheckpointError: One line that names the file, what is wrong, and the newest good file beside it.
    """
    path = Path(path)
    problem = _damage(path)
    if problem is None:
        try:
            # Never the default, which an environment variable can turn into a full unpickling.
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            problem = "holds more than tensors and plain values, and is not loaded because that could run code"
        except (RuntimeError, EOFError, OSError, ValueError) as error:
            problem = f"cannot be read ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
        else:
            if isinstance(checkpoint, dict) and isinstance(checkpoint.get("state_dict"), dict):
                return checkpoint
            problem = "is not a training checkpoint: it has no state_dict"
    good = newest_good(path.parent, without=path)
    hint = f"; the newest good one is {good}" if good else ""
    raise CheckpointError(f"checkpoint {path} {problem}{hint}")


def trained_adapter(path: str | Path) -> Adapter:
    """The model of a training checkpoint with its averaged weights, on the CPU, in evaluation mode.

    Raises:
        CheckpointError: The file is damaged, or holds no model that this version can build.
    """
    checkpoint = read_checkpoint(path)
    described = checkpoint.get("fourfold", {})
    prefix = "adapter."
    weights = {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}
    try:
        adapter = find(str(described.get("adapter")))(**described["config"])
        adapter.load_state_dict(weights)
    except (UnknownAdapter, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"cannot rebuild the model of {path}: {str(error).strip().splitlines()[0]}") from error
    return adapter.eval()


def newest_good(folder: str | Path, *, without: Path | None = None) -> Path | None:
    """The most recent undamaged checkpoint of a folder."""
    paths = [p for p in Path(folder).glob("*.ckpt") if p != without and _damage(p) is None]
    return max(paths, key=lambda p: p.stat().st_mtime, default=None)


def _damage(path: Path) -> str | None:
    if not path.exists():
        return "does not exist"
    if not path.is_file():
        return "is not a file"
    if path.stat().st_size == 0:
        return "is damaged (empty file): delete it"
    if not zipfile.is_zipfile(path):
        return "is damaged (cut off), or another kind of file"
    try:
        # torch stores a CRC of every record but does not check it when loading.
        with zipfile.ZipFile(path) as archive:
            record = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, ValueError) as error:
        return f"is damaged ({error}): delete it"
    return f"is damaged (checksum of {record} is wrong): delete it" if record else None


def _is_write_failure(error: Exception) -> bool:
    return isinstance(error, OSError) or "write" in str(error).lower()


def _bytes(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return value.nbytes
    if isinstance(value, Mapping):
        return sum(map(_bytes, value.values()))
    return sum(map(_bytes, value)) if isinstance(value, list | tuple) else 0
