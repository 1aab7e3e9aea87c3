"""Named graph data sets with the splits of their publications.

| name | what | where from |
|---|---|---|
| community_small | two communities, 12..20 nodes | `community_small.npz`, else drawn by the published recipe |
| community_small_v2 | the same without the recipe's flaws | drawn |
| ego_small | neighbourhoods in Citeseer, 4..18 nodes | `ego_small.npz`, else `citeseer.cites` |
| ego_like | neighbourhoods in a drawn citation-like graph; **not** Citeseer | drawn |
| enzymes | proteins, 10..125 nodes | `enzymes.npz`, else the TU collection in `ENZYMES/` |
| grid, planar, sbm, lobster, tree | random graphs of one structure | drawn |
| tu:NAME | any collection in TU Dortmund's text format | the folder `NAME/` |
| qm9, qm9-gdss, zinc250k, moses, moses-scaffolds | molecules | :mod:`.molecule_sets` |
| moses-fragments, qm9-fragments | pieces of molecules, 4..12 atoms | :mod:`.fragments` |

Files are looked for in ROOT and ROOT/graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...modalities.graphs.intake import Intake, OnBad, Unreadable
from ...modalities.graphs.molecules import Alphabet
from ...modalities.graphs.packed import PackedGraphs
from ...modalities.graphs.records import GraphRecord
from ..errors import DataError
from ..fetch import data_root
from . import fragments, generators, molecule_sets
from .citations import EGO_LIKE_ABOUT, ego_like, read_cites
from .files import FileContent, read_npz
from .tu import read_tu, without_isolated

__all__ = ["GraphData", "dataset_names", "from_content", "load_dataset"]


@dataclass(frozen=True)
class GraphData:
    """A data set with its split.

    Args:
        name: Its name.
        train: Training graphs.
        validation: Held out of training to choose models by; may be empty.
        test: Judged on; may be empty for a user's own files.
        protocol: Source and split in words; goes with every number.
        kind: "graphs" or "molecules".
        alphabet: For molecules: what node types mean.
        skipped: What could not be read, with reasons.
        validity: What `vun` should test for, for sets of one structure.
    """

    name: str
    train: Sequence[GraphRecord]
    validation: Sequence[GraphRecord]
    test: Sequence[GraphRecord]
    protocol: str
    kind: str = "graphs"
    alphabet: Alphabet | None = None
    skipped: list[Unreadable] = field(default_factory=list)
    validity: str | None = None


@dataclass(frozen=True)
class Generated:
    """A set that is drawn.

    Args:
        draw: One graph from a generator.
        count: Size of the set.
        about: The recipe in words.
        validation: Share of the training part its publications hold out.
        validity: What `vun` should test for.
    """

    draw: generators.Draw
    count: int
    about: str
    validation: float = 0.0
    validity: str | None = None


GENERATED: Mapping[str, Generated] = {
    "community_small": Generated(
        generators.community_published, 100, "drawn by the published recipe (not the authors' own draw)"
    ),
    "community_small_v2": Generated(generators.community, 100, "two communities of 6..10 nodes, all drawn afresh"),
    "grid": Generated(generators.random_grid, 100, "grids with sides of 10..19 nodes"),
    "planar": Generated(generators.planar, 200, "Delaunay triangulations of 64 points", 0.2, "planar"),
    "sbm": Generated(generators.stochastic_blocks, 200, "2..5 blocks of 20..40 nodes, p = 0.3 and 0.005", 0.2, "sbm"),
    "lobster": Generated(generators.lobster, 100, "lobsters of 10..100 nodes", 0.0, "lobster"),
    "tree": Generated(generators.tree, 200, "uniform labelled trees of 64 nodes", 0.2, "tree"),
}

_MOLECULES: Mapping[str, Callable[[Path, OnBad, int, int | None], molecule_sets.MoleculeSet]] = {
    "qm9": lambda root, on_bad, seed, limit: molecule_sets.load_qm9(root, on_bad=on_bad, seed=seed),
    "qm9-gdss": lambda root, on_bad, seed, limit: molecule_sets.load_qm9(root, offset=1, on_bad=on_bad, seed=seed),
    "zinc250k": lambda root, on_bad, seed, limit: molecule_sets.load_zinc250k(root, on_bad=on_bad, seed=seed),
    "moses": lambda root, on_bad, seed, limit: molecule_sets.load_moses(root, limit=limit, on_bad=on_bad, seed=seed),
    "moses-scaffolds": lambda root, on_bad, seed, limit: molecule_sets.load_moses(
        root, test="test_scaffolds", limit=limit, on_bad=on_bad, seed=seed
    ),
    "moses-fragments": lambda root, on_bad, seed, limit: fragments.load_fragments(root, on_bad=on_bad, seed=seed),
    "qm9-fragments": lambda root, on_bad, seed, limit: fragments.load_fragments(
        root, source="qm9", on_bad=on_bad, seed=seed
    ),
}


def dataset_names() -> list[str]:
    """Every name :func:`load_dataset` knows, but for "tu:NAME"."""
    return [*GENERATED, "ego_small", "ego_like", "enzymes", *_MOLECULES]


def load_dataset(
    name: str,
    root: str | Path | None = None,
    *,
    validation: float | None = None,
    seed: int = 0,
    limit: int | None = None,
    on_bad: OnBad = OnBad.SKIP,
) -> GraphData:
    """Load a data set with its split.

    Args:
        name: One of :func:`dataset_names`, or "tu:NAME".
        root: Folder of the data; default: FOURFOLD_DATA, else the user's cache folder.
        validation: Share of the training part that is set aside, at random; default: as published, which is 0 for
            most sets.
        seed: Of that choice and of drawn sets.
        limit: Train on so many random graphs of the training part only.
        on_bad: Leave a graph that cannot be used out and list it, or stop.

    Raises:
        DataError: Unknown name, unreadable files, files that are not there.
    """
    base = data_root(root)
    if name in _MOLECULES:
        found = _MOLECULES[name](base, OnBad(on_bad), seed, limit)
        held = np.zeros(len(found.graphs), bool)
        held[found.test] = True
        return _split(
            name,
            found.graphs.select(np.flatnonzero(~held)),
            found.graphs.select(found.test),
            found.about,
            validation or 0.0,
            seed,
            limit,
            "molecules",
            found.alphabet,
            found.skipped,
        )
    share, validity = 0.0, None
    skipped: list[Unreadable] = []
    if (path := _local(base, f"{name}.npz")) is not None:
        graphs, skipped = _read_npz(path, OnBad(on_bad))
        about = f"{path.name}, graphs in stored order"
    elif name in GENERATED:
        spec = GENERATED[name]
        graphs = generators.draw_graphs(spec.draw, spec.count, seed, f"{name} ")
        about = f"{spec.about}, generator version {generators.VERSION}, seed {seed}"
    elif name == "ego_like":
        graphs, about = ego_like(200, seed), f"{EGO_LIKE_ABOUT}, generator version {generators.VERSION}, seed {seed}"
    elif name == "ego_small":
        graphs, about = _from_citeseer(base)
    elif name == "enzymes" or name.startswith("tu:"):
        graphs, skipped, about = _from_tu(name, base, OnBad(on_bad))
    else:
        raise DataError(f"unknown data set {name!r}; known are {', '.join(dataset_names())}, tu:NAME")
    if name in GENERATED:
        share, validity = GENERATED[name].validation, GENERATED[name].validity
    count = int(0.2 * len(graphs))
    return _split(
        name,
        graphs[count:],
        graphs[:count],
        f"{about}; test = first {count} of {len(graphs)}",
        share if validation is None else validation,
        seed,
        limit,
        skipped=skipped,
        validity=validity,
    )


def from_content(
    name: str,
    content: FileContent,
    *,
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    limit: int | None = None,
) -> GraphData:
    """A user's own graphs with a random split.

    Args:
        name: For reports.
        content: What was read, see :func:`.files.read_files`.
        validation: Share of what is not tested on.
        test: Share that is tested on, at random; 0 for none.
        seed: Of the split.
        limit: Train on so many random graphs only.

    Raises:
        DataError: Shares out of range, or nothing left to train on.
    """
    if not 0 <= test < 1:
        raise DataError(f"the test part must be a share in [0, 1), got {test}")
    packed = PackedGraphs.pack(content.graphs)
    order = np.random.default_rng([seed, 4]).permutation(len(packed))
    count = round(test * len(packed))
    return _split(
        name,
        packed.select(np.sort(order[count:])),
        packed.select(np.sort(order[:count])),
        f"{len(packed)} {content.kind}; test = {count} at random (seed {seed})",
        validation,
        seed,
        limit,
        content.kind,
        content.alphabet,
        content.skipped,
    )


def _split(
    name: str,
    learn: Sequence[GraphRecord],
    test: Sequence[GraphRecord],
    about: str,
    validation: float,
    seed: int,
    limit: int | None,
    kind: str = "graphs",
    alphabet: Alphabet | None = None,
    skipped: list[Unreadable] | None = None,
    validity: str | None = None,
) -> GraphData:
    if not 0 <= validation < 1:
        raise DataError(f"validation must be a share in [0, 1), got {validation}")
    order = np.random.default_rng([seed, 1]).permutation(len(learn))
    count = round(validation * len(learn))
    kept = order[count:] if limit is None else order[count : count + limit]
    if not len(kept):
        raise DataError(f"{name}: nothing is left to train on ({len(learn)} graphs, validation {validation})")
    protocol = f"{name}: {about}, train = {len(kept)}"
    if limit is not None and limit < len(learn) - count:
        protocol += f" at random from {len(learn) - count} (seed {seed})"
    if count:
        protocol += f", validation = {count} at random from the rest (seed {seed})"
    if skipped:
        protocol += f", {len(skipped)} left out as unusable"
    return GraphData(
        name,
        _chosen(learn, np.sort(kept)),
        _chosen(learn, np.sort(order[:count])),
        test,
        protocol,
        kind,
        alphabet,
        skipped or [],
        validity,
    )


def _chosen(graphs: Sequence[GraphRecord], positions: np.ndarray) -> Sequence[GraphRecord]:
    return graphs.select(positions) if isinstance(graphs, PackedGraphs) else [graphs[k] for k in positions.tolist()]


def _local(base: Path, name: str) -> Path | None:
    return next((path for folder in (base, base / "graphs") if (path := folder / name).exists()), None)


def _read_npz(path: Path, on_bad: OnBad) -> tuple[list[GraphRecord], list[Unreadable]]:
    intake: Intake[GraphRecord] = Intake(on_bad)
    try:
        read_npz(path, intake)
    except ValueError as error:
        raise DataError(str(error)) from error
    return intake.items, intake.skipped


def _from_citeseer(base: Path) -> tuple[list[GraphRecord], str]:
    cites = _local(base, "citeseer.cites") or _local(base, "citeseer/citeseer.cites")
    if cites is None:
        raise DataError(
            f"ego_small is not in {base}: put ego_small.npz (arrays edges, edge_ptr, num_nodes) there, or Citeseer's "
            "citeseer.cites; or use ego_like, which is drawn and is not Citeseer"
        )
    graphs = generators.ego_graphs(read_cites(cites), count=200)
    return graphs, f"first {len(graphs)} neighbourhoods of 4..18 nodes in {cites.name} (not in the published order)"


def _from_tu(name: str, base: Path, on_bad: OnBad) -> tuple[list[GraphRecord], list[Unreadable], str]:
    collection = "ENZYMES" if name == "enzymes" else name.removeprefix("tu:")
    folder = _local(base, collection) or _local(base, f"tu/{collection}")
    if folder is None:
        raise DataError(
            f"{name} is not in {base}: unpack {collection}.zip of the TU Dortmund collection "
            f"(chrsmrrs.github.io/datasets) there, so that {base / collection / (collection + '_A.txt')} exists"
            + (", or put enzymes.npz there" if name == "enzymes" else "")
        )
    try:
        found = read_tu(folder, on_bad=on_bad)
    except DataError:
        raise
    except ValueError as error:
        raise DataError(str(error)) from error
    graphs, about = found.items, f"TU collection {collection}"
    if name == "enzymes":
        graphs = [g for g in map(without_isolated, graphs) if g.num_nodes >= 10]
        about += ", isolated nodes removed, at least 10 nodes kept"
    return graphs, found.skipped, about
