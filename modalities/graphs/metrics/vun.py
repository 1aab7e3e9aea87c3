"""Valid, unique, novel: do generated graphs have the structure asked for without repeating themselves or the data?

    valid     has the property of the class: planar and connected, a tree, a lobster, a stochastic block graph
    unique    not isomorphic to an earlier generated graph
    novel     isomorphic to no training graph

every one as a share of all generated graphs, and the share that is all three (V.U.N.).

Source: Martinkus et al. 2022; Bergmeister et al. 2024.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..records import GraphRecord, as_record, degree, to_networkx
from .blocks import is_stochastic_block_graph
from .isomorphism import isomorphism_classes

if TYPE_CHECKING:
    import networkx as nx

    Graphs = Sequence[GraphRecord | nx.Graph]
else:
    Graphs = Sequence[Any]


def is_connected(graph: GraphRecord) -> bool:
    """Whether the graph is one piece."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    adj = coo_array((np.ones(graph.num_edges), graph.edges.T), shape=(graph.num_nodes,) * 2)
    return connected_components(adj, directed=False)[0] == 1


def is_planar(graph: GraphRecord) -> bool:
    """Whether the graph is connected and can be drawn without crossings."""
    import networkx as nx

    return is_connected(graph) and nx.check_planarity(to_networkx(graph))[0]


def is_tree(graph: GraphRecord) -> bool:
    """Whether the graph is connected and has no cycle."""
    return graph.num_edges == graph.num_nodes - 1 and is_connected(graph)


def is_lobster(graph: GraphRecord) -> bool:
    """Whether the graph is a tree that is a path once leaves have been taken off twice."""
    if not is_tree(graph):
        return False
    edges, d = graph.edges, degree(graph)
    for _ in range(2):
        edges = edges[(d[edges] > 1).all(1)]
        d = np.bincount(edges.ravel(), minlength=graph.num_nodes)
    return bool(d.max(initial=0) <= 2)


VALIDITY: Mapping[str, Callable[[GraphRecord], bool]] = {
    "planar": is_planar,
    "tree": is_tree,
    "lobster": is_lobster,
    "sbm": is_stochastic_block_graph,
    "connected": is_connected,
}


@dataclass(frozen=True)
class VUN:
    """Shares of the generated graphs.

    Args:
        valid: Has the property.
        unique: Not a repetition.
        novel: Not in the training set.
        vun: All three.
    """

    valid: float
    unique: float
    novel: float
    vun: float


def vun(generated: Graphs, train: Graphs, validity: str | Callable[[GraphRecord], bool] = "connected") -> VUN:
    """Shares of valid, unique and novel graphs.

    Args:
        generated: NetworkX graphs or records, at least one.
        train: What "novel" is measured against.
        validity: "planar", "tree", "lobster", "sbm", "connected", or a test of one record.

    Raises:
        ValueError: Nothing generated, or an unknown name.
    """
    if isinstance(validity, str) and validity not in VALIDITY:
        raise ValueError(f"unknown validity {validity!r}; known are {', '.join(VALIDITY)}, or give a function")
    if not len(generated):
        raise ValueError("no generated graphs to judge")
    test = VALIDITY[validity] if isinstance(validity, str) else validity
    records = [as_record(graph) for graph in generated]
    classes = isomorphism_classes([*(as_record(graph) for graph in train), *records])
    known, made = classes[: len(train)], classes[len(train) :]
    valid = np.array([test(record) for record in records])
    unique = np.zeros(len(made), bool)
    unique[np.unique(made, return_index=True)[1]] = True
    novel = ~np.isin(made, known)
    return VUN(*(float(x.mean()) for x in (valid, unique, novel, valid & unique & novel)))
