"""Long recordings cut in time into training, validation and test, and those into windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from ..errors import DataError

__all__ = ["Shares", "spread", "time_split", "window_starts"]

_T = TypeVar("_T")

#: Shares of training, validation and test.
Shares = Sequence[float]


def time_split(frames: int, shares: Shares) -> list[tuple[int, int]]:
    """First frame and end of three consecutive parts of a recording.

    Raises:
        DataError: the shares are not three numbers of at least 0 that add up to 1, the first positive.
    """
    if len(shares) != 3 or min(shares) < 0 or shares[0] <= 0 or abs(sum(shares) - 1) > 1e-6:
        raise DataError(f"split must be three shares (train, validation, test) that add up to 1, got {tuple(shares)}")
    ends = [round(frames * sum(shares[: i + 1])) for i in range(3)]
    return [(0, ends[0]), (ends[0], ends[1]), (ends[1], ends[2])]


def window_starts(start: int, stop: int, span: int, count: int) -> list[int]:
    """First frames of at most `count` windows of `span` frames within `[start, stop)`, equally far apart.

    Windows overlap where there are many. The spacing is that of the published MD17 experiments,
    `(length - span + 1) // count`, at least 1.
    """
    room = stop - start - span + 1
    if room < 1 or count < 1:
        return []
    stride = max(1, room // count)
    return [start + i * stride for i in range(min(count, -(-room // stride)))]


def spread(items: list[_T], count: int) -> list[_T]:
    """At most `count` of the items, evenly spread."""
    if len(items) <= count:
        return items
    return [items[i] for i in np.linspace(0, len(items) - 1, count).astype(int)]
