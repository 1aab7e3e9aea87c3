"""Graphs of many sizes in two flat tensors: node features (all nodes) and adjacencies (all pairs i < j).

Samplers are linear in the state, so they run on the flat tensors with one operation per update; only networks and norms
look at single graphs, bucket by bucket. Graphs of one size form a bucket without any padding; sizes of few graphs share
one and are padded to its largest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...core import NoiseSource
from .reference_networks import count_pairs, from_pairs, pair_mask, to_pairs

__all__ = ["Bucket", "Packing"]

_FULL_BUCKET = 8  # graphs of one size that are worth a bucket of their own
_PADDING = 1.15  # largest ratio of sizes that share a bucket
_CHUNK = 4096  # pairs of a network call: hidden tensors stay in the cache


@dataclass(frozen=True)
class Bucket:
    """Graphs ``rows`` (positions in the caller's order, (b,)) padded to ``size`` nodes; mask (b, n) or None if full."""

    rows: Tensor
    size: int
    mask: Tensor | None


class Packing:
    """The layout of graphs of given sizes.

    Args:
        sizes: nodes of each graph, at least 1.
        features: node features F.
        device: where states live.
    """

    def __init__(self, sizes: Sequence[int], features: int, device: torch.device | str = "cpu") -> None:
        if not sizes or min(sizes) < 1:
            raise ValueError(f"graphs need at least 1 node, got sizes {list(sizes)[:10]}")
        self.count, self.features, self.device = len(sizes), features, torch.device(device)
        self.buckets = _buckets(torch.tensor(list(sizes)), self.device)

    def shapes(self, name: str) -> list[tuple[int, ...]]:
        """Shape of a component in each bucket: (b, n, F) for "x", (b, P) for "adj"."""
        if name == "x":
            return [(len(b.rows), b.size, self.features) for b in self.buckets]
        return [(len(b.rows), count_pairs(b.size)) for b in self.buckets]

    def views(self, flat: Tensor, name: str) -> list[Tensor]:
        """The parts of a flat state: (b, n, F) per bucket for "x", (b, P) for "adj"."""
        shapes = self.shapes(name)
        parts = flat.split([torch.Size(shape).numel() for shape in shapes])
        return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]

    def noise(self, source: NoiseSource, key: int, name: str) -> Tensor:
        """Standard normal noise; of a graph it depends on its identity in the source and the key only."""
        parts = []
        for bucket, shape in zip(self.buckets, self.shapes(name), strict=True):
            mask = bucket.mask
            if mask is not None:
                mask = mask[..., None] if name == "x" else pair_mask(mask)
            like = torch.empty(shape, device=self.device)
            parts.append(source[bucket.rows.cpu()].normal(like, key, mask).flatten())
        return torch.cat(parts)

    def norms(self, flat: Tensor, name: str) -> Tensor:
        """Euclidean norm of every graph's part, bucket by bucket, (B,)."""
        return torch.cat([part.flatten(1).norm(dim=1) for part in self.views(flat, name)])

    def spread(self, values: Tensor, name: str) -> Tensor:
        """One number per graph, in the order of :meth:`norms`, repeated for each of its entries."""
        parts, start = [], 0
        for shape in self.shapes(name):
            entries = torch.Size(shape[1:]).numel()
            parts.append(values[start : start + shape[0], None].expand(shape[0], entries).reshape(-1))
            start += shape[0]
        return torch.cat(parts)

    def evaluate(self, network: nn.Module, x: Tensor, adj: Tensor) -> Tensor:
        """Output of a network on flat states, flat like the component it belongs to."""
        parts = zip(self.buckets, self.views(x, "x"), self.views(adj, "adj"), strict=True)
        return torch.cat([self.call(network, nodes, pairs, bucket.mask) for bucket, nodes, pairs in parts])

    @staticmethod
    def call(network: nn.Module, x: Tensor, pairs: Tensor, mask: Tensor | None) -> Tensor:
        """Flat output of a network on the graphs of one bucket, in calls whose hidden tensors stay in the cache."""
        chunk, out = max(1, _CHUNK // max(1, pairs.shape[1])), []
        for start in range(0, len(x), chunk):
            part = slice(start, start + chunk)
            out.append(network(x[part], pairs[part], None if mask is None else mask[part]).reshape(-1))
        return torch.cat(out)

    def pack(self, dense: Tensor, name: str) -> Tensor:
        """From padded tensors in the caller's order, (B, N, F) or (B, N, N); entries outside the graphs are dropped."""
        parts = []
        for bucket in self.buckets:
            part = dense[bucket.rows, : bucket.size]
            if name == "x":
                part = part if bucket.mask is None else part * bucket.mask[..., None]
            else:
                part = to_pairs(part[:, :, : bucket.size])
                part = part if bucket.mask is None else part * pair_mask(bucket.mask)
            parts.append(part.flatten())
        return torch.cat(parts)

    def unpack(self, flat: Tensor, name: str) -> Tensor:
        """Padded tensors in the caller's order, (B, N, F) or (B, N, N), zeros outside the graphs."""
        size = max(bucket.size for bucket in self.buckets)
        shape = (self.count, size, self.features if name == "x" else size)
        dense = flat.new_zeros(shape)
        for bucket, part in zip(self.buckets, self.views(flat, name), strict=True):
            if name == "x":
                dense[bucket.rows, : bucket.size] = part
            else:
                dense[bucket.rows, : bucket.size, : bucket.size] = from_pairs(part, bucket.size)
        return dense


def _buckets(sizes: Tensor, device: torch.device) -> list[Bucket]:
    buckets: list[Bucket] = []
    counts = {int(n): int(c) for n, c in zip(*sizes.unique(return_counts=True), strict=True)}
    waiting: list[int] = []
    for size in sorted(counts, reverse=True):
        if waiting and (counts[size] >= _FULL_BUCKET or waiting[0] > _PADDING * size):
            buckets.append(_bucket(sizes, waiting, device))
            waiting = []
        waiting.append(size)
        if counts[size] >= _FULL_BUCKET:
            buckets.append(_bucket(sizes, waiting, device))
            waiting = []
    return [*buckets, _bucket(sizes, waiting, device)] if waiting else buckets


def _bucket(sizes: Tensor, own: list[int], device: torch.device) -> Bucket:
    rows = torch.isin(sizes, torch.tensor(own)).nonzero()[:, 0]
    largest = max(own)
    mask = None
    if len(own) > 1:
        mask = (torch.arange(largest) < sizes[rows, None]).to(device)
    return Bucket(rows.to(device), largest, mask)
