"""Files and pictures of generated graphs and molecules."""

from __future__ import annotations

from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from rdkit import Chem

from fourfold.modalities.graphs import GraphRecord, from_networkx
from fourfold.modalities.graphs.files import write_graphml, write_npz, write_sdf, write_smiles
from fourfold.modalities.graphs.pictures import graph_grid, molecule_grid, molecule_svg, save_figure

TYPED = GraphRecord(
    4,
    np.array([[0, 1], [1, 2]]),
    np.array([2, 0, 1, 1]),
    np.array([1, 3]),
    np.array([[0.5], [1.5], [2.5], [3.5]]),
    np.array([[7.0], [8.0]]),
)
PLAIN = from_networkx(nx.barbell_graph(4, 0))


def test_graphml_is_read_back_by_networkx(tmp_path: Path) -> None:
    one = write_graphml([TYPED], tmp_path / "graphs.graphml")
    assert one.name == "graphs.graphml"
    graph = nx.read_graphml(one, node_type=int)
    assert sorted(graph.edges) == [(0, 1), (1, 2)]
    assert len(graph) == 4
    assert graph.nodes[0] == {"node_type": 2, "feature_0": 0.5}
    assert graph.edges[1, 2] == {"edge_type": 3, "feature_0": 8.0}
    folder = write_graphml([PLAIN] * 11, tmp_path / "many.graphml")
    assert sorted(p.name for p in folder.iterdir())[:2] == ["00.graphml", "01.graphml"]
    assert nx.is_isomorphic(nx.read_graphml(folder / "10.graphml"), nx.barbell_graph(4, 0))


def test_npz_holds_every_graph_without_padding(tmp_path: Path) -> None:
    path = write_npz([TYPED, TYPED], tmp_path / "deep" / "g.npz")
    with np.load(path) as stored:
        assert stored["num_nodes"].tolist() == [4, 4]
        assert stored["edge_ptr"].tolist() == [0, 2, 4]
        assert stored["edges"][2:].tolist() == [[0, 1], [1, 2]]
        assert stored["node_types"].tolist() == [2, 0, 1, 1] * 2
        assert stored["edge_types"].tolist() == [1, 3, 1, 3]
        assert stored["node_features"].shape == (8, 1)
    with np.load(write_npz([PLAIN], tmp_path / "p.npz")) as stored:
        assert set(stored.files) == {"num_nodes", "edges", "edge_ptr"}


def test_molecules_are_written_as_smiles_and_sdf(tmp_path: Path) -> None:
    molecules = [Chem.MolFromSmiles("CCO"), None, Chem.MolFromSmiles("C[N+](C)(C)C")]
    lines = write_smiles(molecules, tmp_path / "m.smi").read_text().splitlines()
    assert lines == ["CCO 0", "C[N+](C)(C)C 2"]
    read = list(Chem.SDMolSupplier(str(write_sdf(molecules, tmp_path / "m.sdf"))))
    assert [Chem.MolToSmiles(m) for m in read] == ["CCO", "C[N+](C)(C)C"]
    assert [m.GetProp("_Name") for m in read] == ["0", "2"]
    assert read[0].GetConformer().GetPositions()[:, :2].std() > 0.1


def test_pictures_are_drawn_the_same_every_time(tmp_path: Path) -> None:
    parts = GraphRecord(6, np.array([[0, 1], [1, 2], [3, 4]]))
    rows = {"generated": [PLAIN, parts, TYPED], "test": [GraphRecord(1, np.zeros((0, 2)))]}
    paths = [save_figure(graph_grid(rows, columns=2, title="t"), tmp_path / f"{k}.png") for k in range(2)]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert paths[0].stat().st_size > 10_000
    figure = graph_grid(rows, columns=2)
    assert len(figure.axes) == 3 * 2
    # the two communities of a barbell get two colours
    colors = figure.axes[0].collections[0].get_facecolors()
    assert len(np.unique(np.asarray(colors), axis=0)) == 2
    assert save_figure(figure, tmp_path / "g.svg").read_text().lstrip().startswith("<?xml")


def test_molecules_are_drawn_with_their_smiles() -> None:
    molecules = [Chem.MolFromSmiles("c1ccccc1O"), None]
    text = molecule_svg(molecules, columns=2)
    assert "<svg" in text
    assert text.count("class='bond-") >= 7
    assert len(molecule_grid(molecules).axes) == 1
    for draw in (lambda: molecule_grid([]), lambda: graph_grid({}), lambda: graph_grid({"a": []})):
        with pytest.raises(ValueError, match=r"no (molecules|graphs) to draw"):
            draw()
