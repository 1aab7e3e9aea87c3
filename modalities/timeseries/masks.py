"""What a conditional network is shown of a training window, and the patterns of missing values of the publication.

A network that only ever saw the context forecasts; one that saw random patterns forecasts, imputes and backcasts.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...core import NoiseSource

__all__ = ["MISSING", "ContextMasks", "Masks", "RandomMasks", "hide"]


@dataclass(frozen=True)
class Masks(ABC):
    """Chooses the entries that a conditional network is shown."""

    name: ClassVar[str]

    @abstractmethod
    def draw(self, observed: Tensor, context: int, noise: NoiseSource) -> Tensor:
        """Shown entries of training windows.

        Args:
            observed: boolean, shape `(B, L)`.
            context: steps c of context.
            noise: B ids.

        Returns:
            Boolean, shape `(B, L)`, a part of `observed`.
        """

    @abstractmethod
    def allowed(self, observed: Tensor, context: int) -> Tensor:
        """The part of `observed` `(B, L)` that a network trained this way can be shown when sampling."""


@dataclass(frozen=True)
class ContextMasks(Masks):
    """The context, always: the conditional model of the publication."""

    name: ClassVar[str] = "context"

    def draw(self, observed: Tensor, context: int, noise: NoiseSource) -> Tensor:
        return self.allowed(observed, context)

    def allowed(self, observed: Tensor, context: int) -> Tensor:
        return observed & (torch.arange(observed.shape[1], device=observed.device) < context)


@dataclass(frozen=True)
class RandomMasks(Masks):
    """Per window one of four patterns, equally often: the context (forecast), all but the first steps (backcast), all
    but a block anywhere, and single entries with a random probability.

    Args:
        longest: longest hidden block, as a fraction of the window.
    """

    name: ClassVar[str] = "random"
    longest: float = 0.6

    def __post_init__(self) -> None:
        if not 0 < self.longest < 1:
            raise ValueError(f"the longest hidden block must be a fraction in (0, 1), got {self.longest}")

    def draw(self, observed: Tensor, context: int, noise: NoiseSource) -> Tensor:
        size, length = observed.shape
        u = noise.uniform((size, 4), 0).to(observed.device)
        position = torch.arange(length, device=observed.device).expand(size, length)
        block = (1 + u[:, 1] * (self.longest * length - 1)).floor().unsqueeze(1)
        begin = (u[:, 2].unsqueeze(1) * (length - block + 1)).floor()
        scattered = noise.uniform((size, length), 1).to(observed.device) < 0.1 + 0.8 * u[:, 3].unsqueeze(1)
        patterns = torch.stack(
            (position < context, position >= block, (position < begin) | (position >= begin + block), scattered)
        )
        kind = (u[:, 0] * len(patterns)).long().clamp(max=len(patterns) - 1)
        return observed & patterns[kind, torch.arange(size, device=observed.device)]

    def allowed(self, observed: Tensor, context: int) -> Tensor:
        return observed


MISSING: tuple[str, ...] = ("none", "random", "block-start", "block-end")
"""Patterns of missing values in the context that the publication evaluates."""


def hide(
    values: NDArray[np.float64], pattern: str, count: int, context: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """A series with `count` of its last `context` values missing, as the publication's tables have it.

    Args:
        values: shape `(T,)`.
        pattern: one of :data:`MISSING`: none; single values at random; a block at the start or at the end of the
            context.
        count: number of values to hide.
        context: steps c of context.
        generator: of the random pattern.

    Raises:
        ValueError: for an unknown pattern or a count outside 0 ... context - 1.
    """
    if pattern not in MISSING:
        raise ValueError(f"unknown pattern of missing values {pattern!r}; known are {', '.join(MISSING)}")
    if not 0 <= count < context or context > len(values):
        raise ValueError(f"cannot hide {count} of a context of {context} in a series of {len(values)} values")
    hidden = np.array(values, dtype=np.float64)
    first = len(values) - context
    if pattern == "random":
        hidden[first + generator.permutation(context)[:count]] = np.nan
    elif pattern == "block-start":
        hidden[first : first + count] = np.nan
    elif pattern == "block-end":
        hidden[len(values) - count :] = np.nan
    return hidden
