"""What a graph looks like in numbers: the four descriptions that MMDs compare.

    degree      share of nodes of each degree
    clustering  histogram of the clustering coefficients 2 t_i / (d_i (d_i - 1)) in 100 bins on [0, 1]
    orbit       mean over nodes of the 15 orbit counts (not a histogram)
    spectral    histogram of the eigenvalues of the normalised Laplacian in 200 bins on [-1e-5, 2]

Source: You et al. 2018 (GraphRNN), Liao et al. 2019 (GRAN).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..records import GraphRecord, degree
from .orbits import orbit_counts

CLUSTERING_BINS = 100
SPECTRAL_BINS = 200


def degree_histogram(graph: GraphRecord) -> np.ndarray:
    """Share of nodes of degree 0, 1, ..., largest degree."""
    return np.bincount(degree(graph)) / graph.num_nodes


def clustering_coefficients(graph: GraphRecord) -> np.ndarray:
    """Share of pairs of neighbours that are neighbours themselves, `(n,)`; 0 for degrees below 2."""
    adj = np.zeros((graph.num_nodes, graph.num_nodes))
    i, j = graph.edges.T
    adj[i, j] = adj[j, i] = 1
    d = adj.sum(1)
    return (adj * (adj @ adj)).sum(1) / np.maximum(1, d * (d - 1))


def clustering_histogram(graph: GraphRecord) -> np.ndarray:
    """Shares of the clustering coefficients in 100 bins on [0, 1]."""
    counts, _ = np.histogram(clustering_coefficients(graph), bins=CLUSTERING_BINS, range=(0.0, 1.0))
    return counts / graph.num_nodes


def orbit_means(graph: GraphRecord) -> np.ndarray:
    """Mean count of each of the 15 orbits per node."""
    return orbit_counts(graph).sum(0) / graph.num_nodes


def spectral_histogram(graph: GraphRecord) -> np.ndarray:
    """Shares of the eigenvalues of the normalised Laplacian in 200 bins; an isolated node gives eigenvalue 0."""
    n = graph.num_nodes
    d = degree(graph)
    scale = np.where(d > 0, 1 / np.sqrt(np.maximum(d, 1)), 0)
    i, j = graph.edges.T
    laplacian = np.diag((d > 0).astype(np.float64))
    laplacian[i, j] = laplacian[j, i] = -scale[i] * scale[j]
    counts, _ = np.histogram(np.linalg.eigvalsh(laplacian), bins=SPECTRAL_BINS, range=(-1e-5, 2.0))
    # As published: eigenvalues that rounding puts above 2 fall out, and the rest counts as the whole.
    return counts / max(1, counts.sum()) if n else counts


DESCRIPTORS: Mapping[str, Callable[[GraphRecord], np.ndarray]] = {
    "degree": degree_histogram,
    "clustering": clustering_histogram,
    "orbit": orbit_means,
    "spectral": spectral_histogram,
}


def describe(graphs: Sequence[GraphRecord], statistic: str) -> np.ndarray:
    """One row per graph, padded with zeros to the longest, `(G, L)`.

    Raises:
        ValueError: An unknown statistic.
    """
    if statistic not in DESCRIPTORS:
        raise ValueError(f"unknown statistic {statistic!r}; known are {', '.join(DESCRIPTORS)}")
    rows = [DESCRIPTORS[statistic](graph) for graph in graphs]
    table = np.zeros((len(rows), max((len(row) for row in rows), default=0)))
    for k, row in enumerate(rows):
        table[k, : len(row)] = row
    return table
