"""The structural partial order: golden blocks, equivariance, both rules, the cache."""

from __future__ import annotations

import json
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import torch

from fourfold.modalities import graphs
from fourfold.modalities.graphs.block_batch import in_blocks
from fourfold.modalities.graphs.block_cache import cached_block_orders, graphs_hash
from fourfold.modalities.graphs.block_order import (
    RULES,
    block_degrees,
    block_order,
    block_order_batch,
    block_orders,
    block_sizes,
    scores,
)
from fourfold.modalities.graphs.block_statistics import BlockStatistics
from fourfold.modalities.graphs.records import GraphRecord, collate, from_networkx

ODD = {
    "one node": (1, []),
    "no edges": (4, []),
    "two parts and an isolated node": (7, [(0, 1), (1, 2), (3, 4), (4, 5), (3, 5)]),
    "cycle": (6, [(k, (k + 1) % 6) for k in range(6)]),
    "star with a tail": (7, [(0, 1), (0, 2), (0, 3), (0, 4), (4, 5), (5, 6)]),
}


def _peel_slowly(n: int, edges: list[tuple[int, int]], hops: int, rule: str) -> list[int]:
    """The definition, with Python integers and tuples."""
    left, alive, order = {tuple(e) for e in edges}, set(range(n)), {}
    step = 0
    while alive:
        x = [1] * n
        walks = []
        for _ in range(hops):
            x = [x[v] + sum(x[a + b - v] for a, b in left if v in (a, b)) for v in range(n)]
            walks.append(x)
        if rule == "reference":
            score = {v: sum(w[v] * n ** (hops - 1 - k) for k, w in enumerate(walks)) for v in alive}
        else:
            score = {v: tuple(w[v] for w in walks) for v in alive}
        lowest = min(score.values())
        block = {v for v in alive if score[v] == lowest}
        order.update(dict.fromkeys(block, step))
        alive -= block
        left = {e for e in left if not block & set(e)}
        step += 1
    return [step - 1 - order[v] for v in range(n)]


def _random_records(count: int, seed: int = 0) -> list[GraphRecord]:
    rng = np.random.default_rng(seed)
    graphs = [nx.gnp_random_graph(int(rng.integers(1, 15)), float(rng.uniform(0, 0.6)), seed=k) for k in range(count)]
    return [from_networkx(g) for g in graphs]


def test_golden_blocks(shared: Path) -> None:
    stored = json.loads((shared / "golden" / "pard" / "blocks.json").read_text())
    for graph in stored["graphs"]:
        n, edges = graph["num_nodes"], np.array(graph["edges"])
        batch = collate([GraphRecord(n, edges)])
        for hops, golden in graph["K"].items():
            found = block_order(edges, n, int(hops), "reference")
            assert found.tolist() == golden["block_id"], (graph["name"], hops)
            block = torch.from_numpy(found)[None]
            assert block_sizes(block)[0].tolist() == golden["block_size"]
            if int(hops):  # with K = 0 the published degree is that of whichever node comes first
                assert block_degrees(batch.adj > 0, block)[0].tolist() == golden["block_degree"]
            assert scores(batch.adj, int(hops))[0].tolist() == golden["weights_round0"]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("hops", [0, 1, 2, 3])
def test_equals_the_definition(rule: str, hops: int) -> None:
    records = [*_random_records(30), *(GraphRecord(n, np.array(e).reshape(-1, 2)) for n, e in ODD.values())]
    batch = collate(records)
    together = block_order_batch(batch.adj > 0, batch.mask, hops, rule)
    for k, (record, listed) in enumerate(zip(records, block_orders(records, hops, rule), strict=True)):
        slow = _peel_slowly(record.num_nodes, [tuple(e) for e in record.edges.tolist()], hops, rule)
        assert together[k, : record.num_nodes].tolist() == slow
        assert bool((together[k, record.num_nodes :] == -1).all())
        assert listed.tolist() == slow


@pytest.mark.parametrize("rule", RULES)
def test_renumbering_renumbers_the_blocks(rule: str) -> None:
    rng = np.random.default_rng(1)
    for record in [*_random_records(12, 5), *(GraphRecord(n, np.array(e).reshape(-1, 2)) for n, e in ODD.values())]:
        for hops in range(4):
            block = block_order(record.edges, record.num_nodes, hops, rule)
            order = rng.permutation(record.num_nodes)
            moved = record.permuted(order)
            assert block_order(moved.edges, moved.num_nodes, hops, rule).tolist() == block[order].tolist()


def test_lexicographic_blocks_share_their_degree_where_the_reference_mixes_two() -> None:
    # K_4 beside K_{2,17}: the published score ties nodes of degree 3 and 2
    graph = nx.disjoint_union(nx.complete_graph(4), nx.complete_bipartite_graph(2, 17))
    record = from_networkx(graph)
    mixed = block_order(record.edges, record.num_nodes, 2, "reference")
    degree = np.bincount(record.edges.ravel())
    last = mixed == mixed.max()
    assert last.sum() == 21
    assert set(degree[last]) == {2, 3}
    for other in [record, *_random_records(30, 9)]:
        batch = collate([other])
        block = block_order_batch(batch.adj > 0, batch.mask, 2)
        seen = block[:, None, :] <= block[:, :, None]
        inside = ((batch.adj > 0) & seen).sum(2)[0]
        for b in range(int(block.max()) + 1):
            assert len(set(inside[block[0] == b].tolist())) == 1


def test_the_public_name() -> None:
    # the ends of a path are peeled off first, so that its middle is generated first
    assert graphs.block_order([(0, 1), (1, 2)], 3, 1, "reference").tolist() == [1, 0, 1]


def test_zero_hops_is_one_block_and_regular_graphs_are_too() -> None:
    assert set(block_order(np.array([(0, 1), (0, 2), (0, 3)]), 4, 0)) == {0}
    assert set(block_order(np.array(nx.petersen_graph().edges), 10, 3)) == {0}


def test_large_scores_use_integers_and_too_large_ones_are_refused() -> None:
    path = np.array([(k, k + 1) for k in range(199)])
    assert block_order(path, 200, 6, "reference").max() == 99
    with pytest.raises(ValueError, match="64 bits"):
        block_order(path, 200, 9, "reference")
    with pytest.raises(ValueError, match="unknown rule"):
        block_order(path, 200, 1, "alphabetical")
    with pytest.raises(ValueError, match="at least 0"):
        block_order(path, 200, -1)


def test_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = _random_records(20, 3)
    expected = block_orders(records, 2)
    first = cached_block_orders(records, 2, folder=tmp_path)
    (file,) = tmp_path.iterdir()
    assert file.name == f"blocks-{graphs_hash(records, 2, 'lexicographic')}.npz"
    with monkeypatch.context() as patch:
        patch.setattr("fourfold.modalities.graphs.block_cache.block_orders", None)
        again = cached_block_orders(records, 2, folder=tmp_path)
    for a, b, c in zip(expected, first, again, strict=True):
        assert a.tolist() == b.tolist() == c.tolist()
    assert graphs_hash(records, 2, "lexicographic") != graphs_hash(records[:-1], 2, "lexicographic")
    assert graphs_hash(records, 2, "lexicographic") != graphs_hash(records, 3, "lexicographic")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.warns(UserWarning, match="damaged"):
        repaired = cached_block_orders(records, 2, folder=tmp_path)
    assert [r.tolist() for r in repaired] == [e.tolist() for e in expected]


@pytest.mark.parametrize("hops", [0, 2])
def test_statistics_of_blocks(hops: int, tmp_path: Path) -> None:
    records = _random_records(25, 8)
    graphs = in_blocks(collate(records), hops, "lexicographic")
    found = BlockStatistics.of(records, hops, "lexicographic", tmp_path)
    assert list(found.first_sizes) == np.bincount(graphs.sizes[:, 0]).tolist()
    assert list(found.blocks) == np.bincount(graphs.blocks).tolist()
    assert found.largest == int(graphs.sizes.max())
    assert found.largest_degree == int(graphs.degrees.max())
    assert BlockStatistics.from_plain(json.loads(json.dumps(found.plain()))) == found
    # sorted by block, with everything in its place
    for k, record in enumerate(records):
        n = record.num_nodes
        order = graphs.order[k, :n].numpy()
        assert np.array_equal(graphs.adj[k, :n, :n].numpy(), record.adjacency()[order][:, order])
        assert (np.diff(graphs.block[k, :n]) >= 0).all()
