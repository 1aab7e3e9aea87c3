"""Still pictures of trajectories: observed solid, samples thin, truth dashed; no display is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from .clips import Clip
from .metrics import bond_lengths

__all__ = ["bond_figure", "draw_clip", "frame_axes", "horizon_figure", "save_figure", "trajectory_figure"]

_INK, _REAL, _GENERATED = "#37474f", "#0072b2", "#d55e00"


def trajectory_figure(clips: Sequence[Clip], columns: int = 3, title: str = "") -> Figure:
    """Systems side by side, in the plane or in space as their coordinates ask.

    Molecules show their last observed shape, the samples' last shapes thin and the true last shape dashed.

    Args:
        clips: what to draw, at least one.
        columns: pictures side by side.
        title: of the whole figure.

    Returns:
        A figure on an Agg canvas.
    """
    if not clips:
        raise ValueError("nothing to draw: no clips")
    columns = min(columns, len(clips))
    rows = -(-len(clips) // columns)
    figure = Figure(figsize=(4.2 * columns, 4.2 * rows + 0.5 + (0.4 if title else 0)), layout="constrained")
    FigureCanvasAgg(figure)
    for place, clip in enumerate(clips):
        draw_clip(frame_axes(figure, (rows, columns, place + 1), clip), clip)
    figure.legend(handles=_legend(clips), loc="outside lower center", ncols=4, frameon=False)
    if title:
        figure.suptitle(title)
    return figure


def frame_axes(figure: Figure, place: tuple[int, int, int], clip: Clip) -> Any:
    """Axes for a clip, equal in scale, wide enough for all of it."""
    flat = clip.record.dim == 2
    # Axes in space take the colour of their grid from the settings, once, when they are made.
    with rc_context({"grid.color": "#dfe3e6"}):
        axes: Any = figure.add_subplot(*place, **({} if flat else {"projection": "3d"}))
    low, high = clip.extent()
    centre, half = (low + high) / 2, 0.54 * max(float((high - low).max()), 1e-6)
    unit = "" if clip.record.units == "1" else f" ({'Å' if clip.record.units == 'angstrom' else clip.record.units})"
    names = "xyz"[: clip.record.dim]
    for name, c in zip(names, centre, strict=True):
        getattr(axes, f"set_{name}lim")(c - half, c + half)
        getattr(axes, f"set_{name}label")(name + unit, color=_INK, labelpad=2 if flat else -6, fontsize=8)
        axes.tick_params(axis=name, labelsize=7, colors=_INK, pad=2 if flat else -3)
    axes.locator_params(nbins=5)
    axes.grid(color="#e6e9eb")
    if flat:
        axes.set_aspect("equal")
        axes.spines[["top", "right"]].set_visible(False)
    else:
        axes.set_box_aspect((1, 1, 1))
        for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
            axis.pane.set_alpha(0.03)
    axes.set_title(clip.title, fontsize=10, color=_INK)
    return axes


def draw_clip(axes: Any, clip: Clip) -> None:
    """One system into axes of :func:`frame_axes`."""
    colors, places, at = clip.agent_colors, clip.places, clip.observed_frames
    samples = clip.samples
    low, high = clip.extent()
    if samples is not None:
        # A three-dimensional picture does not clip lines at its box.
        inside = ((samples >= low) & (samples <= high)).all(-1, keepdims=True)
        samples = np.where(inside, samples, np.nan)
    molecule = len(clip.bonds) > 0
    if molecule:
        _draw_molecules(axes, clip, samples)
        return
    crowd = 1.0 if samples is None else max(0.18, min(0.7, 4 / len(samples)))
    for n, color in enumerate(colors):
        joint = places[n, max(at - 1, 0) : at]
        for sample in () if samples is None else samples[:, n]:
            _line(axes, np.concatenate([joint, sample]), color=color, lw=0.8, alpha=crowd, zorder=2)
        if clip.truth.shape[1]:
            # Without samples the record itself is what is shown.
            style = (0, (4, 2)) if at else "solid"
            _line(axes, np.concatenate([joint, clip.truth[n]]), color=color, lw=1.5, ls=style, zorder=3)
        _line(axes, places[n, :at], color=color, lw=2.4, zorder=4, solid_capstyle="round")
        now = places[n, at - 1 if at else -1]
        if np.isfinite(now).all():
            axes.scatter(*now[:, None], color=color, s=26, zorder=5, edgecolors="white", linewidths=0.7)


def horizon_figure(
    curves: Mapping[str, NDArray[np.floating]],
    times: NDArray[np.floating] | None = None,
    units: str = "1",
    title: str = "",
) -> Figure:
    """Error against the horizon, one curve per method.

    Args:
        curves: mean distance at each forecast frame, `(T,)` each.
        times: of the frames; default 1, 2, ...
        units: of the error.
        title: of the figure.
    """
    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for number, (name, curve) in enumerate(curves.items()):
        x = np.arange(1, len(curve) + 1) if times is None else times
        axes.plot(x, curve, label=name, lw=2.2 if number == 0 else 1.3, zorder=9 - number)
    axes.set_xlabel("frames after the last observed one")
    axes.set_ylabel("displacement error" + ("" if units == "1" else f" ({units})"))
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    axes.set_title(title, fontsize=10)
    return figure


def bond_figure(
    real: NDArray[np.floating],
    generated: NDArray[np.floating],
    bonds: NDArray[np.int64],
    atoms: Sequence[str] | None = None,
    columns: int = 4,
) -> Figure:
    """Histograms of bond lengths, real against generated.

    Args:
        real: `(..., N, T, D)`.
        generated: `(..., N, T, D)`.
        bonds: `(M, 2)`.
        atoms: symbols, for the titles.
        columns: pictures side by side.
    """
    a, b = (np.moveaxis(bond_lengths(x, bonds), -2, 0).reshape(len(bonds), -1) for x in (real, generated))
    columns = min(columns, len(bonds))
    rows = -(-len(bonds) // columns)
    figure = Figure(figsize=(2.6 * columns, 1.9 * rows + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, (i, j), x, y in zip(grid.flat, bonds, a, b, strict=False):
        middle, width = float(np.median(x)), max(5 * float(x.std()), 1e-3)
        bins = np.linspace(middle - width, middle + width, 41)
        axes.hist(x, bins, density=True, color=_REAL, alpha=0.45, label="real")
        axes.hist(y, bins, density=True, histtype="step", color=_GENERATED, lw=1.4, label="generated")
        names = (f"{atoms[i]}{i}", f"{atoms[j]}{j}") if atoms is not None else (str(i), str(j))
        axes.set_title("-".join(names), fontsize=8)
        axes.tick_params(labelsize=7)
        axes.set_yticks([])
        axes.spines[["top", "right", "left"]].set_visible(False)
    for axes in grid.flat[len(bonds) :]:
        axes.set_visible(False)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    return figure


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Writes a figure as PNG, PDF or SVG, by the ending of its name."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path


def _draw_molecules(axes: Any, clip: Clip, samples: NDArray[np.float32] | None) -> None:
    at = clip.observed_frames
    if samples is not None:
        alpha = max(0.15, min(0.6, 4 / len(samples)))
        for sample in samples:
            _skeleton(axes, clip, sample[:, -1], color=_GENERATED, lw=1.0, alpha=alpha)
    if clip.truth.shape[1] and at:
        _skeleton(axes, clip, clip.truth[:, -1], color=_INK, lw=1.6, ls=(0, (3, 1.5)))
    now = clip.places[:, at - 1 if at else -1]
    _skeleton(axes, clip, now, color="#8d99a3", lw=3.0)
    sizes = [22 if symbol == "H" else 60 for symbol in clip.record.atoms or ["C"] * len(now)]
    axes.scatter(*now.T, s=sizes, c=list(clip.agent_colors), edgecolors="white", linewidths=0.6, depthshade=False)


def _skeleton(axes: Any, clip: Clip, frame: NDArray[np.float32], **style: Any) -> None:
    for i, j in clip.bonds:
        _line(axes, frame[[i, j]], **style)


def _line(axes: Any, points: NDArray[np.floating], **style: Any) -> None:
    axes.plot(*points.T, **style)


def _legend(clips: Sequence[Clip]) -> list[Line2D]:
    molecules = any(len(clip.bonds) for clip in clips)
    ink = _INK
    handles = []
    if any(clip.observed_frames for clip in clips):
        handles.append(Line2D([], [], color="#8d99a3" if molecules else ink, lw=2.6, label="observed"))
    if any(clip.samples is not None for clip in clips):
        handles.append(Line2D([], [], color=_GENERATED if molecules else ink, lw=0.9, alpha=0.7, label="samples"))
    if any(clip.observed_frames and clip.truth.shape[1] for clip in clips):
        handles.append(Line2D([], [], color=ink, lw=1.5, ls=(0, (4, 2)), label="truth"))
    return handles
