"""Graphs with their nodes in the order of generation.

Nodes are sorted by block; what is needed of blocks is kept per block (sizes, degrees) and per node. Nodes of one block
are alike for the model, so their order among each other is free; :func:`canonical_order` chooses it by structure, so
that two numberings of a graph get the same noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from .block_order import block_degrees, block_order, block_order_batch, block_sizes
from .metrics.isomorphism import node_colors
from .records import GraphBatch, GraphRecord, collate

__all__ = ["BlockBatch", "canonical_order", "in_blocks", "of_records"]


@dataclass(frozen=True)
class BlockBatch:
    """A padded batch in the order of generation.

    Args:
        types: node types (B, N), 0 where padded.
        adj: edge types (B, N, N), 0 = none, symmetric.
        block: block ids (B, N), not decreasing, -1 where padded.
        sizes: nodes of each block (B, L), 0 beyond a graph's last block.
        degrees: degree of each block's nodes when they are added (B, L).
        order: place of each node in the batch it was made from (B, N).
    """

    types: Tensor
    adj: Tensor
    block: Tensor
    sizes: Tensor
    degrees: Tensor
    order: Tensor

    def __len__(self) -> int:
        return len(self.types)

    @property
    def mask(self) -> Tensor:
        """Which nodes exist, bool (B, N)."""
        return self.block >= 0

    @property
    def blocks(self) -> Tensor:
        """Number of blocks of each graph (B,)."""
        return (self.sizes > 0).sum(1)

    def to(self, device: torch.device | str) -> BlockBatch:
        """The batch on another device."""
        return self._each(lambda x: x.to(device))

    def repeated(self, n: int) -> BlockBatch:
        """n copies of a batch of one graph."""
        return self._each(lambda x: x.expand(n, *x.shape[1:]))

    def _each(self, change: Callable[[Tensor], Tensor]) -> BlockBatch:
        return BlockBatch(**{f.name: change(getattr(self, f.name)) for f in fields(self)})

    def of_node(self, per_block: Tensor) -> Tensor:
        """Each node's value of something that blocks have: (B, L) -> (B, N)."""
        return per_block.gather(1, self.block.clamp(min=0))

    @property
    def pairs(self) -> Tensor:
        """Every pair of nodes once, at the row of the later one: bool (B, N, N)."""
        both = self.mask[:, :, None] & self.mask[:, None, :]
        return both.tril(-1)


def in_blocks(batch: GraphBatch, max_hops: int, rule: str) -> BlockBatch:
    """Sort the nodes of a batch by block; within a block they keep their order.

    Args:
        batch: B graphs.
        max_hops: see :func:`.block_order.block_order`.
        rule: likewise.
    """
    block = block_order_batch(batch.adj > 0, batch.mask, max_hops, rule)
    return sort_by_blocks(batch, block, with_degrees=max_hops > 0)


def sort_by_blocks(batch: GraphBatch, block: Tensor, with_degrees: bool = True) -> BlockBatch:
    """Sort the nodes of a batch by given block ids (B, N), -1 where padded.

    Args:
        batch: B graphs.
        block: block ids.
        with_degrees: False keeps no degrees (all 0): the nodes of a graph in one block do not share one.
    """
    length = block.shape[1]
    order = torch.where(block < 0, length, block).argsort(dim=1, stable=True)
    rows = batch.adj.gather(1, order[:, :, None].expand(-1, -1, length))
    adj = rows.gather(2, order[:, None, :].expand(-1, length, -1))
    block = block.gather(1, order)
    sizes = block_sizes(block)
    degrees = block_degrees(adj > 0, block) if with_degrees else torch.zeros_like(sizes)
    return BlockBatch(batch.node_types.gather(1, order), adj, block, sizes, degrees, order)


def of_records(records: Sequence[GraphRecord], max_hops: int, rule: str) -> BlockBatch:
    """Graphs in a numbering that depends, ties of colour refinement apart, on their structure alone."""
    sorted_records = []
    for record in records:
        block = block_order(record.edges, record.num_nodes, max_hops, rule)
        bare = replace(record, node_features=None, edge_features=None)
        sorted_records.append(bare.permuted(canonical_order(bare, block)))
    return in_blocks(collate(sorted_records), max_hops, rule)


def canonical_order(record: GraphRecord, block: np.ndarray) -> np.ndarray:
    """Nodes by block and then by structure.

    Colour refinement ranks the nodes; of nodes that are still alike one is singled out, and the colours are refined
    again. Nodes that refinement cannot tell apart are nearly always interchangeable, and then the reordered graph is
    the same whatever the numbering it came in.

    Args:
        record: a graph.
        block: its block ids (n,).

    Returns:
        The nodes in order, int64 (n,).
    """
    types = np.zeros(record.num_nodes, np.int64) if record.node_types is None else record.node_types
    rank = _ranks(np.stack([block, types]))
    while True:
        colors = node_colors(replace(record, node_types=rank, targets={}))
        rank = _ranks(np.stack([rank.astype(np.uint64), colors]))
        counts = np.bincount(rank)
        if counts.max() == 1:
            return np.argsort(rank)
        tied = int(np.argmax(counts > 1))
        rank = 2 * rank + 1
        rank[np.flatnonzero(rank == 2 * tied + 1)[0]] -= 1


def _ranks(keys: np.ndarray) -> np.ndarray:
    """Dense ranks of the columns of (k, n), compared from the first row on."""
    return np.unique(keys, axis=1, return_inverse=True)[1].reshape(-1).astype(np.int64)
