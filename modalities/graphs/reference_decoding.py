r"""Published quantisation: from real-valued states to graphs and molecules.

Graphs: an edge where A >= 1/2; node features are ignored; isolated nodes are removed, and a graph without edges becomes
one node. Molecules: bond orders by A rounded into [0, 3] (halves up); an atom's element is the first feature above
1/2, and there is no atom where none is. Bonds are added one by one in the order (i, j < i); when the first atom over
its valence is N, O or S by exactly one (3, 2, 2), it gets a charge of +1. What then passes RDKit's valence check is
*valid without correction*: charges and several fragments are allowed. Correction lowers the highest bond of the first
offending atom by one until the check passes; of the result the fragment with the longest SMILES is kept.

Source: Jo et al. 2022, arXiv 2202.02514, appendix; the correction follows Zang and Wang 2020 (MoFlow), arXiv
2006.10137.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .records import GraphRecord

if TYPE_CHECKING:
    import networkx as nx
    from rdkit.Chem import Mol, RWMol

__all__ = ["PublishedMolecule", "build_molecule", "graph_record", "molecule_record", "published_graph"]

_CHARGEABLE = {"N": 3, "O": 2, "S": 2}


def graph_record(adj: NDArray[np.floating]) -> GraphRecord:
    """Quantised graph of one state (n, n), isolated nodes removed; one node if nothing is left."""
    edges = np.triu(adj >= 0.5, 1)
    kept = (edges | edges.T).any(1)
    edges = edges[np.ix_(kept, kept)]
    return GraphRecord(max(1, int(kept.sum())), np.argwhere(edges))


def molecule_record(x: NDArray[np.floating], adj: NDArray[np.floating]) -> GraphRecord | None:
    """Quantised molecule of one state, before any correction.

    Args:
        x: element features, (n, F).
        adj: bond orders, (n, n).

    Returns:
        Node types are element indices, edge types bond orders; None if there is no atom.
    """
    present = x > 0.5
    atoms = present.any(1)
    if not atoms.any():
        return None
    types = present.argmax(1)[atoms]
    orders = np.clip(np.floor(adj + 0.5), 0, 3).astype(np.int64)[np.ix_(atoms, atoms)]
    edges = np.argwhere(np.triu(orders, 1))
    return GraphRecord(len(types), edges, types, orders[edges[:, 0], edges[:, 1]])


def published_graph(record: GraphRecord) -> nx.Graph:
    """NetworkX graph of nodes 0..n-1."""
    import networkx as nx

    graph = nx.empty_graph(record.num_nodes)
    graph.add_edges_from(record.edges.tolist())
    return graph


@dataclass(frozen=True)
class PublishedMolecule:
    """A molecule as built and as corrected.

    Attributes:
        built: with the published charges, before correction.
        valid: whether it passes the valence check without correction.
        corrected: largest fragment after correction; None if RDKit cannot read it.
    """

    built: Mol
    valid: bool
    corrected: Mol | None


def build_molecule(record: GraphRecord, atoms: Sequence[str]) -> PublishedMolecule:
    """Build and correct a molecule.

    Args:
        record: elements and bond orders, see :func:`molecule_record`.
        atoms: symbols of the node types.
    """
    from rdkit import Chem, rdBase

    quiet = rdBase.BlockLogs()  # RDKit prints every failed check
    kinds = [None, Chem.BondType.SINGLE, Chem.BondType.DOUBLE, Chem.BondType.TRIPLE]
    mol = Chem.RWMol()
    assert record.node_types is not None
    for kind in record.node_types.tolist():
        mol.AddAtom(Chem.Atom(str(atoms[kind])))
    orders = np.ones(record.num_edges, np.int64) if record.edge_types is None else record.edge_types
    bonds = sorted((int(j), int(i), int(order)) for (i, j), order in zip(record.edges, orders, strict=True))
    for start, end, order in bonds:
        mol.AddBond(start, end, kinds[order])
        _charge(mol)
    built, valid = Chem.Mol(mol), _offending(mol) is None
    while (atom := _offending(mol)) is not None:
        bond = max(mol.GetAtomWithIdx(atom).GetBonds(), key=lambda b: b.GetBondTypeAsDouble(), default=None)
        if bond is None:
            break
        start, end, order = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), int(bond.GetBondTypeAsDouble())
        mol.RemoveBond(start, end)
        if order > 1:
            mol.AddBond(start, end, kinds[order - 1])
    fragments = sorted(Chem.MolToSmiles(mol).split("."), key=len, reverse=True)
    corrected = Chem.MolFromSmiles(fragments[0])
    del quiet
    return PublishedMolecule(built, valid, corrected)


def _offending(mol: RWMol) -> int | None:
    """First atom over its valence."""
    from rdkit import Chem

    problems = Chem.DetectChemistryProblems(mol, sanitizeOps=Chem.SanitizeFlags.SANITIZE_PROPERTIES)
    return problems[0].GetAtomIdx() if problems else None


def _charge(mol: RWMol) -> None:
    index = _offending(mol)
    if index is None:
        return
    atom = mol.GetAtomWithIdx(index)
    valence = sum(bond.GetBondTypeAsDouble() for bond in atom.GetBonds())
    if valence - _CHARGEABLE.get(atom.GetSymbol(), valence) == 1:
        atom.SetFormalCharge(1)
