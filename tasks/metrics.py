"""metrics.csv that survives a resume: rows are only ever appended.

One value per row (`time,epoch,step,name,value`), because the set of names grows during a run and a file that is never
rewritten cannot be lost. After a resume the steps since the checkpoint appear twice, and the later row counts. Wide:
`pandas.read_csv(path).pivot_table(index="step", columns="name", values="value", aggfunc="last")`.
"""

from __future__ import annotations

import csv
import time
from argparse import Namespace
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from .runs import RunFolder


class AppendLogger(Logger):
    """Appends every logged value to the run's metrics.csv."""

    COLUMNS = ("time", "epoch", "step", "name", "value")

    def __init__(self, run: RunFolder) -> None:
        super().__init__()
        self._run = run

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self._run.path)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: config.yaml holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        values = dict(metrics)
        epoch = values.pop("epoch", None)
        now = f"{time.time():.1f}"
        path = self._run.metrics_csv
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if file.tell() == 0:
                writer.writerow(self.COLUMNS)
            for key, value in values.items():
                shown = "" if epoch is None else int(epoch)
                writer.writerow((now, shown, "" if step is None else step, key, repr(float(value))))


class LatestMetrics(Callback):
    """Keeps the section `fit` of metrics.json at the values of the last validation."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or not trainer.is_global_zero or trainer.state.fn != "fit":
            return
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        protocol = getattr(trainer.datamodule, "protocol", None)  # pyright: ignore[reportAttributeAccessIssue]
        place = {"epoch": trainer.current_epoch, "step": trainer.global_step, "seed": getattr(pl_module, "seed", None)}
        self._run.record("fit", {**place, "protocol": protocol, "metrics": metrics})
