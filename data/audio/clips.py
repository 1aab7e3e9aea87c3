"""Clips on disk as a bank of sounds: listed once, read when drawn, cropped where something is heard."""

from __future__ import annotations

import math
import os
import warnings
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile

from ...modalities.audio.files import AudioFileError, read_audio
from ..errors import DataError
from .bank import AUDIBLE, UnusableSound, group_by_label

__all__ = ["Clip", "ClipBank", "inspect_clips", "one_per_file", "split_clips"]

# Longer files are read in part.
_WHOLE_SECONDS = 30.0
# So much is decoded before training starts, in about ten seconds; of more, headers only.
_DECODED_SECONDS = 3 * 3600.0
_PIECE_SECONDS = 60.0


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
        on_error: What a clip does that cannot be decoded: "skip" to warn once and be :class:`UnusableSound`, "raise"
            for a DataError.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        sample_rate: int,
        *,
        balanced: bool = True,
        cache_bytes: int = 512 * 2**20,
        on_error: str = "skip",
    ) -> None:
        if not clips:
            raise DataError("a bank of sounds needs at least one clip")
        self.clips, self.sample_rate, self.cache_bytes = tuple(clips), sample_rate, cache_bytes
        self.on_error = _known_on_error(on_error)
        self._groups = group_by_label([clip.labels for clip in clips]) if balanced else [np.arange(len(clips))]
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()
        self._bytes = 0
        self._warned: set[int] = set()

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

    def source(self, item: int) -> str:
        """The file."""
        return str(self.clips[item].path)

    def draw(self, item: int, rng: np.random.Generator, length: int) -> np.ndarray:
        """A crop of the clip, `(length,)`; a shorter clip is placed at random in silence.

        Raises:
            UnusableSound: The file cannot be decoded, and `on_error` is "skip".
            DataError: The same, and `on_error` is "raise".
        """
        try:
            wave = self._read(item, rng, length)
        except AudioFileError as error:
            if self.on_error == "raise":
                raise DataError(str(error)) from error
            if item not in self._warned:
                self._warned.add(item)
                warnings.warn(f"{error}; other sounds are taken instead", UserWarning, stacklevel=2)
            raise UnusableSound(str(error)) from error
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
        duration = _duration(path)
        if duration > _WHOLE_SECONDS:
            seconds = max(_WHOLE_SECONDS / 3, 2 * length / self.sample_rate)
            start = float(rng.uniform(0, max(duration - seconds, 0)))
            part = read_audio(path, sample_rate=self.sample_rate, mono=True, start=start, seconds=seconds)
            return part.samples[0].numpy()
        wave = read_audio(path, sample_rate=self.sample_rate, mono=True).samples[0].numpy()
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


def one_per_file(clips: Iterable[Clip]) -> list[Clip]:
    """Clips of the same file, under whatever name, joined into one with the labels and captions of all.

    Raises:
        DataError: A file is said to be in two parts.
    """
    files: dict[str, Clip] = {}
    for clip in clips:
        known = files.setdefault(os.path.realpath(clip.path), clip)
        if _part(known) != _part(clip):
            parts = " and ".join(_part(each) or "none" for each in (known, clip))
            raise DataError(f"{clip.path}: said to be in two splits, {parts}; a file belongs to one")
        if known is not clip:
            captions = tuple(dict.fromkeys(known.captions + clip.captions))
            joined = replace(known, labels=known.labels | clip.labels, captions=captions)
            files[os.path.realpath(clip.path)] = joined
    return list(files.values())


def inspect_clips(clips: Iterable[Clip], *, on_error: str = "skip") -> tuple[list[Clip], list[str]]:
    """Leave out clips that cannot be read, are empty, or silent.

    Up to three hours of sound are decoded for this (about ten seconds). Of larger sets only headers are read; what is
    damaged inside is then found when it is drawn, see :class:`ClipBank`.

    Args:
        clips: Candidates.
        on_error: "skip" to list them, "raise" to stop at the first.

    Returns:
        The good ones, and the reasons for the others.
    """
    _known_on_error(on_error)
    reasons: list[str] = []
    good = _readable(clips, _duration, on_error, reasons)
    if sum(seconds for _, seconds in good) <= _DECODED_SECONDS:
        good = _readable([clip for clip, _ in good], _decode, on_error, reasons)
    return [clip for clip, _ in good], reasons


def split_clips(clips: Sequence[Clip], share: float = 0.1, *, labelled: bool = True) -> dict[str, list[Clip]]:
    """Clips by their own split, or else by a hash of the name: the same file falls into the same part everywhere.

    Within every set of labels, about `share` each go to validation and test, at least one of each from three clips on.
    Sets of fewer than three clips are for training; if there are no others, or labels are words of captions, they
    are split together, with at least two clips for each part from six on.

    Args:
        clips: One per file.
        share: Of the clips, for validation and for the test each.
        labelled: Labels are out of a list, and not the words of captions.

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
            part = _part(clip)
            if part not in parts:
                raise DataError(f"{clip.path}: unknown split {clip.split!r}; known are {', '.join(parts)}")
            parts[part].append(clip)
        return parts
    grouped: dict[frozenset[str], list[Clip]] = {}
    for clip in clips:
        grouped.setdefault(clip.labels, []).append(clip)
    rank: Callable[[Clip], tuple[int, str]] = lambda clip: (zlib.crc32(clip.path.name.encode()), str(clip.path))  # noqa: E731
    rare = [labels for labels, group in grouped.items() if len(group) < 3]
    if not labelled or len(rare) == len(grouped):
        together = [clip for labels in rare for clip in grouped.pop(labels)]
        grouped[frozenset()] = together
    for labels, group in sorted(grouped.items(), key=lambda pair: sorted(pair[0])):
        ordered = sorted(group, key=rank)
        least = 2 if not labels and len(ordered) >= 6 else 1
        held_out = max(least, round(share * len(ordered))) if len(ordered) >= 3 else 0
        parts["validation"] += ordered[:held_out]
        parts["test"] += ordered[held_out : 2 * held_out]
        parts["train"] += ordered[2 * held_out :]
    return parts


def _part(clip: Clip) -> str | None:
    if clip.split is None:
        return None
    name = str(clip.split).strip().lower()
    return {"val": "validation", "valid": "validation"}.get(name, name)


def _known_on_error(on_error: str) -> str:
    if on_error not in ("skip", "raise"):
        raise DataError(f"on_error must be 'skip' or 'raise', got {on_error!r}")
    return on_error


def _readable(
    clips: Iterable[Clip], look: Callable[[Path], float], on_error: str, reasons: list[str]
) -> list[tuple[Clip, float]]:
    # Clips with their seconds; adds to the reasons.
    good = []
    for clip in clips:
        try:
            good.append((clip, look(clip.path)))
        except AudioFileError as error:
            if on_error == "raise":
                raise DataError(str(error)) from error
            reasons.append(str(error))
    return good


def _duration(path: Path) -> float:
    if not path.is_file():
        raise AudioFileError(f"{path}: no such file")
    try:
        info = soundfile.info(str(path))
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise AudioFileError(f"{path}: not a sound file that can be read ({error})") from error
    if info.frames == 0:
        raise AudioFileError(f"{path}: holds no samples")
    return info.duration


def _decode(path: Path) -> float:
    duration, peak = _duration(path), 0.0
    for number in range(math.ceil(duration / _PIECE_SECONDS)):
        piece = read_audio(path, mono=True, start=number * _PIECE_SECONDS, seconds=_PIECE_SECONDS)
        peak = max(peak, float(piece.samples.abs().max()))
    if peak <= AUDIBLE:
        raise AudioFileError(f"{path}: is silent (as one channel its largest sample is {peak:.1g})")
    return duration
