"""Many graphs in a few arrays: small in memory, fast to batch, one file without pickles on disk.

Nodes and edges of all graphs stand one after the other; graph k owns the nodes `node_ptr[k]:node_ptr[k + 1]` and the
edges `edge_ptr[k]:edge_ptr[k + 1]`. A selection shares the arrays and only keeps other indices.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import overload

import numpy as np
import torch

from .records import GraphBatch, GraphRecord

_OPTIONAL = ("node_types", "edge_types", "node_features", "edge_features")


class PackedGraphs(Sequence[GraphRecord]):
    """A sequence of graphs kept in arrays.

    Args:
        arrays: `node_ptr (G + 1,)`, `edge_ptr (G + 1,)`, `edges (M, 2)` with i < j; optional `node_types`,
            `edge_types`, `node_features`, `edge_features`, `names`, and `target_NAME (G,)` for every target.
        chosen: Which graphs, in which order; default: all.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], chosen: np.ndarray | None = None) -> None:
        self.arrays = dict(arrays)
        count = len(self.arrays["node_ptr"]) - 1
        self.chosen: np.ndarray = np.arange(count) if chosen is None else np.asarray(chosen, np.int64)
        self.targets = [key.removeprefix("target_") for key in self.arrays if key.startswith("target_")]

    @classmethod
    def pack(cls, graphs: Sequence[GraphRecord], *, names: bool = True) -> PackedGraphs:
        """Pack records; all must agree in what they have (types count as 0 or 1 where some graphs have none).

        Args:
            graphs: At least one.
            names: Keep their names.

        Raises:
            ValueError: No graphs, or graphs with different features or targets.
        """
        if isinstance(graphs, PackedGraphs):
            return graphs
        if not graphs:
            raise ValueError("no graphs to pack")
        arrays = {
            "node_ptr": np.cumsum([0, *(g.num_nodes for g in graphs)]),
            "edge_ptr": np.cumsum([0, *(g.num_edges for g in graphs)]),
            "edges": _shrink(np.concatenate([g.edges for g in graphs])),
        }
        if any(g.node_types is not None for g in graphs):
            kinds = [np.zeros(g.num_nodes, np.int64) if g.node_types is None else g.node_types for g in graphs]
            arrays["node_types"] = _shrink(np.concatenate(kinds))
        if any(g.edge_types is not None for g in graphs):
            kinds = [np.ones(g.num_edges, np.int64) if g.edge_types is None else g.edge_types for g in graphs]
            arrays["edge_types"] = _shrink(np.concatenate(kinds))
        for what, has_items in (("node_features", lambda g: True), ("edge_features", lambda g: g.num_edges > 0)):
            found = [getattr(g, what) for g in graphs if has_items(g)]
            if any(f is not None for f in found):
                if any(f is None for f in found) or len({f.shape[1] for f in found}) > 1:
                    raise ValueError(f"some graphs have no {what}, or {what} of another width")
                arrays[what] = np.concatenate(found)
        targets = set(graphs[0].targets)
        if any(set(g.targets) != targets for g in graphs):
            raise ValueError(f"the graphs have different targets; the first has {sorted(targets)}")
        for name in graphs[0].targets:
            arrays[f"target_{name}"] = np.array([g.targets[name] for g in graphs])
        if names and any(g.name for g in graphs):
            arrays["names"] = np.array([g.name or "" for g in graphs])
        return cls(arrays)

    @classmethod
    def join(cls, parts: Sequence[PackedGraphs]) -> PackedGraphs:
        """Several packs one after the other; all must hold the same arrays (types are filled in where some lack them).

        Raises:
            ValueError: Nothing to join, or packs with different features, targets or names.
        """
        if not parts:
            raise ValueError("no graphs to join")
        compact = [part.compact() for part in parts]
        keys = set().union(*(part.arrays for part in compact))
        arrays: dict[str, np.ndarray] = {}
        for key in sorted(keys):
            columns = [part._column(key) for part in compact]
            if key.endswith("_ptr"):
                starts = np.cumsum([0, *(column[-1] for column in columns[:-1])])
                columns = [
                    column[int(k > 0) :] + start for k, (column, start) in enumerate(zip(columns, starts, strict=True))
                ]
            arrays[key] = np.concatenate(columns)
        return cls(arrays)

    @classmethod
    def load(cls, path: str | Path) -> PackedGraphs:
        """Read what :meth:`save` wrote.

        Raises:
            ValueError: Not such a file.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {key: file[key] for key in file.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} is not a file of packed graphs: {error}") from error
        missing = {"node_ptr", "edge_ptr", "edges"} - arrays.keys()
        if missing:
            raise ValueError(f"{path} is not a file of packed graphs: it has no {', '.join(sorted(missing))}")
        return cls(arrays)

    def save(self, path: str | Path) -> None:
        """Write the selected graphs into one npz file."""
        with open(path, "wb") as file:
            np.savez_compressed(file, allow_pickle=False, **self.compact().arrays)

    def compact(self) -> PackedGraphs:
        """The selected graphs in arrays of their own."""
        if np.array_equal(self.chosen, np.arange(len(self.arrays["node_ptr"]) - 1)):
            return self
        nodes, node_counts = self._ranges("node_ptr", self.chosen)
        edges, edge_counts = self._ranges("edge_ptr", self.chosen)
        rows = {
            "node_types": nodes,
            "node_features": nodes,
            "edges": edges,
            "edge_types": edges,
            "edge_features": edges,
        }
        arrays = {key: value[rows.get(key, self.chosen)] for key, value in self.arrays.items() if "ptr" not in key}
        pointers = {
            "node_ptr": np.concatenate([[0], np.cumsum(node_counts)]),
            "edge_ptr": np.concatenate([[0], np.cumsum(edge_counts)]),
        }
        return PackedGraphs({**pointers, **arrays})

    def select(self, positions: np.ndarray | Sequence[int]) -> PackedGraphs:
        """Some of the graphs, without copying them."""
        return PackedGraphs(self.arrays, self.chosen[np.asarray(positions, np.int64)])

    def with_targets(self, targets: Mapping[str, np.ndarray]) -> PackedGraphs:
        """The same graphs with these targets, each `(len(self),)`, in place of their own of the same name."""
        packed = self.compact()
        return PackedGraphs({**packed.arrays, **{f"target_{k}": np.asarray(v, np.float64) for k, v in targets.items()}})

    @property
    def sizes(self) -> np.ndarray:
        """Number of nodes of each graph, `(G,)`."""
        ptr = self.arrays["node_ptr"]
        return (ptr[1:] - ptr[:-1])[self.chosen]

    def target(self, name: str) -> np.ndarray:
        """Values of a target, `(G,)`.

        Raises:
            ValueError: The graphs have no such target.
        """
        if name not in self.targets:
            raise ValueError(f"no target {name!r}; the graphs have {', '.join(self.targets) or 'none'}")
        return self.arrays[f"target_{name}"][self.chosen]

    def __len__(self) -> int:
        return len(self.chosen)

    def __iter__(self) -> Iterator[GraphRecord]:
        return (self[k] for k in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> GraphRecord: ...
    @overload
    def __getitem__(self, index: slice) -> list[GraphRecord]: ...
    def __getitem__(self, index: int | slice) -> GraphRecord | list[GraphRecord]:
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(len(self)))]
        k, a = int(self.chosen[index]), self.arrays
        nodes = slice(a["node_ptr"][k], a["node_ptr"][k + 1])
        edges = slice(a["edge_ptr"][k], a["edge_ptr"][k + 1])
        parts = dict(zip(_OPTIONAL, (nodes, edges, nodes, edges), strict=True))
        return GraphRecord(
            int(nodes.stop - nodes.start),
            a["edges"][edges],
            **{key: a[key][rows] for key, rows in parts.items() if key in a},
            targets={name: float(a[f"target_{name}"][k]) for name in self.targets},
            name=str(a["names"][k]) or None if "names" in a else None,
        )

    def __getitems__(self, positions: list[int]) -> GraphBatch:
        # torch's DataLoader calls this for a whole batch; see `batch`.
        return self.batch(positions)

    def batch(self, positions: Sequence[int] | np.ndarray, max_nodes: int | None = None) -> GraphBatch:
        """Some of the graphs as a padded batch, as :func:`~.records.collate` makes it.

        Args:
            positions: Which graphs.
            max_nodes: Width; default: the largest graph's.

        Raises:
            ValueError: No graphs, or one larger than `max_nodes`.
        """
        chosen, a = self.chosen[np.asarray(positions, np.int64)], self.arrays
        if not len(chosen):
            raise ValueError("cannot make a batch of no graphs")
        node_rows, sizes = self._ranges("node_ptr", chosen)
        edge_rows, counts = self._ranges("edge_ptr", chosen)
        count, width = len(chosen), int(sizes.max()) if max_nodes is None else max_nodes
        if sizes.max() > width:
            raise ValueError(f"a graph has {int(sizes.max())} nodes; at most {width} fit (max_nodes)")
        mask = np.arange(width) < sizes[:, None]
        node_types = np.zeros((count, width), np.int64)
        if "node_types" in a:
            node_types[mask] = a["node_types"][node_rows]
        b, (i, j) = np.repeat(np.arange(count), counts), a["edges"][edge_rows].T
        adj = np.zeros((count, width, width), np.int64)
        adj[b, i, j] = adj[b, j, i] = a["edge_types"][edge_rows] if "edge_types" in a else 1
        node_features = edge_features = None
        if "node_features" in a:
            node_features = np.zeros((count, width, a["node_features"].shape[1]), np.float32)
            node_features[mask] = a["node_features"][node_rows]
        if "edge_features" in a:
            edge_features = np.zeros((count, width, width, a["edge_features"].shape[1]), np.float32)
            edge_features[b, i, j] = edge_features[b, j, i] = a["edge_features"][edge_rows]
        return GraphBatch(
            torch.from_numpy(node_types),
            torch.from_numpy(adj),
            torch.from_numpy(mask),
            None if node_features is None else torch.from_numpy(node_features),
            {name: torch.from_numpy(a[f"target_{name}"][chosen].astype(np.float32)) for name in self.targets},
            None if edge_features is None else torch.from_numpy(edge_features),
        )

    def _column(self, key: str) -> np.ndarray:
        if key in self.arrays:
            return self.arrays[key]
        if key == "node_types":
            return np.zeros(self.arrays["node_ptr"][-1], np.uint8)
        if key == "edge_types":
            return np.ones(self.arrays["edge_ptr"][-1], np.uint8)
        raise ValueError(f"some graphs have {key}, others do not")

    def _ranges(self, pointer: str, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ptr = self.arrays[pointer]
        start, counts = ptr[chosen], ptr[chosen + 1] - ptr[chosen]
        offset = np.repeat(start - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts)
        return offset + np.arange(int(counts.sum())), counts


def _shrink(values: np.ndarray) -> np.ndarray:
    largest = int(values.max(initial=0))
    return values.astype(np.uint8 if largest < 2**8 else np.uint16 if largest < 2**16 else np.int64)
