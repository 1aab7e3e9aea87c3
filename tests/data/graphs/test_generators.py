"""Drawn graphs: seeds, recipes, structure."""

from __future__ import annotations

from pathlib import Path

import networkx as nx
import numpy as np
import pytest

from fourfold.data.errors import DataError
from fourfold.data.graphs import draw_graphs, ego_graphs, generators, load_dataset
from fourfold.data.graphs.citations import citation_graph, ego_like, read_cites
from fourfold.modalities.graphs.metrics import average, erdos_renyi_like, isomorphism_classes, mmd, vun
from fourfold.modalities.graphs.records import GraphRecord, degree, to_networkx

MODELS = [
    generators.community_published,
    generators.community,
    generators.random_grid,
    generators.planar,
    generators.stochastic_blocks,
    generators.lobster,
    generators.tree,
]


@pytest.mark.parametrize("draw", MODELS)
def test_a_graph_is_a_function_of_seed_and_number(draw) -> None:
    few, many = draw_graphs(draw, 2, 7), draw_graphs(draw, 4, 7)
    assert all(np.array_equal(a.edges, b.edges) for a, b in zip(few, many[:2], strict=True))
    assert any(not np.array_equal(a.edges, b.edges) for a, b in zip(many, draw_graphs(draw, 4, 8), strict=True))
    with pytest.raises(ValueError, match="count must be at least 1"):
        draw_graphs(draw, 0, 0)


def test_published_communities_are_the_published_ones(shared: Path) -> None:
    """Up to the random bridges, every size has one graph, and it is that of the published file."""

    def halves(graphs) -> dict[int, frozenset[tuple[int, int]]]:
        found = {}
        for g in graphs:
            inside = g.edges[(g.edges < g.num_nodes // 2).sum(1) != 1]
            part = frozenset(map(tuple, inside.tolist()))
            assert found.setdefault(g.num_nodes, part) == part
        return found

    data = load_dataset("community_small", shared / "data")
    drawn = draw_graphs(generators.community_published, 60, 0)
    assert halves(drawn) == halves([*data.train, *data.test])
    bridges = [g.num_edges - len(halves([g])[g.num_nodes]) for g in draw_graphs(generators.community_published, 300, 1)]
    # 113 bridges in the 100 published graphs.
    assert np.mean(bridges) == pytest.approx(1.2, abs=0.1)


def test_corrected_communities_are_not_always_the_same_graphs() -> None:
    graphs = draw_graphs(generators.community, 60, 0)
    sizes = {g.num_nodes for g in graphs}
    assert sizes == set(range(12, 21))
    assert len(set(isomorphism_classes(graphs))) == 60
    assert all(nx.is_connected(to_networkx(g)) for g in graphs)


def test_structures() -> None:
    for draw, kind in ((generators.planar, "planar"), (generators.tree, "tree"), (generators.lobster, "lobster")):
        graphs = draw_graphs(draw, 10, 3)
        assert vun(graphs, [], kind).valid == 1
    assert {g.num_nodes for g in draw_graphs(generators.planar, 5, 0)} == {64}
    lobsters = draw_graphs(generators.lobster, 30, 0)
    assert all(10 <= g.num_nodes <= 100 for g in lobsters)
    grid = generators.grid(3, 4)
    assert nx.is_isomorphic(to_networkx(grid), nx.grid_2d_graph(3, 4))
    blocks = draw_graphs(generators.stochastic_blocks, 10, 0)
    assert all(40 <= g.num_nodes <= 200 for g in blocks)
    for n in (1, 2, 3):
        assert generators.tree(np.random.default_rng(0), num_nodes=n).num_edges == n - 1


def test_trees_are_uniform() -> None:
    # Four labelled nodes have 16 trees, 4 of them stars.
    graphs = draw_graphs(lambda rng: generators.tree(rng, num_nodes=4), 800, 0)
    stars = np.mean([degree(g).max() == 3 for g in graphs])
    assert stars == pytest.approx(0.25, abs=0.05)


def test_neighbourhoods_equal_networkx() -> None:
    graph = nx.gnp_random_graph(60, 0.06, seed=1)
    graph.add_edges_from([(100 + k, 101 + k) for k in range(5)])
    record = GraphRecord(66, np.array(nx.convert_node_labels_to_integers(graph).edges))
    found = ego_graphs(record, radius=2, smallest=4, largest=18)
    component = max(nx.connected_components(to_networkx(record)), key=len)
    expected = []
    for v in sorted(component):
        ego = nx.ego_graph(to_networkx(record), v, 2)
        if 4 <= len(ego) <= 18:
            expected.append((f"ego of {v}", len(ego), ego.number_of_edges()))
    assert [(g.name, g.num_nodes, g.num_edges) for g in found] == expected
    assert len(ego_graphs(record, count=3)) == 3


def test_drawn_neighbourhoods_resemble_citeseer(shared: Path) -> None:
    data, drawn = load_dataset("ego_small", shared / "data"), load_dataset("ego_like", "nowhere")
    real, ours = [*data.train, *data.test], [*drawn.train, *drawn.test]
    assert "not Citeseer" in drawn.protocol
    assert all(4 <= g.num_nodes <= 18 for g in ours)
    for what in (lambda g: g.num_nodes, lambda g: g.num_edges):
        assert np.mean([what(g) for g in ours]) == pytest.approx(np.mean([what(g) for g in real]), rel=0.15)
    mmds = {s: mmd(ours, real, s) for s in ("degree", "clustering", "orbit")}
    assert average(mmds) < 0.0152  # what a training sample scores against the published test set
    assert citation_graph(np.random.default_rng(0)).num_edges == pytest.approx(3668, rel=0.15)  # Citeseer's component
    with pytest.raises(DataError, match="not 5000"):
        ego_like(5000, 0)


def test_citation_files(tmp_path: Path) -> None:
    (tmp_path / "x.cites").write_text("a\tb\nb\ta\nb\tc\nc\tc\n")
    graph = read_cites(tmp_path / "x.cites")
    assert (graph.num_nodes, graph.edges.tolist()) == (3, [[0, 1], [1, 2]])
    (tmp_path / "bad.cites").write_text("a b\nc\n")
    with pytest.raises(DataError, match="two papers per line"):
        read_cites(tmp_path / "bad.cites")


def test_random_graphs_match_size_and_density() -> None:
    model = draw_graphs(generators.planar, 3, 0)
    random = erdos_renyi_like(model, 40, 0)
    assert {g.num_nodes for g in random} == {64}
    assert np.mean([g.num_edges for g in random]) == pytest.approx(np.mean([g.num_edges for g in model]), rel=0.05)
    with pytest.raises(ValueError, match="no reference"):
        erdos_renyi_like([], 1, 0)
