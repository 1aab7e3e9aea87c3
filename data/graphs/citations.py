"""Citation graphs: Citeseer's own file, and a drawn graph that looks like one.

The drawn graph grows paper by paper. A new paper cites a few older ones: each time, with the paper's own inclination
to stay within a topic, a neighbour of the last paper cited (which closes a triangle), otherwise an older paper chosen
by its number of links or uniformly. The constants were chosen so that its neighbourhoods resemble those of Citeseer in
size, number of edges and clustering; it is not Citeseer.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...modalities.graphs.records import GraphRecord
from ..errors import DataError
from .generators import ego_graphs

EGO_LIKE_ABOUT = "neighbourhoods of 4..18 nodes in a drawn citation-like graph of 2,100 nodes (not Citeseer)"
_NODES = 2100


def citation_graph(
    rng: np.random.Generator,
    num_nodes: int = _NODES,
    *,
    more_links: float = 0.3,
    topical: float = 0.43,
    topical_closure: float = 0.96,
    other_closure: float = 0.14,
    by_links: float = 0.44,
    surveys: float = 0.05,
) -> GraphRecord:
    """A growing graph with communities of triangles.

    Args:
        rng: Source of randomness.
        num_nodes: Papers.
        more_links: A paper cites k others with probability `more_links^(k-1) (1 - more_links)`.
        topical: Share of papers that stay within a topic.
        topical_closure: Probability that such a paper's next citation is a neighbour of its last one.
        other_closure: The same for the other papers.
        by_links: Probability that a free citation goes by number of links instead of uniformly.
        surveys: Share of papers with 5..12 citations.
    """
    ends = [0, 1]
    neighbors: list[list[int]] = [[1], [0]]
    for paper in range(2, num_nodes):
        links = int(rng.integers(5, 13)) if rng.random() < surveys else int(rng.geometric(1 - more_links))
        closure = topical_closure if rng.random() < topical else other_closure
        cited: list[int] = []
        # Repeated choices are dropped, so that a paper may end with fewer citations.
        for _ in range(4 * links):
            if len(cited) >= min(links, paper):
                break
            if cited and rng.random() < closure:
                around = neighbors[cited[-1]]
                choice = around[int(rng.integers(len(around)))]
            elif rng.random() < by_links:
                choice = ends[int(rng.integers(len(ends)))]
            else:
                choice = int(rng.integers(paper))
            if choice != paper and choice not in cited:
                cited.append(choice)
                neighbors[choice].append(paper)
                ends += [choice, paper]
        neighbors.append(cited)
    return GraphRecord(num_nodes, np.array([(u, v) for v, around in enumerate(neighbors) for u in around if u < v]))


def ego_like(count: int, seed: int) -> list[GraphRecord]:
    """Neighbourhoods of random nodes of a drawn citation-like graph, 4..18 nodes each.

    Raises:
        DataError: `count` is more than the graph has.
    """
    rng = np.random.default_rng([seed, 5])
    graphs = ego_graphs(citation_graph(rng), centers=rng.permutation(_NODES), count=count)
    if len(graphs) < count:
        raise DataError(f"the drawn graph has {len(graphs)} neighbourhoods of 4..18 nodes, not {count}")
    return graphs


def read_cites(path: Path) -> GraphRecord:
    """The graph of a `.cites` file: two papers per line; direction and repetitions are dropped, self-citations too.

    Raises:
        DataError: Not such a file.
    """
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        names, place = np.unique(np.array([line[:2] for line in lines]), return_inverse=True)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise DataError(f"{path} does not hold two papers per line: {error}") from error
    pairs = np.sort(place.reshape(-1, 2), axis=1)
    return GraphRecord(len(names), np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0))
