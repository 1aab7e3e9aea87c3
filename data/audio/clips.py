"""Clips on disk as a bank of sounds: listed once, read when drawn, cropped where something is heard."""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from ...modalities.audio.files import AudioFileError, read_audio
from ..errors import DataError
from .bank import group_by_label

__all__ = ["Clip", "ClipBank", "inspect_clips", "split_clips"]

# Longer files are read in part.
_WHOLE_SECONDS = 30.0


@dataclass(frozen=True)
class Clip:
    """A sound file and what is heard in it.

    Args:
        path: The file.
        labels: What is heard.
        captions: Descriptions, at least one, the plainest first.
        split: "train", "validation" or "test" where the data say so.
    """

    path: Path
    labels: frozenset[str]
    captions: tuple[str, ...]
    split: str | None = None

    def __post_init__(self) -> None:
        if not self.labels or not self.captions or not all(caption.strip() for caption in self.captions):
            raise ValueError(f"{self.path}: a clip needs labels and captions, got {self.labels} and {self.captions}")


class ClipBank:
    """Clips as a bank: mono, at one rate, recently used ones kept in memory.

    Args:
        clips: At least one.
        sample_rate: Hz.
        balanced: Draw classes, not clips, with equal chances; for clips with labels out of a list.
        cache_bytes: Memory for decoded clips.
    """

    def __init__(
        self, clips: Sequence[Clip], sample_rate: int, *, balanced: bool = True, cache_bytes: int = 512 * 2**20
    ) -> None:
        if not clips:
            raise DataError("a bank of sounds needs at least one clip")
        self.clips, self.sample_rate, self.cache_bytes = tuple(clips), sample_rate, cache_bytes
        self._groups = group_by_label([clip.labels for clip in clips]) if balanced else [np.arange(len(clips))]
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self.clips)

    def labels(self, item: int) -> frozenset[str]:
        """What is heard in a clip."""
        return self.clips[item].labels

    def captions(self, item: int) -> tuple[str, ...]:
        """Its descriptions."""
        return self.clips[item].captions

    def groups(self) -> list[np.ndarray]:
        """Clips by label, or all in one group."""
        return self._groups

    def draw(self, item: int, rng: np.random.Generator, length: int) -> np.ndarray:
        """A crop of the clip, `(length,)`; a shorter clip is placed at random in silence."""
        wave = self._read(item, rng, length)
        if len(wave) <= length:
            out = np.zeros(length, dtype=np.float32)
            start = int(rng.integers(length - len(wave) + 1))
            out[start : start + len(wave)] = wave
            return out
        start = crop_start(wave, rng, length)
        return wave[start : start + length].copy()

    def _read(self, item: int, rng: np.random.Generator, length: int) -> np.ndarray:
        if item in self._kept:
            self._kept.move_to_end(item)
            return self._kept[item]
        path = self.clips[item].path
        try:
            info = soundfile.info(str(path))
            if info.duration > _WHOLE_SECONDS:
                seconds = max(_WHOLE_SECONDS / 3, 2 * length / self.sample_rate)
                start = float(rng.uniform(0, max(info.duration - seconds, 0)))
                part = read_audio(path, sample_rate=self.sample_rate, mono=True, start=start, seconds=seconds)
                return part.samples[0].numpy()
            wave = read_audio(path, sample_rate=self.sample_rate, mono=True).samples[0].numpy()
        except (AudioFileError, soundfile.SoundFileError) as error:
            raise DataError(f"{path}: {error}") from error
        self._kept[item] = wave
        self._bytes += wave.nbytes
        while self._bytes > self.cache_bytes and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return wave


def crop_start(wave: np.ndarray, rng: np.random.Generator, length: int, share: float = 0.3) -> int:
    """Where to begin a crop of `length` samples: at random among places with at least `share` of the most energy.

    Many recordings are a short sound and silence; a blind crop would often hold nothing.
    """
    energy = np.concatenate([[0.0], np.cumsum(wave.astype(np.float64) ** 2)])
    inside = energy[length:] - energy[:-length]
    return int(rng.choice(np.flatnonzero(inside >= share * inside.max())))


def inspect_clips(clips: Iterable[Clip], *, on_error: str = "skip") -> tuple[list[Clip], list[str]]:
    """Leave out clips that cannot be opened or are empty (headers only are read).

    Args:
        clips: Candidates.
        on_error: "skip" to list them, "raise" to stop at the first.

    Returns:
        The good ones, and the reasons for the others.
    """
    if on_error not in ("skip", "raise"):
        raise DataError(f"on_error must be 'skip' or 'raise', got {on_error!r}")
    good, reasons = [], []
    for clip in clips:
        reason = _problem(clip.path)
        if reason is None:
            good.append(clip)
        elif on_error == "raise":
            raise DataError(reason)
        else:
            reasons.append(reason)
    return good, reasons


def split_clips(clips: Sequence[Clip], share: float = 0.1) -> dict[str, list[Clip]]:
    """Clips by their own split, or else by a hash of the name: the same file falls into the same part everywhere.

    Within every set of labels, about `share` each go to validation and test, at least one of each from three clips on.

    Raises:
        DataError: Only some of the clips say which part they belong to, or a part is not known.
    """
    parts: dict[str, list[Clip]] = {"train": [], "validation": [], "test": []}
    said = [clip.split is not None for clip in clips]
    if any(said):
        if not all(said):
            missing = clips[said.index(False)].path
            raise DataError(f"{said.count(False)} of {len(clips)} clips have no split, the first is {missing}")
        for clip in clips:
            part = {"val": "validation", "valid": "validation"}.get(str(clip.split).lower(), str(clip.split).lower())
            if part not in parts:
                raise DataError(f"{clip.path}: unknown split {clip.split!r}; known are {', '.join(parts)}")
            parts[part].append(clip)
        return parts
    grouped: dict[frozenset[str], list[Clip]] = {}
    for clip in clips:
        grouped.setdefault(clip.labels, []).append(clip)
    rank: Callable[[Clip], tuple[int, str]] = lambda clip: (zlib.crc32(clip.path.name.encode()), str(clip.path))  # noqa: E731
    if all(len(group) < 3 for group in grouped.values()):
        grouped = {frozenset(): list(clips)}
    for _, group in sorted(grouped.items(), key=lambda pair: sorted(pair[0])):
        ordered = sorted(group, key=rank)
        held_out = max(1, round(share * len(ordered))) if len(ordered) >= 3 else 0
        parts["validation"] += ordered[:held_out]
        parts["test"] += ordered[held_out : 2 * held_out]
        parts["train"] += ordered[2 * held_out :]
    return parts


def _problem(path: Path) -> str | None:
    if not path.is_file():
        return f"{path}: no such file"
    try:
        info = soundfile.info(str(path))
    except (soundfile.SoundFileError, RuntimeError) as error:
        return f"{path}: not a sound file that can be read ({error})"
    return f"{path}: holds no samples" if info.frames == 0 else None
