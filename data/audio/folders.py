"""The user's own sounds: a folder per label, a CSV table with captions, or AudioCaps-style JSON."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError
from .bank import AudioData, paraphrases
from .clips import Clip, ClipBank, inspect_clips, split_clips

__all__ = ["SUFFIXES", "content_words", "load_captions", "load_folder", "load_table"]

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif")
_SPLITS = ("train", "validation", "valid", "val", "test")
_STOP_WORDS = """
    a an and are as at background be by down during from for her his in into is it its nearby of off on
    onto or out over several some sound sounds sounding someone something that the their then there they
    this through to two up various very while with
"""
_STOP = frozenset(_STOP_WORDS.split())


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
        captions = [row["caption"]] if row.get("caption") else []
        entries.append((f"{path}, line {number}", row.get("file") or "", captions, labels, row.get("split") or None))
    return _from_entries(path, entries, sample_rate, on_error)


def load_captions(path: str | Path, sample_rate: int, *, on_error: str = "skip") -> AudioData:
    """AudioCaps-style JSON: a list, or `{"data": [...]}`, of `{"wav": ..., "caption": ..., "labels": "/m/068hy,..."}`.

    Args:
        path: The file. `audio`, `file`, `path` do for `wav`; `captions` may be a list; labels are optional.
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
        name = next((item[key] for key in ("wav", "audio", "file", "path") if item.get(key)), "")
        captions = item.get("captions") or item.get("caption") or item.get("text") or []
        labels = item.get("labels") or item.get("label") or []
        labels = labels.split(",") if isinstance(labels, str) else labels
        captions = [captions] if isinstance(captions, str) else captions
        entries.append((f"{path}, entry {number}", str(name), captions, labels, item.get("split")))
    return _from_entries(path, entries, sample_rate, on_error)


def content_words(caption: str) -> frozenset[str]:
    """Words that say what is heard, with plain endings cut: two captions that share one are not mixed."""
    words = [word for word in re.findall(r"[a-z]+", caption.lower()) if word not in _STOP and len(word) > 2]
    return frozenset(re.sub(r"(ing|ed|es|s)$", "", word) if len(word) > 4 else word for word in words)


def collect(
    name: str, clips: Sequence[Clip], sample_rate: int, *, balanced: bool = True, on_error: str = "skip"
) -> AudioData:
    """A data set out of clips: bad files left out, split, one bank per part.

    Raises:
        DataError: Too little is left.
    """
    good, reasons = inspect_clips(clips, on_error=on_error)
    if not good:
        raise DataError(f"{name}: none of {len(clips)} sounds can be used; the first: {reasons[0]}")
    labels = frozenset().union(*(clip.labels for clip in good))
    if len(labels) < 2:
        raise DataError(f"{name}: only one label ({', '.join(labels)}); mixtures need at least two different sounds")
    parts = split_clips(good)
    empty = [part for part, members in parts.items() if not members]
    if empty:
        raise DataError(
            f"{name}: no clips for {' and '.join(empty)} out of {len(good)}; add clips (three per label at least) or "
            "say the split of each (train, validation, test)"
        )
    banks = {part: ClipBank(members, sample_rate, balanced=balanced) for part, members in parts.items()}
    kinds = f"{len(labels)} labels" if balanced else "captions"
    protocol = (
        f"{name}: {len(good)} clips, {kinds}, {len(parts['train'])}/{len(parts['validation'])}/{len(parts['test'])} "
        f"for training/validation/test, {sample_rate} Hz mono, crops by energy"
    )
    if reasons:
        protocol += f", {len(reasons)} files left out"
    return AudioData(name, banks["train"], banks["validation"], banks["test"], protocol, tuple(reasons))


def _from_entries(
    path: Path, entries: Iterable[tuple[str, str, Sequence[str], Sequence[str], str | None]], rate: int, on_error: str
) -> AudioData:
    clips, reasons, labelled = [], [], True
    for where, file, captions, labels, split in entries:
        captions = tuple(str(caption).strip() for caption in captions if str(caption).strip())
        names = frozenset(str(label).strip() for label in labels if str(label).strip())
        labelled = labelled and bool(names)
        if not captions and names:
            captions = tuple(text for name in sorted(names) for text in paraphrases(name))
        names = names or frozenset().union(*(content_words(caption) for caption in captions))
        if not file or not captions or not names:
            reason = f"{where}: needs a file and a caption or label"
            if on_error == "raise":
                raise DataError(reason)
            reasons.append(reason)
            continue
        place = Path(file)
        clips.append(Clip(place if place.is_absolute() else path.parent / place, names, captions, split))
    if not clips:
        raise DataError(f"{path}: holds no usable entries{': ' + reasons[0] if reasons else ''}")
    data = collect(str(path), clips, rate, balanced=labelled, on_error=on_error)
    return AudioData(data.name, data.train, data.validation, data.test, data.protocol, tuple(reasons) + data.skipped)
