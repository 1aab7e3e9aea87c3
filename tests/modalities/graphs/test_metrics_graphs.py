"""Graph metrics: cases computable by hand, brute force, and published definitions on the given sets."""

from __future__ import annotations

import itertools
import random
from math import exp
from pathlib import Path

import networkx as nx
import numpy as np
import pytest

from fourfold.data.graphs import generators, load_dataset
from fourfold.modalities.graphs.metrics import (
    ERDOS_RENYI,
    FLOOR,
    average,
    clustering_coefficients,
    describe,
    erdos_renyi_like,
    evaluate_graphs,
    graph_hash,
    isomorphic,
    isomorphism_classes,
    kernels,
    mmd,
    orbit_counts,
    share_interval,
    vun,
)
from fourfold.modalities.graphs.metrics.blocks import infer_blocks
from fourfold.modalities.graphs.metrics.vun import is_lobster, is_planar, is_tree
from fourfold.modalities.graphs.records import GraphRecord, from_networkx


def orbits_by_enumeration(graph: nx.Graph) -> np.ndarray:
    """All connected induced subgraphs with two to four nodes, one by one."""
    counts = np.zeros((len(graph), 15), int)
    for size in (2, 3, 4):
        for nodes in itertools.combinations(range(len(graph)), size):
            part = graph.subgraph(nodes)
            if not nx.is_connected(part):
                continue
            edges, degrees = part.number_of_edges(), sorted(d for _, d in part.degree)
            for v in nodes:
                d = part.degree[v]
                if size == 2:
                    role = 0
                elif size == 3:
                    role = 3 if edges == 3 else d
                elif edges == 3:
                    role = {1: 6, 3: 7}[d] if degrees[-1] == 3 else {1: 4, 2: 5}[d]
                elif edges == 4:
                    role = 8 if degrees == [2] * 4 else {1: 9, 2: 10, 3: 11}[d]
                else:
                    role = 14 if edges == 6 else {2: 12, 3: 13}[d]
                counts[v, role] += 1
    return counts


@pytest.mark.parametrize("seed", range(12))
def test_orbits_equal_enumeration(seed: int) -> None:
    graph = nx.gnp_random_graph(4 + seed, 0.15 + 0.06 * seed, seed=seed)
    assert np.array_equal(orbit_counts(from_networkx(graph)), orbits_by_enumeration(graph))


def test_orbits_of_graphs_without_edges_and_of_cliques() -> None:
    assert not orbit_counts(GraphRecord(3, np.zeros((0, 2), int))).any()
    clique = orbit_counts(from_networkx(nx.complete_graph(6)))
    assert clique[0].tolist() == [5, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10]


def test_mmd_by_hand() -> None:
    edge, triangle, four = nx.path_graph(2), nx.complete_graph(3), nx.complete_graph(4)
    # Degrees all 1 against all 2: one bin apart.
    assert mmd([edge], [triangle], "degree") == pytest.approx(2 - 2 * exp(-0.5))
    assert mmd([edge], [triangle], "degree", "tv") == pytest.approx(2 - 2 * exp(-0.5))
    # Clustering 0 against 1: first against last of 100 bins of width .01, bandwidth .1.
    assert mmd([edge], [triangle], "clustering") == pytest.approx(2 - 2 * exp(-(0.99**2) / 0.02))
    # Orbit means (1, 0, 0, 0, ...) against (2, 0, 0, 1, ...).
    assert mmd([edge], [triangle], "orbit") == pytest.approx(2 - 2 * exp(-2 / 1800))
    assert mmd([edge], [triangle], "orbit", "tv") == pytest.approx(2 - 2 * exp(-1 / 1800))
    # Eigenvalues {0, 3/2, 3/2} against {0, 4/3, 4/3, 4/3}: total variation (1/12 + 2/3 + 3/4) / 2.
    assert mmd([triangle], [four], "spectral", "tv") == pytest.approx(2 - 2 * exp(-(0.75**2) / 2))
    # Two graphs on one side: mean of four kernels, half of them 1.
    k = exp(-0.5)
    assert mmd([edge, triangle], [triangle], "degree") == pytest.approx((1 + k) / 2 + 1 - (1 + k))


def test_earth_movers_distance_is_that_of_the_transport_problem() -> None:
    from scipy.stats import wasserstein_distance

    a, b = (describe([from_networkx(nx.gnp_random_graph(12, p, seed=1))], "degree") for p in (0.3, 0.6))
    width = max(a.shape[1], b.shape[1])
    p, q = (np.pad(x[0], (0, width - x.shape[1])) for x in (a, b))
    distance = wasserstein_distance(np.arange(width), np.arange(width), p, q)
    assert kernels(a, b, "degree", "emd").cross[0, 0] == pytest.approx(exp(-(distance**2) / 2))


def test_mmd_of_a_set_with_itself_is_zero_and_order_does_not_matter() -> None:
    graphs = [nx.gnp_random_graph(10, 0.3, seed=k) for k in range(6)]
    for statistic, kernel in itertools.product(("degree", "clustering", "orbit", "spectral"), ("emd", "tv")):
        assert mmd(graphs, graphs[::-1], statistic, kernel) == pytest.approx(0, abs=1e-12)


def test_clustering_equals_networkx() -> None:
    graph = nx.gnp_random_graph(30, 0.2, seed=3)
    assert clustering_coefficients(from_networkx(graph)).tolist() == list(nx.clustering(graph).values())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "community_small",
            {"degree": 0.0138, "clustering": 0.0203, "orbit": 0.0033, "spectral": 0.064, "average": 0.0125},
        ),
        ("ego_small", {"degree": 0.0148, "clustering": 0.0260, "orbit": 0.0048, "spectral": 0.036, "average": 0.0152}),
    ],
)
def test_floors_of_the_published_definitions(shared: Path, name: str, expected: dict[str, float]) -> None:
    """Five random training samples against the test set, the values an evaluation with pyemd and ORCA gives."""
    data = load_dataset(name, shared / "data")
    draw, count = random.Random(0), len(data.test)
    samples = [[data.train[k] for k in draw.sample(range(len(data.train)), count)] for _ in range(5)]
    found = {s: float(np.mean([mmd(x, data.test, s) for x in samples])) for s in expected if s != "average"}
    found["average"] = average(found)
    for statistic, value in expected.items():
        assert found[statistic] == pytest.approx(value, abs=6e-4 if statistic == "spectral" else 6e-5), statistic


def test_enzymes_floor(shared: Path) -> None:
    data = load_dataset("enzymes", shared / "data")
    table = {s: describe(data.train, s) for s in ("degree", "clustering", "orbit")}
    against = {s: describe(data.test, s) for s in table}
    rng = np.random.default_rng(0)
    values = []
    for _ in range(20):
        chosen = rng.permutation(len(data.train))[: len(data.test)]
        values.append(average({s: kernels(table[s][chosen], against[s], s, "emd").mmd() for s in table}))
    # The reference's five draws gave .0366 with a standard deviation of .005 over draws of .010 here.
    assert np.mean(values) == pytest.approx(0.0366, abs=0.01)


def test_unknown_names_and_empty_sets_are_named() -> None:
    graph = [nx.path_graph(3)]
    with pytest.raises(ValueError, match="unknown statistic 'diameter'; known are degree"):
        mmd(graph, graph, "diameter")
    with pytest.raises(ValueError, match="unknown kernel 'rbf'; known are emd, tv"):
        mmd(graph, graph, "degree", "rbf")
    with pytest.raises(ValueError, match="graphs on both sides, got 0 and 1"):
        mmd([], graph, "degree")
    with pytest.raises(ValueError, match="directed"):
        mmd([nx.DiGraph([(0, 1)])], graph, "degree")


def test_isomorphism_sees_through_numbering_but_not_types() -> None:
    rng = np.random.default_rng(0)
    for record in [*generators.draw_graphs(generators.community, 6, 0), from_networkx(nx.cycle_graph(8))]:
        moved = record.permuted(rng.permutation(record.num_nodes))
        assert graph_hash(record) == graph_hash(moved)
        assert isomorphic(record, moved)
    path = np.array([[0, 1], [1, 2]])
    end, middle = GraphRecord(3, path, np.array([1, 0, 0])), GraphRecord(3, path, np.array([0, 1, 0]))
    assert not isomorphic(end, middle)
    assert isomorphic(end, GraphRecord(3, path, np.array([0, 0, 1])))
    single, double = GraphRecord(3, path, None, np.array([1, 1])), GraphRecord(3, path, None, np.array([1, 2]))
    assert not isomorphic(single, double)
    assert graph_hash(single) != graph_hash(double)


def test_isomorphism_needs_more_than_colours() -> None:
    # Two triangles and a hexagon have the same Weisfeiler-Leman colours.
    triangles, hexagon = nx.disjoint_union(nx.cycle_graph(3), nx.cycle_graph(3)), nx.cycle_graph(6)
    assert graph_hash(from_networkx(triangles)) == graph_hash(from_networkx(hexagon))
    assert isomorphism_classes([from_networkx(g) for g in (triangles, hexagon, triangles)]).tolist() == [0, 1, 0]


def test_classes_of_the_published_sets(shared: Path) -> None:
    for name, classes, repeated in (("community_small", 52, 10), ("ego_small", 82, 28)):
        data = load_dataset(name, shared / "data")
        found = isomorphism_classes([*data.test, *data.train])
        count = len(data.test)
        assert len(set(found)) == classes
        assert np.isin(found[:count], found[count:]).sum() == repeated


def test_vun_by_hand() -> None:
    tree, cycle, known = nx.path_graph(4), nx.cycle_graph(4), nx.star_graph(3)
    found = vun([tree, nx.relabel_nodes(tree, {0: 3, 1: 2, 2: 1, 3: 0}), cycle, known], [known], "tree")
    assert (found.valid, found.unique, found.novel, found.vun) == (0.75, 0.75, 0.75, 0.25)
    assert vun([cycle], [known], lambda g: g.num_edges == 4).vun == 1
    with pytest.raises(ValueError, match="unknown validity 'round'"):
        vun([cycle], [known], "round")


def test_structures_are_told_apart() -> None:
    assert is_planar(from_networkx(nx.complete_graph(4)))
    assert not is_planar(from_networkx(nx.complete_graph(5)))
    assert not is_planar(GraphRecord(2, np.zeros((0, 2), int)))
    assert is_tree(from_networkx(nx.balanced_tree(2, 3)))
    assert not is_tree(from_networkx(nx.cycle_graph(5)))
    assert is_lobster(from_networkx(nx.random_lobster_graph(20, 0.5, 0.5, seed=1)))
    assert is_lobster(from_networkx(nx.star_graph(5)))
    assert not is_lobster(from_networkx(nx.balanced_tree(2, 4)))


def test_blocks_are_found_and_random_graphs_are_none() -> None:
    graphs = generators.draw_graphs(generators.stochastic_blocks, 6, 0)
    assert vun(graphs, [], "sbm").valid >= 0.6
    assert vun(erdos_renyi_like(graphs, 6, 0), [], "sbm").valid == 0
    two = nx.disjoint_union(nx.gnp_random_graph(25, 0.4, seed=1), nx.gnp_random_graph(30, 0.4, seed=2))
    label = infer_blocks(from_networkx(two))
    assert len(set(label[:25])) == len(set(label[25:])) == 1
    assert label[0] != label[30]


def test_evaluation_ranks_floor_below_random_graphs(shared: Path) -> None:
    data = load_dataset("community_small", shared / "data")
    result = evaluate_graphs(
        {"copy": data.test, "train": data.train}, data.train, data.test, floor_repeats=5, bootstrap=50
    )
    assert list(result.table) == ["copy", "train", "train (all 80)", FLOOR, ERDOS_RENYI]
    metrics = list(result.table[FLOOR])
    assert metrics[:5] == ["degree emd", "clustering emd", "orbit emd", "average emd", "spectral emd"]
    assert all(list(row) == metrics for row in result.table.values())
    assert result.table["copy"]["average emd"] == pytest.approx(0, abs=1e-12)
    assert result.table[FLOOR]["average emd"] < 0.05 < 0.2 < result.table[ERDOS_RENYI]["average emd"]
    assert result.table["copy"]["novel"] == 0.5
    assert result.table[ERDOS_RENYI]["novel"] == 1
    interval = result.intervals["train"]["degree emd"]
    assert interval.low <= interval.value <= interval.high
    for word in ("first 20", "80 training graphs", "seed 0", "emd and tv"):
        assert word in result.protocol
    again = evaluate_graphs(
        {"copy": data.test, "train": data.train}, data.train, data.test, floor_repeats=5, bootstrap=50
    )
    assert again == result
    with pytest.raises(ValueError, match="needs generated"):
        evaluate_graphs([], data.train, data.test)


def test_bootstrap_interval_covers_and_shrinks() -> None:
    rng = np.random.default_rng(0)
    sets = [
        describe(
            [from_networkx(nx.gnp_random_graph(10, 0.3, seed=int(s))) for s in rng.integers(1 << 30, size=n)], "degree"
        )
        for n in (10, 90, 10, 90)
    ]
    few, many = (kernels(*pair, "degree", "emd").interval(100) for pair in ((sets[0], sets[2]), (sets[1], sets[3])))
    assert few.low < few.value < few.high
    assert many.high - many.low < few.high - few.low


def test_shares_have_wilson_intervals() -> None:
    # Wilson 1927: 8 of 10 at 95 %.
    found = share_interval(8, 10)
    assert (found.low, found.high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert share_interval(0, 5).low == 0
    with pytest.raises(ValueError, match="3 of 2"):
        share_interval(3, 2)
