"""ESC-50 and ESC-10: 5-second recordings of 50 (10) everyday sounds, 40 each, in five folds.

The folds never share a source recording, so a fold is the only honest test set. From a local folder (the repository's
layout, or `clips.csv` with the files beside it) or, once, from the network.

Source: Piczak 2015, "ESC: dataset for environmental sound classification". Licence: CC BY-NC 3.0 (ESC-10: CC BY).
"""

from __future__ import annotations

import csv
import zlib
from collections.abc import Sequence
from pathlib import Path

from ..errors import DataError
from ..fetch import RemoteFile, data_root, fetch, unpack
from .bank import AudioData, paraphrases
from .clips import Clip, ClipBank, inspect_clips

__all__ = ["ARCHIVE", "load_esc"]

ARCHIVE = RemoteFile(
    "audio/ESC-50-master.zip",
    ("https://github.com/karolpiczak/ESC-50/archive/master.zip",),
    "805afc618aff80eff0641d51311647871fead5807da68bb18e43a27db47a79ce",
)

# How people would ask for the ten sounds of ESC-10; its labels alone are few words to learn a language from.
_MORE: dict[frozenset[str], tuple[str, ...]] = {
    frozenset(("dog", "bark")): ("a dog barking", "barking dog", "dogs", "a dog"),
    frozenset(("dog",)): ("a dog barking", "barking dog", "dogs", "a dog"),
    frozenset(("baby", "cry")): ("a baby crying", "crying baby", "an infant cries", "a baby"),
    frozenset(("crying", "baby")): ("a baby crying", "baby cry", "an infant cries", "a baby"),
    frozenset(("chainsaw",)): ("a chainsaw running", "a chain saw", "sawing with a motor saw", "the chainsaw"),
    frozenset(("clock", "tick")): ("a clock ticking", "ticking clock", "tick tock", "a clock"),
    frozenset(("fire", "crackling")): ("a crackling fire", "fire", "wood burning", "a campfire"),
    frozenset(("crackling", "fire")): ("a crackling fire", "fire", "wood burning", "a campfire"),
    frozenset(("helicopter",)): ("a helicopter flying", "helicopter rotor", "a helicopter passes", "a helicopter"),
    frozenset(("person", "sneeze")): ("someone sneezing", "a sneeze", "sneezing", "a person sneezes"),
    frozenset(("sneezing",)): ("someone sneezing", "a sneeze", "person sneeze", "a person sneezes"),
    frozenset(("rain",)): ("rain falling", "rainfall", "it is raining", "heavy rain"),
    frozenset(("rooster",)): ("a rooster crowing", "a cock crows", "crowing rooster", "a rooster"),
    frozenset(("sea", "waves")): ("waves of the sea", "ocean waves", "surf", "the sea"),
}


def load_esc(
    root: str | Path | None = None,
    sample_rate: int = 16_000,
    *,
    ten: bool = False,
    test_fold: int = 4,
    validation_fold: int | None = None,
    on_error: str = "skip",
) -> AudioData:
    """ESC-50 or ESC-10 with a fold held out for the test.

    Looks for a table (`meta/esc50.csv` or `clips.csv`) in ROOT, ROOT/esc10 or ROOT/esc50 and ROOT/audio/ESC-50-master,
    then asks the network.

    Args:
        root: Folder of the data; default: FOURFOLD_DATA or the user's cache folder.
        sample_rate: Hz.
        ten: Only the ten classes of ESC-10.
        test_fold: Judged on, never trained on.
        validation_fold: Held out for validation; default: one recording in ten of every class of the training folds,
            with all clips cut from it.
        on_error: "skip" to leave out and report bad files, "raise" to stop.

    Raises:
        DataError: Not here and not reachable, damaged, or a fold that does not exist.
    """
    name = "esc10" if ten else "esc50"
    table = _find(data_root(root), name)
    clips, folds = _read(table, ten)
    present = sorted(set(folds))
    if test_fold not in present or validation_fold not in (None, *present) or validation_fold == test_fold:
        raise DataError(
            f"{table}: holds folds {', '.join(map(str, present))}; test_fold={test_fold} and "
            f"validation_fold={validation_fold} must be two of them"
        )
    good, reasons = inspect_clips(clips, on_error=on_error)
    fold_of = dict(zip((clip.path for clip in clips), folds, strict=True))
    test = [clip for clip in good if fold_of[clip.path] == test_fold]
    rest = [clip for clip in good if fold_of[clip.path] != test_fold]
    if validation_fold is None:
        validation, held_out = _some_recordings(rest), "one recording in ten of these"
    else:
        validation, held_out = (
            [clip for clip in rest if fold_of[clip.path] == validation_fold],
            f"fold {validation_fold}",
        )
    kept = {clip.path for clip in validation}
    parts = {"train": [clip for clip in rest if clip.path not in kept], "validation": validation, "test": test}
    empty = [part for part, members in parts.items() if not members]
    if empty:
        raise DataError(f"{table}: no usable clips for {' and '.join(empty)}; the first problem: {[*reasons, None][0]}")
    banks = {part: ClipBank(members, sample_rate, on_error=on_error) for part, members in parts.items()}
    trained = [f for f in present if f not in (test_fold, validation_fold)]
    protocol = (
        f"{name}: trained on folds {', '.join(map(str, trained))}, validated on {held_out}, tested on fold "
        f"{test_fold}; {len(parts['train'])}/{len(validation)}/{len(test)} clips, {sample_rate} Hz mono, "
        "crops by energy"
    )
    if reasons:
        protocol += f", {len(reasons)} files left out"
    return AudioData(name, banks["train"], banks["validation"], banks["test"], protocol, tuple(reasons))


def _some_recordings(clips: Sequence[Clip]) -> list[Clip]:
    # File names are FOLD-RECORDING-TAKE: takes of a recording stay together. At least one recording per class.
    sources: dict[frozenset[str], dict[str, list[Clip]]] = {}
    for clip in clips:
        source = clip.path.name.split("-")[1] if clip.path.name.count("-") >= 2 else clip.path.stem
        sources.setdefault(clip.labels, {}).setdefault(source, []).append(clip)
    chosen = []
    for recordings in sources.values():
        order = sorted(recordings, key=lambda source: (zlib.crc32(source.encode()), source))
        chosen += [clip for source in order[: max(1, round(len(order) / 10))] for clip in recordings[source]]
    return chosen


def _words(label: str) -> frozenset[str]:
    return frozenset(label.lower().replace("_", " ").split())


def _find(root: Path, name: str) -> Path:
    # ESC-10 is part of ESC-50.
    unpacked = root / "audio" / "ESC-50"
    places: Sequence[Path] = [
        root,
        *(root / inner / n for inner in ("", "audio") for n in dict.fromkeys((name, "esc50", "ESC-50-master"))),
        unpacked / "ESC-50-master",
    ]
    for place in places:
        for table in (place / "meta" / "esc50.csv", place / "clips.csv"):
            if table.is_file():
                return table
    unpack(fetch(ARCHIVE, root), unpacked)
    return unpacked / "ESC-50-master" / "meta" / "esc50.csv"


def _read(table: Path, ten: bool) -> tuple[list[Clip], list[int]]:
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table}: not a CSV table that can be read ({error})") from error
    own = table.name == "clips.csv"
    folder = table.parent if own else table.parent.parent / "audio"
    file_column, label_column = ("file", "label") if own else ("filename", "category")
    clips, folds = [], []
    for number, row in enumerate(rows, start=2):
        try:
            fold, label, file = int(row["fold"]), row[label_column], row[file_column]
            if ten and not own and row["esc10"] != "True":
                continue
        except (KeyError, ValueError, TypeError) as error:
            raise DataError(
                f"{table}, line {number}: needs {file_column}, fold and {label_column} ({error!r})"
            ) from error
        clips.append(Clip(folder / file, frozenset((label,)), paraphrases(label) + _MORE.get(_words(label), ())))
        folds.append(fold)
    if not clips:
        raise DataError(f"{table}: holds no rows")
    return clips, folds
