"""A page to listen to separations: one HTML file with players and spectrograms inside; no network is needed."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import soundfile
from torch import Tensor

from .mel import LogMel, MelSettings
from .pictures import Example, peak_level, sound_figure

__all__ = ["listening_html", "write_listening_page"]

_ESTIMATED = ("estimate", "residual")
_FULL_BANDWIDTH = 16_000


def listening_html(examples: Sequence[Example], title: str = "Separated sounds", note: str = "") -> str:
    """The page as text.

    Args:
        examples: What to play, at least one. Sounds of an example keep their levels among each other.
        title: Of the page.
        note: A line below, e.g. the protocol.

    Raises:
        ValueError: No examples.
    """
    if not examples:
        raise ValueError("nothing to play: no examples")
    source = Path(__file__).with_name("listening.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(source).render(title=title, note=note, examples=[_prepared(e) for e in examples])


def write_listening_page(
    path: str | Path, examples: Sequence[Example], *, title: str = "Separated sounds", note: str = ""
) -> Path:
    """Write the page of :func:`listening_html` to a file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(listening_html(examples, title, note), encoding="utf-8")
    return path


def _prepared(example: Example) -> dict[str, Any]:
    rate = example.sample_rate
    n_fft = 2 ** math.ceil(math.log2(0.06 * rate))
    front = LogMel(
        MelSettings(rate, n_fft, hop_length=max(1, rate // 100), num_bands=48, f_max=min(rate, _FULL_BANDWIDTH) / 2)
    )
    first = next(iter(example.sounds.values()))
    top, peak = peak_level(first, front), max(float(wave.abs().max()) for wave in example.sounds.values())
    gain = 1.0 if peak <= 1 else 1 / peak
    return {
        "query": example.query,
        "note": example.note,
        "sounds": [
            {
                "name": name,
                "kind": "estimated" if name in _ESTIMATED else "known",
                "picture": _png(wave, front, top),
                "data": _wav(gain * wave, rate),
            }
            for name, wave in example.sounds.items()
        ],
    }


def _png(wave: Tensor, front: LogMel, top: float) -> str:
    buffer = io.BytesIO()
    sound_figure(wave, front, top).savefig(buffer, format="png", dpi=80)
    return base64.b64encode(buffer.getvalue()).decode()


def _wav(wave: Tensor, rate: int) -> str:
    buffer = io.BytesIO()
    soundfile.write(buffer, wave.float().cpu().numpy(), rate, format="WAV", subtype="PCM_16")
    return base64.b64encode(buffer.getvalue()).decode()
