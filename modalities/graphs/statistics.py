"""What a model learns from the data before training: sizes, frequencies of types, scales, atoms.

Sizes are drawn as they occur in the training data: P(n) = (graphs with n nodes)/(graphs).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...core import NoiseSource
from .packed import PackedGraphs
from .records import GraphRecord

__all__ = ["GraphStatistics"]


@dataclass(frozen=True)
class GraphStatistics:
    """Facts about a set of graphs, as plain values.

    Args:
        sizes: number of graphs with n nodes at index n.
        node_counts: number of nodes of each type.
        edge_counts: number of pairs of each edge type, index 0 being "no edge".
        degree_counts: number of nodes of each degree.
        feature_mean, feature_std: of the node features, empty without.
        edge_feature_mean, edge_feature_std: of the edge features, empty without.
        target_mean, target_std: of the target, if there is one.
        atoms: (symbol, formal charge) of each node type; empty if the graphs are not molecules.
    """

    sizes: tuple[int, ...]
    node_counts: tuple[int, ...]
    edge_counts: tuple[int, ...]
    degree_counts: tuple[int, ...] = ()
    feature_mean: tuple[float, ...] = ()
    feature_std: tuple[float, ...] = ()
    edge_feature_mean: tuple[float, ...] = ()
    edge_feature_std: tuple[float, ...] = ()
    target_mean: float = 0.0
    target_std: float = 1.0
    atoms: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(
        cls, records: Sequence[GraphRecord], *, target: str | None = None, atoms: Sequence[tuple[str, int]] = ()
    ) -> GraphStatistics:
        """Counts graphs.

        Args:
            records: the training graphs.
            target: name of the property graphs are generated for.
            atoms: meaning of the node types of molecules.

        Raises:
            ValueError: without graphs, or if they lack the target.
        """
        if not len(records):
            raise ValueError("there are no graphs to learn from: the training set is empty")
        packed = PackedGraphs.pack(records).compact()
        arrays, sizes = packed.arrays, packed.sizes
        nodes, edges = int(sizes.sum()), arrays["edges"].astype(np.int64)
        types = arrays.get("node_types", np.zeros(nodes, np.int64))
        node_counts = np.bincount(types, minlength=max(len(atoms), 1))
        kinds = arrays.get("edge_types", np.ones(len(edges), np.int64))
        edge_counts = np.bincount(kinds, minlength=4 if atoms else 2)
        edge_counts[0] = (sizes * (sizes - 1) // 2).sum() - len(edges)
        first = np.repeat(arrays["node_ptr"][:-1], np.diff(arrays["edge_ptr"]))
        degrees = np.bincount(np.bincount((edges + first[:, None]).ravel(), minlength=nodes))
        mean, std = _moments(arrays.get("node_features"))
        edge_mean, edge_std = _moments(arrays.get("edge_features"))
        values = np.zeros(1)
        if target is not None:
            if target not in packed.targets:
                known = ", ".join(packed.targets) or "none"
                raise ValueError(f"the graphs have no target {target!r}; known targets: {known}")
            values = packed.target(target)
            values = values[np.isfinite(values)]
            if not len(values):
                raise ValueError(f"the target {target!r} is not known for any graph")
        return cls(
            tuple(np.bincount(sizes).tolist()),
            tuple(node_counts.tolist()),
            tuple(edge_counts.tolist()),
            tuple(degrees.tolist()),
            mean,
            std,
            edge_mean,
            edge_std,
            float(values.mean()),
            float(values.std()) or 1.0,
            tuple((str(symbol), int(charge)) for symbol, charge in atoms),
        )

    @classmethod
    def from_plain(cls, value: Mapping[str, Any]) -> GraphStatistics:
        """From the result of :meth:`plain`."""
        fields = {k: _tuples(v) for k, v in value.items()}
        return cls(**fields)

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        return {k: _lists(v) for k, v in asdict(self).items()}

    @property
    def max_nodes(self) -> int:
        """Nodes of the largest graph."""
        return len(self.sizes) - 1

    def draw_sizes(self, noise: NoiseSource, key: int = 0) -> Tensor:
        """A number of nodes for each id, int64 (B,)."""
        cumulative = torch.tensor(self.sizes, dtype=torch.float64).cumsum(0)
        u = noise.uniform(torch.empty(len(noise), dtype=torch.float64), key)
        return torch.searchsorted(cumulative, u * cumulative[-1], right=True).clamp(max=self.max_nodes)


def _moments(features: np.ndarray | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if features is None or not len(features):
        return (), ()
    std = features.std(0, dtype=np.float64)
    return tuple(features.mean(0, dtype=np.float64).tolist()), tuple(np.where(std > 1e-6, std, 1.0).tolist())


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list | tuple) else value


def _lists(value: Any) -> Any:
    return [_lists(v) for v in value] if isinstance(value, list | tuple) else value
