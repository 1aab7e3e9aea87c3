"""Descriptions as states that a network attends to: one interface for pretrained and learnt encoders.

A negative prompt is a second set of states; "no description" is a third. Classifier-free guidance combines whichever
two it is given, so encoders know nothing of it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

__all__ = ["CachedTextEncoder", "TextEncoder", "TextStates"]


@dataclass(frozen=True)
class TextStates:
    """Encoded descriptions.

    Args:
        states: `(B, L, channels)`.
        mask: Which of the L states count, `(B, L)` bool.
    """

    states: Tensor
    mask: Tensor

    def __post_init__(self) -> None:
        if self.states.ndim != 3 or self.mask.shape != self.states.shape[:2] or self.mask.dtype != torch.bool:
            raise ValueError(
                f"need states (B, L, channels) and a bool mask (B, L), got {tuple(self.states.shape)} and "
                f"{tuple(self.mask.shape)} {self.mask.dtype}"
            )

    def __len__(self) -> int:
        return len(self.states)

    def to(self, device: torch.device | str) -> TextStates:
        """The same on another device."""
        return TextStates(self.states.to(device), self.mask.to(device))

    def padded(self, length: int) -> TextStates:
        """At least `length` states long; the new ones do not count."""
        missing = length - self.states.shape[1]
        if missing <= 0:
            return self
        return TextStates(
            torch.nn.functional.pad(self.states, (0, 0, 0, missing)), torch.nn.functional.pad(self.mask, (0, missing))
        )

    def where(self, keep: Tensor, other: TextStates) -> TextStates:
        """These states where `keep`, `(B,)` bool, and `other`'s elsewhere: condition dropout per example."""
        length = max(self.states.shape[1], other.states.shape[1])
        a, b = self.padded(length), other.padded(length)
        return TextStates(
            torch.where(keep[:, None, None], a.states, b.states), torch.where(keep[:, None], a.mask, b.mask)
        )

    @staticmethod
    def stack(items: Sequence[TextStates]) -> TextStates:
        """Several batches below each other, padded to the longest."""
        length = max(item.states.shape[1] for item in items)
        items = [item.padded(length) for item in items]
        return TextStates(torch.cat([item.states for item in items]), torch.cat([item.mask for item in items]))


@runtime_checkable
class TextEncoder(Protocol):
    """Turns descriptions into states."""

    @property
    def channels(self) -> int:
        """Channels of the states."""
        ...

    def __call__(self, prompts: Sequence[str]) -> TextStates:
        """States of B descriptions; the result of one does not depend on the others."""
        ...

    def unconditional(self, batch: int) -> TextStates:
        """What stands for "no description", `batch` times."""
        ...


class CachedTextEncoder:
    """Remembers the states of a frozen encoder, on the CPU; every description is encoded once, and by itself.

    By itself, so that results are bitwise the same whatever the batch.

    Args:
        encoder: Frozen.
        capacity: Descriptions kept; the least recently used one is dropped.
    """

    def __init__(self, encoder: TextEncoder, capacity: int = 10_000) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, got {capacity}")
        self.encoder, self.capacity = encoder, capacity
        self._kept: OrderedDict[str, TextStates] = OrderedDict()
        self._none: TextStates | None = None

    @property
    def channels(self) -> int:
        """Channels of the states."""
        return self.encoder.channels

    def __call__(self, prompts: Sequence[str]) -> TextStates:
        """As the encoder, without gradients."""
        _check_prompts(prompts)
        return TextStates.stack([self._one(prompt) for prompt in prompts])

    def unconditional(self, batch: int) -> TextStates:
        """As the encoder."""
        if self._none is None:
            with torch.no_grad():
                self._none = self.encoder.unconditional(1).to("cpu")
        return TextStates(self._none.states.expand(batch, -1, -1), self._none.mask.expand(batch, -1))

    def _one(self, prompt: str) -> TextStates:
        if prompt not in self._kept:
            with torch.no_grad():
                self._kept[prompt] = self.encoder([prompt]).to("cpu")
            if len(self._kept) > self.capacity:
                self._kept.popitem(last=False)
        self._kept.move_to_end(prompt)
        return self._kept[prompt]


def _check_prompts(prompts: Sequence[str]) -> None:
    if isinstance(prompts, str) or not prompts or not all(isinstance(prompt, str) for prompt in prompts):
        raise ValueError(f"expected a non-empty list of descriptions, got {prompts!r}")
