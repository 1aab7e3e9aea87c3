"""QM9, ZINC250k and MOSES from files at hand, encoded once.

| set | where its SMILES come from, in this order |
|---|---|
| qm9 | `qm9_smiles.csv[.gz]` (columns index, smiles); the wheel `qm9pack-*.whl`; the installed package qm9pack |
| moses | the wheel `molsets-*.whl`; the installed package molsets |
| zinc250k | `250k_rndm_zinc_drugs_clean_3.csv` or `zinc250k.csv` (a column smiles) |

Files are looked for in ROOT and ROOT/graphs. Packages are read as data, never imported. What encoding gives is kept in
ROOT/cache.

The published test part of QM9 (`valid_idx_qm9.json`) lists 13,082 gdb9 ids, which count from 1. GDSS' code uses them
as row numbers that count from 0, so that it tests on the molecules one further. "qm9" takes the ids for what they are,
"qm9-gdss" what GDSS' code took.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np

from ...modalities.graphs.intake import OnBad, Unreadable
from ...modalities.graphs.molecules import Alphabet, learn_alphabet
from ...modalities.graphs.packed import PackedGraphs
from ..errors import DataError
from ..fetch import build_once, data_root
from .files import encode_molecules

VERSION = 1

Row = tuple[str, str, Mapping[str, float]]
_CHUNK = 20_000
_QM9_TARGETS = {
    "dipole": "Dipole_debye",
    "polarizability": "Polarizability_bohr3",
    "homo": "HOMO_au",
    "lumo": "LUMO_au",
    "gap": "HOMO_LUMO_gap_au",
}


@dataclass(frozen=True)
class MoleculeSet:
    """Encoded molecules with the numbers of those that are tested on.

    Args:
        graphs: All of them.
        test: Positions of the test molecules.
        alphabet: What node types mean.
        about: Source and split in words.
        skipped: What could not be encoded.
    """

    graphs: PackedGraphs
    test: np.ndarray
    alphabet: Alphabet
    about: str
    skipped: list[Unreadable] = field(default_factory=list)


@dataclass(frozen=True)
class Source:
    """Where molecules come from: a name and size for the cache, and rows of (name, SMILES, targets)."""

    name: str
    size: int
    rows: Callable[[], Iterable[Row]]


def load_qm9(
    root: str | Path | None = None, *, offset: int = 0, on_bad: OnBad = OnBad.SKIP, seed: int = 0
) -> MoleculeSet:
    """QM9's 130,831 molecules with the published test part.

    Args:
        root: Folder of the data.
        offset: 0 reads the split's numbers as gdb9 ids; 1 as GDSS' code does.
        on_bad: What to do with molecules that cannot be encoded.
        seed: Of the random tenth that is the test part where `valid_idx_qm9.json` is missing.

    Raises:
        DataError: The molecules are nowhere to be found.
    """
    graphs, alphabet, skipped, source = encoded("qm9", qm9_source(root), root, on_bad)
    ids = np.char.partition(graphs.arrays["names"].astype(str), " ")[:, 2].astype(np.int64)
    split = _find(root, "valid_idx_qm9.json")
    if split is None:
        test = random_tenth(len(graphs), seed)
        about = f"{source}; test = a random tenth (seed {seed}), as the published valid_idx_qm9.json is not there"
    else:
        try:
            wanted = np.array([int(i) for i in json.loads(split.read_text(encoding="utf-8"))["valid_idxs"]])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{split} is not a list of ids {{'valid_idxs': [...]}}: {error}") from error
        test = np.flatnonzero(np.isin(ids, wanted + offset))
        reading = "read as gdb9 ids" if offset == 0 else f"read as GDSS' code does (gdb9 id = number + {offset})"
        about = f"{source}; published test ids {reading}"
    return MoleculeSet(graphs, test, alphabet, about, skipped)


def load_moses(
    root: str | Path | None = None,
    *,
    test: str = "test",
    limit: int | None = None,
    on_bad: OnBad = OnBad.SKIP,
    seed: int = 0,
) -> MoleculeSet:
    """MOSES' molecules, split as published.

    Args:
        root: Folder of the data.
        test: "test" or "test_scaffolds".
        limit: Only so many random training and at most so many test molecules (encoding all takes minutes).
        on_bad: What to do with molecules that cannot be encoded.
        seed: Of that choice.

    Raises:
        DataError: The molecules are nowhere to be found.
    """
    packs, skipped, alphabet = [], [], None
    parts = ("train", test)
    source = ""
    for part in parts:
        origin = moses_source(root, part, limit, seed)
        graphs, alphabet, lost, source = encoded(f"moses-{part}", origin, root, on_bad, alphabet)
        packs.append(graphs)
        skipped += lost
    assert alphabet is not None
    count = len(packs[0])
    both = PackedGraphs.join(packs)
    chosen = "" if limit is None else f"; at most {limit} random molecules of each part (seed {seed})"
    about = f"{source.replace(parts[1], 'train and ' + parts[1])}; published split, test = {test}{chosen}"
    return MoleculeSet(both, np.arange(count, len(both)), alphabet, about, skipped)


def load_zinc250k(root: str | Path | None = None, *, on_bad: OnBad = OnBad.SKIP, seed: int = 0) -> MoleculeSet:
    """ZINC250k from a local CSV file, with the published test rows if `valid_idx_zinc250k.json` is there.

    Raises:
        DataError: No such file.
    """
    path = _find(root, "250k_rndm_zinc_drugs_clean_3.csv", "zinc250k.csv", "zinc250k.csv.gz")
    if path is None:
        raise DataError(
            f"ZINC250k is not in {data_root(root)}: put 250k_rndm_zinc_drugs_clean_3.csv of the chemical_vae "
            "repository (aspuru-guzik-group) there"
        )

    def rows() -> Iterator[Row]:
        for number, row in enumerate(_csv(path)):
            yield f"zinc250k {number}", row["smiles"].strip(), {}

    graphs, alphabet, skipped, source = encoded("zinc250k", Source(path.name, path.stat().st_size, rows), root, on_bad)
    split = _find(root, "valid_idx_zinc250k.json", "valid_idx_zinc.json")
    if split is None:
        return MoleculeSet(
            graphs,
            random_tenth(len(graphs), seed),
            alphabet,
            f"{source}; test = a random tenth (seed {seed})",
            skipped,
        )
    listed = json.loads(split.read_text(encoding="utf-8"))
    wanted = np.array([int(i) for i in (listed["valid_idxs"] if isinstance(listed, dict) else listed)])
    numbers = np.char.partition(graphs.arrays["names"].astype(str), " ")[:, 2].astype(np.int64)
    return MoleculeSet(
        graphs, np.flatnonzero(np.isin(numbers, wanted)), alphabet, f"{source}; published test rows", skipped
    )


def encoded(
    name: str, source: Source, root: str | Path | None, on_bad: OnBad, alphabet: Alphabet | None = None
) -> tuple[PackedGraphs, Alphabet, list[Unreadable], str]:
    """Graphs, alphabet, what was left out, and the source in words; from the cache if it holds them."""

    def build(folder: Path) -> None:
        letters = learn_alphabet(smiles for _, smiles, _ in source.rows()) if alphabet is None else alphabet
        packs, skipped = [], []
        rows = iter(source.rows())
        while chunk := list(islice(rows, _CHUNK)):
            found = encode_molecules([row[:2] for row in chunk], on_bad, letters, [dict(row[2]) for row in chunk])
            skipped += found.skipped
            if found.graphs:
                packs.append(PackedGraphs.pack(found.graphs))
        if not packs:
            raise DataError(f"{source.name} holds no molecule that can be encoded")
        PackedGraphs.join(packs).save(folder / "graphs.npz")
        facts = {"alphabet": letters.config(), "skipped": [[item.source, item.reason] for item in skipped]}
        (folder / "facts.json").write_text(json.dumps(facts), encoding="utf-8")

    letters = "" if alphabet is None else "-" + "".join(alphabet.names)
    key = f"{name}-{Path(source.name).name}-{source.size}-{OnBad(on_bad)}{letters}-v{VERSION}"
    with cache_folder(root) as place:
        folder = build_once(place / key, build)
        facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        graphs = PackedGraphs.load(folder / "graphs.npz")
    return (
        graphs,
        Alphabet(tuple((str(symbol), int(charge)) for symbol, charge in facts["alphabet"])),
        [Unreadable(*item) for item in facts["skipped"]],
        f"{len(graphs)} molecules of {source.name}",
    )


@contextmanager
def cache_folder(root: str | Path | None) -> Iterator[Path]:
    """ROOT/cache/graphs, or a folder that is thrown away if ROOT is meant to stay as it is."""
    from tempfile import TemporaryDirectory

    base = data_root(root)
    # Permission bits count for the administrator as well: a set without them is not to be written into.
    writable = not base.exists() or (os.access(base, os.W_OK) and bool(base.stat().st_mode & 0o222))
    if writable:
        yield base / "cache" / "graphs"
    else:
        with TemporaryDirectory() as folder:
            yield Path(folder)


def _find(root: str | Path | None, *patterns: str) -> Path | None:
    for folder in (data_root(root), data_root(root) / "graphs"):
        for pattern in patterns:
            if found := sorted(folder.glob(pattern)):
                return found[-1]
    return None


def _package(name: str) -> Path | None:
    # Finding a top-level package does not run it.
    spec = find_spec(name)
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def _csv(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else open(path, newline="") as file:
        rows = csv.DictReader(file)
        if "smiles" not in (rows.fieldnames or ()):
            raise DataError(f"{path} has no column smiles; its columns are {', '.join(rows.fieldnames or ())}")
        yield from rows


def qm9_source(root: str | Path | None) -> Source:
    path = _find(root, "qm9_smiles.csv.gz", "qm9_smiles.csv")
    if path is not None:
        return Source(
            path.name,
            path.stat().st_size,
            lambda: ((f"qm9 {row['index']}", row["smiles"], {}) for row in _csv(path)),
        )
    wheel, installed = _find(root, "qm9pack-*.whl"), _package("qm9pack")
    if wheel is None and installed is None:
        raise DataError(
            f"QM9 is not in {data_root(root)}: pip install qm9pack, or put qm9_smiles.csv.gz "
            "(columns index, smiles) or the wheel of qm9pack there"
        )
    names = [f"qm9pack/data/qm9_part{k}.csv" for k in (1, 2, 3)]

    def rows() -> Iterator[Row]:
        import pandas as pd

        columns = ["Index", "SMILES", *_QM9_TARGETS.values()]
        for name in names:
            with _opened(wheel, installed, name) as file:
                table = pd.read_csv(file, usecols=lambda column: column in columns)
            numbers = table[list(_QM9_TARGETS.values())].to_numpy(np.float64)
            for index, smiles, values in zip(table["Index"], table["SMILES"], numbers, strict=True):
                yield f"qm9 {index}", smiles, dict(zip(_QM9_TARGETS, values.tolist(), strict=True))

    return Source(wheel.name if wheel is not None else "qm9pack", 0, rows)


def moses_source(root: str | Path | None, part: str, limit: int | None = None, seed: int = 0) -> Source:
    if part not in ("train", "test", "test_scaffolds"):
        raise DataError(f"MOSES has the parts train, test and test_scaffolds, not {part!r}")
    wheel, installed = _find(root, "molsets-*.whl"), _package("moses")
    if wheel is None and installed is None:
        raise DataError(
            f"MOSES is not in {data_root(root)}: put the wheel of molsets there (pip download --no-deps molsets)"
        )

    def rows() -> Iterator[Row]:
        with _opened(wheel, installed, f"moses/dataset/data/{part}.csv.gz") as packed, gzip.open(packed) as file:
            lines = io.TextIOWrapper(file, encoding="utf-8").read().split()[1:]
        chosen: Iterable[int] = range(len(lines))
        if limit is not None and limit < len(lines):
            chosen = np.sort(np.random.default_rng([seed, 2]).permutation(len(lines))[:limit]).tolist()
        for number in chosen:
            yield f"moses-{part} {number}", lines[number].split(",")[0], {}

    label = "" if limit is None else f" {limit}-{seed}"
    return Source(f"{wheel.name if wheel is not None else 'molsets'} {part}{label}", 0, rows)


@contextmanager
def _opened(wheel: Path | None, installed: Path | None, name: str) -> Iterator[IO[bytes]]:
    try:
        if wheel is not None:
            with zipfile.ZipFile(wheel) as archive, archive.open(name) as file:
                yield file
        else:
            assert installed is not None
            with open(installed.parent / name, "rb") as file:
                yield file
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"cannot read {name} in {wheel or installed}: {error}") from error


def random_tenth(count: int, seed: int) -> np.ndarray:
    return np.sort(np.random.default_rng([seed, 3]).permutation(count)[: count // 10])
