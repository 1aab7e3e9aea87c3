"""Progress: a bar in a terminal, a plain line now and then in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar


class PlainProgress(ProgressBar):
    """One line every few seconds: place, speed, and the values shown in the bar.

    Args:
        seconds: Least time between two lines.
    """

    def __init__(self, seconds: float = 10.0) -> None:
        super().__init__()
        self._seconds = seconds
        self._shown = self._begin = time.monotonic()
        self._first_step = 0
        self._enabled = True

    @property
    def is_enabled(self) -> bool:
        return self._enabled

    @property
    def is_disabled(self) -> bool:
        return not self._enabled

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._shown = self._begin = time.monotonic()
        self._first_step = trainer.global_step
        count = sum(p.numel() for p in pl_module.parameters())
        self._say(f"training {count:,} parameters on {pl_module.device}, from step {trainer.global_step}")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if time.monotonic() - self._shown >= self._seconds:
            self._line(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._line(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._say(f"trained to step {trainer.global_step} in {time.monotonic() - self._begin:.0f} s")

    def _line(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._shown = time.monotonic()
        seconds = max(self._shown - self._begin, 1e-9)
        speed = (trainer.global_step - self._first_step) / seconds
        values = _format(self.get_metrics(trainer, pl_module))
        self._say(f"epoch {trainer.current_epoch}  step {trainer.global_step}  {speed:.1f} steps/s  {values}")

    def _say(self, text: str) -> None:
        if self._enabled:
            print(text, flush=True)


def progress_callback() -> Callback:
    """The progress display that suits standard output."""
    return RichProgressBar(leave=True) if sys.stdout.isatty() else PlainProgress()


def _format(metrics: Mapping[str, Any]) -> str:
    shown = ((name, value) for name, value in metrics.items() if name != "v_num")
    return "  ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in shown)
