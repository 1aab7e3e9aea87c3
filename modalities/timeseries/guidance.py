r"""Self-guidance: conditioning an unconditional model on what has been observed, at sampling time.

The clean estimate f(x_t) of the model is compared with the observed entries y through an energy E, the negative
logarithm of a likelihood, and the denoiser is steered down its gradient with respect to x_t:

    squared error:  E = sum_m (y - f)^2                            (Gaussian noise)
    quantile:       E = sum_m max(q (y - f), (q - 1) (y - f))      (asymmetric Laplace noise)

summed over the observed entries m. With quantile guidance every sample follows its own level q; S samples of a series
take the levels (i + 1)/(S + 1), i = 0 ... S-1, in random order, so that any part of the samples is unbiased as well.
Source: `Kollovieh et al. 2023 <https://arxiv.org/abs/2307.11494>`_, section 3.2 (there with fixed order).

The gradient of a squared error is the posterior covariance of the window times the residual: the right direction, but
its length grows with the correlation of the data, so that no fixed scale is both stable and strong.
:class:`LineSearchGuidance` chooses the step in closed form: along g = grad E the residual r = f - y on the observed
entries is smallest at <r, g> / <g, g>.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...core import BaseDenoiser, Condition, EnergyGuidance, GaussianPath, NoiseSource
from ...core.guidance.wrapper import GuidedDenoiser

__all__ = [
    "LineSearchDenoiser",
    "LineSearchGuidance",
    "ObservationEnergy",
    "QuantileGuidance",
    "SelfGuidance",
    "SquaredErrorGuidance",
    "quantile_levels",
]


@dataclass(frozen=True)
class SelfGuidance(ABC):
    """How strongly, and with which energy, samples are drawn towards the observations.

    Args:
        scale: strength of the guidance; 0 leaves the model unconditional (apart from the scaling of the window).
    """

    name: ClassVar[str]
    scale: float = 4.0

    def __post_init__(self) -> None:
        if not self.scale >= 0:
            raise ValueError(f"the scale of self-guidance must not be negative, got {self.scale}")

    @abstractmethod
    def penalty(self, error: Tensor, level: Tensor) -> Tensor:
        """Energy of each entry.

        Args:
            error: observation minus estimate, shape `(B, L, C)`.
            level: quantile level of each sample in (0, 1), shape `(B, 1, 1)`.
        """

    def guide(self, denoiser: BaseDenoiser, target: Tensor, observed: Tensor, level: Tensor) -> BaseDenoiser:
        """The guided denoiser.

        Args:
            denoiser: the unconditional one, on a Gaussian path.
            target: observations in scaled units, shape `(B, L, C)`; entries that are not observed may hold anything.
            observed: which entries count, boolean, shape `(B, L, C)`.
            level: quantile level of each sample, shape `(B,)`.
        """
        if self.scale == 0:
            return denoiser
        return EnergyGuidance(denoiser, ObservationEnergy(self, target, observed, level), self.scale)


@dataclass(frozen=True)
class QuantileGuidance(SelfGuidance):
    """Pinball loss at the level of each sample."""

    name: ClassVar[str] = "quantile"

    def penalty(self, error: Tensor, level: Tensor) -> Tensor:
        return torch.maximum(level * error, (level - 1) * error)


@dataclass(frozen=True)
class SquaredErrorGuidance(SelfGuidance):
    """Squared error; all samples follow the observations themselves. Needs much smaller scales than the quantile
    energy."""

    name: ClassVar[str] = "squared"
    scale: float = 0.1

    def penalty(self, error: Tensor, level: Tensor) -> Tensor:
        return error.square()


@dataclass(frozen=True)
class LineSearchGuidance(SelfGuidance):
    """Squared error with the step that an exact line search gives; needs no tuning to the data.

    Args:
        scale: factor on the exact step; values between 1 and 2 over-relax.
    """

    name: ClassVar[str] = "line-search"
    scale: float = 1.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale >= 2:
            raise ValueError(f"a line search overshoots for ever from a factor of 2 on, got {self.scale}")

    def penalty(self, error: Tensor, level: Tensor) -> Tensor:
        return 0.5 * error.square()

    def guide(self, denoiser: BaseDenoiser, target: Tensor, observed: Tensor, level: Tensor) -> BaseDenoiser:
        if self.scale == 0:
            return denoiser
        return LineSearchDenoiser(denoiser, ObservationEnergy(self, target, observed, level), self.scale)


class LineSearchDenoiser(GuidedDenoiser):
    """Moves the clean estimate along the gradient of the energy by the step that fits the observations best.

    Args:
        denoiser: a denoiser on a Gaussian path.
        energy: a squared error.
        factor: factor on the exact step.
    """

    def __init__(self, denoiser: BaseDenoiser, energy: "ObservationEnergy", factor: float) -> None:
        super().__init__(denoiser)
        self.energy, self.factor = energy, factor

    def forward(
        self, x_t: Tensor, t: Tensor, *, mask: Tensor | None = None, condition: Condition | None = None
    ) -> Tensor:
        assert isinstance(self.path, GaussianPath)
        with torch.enable_grad():
            leaf = x_t.detach().requires_grad_()
            clean = self.denoiser(leaf, t, mask=mask, condition=condition)
            (gradient,) = torch.autograd.grad(self.energy(clean, t, condition).sum(), leaf)
        clean = clean.detach()
        seen = torch.where(self.energy.observed, gradient, torch.zeros_like(gradient)).flatten(1)
        residual = torch.where(self.energy.observed, clean - self.energy.target, torch.zeros_like(clean)).flatten(1)
        length = seen.square().sum(dim=1).clamp(min=torch.finfo(clean.dtype).tiny)
        step = ((residual * seen).sum(dim=1) / length).clamp(min=0)
        return clean - self.factor * step.reshape(-1, 1, 1) * gradient


class ObservationEnergy:
    """Energy of clean estimates given observed entries, as :class:`fourfold.core.EnergyGuidance` takes it.

    Args:
        guidance: the penalty.
        target: observations in scaled units, shape `(B, L, C)`; entries that are not observed may hold anything.
        observed: which entries count, boolean, shape `(B, L, C)`.
        level: quantile level of each sample, shape `(B,)`.
    """

    def __init__(self, guidance: SelfGuidance, target: Tensor, observed: Tensor, level: Tensor) -> None:
        self.guidance = guidance
        self.target = torch.where(observed, target, torch.zeros_like(target))
        self.observed = observed
        self.level = level.reshape(-1, 1, 1)

    def __call__(self, x_0: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        """Energies of the estimates `x_0`, shape `(B, L, C)`: `(B,)`."""
        penalty = self.guidance.penalty(self.target - x_0, self.level.to(x_0))
        return torch.where(self.observed, penalty, torch.zeros_like(penalty)).flatten(1).sum(dim=1)


def quantile_levels(noise: NoiseSource, num_samples: int, key: int) -> Tensor:
    """Levels (i + 1)/(S + 1) of the samples of each series, in an order of its own.

    Args:
        noise: one id per series, N in all.
        num_samples: S.
        key: number of the draw.

    Returns:
        Shape `(N, S)`, every row a permutation of the same levels.
    """
    rank = noise.uniform((len(noise), num_samples), key).argsort(dim=1).argsort(dim=1)
    return (rank + 1) / (num_samples + 1)
