r"""Recordings of any length through a model of fixed length: overlapping windows, cross-faded.

Window k covers samples :math:`[k h, k h + w)`; where two windows overlap the later one fades in linearly while the
earlier one fades out, so that equal estimates give themselves back. What is kept at a time is a few windows, whatever
the length of the recording.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Windows", "in_windows"]


@dataclass(frozen=True)
class Windows:
    """Places of windows in a recording.

    Args:
        length: Samples of the recording, at least 1.
        window: Samples of a window.
        overlap: Samples that neighbours share, at most half a window.
    """

    length: int
    window: int
    overlap: int

    def __post_init__(self) -> None:
        if self.length < 1 or self.window < 1 or not 0 <= self.overlap <= self.window // 2:
            raise ValueError(
                f"need length >= 1, window >= 1 and 0 <= overlap <= window / 2; got {self.length}, {self.window}, "
                f"{self.overlap}"
            )

    def __len__(self) -> int:
        """Windows needed to cover everything; one for a recording that fits into it."""
        return 1 + max(0, -(-(self.length - self.window) // (self.window - self.overlap)))

    def start(self, index: int) -> int:
        """First sample of a window; the last window ends with the recording, or begins it if there is one only."""
        regular = index * (self.window - self.overlap)
        return regular if index < len(self) - 1 else max(0, self.length - self.window)

    def overlap_before(self, index: int) -> int:
        """Samples a window shares with the one before: at least `overlap`, for the last perhaps more."""
        return 0 if index == 0 else max(0, self.start(index - 1) + self.window - self.start(index))


def in_windows(
    windows: Windows,
    read: Callable[[int, int], Tensor],
    process: Callable[[Tensor, Sequence[int]], Tensor],
    *,
    batch: int = 4,
) -> Iterator[tuple[int, Tensor]]:
    """Process a recording in windows, some at a time, and yield its parts in order.

    Args:
        windows: Where they lie.
        read: `(start, stop)` to samples `(channels, stop - start)`.
        process: `(B, channels, window)` and the numbers of the B windows to outputs `(B, channels', window)`; a short
            recording is followed by silence.
        batch: Windows processed together.

    Yields:
        Start, and the finished samples `(channels', n)` from there on.
    """
    tail: Tensor | None = None
    for first in range(0, len(windows), batch):
        numbers = range(first, min(first + batch, len(windows)))
        parts = [
            _padded(read(s, min(s + windows.window, windows.length)), windows) for s in map(windows.start, numbers)
        ]
        for number, output in zip(numbers, process(torch.stack(parts), numbers), strict=True):
            start, shared = windows.start(number), windows.overlap_before(number)
            last = number == len(windows) - 1
            output = output[:, : windows.length - start] if last else output
            if tail is not None and shared:
                fade = (torch.arange(shared, device=output.device) + 1) / (shared + 1)
                output = torch.cat([tail * (1 - fade) + output[:, :shared] * fade, output[:, shared:]], 1)
            kept = 0 if last else windows.overlap_before(number + 1)
            cut = output.shape[1] - kept
            yield start, output[:, :cut]
            tail = output[:, cut:]


def _padded(part: Tensor, windows: Windows) -> Tensor:
    return torch.nn.functional.pad(part, (0, windows.window - part.shape[1]))
