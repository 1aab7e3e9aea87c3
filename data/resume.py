"""Loaders that continue after a crash exactly where the run stopped.

The order of an epoch is a pure function of (seed, epoch), so it can be recomputed; a resumed run skips the batches that
were already processed. Together with noise that is a pure function of (seed, epoch, batch, rank) this makes a killed
and resumed training bitwise equal to an uninterrupted one. Lightning alone does not: it neither saves random states
nor fast-forwards the loader.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, Dataset, Sampler

from ..core.noise import hash_seed


class ResumableSampler(Sampler[int]):
    """Indices of one epoch, reproducible from (seed, epoch), sharded by rank, able to start in the middle.

    Args:
        size: Number of samples in the data set.
        seed: Seed of the order.
        shuffle: A new random order every epoch; otherwise 0, 1, 2, ...
        world_size: Number of processes; every one gets the same number of samples (the order is padded by its start).
        rank: This process.
    """

    def __init__(self, size: int, *, seed: int = 0, shuffle: bool = True, world_size: int = 1, rank: int = 0) -> None:
        if size < 1:
            raise ValueError("the data set is empty")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is not in [0, {world_size})")
        self.size, self.seed, self.shuffle, self.world_size, self.rank = size, seed, shuffle, world_size, rank
        self.epoch = 0
        self._skip = (0, 0)
        self._trainer: Trainer | None = None

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration gives (Lightning calls this)."""
        # After resuming at an epoch's end Lightning (2.6) announces one epoch too many when max_steps is set.
        self.epoch = epoch if self._trainer is None else self._trainer.current_epoch

    def follow(self, trainer: Trainer) -> None:
        """Take the number of the epoch from a trainer."""
        self._trainer = trainer

    def start_at(self, epoch: int, samples: int) -> None:
        """Begin `epoch` after its first `samples` samples of this rank; later epochs are whole."""
        self.epoch = epoch
        self._skip = (epoch, samples)

    def order(self, epoch: int) -> np.ndarray:
        """Indices of an epoch over all ranks, shape `(size,)`."""
        if not self.shuffle:
            return np.arange(self.size)
        return np.random.Generator(np.random.Philox(hash_seed(self.seed, epoch))).permutation(self.size)

    def __len__(self) -> int:
        # The length of the whole epoch, also when resuming: Lightning counts batches from the epoch's start.
        return -(-self.size // self.world_size)

    def __iter__(self) -> Iterator[int]:
        epoch, skipped = self._skip
        start = skipped if epoch == self.epoch else 0
        order = np.resize(self.order(self.epoch), len(self) * self.world_size)
        return iter(order[self.rank :: self.world_size][start:].tolist())


class FreshSampler(ResumableSampler):
    """Never repeats an index: epoch `e` gives `e * size ... (e + 1) * size - 1`.

    For data sets that draw a random window or crop per index, `dataset[i]` being a pure function of (seed, i);
    `size` is then the number of draws that make one epoch.
    """

    def order(self, epoch: int) -> np.ndarray:
        return np.arange(epoch * self.size, (epoch + 1) * self.size)


def train_loader(
    dataset: Dataset[Any],
    *,
    batch_size: int,
    seed: int,
    trainer: Trainer | None = None,
    sampler: Callable[..., ResumableSampler] = ResumableSampler,
    size: int | None = None,
    num_workers: int = 0,
    collate_fn: Callable[[list[Any]], Any] | None = None,
    drop_last: bool = True,
) -> DataLoader[Any]:
    """The training loader every data module returns from `train_dataloader`.

    Args:
        dataset: Map-style; `dataset[i]` must not use global random state.
        batch_size: Samples per batch and process.
        seed: Seed of the order.
        trainer: The data module's `self.trainer`: gives rank, world size and, when resuming, the place to start at.
        sampler: `ResumableSampler`, `FreshSampler`, or whatever makes one from (size, seed, world_size, rank).
        size: Samples per epoch; default `len(dataset)`.
        num_workers: Loader processes.
        collate_fn: As in torch's DataLoader.
        drop_last: Leave out an incomplete last batch (unless it would be the only one).

    Returns:
        A loader for `Trainer(use_distributed_sampler=False)`.
    """
    count = len(dataset) if size is None else size  # pyright: ignore[reportArgumentType]
    world_size, rank = (trainer.world_size, trainer.global_rank) if trainer is not None else (1, 0)
    order = sampler(count, seed=seed, world_size=world_size, rank=rank)
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=order,
        num_workers=num_workers,
        collate_fn=collate_fn,
        drop_last=drop_last and len(order) >= batch_size,
        persistent_workers=False,
        # Otherwise every epoch would draw its workers' seed from the global generator.
        generator=torch.Generator().manual_seed(hash_seed(seed)),
    )
    if trainer is not None:
        resume(loader, trainer)
    return loader


def eval_loader(
    dataset: Dataset[Any],
    *,
    batch_size: int,
    num_workers: int = 0,
    collate_fn: Callable[[list[Any]], Any] | None = None,
) -> DataLoader[Any]:
    """A loader in the data set's order, all of it, that leaves the global random state alone."""
    return DataLoader(
        dataset,
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=collate_fn,
        generator=torch.Generator().manual_seed(0),
    )


def resume(loader: DataLoader[Any], trainer: Trainer) -> None:
    """Fast-forward a loader with a `ResumableSampler` to where the trainer's restored progress stands.

    Call it inside `train_dataloader()`: the loops' state has been restored by then, and loader processes, which
    prefetch before Lightning announces the epoch, have not started yet.
    """
    sampler = cast(ResumableSampler, loader.sampler)
    sampler.follow(trainer)
    progress = trainer.fit_loop.epoch_loop.batch_progress
    if progress.is_last_batch:
        # The epoch is over, even if it is not counted as completed yet, and the next one starts whole.
        sampler.start_at(cast(Any, trainer.fit_loop.epoch_progress.current).started, 0)
    else:
        # `processed`, not `completed`: a checkpoint written at the end of a batch has completed one batch less.
        processed = cast(Any, progress.current).processed
        sampler.start_at(trainer.current_epoch, processed * (loader.batch_size or 1))
