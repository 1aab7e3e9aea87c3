r"""The network of PARD: one trunk that denoises a block and, from finished blocks, tells what the next one looks like.

A node enters with its (noisy or final) type, its block's diffusion time, size, degree and place in the order, a pair
with its type and the distance of its nodes in the order. Finished nodes run through the same trunk with time 0, as pass
0; their rows feed the heads for size and degree of the next block,

.. math::
    r_b = \mathrm{MLP}\Big(\tfrac{1}{\sqrt n}\sum_{v \in B_1..B_b} g(x_v),
    \tfrac{1}{\sqrt{n_b}}\sum_{v \in B_b} g(x_v), \log n\Big), \quad
    |B_{b+1}| \sim \mathrm{softmax}(W r_b), \quad d_{b+1} \sim \mathrm{softmax}(M(r_b, |B_{b+1}|))

with :math:`r_0` learnt, and size 0 meaning that the graph is finished. The logits of a noisy entry are what the rest of
the graph tells plus, exactly, what the entry itself tells, :math:`\log q(x_t | x_0 = k)`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...core import CategoricalPath
from .ppgn import LayerPrefix, PPGNTransformer
from .ppgn_views import Incremental, Parallel, View

__all__ = ["Limits", "PARDNetwork", "Rows"]

# Below this, chances of noise count as this: the absorbing limit gives real types none, and log 0 is no number.
_LEAST_CHANCE = 1e-6


@dataclass(frozen=True)
class Limits:
    """Lengths of the tables.

    Args:
        blocks: most blocks of a graph.
        size: most nodes of a block.
        degree: largest degree of a block's nodes when they are added.
        nodes: most nodes of a graph.
    """

    blocks: int
    size: int
    degree: int
    nodes: int


@dataclass(frozen=True)
class Rows:
    """Nodes that enter the trunk.

    Args:
        types: node types, int64 (S, B, R).
        pairs: edge types, int64 (S, B, R, W).
        t: diffusion time of each row's block, (S, B, R).
        block: block ids of rows, (B, R), and of all columns, (B, W); what padding holds does not matter.
        columns: see ``block``.
        size: size of each row's block, (B, R).
        degree: degree of each row's block, (B, R).
        same: which columns are the row's own node, bool (R, W).
    """

    types: Tensor
    pairs: Tensor
    t: Tensor
    block: Tensor
    columns: Tensor
    size: Tensor
    degree: Tensor
    same: Tensor


class PARDNetwork(nn.Module):
    """Trunk and heads.

    Args:
        nodes: path of the node types; its last class is the extra state that only noise takes.
        edges: path of the edge types, likewise.
        limits: lengths of the tables.
        first_sizes: how often each size of a first block occurs, (limits.size + 1,).
        width: features of a node.
        pair_width: features of a pair.
        layers: layers of the trunk.
        heads: attention heads.
        absolute_blocks: whether a node is told the number of its block.
        conditional: whether there is a target to generate for.
    """

    first_bias: Tensor

    def __init__(
        self,
        nodes: CategoricalPath,
        edges: CategoricalPath,
        limits: Limits,
        first_sizes: Sequence[float],
        width: int,
        pair_width: int,
        layers: int,
        heads: int,
        absolute_blocks: bool = True,
        conditional: bool = False,
    ) -> None:
        super().__init__()
        self.paths = {"nodes": nodes, "edges": edges}
        self.limits = limits
        self.trunk = PPGNTransformer(width, pair_width, layers, heads)
        self.node_type = nn.Embedding(nodes.classes, width)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.size = nn.Embedding(limits.size + 1, width)
        self.degree = nn.Embedding(limits.degree + 1, width)
        self.block = nn.Embedding(limits.blocks, width) if absolute_blocks else None
        self.pair_type = nn.Embedding(edges.classes, pair_width)
        self.distance = nn.Embedding(limits.blocks, pair_width)
        self.self_pair = nn.Parameter(torch.randn(pair_width))
        self.condition = nn.Sequential(nn.Linear(2, width), nn.SiLU(), nn.Linear(width, width)) if conditional else None
        self.node_logits = _mlp(width, width, nodes.classes - 1)
        self.edge_logits = _mlp(pair_width, 2 * pair_width, edges.classes - 1)
        self.gather = nn.Sequential(nn.Linear(width, width), nn.SiLU())
        self.summary = _mlp(2 * width + 1, width, width)
        self.start = nn.Parameter(torch.zeros(width))
        self.size_logits = nn.Sequential(nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, limits.size + 1))
        self.next_size = nn.Embedding(limits.size + 1, width)
        self.degree_logits = nn.Sequential(nn.LayerNorm(width), _mlp(width, width, limits.degree + 1))
        for head in (self.node_logits[-1], self.edge_logits[-1], self.size_logits[-1]):
            assert isinstance(head, nn.Linear)
            nn.init.zeros_(head.weight)
        counts = torch.tensor(first_sizes, dtype=torch.float64)
        shares = (counts / counts.sum().clamp(min=1)).clamp(min=1e-6)
        self.register_buffer("first_bias", shares.log().float(), persistent=False)

    def rows(
        self, rows: Rows, view: View, prefix: Sequence[LayerPrefix] | None, condition: Tensor | None
    ) -> tuple[Tensor, Tensor, list[LayerPrefix]]:
        """Run nodes through the trunk.

        Args:
            rows: what enters.
            view: what rows see.
            prefix: the finished nodes, see :class:`.ppgn.PPGNTransformerLayer`.
            condition: result of :meth:`embed_condition`, or None.

        Returns:
            Node features (S, B, R, Dn), pair features (S, B, R, W, De), what to keep of pass 0.
        """
        dtype = self.self_pair.dtype
        x = self.node_type(rows.types) + self.time(_frequencies(rows.t, len(self.start)).to(dtype))
        x = x + self.size(rows.size) + self.degree(rows.degree)
        if self.block is not None:
            x = x + self.block(rows.block.clamp(0, self.limits.blocks - 1))
        if condition is not None:
            x = x + condition[:, None]
        apart = (rows.block[:, :, None] - rows.columns[:, None, :]).clamp(0, self.limits.blocks - 1)
        e = self.pair_type(rows.pairs) + self.distance(apart) + rows.same.unsqueeze(-1) * self.self_pair
        return self.trunk(x, e, view, prefix)

    def denoise(self, x: Tensor, e: Tensor, types: Tensor, pairs: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the clean types of noisy rows.

        Args:
            x: (B, R, Dn) and e: (B, R, W, De), from :meth:`rows`.
            e: see ``x``.
            types: noisy node types (B, R).
            pairs: noisy edge types (B, R, W).
            t: times (B, R).

        Returns:
            Node logits (B, R, F) and edge logits (B, R, W, C), over real types.
        """
        nodes = self.node_logits(x) + evidence(self.paths["nodes"], types, t).to(x)
        edges = self.edge_logits(e) + evidence(self.paths["edges"], pairs, t).to(x)
        return nodes, edges

    def parallel(
        self, clean: Rows, noisy: Rows, block: Tensor, condition: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """All blocks at once.

        Args:
            clean: the finished graph, S = 1, t = 0.
            noisy: the same with noise, S = 1.
            block: block ids (B, N), -1 where there is no node.
            condition: see :meth:`rows`.

        Returns:
            Node logits (B, N, F), edge logits (B, N, N, C) and gathered features g(x) of the finished nodes (B, N, Dn).
        """
        both = Rows(
            torch.cat([clean.types, noisy.types]),
            torch.cat([clean.pairs, noisy.pairs]),
            torch.cat([clean.t, noisy.t]),
            clean.block,
            clean.columns,
            clean.size,
            clean.degree,
            clean.same,
        )
        x, e, _ = self.rows(both, Parallel.of(block), None, condition)
        nodes, edges = self.denoise(x[1], e[1], noisy.types[0], noisy.pairs[0], noisy.t[0])
        return nodes, edges, self.gather(x[0])

    def finish(
        self, rows: Rows, view: Incremental, prefix: Sequence[LayerPrefix], condition: Tensor | None
    ) -> tuple[Tensor, list[LayerPrefix]]:
        """A finished block: gathered features g(x) of its nodes (B, R, Dn) and what to keep of them."""
        x, _, kept = self.rows(rows, view, prefix, condition)
        return self.gather(x[0]), kept

    def sizes_after(self, total: Tensor, own: Tensor, count: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        """Logits of the next block's size after finished blocks.

        Args:
            total: sum of g(x) over all finished nodes, (B, *, Dn).
            own: over those of the last block divided by the root of their number, (B, *, Dn).
            count: number of finished nodes, (B, *).
            condition: (B, Dn) or None.

        Returns:
            Logits (B, *, S + 1) and r (B, *, Dn) for :meth:`degrees_after`.
        """
        n = count.clamp(min=1).to(total).unsqueeze(-1)
        r = self.summary(torch.cat([total / n.sqrt(), own, n.log()], -1))
        if condition is not None:
            r = r + condition.reshape(len(condition), *(1,) * (r.ndim - 2), -1)
        return self.size_logits(r), r

    def first_sizes(self, batch: int, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        """Logits of the first block's size (B, S + 1) and r (B, Dn)."""
        r = self.start.expand(batch, -1)
        if condition is not None:
            r = r + condition
        return self.size_logits(r) + self.first_bias, r

    def allowed_sizes(self, count: Tensor, done: Tensor | int) -> Tensor:
        """Which sizes the next block can have, bool (*, S + 1): a graph is not empty and stays within the limits.

        Args:
            count: finished nodes (*).
            done: finished blocks (*).
        """
        size = torch.arange(self.limits.size + 1, device=count.device)
        done = torch.as_tensor(done, device=count.device).unsqueeze(-1)
        fits = size <= (self.limits.nodes - count).unsqueeze(-1)
        return torch.where(size == 0, done > 0, fits & (done < self.limits.blocks))

    def degrees_after(self, r: Tensor, size: Tensor) -> Tensor:
        """Logits of the next block's degree, (B, *, D + 1), given its size (B, *)."""
        return self.degree_logits(r + self.next_size(size))

    def embed_condition(self, value: Tensor, known: Tensor) -> Tensor:
        """(B, Dn) from the scaled target (B,) and whether it is shown (B,)."""
        assert self.condition is not None
        return self.condition(torch.stack([torch.where(known > 0, value, 0), known], -1).to(self.start.dtype))


def evidence(path: CategoricalPath, x_t: Tensor, t: Tensor) -> Tensor:
    """log q(x_t | x_0 = k) over the real classes k, up to a constant: (B, *, K - 1), float64.

    Args:
        path: its last class is never real.
        x_t: classes (B, R, *).
        t: times (B, R).
    """
    survival = path.survival(t.double())
    survival = survival.reshape(*survival.shape, *(1,) * (x_t.ndim - survival.ndim))
    by_chance = ((1 - survival) * path.limit.to(x_t.device)[x_t]).clamp(min=_LEAST_CHANCE)
    lead = torch.log1p(survival / by_chance)
    return nn.functional.one_hot(x_t, path.classes)[..., :-1] * lead.unsqueeze(-1)


def _mlp(width: int, hidden: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, out))


def _frequencies(t: Tensor, width: int) -> Tensor:
    """Sines and cosines of real times in [0, 1]: (*) -> (*, width)."""
    count = width // 2
    rates = torch.exp(torch.linspace(0, math.log(100.0), count, dtype=torch.float64, device=t.device))
    angles = t.double().unsqueeze(-1) * rates
    waves = torch.cat([angles.sin(), angles.cos()], -1)
    return nn.functional.pad(waves, (0, width - 2 * count))
