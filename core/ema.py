"""Exponential moving average of weights: the averaging rule. Bookkeeping belongs to
``torch.optim.swa_utils.AveragedModel``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["EMA", "PowerEMA"]


@torch.no_grad()
def _average(averaged: Sequence[Tensor], current: Sequence[Tensor], decay: float) -> None:
    floating = [(a, c) for a, c in zip(averaged, current, strict=True) if a.dtype.is_floating_point]
    if floating:
        ours, theirs = ([pair[i] for pair in floating] for i in (0, 1))
        torch._foreach_lerp_(ours, theirs, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]
    for a, c in zip(averaged, current, strict=True):
        if not a.dtype.is_floating_point:
            a.copy_(c)


@dataclass(frozen=True)
class EMA:
    """:math:`\\bar\\theta \\leftarrow d \\bar\\theta + (1 - d)\\theta` with a warmed-up decay :math:`d_n = \\min(d,
    (1 + n)/(10 + n))`.

    Use as ``AveragedModel(model, multi_avg_fn=EMA(0.999))``.

    Args:
        decay: d in [0, 1).
        warmup: whether to warm the decay up, so that short runs are not dominated by the initial weights.
    """

    decay: float = 0.999
    warmup: bool = True

    def at(self, count: int) -> float:
        """The decay of the update number ``count`` (from 0)."""
        return min(self.decay, (1 + count) / (10 + count)) if self.warmup else self.decay

    def __call__(self, averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
        _average(averaged, current, self.at(int(count)))


@dataclass(frozen=True)
class PowerEMA:
    """Power-function average: weight of step n in proportion to :math:`n^\\gamma`, i.e. :math:`d_n = (1 -
    1/n)^{\\gamma + 1}`.

    Source: Karras et al. 2024, "Analyzing and Improving the Training Dynamics of Diffusion Models", arXiv
    2312.02696, eq. 1.
    """

    gamma: float = 6.94

    def at(self, count: int) -> float:
        """The decay of the update number ``count`` (from 0)."""
        return (1 - 1 / (count + 1)) ** (self.gamma + 1)

    def __call__(self, averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
        _average(averaged, current, self.at(int(count)))
