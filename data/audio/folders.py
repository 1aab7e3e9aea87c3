"""The user's own sounds: a folder per label, a CSV table with captions, or AudioCaps-style JSON."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import DataError
from .bank import AudioData, paraphrases
from .clips import Clip, ClipBank, inspect_clips, one_per_file, split_clips
from .words import content_words

__all__ = ["SUFFIXES", "load_captions", "load_folder", "load_table"]

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif")
_SPLITS = ("train", "validation", "valid", "val", "test")


def load_folder(folder: str | Path, sample_rate: int, *, on_error: str = "skip") -> AudioData:
    """A folder per label: `FOLDER/dog bark/*.wav`, or `FOLDER/train/dog bark/*.wav` with a fixed split.

    Args:
        folder: The outer folder.
        sample_rate: Hz.
        on_error: "skip" to leave out and report bad files, "raise" to stop.

    Raises:
        DataError: No such folder, no sounds, or fewer than two labels.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    inner = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    fixed = [path for path in inner if path.name.lower() in _SPLITS]
    if fixed and len(fixed) < len(inner):
        strange = next(path.name for path in inner if path not in fixed)
        raise DataError(f"{folder}: holds both splits ({fixed[0].name}/) and labels ({strange}/); use one or the other")
    tree = [(path.name.lower(), label) for path in fixed for label in sorted(path.iterdir()) if label.is_dir()]
    clips = [
        Clip(file, frozenset((label.name,)), paraphrases(label.name), split)
        for split, label in (tree or [(None, path) for path in inner])
        for file in sorted(label.rglob("*"))
        if file.suffix.lower() in SUFFIXES
    ]
    if not clips:
        raise DataError(f"{folder}: holds no sounds; expected FOLDER/LABEL/*.wav ({', '.join(SUFFIXES)})")
    return collect(str(folder), clips, sample_rate, on_error=on_error)


def load_table(path: str | Path, sample_rate: int, *, on_error: str = "skip") -> AudioData:
    """A CSV table with a column `file` and `caption` or `label` (or both), optionally `split`.

    Args:
        path: The table; file names are relative to its folder. Several labels are separated by semicolons.
        sample_rate: Hz.
        on_error: "skip" to leave out and report bad rows, "raise" to stop.

    Raises:
        DataError: Unreadable, or without these columns.
    """
    path = Path(path).expanduser()
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns, rows = tuple(reader.fieldnames or ()), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV table that can be read ({error})") from error
    if "file" not in columns or not {"caption", "label"} & set(columns):
        found = ", ".join(columns) or "none"
        raise DataError(f"{path}: needs a column 'file' and 'caption' or 'label'; it has {found}")
    entries = []
    for number, row in enumerate(rows, start=2):
        labels = [label.strip() for label in (row.get("label") or "").split(";") if label.strip()]
        captions = row.get("caption") or None
        entries.append(_Entry(f"{path}, line {number}", row.get("file"), captions, labels, row.get("split") or None))
    return _from_entries(path, entries, sample_rate, on_error)


def load_captions(path: str | Path, sample_rate: int, *, on_error: str = "skip") -> AudioData:
    """AudioCaps-style JSON: a list, or `{"data": [...]}`, of `{"wav": ..., "caption": ..., "labels": "/m/068hy,..."}`.

    Args:
        path: The file. `audio`, `file`, `path` do for `wav`; captions and labels may be lists, labels numbers. Entries
            of the same file are one sound with all their captions. Without labels, captions that share a word
            (:func:`~fourfold.data.audio.words.content_words`) are taken for the same sound.
        sample_rate: Hz.
        on_error: "skip" to leave out and report bad entries, "raise" to stop.

    Raises:
        DataError: Unreadable or of another form.
    """
    path = Path(path).expanduser()
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not JSON that can be read ({error})") from error
    items = content.get("data") if isinstance(content, dict) else content
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise DataError(f'{path}: expected a list, or {{"data": [...]}}, of entries with "wav" and "caption"')
    entries = []
    for number, item in enumerate(items):
        name = next((item[key] for key in ("wav", "audio", "file", "path") if item.get(key)), None)
        captions = next((item[key] for key in ("captions", "caption", "text") if item.get(key)), None)
        labels = next((item[key] for key in ("labels", "label") if item.get(key) not in (None, "", [])), None)
        labels = labels.split(",") if isinstance(labels, str) else labels
        entries.append(_Entry(f"{path}, entry {number}", name, captions, labels, item.get("split")))
    return _from_entries(path, entries, sample_rate, on_error)


def collect(
    name: str, clips: Sequence[Clip], sample_rate: int, *, balanced: bool = True, on_error: str = "skip"
) -> AudioData:
    """A data set out of clips: one per file, bad files left out, split, one bank per part.

    Raises:
        DataError: Too little is left.
    """
    files = one_per_file(clips)
    good, reasons = inspect_clips(files, on_error=on_error)
    if not good:
        raise DataError(f"{name}: none of {len(files)} sounds can be used; the first: {reasons[0]}")
    labels = frozenset().union(*(clip.labels for clip in good))
    if len(labels) < 2:
        raise DataError(f"{name}: only one label ({', '.join(labels)}); mixtures need at least two different sounds")
    parts = split_clips(good, labelled=balanced)
    empty = [part for part, members in parts.items() if not members]
    if empty:
        raise DataError(
            f"{name}: no clips for {' and '.join(empty)} out of {len(good)}; add clips (three per label at least) or "
            "say the split of each (train, validation, test)"
        )
    banks = {
        part: ClipBank(members, sample_rate, balanced=balanced, on_error=on_error) for part, members in parts.items()
    }
    kinds = f"{len(labels)} labels" if balanced else "captions"
    protocol = (
        f"{name}: {len(good)} clips, {kinds}, {len(parts['train'])}/{len(parts['validation'])}/{len(parts['test'])} "
        f"for training/validation/test, {sample_rate} Hz mono, crops by energy"
    )
    if reasons:
        protocol += f", {len(reasons)} files left out"
    return AudioData(name, banks["train"], banks["validation"], banks["test"], protocol, tuple(reasons))


@dataclass(frozen=True)
class _Entry:
    """A row of a table, unchecked."""

    where: str
    file: Any
    captions: Any
    labels: Any
    split: str | None

    @property
    def labelled(self) -> bool:
        """Whether it has labels of its own."""
        return bool(self._texts("labels", str, int))

    def clip(self, folder: Path) -> Clip:
        """The clip it describes; ValueError says what is wrong."""
        if not isinstance(self.file, str) or not self.file.strip():
            raise ValueError(f"{self.where}: needs a file, got {self.file!r}")
        captions = self._texts("captions", str)
        labels = frozenset(self._texts("labels", str, int))
        if not captions and not labels:
            raise ValueError(f"{self.where}: needs a caption or label")
        words = frozenset().union(*map(content_words, captions))
        if not labels and not words:
            raise ValueError(f"{self.where}: no word of {captions[0]!r} says what is heard; give it a label")
        named = captions or tuple(text for label in sorted(labels) for text in paraphrases(label))
        return Clip(folder / self.file, labels or words, named, self.split)

    def _texts(self, name: str, *kinds: type) -> tuple[str, ...]:
        value = getattr(self, name)
        values = value if isinstance(value, list) else [] if value is None else [value]
        for one in values:
            if type(one) not in kinds:
                wanted = "text or a number" if int in kinds else "text"
                raise ValueError(f"{self.where}: {name} must be {wanted}, or a list of these, got {one!r}")
        return tuple(text for one in values if (text := str(one).strip()))


def _from_entries(path: Path, entries: Sequence[_Entry], rate: int, on_error: str) -> AudioData:
    clips, reasons, labelled = [], [], True
    for entry in entries:
        try:
            clips.append(entry.clip(path.parent))
            labelled = labelled and entry.labelled
        except ValueError as error:
            if on_error == "raise":
                raise DataError(str(error)) from error
            reasons.append(str(error))
    if not clips:
        raise DataError(f"{path}: holds no usable entries{': ' + reasons[0] if reasons else ''}")
    if not labelled:
        # A label "dog bark" and a caption "a dog barks" are the same sound.
        clips = [
            replace(clip, labels=clip.labels.union(*map(content_words, (*clip.labels, *clip.captions))))
            for clip in clips
        ]
    data = collect(str(path), clips, rate, balanced=labelled, on_error=on_error)
    return replace(data, skipped=tuple(reasons) + data.skipped)
