"""What a blockwise model learns about blocks before training: sizes of first blocks, and the most of everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .block_cache import cached_block_orders
from .records import GraphRecord

__all__ = ["BlockStatistics"]


@dataclass(frozen=True)
class BlockStatistics:
    """Facts about the blocks of a set of graphs.

    Args:
        first_sizes: number of graphs whose first block has n nodes, at index n.
        blocks: number of graphs with L blocks, at index L.
        largest: nodes of the largest block.
        largest_degree: largest degree of a node when it is added.
    """

    first_sizes: tuple[int, ...]
    blocks: tuple[int, ...]
    largest: int
    largest_degree: int

    @classmethod
    def of(
        cls, records: Sequence[GraphRecord], max_hops: int, rule: str, cache: str | Path | None = None
    ) -> BlockStatistics:
        """Counts the blocks of graphs.

        Args:
            records: the training graphs.
            max_hops: see :func:`.block_order.block_order`.
            rule: likewise.
            cache: folder that keeps the block orders of large sets; None keeps nothing.
        """
        first, count, largest, degree = [], [], 1, 0
        for record, block in zip(records, cached_block_orders(records, max_hops, rule, cache), strict=True):
            sizes = np.bincount(block)
            first.append(sizes[0])
            count.append(len(sizes))
            largest = max(largest, int(sizes.max()))
            if max_hops and record.num_edges:
                i, j = record.edges.T
                later = np.concatenate([i[block[i] >= block[j]], j[block[j] >= block[i]]])
                degree = max(degree, int(np.bincount(later).max()))
        return cls(tuple(np.bincount(first).tolist()), tuple(np.bincount(count).tolist()), largest, degree)

    @classmethod
    def from_plain(cls, value: Mapping[str, Any]) -> BlockStatistics:
        """From the result of :meth:`plain`."""
        return cls(**{**value, "first_sizes": tuple(value["first_sizes"]), "blocks": tuple(value["blocks"])})

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
