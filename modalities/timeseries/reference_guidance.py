r"""The three ways of the publication to guide an ancestral or implicit sampler, with E the energy of the observations.

    coded:  x' ~ p(x_{i-1} | x_i),   x_{i-1} = x' - s btilde_i grad E(x', i)           (two forwards, one backward)
    paper:  x_{i-1} ~ N(mu(x_i) - s btilde_i grad E(x_i, i), btilde_i)                 (one forward, one backward)
    ddim:   eps <- eps + s sigma_i grad E(x_i, i) in the implicit step                 (one forward, one backward)

btilde_i is the variance of q(x_{i-1} | x_i, x_0), 0 in the last step. The published numbers come from the first, which
takes the gradient at the state that has been denoised already, with the step it came from.

Source: `Kollovieh et al. 2023 <https://arxiv.org/abs/2307.11494>`_, section 3.2 and algorithm 1.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from ...core import (
    DDIM,
    Ancestral,
    BaseDenoiser,
    Condition,
    EnergyGuidance,
    GaussianPath,
    GuidedDenoiser,
    NoiseSource,
    QuadraticGrid,
    Sampler,
    Stepper,
    UniformGrid,
)
from ...core.paths import posterior_coefficients
from ...core.solvers.sampler import Draw, Solution
from .guidance import ObservationEnergy

__all__ = ["CodedSampler", "DDIMSampler", "GuidedSampler", "PaperSampler"]


@dataclass(frozen=True)
class GuidedSampler(ABC):
    """Draws windows under an energy."""

    name: ClassVar[str]

    @abstractmethod
    def draw(
        self,
        denoiser: BaseDenoiser,
        energy: ObservationEnergy,
        scale: float,
        shape: Sequence[int],
        noise: NoiseSource,
        steps: int,
    ) -> Tensor:
        """Windows of the given shape `(B, L, C)`.

        Args:
            denoiser: the unconditional one.
            energy: energy of clean estimates.
            scale: s.
            shape: `(B, L, C)`.
            noise: B ids.
            steps: sampling steps.
        """


@dataclass(frozen=True)
class CodedSampler(GuidedSampler):
    """As the published code does it."""

    name: ClassVar[str] = "coded"

    def draw(
        self,
        denoiser: BaseDenoiser,
        energy: ObservationEnergy,
        scale: float,
        shape: Sequence[int],
        noise: NoiseSource,
        steps: int,
    ) -> Tensor:
        def gradient(x: Tensor, t: Tensor) -> Tensor:
            return _gradient(denoiser, energy, x, t)[1]

        return Sampler(_GradientAfterStep(gradient, scale), UniformGrid(end=0.0), steps)(
            denoiser, shape, generator=noise
        ).x


@dataclass(frozen=True)
class PaperSampler(GuidedSampler):
    """As the paper writes it."""

    name: ClassVar[str] = "paper"

    def draw(
        self,
        denoiser: BaseDenoiser,
        energy: ObservationEnergy,
        scale: float,
        shape: Sequence[int],
        noise: NoiseSource,
        steps: int,
    ) -> Tensor:
        guided = _PosteriorGuidance(denoiser, energy, scale, steps)
        return Sampler(Ancestral(), UniformGrid(end=0.0), steps)(guided, shape, generator=noise).x


@dataclass(frozen=True)
class DDIMSampler(GuidedSampler):
    """The implicit sampler.

    Args:
        eta: noise, 0 for none, 1 for as much as ancestral sampling has.
        quadratic: steps evenly spaced in the square root of time.
    """

    name: ClassVar[str] = "ddim"
    eta: float = 0.0
    quadratic: bool = False

    def draw(
        self,
        denoiser: BaseDenoiser,
        energy: ObservationEnergy,
        scale: float,
        shape: Sequence[int],
        noise: NoiseSource,
        steps: int,
    ) -> Tensor:
        guided = EnergyGuidance(denoiser, energy, scale)
        grid = QuadraticGrid(end=0.0) if self.quadratic else UniformGrid(end=0.0)
        return Sampler(DDIM(self.eta), grid, steps)(guided, shape, generator=noise).x


class _GradientAfterStep(Stepper):
    def __init__(self, gradient: Callable[[Tensor, Tensor], Tensor], scale: float) -> None:
        self.gradient, self.scale = gradient, scale

    def solve(self, path: GaussianPath, times: Sequence[float], x: Tensor, draw: Draw) -> Solution:
        ancestral = Ancestral()
        for index, (t, s) in enumerate(pairwise(times)):
            x = yield from ancestral.step(path, x, t, s, index, draw)
            moments = torch.tensor([t, s], dtype=torch.float64)
            variance = float(posterior_coefficients(path.schedule, moments[0], moments[1])[2].square())
            if variance > 0:
                x = x - self.scale * variance * self.gradient(x, moments[0])
        return x


class _PosteriorGuidance(GuidedDenoiser):
    """Shifts the clean estimate such that the mean of the ancestral step moves by s btilde grad E.

    The weight of the estimate in that mean is alpha_s (1 - rho), btilde is sigma_s^2 (1 - rho): the ratio is all that
    is needed.
    """

    def __init__(self, denoiser: BaseDenoiser, energy: ObservationEnergy, scale: float, steps: int) -> None:
        super().__init__(denoiser)
        self.energy, self.scale, self.steps = energy, scale, steps

    def forward(
        self, x_t: Tensor, t: Tensor, *, mask: Tensor | None = None, condition: Condition | None = None
    ) -> Tensor:
        clean, gradient = _gradient(self.denoiser, self.energy, x_t, t)
        schedule, s = self.path.schedule, (t - 1 / self.steps).clamp(min=0)
        return clean - self.scale * float(schedule.sigma(s) ** 2 / schedule.alpha(s)) * gradient


def _gradient(denoiser: BaseDenoiser, energy: ObservationEnergy, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Clean estimate and gradient of its energy with respect to x."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        clean = denoiser(leaf, t)
        (gradient,) = torch.autograd.grad(energy(clean, t).sum(), leaf)
    return clean.detach(), gradient
