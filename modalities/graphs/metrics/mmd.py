"""Maximum mean discrepancy between two sets of graphs, as published, in closed form.

    MMD^2 = mean k(R, R) + mean k(G, G) - 2 mean k(R, G)          over all pairs, the diagonal included
    k(p, q) = exp(-D(p, q)^2 / (2 s^2))

with D the earth mover's distance of the descriptions, which in one dimension is the area between the two cumulative
distributions (no transport problem to solve), or the total variation 1/2 sum |p - q|. Orbit means are not
distributions: with "emd" the published distance is Euclidean, with "tv" half the sum of absolute differences.

The value is not square-rooted. The kernel of the earth mover's distance is not positive definite, so slightly negative
values occur. Values of the two kernels cannot be compared with each other.

Source: You et al. 2018 and Jo et al. 2022 ("emd"), Liao et al. 2019, Martinkus et al. 2022, Vignac et al. 2023 ("tv").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..records import GraphRecord, as_record
from .descriptors import CLUSTERING_BINS, DESCRIPTORS, describe
from .intervals import Interval, centred_percentiles

if TYPE_CHECKING:
    import networkx as nx

    Graphs = Sequence[GraphRecord | nx.Graph]
else:
    Graphs = Sequence[Any]

KERNELS = ("emd", "tv")
PUBLISHED = ("degree", "clustering", "orbit")

# Bandwidth s of each statistic, and the distance of neighbouring bins for the earth mover.
_BANDWIDTH = {"degree": 1.0, "clustering": 0.1, "orbit": 30.0, "spectral": 1.0}
_BIN = {"degree": 1.0, "clustering": 1 / CLUSTERING_BINS, "spectral": 1.0}


@dataclass(frozen=True)
class Kernels:
    """Kernel matrices of a generated set G and a reference set R: all an MMD and its resampling need.

    Args:
        generated: `(G, G)`.
        reference: `(R, R)`.
        cross: `(G, R)`.
    """

    generated: np.ndarray
    reference: np.ndarray
    cross: np.ndarray

    def mmd(self) -> float:
        """MMD^2 of the two sets."""
        return float(self.generated.mean() + self.reference.mean() - 2 * self.cross.mean())

    def interval(self, repeats: int = 200, seed: int = 0, level: float = 0.95) -> Interval:
        """Bootstrap over both sets.

        Drawing with replacement repeats graphs, and k(x, x) = 1 lifts every resampled value; the percentiles are
        therefore moved so that their mean is the value.

        Args:
            repeats: Resamples.
            seed: Of the resamples.
            level: Coverage.
        """
        rng = np.random.default_rng(seed)
        g, r = self.cross.shape
        a = rng.multinomial(g, np.full(g, 1 / g), repeats) / g
        b = rng.multinomial(r, np.full(r, 1 / r), repeats) / r
        values = (
            np.einsum("kg,gh,kh->k", a, self.generated, a, optimize=True)
            + np.einsum("kr,rs,ks->k", b, self.reference, b, optimize=True)
            - 2 * np.einsum("kg,gr,kr->k", a, self.cross, b, optimize=True)
        )
        return centred_percentiles(self.mmd(), values, level)


def kernels(generated: np.ndarray, reference: np.ndarray, statistic: str, kernel: str) -> Kernels:
    """Kernel matrices of two tables of descriptions, `(G, L)` and `(R, L')`, as :func:`describe` gives them.

    Raises:
        ValueError: Unknown statistic or kernel, or an empty set.
    """
    if kernel not in KERNELS:
        raise ValueError(f"unknown kernel {kernel!r}; known are {', '.join(KERNELS)}")
    if statistic not in DESCRIPTORS:
        raise ValueError(f"unknown statistic {statistic!r}; known are {', '.join(DESCRIPTORS)}")
    if not len(generated) or not len(reference):
        raise ValueError(f"an MMD needs graphs on both sides, got {len(generated)} and {len(reference)}")
    width = max(generated.shape[1], reference.shape[1])
    g, r = (np.pad(table, ((0, 0), (0, width - table.shape[1]))) for table in (generated, reference))
    scale = -0.5 / _BANDWIDTH[statistic] ** 2

    def k(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.exp(scale * _distance(x, y, statistic, kernel) ** 2)

    return Kernels(k(g, g), k(r, r), k(g, r))


def mmd(generated: Graphs, reference: Graphs, statistic: str, kernel: str = "emd") -> float:
    """MMD^2 between two sets of graphs.

    Args:
        generated: NetworkX graphs or records.
        reference: The same; the test set.
        statistic: "degree", "clustering", "orbit" or "spectral".
        kernel: "emd" (GraphRNN, GDSS) or "tv" (GRAN, SPECTRE, DiGress).

    Raises:
        ValueError: Unknown names, empty sets, or graphs that are not simple and undirected.
    """
    ours, theirs = (describe([as_record(g) for g in graphs], statistic) for graphs in (generated, reference))
    return kernels(ours, theirs, statistic, kernel).mmd()


def average(values: Mapping[str, float]) -> float:
    """The published average of degree, clustering and orbit MMDs (spectral is left out)."""
    return float(np.mean([values[name] for name in PUBLISHED]))


def _distance(x: np.ndarray, y: np.ndarray, statistic: str, kernel: str) -> np.ndarray:
    from scipy.spatial.distance import cdist

    if kernel == "tv":
        return cdist(x, y, "cityblock") / 2
    if statistic == "orbit":
        return cdist(x, y, "euclidean")
    return cdist(np.cumsum(x, 1), np.cumsum(y, 1), "cityblock") * _BIN[statistic]
