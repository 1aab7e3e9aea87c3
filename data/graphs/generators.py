"""Graphs drawn from random models, all from a seed.

Graph k of a set with seed s is a function of (s, k) alone: asking for more graphs leaves the first ones as they are.
Most models are a matrix of edge probabilities p_ij of which every pair i < j is drawn once:

    community   p = 0.7 within each of two halves, 0.1 / (n/2) across, at least one edge across
    SBM         p = 0.3 within each of 2..5 blocks, 0.005 across

and the others are Delaunay triangulations of uniform points (planar), uniform trees (by Pruefer codes), lobsters
(a path, legs, feet), grids, and the neighbourhoods of the nodes of one large graph (ego).
`VERSION` counts up when any of them changes what a seed gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ...modalities.graphs.metrics.baselines import bernoulli_graph
from ...modalities.graphs.records import GraphRecord

VERSION = 1

Draw = Callable[[np.random.Generator], GraphRecord]


def draw_graphs(draw: Draw, count: int, seed: int, name: str = "") -> list[GraphRecord]:
    """Graphs 0..count-1 of a model.

    Args:
        draw: One graph from a generator.
        count: Number of graphs, at least 1.
        seed: At least 0.
        name: Prefix of the graphs' names.

    Raises:
        ValueError: `count` or `seed` out of range.
    """
    if count < 1 or seed < 0:
        raise ValueError(f"count must be at least 1 and seed at least 0, got {count} and {seed}")
    graphs = []
    for k in range(count):
        record = draw(np.random.default_rng([seed, k]))
        graphs.append(GraphRecord(record.num_nodes, record.edges, name=f"{name}{k}") if name else record)
    return graphs


def community_published(rng: np.random.Generator) -> GraphRecord:
    """Two communities as in the published `community_small`.

    The published recipe seeds the two halves with 0 and 1, so for a size they are always the same two graphs, and
    odd sizes lose a node; all variety comes from the size and from the edges between. Without such an edge the first
    nodes of both halves are joined.

    Source: the recipe of GDSS' data (Jo et al. 2022), after You et al. 2018 (GraphRNN); equal to the published
    graphs up to the draws of sizes and bridges.
    """
    import networkx as nx

    half = int(rng.integers(12, 21)) // 2
    parts = [np.array(nx.gnp_random_graph(half, 0.7, seed=k).edges, np.int64).reshape(-1, 2) for k in (0, 1)]
    bridges = np.argwhere(rng.random((half, half)) < 0.1 / half)
    if not len(bridges):
        bridges = np.zeros((1, 2), np.int64)
    return GraphRecord(2 * half, np.concatenate([parts[0], parts[1] + half, bridges + np.array([0, half])]))


def community(
    rng: np.random.Generator, *, smallest: int = 12, largest: int = 20, inside: float = 0.7, across: float = 0.05
) -> GraphRecord:
    """Two communities, every one drawn afresh: the unbiased variant of `community_small`.

    Args:
        rng: Source of randomness.
        smallest: Fewest nodes, at least 4.
        largest: Most nodes; all sizes between are equally likely, odd ones give halves of different size.
        inside: Edge probability within a community; communities that fall apart are drawn again.
        across: Expected bridges per node of a pair of communities, `2 across / (n/2)` per pair of nodes; without
            one a random pair is joined.
    """
    n = int(rng.integers(smallest, largest + 1))
    sizes = (n // 2, n - n // 2)
    parts = [_connected(lambda size=size: bernoulli_graph(np.full((size, size), inside), rng)) for size in sizes]
    bridges = np.argwhere(rng.random(sizes) < 2 * across / (n / 2))
    if not len(bridges):
        bridges = np.array([[rng.integers(sizes[0]), rng.integers(sizes[1])]])
    return GraphRecord(
        n, np.concatenate([parts[0].edges, parts[1].edges + sizes[0], bridges + np.array([0, sizes[0]])])
    )


def grid(rows: int, columns: int) -> GraphRecord:
    """The grid with `rows * columns` nodes, numbered row by row."""
    nodes = np.arange(rows * columns).reshape(rows, columns)
    down = np.stack([nodes[:-1].ravel(), nodes[1:].ravel()], 1)
    right = np.stack([nodes[:, :-1].ravel(), nodes[:, 1:].ravel()], 1)
    return GraphRecord(nodes.size, np.concatenate([down, right]))


def random_grid(rng: np.random.Generator, *, smallest: int = 10, largest: int = 19) -> GraphRecord:
    """A grid with both sides uniform in `smallest..largest` (the published set: 10..19)."""
    rows, columns = rng.integers(smallest, largest + 1, 2)
    return grid(int(rows), int(columns))


def planar(rng: np.random.Generator, *, num_nodes: int = 64) -> GraphRecord:
    """The Delaunay triangulation of uniform points in a square (Martinkus et al. 2022: 64 points)."""
    from scipy.spatial import Delaunay

    if num_nodes < 4:
        raise ValueError(f"a triangulation needs at least 4 points, got num_nodes={num_nodes}")
    corners = np.sort(Delaunay(rng.random((num_nodes, 2))).simplices, axis=1)
    pairs = np.concatenate([corners[:, [0, 1]], corners[:, [0, 2]], corners[:, [1, 2]]])
    return GraphRecord(num_nodes, np.unique(pairs, axis=0).astype(np.int64))


def stochastic_blocks(
    rng: np.random.Generator,
    *,
    blocks: tuple[int, int] = (2, 5),
    block_size: tuple[int, int] = (20, 40),
    inside: float = 0.3,
    across: float = 0.005,
) -> GraphRecord:
    """A connected graph of the stochastic block model (Martinkus et al. 2022).

    Args:
        rng: Source of randomness.
        blocks: Fewest and most blocks.
        block_size: Fewest and most nodes of a block.
        inside: Edge probability within a block.
        across: Edge probability between blocks.
    """

    def draw() -> GraphRecord:
        sizes = rng.integers(block_size[0], block_size[1] + 1, rng.integers(blocks[0], blocks[1] + 1))
        block = np.repeat(np.arange(len(sizes)), sizes)
        return bernoulli_graph(np.where(block[:, None] == block, inside, across), rng)

    return _connected(draw)


def tree(rng: np.random.Generator, *, num_nodes: int = 64) -> GraphRecord:
    """A tree drawn uniformly from all labelled trees, by its Pruefer code."""
    import networkx as nx

    if num_nodes < 3:
        return GraphRecord(num_nodes, np.arange(num_nodes)[None].repeat(num_nodes - 1, 0))
    code = rng.integers(num_nodes, size=num_nodes - 2).tolist()
    return GraphRecord(num_nodes, np.array(nx.from_prufer_sequence(code).edges, np.int64))


def lobster(
    rng: np.random.Generator,
    *,
    spine: int = 80,
    leg: float = 0.7,
    foot: float = 0.7,
    smallest: int = 10,
    largest: int = 100,
) -> GraphRecord:
    """A path, legs on it, feet on the legs; drawn again until its size fits.

    Args:
        rng: Source of randomness.
        spine: Expected length of the path, which is uniform in 1..2 spine.
        leg: Each node of the path gets k legs with probability `leg^k (1 - leg)`.
        foot: The same for feet on each leg.
        smallest: Fewest nodes.
        largest: Most nodes.

    Source: Liao et al. 2019 (GRAN); `networkx.random_lobster_graph`.
    """
    while True:
        path = int(2 * rng.random() * spine + 0.5)
        if path < 1:
            continue
        legs = rng.geometric(1 - leg, path) - 1
        feet = rng.geometric(1 - foot, legs.sum()) - 1
        n = path + int(legs.sum()) + int(feet.sum())
        if smallest <= n <= largest:
            break
    on_path = np.repeat(np.arange(path), legs)
    on_legs = np.repeat(np.arange(path, path + len(on_path)), feet)
    parents = np.concatenate([np.arange(path - 1), on_path, on_legs])
    return GraphRecord(n, np.stack([parents, np.arange(1, n)], 1))


def ego_graphs(
    graph: GraphRecord,
    *,
    radius: int = 1,
    smallest: int = 4,
    largest: int = 18,
    centers: Sequence[int] | np.ndarray | None = None,
    count: int | None = None,
    largest_component: bool = True,
) -> list[GraphRecord]:
    """Neighbourhoods of the nodes of a graph.

    Args:
        graph: The large graph.
        radius: Steps from the centre.
        smallest: Neighbourhoods with fewer nodes are left out.
        largest: So are those with more.
        centers: Centres in this order; default: all nodes in order.
        count: Stop after so many neighbourhoods.
        largest_component: Only centres in the largest connected component.

    Returns:
        One record per neighbourhood, nodes in the large graph's order; the name says the centre.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = graph.num_nodes
    both = np.concatenate([graph.edges, graph.edges[:, ::-1]])
    adj = coo_array((np.ones(len(both), np.int8), both.T), shape=(n, n)).tocsr()
    wanted = np.arange(n) if centers is None else np.asarray(centers)
    if largest_component:
        label = connected_components(adj, directed=False)[1]
        wanted = wanted[label[wanted] == np.bincount(label).argmax()]
    out = []
    for center in wanted.tolist():
        inside = np.zeros(n, bool)
        inside[center] = True
        for _ in range(radius):
            inside[np.concatenate([adj.indices[adj.indptr[v] : adj.indptr[v + 1]] for v in np.flatnonzero(inside)])] = 1
        if not smallest <= inside.sum() <= largest:
            continue
        place = np.cumsum(inside) - 1
        kept = graph.edges[inside[graph.edges].all(1)]
        out.append(GraphRecord(int(inside.sum()), place[kept], name=f"ego of {center}"))
        if count is not None and len(out) == count:
            break
    return out


def _connected(draw: Callable[[], GraphRecord], attempts: int = 1000) -> GraphRecord:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    for _ in range(attempts):
        graph = draw()
        n = graph.num_nodes
        adj = coo_array((np.ones(graph.num_edges), graph.edges.T), shape=(n, n))
        if connected_components(adj, directed=False)[0] == 1:
            return graph
    raise ValueError(f"no connected graph in {attempts} draws: the edge probabilities are too low")
