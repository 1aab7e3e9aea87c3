"""Trajectories in motion: GIF through Pillow, MP4 through ffmpeg where it is installed."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from .clips import Clip
from .plots import frame_axes

__all__ = ["animate", "animation_frames"]

_SAMPLE, _TRUTH = "#d55e00", "#37474f"


def animate(clip: Clip, path: str | Path, *, fps: int = 10, size: float = 4.5, dpi: int = 100) -> Path:
    """Writes a moving picture of a system.

    Args:
        clip: what to show.
        path: `.gif`, or `.mp4` if ffmpeg is installed.
        fps: frames per second.
        size: width and height, inches.
        dpi: dots per inch.

    Raises:
        ValueError: another ending, or ffmpeg is asked for and missing.
    """
    path = Path(path)
    writers: dict[str, Callable[[Iterator[NDArray[np.uint8]], Path, int], None]] = {".gif": _gif, ".mp4": _mp4}
    write = writers.get(path.suffix.lower())
    if write is None:
        raise ValueError(f"{path.name}: animations are written as .gif or .mp4 (for .html see write_player)")
    path.parent.mkdir(parents=True, exist_ok=True)
    write(animation_frames(clip, size=size, dpi=dpi), path, fps)
    return path


def animation_frames(clip: Clip, *, size: float = 4.5, dpi: int = 100) -> Iterator[NDArray[np.uint8]]:
    """Pictures `(height, width, 3)` of the clip's frames in order."""
    figure = Figure(figsize=(size, size + 0.3), dpi=dpi, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = frame_axes(figure, (1, 1, 1), clip)
    show = _Artists(axes, clip)
    # The layout is settled once: the axes must not move from frame to frame.
    canvas.draw()
    figure.set_layout_engine("none")
    for frame in range(clip.num_frames):
        show(frame)
        canvas.draw()
        yield np.asarray(canvas.buffer_rgba())[..., :3].copy()


class _Artists:
    """The lines and points of an animation, moved from frame to frame."""

    def __init__(self, axes: Any, clip: Clip) -> None:
        self.clip, self.axes = clip, axes
        agents, self.bonds = range(clip.record.num_agents), clip.bonds
        colors, molecule = clip.agent_colors, len(clip.bonds) > 0
        count = 0 if clip.samples is None else len(clip.samples)
        faint = max(0.15, min(0.6, 4 / max(count, 1)))
        blank = [[np.nan]] * clip.record.dim

        def line(**style: Any) -> Any:
            return axes.plot(*blank, **style)[0]

        links = range(len(self.bonds)) if molecule else agents
        self.samples = [
            [line(color=_SAMPLE if molecule else colors[i], lw=1.0, alpha=faint) for i in links] for _ in range(count)
        ]
        dashed = (0, (3, 1.5)) if count else "solid"
        self.main = [line(color="#8d99a3" if molecule else colors[i], lw=2.6 if molecule else 2.2) for i in links]
        self.later = [line(color=_TRUTH if molecule else colors[i], lw=1.6, ls=dashed) for i in links]
        heads = [(24 if s == "H" else 70) for s in clip.record.atoms] if clip.record.atoms else 34
        self.heads = [
            axes.plot(
                *blank, "o", color=colors[i], ms=np.sqrt(heads[i] if isinstance(heads, list) else heads), mec="white"
            )[0]
            for i in agents
        ]
        self.sample_heads = [
            [line(marker="o", ls="none", color=colors[i], ms=3, alpha=faint, mec="none") for i in agents]
            for _ in range(0 if molecule else count)
        ]
        write = axes.text2D if hasattr(axes, "text2D") else axes.text
        self.text = write(0.02, 0.98, "", transform=axes.transAxes, va="top", fontsize=9, color=_TRUTH)

    def __call__(self, frame: int) -> None:
        clip, at = self.clip, self.clip.observed_frames
        known = frame < clip.record.num_frames
        forecast = frame >= at and clip.samples is not None and frame - at < clip.samples.shape[2]
        kind = "observed" if frame < at else "forecast" if clip.samples is not None else "record"
        self.text.set_text(f"frame {frame + 1}/{clip.num_frames} · {kind}")
        if len(self.bonds):
            self._molecules(frame, known, forecast)
            return
        start = max(at - 1, 0)
        for n, (main, later, head) in enumerate(zip(self.main, self.later, self.heads, strict=True)):
            path = clip.places[n]
            _move(main, path[: min(frame + 1, at)])
            _move(later, path[start : frame + 1] if frame >= at else path[:0])
            _move(head, path[frame : frame + 1] if known else path[:0])
        for k, (lines, heads) in enumerate(zip(self.samples, self.sample_heads, strict=True)):
            assert clip.samples is not None
            for n, (line, head) in enumerate(zip(lines, heads, strict=True)):
                seen = clip.samples[k, n, : frame - at + 1] if frame >= at else clip.samples[k, n, :0]
                _move(line, np.concatenate([clip.places[n, start:at], seen]))
                _move(head, seen[-1:])

    def _molecules(self, frame: int, known: bool, forecast: bool) -> None:
        clip, at = self.clip, self.clip.observed_frames
        places = clip.places[:, frame] if known else np.full((clip.record.num_agents, clip.record.dim), np.nan)
        truth = frame >= at and clip.samples is not None
        for (i, j), main, later in zip(self.bonds, self.main, self.later, strict=True):
            _move(main, places[[i, j]][: 0 if truth else 2])
            _move(later, places[[i, j]][: 2 if truth else 0])
        for n, head in enumerate(self.heads):
            _move(head, places[n : n + 1])
        for k, lines in enumerate(self.samples):
            assert clip.samples is not None
            shape = clip.samples[k, :, frame - at] if forecast else places
            for (i, j), line in zip(self.bonds, lines, strict=True):
                _move(line, shape[[i, j]][: 2 if forecast else 0])


def _move(line: Any, points: NDArray[np.floating]) -> None:
    columns = list(points.T)
    if len(columns) == 3:
        line.set_data_3d(*columns)
    else:
        line.set_data(*columns)


def _gif(frames: Iterator[NDArray[np.uint8]], path: Path, fps: int) -> None:
    from PIL import Image

    pictures = [Image.fromarray(frame) for frame in frames]
    # One palette for all frames, from the last and fullest: colours that change from frame to frame flicker.
    palette = pictures[-1].quantize(colors=255, method=Image.Quantize.FASTOCTREE)
    reduced = [p.quantize(palette=palette, dither=Image.Dither.NONE) for p in pictures]
    times = [round(1000 / fps)] * (len(reduced) - 1) + [1200]
    reduced[0].save(path, save_all=True, append_images=reduced[1:], duration=times, loop=0, optimize=False)


def _mp4(frames: Iterator[NDArray[np.uint8]], path: Path, fps: int) -> None:
    program = shutil.which("ffmpeg")
    if program is None:
        raise ValueError(f"{path.name}: MP4 needs ffmpeg, which is not installed; write a .gif or .html instead")
    pictures = [frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2] for frame in frames]
    height, width, _ = pictures[0].shape
    size = f"{width}x{height}"
    command = [program, "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", str(fps)]
    command += ["-i", "-", "-pix_fmt", "yuv420p", "-movflags", "+faststart", str(path)]
    done = subprocess.run(command, input=b"".join(p.tobytes() for p in pictures), capture_output=True, check=False)
    if done.returncode:
        raise ValueError(f"ffmpeg could not write {path}: {done.stderr.decode(errors='replace').strip()}")
