"""Molecule metrics: shares by hand, NSPDK against EDeN's values, the Frechet distance of Gaussians."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem

from fourfold.modalities.graphs.metrics import (
    FLOOR,
    SHUFFLED,
    evaluate_molecules,
    fcd_available,
    judge,
    molecules_of,
    nspdk_features,
    nspdk_mmd,
    shuffled_like,
    smiles_set,
)
from fourfold.modalities.graphs.metrics.fcd import (
    MissingPackage,
    _chemnet,
    chemnet_activations,
    fcd,
    frechet_distance,
    frechet_interval,
)
from fourfold.modalities.graphs.molecules import learn_alphabet, read_smiles
from fourfold.modalities.graphs.records import GraphRecord


@pytest.fixture(scope="module")
def qm9(shared: Path) -> list[str]:
    with gzip.open(shared / "data" / "graphs" / "qm9_smiles.csv.gz", "rt") as file:
        lines = file.read().split()[1:]
    return [line.split(",")[1] for line in lines[::200]]


def test_shares_by_hand() -> None:
    raw = Chem.RWMol(Chem.MolFromSmiles("CC"))
    raw.AddAtom(Chem.Atom("C"))  # two pieces, valences fine
    five = Chem.MolFromSmiles("C(C)(C)(C)(C)C", sanitize=False)
    judged = judge(["CO", "OC", five, raw.GetMol(), None], correct=False)
    shares = judged.shares({"CO"})
    assert shares["validity"].value == 3 / 5
    assert shares["strict validity"].value == 2 / 5
    assert judged.smiles == ["CO", "CO", "C.CC"]
    assert shares["uniqueness"].value == 2 / 3
    assert shares["novelty"].value == 1 / 2
    # once CO, of five
    assert shares["vun"].value == 0
    assert judged.shares({"CC"})["vun"].value == 1 / 5


def test_correction_keeps_the_largest_piece_and_counts_validity_before() -> None:
    five = Chem.MolFromSmiles("C(C)(C)(C)(C)C", sanitize=False)
    judged = judge([five, "CCO.C"], correct=True)
    assert (judged.valid, judged.strict, judged.count) == (1, 0, 2)
    assert judged.smiles == ["CC(C)(C)C", "CCO"]


def test_nothing_valid_gives_no_numbers_but_no_crash() -> None:
    shares = judge([None, None]).shares(set())
    assert shares["validity"].value == 0
    assert np.isnan(shares["uniqueness"].value)
    with pytest.raises(ValueError, match="no generated molecules"):
        judge([])
    with pytest.raises(ValueError, match="need an alphabet"):
        judge([GraphRecord(1, np.zeros((0, 2), int), np.array([0]))])


def test_nspdk_equals_edens_kernel() -> None:
    molecules = [read_smiles(s) for s in ("C", "CC", "CCC", "CCO", "c1ccccc1")]
    features = nspdk_features(molecules)
    # Number of features and kernel of EDeN 0.3 with complexity 4.
    assert np.diff(features.indptr).tolist() == [2, 8, 22, 35, 32]
    expected = [
        [1.0, 0.0, 0.0, 0.0, 0.0],
        [0.0, 1.0, 0.209, 0.135, 0.0],
        [0.0, 0.209, 1.0, 0.343, 0.065],
        [0.0, 0.135, 0.343, 1.0, 0.084],
        [0.0, 0.0, 0.065, 0.084, 1.0],
    ]
    assert np.allclose((features @ features.T).toarray(), expected, atol=6e-4)


def test_nspdk_does_not_depend_on_numbering_or_process(qm9: list[str]) -> None:
    molecules = [read_smiles(s) for s in qm9[:40]]
    rng = np.random.default_rng(0)
    moved = [Chem.RenumberAtoms(m, rng.permutation(m.GetNumAtoms()).tolist()) for m in molecules]
    assert nspdk_mmd(molecules, moved) == pytest.approx(0, abs=1e-15)
    assert nspdk_mmd(molecules[:20], molecules[20:]) == pytest.approx(0.1, abs=0.06)
    assert nspdk_mmd([read_smiles("CCO")], [read_smiles("CC")]) == pytest.approx(2 - 2 * 0.135, abs=2e-3)
    with pytest.raises(ValueError, match="molecules on both sides"):
        nspdk_mmd([], molecules)


def test_frechet_distance_of_gaussians() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 6)) @ rng.normal(size=(6, 6))
    y = rng.normal(size=(300, 6)) @ rng.normal(size=(6, 6)) + 1
    from scipy.linalg import sqrtm

    a, b = np.cov(x.T), np.cov(y.T)
    exact = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a + b - 2 * np.real(sqrtm(a @ b)))
    assert frechet_distance(x, y) == pytest.approx(exact)
    assert frechet_distance(x, x + 2) == pytest.approx(24)
    # Fewer rows than dimensions: singular covariances must not hurt.
    assert frechet_distance(x[:3], x[:3]) == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="two molecules on both sides"):
        frechet_distance(x[:1], y)


def test_interval_of_a_frechet_distance_has_the_known_width() -> None:
    """Two Gaussians 2 apart in one dimension: the distance is 4, its standard deviation 2 * 2 * sqrt(1/n + 1/n)."""
    x, y = np.random.default_rng(0).normal(size=(2, 400, 2)) * [1.0, 1e-3]
    interval = frechet_interval(x + np.array([2.0, 0.0]), y, repeats=300)
    assert interval.low < 4 < interval.high
    assert (interval.high - interval.low) / 2 == pytest.approx(1.96 * 4 * (2 / 400) ** 0.5, rel=0.2)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.skipif(not fcd_available(), reason="fcd_torch is not installed")
def test_fcd_equals_fcd_torch(qm9: list[str]) -> None:
    from fcd_torch import FCD

    smiles = [Chem.CanonSmiles(s) for s in qm9[:60]]
    theirs = FCD(device="cpu", n_jobs=1)(smiles[:30], smiles[30:])
    assert fcd(smiles[:30], smiles[30:]) == pytest.approx(theirs, abs=1e-3)
    assert np.allclose(chemnet_activations(smiles[:1]), chemnet_activations(smiles[:3])[:1], atol=1e-5)


def test_without_fcd_torch_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcd_torch", None)
    _chemnet.cache_clear()
    with pytest.raises(MissingPackage, match=r"pip install 'fourfold\[molecules\]'"):
        chemnet_activations(["C"])


def test_evaluation_of_molecules(qm9: list[str]) -> None:
    train, test = qm9[:250], qm9[250:400]
    alphabet = learn_alphabet(train)
    records = alphabet.encode_all(train[:40]).items
    result = evaluate_molecules({"copies": records}, train, test, alphabet=alphabet, fcd=False, bootstrap=20)
    assert list(result.table) == ["copies", FLOOR, SHUFFLED]
    assert list(result.table["copies"]) == ["validity", "strict validity", "uniqueness", "novelty", "vun", "nspdk"]
    assert result.table["copies"]["validity"] == 1
    assert result.table["copies"]["novelty"] == 0
    assert result.table[SHUFFLED]["validity"] < 0.6
    assert result.table[SHUFFLED]["nspdk"] > result.table[FLOOR]["nspdk"]
    assert "40 generated molecules" in result.protocol
    assert "after correction" in result.protocol
    strict = evaluate_molecules(
        records, train, test, alphabet=alphabet, fcd=False, correct=False, train_smiles=smiles_set(train)
    )
    assert "completely sanitised" in strict.protocol


def test_shuffled_graphs_keep_atoms_and_bonds(qm9: list[str]) -> None:
    alphabet = learn_alphabet(qm9)
    records = alphabet.encode_all(qm9[100:110]).items
    for graph in shuffled_like(records, 20, 0):
        kinds = [
            np.array_equal(np.sort(graph.node_types), np.sort(r.node_types))  # pyright: ignore[reportArgumentType, reportCallIssue]
            and np.array_equal(np.sort(graph.edge_types), np.sort(r.edge_types))  # pyright: ignore[reportArgumentType, reportCallIssue]
            for r in records
        ]
        assert any(kinds)
    with pytest.raises(ValueError, match="no reference"):
        shuffled_like([], 1, 0)


def test_molecules_of_leaves_out_what_rdkit_refuses() -> None:
    assert len(molecules_of(["CC", None, Chem.MolFromSmiles("C(C)(C)(C)(C)C", sanitize=False)])) == 1
