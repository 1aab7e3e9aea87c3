"""Small random PARD models in float64 and graphs for them."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import torch

from fourfold.modalities.graphs.block_batch import BlockBatch
from fourfold.modalities.graphs.pard import PARD
from fourfold.modalities.graphs.pard_network import Rows
from fourfold.modalities.graphs.records import GraphRecord


def random_graphs(count: int, largest: int = 9, node_types: int = 3, edge_types: int = 2) -> list[GraphRecord]:
    """Graphs with types, isolated nodes and several parts among them."""
    rng = np.random.default_rng(0)
    records = []
    for k in range(count):
        n = int(rng.integers(1, largest + 1))
        edges = np.array(nx.gnp_random_graph(n, 0.35, seed=k).edges, np.int64).reshape(-1, 2)
        records.append(
            GraphRecord(n, edges, rng.integers(node_types, size=n), rng.integers(1, edge_types + 1, size=len(edges)))
        )
    return records


def random_model(records: list[GraphRecord], **options: Any) -> PARD:
    """A model with random weights in all its heads."""
    model = PARD(**{"width": 12, "pair_width": 6, "layers": 2, "heads": 2, "steps": 4, **options})
    model.learn(records)
    model = model.double().eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


def rows_of(graphs: BlockBatch, types: torch.Tensor, adj: torch.Tensor, t: torch.Tensor) -> Rows:
    """All nodes as rows."""
    same = torch.eye(types.shape[1], dtype=torch.bool)
    size, degree = graphs.of_node(graphs.sizes), graphs.of_node(graphs.degrees)
    return Rows(types[None], adj[None], t[None], graphs.block, graphs.block, size, degree, same)
