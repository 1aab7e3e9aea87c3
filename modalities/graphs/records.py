"""Graphs as arrays: one graph, a padded batch of them, and the way from and to NetworkX and PyTorch Geometric.

A graph is simple and undirected: n nodes 0..n-1 and a set of pairs i < j. Types are small integers: a node type
counts from 0; an edge type counts from 1, since 0 is "no edge" in the dense form

    adj[i, j] = adj[j, i] = type of the edge {i, j}, 0 if there is none;   adj[i, i] = 0.

In a batch every graph is padded to the same N; `mask` says which nodes exist. Isolated nodes exist.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .intake import Intake, OnBad

if TYPE_CHECKING:
    import networkx as nx
    from torch_geometric.data import Data


@dataclass(frozen=True, eq=False)
class GraphRecord:
    """One graph. Checks itself; pairs are brought into order (i < j, sorted), arrays are made read-only.

    Args:
        num_nodes: Number of nodes n, at least 1.
        edges: Pairs of nodes, integers `(M, 2)`, each undirected edge once, in any order.
        node_types: Integers >= 0, `(n,)`; None: all nodes are alike.
        edge_types: Integers >= 1, `(M,)` in the order of `edges`; None: all edges are alike (type 1).
        node_features: Real numbers `(n, d)`.
        edge_features: Real numbers `(M, d)` in the order of `edges`.
        targets: Properties of the whole graph; NaN is "not known".
        name: Where it comes from.

    Raises:
        ValueError: A self-loop, a repeated edge, a node out of range, or shapes that do not fit.
    """

    num_nodes: int
    edges: np.ndarray
    node_types: np.ndarray | None = None
    edge_types: np.ndarray | None = None
    node_features: np.ndarray | None = None
    edge_features: np.ndarray | None = None
    targets: Mapping[str, float] = field(default_factory=dict)
    name: str | None = None

    def __post_init__(self) -> None:
        n = int(self.num_nodes)
        if n < 1:
            raise ValueError(f"a graph needs at least one node, got num_nodes={self.num_nodes}")
        edges = _integers("edges", self.edges)
        if edges.size == 0:
            edges = edges.reshape(0, 2)
        if edges.ndim != 2 or edges.shape[1] != 2:
            raise ValueError(f"edges must be pairs of shape (M, 2), got {edges.shape}")
        if edges.size and (edges.min() < 0 or edges.max() >= n):
            bad = edges[(edges < 0).any(1) | (edges >= n).any(1)][0]
            raise ValueError(f"edge {tuple(bad.tolist())} names a node outside 0..{n - 1}")
        loops = edges[:, 0] == edges[:, 1]
        if loops.any():
            raise ValueError(f"{int(loops.sum())} self-loop(s), the first at node {int(edges[loops][0, 0])}")
        edges = np.sort(edges, axis=1)
        keys = edges[:, 0] * n + edges[:, 1]
        order = np.argsort(keys, kind="stable")
        repeated = np.diff(keys[order]) == 0
        if repeated.any():
            first = edges[order[1:][repeated][0]]
            raise ValueError(
                f"{int(repeated.sum())} repeated edge(s), the first is {tuple(first.tolist())}: "
                "give each undirected edge once"
            )
        put = {"num_nodes": n, "edges": edges[order], "targets": {k: float(v) for k, v in self.targets.items()}}
        if self.node_types is not None:
            put["node_types"] = _types("node_types", self.node_types, n, lowest=0)
        if self.edge_types is not None:
            put["edge_types"] = _types("edge_types", self.edge_types, len(edges), lowest=1)[order]
        if self.node_features is not None:
            put["node_features"] = _features("node_features", self.node_features, n)
        if self.edge_features is not None:
            put["edge_features"] = _features("edge_features", self.edge_features, len(edges))[order]
        for key, value in put.items():
            if isinstance(value, np.ndarray):
                value.setflags(write=False)
            object.__setattr__(self, key, value)

    @property
    def num_edges(self) -> int:
        """Number of undirected edges M."""
        return len(self.edges)

    def adjacency(self) -> np.ndarray:
        """Dense symmetric matrix of edge types `(n, n)`, int64, 0 = no edge."""
        adj = np.zeros((self.num_nodes, self.num_nodes), np.int64)
        i, j = self.edges.T
        adj[i, j] = adj[j, i] = 1 if self.edge_types is None else self.edge_types
        return adj

    def permuted(self, order: np.ndarray) -> GraphRecord:
        """The same graph with node `order[k]` as node k."""
        order = _integers("order", order)
        if not np.array_equal(np.sort(order), np.arange(self.num_nodes)):
            raise ValueError(f"order must be a permutation of 0..{self.num_nodes - 1}")
        place = np.argsort(order)
        return GraphRecord(
            self.num_nodes,
            place[self.edges],
            None if self.node_types is None else self.node_types[order],
            self.edge_types,
            None if self.node_features is None else self.node_features[order],
            self.edge_features,
            self.targets,
            self.name,
        )

    def with_targets(self, targets: Mapping[str, float]) -> GraphRecord:
        """The same graph with these targets added."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return GraphRecord(**{**values, "targets": {**self.targets, **targets}})


def from_adjacency(
    adj: np.ndarray | Tensor, node_types: np.ndarray | Tensor | None = None, *, name: str | None = None
) -> GraphRecord:
    """The record of a dense matrix of edge types.

    Args:
        adj: Symmetric integers `(n, n)` with zero diagonal, 0 = no edge. If the largest type is 1, edge types are
            left out (all alike).
        node_types: Integers `(n,)`.
        name: Kept in the record.

    Raises:
        ValueError: Not square, not symmetric, a filled diagonal, negative entries.
    """
    dense = _integers("adj", adj)
    if dense.ndim != 2 or dense.shape[0] != dense.shape[1]:
        raise ValueError(f"adj must be a square matrix, got shape {dense.shape}")
    if not np.array_equal(dense, dense.T):
        raise ValueError("adj is not symmetric: the graph is directed")
    if dense.diagonal().any():
        raise ValueError(f"adj has {int(np.count_nonzero(dense.diagonal()))} self-loop(s) on its diagonal")
    i, j = np.nonzero(np.triu(dense, 1))
    types = dense[i, j]
    typed = types if types.size and types.max() > 1 else None
    if types.size and types.min() < 0:
        raise ValueError("adj holds negative entries; an edge type is an integer >= 1")
    kinds = None if node_types is None else _integers("node_types", node_types)
    return GraphRecord(len(dense), np.stack([i, j], 1), kinds, typed, name=name)


@dataclass(frozen=True, eq=False)
class GraphBatch:
    """Graphs padded to a common number of nodes N.

    Args:
        node_types: `(B, N)` int64, 0 where padded and where graphs have no types.
        adj: `(B, N, N)` int64, edge type, 0 = none; symmetric, zero diagonal.
        mask: `(B, N)` bool, True for nodes that exist (the first ones of each row).
        node_features: `(B, N, d)` float32, 0 where padded, or None.
        targets: Graph properties, each `(B,)` float32.
        edge_features: `(B, N, N, d)` float32, 0 where there is no edge, or None.
    """

    node_types: Tensor
    adj: Tensor
    mask: Tensor
    node_features: Tensor | None = None
    targets: dict[str, Tensor] = field(default_factory=dict)
    edge_features: Tensor | None = None

    def __len__(self) -> int:
        return self.mask.shape[0]

    @property
    def num_nodes(self) -> Tensor:
        """Nodes of each graph, `(B,)` int64."""
        return self.mask.sum(-1)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> GraphBatch:
        """The batch on another device."""

        def move(x: Tensor | None) -> Tensor | None:
            return None if x is None else x.to(device, non_blocking=non_blocking)

        return GraphBatch(
            self.node_types.to(device, non_blocking=non_blocking),
            self.adj.to(device, non_blocking=non_blocking),
            self.mask.to(device, non_blocking=non_blocking),
            move(self.node_features),
            {k: v.to(device, non_blocking=non_blocking) for k, v in self.targets.items()},
            move(self.edge_features),
        )

    def pin_memory(self) -> GraphBatch:
        """The batch in page-locked memory (torch's DataLoader calls this)."""
        return GraphBatch(
            self.node_types.pin_memory(),
            self.adj.pin_memory(),
            self.mask.pin_memory(),
            None if self.node_features is None else self.node_features.pin_memory(),
            {k: v.pin_memory() for k, v in self.targets.items()},
            None if self.edge_features is None else self.edge_features.pin_memory(),
        )

    def records(self) -> list[GraphRecord]:
        """The graphs one by one, without padding (edge types are left out if no edge of the batch has one above 1)."""
        typed, kinds = bool((self.adj > 1).any()), bool((self.node_types > 0).any())
        adj, types, sizes = self.adj.cpu().numpy(), self.node_types.cpu().numpy(), self.num_nodes.tolist()
        features = None if self.node_features is None else self.node_features.cpu().numpy()
        edge_features = None if self.edge_features is None else self.edge_features.cpu().numpy()
        out = []
        for b, n in enumerate(sizes):
            i, j = np.nonzero(np.triu(adj[b, :n, :n], 1))
            out.append(
                GraphRecord(
                    n,
                    np.stack([i, j], 1),
                    types[b, :n] if kinds else None,
                    adj[b, i, j] if typed else None,
                    None if features is None else features[b, :n],
                    None if edge_features is None else edge_features[b, i, j],
                    {k: float(v[b]) for k, v in self.targets.items()},
                )
            )
        return out


def collate(records: Sequence[GraphRecord], max_nodes: int | None = None) -> GraphBatch:
    """Pad graphs to a batch.

    Args:
        records: At least one; all with or all without features, the same width and the same targets.
        max_nodes: Width N; default: the largest graph's.

    Raises:
        ValueError: No records, a graph larger than `max_nodes`, or records that do not go together.
    """
    if not records:
        raise ValueError("cannot make a batch of no graphs")
    sizes = np.array([r.num_nodes for r in records])
    width = int(sizes.max()) if max_nodes is None else max_nodes
    if sizes.max() > width:
        raise ValueError(f"a graph has {int(sizes.max())} nodes; at most {width} fit (max_nodes)")
    batch = len(records)
    mask = np.arange(width) < sizes[:, None]
    node_types = np.zeros((batch, width), np.int64)
    node_types[mask] = np.concatenate(
        [np.zeros(r.num_nodes, np.int64) if r.node_types is None else r.node_types for r in records]
    )
    b = np.repeat(np.arange(batch), [r.num_edges for r in records])
    i, j = np.concatenate([r.edges for r in records]).T
    adj = np.zeros((batch, width, width), np.int64)
    adj[b, i, j] = adj[b, j, i] = np.concatenate(
        [np.ones(r.num_edges, np.int64) if r.edge_types is None else r.edge_types for r in records]
    )
    node_features = edge_features = None
    if (d := _common_width("node_features", records)) is not None:
        node_features = np.zeros((batch, width, d), np.float32)
        node_features[mask] = np.concatenate([r.node_features for r in records])  # pyright: ignore[reportCallIssue, reportArgumentType]
    if (d := _common_width("edge_features", records)) is not None:
        edge_features = np.zeros((batch, width, width, d), np.float32)
        edge_features[b, i, j] = edge_features[b, j, i] = np.concatenate([r.edge_features for r in records])  # pyright: ignore[reportCallIssue, reportArgumentType]
    names = set(records[0].targets)
    if any(set(r.targets) != names for r in records):
        raise ValueError(f"the graphs of a batch have different targets; the first has {sorted(names)}")
    return GraphBatch(
        torch.from_numpy(node_types),
        torch.from_numpy(adj),
        torch.from_numpy(mask),
        None if node_features is None else torch.from_numpy(node_features),
        {k: torch.tensor([r.targets[k] for r in records], dtype=torch.float32) for k in records[0].targets},
        None if edge_features is None else torch.from_numpy(edge_features),
    )


def degree(record: GraphRecord) -> np.ndarray:
    """Number of neighbours of each node, int64 `(n,)`."""
    return np.bincount(record.edges.ravel(), minlength=record.num_nodes)


def from_networkx(graph: nx.Graph) -> GraphRecord:
    """The record of a NetworkX graph; nodes are numbered in the graph's own order.

    Attributes that are read: `node_type` and `features` of nodes, `edge_type` and `features` of edges (all of them
    or none), numeric attributes of the graph (they become targets), and its name.

    Raises:
        ValueError: Directed, repeated edges, self-loops, weights other than 1, or attributes that only some have.
    """
    if graph.is_directed():
        raise ValueError("the graph is directed; use graph.to_undirected() if direction does not matter")
    place = {node: k for k, node in enumerate(graph.nodes)}
    pairs = list(graph.edges(data=True))
    weights = [data["weight"] for _, _, data in pairs if "weight" in data]
    if any(float(w) != 1 for w in weights):
        raise ValueError("the graph has edge weights other than 1; drop the attribute `weight` or give `edge_type`s")
    nodes = [data for _, data in graph.nodes(data=True)]
    edge_data = [data for _, _, data in pairs]
    numeric = {
        str(k): float(v)
        for k, v in graph.graph.items()
        if isinstance(v, (int, float, np.number)) and not isinstance(v, bool)
    }
    return GraphRecord(
        len(place),
        np.array([(place[u], place[v]) for u, v, _ in pairs], np.int64).reshape(-1, 2),
        _attribute("node_type", nodes, "nodes"),
        _attribute("edge_type", edge_data, "edges"),
        _attribute("features", nodes, "nodes"),
        _attribute("features", edge_data, "edges"),
        numeric,
        str(graph.graph["name"]) if graph.graph.get("name") else None,
    )


def to_networkx(record: GraphRecord) -> nx.Graph:
    """A NetworkX graph with nodes 0..n-1 and the attributes :func:`from_networkx` reads."""
    import networkx as nx

    graph = nx.Graph()
    graph.graph.update(record.targets)
    if record.name:
        graph.graph["name"] = record.name
    graph.add_nodes_from(range(record.num_nodes))
    pairs = [(int(i), int(j)) for i, j in record.edges]
    graph.add_edges_from(pairs)
    if record.node_types is not None:
        nx.set_node_attributes(graph, dict(enumerate(record.node_types.tolist())), "node_type")
    if record.node_features is not None:
        nx.set_node_attributes(graph, dict(enumerate(record.node_features.tolist())), "features")
    if record.edge_types is not None:
        nx.set_edge_attributes(graph, dict(zip(pairs, record.edge_types.tolist(), strict=True)), "edge_type")
    if record.edge_features is not None:
        nx.set_edge_attributes(graph, dict(zip(pairs, record.edge_features.tolist(), strict=True)), "features")
    return graph


def from_pyg(data: Data) -> GraphRecord:
    """The record of a PyTorch Geometric `Data` object.

    `edge_index` must hold both directions of every edge. `x` becomes node features, integer `node_type` node types,
    a one-dimensional integer `edge_attr` or `edge_type` edge types (counted from 1), any other `edge_attr` edge
    features, numbers in `y` the targets `y` or `y0`, `y1`, ...

    Raises:
        ValueError: Directed, self-loops, weights other than 1, repeated edges, or no number of nodes.
    """
    if data.num_nodes is None:
        raise ValueError("Data has no number of nodes; set num_nodes")
    n = int(data.num_nodes)
    index = np.zeros((2, 0), np.int64) if data.edge_index is None else data.edge_index.cpu().numpy()
    weight = getattr(data, "edge_weight", None)
    if weight is not None and bool((weight != 1).any()):
        raise ValueError("the graph has edge weights other than 1; drop edge_weight or give integer edge_type")
    i, j = index
    if (i == j).any():
        raise ValueError(f"{int((i == j).sum())} self-loop(s), the first at node {int(i[i == j][0])}")
    if index.size and (index.min() < 0 or index.max() >= n):
        raise ValueError(f"edge_index names node {int(index.max())} outside 0..{n - 1}")
    forward, backward = np.sort(i * n + j), np.sort(j * n + i)
    if not np.array_equal(forward, backward):
        raise ValueError(
            "edge_index does not hold both directions of every edge: the graph is directed "
            "(torch_geometric.utils.to_undirected adds them)"
        )
    upper = i < j
    attr, kinds = getattr(data, "edge_attr", None), getattr(data, "edge_type", None)
    if attr is not None and kinds is None and attr.ndim == 1 and not attr.is_floating_point():
        attr, kinds = None, attr
    for values, what in ((attr, "edge_attr"), (kinds, "edge_type")):
        if values is not None:
            by_pair = values.cpu().numpy()
            if not np.array_equal(by_pair[np.argsort(i * n + j)], by_pair[np.argsort(j * n + i)]):
                raise ValueError(f"{what} differs between the two directions of an edge: the graph is directed")
    node_types = getattr(data, "node_type", None)
    return GraphRecord(
        n,
        index[:, upper].T,
        None if node_types is None else node_types.cpu().numpy(),
        None if kinds is None else kinds.cpu().numpy()[upper],
        None if data.x is None else _columns(data.x),
        None if attr is None else _columns(attr)[upper],
        _pyg_targets(data),
    )


def to_pyg(record: GraphRecord) -> Data:
    """A PyTorch Geometric `Data` object with the attributes :func:`from_pyg` reads (targets as `y` in name order)."""
    from torch_geometric.data import Data

    both = np.concatenate([record.edges, record.edges[:, ::-1]]).T
    data = Data(edge_index=torch.from_numpy(np.ascontiguousarray(both)), num_nodes=record.num_nodes)
    if record.node_types is not None:
        data.node_type = torch.from_numpy(record.node_types.copy())
    if record.edge_types is not None:
        data.edge_type = torch.from_numpy(np.tile(record.edge_types, 2))
    if record.node_features is not None:
        data.x = torch.from_numpy(record.node_features.copy())
    if record.edge_features is not None:
        data.edge_attr = torch.from_numpy(np.tile(record.edge_features, (2, 1)))
    if record.targets:
        data.y = torch.tensor([[record.targets[k] for k in sorted(record.targets)]], dtype=torch.float32)
    return data


def to_records(graphs: Iterable[GraphRecord | nx.Graph | Data], on_bad: OnBad = OnBad.RAISE) -> Intake[GraphRecord]:
    """Records of graphs of any kind, with the list of those that could not be used.

    Args:
        graphs: Records, NetworkX graphs, PyTorch Geometric `Data`, mixed at will.
        on_bad: Stop at the first unusable one, or leave it out and list it.

    Raises:
        ValueError: An unusable graph and `on_bad` is RAISE.
        TypeError: Something that is not a graph.
    """
    intake: Intake[GraphRecord] = Intake(on_bad)
    return intake.take_all(((f"graph {k}", g) for k, g in enumerate(graphs)), as_record)


def as_record(graph: GraphRecord | nx.Graph | Data) -> GraphRecord:
    """The record of a graph of any kind.

    Raises:
        ValueError: It is not a simple undirected graph.
        TypeError: It is not a graph.
    """
    if isinstance(graph, GraphRecord):
        return graph
    if hasattr(graph, "is_directed") and hasattr(graph, "nodes"):
        return from_networkx(graph)  # pyright: ignore[reportArgumentType]
    if hasattr(graph, "edge_index"):
        return from_pyg(graph)  # pyright: ignore[reportArgumentType]
    raise TypeError(f"expected a GraphRecord, networkx.Graph or PyG Data, got {type(graph).__name__}")


def _integers(what: str, values: Any) -> np.ndarray:
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.size == 0:
        return array.astype(np.int64)
    if not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{what} must be integers, got {array.dtype}")
    return array.astype(np.int64)


def _types(what: str, values: Any, count: int, lowest: int) -> np.ndarray:
    array = _integers(what, values)
    if array.shape != (count,):
        raise ValueError(f"{what} must have shape ({count},), got {array.shape}")
    if array.size and array.min() < lowest:
        raise ValueError(f"{what} count from {lowest}, got {int(array.min())}")
    return array


def _features(what: str, values: Any, count: int) -> np.ndarray:
    array = np.array(values, np.float32)
    if count == 0 and array.size == 0 and array.ndim == 1:
        array = array.reshape(0, 1)
    if array.ndim != 2 or len(array) != count:
        raise ValueError(f"{what} must have shape ({count}, d), got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{what} hold values that are not finite")
    return array


def _common_width(what: str, records: Sequence[GraphRecord]) -> int | None:
    # A graph without edges says nothing about the width of edge features.
    widths = {
        None if getattr(r, what) is None else getattr(r, what).shape[1]
        for r in records
        if what == "node_features" or r.num_edges
    }
    if len(widths) > 1:
        raise ValueError(f"the graphs of a batch have {what} of different widths: {sorted(widths, key=str)}")
    return widths.pop() if widths else None


def _attribute(key: str, items: list[dict[str, Any]], what: str) -> np.ndarray | None:
    values = [item[key] for item in items if key in item]
    if not values:
        return None
    if len(values) != len(items):
        raise ValueError(f"only {len(values)} of {len(items)} {what} have the attribute {key!r}")
    array = np.asarray(values)
    return array[:, None] if key == "features" and array.ndim == 1 else array


def _columns(values: Tensor) -> np.ndarray:
    array = values.detach().cpu().float().numpy()
    return array[:, None] if array.ndim == 1 else array


def _pyg_targets(data: Data) -> dict[str, float]:
    y = getattr(data, "y", None)
    if y is None:
        return {}
    numbers = torch.as_tensor(y).reshape(-1).tolist()
    return {"y": numbers[0]} if len(numbers) == 1 else {f"y{k}": v for k, v in enumerate(numbers)}
