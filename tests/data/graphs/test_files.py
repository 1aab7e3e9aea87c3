"""A user's own files: every kind, every mistake."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from rdkit import Chem

from fourfold.data.errors import DataError
from fourfold.data.graphs import from_content, read_files
from fourfold.modalities.graphs.intake import OnBad
from fourfold.modalities.graphs.molecules import canonical_smiles, read_smiles


def test_smiles_text_csv_and_sdf_hold_the_same_molecules(tmp_path: Path) -> None:
    smiles = ["CCO", "c1ccccc1", "CC(=O)[O-]"]
    (tmp_path / "a.smi").write_text("# mine\n" + "\n".join(f"{s} name{k}" for k, s in enumerate(smiles)) + "\n\n")
    with gzip.open(tmp_path / "b.csv.gz", "wt") as file:
        file.write("id,SMILES,logp,note\n" + "".join(f"{k},{s},{k / 2},x\n" for k, s in enumerate(smiles)))
    with Chem.SDWriter(str(tmp_path / "c.sdf")) as writer:
        for s in smiles:
            writer.write(read_smiles(s))
    for name in ("a.smi", "b.csv.gz", "c.sdf"):
        found = read_files(tmp_path / name)
        assert found.kind == "molecules"
        assert found.alphabet is not None
        back = [found.alphabet.decode(g) for g in found.graphs]
        assert [canonical_smiles(m) for m in back if m is not None] == [
            canonical_smiles(read_smiles(s)) for s in smiles
        ]
    assert read_files(tmp_path / "b.csv.gz").graphs[1].targets == {"id": 1.0, "logp": 0.5}
    assert len(read_files(tmp_path).graphs) == 9


def test_bad_molecules_stop_or_are_listed_with_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.smi"
    path.write_text("CCO\nnonsense\nC[CH2]\nCC\n")
    with pytest.raises(DataError, match=r"mine.smi:2: not a valid SMILES"):
        read_files(path)
    found = read_files(path, on_bad=OnBad.SKIP)
    assert len(found.graphs) == 2
    assert [s.source for s in found.skipped] == ["mine.smi:2", "mine.smi:3"]
    path.write_text("nonsense\n")
    with pytest.raises(DataError, match="no readable molecule"):
        read_files(path, on_bad=OnBad.SKIP)


def test_columns_are_found_or_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("mol,y\nCCO,1\nCC,2\n")
    with pytest.raises(DataError, match=r"no column named like 'smiles'; its columns are mol, y"):
        read_files(path)
    assert [g.targets["y"] for g in read_files(path, smiles_column="mol").graphs] == [1, 2]
    with pytest.raises(DataError, match="no column 'structure'"):
        read_files(path, smiles_column="structure")


def test_damaged_sdf_entries_are_counted(tmp_path: Path) -> None:
    block = Chem.MolToMolBlock(read_smiles("CCO"))
    (tmp_path / "x.sdf").write_text(f"{block}$$$$\n\n\n\nrubbish\n$$$$\n{block}$$$$\n")
    found = read_files(tmp_path / "x.sdf", on_bad=OnBad.SKIP)
    assert len(found.graphs) == 2
    assert found.skipped[0].source == "x.sdf (molecule 2)"


def test_graphml_edge_lists_and_npz(tmp_path: Path) -> None:
    graph = nx.path_graph(4)
    nx.write_graphml(graph, tmp_path / "a.graphml")
    (tmp_path / "b.edgelist").write_text("10 9 {}\n9 2 # last\n\n7\n")
    (tmp_path / "c.txt").write_text("x, y\ny, z\n")
    np.savez(
        tmp_path / "d.npz", edges=[[0, 1], [0, 2]], edge_ptr=[0, 1, 2], num_nodes=[2, 3], node_types=[0, 1, 2, 0, 0]
    )
    found = {p.name: read_files(p).graphs for p in sorted(tmp_path.iterdir())}
    assert found["a.graphml"][0].edges.tolist() == [[0, 1], [1, 2], [2, 3]]
    # Numbers in order of size: 2, 7, 9, 10.
    assert (found["b.edgelist"][0].num_nodes, found["b.edgelist"][0].edges.tolist()) == (4, [[0, 2], [2, 3]])
    assert found["c.txt"][0].edges.tolist() == [[0, 1], [1, 2]]
    assert [g.num_nodes for g in found["d.npz"]] == [2, 3]
    assert found["d.npz"][1].node_types is not None
    assert found["d.npz"][1].node_types.tolist() == [2, 0, 0]
    assert len(read_files(tmp_path).graphs) == 5


def test_what_models_write_can_be_read_again(tmp_path: Path) -> None:
    from fourfold.modalities.graphs.files import write_graphml, write_npz
    from fourfold.modalities.graphs.records import GraphRecord

    edges = np.array([[0, 1], [1, 2]])
    record = GraphRecord(3, edges, np.array([1, 0, 2]), np.array([2, 1]), np.ones((3, 2)), targets={"y": 2.0})
    write_npz([record, record], tmp_path / "x.npz")
    write_graphml([record], tmp_path / "y.graphml")
    for path, count in ((tmp_path / "x.npz", 2), (tmp_path / "y.graphml", 1)):
        graphs = read_files(path).graphs
        assert len(graphs) == count
        for name in ("edges", "node_types", "edge_types", "node_features"):
            assert np.array_equal(getattr(graphs[0], name), getattr(record, name)), (path, name)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.edgelist", "0 1\n0 0\n", "self-loop"),
        ("a.edgelist", "0 1\n1 0\n", "repeated edge"),
        ("a.edgelist", "0 1 0.5\n", "line 1: a weight"),
        ("a.edgelist", "\n", "no edges"),
        ("a.graphml", "<graphml", "not GraphML"),
        ("a.npz", "x", "not a file of graphs"),
    ],
)
def test_bad_graph_files(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read_files(tmp_path / name)


def test_directed_graphs_are_refused(tmp_path: Path) -> None:
    nx.write_graphml(nx.DiGraph([(0, 1)]), tmp_path / "a.graphml")
    with pytest.raises(DataError, match="directed"):
        read_files(tmp_path / "a.graphml")
    with pytest.raises(DataError, match=r"nothing usable; the first of 1 left out: .*directed"):
        read_files(tmp_path / "a.graphml", on_bad=OnBad.SKIP)


def test_pickles_and_strangers_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps([nx.path_graph(3)]))
    with pytest.raises(DataError, match="pickles can run code"):
        read_files(tmp_path / "a.pkl")
    with pytest.raises(DataError, match=r"holds a.pkl; known are"):
        read_files(tmp_path)
    with pytest.raises(DataError, match="there is no file or folder"):
        read_files(tmp_path / "none.smi")
    np.savez(tmp_path / "evil.npz", edges=np.array([object()]), edge_ptr=[0, 1], num_nodes=[2], allow_pickle=True)
    with pytest.raises(DataError, match="not a file of graphs"):
        read_files(tmp_path / "evil.npz")


def test_a_folder_is_of_one_kind(tmp_path: Path) -> None:
    (tmp_path / "a.smi").write_text("CC\n")
    (tmp_path / "b.edgelist").write_text("0 1\n")
    with pytest.raises(DataError, match="mixes"):
        read_files(tmp_path)


def test_own_graphs_are_split_at_random_and_completely(tmp_path: Path) -> None:
    (tmp_path / "a.smi").write_text("".join("C" * (k + 1) + "\n" for k in range(20)))
    data = from_content("mine", read_files(tmp_path / "a.smi"), validation=0.2, test=0.25, seed=3)
    parts = [[g.name for g in p] for p in (data.train, data.validation, data.test)]
    assert [len(p) for p in parts] == [12, 3, 5]
    assert len({name for part in parts for name in part}) == 20
    assert "test = 5 at random (seed 3)" in data.protocol
    with pytest.raises(DataError, match="share"):
        from_content("mine", read_files(tmp_path / "a.smi"), test=1.5)
