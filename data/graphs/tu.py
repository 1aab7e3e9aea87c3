"""Graph collections in the text format of TU Dortmund: a folder `NAME/` with `NAME_A.txt` and its companions.

    NAME_A.txt                 "i, j" per line, nodes counted from 1 over all graphs, both directions of every edge
    NAME_graph_indicator.txt   graph of every node, counted from 1
    NAME_graph_labels.txt      class of every graph
    NAME_node_labels.txt       type of every node (optional)
    NAME_node_attributes.txt   features of every node (optional)

Source: Morris et al. 2020, "TUDataset: a collection of benchmark datasets for learning with graphs".
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...modalities.graphs.intake import Intake, OnBad
from ...modalities.graphs.records import GraphRecord
from ..errors import DataError


def read_tu(folder: str | Path, *, features: bool = False, on_bad: OnBad = OnBad.SKIP) -> Intake[GraphRecord]:
    """Graphs of a TU collection with node types, and the class of the graph as target "class".

    Args:
        folder: Holds the text files.
        features: Keep node attributes as features.
        on_bad: What to do with graphs that are not simple and undirected.

    Raises:
        DataError: Files are missing or do not fit together.
    """
    folder = Path(folder)
    found = sorted(folder.glob("*_A.txt"))
    if len(found) != 1:
        raise DataError(f"{folder} holds {len(found)} files *_A.txt; a TU collection has one")
    name = found[0].name.removesuffix("_A.txt")

    def table(what: str, kind: type) -> np.ndarray | None:
        path = folder / f"{name}_{what}.txt"
        try:
            return np.loadtxt(path, kind, delimiter=",", ndmin=2) if path.is_file() else None
        except ValueError as error:
            raise DataError(f"{path}: {error}") from error

    arcs, graph_of = table("A", np.int64), table("graph_indicator", np.int64)
    if arcs is None or graph_of is None:
        raise DataError(f"{folder} lacks {name}_graph_indicator.txt")
    owner = graph_of[:, 0] - 1
    arcs = arcs - 1
    if arcs.min() < 0 or arcs.max() >= len(owner) or (np.diff(owner) < 0).any():
        raise DataError(f"{folder}: {name}_A.txt and {name}_graph_indicator.txt do not fit together")
    labels, attributes = table("node_labels", np.int64), table("node_attributes", np.float64) if features else None
    classes = table("graph_labels", np.int64)
    sizes = np.bincount(owner)
    first = np.concatenate([[0], np.cumsum(sizes)])
    # Types count from 0 whatever the files count from.
    kinds = None if labels is None else np.unique(labels[:, 0], return_inverse=True)[1]
    arcs = arcs[np.argsort(owner[arcs[:, 0]], kind="stable")]
    ptr = np.searchsorted(owner[arcs[:, 0]], np.arange(len(sizes) + 1))

    def build(k: int) -> GraphRecord:
        own, rows = arcs[ptr[k] : ptr[k + 1]] - first[k], slice(first[k], first[k + 1])
        forward = own[own[:, 0] <= own[:, 1]]
        backward = own[own[:, 0] >= own[:, 1]][:, ::-1]
        if not np.array_equal(np.unique(forward, axis=0), np.unique(backward, axis=0)):
            raise ValueError("not every edge has its reverse: the graph is directed")
        return GraphRecord(
            int(sizes[k]),
            np.unique(forward, axis=0),
            None if kinds is None else kinds[rows],
            node_features=None if attributes is None else attributes[rows],
            targets={} if classes is None else {"class": float(classes[k, 0])},
            name=f"{name} {k}",
        )

    intake: Intake[GraphRecord] = Intake(on_bad)
    return intake.take_all(((f"{name} {k}", k) for k in range(len(sizes))), build)


def without_isolated(graph: GraphRecord) -> GraphRecord:
    """The graph without nodes that have no edge (at least one node stays)."""
    kept = np.unique(graph.edges) if graph.num_edges else np.zeros(1, np.int64)
    place = np.full(graph.num_nodes, -1)
    place[kept] = np.arange(len(kept))
    return GraphRecord(
        len(kept),
        place[graph.edges],
        None if graph.node_types is None else graph.node_types[kept],
        graph.edge_types,
        None if graph.node_features is None else graph.node_features[kept],
        graph.edge_features,
        graph.targets,
        graph.name,
    )
