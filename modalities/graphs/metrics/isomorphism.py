"""Which graphs are the same up to the numbering of their nodes, types included.

Colour refinement (Weisfeiler-Leman) gives every node a colour that does not depend on the numbering,

    c_i <- h(c_i, sum_{j ~ i} h(c_j, type of {i, j})),

repeated until the number of colours stops growing. Graphs with different multisets of colours differ; only for equal
ones an exact search decides, helped by the colours. h is a fixed 64-bit mixing function, the same on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..records import GraphRecord, to_networkx

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(x: np.ndarray) -> np.ndarray:
    """A bijection of 64-bit integers that scatters them (SplitMix64's finaliser)."""
    with np.errstate(over="ignore"):
        x = np.asarray(x, np.uint64) + _GOLDEN
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def node_colors(graph: GraphRecord) -> np.ndarray:
    """Stable Weisfeiler-Leman colours, uint64 `(n,)`."""
    n = graph.num_nodes
    start = np.zeros(n, np.int64) if graph.node_types is None else graph.node_types
    kinds = np.ones(graph.num_edges, np.int64) if graph.edge_types is None else graph.edge_types
    i, j = np.concatenate([graph.edges, graph.edges[:, ::-1]]).T
    kind = mix(np.tile(kinds, 2).astype(np.uint64))
    colors = mix(start.astype(np.uint64))
    count = len(np.unique(colors))
    with np.errstate(over="ignore"):
        for step in range(n):
            around = np.zeros(n, np.uint64)
            np.add.at(around, i, mix(colors[j] ^ kind))
            finer = mix(colors ^ mix(around))
            finer_count = len(np.unique(finer))
            if finer_count == count and step > 0:
                break
            colors, count = finer, finer_count
    return colors


def graph_hash(graph: GraphRecord) -> int:
    """A number equal for isomorphic graphs, and almost always different otherwise."""
    return _hash(graph, node_colors(graph))


def isomorphic(first: GraphRecord, second: GraphRecord) -> bool:
    """Whether two graphs are the same up to numbering, with node and edge types."""
    a, b = node_colors(first), node_colors(second)
    return _hash(first, a) == _hash(second, b) and _search(first, a, second, b)


def isomorphism_classes(graphs: Sequence[GraphRecord]) -> np.ndarray:
    """A number per graph, equal exactly for isomorphic graphs, counted from 0 in order of appearance; int64 `(G,)`."""
    classes = np.zeros(len(graphs), np.int64)
    known: dict[int, list[tuple[int, GraphRecord, np.ndarray]]] = {}
    count = 0
    for k, graph in enumerate(graphs):
        colors = node_colors(graph)
        alike = known.setdefault(_hash(graph, colors), [])
        for number, other, other_colors in alike:
            if _search(graph, colors, other, other_colors):
                classes[k] = number
                break
        else:
            alike.append((count, graph, colors))
            classes[k] = count
            count += 1
    return classes


def _hash(graph: GraphRecord, colors: np.ndarray) -> int:
    with np.errstate(over="ignore"):
        total = mix(colors).sum(dtype=np.uint64) ^ mix(np.array([graph.num_nodes, graph.num_edges], np.uint64)).sum(
            dtype=np.uint64
        )
    return int(mix(np.asarray(total)))


def _search(first: GraphRecord, a: np.ndarray, second: GraphRecord, b: np.ndarray) -> bool:
    if (first.num_nodes, first.num_edges) != (second.num_nodes, second.num_edges):
        return False
    if not np.array_equal(np.sort(a), np.sort(b)):
        return False
    if len(np.unique(a)) == len(a):
        # Every colour names one node: only one numbering is possible.
        place = np.empty(len(a), np.int64)
        place[np.argsort(a)] = np.argsort(b)
        moved = GraphRecord(first.num_nodes, place[first.edges], edge_types=_kinds(first))
        return np.array_equal(moved.edges, second.edges) and np.array_equal(moved.edge_types, _kinds(second))  # pyright: ignore[reportArgumentType]
    from networkx.algorithms.isomorphism import GraphMatcher

    left, right = to_networkx(first), to_networkx(second)
    for graph, colors in ((left, a), (right, b)):
        for node, color in enumerate(colors.tolist()):
            graph.nodes[node]["color"] = color
    return GraphMatcher(
        left,
        right,
        node_match=lambda u, v: u["color"] == v["color"],
        edge_match=lambda u, v: u.get("edge_type", 1) == v.get("edge_type", 1),
    ).is_isomorphic()


def _kinds(graph: GraphRecord) -> np.ndarray:
    return np.ones(graph.num_edges, np.int64) if graph.edge_types is None else graph.edge_types
