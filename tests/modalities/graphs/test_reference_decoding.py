"""Quantisation and molecule building on cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from fourfold.modalities.graphs.records import GraphRecord
from fourfold.modalities.graphs.reference_decoding import (
    build_molecule,
    graph_record,
    molecule_record,
    published_graph,
)

ATOMS = ["C", "N", "O", "F"]


def smiles(record: GraphRecord) -> str:
    from rdkit import Chem

    return Chem.MolToSmiles(build_molecule(record, ATOMS).corrected)


def molecule(types: list[int], *bonds: tuple[int, int, int]) -> GraphRecord:
    return GraphRecord(
        len(types), np.array([b[:2] for b in bonds]).reshape(-1, 2), np.array(types), np.array([b[2] for b in bonds])
    )


def test_graphs_are_cut_at_one_half_and_lose_isolated_nodes() -> None:
    adj = np.zeros((4, 4))
    adj[0, 2] = adj[2, 0] = 0.5
    adj[1, 2] = adj[2, 1] = 0.4999
    adj[2, 3] = adj[3, 2] = 1.7
    record = graph_record(adj)
    assert record.num_nodes == 3
    assert record.edges.tolist() == [[0, 1], [1, 2]]
    assert sorted(published_graph(record).edges) == [(0, 1), (1, 2)]


def test_a_graph_without_edges_is_one_node() -> None:
    record = graph_record(np.full((5, 5), 0.4))
    assert (record.num_nodes, record.num_edges) == (1, 0)
    assert published_graph(record).number_of_nodes() == 1


def test_molecules_are_rounded() -> None:
    x = np.array([[0.9, 0, 0, 0], [0.2, 0.51, 0.9, 0], [0.5, 0.5, 0.5, 0.5], [0, 0, 0, 0.6]])
    adj = np.zeros((4, 4))
    for i, j, value in ((0, 1, 0.5), (0, 3, 1.49), (1, 3, 2.5), (0, 2, 3.0)):
        adj[i, j] = adj[j, i] = value
    record = molecule_record(x, adj)
    assert record is not None
    assert record.node_types is not None
    assert record.edge_types is not None
    assert record.node_types.tolist() == [0, 1, 3]  # several above 1/2: the first; none: no atom
    assert record.edges.tolist() == [[0, 1], [0, 2], [1, 2]]
    assert record.edge_types.tolist() == [1, 1, 3]
    high = molecule_record(np.eye(2), np.array([[0, 7.2], [7.2, 0]]))
    assert high is not None
    assert high.edge_types is not None
    assert high.edge_types.tolist() == [3]
    assert molecule_record(np.full((3, 4), 0.5), adj[:3, :3]) is None


def test_valid_molecules_stay() -> None:
    ethanol = molecule([0, 0, 2], (0, 1, 1), (1, 2, 1))
    assert build_molecule(ethanol, ATOMS).valid
    assert smiles(ethanol) == "CCO"


def test_nitrogen_with_four_bonds_is_charged() -> None:
    built = build_molecule(molecule([1, 0, 0, 0, 0], *[(0, i, 1) for i in range(1, 5)]), ATOMS)
    assert built.valid
    assert built.built.GetAtomWithIdx(0).GetFormalCharge() == 1
    assert smiles(molecule([1, 0, 0, 0, 0], *[(0, i, 1) for i in range(1, 5)])) == "C[N+](C)(C)C"


def test_correction_lowers_the_highest_bond_of_the_first_offender() -> None:
    # carbon with 3 + 2 = 5 bonds: the triple bond becomes a double one
    wrong = molecule([0, 0, 0], (0, 1, 3), (0, 2, 2))
    built = build_molecule(wrong, ATOMS)
    assert not built.valid
    assert built.built.GetBondBetweenAtoms(0, 1).GetBondTypeAsDouble() == 3
    assert smiles(wrong) == "C=C=C"
    # fluorine with two bonds: one of them goes, the longer fragment stays
    assert smiles(molecule([3, 0, 0, 0], (0, 1, 1), (0, 2, 1), (2, 3, 1))) in ("CCF", "CC")


def test_the_longest_fragment_is_kept() -> None:
    built = build_molecule(molecule([0, 0, 0, 2], (1, 2, 1), (2, 3, 1)), ATOMS)
    assert built.valid  # several fragments count as valid
    assert smiles(molecule([0, 0, 0, 2], (1, 2, 1), (2, 3, 1))) == "CCO"


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    build_molecule(molecule([3, 0, 0], (0, 1, 1), (0, 2, 1)), ATOMS)
    assert capfd.readouterr().err == ""
