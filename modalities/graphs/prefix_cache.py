"""Growing graphs and what the network keeps of their finished blocks.

A finished block runs through the network once. Its rows are appended to the cache of every layer, and from then on
each denoising step computes the rows of the newest block only, against the cached columns: the result is that of
recomputing the whole graph, since finished nodes never look at later ones. Graphs that are complete leave the batch,
and columns that are padding in all graphs are dropped.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .pard_network import PARDNetwork, Rows
from .ppgn import LayerPrefix, extended
from .ppgn_views import Incremental

__all__ = ["Block", "Grown"]


@dataclass(frozen=True)
class Block:
    """The newest block of each graph, padded to R rows.

    Args:
        mask: which rows hold nodes, bool (B, R), the first ones of each graph.
        size: number of nodes (B,), at least 1.
        degree: degree of the nodes (B,).
        types: node types (B, R).
        pairs: edge types to the P earlier and the R own columns (B, R, P + R).
    """

    mask: Tensor
    size: Tensor
    degree: Tensor
    types: Tensor
    pairs: Tensor


@dataclass(frozen=True)
class Grown:
    """Finished blocks of B graphs, with all graphs at the same number of blocks.

    Args:
        network: what they are finished with.
        condition: (V B, Dn) or None; V variants of each graph (with and without target) are kept side by side.
        types: node types (B, P).
        adj: edge types (B, P, P).
        block: block ids (B, P), -1 where padded.
        degrees: degree given to each block (B, number of blocks).
        total: sum of the gathered features (V B, Dn).
        last: the last block's, divided by the root of its size (V B, Dn).
        prefix: cache per layer, of V B graphs.
        variants: V.
    """

    network: PARDNetwork
    condition: Tensor | None
    types: Tensor
    adj: Tensor
    block: Tensor
    degrees: Tensor
    total: Tensor
    last: Tensor
    prefix: list[LayerPrefix]
    variants: int = 1

    @classmethod
    def nothing(cls, network: PARDNetwork, batch: int, condition: Tensor | None = None, variants: int = 1) -> Grown:
        """Graphs without blocks."""
        like = network.start
        empty = torch.zeros(batch, 0, dtype=torch.int64, device=like.device)
        sums = like.new_zeros(variants * batch, len(like))
        return cls(
            network,
            condition,
            empty,
            empty.unsqueeze(-1).expand(-1, -1, 0),
            empty,
            empty,
            sums,
            sums,
            network.trunk.empty_prefix(variants * batch),
            variants,
        )

    def __len__(self) -> int:
        return len(self.types)

    @property
    def mask(self) -> Tensor:
        """Which columns hold nodes, bool (B, P)."""
        return self.block >= 0

    @property
    def count(self) -> Tensor:
        """Number of nodes (B,)."""
        return self.mask.sum(1)

    @property
    def blocks(self) -> int:
        """Number of finished blocks."""
        return self.degrees.shape[1]

    def size_logits(self) -> tuple[Tensor, Tensor]:
        """Logits of the next block's size (V B, S + 1), and what :meth:`PARDNetwork.degrees_after` wants."""
        if self.blocks == 0:
            return self.network.first_sizes(len(self.total), self.condition)
        count = self.count.repeat(self.variants)
        return self.network.sizes_after(self.total, self.last, count, self.condition)

    def view(self, block: Block) -> Incremental:
        """What the block's rows see."""
        return Incremental.of(self.mask.repeat(self.variants, 1), block.mask.repeat(self.variants, 1))

    def rows(self, block: Block, t: Tensor) -> Rows:
        """The block as input, at time t (scalar)."""
        copies, (batch, count) = self.variants, block.mask.shape
        number = torch.full((batch, count), self.blocks, device=t.device)
        columns = torch.cat([self.block.clamp(min=0), number], 1)
        earlier = torch.zeros(count, self.types.shape[1], dtype=torch.bool, device=t.device)
        same = torch.cat([earlier, torch.eye(count, dtype=torch.bool, device=t.device)], 1)
        return Rows(
            block.types.repeat(copies, 1)[None],
            block.pairs.repeat(copies, 1, 1)[None],
            t.expand(1, copies * batch, count),
            number.repeat(copies, 1),
            columns.repeat(copies, 1),
            block.size.repeat(copies)[:, None].expand(-1, count),
            block.degree.repeat(copies)[:, None].expand(-1, count),
            same,
        )

    def denoise(self, block: Block, t: Tensor, view: Incremental) -> tuple[Tensor, Tensor]:
        """Logits of the clean types of a noisy block: nodes (V B, R, F), pairs (V B, R, P + R, C)."""
        rows = self.rows(block, t)
        x, e, _ = self.network.rows(rows, view, self.prefix, self.condition)
        return self.network.denoise(x[0], e[0], rows.types[0], rows.pairs[0], rows.t[0])

    def with_block(self, block: Block) -> Grown:
        """The graphs with this block finished."""
        view = self.view(block)
        clean = self.rows(block, torch.zeros((), dtype=torch.float64, device=self.types.device))
        gathered, kept = self.network.finish(clean, view, self.prefix, self.condition)
        new = block.mask.repeat(self.variants, 1).unsqueeze(-1)
        own = (gathered * new).sum(1)
        size = block.size.repeat(self.variants).to(own).unsqueeze(-1)
        width = self.types.shape[1]
        before, among = block.pairs[..., :width], block.pairs[..., width:]
        grown = replace(
            self,
            types=torch.cat([self.types, block.types], 1),
            adj=torch.cat([torch.cat([self.adj, before.mT], 2), torch.cat([before, among], 2)], 1),
            block=torch.cat([self.block, torch.where(block.mask, self.blocks, -1)], 1),
            degrees=torch.cat([self.degrees, block.degree[:, None]], 1),
            total=self.total + own,
            last=own * size.rsqrt(),
            prefix=extended(self.prefix, kept, view),
        )
        return grown._packed()

    def chosen(self, graphs: Tensor) -> Grown:
        """Some of the graphs.

        Args:
            graphs: their places, int64.
        """
        every = torch.cat([graphs + v * len(self) for v in range(self.variants)])
        return replace(
            self,
            condition=None if self.condition is None else self.condition[every],
            types=self.types[graphs],
            adj=self.adj[graphs],
            block=self.block[graphs],
            degrees=self.degrees[graphs],
            total=self.total[every],
            last=self.last[every],
            prefix=[layer.chosen(every) for layer in self.prefix],
        )._packed()

    def _packed(self) -> Grown:
        """Nodes first, in order of generation, and no more columns than the largest graph needs."""
        mask = self.mask
        most = int(mask.sum(1).max()) if len(self) else 0
        if bool(mask[:, :most].all()) and mask.shape[1] == most:
            return self
        columns = (~mask).to(torch.int8).argsort(dim=1, stable=True)[:, :most]
        adj = self.adj.gather(1, columns[:, :, None].expand(-1, -1, mask.shape[1]))
        every = columns.repeat(self.variants, 1)
        return replace(
            self,
            types=self.types.gather(1, columns),
            adj=adj.gather(2, columns[:, None, :].expand(-1, most, -1)),
            block=self.block.gather(1, columns),
            prefix=[layer.taken(every) for layer in self.prefix],
        )
