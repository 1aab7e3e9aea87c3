"""Banks of labelled sounds: what a mixture is drawn from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ..errors import DataError

__all__ = ["AUDIBLE", "AudioData", "SoundBank", "UnusableSound", "group_by_label", "paraphrases"]

AUDIBLE = 1e-4
"""Root mean square below which a sound counts as silence, -80 dB of full scale."""


class UnusableSound(DataError):
    """A sound turned out to be damaged when it was drawn, and another may be taken instead."""


class SoundBank(Protocol):
    """Sounds that can be drawn, each with what is heard in it and how it may be described."""

    sample_rate: int

    def __len__(self) -> int:
        """Number of items: clips, or kinds of sound of a generator."""
        ...

    def labels(self, item: int) -> frozenset[str]:
        """What is heard; two items may be mixed if they share nothing."""
        ...

    def captions(self, item: int) -> tuple[str, ...]:
        """Descriptions, the plainest first."""
        ...

    def groups(self) -> Sequence[np.ndarray]:
        """Items by class: a draw picks a group first, so that rare classes are as frequent as common ones."""
        ...

    def source(self, item: int) -> str:
        """Where the item comes from, for messages."""
        ...

    def draw(self, item: int, rng: np.random.Generator, length: int) -> np.ndarray:
        """A sound of the item, `(length,)` float32, with a random choice of the part or the parameters.

        Raises:
            UnusableSound: This one cannot be had; another may be drawn instead.
        """
        ...


@dataclass(frozen=True)
class AudioData:
    """A data set of labelled sounds with its split.

    Args:
        name: As users choose it.
        train: Bank of the training mixtures.
        validation: Bank of the validation mixtures.
        test: Bank of the test mixtures; shares no clip with the others.
        protocol: Split and preparation in words, kept with every metric.
        skipped: Files left out, with the reason.
    """

    name: str
    train: SoundBank
    validation: SoundBank
    test: SoundBank
    protocol: str
    skipped: tuple[str, ...] = field(default=())


def group_by_label(labels: Sequence[frozenset[str]]) -> list[np.ndarray]:
    """Items by label, in the order of the labels' names; an item with several labels is in several groups."""
    groups: dict[str, list[int]] = defaultdict(list)
    for item, names in enumerate(labels):
        for name in names:
            groups[name].append(item)
    return [np.asarray(groups[name]) for name in sorted(groups)]


def paraphrases(label: str) -> tuple[str, ...]:
    """Plain descriptions of a label, for data without captions."""
    plain = " ".join(label.replace("_", " ").replace("-", " ").split()).lower()
    return plain, f"the sound of {plain}", f"{plain} sound", f"a recording of {plain}"
