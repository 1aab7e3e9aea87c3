"""A user's own graphs and molecules from files, none of them pickles.

    molecules   .smi, .smiles (SMILES and perhaps a name per line), .csv (a column of SMILES), .sdf; also with .gz
    graphs      .graphml, .edgelist, .edges, .txt (two node names per line, one graph per file), .npz (arrays)

A folder stands for all files in it, of one kind. What cannot be used stops the reading or is left out and listed, as
the user chooses; the list says file, line and reason.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...modalities.graphs.intake import Intake, OnBad, Unreadable
from ...modalities.graphs.molecules import Alphabet, learn_alphabet, quiet, read_smiles
from ...modalities.graphs.records import GraphRecord, from_networkx
from ..errors import DataError

if TYPE_CHECKING:
    from rdkit.Chem import Mol

__all__ = [
    "FileContent",
    "encode_molecules",
    "read_edge_list",
    "read_files",
    "read_graphml",
    "read_npz",
    "read_smiles_csv",
]

_MOLECULES = (".smi", ".smiles", ".csv", ".sdf")
_GRAPHS = (".graphml", ".edgelist", ".edges", ".txt", ".npz")


@dataclass(frozen=True)
class FileContent:
    """What stood in a user's files.

    Args:
        graphs: Records, in the order of the files.
        kind: "graphs" or "molecules".
        alphabet: For molecules: what node types mean.
        skipped: What could not be used, with reasons.
    """

    graphs: list[GraphRecord]
    kind: str
    alphabet: Alphabet | None = None
    skipped: list[Unreadable] = field(default_factory=list)


def read_files(
    path: str | Path, *, smiles_column: str | None = None, on_bad: OnBad = OnBad.RAISE, alphabet: Alphabet | None = None
) -> FileContent:
    """Graphs or molecules of a file, or of all files in a folder.

    Args:
        path: File or folder.
        smiles_column: Column of a CSV file; default: the one named like "smiles".
        on_bad: Stop at the first item that cannot be used, or leave it out and list it.
        alphabet: What node types of molecules shall mean; default: learnt from the files.

    Raises:
        DataError: Nothing there, unknown kinds of files, nothing usable, or an unusable item and `on_bad` is RAISE.
    """
    files = _files_of(Path(path))
    kinds = {_suffix(file) in _MOLECULES for file in files}
    if len(kinds) > 1:
        raise DataError(f"{path} mixes files of molecules and of graphs; give them separately")
    try:
        if kinds.pop():
            found = _molecules(files, smiles_column, OnBad(on_bad), alphabet)
        else:
            intake: Intake[GraphRecord] = Intake(OnBad(on_bad))
            for file in files:
                _READERS[_suffix(file)](file, intake)
            found = FileContent(intake.items, "graphs", skipped=intake.skipped)
    except DataError:
        raise
    except (ValueError, UnicodeDecodeError, OSError, EOFError, zlib.error) as error:
        raise DataError(str(error)) from error
    if not found.graphs:
        reason = f"; the first of {len(found.skipped)} left out: {found.skipped[0]}" if found.skipped else ""
        raise DataError(f"{path} holds nothing usable{reason}")
    return found


def encode_molecules(
    molecules: list[tuple[str, Mol | str]], on_bad: OnBad, alphabet: Alphabet | None = None, targets: Any = None
) -> FileContent:
    """Records of (source, molecule or SMILES) pairs.

    Args:
        molecules: Where each comes from, and what it is.
        on_bad: Stop or leave out.
        alphabet: Default: learnt from them.
        targets: A mapping per molecule, or None.

    Raises:
        ValueError: An unusable molecule and `on_bad` is RAISE, or no readable one at all.
    """
    with quiet():
        readable: Intake[tuple[str, Mol, Any]] = Intake(on_bad)
        for k, (source, item) in enumerate(molecules):
            own = None if targets is None else targets[k]
            readable.take(
                source,
                lambda source=source, item=item, own=own: (
                    source,
                    read_smiles(item) if isinstance(item, str) else item,
                    own,
                ),
            )
        letters = learn_alphabet(mol for _, mol, _ in readable.items) if alphabet is None else alphabet
        intake: Intake[GraphRecord] = Intake(on_bad, skipped=readable.skipped)
        for source, mol, own in readable.items:
            intake.take(source, lambda s=source, m=mol, o=own: _encoded(letters, m, s, o))
    return FileContent(intake.items, "molecules", letters, intake.skipped)


def read_smiles_csv(path: Path, column: str | None = None) -> tuple[list[tuple[str, str]], list[dict[str, float]]]:
    """SMILES of a CSV file with their line as source, and the numbers beside them (those columns that are all numbers).

    Raises:
        DataError: No such column.
    """
    with _text(path) as file:
        rows = csv.DictReader(file)
        names = list(rows.fieldnames or [])
        smiles = column or next((name for name in names if name.strip().lower().startswith("smiles")), None)
        if smiles is None or smiles not in names:
            wanted = f"no column {column!r}" if column else "no column named like 'smiles'"
            raise DataError(
                f"{path} has {wanted}; its columns are {', '.join(names) or 'missing'} (smiles_column=NAME)"
            )
        found, numbers = [], []
        for row in rows:
            found.append((f"{path.name}:{rows.line_num}", row[smiles] or ""))
            numbers.append({name: _number(row[name]) for name in names if name != smiles})
    whole = [n for n in (numbers[0] if numbers else ()) if all(row[n] is not None for row in numbers)]
    return found, [{name: float(row[name] or 0.0) for name in whole} for row in numbers]


def read_graphml(path: Path, intake: Intake[GraphRecord]) -> None:
    """Graphs of a GraphML file; `feature_0`, `feature_1`, ... of nodes and edges become feature vectors.

    Raises:
        ValueError: An unusable graph and the policy is to stop, or not GraphML.
    """
    from xml.etree.ElementTree import ParseError

    import networkx as nx
    from networkx.readwrite.graphml import GraphMLReader

    try:
        graphs = list(GraphMLReader(node_type=str)(path=str(path)))
    except (ParseError, nx.NetworkXError, KeyError) as error:
        intake.take(str(path), lambda error=error: _refuse(f"not GraphML ({error})"))
        return
    for k, graph in enumerate(graphs):
        source = str(path) if len(graphs) == 1 else f"{path} (graph {k})"
        intake.take(source, lambda graph=graph: from_networkx(_with_features(graph)))


def read_edge_list(path: Path, intake: Intake[GraphRecord]) -> None:
    """The graph of a file with two node names per line, separated by blanks or a comma; `#` begins a comment.

    Whole numbers are ordered as numbers, other names by first appearance. A line with one name is an isolated node.

    Raises:
        ValueError: An unusable graph and the policy is to stop.
    """
    intake.take(str(path), lambda: _edge_list(path))


def read_npz(path: Path, intake: Intake[GraphRecord]) -> None:
    """Graphs of an npz file with `edges (M, 2)`, `edge_ptr (G + 1,)`, `num_nodes (G,)` and perhaps types and features.

    Raises:
        ValueError: Not such a file, or an unusable graph and the policy is to stop.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        edges, ptr, sizes = (np.asarray(arrays[k], np.int64) for k in ("edges", "edge_ptr", "num_nodes"))
        if len(ptr) != len(sizes) + 1 or ptr[0] != 0 or ptr[-1] != len(edges) or (np.diff(ptr) < 0).any():
            raise ValueError("edge_ptr does not fit num_nodes and edges")
    except (OSError, KeyError, ValueError, EOFError) as error:
        raise ValueError(f"{path} is not a file of graphs (arrays edges, edge_ptr, num_nodes): {error}") from error
    nodes = np.concatenate([[0], np.cumsum(sizes)])
    for k, n in enumerate(sizes.tolist()):
        own, between = slice(nodes[k], nodes[k + 1]), slice(ptr[k], ptr[k + 1])
        parts = {"node_types": own, "node_features": own, "edge_types": between, "edge_features": between}
        given = {key: arrays[key][rows] for key, rows in parts.items() if key in arrays}
        intake.take(
            f"{path.stem} {k}",
            lambda n=n, e=edges[between], given=given, k=k: GraphRecord(n, e, **given, name=f"{path.stem} {k}"),
        )


_READERS = {
    ".graphml": read_graphml,
    ".edgelist": read_edge_list,
    ".edges": read_edge_list,
    ".txt": read_edge_list,
    ".npz": read_npz,
}


def _files_of(path: Path) -> list[Path]:
    if path.is_dir():
        files = sorted(f for f in path.rglob("*") if f.is_file() and not f.name.startswith("."))
        known = [f for f in files if _suffix(f) in (*_MOLECULES, *_GRAPHS)]
        unknown = [f.name for f in files if f not in known and f.suffix.lower() not in (".md", ".json")]
        if unknown or not known:
            raise DataError(
                f"{path} holds {unknown[0] if unknown else 'no files'}; known are {', '.join((*_MOLECULES, *_GRAPHS))}"
            )
        return known
    if not path.is_file():
        raise DataError(f"there is no file or folder {path}")
    if _suffix(path) not in (*_MOLECULES, *_GRAPHS):
        hint = (
            " (pickles can run code when opened and are not read)" if path.suffix in (".pkl", ".pickle", ".p") else ""
        )
        raise DataError(f"{path}: unknown kind of file{hint}; known are {', '.join((*_MOLECULES, *_GRAPHS))}")
    return [path]


def _suffix(path: Path) -> str:
    return (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower()


def _text(path: Path) -> io.TextIOBase:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="")  # pyright: ignore[reportReturnType]
    return open(path, encoding="utf-8-sig", newline="")


def _molecules(files: list[Path], column: str | None, on_bad: OnBad, alphabet: Alphabet | None) -> FileContent:
    pairs: list[tuple[str, Any]] = []
    targets: list[dict[str, float]] = []
    for file in files:
        if _suffix(file) == ".csv":
            found, numbers = read_smiles_csv(file, column)
        else:
            found = list(_sdf(file) if _suffix(file) == ".sdf" else _smiles_lines(file))
            numbers = [{} for _ in found]
        pairs += found
        targets += numbers
    common = set.intersection(*(set(t) for t in targets)) if targets else set()
    kept = [{name: t[name] for name in t if name in common} for t in targets]
    return encode_molecules(pairs, on_bad, alphabet, kept)


def _smiles_lines(path: Path) -> Iterator[tuple[str, str]]:
    with _text(path) as file:
        for number, line in enumerate(file, start=1):
            words = line.split()
            if words and not line.startswith("#"):
                yield f"{path.name}:{number}", words[0]


def _sdf(path: Path) -> Iterator[tuple[str, Mol | str]]:
    from rdkit import Chem

    with quiet(), gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
        for k, mol in enumerate(Chem.ForwardSDMolSupplier(file)):
            # An unreadable entry becomes an unreadable SMILES, which is then counted with the others.
            yield f"{path.name} (molecule {k + 1})", "(" if mol is None else mol


def _encoded(alphabet: Alphabet, mol: Mol, source: str, targets: dict[str, float] | None) -> GraphRecord:
    record = alphabet.encode(mol, name=source)
    return record.with_targets(targets) if targets else record


def _edge_list(path: Path) -> GraphRecord:
    pairs: list[tuple[str, str]] = []
    names: dict[str, None] = {}
    with _text(path) as file:
        for number, line in enumerate(file, start=1):
            words = line.split("#")[0].replace(",", " ").split()
            if len(words) > 2 and words[2] not in ("1", "1.0", "{}"):
                raise ValueError(f"line {number}: a weight ({' '.join(words[2:])}); edges are there or not")
            names.update(dict.fromkeys(words[:2]))
            if len(words) > 1:
                pairs.append((words[0], words[1]))
    if not names:
        raise ValueError("no edges")
    ordered = sorted(names, key=int) if all(name.lstrip("-").isdigit() for name in names) else list(names)
    place = {name: k for k, name in enumerate(ordered)}
    edges = np.array([(place[u], place[v]) for u, v in pairs], np.int64).reshape(-1, 2)
    return GraphRecord(len(ordered), edges, name=path.stem)


def _with_features(graph: Any) -> Any:
    for items in (graph.nodes, graph.edges):
        for key in items:
            data = items[key]
            columns = sorted((k for k in data if k.startswith("feature_")), key=lambda k: int(k.split("_")[1]))
            if columns:
                data["features"] = [float(data.pop(k)) for k in columns]
    return graph


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value


def _refuse(reason: str) -> GraphRecord:
    raise ValueError(reason)
