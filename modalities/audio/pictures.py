"""Spectrograms of mixtures and what was heard in them; no display is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from .mel import LogMel

__all__ = ["Example", "mel_figure", "peak_level", "save_figure", "sound_figure", "spectrogram_figure"]

_INK = "#37474f"
_RANGE = 60.0


@dataclass(frozen=True)
class Example:
    """A mixture and its separation, to be looked at and listened to.

    Args:
        query: What was asked for.
        sounds: Name to samples `(L,)`, all of one length: "mixture", "estimate", perhaps "target" and "residual".
        sample_rate: Hz.
        note: A score or a remark.
    """

    query: str
    sounds: dict[str, Tensor]
    sample_rate: int
    note: str = ""

    def __post_init__(self) -> None:
        lengths = {tuple(wave.shape) for wave in self.sounds.values()}
        if not self.sounds or len(lengths) > 1 or len(next(iter(lengths))) != 1:
            raise ValueError(f"an example needs sounds (L,) of one length, got {sorted(lengths)}")


def spectrogram_figure(examples: Sequence[Example], front: LogMel, title: str = "") -> Figure:
    """One row per example, one column per sound, all of a row on the same scale of 60 dB below the mixture's peak.

    Args:
        examples: At least one; columns are those of the first.
        front: The log-mel front end, for sounds at its rate.
        title: Of the whole figure.
    """
    if not examples:
        raise ValueError("nothing to draw: no examples")
    columns = list(examples[0].sounds)
    figure = Figure(figsize=(2.9 * len(columns), 1.9 * len(examples) + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(examples), len(columns), squeeze=False)
    for row, example in zip(axes, examples, strict=True):
        top = _decibels(next(iter(example.sounds.values())), front).max()
        for place, name in zip(row, columns, strict=True):
            _draw(place, example.sounds[name], front, float(top))
            place.set_title(name, fontsize=9, color=_INK)
        row[0].set_title("")
        row[0].set_title(f"{columns[0]}; asked for: {example.query}", fontsize=9, color=_INK, loc="left")
        if example.note:
            row[-1].text(
                1.02, 0.5, example.note, transform=row[-1].transAxes, rotation=90, va="center", fontsize=7, color=_INK
            )
    if title:
        figure.suptitle(title, color=_INK)
    return figure


def sound_figure(
    wave: Tensor, front: LogMel, top: float | None = None, size: tuple[float, float] = (3.2, 1.3)
) -> Figure:
    """One spectrogram without axes, for pages; `top` (dB) sets the scale, default: its own peak."""
    figure = Figure(figsize=size)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    values = _decibels(wave, front)
    high = float(values.max()) if top is None else top
    axes.imshow(values.T.numpy(), origin="lower", aspect="auto", vmin=high - _RANGE, vmax=high, cmap="magma")
    return figure


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure as its extension says."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path


def peak_level(wave: Tensor, front: LogMel) -> float:
    """Largest value of a sound's mel spectrogram, dB."""
    return float(_decibels(wave, front).max())


def _draw(axes: Any, wave: Tensor, front: LogMel, top: float) -> None:
    s = front.settings
    values = _decibels(wave, front)
    seconds = len(values) * s.hop_length / s.sample_rate
    axes.imshow(
        values.T.numpy(),
        origin="lower",
        aspect="auto",
        vmin=top - _RANGE,
        vmax=top,
        cmap="magma",
        extent=(0, seconds, 0, s.num_bands),
    )
    axes.set_xlabel("s", fontsize=7, color=_INK, labelpad=1)
    axes.set_yticks([])
    axes.tick_params(labelsize=7, colors=_INK)


def _decibels(wave: Tensor, front: LogMel) -> Tensor:
    shortest = front.settings.n_fft
    padded = torch.nn.functional.pad(wave.float().cpu(), (0, max(0, shortest - len(wave))))
    return LogMel(front.settings)(padded) * (20 / torch.log(torch.tensor(10.0)))


def mel_figure(rows: dict[str, Tensor], title: str = "") -> Figure:
    """Log-mels `(B, T, bands)` by name, one row each, B columns, each column on one scale."""
    names = list(rows)
    count = len(rows[names[0]])
    figure = Figure(figsize=(2.4 * count, 1.5 * len(names) + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(names), count, squeeze=False)
    for row, name in zip(axes, names, strict=True):
        for i, place in enumerate(row):
            top = float(rows[names[0]][i].max())
            values = rows[name][i].detach().float().cpu().T.numpy()
            place.imshow(values, origin="lower", aspect="auto", vmin=top - _RANGE / 8.686, vmax=top, cmap="magma")
            place.set_xticks([])
            place.set_yticks([])
        row[0].set_ylabel(name, fontsize=8, color=_INK)
    if title:
        figure.suptitle(title, color=_INK)
    return figure
