"""A task small enough to train in a second: denoise points on a circle. Only for tests."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from fourfold.core.noise import NoiseSource
from fourfold.data.resume import eval_loader, train_loader
from fourfold.modalities.adapter import Adapter
from fourfold.modalities.registry import register
from fourfold.tasks.cli import run_cli
from fourfold.tasks.task import DiffusionTask


@register
class ToyAdapter(Adapter):
    """Predicts the clean point from a noisy one.

    Args:
        width: Hidden units.
        dropout: Dropout rate, which draws from the global generator.
    """

    name = "toy"

    def __init__(self, width: int = 8, dropout: float = 0.1) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width must be positive, got {width}")
        self._config = {"width": width, "dropout": dropout}
        self.net = nn.Sequential(nn.Linear(3, width), nn.SiLU(), nn.Dropout(dropout), nn.Linear(width, 2))
        self.register_buffer("seen", torch.zeros(()))

    def config(self) -> dict[str, Any]:
        return dict(self._config)

    def loss(self, batch: Any, noise: NoiseSource) -> Tensor:
        (x,) = batch
        t = noise.uniform((len(x), 1), 0)
        noisy = (1 - t) * x + t * noise.normal(x, 1)
        if self.training:
            self.seen += 1
        return (self.net(torch.cat([noisy, t], 1)) - x).square().mean(1)

    def sample(self, count: int, seed: int = 0) -> Tensor:
        x = NoiseSource(seed, range(count)).normal((count, 2), 0)
        return self.net(torch.cat([x, torch.ones(count, 1)], 1))


class ToyTask(DiffusionTask):
    """The toy task; environment variables make it fail at a chosen step."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        step = self.trainer.fit_loop.epoch_loop.total_batch_idx
        if step == int(os.environ.get("TOY_KILL_AT", -1)):
            os.kill(os.getpid(), signal.SIGKILL)
        if step == int(os.environ.get("TOY_TERM_AT", -1)):
            os.kill(os.getpid(), signal.SIGTERM)
        if step == int(os.environ.get("TOY_INT_AT", -1)):
            os.kill(os.getpid(), signal.SIGINT)
        if step in map(int, filter(None, os.environ.get("TOY_NAN_AT", "").split(","))):
            batch = [batch[0] * float("nan")]
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        for variable, number in (("TOY_VAL_KILL_AT", signal.SIGKILL), ("TOY_VAL_TERM_AT", signal.SIGTERM)):
            if self.global_step == int(os.environ.get(variable, -1)) and batch_idx == 3:
                os.kill(os.getpid(), number)
        super().validation_step(batch, batch_idx, dataloader_idx)

    def figures(self) -> dict[str, Any]:
        from matplotlib.figure import Figure

        figure = Figure((2, 2))
        figure.subplots().scatter(*self.adapter.sample(16).T.detach())
        return {"points": figure}

    def write_samples(
        self, datamodule: Any, out: Path, *, num_samples: int, steps: int | None, seed: int
    ) -> list[Path]:
        torch.save(self.adapter.sample(num_samples, seed), out / "points.pt")
        return [out / "points.pt"]

    def measure(self, datamodule: Any, out: Path, *, num_samples: int, steps: int | None, seed: int) -> dict[str, Any]:
        points = self.adapter.sample(num_samples, seed)
        return {"toy": {"radius": float(points.norm(dim=1).mean())}, "zero": {"radius": 0.0}}


class ToyData(LightningDataModule):
    """Points on a circle.

    Args:
        count: Number of points.
        batch_size: Points per batch.
        num_workers: Loader processes.
    """

    protocol = "toy: 80 points on a circle"

    def __init__(self, count: int = 80, batch_size: int = 8, num_workers: int = 0) -> None:
        super().__init__()
        if count < 1:
            raise ValueError(f"count must be positive, got {count}")
        self.batch_size, self.num_workers = batch_size, num_workers
        angle = torch.arange(count) * (2 * torch.pi / count)
        self.points = TensorDataset(torch.stack([angle.cos(), angle.sin()], 1))

    def train_dataloader(self) -> Any:
        return train_loader(
            self.points, batch_size=self.batch_size, seed=1, trainer=self.trainer, num_workers=self.num_workers
        )

    def val_dataloader(self) -> Any:
        return eval_loader(self.points, batch_size=self.batch_size)

    def test_dataloader(self) -> Any:
        return self.val_dataloader()


def main(args: list[str] | None = None) -> int:
    """`fourfold toy ...`"""
    return run_cli("toy", ToyTask, ToyData, args)


if __name__ == "__main__":
    raise SystemExit(main())
