"""Generated graphs and molecules as files other programs read: GraphML, npz, SMILES and SDF.

The npz layout holds any number of graphs without padding:

    num_nodes (G,)   edges (M, 2), node numbers within their graph   edge_ptr (G + 1,): graph g has the edges
    edge_ptr[g]:edge_ptr[g + 1]

and, where graphs have them, node_types (sum n,), edge_types (M,), node_features (sum n, d), edge_features (M, d').
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .records import GraphRecord, to_networkx

if TYPE_CHECKING:
    from rdkit.Chem import Mol

__all__ = ["write_graphml", "write_npz", "write_sdf", "write_smiles"]


def write_graphml(records: Sequence[GraphRecord], path: str | Path) -> Path:
    """One file for one graph, a folder of numbered files for several (GraphML readers take one graph per file).

    Args:
        records: at least one.
        path: a name that ends in .graphml; a folder gets it without the ending.

    Returns:
        The file or folder.
    """
    import networkx as nx

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if len(records) == 1:
        nx.write_graphml(_flat(records[0]), path)
        return path
    folder = path.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    digits = len(str(len(records) - 1))
    for k, record in enumerate(records):
        nx.write_graphml(_flat(record), folder / f"{k:0{digits}d}.graphml")
    return folder


def write_npz(records: Sequence[GraphRecord], path: str | Path) -> Path:
    """All graphs in one compressed file; see the module for the layout."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    counts = [r.num_edges for r in records]
    arrays: dict[str, np.ndarray] = {
        "num_nodes": np.array([r.num_nodes for r in records], np.int64),
        "edges": np.concatenate([r.edges for r in records]).reshape(-1, 2),
        "edge_ptr": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
    }
    for name in ("node_types", "edge_types", "node_features", "edge_features"):
        values = [getattr(r, name) for r in records]
        if all(v is not None for v in values):
            arrays[name] = np.concatenate(values)
    np.savez_compressed(path, allow_pickle=False, **arrays)
    return path


def write_smiles(molecules: Iterable[Mol | None], path: str | Path) -> Path:
    """One canonical SMILES per line with the number of the sample; samples that are no molecules are left out."""
    from rdkit import Chem

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{Chem.MolToSmiles(m)} {k}" for k, m in enumerate(molecules) if m is not None]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def write_sdf(molecules: Iterable[Mol | None], path: str | Path) -> Path:
    """Molecules with plane coordinates; samples that are no molecules are left out."""
    from rdkit import Chem
    from rdkit.Chem import AllChem

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with Chem.SDWriter(str(path)) as writer:
        for k, molecule in enumerate(molecules):
            if molecule is None:
                continue
            flat = Chem.Mol(molecule)
            AllChem.Compute2DCoords(flat)  # pyright: ignore[reportAttributeAccessIssue]
            flat.SetProp("_Name", str(k))
            writer.write(flat)
    return path


def _flat(record: GraphRecord):
    """A NetworkX graph with plain attributes only: GraphML knows no lists."""
    graph = to_networkx(record)
    for data in [graph.graph, *(d for _, d in graph.nodes(data=True)), *(d for _, _, d in graph.edges(data=True))]:
        for k, value in enumerate(data.pop("features", ())):
            data[f"feature_{k}"] = float(value)
    return graph
