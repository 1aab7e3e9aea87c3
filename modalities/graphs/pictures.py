"""Graphs laid out and molecules drawn, in grids: matplotlib's object interface and RDKit, no display, no global state.

Nodes without types are coloured by community (greedy modularity), typed ones by type. Layouts are deterministic:
Kamada-Kawai, parts of a disconnected graph side by side.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .records import GraphRecord, to_networkx

if TYPE_CHECKING:
    import networkx as nx
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rdkit.Chem import Mol

__all__ = ["graph_grid", "molecule_grid", "molecule_svg", "save_figure"]

_COLORS = ("#3d85c6", "#e69138", "#6aa84f", "#c2528b", "#8e7cc3", "#45818e", "#a67c52", "#7f7f7f")
_INK, _EDGE = "#37474f", "#90a4ae"
_WIDTHS = {1: 1.0, 2: 2.4, 3: 4.0}


def graph_grid(rows: dict[str, Sequence[GraphRecord]], columns: int = 8, title: str = "", largest: int = 400) -> Figure:
    """Draw graphs, one row (or several) per name, e.g. {"generated": ..., "test": ...}.

    Args:
        rows: graphs by name; the name stands in front of the first of them.
        columns: graphs side by side.
        title: of the whole figure.
        largest: graphs with more nodes are laid out by a spring model, which is faster.

    Returns:
        A figure on an Agg canvas.

    Raises:
        ValueError: if there is nothing to draw.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = [
        (name if first == 0 else "", list(records[first : first + columns]))
        for name, records in rows.items()
        for first in range(0, len(records), columns)
    ]
    if not lines:
        raise ValueError("there are no graphs to draw")
    columns = max(len(records) for _, records in lines)
    figure = Figure(figsize=(1.7 * columns + 0.4, 1.8 * len(lines) + (0.4 if title else 0.1)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(lines), columns, squeeze=False)
    for axes_row, (name, records) in zip(grid, lines, strict=True):
        for axes in axes_row:
            axes.set_axis_off()
        for axes, record in zip(axes_row, records, strict=False):
            _draw(axes, record, largest)
        if name:
            axes_row[0].text(
                -0.06, 0.5, name, rotation=90, ha="right", va="center", color=_INK, transform=axes_row[0].transAxes
            )
    if title:
        figure.suptitle(title, fontsize=11, color=_INK)
    return figure


def molecule_grid(
    molecules: Sequence[Mol | None], columns: int = 6, legends: Sequence[str] = (), title: str = ""
) -> Figure:
    """Draw molecules; None leaves an empty place.

    Args:
        molecules: at least one.
        columns: molecules side by side.
        legends: a line under each; default their canonical SMILES.
        title: of the whole figure.

    Returns:
        A figure on an Agg canvas.

    Raises:
        ValueError: if there is nothing to draw.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.image import imread
    from rdkit.Chem.Draw.rdMolDraw2D import MolDraw2DCairo

    drawn, rows, columns = _drawing(MolDraw2DCairo, molecules, columns, legends)
    image = imread(io.BytesIO(drawn), format="png")
    figure = Figure(figsize=(2 * columns, 1.8 * rows + (0.4 if title else 0)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.imshow(image, interpolation="antialiased")
    axes.set_axis_off()
    if title:
        figure.suptitle(title, fontsize=11, color=_INK)
    return figure


def molecule_svg(molecules: Sequence[Mol | None], columns: int = 6, legends: Sequence[str] = ()) -> str:
    """The grid of :func:`molecule_grid` as SVG text."""
    from rdkit.Chem.Draw.rdMolDraw2D import MolDraw2DSVG

    return _drawing(MolDraw2DSVG, molecules, columns, legends)[0]


def save_figure(figure: Figure, path: str | Path, dpi: int = 120) -> Path:
    """Write a figure, as PNG or SVG by the name of the file, and return the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=dpi)
    return path


def _draw(axes: Axes, record: GraphRecord, largest: int) -> None:
    graph = to_networkx(record)
    place = _layout(graph, largest)
    kinds = np.ones(record.num_edges, int) if record.edge_types is None else record.edge_types
    small = max(4.0, min(46.0, 700 / record.num_nodes))
    for (i, j), kind in zip(record.edges, kinds, strict=True):
        axes.plot(*zip(place[i], place[j], strict=True), color=_EDGE, lw=_WIDTHS.get(int(kind), 1.0), zorder=1)
    groups = _groups(graph) if record.node_types is None else record.node_types
    colors = [_COLORS[int(g) % len(_COLORS)] for g in groups]
    axes.scatter(place[:, 0], place[:, 1], s=small, c=colors, edgecolors="white", linewidths=0.6, zorder=2)
    axes.set_aspect("equal")
    axes.margins(0.12)


def _layout(graph: nx.Graph, largest: int) -> np.ndarray:
    """Positions (n, 2); the parts of the graph in a row, each as wide as the root of its size."""
    import networkx as nx

    place = np.zeros((len(graph), 2))
    left = 0.0
    for part in sorted(nx.connected_components(graph), key=len, reverse=True):
        nodes = sorted(part)
        sub = graph.subgraph(nodes)
        if len(nodes) == 1:
            where = {nodes[0]: np.zeros(2)}
        elif len(nodes) > largest:
            where = nx.spring_layout(sub, seed=0)
        else:
            where = nx.kamada_kawai_layout(sub)
        points = np.array([where[k] for k in nodes]) * len(nodes) ** 0.5
        place[nodes] = points + np.array([left - points[:, 0].min(), 0.0])
        left = place[nodes, 0].max() + 1.2
    return place


def _groups(graph: nx.Graph) -> list[int]:
    import networkx as nx

    if graph.number_of_edges() == 0:
        return [0] * len(graph)
    found = nx.community.greedy_modularity_communities(graph)
    index = {node: k for k, nodes in enumerate(found) for node in nodes}
    return [index[node] for node in range(len(graph))]


def _drawing(kind: Any, molecules: Sequence[Mol | None], columns: int, legends: Sequence[str]) -> tuple[Any, int, int]:
    """(drawing, rows, columns)"""
    from rdkit import Chem
    from rdkit.Chem.Draw import rdMolDraw2D

    if not molecules:
        raise ValueError("there are no molecules to draw")
    columns = min(columns, len(molecules))
    rows = -(-len(molecules) // columns)
    width, height = 240, 216
    canvas = kind(width * columns, height * rows, width, height)
    options = canvas.drawOptions()
    options.legendFontSize, options.padding, options.fixedBondLength = 15, 0.08, 28
    ready = []
    for molecule in molecules:
        copy = Chem.Mol() if molecule is None else Chem.Mol(molecule)
        ready.append(rdMolDraw2D.PrepareMolForDrawing(copy, kekulize=copy.GetNumAtoms() > 0))
    texts = list(legends) or ["no molecule" if m is None else _shortened(Chem.MolToSmiles(m)) for m in molecules]
    canvas.DrawMolecules(ready, legends=texts)
    canvas.FinishDrawing()
    return canvas.GetDrawingText(), rows, columns


def _shortened(text: str, length: int = 26) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
