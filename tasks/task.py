"""Training of any adapter: optimiser, averaged weights, exact resume, and a stop at the first NaN.

Loss per sample L_i(theta) from the adapter, minimised in the mean; theta_ema <- d theta_ema + (1 - d) theta per step.
Validation, sampling and export use theta_ema. All randomness of a training step is a pure function of
(seed, epoch, batch, rank), so a resumed run repeats what an uninterrupted one would have done.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ..core.noise import NoiseSource, hash_seed
from ..modalities.adapter import Adapter
from .ema import AveragedWeights
from .errors import NonFiniteLoss, UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TRAINING, _VALIDATION = 0, 1


class DiffusionTask(LightningModule):
    """Trains an adapter.

    A task of its own overrides `figures`, `write_samples` and `measure`, and adds what it logs in `validation_step`.

    Args:
        adapter: The model.
        optimizer: Makes the optimiser from the parameters.
        warmup_steps: Optimiser steps of linear warm-up of the learning rate.
        decay_steps: If given, the rate falls to zero at this step, as half a cosine; otherwise it stays constant.
        ema_decay: Decay of the averaged weights; 0 trains without averaging.
        skip_nonfinite: How many steps in a row with a NaN or infinite loss or gradient are left out before the run
            stops; 0 stops at the first.
        seed: Seed of all noise; the command line sets it from `seed_everything`.
    """

    monitor: ClassVar[str] = "val_loss"

    def __init__(
        self,
        adapter: Adapter,
        optimizer: OptimizerCallable = lambda parameters: AdamW(parameters, lr=1e-3, weight_decay=0.0),
        warmup_steps: int = 0,
        decay_steps: int | None = None,
        ema_decay: float = 0.999,
        skip_nonfinite: int = 0,
        seed: int = 42,
    ) -> None:
        super().__init__()
        if not 0 <= ema_decay < 1:
            raise ValueError(f"ema_decay must be in [0, 1), got {ema_decay}")
        if decay_steps is not None and decay_steps <= warmup_steps:
            raise ValueError(f"decay_steps ({decay_steps}) must be larger than warmup_steps ({warmup_steps})")
        self.adapter = adapter
        self.seed = seed
        self.ema_decay = ema_decay
        self.skip_nonfinite = skip_nonfinite
        self._make_optimizer = optimizer
        self._rate = partial(learning_rate_factor, warmup_steps=warmup_steps, decay_steps=decay_steps)
        self._skipped = 0

    def restored(self, checkpoint: Mapping[str, Any]) -> None:
        """Called before an export with the checkpoint whose weights were taken, for what is no weight."""

    def figures(self) -> dict[str, Figure]:
        """Pictures of what the model can do now, by name; called with averaged weights after each validation epoch."""
        return {}

    def write_samples(
        self, datamodule: LightningDataModule, out: Path, *, num_samples: int, steps: int | None, seed: int
    ) -> list[Path]:
        """Draw samples, write them into `out` and return the files: the command `sample`."""
        raise UserError(f"{type(self).__name__} has no `sample` command")

    def measure(
        self, datamodule: LightningDataModule, out: Path, *, num_samples: int, steps: int | None, seed: int
    ) -> Mapping[str, Mapping[str, float]]:
        """Metrics by method (the model first, then the baselines): the command `evaluate`."""
        raise UserError(f"{type(self).__name__} has no `evaluate` command")

    def batch_size(self, batch: Any) -> int:
        """Number of samples in a batch: the length of the first tensor found in it."""
        for tensor in _tensors(batch):
            return len(tensor)
        raise TypeError(f"no tensor in a batch of type {type(batch).__name__}: override batch_size")

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        size = self.batch_size(batch)
        seed = hash_seed(self.seed, _TRAINING, self.current_epoch, batch_idx, self.global_rank)
        with _seeded(seed, self.device):
            losses = self.adapter.loss(batch, NoiseSource(seed, range(size)))
        if losses.shape != (size,):
            raise ValueError(f"{type(self.adapter).__name__}.loss gave shape {tuple(losses.shape)}, expected ({size},)")
        loss = losses.mean()
        if not torch.isfinite(loss):
            bad = (~torch.isfinite(losses)).nonzero().flatten().tolist()
            self._nonfinite(f"loss of sample(s) {_shorten(bad)} in batch {batch_idx}")
            return None
        self._skipped = 0
        self.log("train_loss", loss.detach(), prog_bar=True, batch_size=size)
        return loss

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        size = self.batch_size(batch)
        # No epoch in the seed: the same noise every time makes the values comparable.
        seed = hash_seed(self.seed, _VALIDATION, dataloader_idx, batch_idx, self.global_rank)
        losses = self.adapter.loss(batch, NoiseSource(seed, range(size)))
        self.log("val_loss", losses.mean(), prog_bar=True, batch_size=size, sync_dist=True, add_dataloader_idx=False)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        size = self.batch_size(batch)
        seed = hash_seed(self.seed, _VALIDATION, dataloader_idx, batch_idx, self.global_rank)
        losses = self.adapter.loss(batch, NoiseSource(seed, range(size)))
        self.log("test_loss", losses.mean(), batch_size=size, sync_dist=True, add_dataloader_idx=False)

    def configure_optimizers(self) -> Any:
        optimizer = self._make_optimizer([p for p in self.adapter.parameters() if p.requires_grad])
        schedule = LambdaLR(optimizer, self._rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_callbacks(self) -> list[Callback]:
        return [AveragedWeights(self.ema_decay)] if self.ema_decay else []

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        if not gradients:
            return
        norm = get_total_norm(gradients)
        self.log("grad_norm", norm)
        if not torch.isfinite(norm):
            self._nonfinite("gradient norm")
            optimizer.zero_grad(set_to_none=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # The last line of defence: whatever made a weight non-finite, the previous good checkpoint stays.
        for name, tensor in checkpoint["state_dict"].items():
            if torch.is_floating_point(tensor) and not torch.isfinite(tensor).all():
                raise NonFiniteLoss(f"step {self.global_step}: {name} is not finite; no checkpoint was written")
        checkpoint["fourfold"] = {"adapter": self.adapter.name, "config": self.adapter.config()}

    def _nonfinite(self, what: str) -> None:
        self._skipped += 1
        rate = self.optimizers().param_groups[0]["lr"]  # pyright: ignore[reportAttributeAccessIssue]
        place = f"step {self.global_step} (epoch {self.current_epoch}): the {what} is NaN or infinite, lr {rate:.3g}"
        if self._skipped > self.skip_nonfinite:
            raise NonFiniteLoss(
                f"{place}. The weights are still finite. Check the data, lower model.optimizer.lr or set "
                "trainer.gradient_clip_val, or leave out such steps with --model.skip_nonfinite=10"
            )
        self.print(f"{place}; step left out ({self._skipped} in a row)")


def learning_rate_factor(step: int, *, warmup_steps: int, decay_steps: int | None) -> float:
    """Factor on the learning rate: (step + 1) / warmup_steps, then 1, or (1 + cos(pi u)) / 2 towards `decay_steps`."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if decay_steps is None:
        return 1.0
    u = min((step - warmup_steps) / (decay_steps - warmup_steps), 1.0)
    return 0.5 * (1 + math.cos(math.pi * u))


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    # For dropout, which takes no generator: the global state is a function of the step and left as it was.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            yield from _tensors(item)


def _shorten(ids: list[int]) -> str:
    return ", ".join(map(str, ids[:8])) + (f", ... ({len(ids)} in all)" if len(ids) > 8 else "")
