"""A page with a time slider that shows trajectories without a network: one HTML file, its own small player inside.

Places travel as 16-bit fractions of each system's cube, in base64: a clip of 21 atoms, 20 frames and 20 samples takes
70 kB.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .clips import Clip

__all__ = ["player_html", "write_player"]

_FULL = 32767
_UNKNOWN = -32768


def player_html(clips: Sequence[Clip], title: str = "Trajectories", note: str = "", start: int | None = None) -> str:
    """The page as text.

    Args:
        clips: systems to choose from, at least one.
        title: of the page.
        note: a line below, e.g. the protocol.
        start: frame shown first; default the last.

    Raises:
        ValueError: no clips.
    """
    if not clips:
        raise ValueError("nothing to show: no clips")
    data = json.dumps([_packed(clip, start) for clip in clips], separators=(",", ":")).replace("<", "\\u003c")
    text = Path(__file__).with_name("player.html").read_text(encoding="utf-8")
    parts = {"__TITLE__": html.escape(title), "__NOTE__": html.escape(note), "__DATA__": data}
    for mark, value in parts.items():
        text = text.replace(mark, value)
    return text


def write_player(
    clips: Sequence[Clip], path: str | Path, *, title: str = "Trajectories", note: str = "", start: int | None = None
) -> Path:
    """Writes the page of :func:`player_html` to a file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(player_html(clips, title, note, start), encoding="utf-8")
    return path


def _packed(clip: Clip, start: int | None) -> dict[str, Any]:
    low, high = clip.extent()
    centre, half = (low + high) / 2, 0.52 * max(float((high - low).max()), 1e-6)
    samples = np.zeros((0, 1, 1, clip.record.dim)) if clip.samples is None else clip.samples
    units = {"1": "", "angstrom": " Å"}.get(clip.record.units, f" {clip.record.units}")
    return {
        "title": clip.title,
        "dim": clip.record.dim,
        "agents": clip.record.num_agents,
        "frames": clip.record.num_frames,
        "observed": clip.observed_frames,
        "future": int(samples.shape[2]) if len(samples) else 0,
        "length": clip.num_frames,
        "start": clip.num_frames - 1 if start is None else min(max(start, 0), clip.num_frames - 1),
        "centre": [round(float(c), 6) for c in centre],
        "half": half,
        "unit": units,
        "colors": list(clip.agent_colors),
        "atoms": list(clip.record.atoms or ()) or [""] * clip.record.num_agents,
        "bonds": clip.bonds.tolist(),
        "record": _encoded(clip.places, centre, half),
        "samples": [_encoded(sample, centre, half) for sample in samples],
    }


def _encoded(places: NDArray[np.floating], centre: NDArray[np.float64], half: float) -> str:
    scaled = np.round((places.astype(np.float64) - centre) / half * _FULL)
    unknown = ~np.isfinite(scaled) | (np.abs(scaled) > _FULL)
    whole = np.where(unknown.any(-1, keepdims=True), _UNKNOWN, np.nan_to_num(scaled)).astype("<i2")
    return base64.b64encode(whole.tobytes()).decode()
