"""Fragments: where molecules are cut, how cut ends are closed, and which molecules are cut."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import pytest

from fourfold.data.errors import DataError
from fourfold.data.graphs import load_dataset
from fourfold.data.graphs.fragments import fragments_of, load_fragments
from fourfold.data.graphs.molecule_sets import moses_source

# an amide between two rings, an ester, a pyrrole nitrogen at a cut, a small molecule without any cut
DRUGS = ["O=C(Nc1ccccc1)c1ccncc1", "CCOC(=O)c1ccccc1", "c1ccccc1-n1cccc1", "CCO"]


def write_moses(root: Path, train: list[str]) -> None:
    text = "SMILES,SPLIT\n" + "".join(f"{s},train\n" for s in train)
    with zipfile.ZipFile(root / "molsets-0.3.1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("moses/__init__.py", "raise RuntimeError('imported')")
        wheel.writestr("moses/dataset/data/train.csv.gz", gzip.compress(text.encode()))


def write_qm9(root: Path, smiles: list[str]) -> None:
    rows = "".join(f"{k + 1},{s}\n" for k, s in enumerate(smiles))
    (root / "qm9_smiles.csv.gz").write_bytes(gzip.compress(f"index,smiles\n{rows}".encode()))


def test_cut_ends_get_hydrogens_and_every_piece_is_listed_once() -> None:
    found = list(fragments_of([DRUGS[0], "not a molecule", DRUGS[1], DRUGS[0]]))
    # benzene and pyridine once each; formyl (2 atoms) and ethanol's part (3) are too small
    assert found == ["c1ccccc1", "c1ccncc1"]
    assert "c1cc[nH]c1" in list(fragments_of([DRUGS[2]]))


def test_sizes_and_molecules_without_a_cut() -> None:
    chain = "C" * 12
    assert list(fragments_of(["CCO", "CCCO", chain, chain + "C"])) == ["CCCO", chain]
    assert list(fragments_of(["CCCO", chain], whole=False)) == []
    assert list(fragments_of([DRUGS[1]], whole=False)) == ["c1ccccc1"]


def test_moses_is_read_as_data_and_cut_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_moses(tmp_path, [*DRUGS, *(f"{'C' * k}N" for k in range(4, 14))])
    data = load_dataset("moses-fragments", tmp_path, validation=0.2)
    sizes = [g.num_nodes for g in [*data.train, *data.validation, *data.test]]
    assert min(sizes) >= 4
    assert max(sizes) <= 12
    assert data.kind == "molecules"
    assert data.alphabet is not None
    assert set(data.alphabet.names) == {"C", "N"}
    assert "BRICS" in data.protocol
    assert "QM9" not in data.protocol

    def cut(*_: object, **__: object) -> None:
        pytest.fail("cut again")

    monkeypatch.setattr("fourfold.data.graphs.fragments.fragments_of", cut)
    again = load_dataset("moses-fragments", tmp_path, validation=0.2)
    assert [g.name for g in again.test] == [g.name for g in data.test]


def test_without_moses_qm9_is_cut_and_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="QM9 is not in"):
        load_dataset("moses-fragments", tmp_path)
    write_qm9(tmp_path, [*DRUGS, "CCCO"])
    with pytest.warns(UserWarning, match=r"MOSES is not in .*molsets"):
        data = load_dataset("moses-fragments", tmp_path)
    assert "of QM9 because MOSES is not there" in data.protocol
    own = load_dataset("qm9-fragments", tmp_path)
    assert [g.name for g in own.train] == [g.name for g in data.train]
    # CCCO has no bond to cut, and nothing of it is listed
    assert own.alphabet is not None
    found = {own.alphabet.names[k] for g in own.train for k in (g.node_types if g.node_types is not None else ())}
    assert found <= {"C", "N"}


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not from 'zinc'"):
        load_fragments(tmp_path, source="zinc")
    write_moses(tmp_path, ["CC"])
    assert moses_source(tmp_path, "train").name.startswith("molsets")
    with pytest.raises(DataError, match="no molecule with a fragment of 4 to 12 atoms"):
        load_dataset("moses-fragments", tmp_path)
