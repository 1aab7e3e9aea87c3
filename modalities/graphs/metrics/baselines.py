"""Generators that know almost nothing: what a model must beat.

Erdos-Renyi graphs have the sizes and densities of the training graphs and no structure. Shuffled molecules have the
atoms and bonds of a training molecule in random places.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..records import GraphRecord


def bernoulli_graph(probabilities: np.ndarray, rng: np.random.Generator) -> GraphRecord:
    """Every pair i < j is an edge with probability `probabilities[i, j]`, independently."""
    i, j = np.triu_indices(len(probabilities), 1)
    hit = rng.random(len(i)) < probabilities[i, j]
    return GraphRecord(len(probabilities), np.stack([i[hit], j[hit]], 1))


def erdos_renyi_like(reference: Sequence[GraphRecord], count: int, seed: int) -> list[GraphRecord]:
    """Graphs with size n and edge probability M / C(n, 2) of random reference graphs.

    Args:
        reference: Where (n, M) come from.
        count: How many.
        seed: Graph k depends on (seed, k) alone.

    Raises:
        ValueError: No reference.
    """
    graphs = []
    for model, rng in _models(reference, count, seed):
        n = model.num_nodes
        pairs = n * (n - 1) / 2
        graphs.append(bernoulli_graph(np.full((n, n), model.num_edges / pairs if pairs else 0.0), rng))
    return graphs


def shuffled_like(reference: Sequence[GraphRecord], count: int, seed: int) -> list[GraphRecord]:
    """Random reference graphs with node types permuted and edges (with their types) moved to random pairs.

    Raises:
        ValueError: No reference.
    """
    graphs = []
    for model, rng in _models(reference, count, seed):
        n = model.num_nodes
        i, j = np.triu_indices(n, 1)
        pairs = rng.permutation(len(i))[: model.num_edges]
        types = None if model.node_types is None else rng.permutation(model.node_types)
        graphs.append(GraphRecord(n, np.stack([i[pairs], j[pairs]], 1), types, model.edge_types))
    return graphs


def _models(reference: Sequence[GraphRecord], count: int, seed: int) -> list[tuple[GraphRecord, np.random.Generator]]:
    if not reference:
        raise ValueError("no reference graphs to take sizes from")
    models = []
    for k in range(count):
        rng = np.random.default_rng([seed, k])
        models.append((reference[int(rng.integers(len(reference)))], rng))
    return models
