r"""Densities of the training time.

A density is given by its quantile function on [0, 1]; losses map [0, 1] onto [t_min, t_max] of the schedule.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = [
    "CosMapTime",
    "DiscreteTime",
    "LogitNormalTime",
    "ModeTime",
    "PowerTime",
    "ShiftedTime",
    "TimeDensity",
    "UniformTime",
]


class TimeDensity(ABC):
    """A distribution of t on [0, 1]."""

    @abstractmethod
    def quantile(self, u: Tensor) -> Tensor:
        """The time below which a fraction u of the mass lies; u in (0, 1), any shape."""


@dataclass(frozen=True)
class UniformTime(TimeDensity):
    """Uniform."""

    def quantile(self, u: Tensor) -> Tensor:
        return u


@dataclass(frozen=True)
class DiscreteTime(TimeDensity):
    """Uniform over ``steps`` evenly spaced times including both ends: the table points of a ``Discrete`` schedule."""

    steps: int

    def quantile(self, u: Tensor) -> Tensor:
        return (u * self.steps).floor().clamp(max=self.steps - 1) / max(self.steps - 1, 1)


@dataclass(frozen=True)
class LogitNormalTime(TimeDensity):
    """sigmoid of N(mean, std^2). Source: Esser et al. 2024 (SD3), arXiv 2403.03206, section 3.1."""

    mean: float = 0.0
    std: float = 1.0

    def quantile(self, u: Tensor) -> Tensor:
        return torch.sigmoid(self.mean + self.std * torch.special.ndtri(u))


@dataclass(frozen=True)
class ModeTime(TimeDensity):
    """Mode sampling with heavy tails, scale in [-1, 2/(pi - 2)]. Source: Esser et al. 2024, arXiv 2403.03206, eq.
    20."""

    scale: float = 1.29

    def quantile(self, u: Tensor) -> Tensor:
        v = 1 - u
        return 1 - v - self.scale * (torch.cos(math.pi / 2 * v) ** 2 - 1 + v)


@dataclass(frozen=True)
class CosMapTime(TimeDensity):
    """The cosine schedule's log-SNR distribution on a rectified flow. Source: Esser et al. 2024, arXiv 2403.03206,
    eq. 21."""

    def quantile(self, u: Tensor) -> Tensor:
        return 1 - 1 / (torch.tan(math.pi / 2 * u) + 1)


@dataclass(frozen=True)
class ShiftedTime(TimeDensity):
    """A density moved towards the noise, t -> shift t / (1 + (shift - 1) t). Source: Esser et al. 2024, arXiv
    2403.03206, eq. 23."""

    shift: float = 3.0
    base: TimeDensity = field(default_factory=UniformTime)

    def quantile(self, u: Tensor) -> Tensor:
        t = self.base.quantile(u)
        return self.shift * t / (1 + (self.shift - 1) * t)


@dataclass(frozen=True)
class PowerTime(TimeDensity):
    """1 - u^power: for powers above 1 more mass near the noise, where a strongly conditioned task is decided."""

    power: float = 1.5

    def __post_init__(self) -> None:
        if self.power <= 0:
            raise ValueError(f"power must be positive, got {self.power}")

    def quantile(self, u: Tensor) -> Tensor:
        return 1 - (1 - u) ** self.power
