r"""Scaling of windows: from units of the user to units in which one noise schedule fits all.

    x = (y - loc) / scale,   (loc, scale) computed from the observed part of the context alone

The choice decides where the information of a window lies relative to the noise of the schedule. A random walk divided
by its mean is 1 +- 0.05 and drowns in the first noise step; anchored at its last value and divided by the expected
excursion over the horizon it is O(1) where it matters.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

__all__ = ["Anchored", "LongMean", "Mean", "Scaler", "ZScore"]


@dataclass(frozen=True)
class Scaler(ABC):
    """Base of all scalers. Called on contexts, returns `(loc, scale)`.

    Args:
        floor: smallest scale, relative to the mean magnitude of the observed context (or of the series, where known);
            what varies less counts as constant.
    """

    name: ClassVar[str]
    floor: float = 1e-9

    def __post_init__(self) -> None:
        if not self.floor > 0:
            raise ValueError(f"floor of a scaler must be positive, got {self.floor}")

    def __call__(
        self, context: Tensor, observed: Tensor, horizon: int, level: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Computes location and scale of each context.

        Args:
            context: values in units of the user, shape `(B, c)`; entries that are not observed may hold anything.
            observed: which entries count, boolean, shape `(B, c)`.
            horizon: number of steps to be forecast.
            level: mean magnitude of the whole series, shape `(B,)`; only :class:`LongMean` needs it.

        Returns:
            loc and scale, shape `(B, 1)` each; scale is positive and finite, 1 for contexts of zeros or without any
            observed value.
        """
        values = torch.where(observed, context, torch.zeros_like(context))
        loc, scale = self._statistics(values, observed, horizon, level)
        magnitude = _mean(values.abs(), observed)
        if level is not None:
            magnitude = torch.where(magnitude > 0, magnitude, level.to(magnitude).unsqueeze(-1))
        scale = torch.maximum(scale, self.floor * magnitude)
        return loc, torch.where(scale > torch.finfo(scale.dtype).tiny, scale, torch.ones_like(scale))

    @abstractmethod
    def _statistics(
        self, values: Tensor, observed: Tensor, horizon: int, level: Tensor | None
    ) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class Mean(Scaler):
    """loc = 0, scale = mean |y| over the observed context (the TSDiff paper's choice)."""

    name: ClassVar[str] = "mean"

    def _statistics(
        self, values: Tensor, observed: Tensor, horizon: int, level: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        scale = _mean(values.abs(), observed)
        return torch.zeros_like(scale), scale


@dataclass(frozen=True)
class Anchored(Scaler):
    r"""loc = last observed value, scale = sqrt(H) times the root mean square of first differences.

    For series that move like random walks (prices, rates): the scale is the expected excursion at the end of the
    horizon. Only differences between neighbours that are both observed count.
    """

    name: ClassVar[str] = "anchored"

    def _statistics(
        self, values: Tensor, observed: Tensor, horizon: int, level: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        positions = torch.arange(values.shape[1], device=values.device)
        last = torch.where(observed, positions, -torch.ones_like(positions)).amax(dim=1, keepdim=True)
        loc = values.gather(1, last.clamp(min=0)) * (last >= 0)
        pairs = observed[:, 1:] & observed[:, :-1]
        squares = _mean(values.diff(dim=1).square(), pairs)
        return loc, squares.sqrt() * math.sqrt(horizon)


@dataclass(frozen=True)
class ZScore(Scaler):
    """loc = mean, scale = standard deviation of the observed context: the robust choice for seasonal series."""

    name: ClassVar[str] = "zscore"

    def _statistics(
        self, values: Tensor, observed: Tensor, horizon: int, level: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        loc = _mean(values, observed)
        return loc, _mean((values - loc).square(), observed).sqrt()


@dataclass(frozen=True)
class LongMean(Scaler):
    """loc = 0, scale = mean |y| over the whole known history of the series (`level`), not only the context.

    Keeps the amplitude of a window as information: a quiet week of a busy street still looks quiet.
    """

    name: ClassVar[str] = "longmean"

    def _statistics(
        self, values: Tensor, observed: Tensor, horizon: int, level: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if level is None:
            raise ValueError("the scaler LongMean needs the level of each series, its mean magnitude over the history")
        scale = level.to(values).unsqueeze(-1)
        return torch.zeros_like(scale), scale


def _mean(values: Tensor, observed: Tensor) -> Tensor:
    weight = observed.to(values)
    return (values * weight).sum(dim=1, keepdim=True) / weight.sum(dim=1, keepdim=True).clamp(min=1)
