"""Batches of graphs of similar size, still in a random order that can be recomputed.

The cost of a dense batch grows with the square of its largest graph. Within pools of a few batches the shuffled
graphs are therefore sorted by size, cut into batches, and the batches shuffled. The order stays a pure function of
(seed, epoch), so a stopped run continues bitwise (:mod:`fourfold.data.resume`).
"""

from __future__ import annotations

import numpy as np

from ..resume import ResumableSampler


class BucketedSampler(ResumableSampler):
    """Indices whose consecutive blocks of `batch_size` (per process) have similar sizes.

    Args:
        size: Number of samples, `len(sizes)` times any number of repeats.
        sizes: Nodes of each graph; index k has `sizes[k % len(sizes)]`.
        batch_size: Samples per batch and process.
        pool: Batches that are sorted together; 1: only shuffled.
        seed: Seed of the order.
        shuffle: A new random order every epoch; otherwise 0, 1, 2, ...
        world_size: Number of processes.
        rank: This process.

    Raises:
        ValueError: Empty, or settings out of range.
    """

    def __init__(
        self,
        size: int,
        *,
        sizes: np.ndarray,
        batch_size: int,
        pool: int = 16,
        seed: int = 0,
        shuffle: bool = True,
        world_size: int = 1,
        rank: int = 0,
    ) -> None:
        super().__init__(size, seed=seed, shuffle=shuffle, world_size=world_size, rank=rank)
        if batch_size < 1 or pool < 1:
            raise ValueError(f"batch_size and pool must be at least 1, got {batch_size} and {pool}")
        self.sizes, self.batch_size, self.pool = np.asarray(sizes), batch_size, pool

    def order(self, epoch: int) -> np.ndarray:
        order = super().order(epoch)
        # All processes together take this many samples per step; rank r takes every world_size-th of them.
        step = self.batch_size * self.world_size
        whole = len(order) // step * step
        if not self.shuffle or self.pool == 1 or whole <= step:
            return order
        batches = []
        for start in range(0, whole, step * self.pool):
            some = order[start : min(start + step * self.pool, whole)]
            # Stable, so that equal sizes stay in their random order.
            some = some[np.argsort(self.sizes[some % len(self.sizes)], kind="stable")]
            batches.append(some.reshape(-1, step))
        blocks = np.concatenate(batches)
        # The permutation of the blocks comes from the order itself: the rank of each block's first random index.
        blocks = blocks[np.argsort(order[: len(blocks)], kind="stable")]
        return np.concatenate([blocks.ravel(), order[whole:]])
