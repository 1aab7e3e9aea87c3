"""Molecules as graphs: round trip, refusals, repair, properties."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from fourfold.modalities.graphs.intake import OnBad
from fourfold.modalities.graphs.molecules import (
    Alphabet,
    canonical_smiles,
    is_connected,
    largest_fragment,
    learn_alphabet,
    read_smiles,
    repair,
    sanitized,
)
from fourfold.modalities.graphs.properties import properties
from fourfold.modalities.graphs.records import GraphRecord

DRUGS = [
    "CC(=O)Oc1ccccc1C(=O)O",
    "C[NH+]1CCC(CC1)c1nc2cc(Cl)ccc2[nH]1",
    "O=[N+]([O-])c1ccc(S(=O)(=O)N2CC[NH2+]CC2)cc1",
    "C[n+]1ccccc1",
    "CC(C)[C@@H](N)C(=O)[O-]",
    "Brc1cnc(I)s1",
    "CP(=O)([O-])OC#N",
]


def encoded(text: str) -> str:
    mol = read_smiles(text)
    alphabet = learn_alphabet([mol])
    back = alphabet.decode(alphabet.encode(mol))
    assert back is not None
    return canonical_smiles(back)


@pytest.mark.parametrize("smiles", DRUGS)
def test_drugs_come_back_unchanged_but_for_stereo(smiles: str) -> None:
    assert encoded(smiles) == canonical_smiles(read_smiles(smiles))


def test_qm9_comes_back_unchanged(shared: Path) -> None:
    with gzip.open(shared / "data" / "graphs" / "qm9_smiles.csv.gz", "rt") as file:
        lines = file.read().split()[1:]
    smiles = [line.split(",")[1] for line in lines[::120]]
    alphabet = Alphabet.charge_aware(smiles)
    intake = alphabet.encode_all(smiles)
    kept = [s for s in smiles if s not in {u.source for u in intake.skipped}]
    back = [alphabet.decode(record) for record in intake.items]
    same = [
        m is not None and canonical_smiles(m) == canonical_smiles(read_smiles(s))
        for s, m in zip(kept, back, strict=True)
    ]
    assert sum(same) >= 0.99 * len(smiles)


def test_alphabet_is_learnt_by_frequency_and_readable() -> None:
    alphabet = learn_alphabet(["CCO", "CN", "C[N+](C)(C)C", "not a molecule"])
    assert alphabet.atoms[0] == ("C", 0)
    assert set(alphabet.names) == {"C", "O", "N", "N+1"}
    assert Alphabet.from_names(alphabet.names) == alphabet
    assert Alphabet(tuple((s, c) for s, c in alphabet.config())) == alphabet
    assert learn_alphabet(["CCO", "C"], smallest_count=2).atoms == (("C", 0),)
    with pytest.raises(ValueError, match="not a chemical element"):
        Alphabet((("Xx", 0),))
    with pytest.raises(ValueError, match="no readable molecule"):
        learn_alphabet(["("])


def test_a_graph_says_what_the_molecule_is() -> None:
    alphabet = Alphabet((("C", 0), ("O", -1), ("O", 0)))
    record = alphabet.encode("CC(=O)[O-]", name="acetate")
    assert record.node_types is not None
    assert record.node_types.tolist() == [0, 0, 2, 1]
    assert record.edges.tolist() == [[0, 1], [1, 2], [1, 3]]
    assert record.edge_types is not None
    assert record.edge_types.tolist() == [1, 2, 1]
    assert record.name == "acetate"


@pytest.mark.parametrize(
    ("smiles", "reason"),
    [
        ("C(", "not a valid SMILES"),
        ("", "empty"),
        ("CBr", r"atom Br with charge \+0"),
        ("C[CH2]", "radical"),
        ("[NH3+]C", r"N with charge \+1"),
        ("C->[N]", "dative|radical"),
    ],
)
def test_what_cannot_be_encoded_is_listed_with_its_reason(smiles: str, reason: str) -> None:
    alphabet = Alphabet((("C", 0), ("N", 0)))
    intake = alphabet.encode_all(["CN", smiles, "C#N"])
    assert len(intake.items) == 2
    assert intake.skipped[0].source == smiles
    with pytest.raises(ValueError, match=reason):
        alphabet.encode_all([smiles], OnBad.RAISE)


def test_hydrogens_the_valence_model_would_not_give_back_are_noticed() -> None:
    # Sulphur with three hydrogens and three bonds: the valence model would give another number.
    alphabet = Alphabet((("S", 0), ("C", 0)))
    with pytest.raises(ValueError, match=r"hydrogens|radical"):
        alphabet.encode("C[SH3](C)C")


def test_impossible_molecules_decode_to_none_and_can_be_repaired() -> None:
    alphabet = Alphabet((("C", 0), ("O", 0)))
    record = GraphRecord(3, np.array([[0, 1], [1, 2]]), np.array([0, 1, 0]), np.array([3, 3]))
    assert alphabet.decode(record) is None
    fixed = sanitized(repair(alphabet.build(record)))
    assert fixed is not None
    assert canonical_smiles(fixed) == "COC"
    for broken in (GraphRecord(1, np.zeros((0, 2), int)), GraphRecord(1, np.zeros((0, 2), int), np.array([7]))):
        with pytest.raises(ValueError, match="node type"):
            alphabet.build(broken)


def test_fragments() -> None:
    mol = read_smiles("CCO.C")
    assert not is_connected(mol)
    assert canonical_smiles(largest_fragment(mol)) == "CCO"


def test_properties_of_known_molecules() -> None:
    alphabet = Alphabet((("C", 0), ("O", 0)))
    ethanol = alphabet.encode("CCO")
    found = properties(ethanol, ["weight", "num_atoms", "num_rings", "tpsa", "logp", "num_edges"], alphabet)
    assert found["weight"] == pytest.approx(46.069, abs=1e-2)
    assert (found["num_atoms"], found["num_rings"], found["num_edges"]) == (3, 0, 2)
    assert found["tpsa"] == pytest.approx(20.23)
    assert found["logp"] == pytest.approx(-0.0014, abs=1e-4)
    assert 0 < properties(ethanol, ["qed"], alphabet)["qed"] < 1
    triangle = GraphRecord(3, np.array([[0, 1], [1, 2], [0, 2]]))
    assert properties(triangle, ["clustering", "density", "mean_degree"]) == {
        "clustering": 1.0,
        "density": 1.0,
        "mean_degree": 2.0,
    }
    with pytest.raises(ValueError, match="unknown property 'logp'"):
        properties(triangle, ["logp"])
