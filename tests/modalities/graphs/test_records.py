"""Records and batches: checks, conversions, padding."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from fourfold.modalities.graphs.intake import Intake, OnBad, report_of
from fourfold.modalities.graphs.packed import PackedGraphs
from fourfold.modalities.graphs.records import (
    GraphRecord,
    collate,
    degree,
    from_adjacency,
    from_networkx,
    from_pyg,
    to_networkx,
    to_pyg,
    to_records,
)


def full_record(seed: int = 0, n: int = 7) -> GraphRecord:
    """A random graph with everything a record can hold."""
    rng = np.random.default_rng(seed)
    i, j = np.triu_indices(n, 1)
    hit = rng.permutation(len(i))[: 2 * n]
    return GraphRecord(
        n,
        np.stack([i[hit], j[hit]], 1),
        rng.integers(0, 4, n),
        rng.integers(1, 4, 2 * n),
        rng.normal(size=(n, 3)),
        rng.normal(size=(2 * n, 2)),
        {"y": float(seed) + 0.5},
        f"graph {seed}",
    )


def same(a: GraphRecord, b: GraphRecord) -> bool:
    arrays = ("edges", "node_types", "edge_types", "node_features", "edge_features")
    pairs = [(getattr(a, k), getattr(b, k)) for k in arrays]
    return (
        a.num_nodes == b.num_nodes
        and dict(a.targets) == dict(b.targets)
        and all((x is None) == (y is None) and (x is None or np.allclose(x, y)) for x, y in pairs)
    )


def test_edges_are_put_in_order_with_what_belongs_to_them() -> None:
    record = GraphRecord(
        3, np.array([[2, 1], [1, 0]]), edge_types=np.array([3, 1]), edge_features=np.array([[9.0], [7]])
    )
    assert record.edges.tolist() == [[0, 1], [1, 2]]
    assert record.edge_types is not None
    assert record.edge_types.tolist() == [1, 3]
    assert record.edge_features is not None
    assert record.edge_features.ravel().tolist() == [7, 9]
    assert degree(record).tolist() == [1, 2, 1]
    with pytest.raises(ValueError, match="read-only"):
        record.edges[0] = 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_nodes": 0, "edges": np.zeros((0, 2), int)}, "at least one node"),
        ({"num_nodes": 2, "edges": np.array([[0, 2]])}, r"\(0, 2\) names a node outside 0..1"),
        ({"num_nodes": 2, "edges": np.array([[-1, 1]])}, "outside 0..1"),
        ({"num_nodes": 2, "edges": np.array([[1, 1]])}, "1 self-loop.*node 1"),
        ({"num_nodes": 2, "edges": np.array([[0, 1], [1, 0]])}, r"repeated edge.*\(0, 1\)"),
        ({"num_nodes": 2, "edges": np.array([[0.0, 1.0]])}, "must be integers"),
        ({"num_nodes": 2, "edges": np.array([0, 1])}, "shape"),
        ({"num_nodes": 2, "edges": np.array([[0, 1]]), "edge_types": np.array([0])}, "count from 1"),
        ({"num_nodes": 2, "edges": np.array([[0, 1]]), "node_types": np.array([0])}, r"shape \(2,\)"),
        ({"num_nodes": 2, "edges": np.array([[0, 1]]), "node_features": np.array([[1.0], [np.nan]])}, "not finite"),
    ],
)
def test_what_is_no_simple_graph_is_refused_with_its_reason(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GraphRecord(**values)  # pyright: ignore[reportArgumentType]


def test_dense_form_and_back() -> None:
    record = full_record()
    dense = record.adjacency()
    assert (dense == dense.T).all()
    assert not dense.diagonal().any()
    back = from_adjacency(dense, record.node_types)
    assert np.array_equal(back.edges, record.edges)
    assert np.array_equal(back.edge_types, record.edge_types)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="directed"):
        from_adjacency(np.array([[0, 1], [0, 0]]))
    with pytest.raises(ValueError, match="self-loop"):
        from_adjacency(np.eye(2, dtype=int))


def test_renumbering_keeps_the_graph() -> None:
    record = full_record()
    order = np.random.default_rng(1).permutation(record.num_nodes)
    moved = record.permuted(order)
    assert np.array_equal(moved.adjacency(), record.adjacency()[np.ix_(order, order)])
    assert same(moved.permuted(np.argsort(order)), record)


@pytest.mark.parametrize("there", [to_networkx, to_pyg])
def test_networkx_and_pyg_give_the_same_record_back(there) -> None:
    back = from_networkx if there is to_networkx else from_pyg
    record = full_record()
    assert same(back(there(record)), record)
    bare = GraphRecord(4, np.array([[0, 2]]))  # isolated nodes stay
    assert same(back(there(bare)), bare)


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (nx.DiGraph([(0, 1)]), "directed"),
        (nx.MultiGraph([(0, 1), (0, 1)]), "repeated edge"),
        (nx.Graph([(0, 0), (0, 1)]), "self-loop"),
        (nx.Graph([(0, 1, {"weight": 0.5})]), "weights"),
        (nx.Graph(), "at least one node"),
        (nx.Graph([(0, 1, {"edge_type": 1}), (1, 2)]), "only 1 of 2 edges"),
        (Data(edge_index=torch.tensor([[0], [1]]), num_nodes=2), "directed"),
        (Data(edge_index=torch.tensor([[0, 1], [0, 1]]), num_nodes=2), "2 self-loop"),
        (Data(edge_index=torch.tensor([[0, 1], [1, 0]]), edge_weight=torch.tensor([0.5, 0.5]), num_nodes=2), "weights"),
        (Data(edge_index=torch.tensor([[0, 3], [3, 0]]), num_nodes=2), "outside"),
        (Data(edge_index=torch.tensor([[0, 1], [1, 0]]), edge_attr=torch.tensor([1, 2]), num_nodes=2), "differs"),
    ],
)
def test_bad_graphs_stop_or_are_counted_as_the_user_chose(graph, message: str) -> None:
    good = nx.path_graph(3)
    with pytest.raises(ValueError, match=rf"graph 1: .*{message}"):
        to_records([good, graph, good])
    intake = to_records([good, graph, good], OnBad.SKIP)
    assert len(intake.items) == 2
    assert [s.source for s in intake.skipped] == ["graph 1"]
    assert "1 left out" in report_of(intake.skipped)


def test_not_a_graph_is_an_error_even_when_skipping() -> None:
    with pytest.raises(TypeError, match="expected a GraphRecord"):
        to_records(["C"], OnBad.SKIP)  # pyright: ignore[reportArgumentType]


def test_batch_is_symmetric_masked_and_gives_the_graphs_back() -> None:
    records = [full_record(0, 7), full_record(1, 5), full_record(2, 9)]
    batch = collate(records, max_nodes=11)
    assert batch.adj.shape == (3, 11, 11)
    assert batch.num_nodes.tolist() == [7, 5, 9]
    assert torch.equal(batch.adj, batch.adj.transpose(1, 2))
    assert not batch.adj[~batch.mask].any()
    assert not batch.node_types[~batch.mask].any()
    assert batch.targets["y"].tolist() == [0.5, 1.5, 2.5]
    assert all(same(a, b) for a, b in zip(batch.records(), records, strict=True))
    moved = batch.to("cpu")
    assert torch.equal(moved.adj, batch.adj)
    assert len(moved) == 3


def test_batches_refuse_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="no graphs"):
        collate([])
    with pytest.raises(ValueError, match="at most 3"):
        collate([full_record()], max_nodes=3)
    bare = GraphRecord(2, np.array([[0, 1]]))
    with pytest.raises(ValueError, match="different widths"):
        collate([full_record(), bare])
    with pytest.raises(ValueError, match="different targets"):
        collate([bare, bare.with_targets({"y": 1.0})])


def test_packed_graphs_are_the_same_graphs_and_the_same_batches(tmp_path) -> None:
    records = [full_record(k, 5 + k) for k in range(6)]
    packed = PackedGraphs.pack(records)
    packed.save(tmp_path / "graphs.npz")
    for those in (
        packed,
        PackedGraphs.load(tmp_path / "graphs.npz"),
        PackedGraphs.join([packed.select([0, 1]), packed.select([2, 3, 4, 5])]),
    ):
        assert all(same(a, b) for a, b in zip(those, records, strict=True))
        assert [g.name for g in those] == [g.name for g in records]
    chosen = packed.select([4, 1])
    assert chosen.sizes.tolist() == [9, 6]
    assert chosen.target("y").tolist() == [4.5, 1.5]
    assert same(chosen.compact()[0], records[4])
    a, b = chosen.select([1, 0]).batch([1, 0]), collate([records[4], records[1]])
    for name in ("node_types", "adj", "mask", "node_features", "edge_features"):
        assert torch.equal(getattr(a, name), getattr(b, name))
    assert a.targets["y"].tolist() == [4.5, 1.5]


def test_a_file_that_is_not_packed_graphs_is_named(tmp_path) -> None:
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match="no edge_ptr, edges, node_ptr"):
        PackedGraphs.load(tmp_path / "other.npz")
    (tmp_path / "text.npz").write_text("no")
    with pytest.raises(ValueError, match="not a file of packed graphs"):
        PackedGraphs.load(tmp_path / "text.npz")


def test_intake_keeps_order() -> None:
    intake: Intake[int] = Intake(OnBad.SKIP)
    intake.take_all([("a", "1"), ("b", "x"), ("c", "3")], int)
    assert intake.items == [1, 3]
    assert [str(s).split(":")[0] for s in intake.skipped] == ["b"]
