r"""Sampling block by block: size, degree, then the block's nodes and edges from noise.

Every block starts from the limit distribution and takes steps from t to s < t,

.. math:: x_s \sim (1 - w) \sum_k q(x_s | x_t, x_0 = k)\, p_0(k) + w\, p_0(x_s)

with the estimate :math:`p_0` of the clean types. The posterior is exact for any s < t, so that times may be skipped. A
pull w > 0 lets entries settle on their estimate sooner (the target guidance of Qin et al. 2025, arXiv 2410.04263, in
discrete time). With a target the logits are :math:`\ell_u + g (\ell_c - \ell_u)` (classifier-free guidance).

All randomness is a function of the seed and the graph's number, so that a graph does not depend on its batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from ...core import CategoricalPath, NoiseSource
from ...core.categorical import draw_categories
from ...core.supports import Symmetric
from .block_batch import BlockBatch
from .pard_terms import real_to_all
from .prefix_cache import Block, Grown
from .records import GraphRecord

__all__ = ["Drawn", "Plan", "continued", "sample_blocks", "times_of"]

_NODES, _EARLIER, _OWN, _SIZE = 0, 1, 2, 3


@dataclass(frozen=True)
class Plan:
    """How to sample.

    Args:
        times: decreasing, from 1 to 0.
        pull: w in [0, 1].
        guidance: scale g of classifier-free guidance; used if the graphs come in two variants.
    """

    times: tuple[float, ...]
    pull: float = 0.0
    guidance: float = 1.0


@dataclass(frozen=True)
class Drawn:
    """One finished graph.

    Args:
        types: node types (n,).
        adj: edge types (n, n).
        block: block ids (n,), not decreasing.
    """

    types: Tensor
    adj: Tensor
    block: Tensor

    def record(self, typed: bool, first: Tensor | None = None) -> GraphRecord:
        """The record of the graph.

        Args:
            typed: whether to keep types.
            first: the nodes that come first, in this order; the others follow as they were generated.
        """
        types, adj = self.types.numpy(), self.adj.numpy()
        if first is not None:
            order = np.concatenate([first.cpu().numpy(), np.arange(len(first), len(types))])
            types, adj = types[order], adj[order][:, order]
        i, j = np.nonzero(np.triu(adj, 1))
        return GraphRecord(len(types), np.stack([i, j], 1), types if typed else None, adj[i, j] if typed else None)


def times_of(steps: int, trained: int) -> tuple[float, ...]:
    """Times of a number of steps: a choice of the trained ones, or finer ones if there are more.

    Raises:
        ValueError: fewer than one step.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if steps > trained:
        return (*(1 - k / steps for k in range(steps)), 0.0)
    return (*(round(trained * (1 - k / steps)) / trained for k in range(steps)), 0.0)


@torch.no_grad()
def sample_blocks(grown: Grown, noise: NoiseSource, plan: Plan, num_nodes: Tensor | None = None) -> list[Drawn]:
    """Complete graphs.

    Args:
        grown: what there is of them; of nothing, all graphs are new.
        noise: one id per graph.
        plan: how.
        num_nodes: sizes wanted (B,); None leaves them to the model.
    """
    found: dict[int, Drawn] = {}
    places = torch.arange(len(grown))
    wanted = None if num_nodes is None else num_nodes.to(grown.types.device)
    while len(places):
        source = noise.spawn(grown.blocks)
        size, degree = _next_block(grown, source.spawn(_SIZE), plan, wanted)
        over = (size == 0).cpu()
        if bool(over.any()):
            for k in over.nonzero()[:, 0].tolist():
                kept = grown.mask[k]
                found[int(places[k])] = Drawn(
                    grown.types[k, kept].cpu(), grown.adj[k][kept][:, kept].cpu(), grown.block[k, kept].cpu()
                )
            stays = (~over).nonzero()[:, 0]
            places, noise, source = places[stays], noise[stays], source[stays]
            stays = stays.to(size.device)
            grown, size, degree = grown.chosen(stays), size[stays], degree[stays]
            wanted = None if wanted is None else wanted[stays]
        if len(places):
            grown = grown.with_block(_draw_block(grown, size, degree, source, plan))
    return [found[k] for k in range(len(found))]


def continued(grown: Grown, graphs: BlockBatch) -> Grown:
    """Finish given blocks: graphs that all have the same number of blocks.

    Args:
        grown: graphs without blocks yet.
        graphs: the given parts, as many.

    Raises:
        ValueError: if the graphs differ in their number of blocks.
    """
    if len(set(graphs.blocks.tolist())) > 1:
        raise ValueError("graphs that are continued together must have the same number of blocks")
    for b in range(int(graphs.blocks[0])):
        size = graphs.sizes[:, b]
        new = torch.arange(int(size.max()), device=size.device) < size[:, None]
        start = graphs.sizes[:, :b].sum(1)
        rows = (start[:, None] + torch.arange(new.shape[1], device=size.device)).clamp(max=graphs.block.shape[1] - 1)
        earlier = torch.arange(grown.types.shape[1], device=size.device).expand(len(graphs), -1)
        columns = torch.cat([earlier, rows], 1)
        pairs = graphs.adj.gather(1, rows[:, :, None].expand(-1, -1, graphs.adj.shape[2]))
        pairs = pairs.gather(2, columns[:, None, :].expand(-1, rows.shape[1], -1))
        types = torch.where(new, graphs.types.gather(1, rows), 0)
        pairs = torch.where(torch.cat([grown.mask[:, None, :] & new[:, :, None], _square(new)], 2), pairs, 0)
        grown = grown.with_block(Block(new, size, graphs.degrees[:, b], types, pairs))
    return grown


def _next_block(grown: Grown, source: NoiseSource, plan: Plan, wanted: Tensor | None) -> tuple[Tensor, Tensor]:
    """Sizes (B,), 0 for graphs that are finished, and degrees (B,)."""
    logits, r = grown.size_logits()
    allowed = grown.network.allowed_sizes(grown.count, grown.blocks)
    if wanted is not None:
        allowed = allowed & _towards(wanted - grown.count, grown)
    size = _draw_one(_guided(logits, grown, plan), allowed, source, 0)
    degree_logits = grown.network.degrees_after(r, size.repeat(grown.variants))
    everything = torch.ones_like(degree_logits[: len(grown)], dtype=torch.bool)
    return size, _draw_one(_guided(degree_logits, grown, plan), everything, source, 1)


def _towards(missing: Tensor, grown: Grown) -> Tensor:
    """Sizes after which the wanted number of nodes can still be met exactly."""
    limits = grown.network.limits
    size = torch.arange(limits.size + 1, device=missing.device)
    left = missing[:, None] - size
    later = max(limits.blocks - grown.blocks - 1, 0)
    return torch.where(size == 0, missing[:, None] == 0, (left >= 0) & (left <= later * limits.size))


def _draw_one(logits: Tensor, allowed: Tensor, source: NoiseSource, key: int) -> Tensor:
    probabilities = logits.double().masked_fill(~allowed, -torch.inf).softmax(-1)
    uniform = source.uniform(torch.empty(len(logits), dtype=torch.float64, device=logits.device), key)
    return draw_categories(probabilities, uniform)


def _draw_block(grown: Grown, size: Tensor, degree: Tensor, source: NoiseSource, plan: Plan) -> Block:
    network, device = grown.network, size.device
    count, width = int(size.max()), grown.types.shape[1]
    new = torch.arange(count, device=device) < size[:, None]
    uniforms = _Uniforms(new, grown.mask, source)
    nodes, edges = network.paths["nodes"], network.paths["edges"]
    u_nodes, u_pairs = uniforms.of(0)
    types = _drawn(nodes.limit.to(device).expand(*u_nodes.shape, -1), u_nodes)
    pairs = _drawn(edges.limit.to(device).expand(*u_pairs.shape, -1), u_pairs)
    block = Block(new, size, degree, types, pairs)
    view = grown.view(block)
    for k, (t, s) in enumerate(pairwise(plan.times)):
        now, then = (torch.tensor(x, dtype=torch.float64, device=device) for x in (t, s))
        node_logits, edge_logits = grown.denoise(block, now, view)
        p_nodes = _guided(node_logits, grown, plan).double().softmax(-1)
        p_edges = _guided(edge_logits, grown, plan).double().softmax(-1)
        # both triangles of the own part must fall alike to the last bit
        own = p_edges[:, :, width:]
        p_edges = torch.cat([p_edges[:, :, :width], (own + own.transpose(1, 2)) / 2], 2)
        u_nodes, u_pairs = uniforms.of(k + 1)
        types = _drawn(_step(nodes, block.types, p_nodes, now, then, plan.pull), u_nodes)
        pairs = _drawn(_step(edges, block.pairs, p_edges, now, then, plan.pull), u_pairs)
        block = Block(new, size, degree, types, pairs)
    return block


def _step(path: CategoricalPath, x_t: Tensor, p_0: Tensor, t: Tensor, s: Tensor, pull: float) -> Tensor:
    p_0 = real_to_all(p_0)
    posterior = path.posterior(x_t, p_0, t, s)
    return posterior if pull == 0 else (1 - pull) * posterior + pull * p_0


def _drawn(probabilities: Tensor, uniform: Tensor) -> Tensor:
    # uniform is 0 exactly where there is nothing to draw
    return torch.where(uniform > 0, draw_categories(probabilities, uniform), 0)


def _guided(logits: Tensor, grown: Grown, plan: Plan) -> Tensor:
    if grown.variants == 1:
        return logits
    shown, hidden = logits.log_softmax(-1).chunk(2)
    return hidden + plan.guidance * (shown - hidden)


def _square(mask: Tensor) -> Tensor:
    return mask[:, :, None] & mask[:, None, :]


@dataclass(frozen=True)
class _Uniforms:
    """Uniform numbers for the rows of a block, one per node and per pair, 0 where there is none."""

    new: Tensor
    prefix: Tensor
    source: NoiseSource

    def of(self, key: int) -> tuple[Tensor, Tensor]:
        """For nodes (B, R) and pairs (B, R, P + R)."""
        batch, rows = self.new.shape

        def like(*shape: int) -> Tensor:
            return torch.empty(batch, *shape, dtype=torch.float64, device=self.new.device)

        nodes = self.source.spawn(_NODES).uniform(like(rows), key, self.new)
        seen = self.new[:, :, None] & self.prefix[:, None, :]
        earlier = self.source.spawn(_EARLIER).uniform(like(rows, self.prefix.shape[1]), key, seen)
        own = Symmetric().uniform(like(rows, rows), self.new, self.source.spawn(_OWN), key)
        return nodes, torch.cat([earlier, own], 2)
