"""Which sounds of a bank may be in one mixture: those without a common label."""

from __future__ import annotations

from collections import Counter

from .bank import SoundBank

__all__ = ["DisjointLabels"]

_LOOKS = 2000


class DisjointLabels:
    """Counts sounds without a common label.

    The largest number is a set packing; beyond one it is searched for in a limited number of looks at the sounds, and
    may come out too small where labels are many and nearly all exclude each other.

    Args:
        bank: The sounds.
    """

    def __init__(self, bank: SoundBank) -> None:
        different = {bank.labels(item) for item in range(len(bank))}
        count = Counter(label for labels in different for label in labels)
        # Those that exclude the fewest others first.
        self._labels = sorted(different, key=lambda labels: (sum(count[label] for label in labels), sorted(labels)))

    def most(self, limit: int, heard: frozenset[str] = frozenset()) -> int:
        """The number of sounds, at most `limit`, that share no label with each other and none with `heard`."""
        looks = max(_LOOKS, len(self._labels))

        def search(begin: int, heard: frozenset[str], limit: int) -> int:
            nonlocal looks
            best = 0
            for index in range(begin, len(self._labels)):
                if best == limit or looks == 0:
                    break
                looks -= 1
                if not self._labels[index] & heard:
                    best = max(best, 1 + search(index + 1, heard | self._labels[index], limit - 1))
            return best

        return search(0, heard, limit)
