r"""The structural partial order of a graph: blocks of nodes that are peeled off together, least central first.

With :math:`x_k = (I + A)^k 1` (lazy walks of length k that start at a node, in what is left of the graph) and K hops,

    while nodes are left:
        peel the nodes with the smallest score, all of them at once, with their edges

and the last block that is peeled is block 0, generated first. The score is by rule

    lexicographic   the tuple (x_1, ..., x_K), compared from the left: first the degree
    reference       the number :math:`\sum_{k=1}^K n^{K-k} x_k`, as published

Both depend on the structure alone, so that a renumbered graph has the renumbered blocks. Under the lexicographic rule
all nodes of a block have the same degree in what is left of the graph. The published number is meant to compare tuples,
but its digits :math:`x_k` outgrow the base n: nodes of different degrees can then tie. With K = 0 all nodes are one
block.

Source: `Zhao et al. 2024, Pard: Permutation-Invariant Autoregressive Diffusion for Graph Generation
<https://arxiv.org/abs/2402.03687>`_, algorithm 1; the lazy walk is that of the published code.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .records import GraphRecord, collate

__all__ = ["RULES", "block_degrees", "block_order", "block_order_batch", "block_orders", "block_sizes", "scores"]

RULES = ("reference", "lexicographic")

# Integers up to here are exact in float64, whose matrix products are much faster than those of int64.
_EXACT_FLOAT = 2**53


def block_order(
    edges: np.ndarray | Tensor | Sequence[tuple[int, int]], num_nodes: int, max_hops: int, rule: str = "lexicographic"
) -> np.ndarray:
    """Block of every node of a graph.

    Args:
        edges: pairs of nodes (M, 2), each undirected edge once.
        num_nodes: number of nodes n, at least 1.
        max_hops: K, at least 0.
        rule: "lexicographic", or "reference" for the published one.

    Returns:
        Block ids (n,), int64, counted from 0, which is generated first.

    Raises:
        ValueError: for settings out of range, or edges that are not those of a simple graph.
    """
    pairs = edges.cpu().numpy() if isinstance(edges, Tensor) else np.asarray(edges, dtype=np.int64)
    record = GraphRecord(num_nodes, pairs.reshape(-1, 2))
    batch = collate([record])
    return block_order_batch(batch.adj > 0, batch.mask, max_hops, rule)[0].numpy()


def block_orders(
    records: Sequence[GraphRecord], max_hops: int, rule: str = "lexicographic", chunk_pairs: int = 1 << 21
) -> list[np.ndarray]:
    """Blocks of many graphs, some thousand at a time.

    Args:
        records: the graphs.
        max_hops: K.
        rule: as in :func:`block_order`.
        chunk_pairs: limit on graphs times squared size of a chunk.

    Returns:
        Block ids of every graph.
    """
    sizes = np.array([r.num_nodes for r in records], dtype=np.int64)
    by_size = np.argsort(sizes, kind="stable")[::-1]
    found: list[np.ndarray] = [np.empty(0, np.int64)] * len(records)
    start = 0
    while start < len(by_size):
        count = max(1, chunk_pairs // int(sizes[by_size[start]]) ** 2)
        chunk = by_size[start : start + count]
        batch = collate([GraphRecord(records[k].num_nodes, records[k].edges) for k in chunk])
        ids = block_order_batch(batch.adj > 0, batch.mask, max_hops, rule).numpy()
        for row, k in enumerate(chunk.tolist()):
            found[k] = ids[row, : sizes[k]]
        start += count
    return found


def block_order_batch(adj: Tensor, mask: Tensor, max_hops: int, rule: str = "lexicographic") -> Tensor:
    """Blocks of a padded batch, all graphs at once.

    Args:
        adj: which pairs are connected, bool (B, N, N), symmetric with an empty diagonal.
        mask: which nodes exist, bool (B, N).
        max_hops: K.
        rule: as in :func:`block_order`.

    Returns:
        Block ids (B, N), int64, -1 where there is no node.

    Raises:
        ValueError: for settings out of range, or scores too large for 64 bits.
    """
    dtype = _score_dtype(adj, mask, max_hops, rule)
    peeled = torch.full(mask.shape, -1, dtype=torch.int64, device=mask.device)  # round in which a node goes
    rounds = torch.zeros(len(mask), dtype=torch.int64, device=mask.device)
    active = mask.any(1).nonzero()[:, 0]
    alive, links = mask[active], (adj[active] & mask[active, :, None] & mask[active, None, :]).to(dtype)
    base = mask[active].sum(1, keepdim=True).to(dtype)
    while len(active):
        block = _lowest(links, alive, base, max_hops, rule)
        peeled[active] = torch.where(block, rounds[active, None], peeled[active])
        rounds[active] += 1
        alive = alive & ~block
        stays = alive.any(1)
        active, alive, base = active[stays], alive[stays], base[stays]
        kept = alive.to(dtype)
        links = links[stays] * kept[:, :, None] * kept[:, None, :]
    return torch.where(peeled >= 0, rounds[:, None] - 1 - peeled, -1)


def block_sizes(block: Tensor, blocks: int | None = None) -> Tensor:
    """Number of nodes of each block.

    Args:
        block: block ids (B, N), -1 where there is no node.
        blocks: length L of the result; default: the largest number of blocks in the batch.

    Returns:
        (B, L), int64, 0 beyond a graph's last block.
    """
    length = int(block.max()) + 1 if blocks is None else blocks
    return (block[:, :, None] == torch.arange(length, device=block.device)).sum(1)


def block_degrees(adj: Tensor, block: Tensor, blocks: int | None = None) -> Tensor:
    """Degree of each block's nodes in the graph of this and the earlier blocks; of different ones the smallest.

    Args:
        adj: which pairs are connected, bool (B, N, N).
        block: block ids (B, N), -1 where there is no node.
        blocks: length L of the result, as in :func:`block_sizes`.

    Returns:
        (B, L), int64, 0 beyond a graph's last block.
    """
    length = int(block.max()) + 1 if blocks is None else blocks
    seen = (block[:, None, :] <= block[:, :, None]) & (block[:, None, :] >= 0)
    degree = (adj & seen).sum(2)
    member = block[:, :, None] == torch.arange(length, device=block.device)
    smallest = torch.where(member, degree[:, :, None], adj.shape[1]).amin(1)
    return torch.where(member.any(1), smallest, 0)


def scores(adj: Tensor, max_hops: int) -> Tensor:
    """The published scores of the first round, int64 (B, N), for graphs without padding."""
    walks = _walks(adj.long(), torch.ones(adj.shape[:2], dtype=torch.int64), max_hops)
    return walks[0] if max_hops == 0 else _number(walks[1:], adj.shape[1])


def _walks(links: Tensor, ones: Tensor, max_hops: int) -> list[Tensor]:
    """x_0, ..., x_K."""
    walks = [ones]
    for _ in range(max_hops):
        walks.append(walks[-1] + (links @ walks[-1].unsqueeze(-1)).squeeze(-1))
    return walks


def _number(walks: Sequence[Tensor], base: int | Tensor) -> Tensor:
    """The walks read as digits of a number."""
    total = walks[0]
    for x in walks[1:]:
        total = base * total + x
    return total


def _lowest(links: Tensor, alive: Tensor, base: Tensor, max_hops: int, rule: str) -> Tensor:
    """Which nodes have the smallest score."""
    walks = _walks(links, torch.ones_like(links[..., 0]), max_hops)[1:]
    if rule == "reference" and walks:
        walks = [_number(walks, base)]
    lowest = alive
    for x in walks:
        best = torch.where(lowest, x, torch.inf if x.is_floating_point() else 2**62).amin(1, keepdim=True)
        lowest = lowest & (x == best)
    return lowest


def _score_dtype(adj: Tensor, mask: Tensor, max_hops: int, rule: str) -> torch.dtype:
    if rule not in RULES:
        raise ValueError(f"unknown rule {rule!r}; known are {', '.join(RULES)}")
    if max_hops < 0:
        raise ValueError(f"max_hops must be at least 0, got {max_hops}")
    n = int(mask.sum(1).max()) if mask.numel() else 0
    growth = 1 + (int(adj.sum(-1).max()) if adj.numel() else 0)
    bound = growth**max_hops
    if rule == "reference":
        bound = sum(n ** (max_hops - k) * growth**k for k in range(1, max_hops + 1))
    if bound >= 2**62:
        raise ValueError(
            f"max_hops={max_hops} needs scores up to {float(bound):.1g} for graphs of {n} nodes and degrees up to "
            f"{growth - 1}, more than 64 bits hold: use fewer hops"
            + ("" if rule == "lexicographic" else ", or the lexicographic rule")
        )
    return torch.float64 if bound < _EXACT_FLOAT else torch.int64
