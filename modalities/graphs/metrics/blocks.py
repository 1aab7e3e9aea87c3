"""Does a graph look drawn from the stochastic block model of the benchmark?

1. Blocks. For every number of blocks K the leading K eigenvectors of the normalised adjacency are clustered by k-means,
   then nodes move to the block where the likelihood of the Bernoulli block model is highest until nothing moves. The
   K with the largest log-likelihood less the description length of the partition and of the densities wins.
2. Test. Of the blocks' densities p_rs the Wald statistics (p_rs - p)^2 / (p_rs (1 - p_rs) + 1e-6) against p = 0.3
   within and 0.005 across are turned into p-values (chi-square, one degree of freedom); a graph counts as valid if
   their mean exceeds 0.9 and it has 2 to 5 blocks of 20 to 40 nodes each.

The test is that of Martinkus et al. 2022 (SPECTRE). Their blocks come from graph-tool's inference; these do not.
"""

from __future__ import annotations

import warnings

import numpy as np

from ..records import GraphRecord


def infer_blocks(graph: GraphRecord, most_blocks: int = 8, seed: int = 0) -> np.ndarray:
    """Block of every node, int64 `(n,)`, numbered 0..K-1.

    Args:
        graph: Any graph.
        most_blocks: Largest K that is tried.
        seed: Of the k-means starts.
    """
    n = graph.num_nodes
    adj = (graph.adjacency() > 0).astype(np.float64)
    scale = 1 / np.sqrt(np.maximum(adj.sum(1), 1))
    vectors = np.linalg.eigh(scale[:, None] * adj * scale)[1][:, ::-1]
    best, best_score = np.zeros(n, np.int64), -np.inf
    for k in range(1, min(most_blocks, n) + 1):
        label = _refine(adj, _cluster(vectors[:, :k], k, seed))
        score = _log_likelihood(adj, label) - _description_length(label)
        if score > best_score:
            best, best_score = np.unique(label, return_inverse=True)[1], score
    return best


def is_stochastic_block_graph(
    graph: GraphRecord,
    *,
    inside: float = 0.3,
    across: float = 0.005,
    blocks: tuple[int, int] = (2, 5),
    block_size: tuple[int, int] = (20, 40),
    level: float = 0.9,
) -> bool:
    """The test described above.

    Args:
        graph: Any graph.
        inside: Edge probability within a block.
        across: Edge probability between blocks.
        blocks: Fewest and most blocks.
        block_size: Fewest and most nodes of a block.
        level: What the mean p-value must exceed.
    """
    from scipy.stats import chi2

    label = infer_blocks(graph)
    sizes = np.bincount(label)
    if not blocks[0] <= len(sizes) <= blocks[1] or sizes.min() < block_size[0] or sizes.max() > block_size[1]:
        return False
    ones, pairs = _block_counts((graph.adjacency() > 0).astype(np.float64), label)
    density = ones / pairs
    expected = np.where(np.eye(len(sizes), dtype=bool), inside, across)
    wald = (density - expected) ** 2 / (density * (1 - density) + 1e-6)
    return bool(np.mean(1 - chi2.cdf(wald, 1)) > level)


def _cluster(points: np.ndarray, k: int, seed: int) -> np.ndarray:
    from scipy.cluster.vq import kmeans2

    if k == 1:
        return np.zeros(len(points), np.int64)
    rows = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)
    tries = []
    for start in range(5):
        with warnings.catch_warnings():
            # An empty cluster is an answer like any other: the number of blocks is chosen afterwards.
            warnings.simplefilter("ignore", UserWarning)
            centers, label = kmeans2(rows, k, minit="++", rng=np.random.default_rng([seed, k, start]))
        tries.append((float(((rows - centers[label]) ** 2).sum()), label))
    return min(tries, key=lambda item: item[0])[1].astype(np.int64)


def _block_counts(adj: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    member = np.eye(label.max() + 1)[label]
    sizes = member.sum(0)
    pairs = np.outer(sizes, sizes) - np.diag(sizes)
    return member.T @ adj @ member, np.maximum(pairs, 1)


def _description_length(label: np.ndarray) -> float:
    """Nats that say which partition it is and what its densities are."""
    from scipy.special import gammaln

    n, sizes = len(label), np.bincount(label)
    sizes = sizes[sizes > 0]
    densities = len(sizes) * (len(sizes) + 1) / 2
    return float(gammaln(n + 1) - gammaln(sizes + 1).sum() + densities / 2 * np.log(max(2, n * (n - 1) / 2)))


def _log_likelihood(adj: np.ndarray, label: np.ndarray) -> float:
    ones, pairs = _block_counts(adj, label)
    p = np.clip(ones / pairs, 1e-9, 1 - 1e-9)
    return float((ones * np.log(p) + (pairs - ones) * np.log1p(-p)).sum() / 2)


def _refine(adj: np.ndarray, label: np.ndarray, rounds: int = 20) -> np.ndarray:
    value = _log_likelihood(adj, label)
    for _ in range(rounds):
        label = np.unique(label, return_inverse=True)[1]
        member = np.eye(label.max() + 1)[label]
        ones, pairs = _block_counts(adj, label)
        p = np.clip(ones / pairs, 1e-6, 1 - 1e-6)
        links = adj @ member
        others = member.sum(0) - member
        moved = (links @ np.log(p) + (others - links) @ np.log1p(-p)).argmax(1)
        moved_value = _log_likelihood(adj, moved)
        if moved_value <= value + 1e-9:
            break
        label, value = moved, moved_value
    return label
