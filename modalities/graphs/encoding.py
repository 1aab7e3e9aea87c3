"""From graphs to the components of a joint diffusion and back.

    x               (B, N, K - 1)      code of the node type (or of the degree)
    features        (B, N, d)          real node features, standardised
    adj             (B, N, N, M - 1)   code of the edge type, "none" being one of the M classes
    edge_features   (B, N, N, d')      real edge features, standardised, 0 where there is no edge

Components the data do not have are absent: plain graphs are "adj" alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from ...core import Full, GaussianPath, JointPath, Schedule, Symmetric
from .codes import Codebook
from .records import GraphBatch, GraphRecord
from .statistics import GraphStatistics

__all__ = ["NODE_COMPONENTS", "NODE_STATES", "PAIR_COMPONENTS", "GraphEncoding"]

NODE_COMPONENTS = ("x", "features")
PAIR_COMPONENTS = ("adj", "edge_features")
NODE_STATES = ("types", "degree")


class GraphEncoding(nn.Module):
    """The components of graphs with these statistics.

    Args:
        statistics: of the training graphs.
        schedule: of all components.
        node_state: "types" or "degree", what "x" stands for.

    Attributes:
        path: the joint path of the components.
        widths: channels of the components that are real numbers.
    """

    def __init__(self, statistics: GraphStatistics, schedule: Schedule, node_state: str = "types") -> None:
        super().__init__()
        if node_state not in NODE_STATES:
            raise ValueError(f"node_state must be 'types' or 'degree', got {node_state!r}")
        self.statistics, self.node_state = statistics, node_state
        components: dict[str, GaussianPath] = {}
        books: dict[str, Codebook] = {}
        self.widths: dict[str, int] = {}
        node_counts = statistics.degree_counts if node_state == "degree" else statistics.node_counts
        if len(node_counts) > 1:
            components["x"] = GaussianPath(schedule)
            books["x"] = Codebook(torch.tensor(node_counts))
        if statistics.feature_mean:
            components["features"] = GaussianPath(schedule, Full())
            self.widths["features"] = len(statistics.feature_mean)
        components["adj"] = GaussianPath(schedule, Symmetric())
        books["adj"] = Codebook(torch.tensor(statistics.edge_counts))
        if statistics.edge_feature_mean:
            components["edge_features"] = GaussianPath(schedule, Symmetric())
            self.widths["edge_features"] = len(statistics.edge_feature_mean)
        self.path = JointPath(components)
        self.codebooks = nn.ModuleDict(books)

    def book(self, name: str) -> Codebook:
        """The classes of a component that is a code."""
        book = self.codebooks[name]
        assert isinstance(book, Codebook)
        return book

    def channels(self, name: str) -> int:
        """Channels of a component."""
        return self.book(name).channels if name in self.codebooks else self.widths[name]

    def outputs(self, name: str) -> int:
        """Numbers a network returns per entry of a component: classes of a code, channels of real numbers."""
        return self.book(name).classes if name in self.codebooks else self.widths[name]

    def shapes(self, batch: int, size: int) -> dict[str, tuple[int, ...]]:
        """Shapes of the components for ``batch`` graphs padded to ``size`` nodes."""
        return {k: (batch, *(size,) * (2 if k in PAIR_COMPONENTS else 1), self.channels(k)) for k in self.path}

    def encode(self, batch: GraphBatch, *, partial: bool = False) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Clean states.

        Args:
            batch: the graphs.
            partial: whether features may be missing (parts to be completed).

        Returns:
            The components, and the class indices of those that are codes.

        Raises:
            ValueError: for types the model does not know, or features that are missing.
        """
        facts = self.statistics
        labels: dict[str, Tensor] = {}
        state: dict[str, Tensor] = {}
        if "x" in self.codebooks:
            types = (batch.adj > 0).sum(-1) if self.node_state == "degree" else batch.node_types
            labels["x"] = torch.where(batch.mask, types, 0)
        labels["adj"] = batch.adj
        for name, index in labels.items():
            book = self.book(name)
            if index.numel() and int(index.max()) >= book.classes:
                what = {"x": "node", "adj": "edge"}[name]
                raise ValueError(
                    f"the model knows {book.classes} {what} classes, the data have class {int(index.max())}"
                )
            state[name] = book.encode(index)
        if facts.feature_mean and not (partial and batch.node_features is None):
            state["features"] = _standardise(batch.node_features, facts.feature_mean, facts.feature_std, "node")
        if facts.edge_feature_mean and not (partial and batch.edge_features is None):
            scaled = _standardise(batch.edge_features, facts.edge_feature_mean, facts.edge_feature_std, "edge")
            state["edge_features"] = torch.where((batch.adj > 0).unsqueeze(-1), scaled, 0)
        return {k: state[k] for k in self.path if k in state}, labels

    def decode(self, state: Mapping[str, Tensor], mask: Tensor) -> list[GraphRecord]:
        """Graphs from clean components: the nearest class of every node and pair.

        Args:
            state: the components.
            mask: nodes that exist, (B, N), the first ones of each row.
        """
        facts = self.statistics
        adj = self.book("adj").decode(state["adj"])
        pairs = mask[:, :, None] & mask[:, None, :] & ~torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
        adj = torch.where(pairs, adj, 0)
        types = torch.zeros_like(mask, dtype=torch.int64)
        if "x" in state and self.node_state == "types":
            types = torch.where(mask, self.book("x").decode(state["x"]), 0)
        features = edge_features = None
        if "features" in state:
            features = _restore(state["features"], facts.feature_mean, facts.feature_std) * mask.unsqueeze(-1)
        if "edge_features" in state:
            scaled = _restore(state["edge_features"], facts.edge_feature_mean, facts.edge_feature_std)
            edge_features = scaled * (adj > 0).unsqueeze(-1)
        records = GraphBatch(types, adj, mask, features, {}, edge_features).to("cpu").records()
        if len(facts.node_counts) == 1 and len(facts.edge_counts) == 2:
            return records
        # a batch that happens to hold one type only is still one of typed graphs
        return [_typed(record) for record in records]


def _typed(record: GraphRecord) -> GraphRecord:
    nodes = np.zeros(record.num_nodes, np.int64) if record.node_types is None else record.node_types
    edges = np.ones(record.num_edges, np.int64) if record.edge_types is None else record.edge_types
    return replace(record, node_types=nodes, edge_types=edges)


def _standardise(values: Tensor | None, mean: Sequence[float], std: Sequence[float], what: str) -> Tensor:
    if values is None or values.shape[-1] != len(mean):
        got = "none" if values is None else str(values.shape[-1])
        raise ValueError(f"the model knows {len(mean)} {what} features, the data have {got}")
    return (values - values.new_tensor(mean)) / values.new_tensor(std)


def _restore(values: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    return values * values.new_tensor(std) + values.new_tensor(mean)
