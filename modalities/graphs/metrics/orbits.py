"""How often each node takes each role in the connected induced subgraphs with up to four nodes.

With A the adjacency matrix, d the degrees, A2 = A A without its diagonal, T = A * A2 (triangles at an edge),
t_i = 1/2 sum_j T_ij (triangles at a node) and q_ij the cliques of four at an edge, k_i = 1/3 sum_j q_ij, every
count is a polynomial (C(x, r): binomial; products with A are matrix products):

    o0  = d                                      an end of an edge
    o1  = A(d-1) - 2t                            end of a path of 3
    o2  = C(d,2) - t                             middle of a path of 3
    o3  = t                                      triangle
    o14 = k                                      clique of 4
    o13 = sum_j C(T_ij,2) A_ij - 3k              clique less an edge, degree 3
    o12 = 1/2 sum_jl A_ij A_il A_jl (T_jl - 1) - 3k    the same, degree 2
    o8  = sum_l C(A2_il,2) - o12 - o13 - 3k      cycle of 4
    o11 = t(d-2) - 2 o13 - 3k                    triangle with a tail, degree 3
    o10 = T(d-2) - 2 o12 - 2 o13 - 6k            the same, degree 2
    o9  = A t - 2t - 2 o12 - 3k                  the same, the tail
    o7  = C(d,3) - o11 - o13 - k                 star, middle
    o6  = A C(d-1,2) - o9 - o10 - 2 o12 - o13 - 3k     star, end
    o5  = (d-1)(A(d-1)) - 2t - 2 o8 - 2 o11 - o10 - 4 o13 - 2 o12 - 6k    path of 4, middle
    o4  = A(Ad) - d^2 - A(d-1) - 2t - 2 o8 - 2 o9 - o10 - 4 o12 - 2 o13 - 6k    path of 4, end

The numbering is ORCA's (Hocevar and Demsar 2014).
"""

from __future__ import annotations

import numpy as np

from ..records import GraphRecord

NUM_ORBITS = 15
_CHUNK = 4_000_000


def orbit_counts(graph: GraphRecord) -> np.ndarray:
    """Counts of the 15 orbits at every node.

    Args:
        graph: Any graph; types are ignored.

    Returns:
        int64 `(n, 15)`.
    """
    n = graph.num_nodes
    i, j = graph.edges.T
    adj = np.zeros((n, n))
    adj[i, j] = adj[j, i] = 1
    d = adj.sum(1)
    paths = adj @ adj
    np.fill_diagonal(paths, 0)
    at_edge = adj * paths
    t = at_edge.sum(1) / 2
    k = _cliques_of_four(adj, i, j)

    o13 = (adj * _choose2(at_edge)).sum(1) - 3 * k
    o12 = (adj * (adj @ (adj * (at_edge - 1)))).sum(1) / 2 - 3 * k
    o8 = _choose2(paths).sum(1) - o12 - o13 - 3 * k
    o11 = t * (d - 2) - 2 * o13 - 3 * k
    o10 = at_edge @ (d - 2) - 2 * o12 - 2 * o13 - 6 * k
    o9 = adj @ t - 2 * t - 2 * o12 - 3 * k
    o7 = d * (d - 1) * (d - 2) / 6 - o11 - o13 - k
    o6 = adj @ _choose2(d - 1) - o9 - o10 - 2 * o12 - o13 - 3 * k
    around = adj @ (d - 1)
    o5 = (d - 1) * around - 2 * t - 2 * o8 - 2 * o11 - o10 - 4 * o13 - 2 * o12 - 6 * k
    o4 = adj @ (adj @ d) - d**2 - around - 2 * t - 2 * o8 - 2 * o9 - o10 - 4 * o12 - 2 * o13 - 6 * k
    counts = [d, around - 2 * t, _choose2(d) - t, t, o4, o5, o6, o7, o8, o9, o10, o11, o12, o13, k]
    # Sums of products of integers far below 2^53: exact in float64.
    return np.rint(np.stack(counts, 1)).astype(np.int64)


def _choose2(x: np.ndarray) -> np.ndarray:
    return x * (x - 1) / 2


def _cliques_of_four(adj: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    n = len(adj)
    at_edge = np.zeros(len(i))
    step = max(1, _CHUNK // max(1, n))
    for start in range(0, len(i), step):
        rows = slice(start, start + step)
        common = adj[i[rows]] * adj[j[rows]]
        at_edge[rows] = ((common @ adj) * common).sum(1) / 2
    return (np.bincount(i, at_edge, n) + np.bincount(j, at_edge, n)) / 3
