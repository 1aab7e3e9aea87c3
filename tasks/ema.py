"""Averaged weights: trained in parallel, used wherever the model is looked at."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging

from ..core.ema import EMA


class AveragedWeights(WeightAveraging):
    """Exponential moving average of the weights, in the checkpoint's `state_dict` (the raw ones are kept beside it).

    Differs from Lightning's own in two ways. The swap lasts for the whole of validation, the module's hook at the
    epoch's end included, before which Lightning's undoes it. And an exception during validation undoes the swap before
    a checkpoint is written, so that averaged and raw weights cannot change places.
    """

    def __init__(self, decay: float) -> None:
        # Buffers (schedules, scales) are copied, not averaged.
        super().__init__(use_buffers=False, multi_avg_fn=EMA(decay))
        self._swapped = False

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._set_swapped(pl_module, True)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._set_swapped(pl_module, False)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._set_swapped(pl_module, False)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing: the swap belongs to the start of validation."""

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing: the swap is undone at the end of validation."""

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        # Outside `fit` the module itself holds the averaged weights, and there is nothing to add.
        if self._average_model is not None:
            super().on_save_checkpoint(trainer, pl_module, checkpoint)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._average_model is not None:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

    def _set_swapped(self, pl_module: LightningModule, swapped: bool) -> None:
        if self._average_model is not None and swapped != self._swapped:
            self._swap_models(pl_module)
            self._swapped = swapped
