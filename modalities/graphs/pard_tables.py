"""The tables of a PARD model: how long they are, what noise decays to, and which graphs fit in."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ...core import CategoricalPath, Cosine
from .block_batch import BlockBatch
from .block_statistics import BlockStatistics
from .pard_network import Limits
from .statistics import GraphStatistics

__all__ = ["NOISES", "check_blocks", "check_types", "limits_of", "path_of", "sizes_wanted"]

NOISES = ("uniform", "marginal", "absorbing")


def limits_of(statistics: GraphStatistics, blocks: BlockStatistics, max_hops: int, spare: float) -> Limits:
    """Room for the training graphs and some more.

    Args:
        statistics: of the training graphs.
        blocks: their blocks.
        max_hops: 0 has one block, whose nodes share no degree.
        spare: how much more, as a share.
    """

    def room(value: int) -> int:
        return value + math.ceil(value * spare)

    nodes = room(statistics.max_nodes)
    return Limits(
        blocks=1 if max_hops == 0 else min(room(len(blocks.blocks) - 1), nodes),
        size=min(room(blocks.largest), nodes),
        degree=min(room(blocks.largest_degree), nodes - 1),
        nodes=nodes,
    )


def path_of(counts: Sequence[int], noise: str) -> CategoricalPath:
    """The path of types with these frequencies, one class longer than they are.

    Args:
        counts: how often each type occurs.
        noise: one of `NOISES`.
    """
    classes = len(counts) + 1
    # the cosine itself, not its square, is the survival probability: power 1
    if noise == "uniform":
        return CategoricalPath.uniform(Cosine(), classes, power=1.0)
    if noise == "absorbing":
        return CategoricalPath.absorbing(Cosine(), classes, power=1.0)
    frequency = torch.tensor([*counts, 0], dtype=torch.float64)
    return CategoricalPath(Cosine(), frequency / frequency.sum(), power=1.0)


def check_types(node_types: Tensor, adj: Tensor, statistics: GraphStatistics) -> None:
    """Refuse types that the model does not know.

    Raises:
        ValueError: for an unknown node or edge type.
    """
    for what, index, counts in (("node", node_types, statistics.node_counts), ("edge", adj, statistics.edge_counts)):
        if index.numel() and int(index.max()) >= len(counts):
            raise ValueError(f"the model knows {len(counts)} {what} classes, the graphs have class {int(index.max())}")


def check_blocks(graphs: BlockBatch, limits: Limits) -> None:
    """Refuse graphs that do not fit.

    Raises:
        ValueError: for too many nodes or blocks, too large a block, or too large a degree.
    """
    found = (
        ("nodes", graphs.mask.sum(1), limits.nodes),
        ("blocks", graphs.blocks, limits.blocks),
        ("nodes in a block", graphs.sizes.amax(1), limits.size),
        ("edges at a new node", graphs.degrees.amax(1), limits.degree),
    )
    for what, values, most in found:
        if int(values.max()) > most:
            raise ValueError(
                f"graph {int(values.argmax())} of the batch has {int(values.max())} {what}; the model's tables have "
                f"room for {most} (its training graphs and the option `spare`)"
            )


def sizes_wanted(
    n: int, num_nodes: int | Sequence[int] | None, limits: Limits, have: int = 0, blocks: int = 0
) -> Tensor | None:
    """Numbers of nodes asked for, (n,), or None.

    Args:
        n: number of graphs.
        num_nodes: one number for all, or one for each.
        limits: of the model.
        have: nodes that are there already.
        blocks: blocks that are there already.

    Raises:
        ValueError: for numbers that cannot be met.
    """
    if num_nodes is None:
        return None
    given = [num_nodes] * n if isinstance(num_nodes, int) else [int(v) for v in num_nodes]
    if len(given) != n:
        raise ValueError(f"num_nodes has {len(given)} values for {n} graphs")
    if min(given) < max(have, 1):
        raise ValueError(f"num_nodes must be at least {max(have, 1)}, got {min(given)}")
    most = min(limits.nodes, have + limits.size * (limits.blocks - blocks))
    if max(given) > most:
        raise ValueError(f"the model has room for graphs of at most {most} nodes, asked for {max(given)}")
    return torch.tensor(given)
