"""Properties of whole graphs and molecules that a model can be conditioned on.

    logp     octanol-water partition coefficient by Crippen's contributions
    qed      quantitative estimate of drug-likeness, in [0, 1]
    num_atoms, num_rings, weight (g/mol), tpsa (square angstrom)

and, for any graph, num_nodes, num_edges, mean_degree, density and clustering.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .molecules import Alphabet
from .records import GraphRecord

if TYPE_CHECKING:
    from rdkit.Chem import Mol

__all__ = ["GRAPH_PROPERTIES", "MOLECULE_PROPERTIES", "molecule_properties", "properties"]


def _logp(mol: Mol) -> float:
    from rdkit.Chem import Crippen

    return float(Crippen.MolLogP(mol))  # pyright: ignore[reportAttributeAccessIssue]


def _qed(mol: Mol) -> float:
    from rdkit.Chem import QED

    return float(QED.qed(mol))


def _weight(mol: Mol) -> float:
    from rdkit.Chem import Descriptors

    return float(Descriptors.MolWt(mol))  # pyright: ignore[reportAttributeAccessIssue]


def _tpsa(mol: Mol) -> float:
    from rdkit.Chem import rdMolDescriptors

    return float(rdMolDescriptors.CalcTPSA(mol))


def _num_rings(mol: Mol) -> float:
    from rdkit.Chem import rdMolDescriptors

    return float(rdMolDescriptors.CalcNumRings(mol))


def _mean_degree(graph: GraphRecord) -> float:
    return 2 * graph.num_edges / graph.num_nodes


def _density(graph: GraphRecord) -> float:
    return 2 * graph.num_edges / max(1, graph.num_nodes * (graph.num_nodes - 1))


def _clustering(graph: GraphRecord) -> float:
    from .metrics.descriptors import clustering_coefficients

    return float(np.mean(clustering_coefficients(graph)))


MOLECULE_PROPERTIES: Mapping[str, Callable[[Mol], float]] = {
    "logp": _logp,
    "qed": _qed,
    "num_atoms": lambda mol: float(mol.GetNumHeavyAtoms()),
    "weight": _weight,
    "tpsa": _tpsa,
    "num_rings": _num_rings,
}

GRAPH_PROPERTIES: Mapping[str, Callable[[GraphRecord], float]] = {
    "num_nodes": lambda graph: float(graph.num_nodes),
    "num_edges": lambda graph: float(graph.num_edges),
    "mean_degree": _mean_degree,
    "density": _density,
    "clustering": _clustering,
}


def molecule_properties(molecule: Mol, names: Sequence[str]) -> dict[str, float]:
    """Properties of a sanitised RDKit molecule.

    Raises:
        ValueError: An unknown name.
    """
    _check(names, [*MOLECULE_PROPERTIES])
    return {name: MOLECULE_PROPERTIES[name](molecule) for name in names}


def properties(graph: GraphRecord, names: Sequence[str], alphabet: Alphabet | None = None) -> dict[str, float]:
    """Properties of a graph: targets it carries already, graph properties, and with an alphabet molecular ones.

    Args:
        graph: The graph.
        names: What is wanted.
        alphabet: What its node types mean, for molecules.

    Raises:
        ValueError: An unknown name, or a molecular property of a graph that is not a sensible molecule.
    """
    _check(names, [*graph.targets, *GRAPH_PROPERTIES, *(MOLECULE_PROPERTIES if alphabet is not None else ())])
    found: dict[str, float] = {}
    molecule: Mol | None = None
    for name in names:
        if name in graph.targets:
            found[name] = graph.targets[name]
        elif name in GRAPH_PROPERTIES:
            found[name] = GRAPH_PROPERTIES[name](graph)
        else:
            assert alphabet is not None
            molecule = alphabet.decode(graph) if molecule is None else molecule
            if molecule is None:
                raise ValueError(f"{graph.name or 'a graph'} is not a valid molecule, so it has no {name}")
            found[name] = MOLECULE_PROPERTIES[name](molecule)
    return found


def _check(names: Sequence[str], known: Sequence[str]) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"unknown property {unknown[0]!r}; known are {', '.join(dict.fromkeys(known))}")
