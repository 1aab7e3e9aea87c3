r"""What a network predicts, and how that becomes E[x_0 | x_t].

Every choice is linear, :math:`\hat x_0 = c_{skip} u + c_{out} F` with :math:`u = x_t - \beta_t y`, and has a
regression target in closed form that is finite at both ends of the schedule:

==========  ====================  =======================  ==============================================
kind        c_skip                c_out                    target of F
==========  ====================  =======================  ==============================================
Data        0                     1                        x_0
Noise       1/alpha               -sigma/alpha             eps
Score       1/alpha               sigma^2/alpha            -eps/sigma
V           alpha/(a^2+s^2)       -sigma/(a^2+s^2)         alpha eps - sigma x_0
Velocity    s'/(s'a - s a')       -s/(s'a - s a')          a' x_0 + s' eps
Karras      alpha sd^2 r^2        sigma sd r               r (sigma x_0 - alpha sd^2 eps)/sd
==========  ====================  =======================  ==============================================

with :math:`r = (\alpha^2 sd^2 + \sigma^2)^{-1/2}`, sd the standard deviation of the data. Sources: Salimans and Ho
2022 (v), arXiv 2202.00512; Lipman et al. 2023 (velocity), arXiv 2210.02747; Karras et al. 2022 (preconditioning), arXiv
2206.00364, table 1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from .schedules import Schedule

__all__ = ["Data", "Karras", "Noise", "Parameterization", "Score", "V", "Velocity"]


class Parameterization(ABC):
    """Meaning of a network output F. All values have the shape of t."""

    @abstractmethod
    def scalings(self, schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
        """(c_skip, c_out) of :math:`\\hat x_0 = c_{skip} u + c_{out} F`."""

    @abstractmethod
    def target_weights(self, schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
        """(weight of x_0, weight of eps) of the regression target of F."""


@dataclass(frozen=True)
class Data(Parameterization):
    """F = x_0."""

    def scalings(self, schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
        zero = schedule.alpha(t) * 0
        return zero, zero + 1

    def target_weights(self, schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
        zero = schedule.alpha(t) * 0
        return zero + 1, zero


@dataclass(frozen=True)
class Noise(Parameterization):
    """F = eps."""

    def scalings(self, schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha = schedule.alpha(t)
        return 1 / alpha, -schedule.sigma(t) / alpha

    def target_weights(self, schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
        zero = schedule.alpha(t) * 0
        return zero, zero + 1


@dataclass(frozen=True)
class Score(Parameterization):
    """F = grad log p_t = -eps/sigma."""

    def scalings(self, schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha = schedule.alpha(t)
        return 1 / alpha, schedule.sigma(t) ** 2 / alpha

    def target_weights(self, schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
        sigma = schedule.sigma(t)
        return sigma * 0, -1 / sigma


@dataclass(frozen=True)
class V(Parameterization):
    """F = alpha eps - sigma x_0."""

    def scalings(self, schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        norm = alpha**2 + sigma**2
        return alpha / norm, -sigma / norm

    def target_weights(self, schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
        return -schedule.sigma(t), schedule.alpha(t)


@dataclass(frozen=True)
class Velocity(Parameterization):
    """F = dx_t/dt at fixed (x_0, eps); for ``Rectified`` eps - x_0, so that x_0 = x_t - t F."""

    def scalings(self, schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        d_alpha, d_sigma = schedule.d_alpha(t), schedule.d_sigma(t)
        norm = d_sigma * alpha - sigma * d_alpha
        return d_sigma / norm, -sigma / norm

    def target_weights(self, schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
        return schedule.d_alpha(t), schedule.d_sigma(t)


@dataclass(frozen=True)
class Karras(Parameterization):
    """EDM preconditioning: inputs, outputs and targets of unit variance for data of standard deviation ``data_std``."""

    data_std: float = 0.5

    def scalings(self, schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        variance = (alpha * self.data_std) ** 2 + sigma**2
        return alpha * self.data_std**2 / variance, sigma * self.data_std / variance.sqrt()

    def target_weights(self, schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        deviation = ((alpha * self.data_std) ** 2 + sigma**2).sqrt()
        return sigma / (self.data_std * deviation), -alpha * self.data_std / deviation
