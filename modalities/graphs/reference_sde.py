r"""The SDEs of GDSS as published: one for node features, one for adjacencies, T = 1, and their discretisations.

Means, standard deviations, drifts and diffusions are those of the core's VP, VE and sub-VP schedules (times 0 = data, 1
= noise). What differs from the core is the discrete side, for N steps and index :math:`k = \lfloor t (N - 1) \rfloor`:

=====  =====================================================  =========================================================
SDE    discretised forward step x -> factor x + G z            Langevin's alpha
=====  =====================================================  =========================================================
VP     :math:`\sqrt{1-\beta_k}, \sqrt{\beta_k}` (DDPM), betas  :math:`1 - \beta_k`
       evenly spaced from b0/N to b1/N
VE     1, :math:`\sqrt{s_k^2 - s_{k-1}^2}` (SMLD, s_{-1} = 0)  1
subVP  Euler: 1 + f(t)/N, g(t)/sqrt(N)                         :math:`1 - \beta_k`
=====  =====================================================  =========================================================

Networks predict the noise: the score is -n/std(t). Under VE they are taken for the score itself.

Source: Jo et al. 2022, arXiv 2202.02514; Song et al. 2021, arXiv 2011.13456, appendix E.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...core import VE, VP, Schedule, SubVP

__all__ = ["ReferenceSDE", "ReferenceSubVP", "ReferenceVE", "ReferenceVP", "build_sde", "published_times"]


def published_times(steps: int, end: float = 1e-4) -> Tensor:
    """The times of the steps: evenly spaced from 1 to ``end``, both included, float32 as published.

    The steps themselves have length 1/steps: the last one ends where the grid does, without a jump to 0.
    """
    return torch.linspace(1, end, steps, dtype=torch.float32)


@dataclass(frozen=True)
class ReferenceSDE(ABC):
    """One of the published SDEs.

    Args:
        beta_min: first beta (VE: smallest sigma).
        beta_max: last beta (VE: largest sigma).
    """

    kind: ClassVar[str]

    beta_min: float = 0.1
    beta_max: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.beta_min <= self.beta_max:
            raise ValueError(f"{self.kind} needs 0 < beta_min <= beta_max, got {self.beta_min} and {self.beta_max}")

    @property
    @abstractmethod
    def schedule(self) -> Schedule:
        """Its marginals."""

    @abstractmethod
    def discretized(self, t: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """(factor, G) of one of ``steps`` forward steps, float64, shape of t."""

    def score_factor(self, t: Tensor) -> Tensor:
        """What a network's output is multiplied with to become the score, shape and dtype of t."""
        return -1 / self.schedule.sigma(t)

    def langevin_alpha(self, t: Tensor, steps: int) -> Tensor:
        """Factor of Langevin steps, float64, shape of t."""
        return 1 - self._betas(t, steps)

    def transition(self, t: Tensor, dt: float, *, exact: bool = False) -> tuple[Tensor, Tensor]:
        """(factor, std) of the linear part of the reverse SDE from t to t + dt, dt < 0; float64, shape of t.

        Args:
            t: times.
            dt: negative.
            exact: the exact variance, :math:`e^B - 1` for VP with :math:`B = \\int\\beta`; the published one is
                :math:`1 - e^{-B}`.

        Raises:
            ValueError: the SDE has no published transition (sub-VP).
        """
        raise ValueError(f"{self.kind} has no transition kernel: S4 needs VP or VE")

    def _betas(self, t: Tensor, steps: int) -> Tensor:
        betas = torch.linspace(self.beta_min / steps, self.beta_max / steps, steps, dtype=torch.float64)
        return betas[_index(t, steps)]


def _index(t: Tensor, steps: int) -> Tensor:
    # in float32, as published: its rounding decides the index where t (N - 1) is close to an integer
    return (t.float() * (steps - 1)).long()


@dataclass(frozen=True)
class ReferenceVP(ReferenceSDE):
    """Variance preserving."""

    kind = "VP"

    @property
    def schedule(self) -> Schedule:
        return VP(self.beta_min, self.beta_max)

    def discretized(self, t: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        beta = self._betas(t, steps)
        return (1 - beta).sqrt(), beta.sqrt()

    def transition(self, t: Tensor, dt: float, *, exact: bool = False) -> tuple[Tensor, Tensor]:
        t = t.double()
        half = 0.25 * dt * (2 * self.beta_min + (2 * t + dt) * (self.beta_max - self.beta_min))
        variance = torch.expm1(-2 * half) if exact else -torch.expm1(2 * half)
        return torch.exp(-half), variance.sqrt()


@dataclass(frozen=True)
class ReferenceVE(ReferenceSDE):
    """Variance exploding; beta_min and beta_max are sigmas."""

    kind = "VE"

    @property
    def schedule(self) -> Schedule:
        return VE(self.beta_min, self.beta_max)

    def score_factor(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def discretized(self, t: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        ends = math.log(self.beta_min), math.log(self.beta_max)
        sigmas = torch.linspace(*ends, steps, dtype=torch.float64).exp()
        variances = torch.diff(sigmas**2, prepend=torch.zeros(1, dtype=torch.float64))
        g = variances.sqrt()[_index(t, steps)]
        return torch.ones_like(g), g

    def langevin_alpha(self, t: Tensor, steps: int) -> Tensor:
        return torch.ones_like(t, dtype=torch.float64)

    def transition(self, t: Tensor, dt: float, *, exact: bool = False) -> tuple[Tensor, Tensor]:
        t = t.double()
        variance = self.schedule.sigma(t) ** 2 - self.schedule.sigma(t + dt) ** 2
        return torch.ones_like(t), variance.clamp(min=0).sqrt()


@dataclass(frozen=True)
class ReferenceSubVP(ReferenceSDE):
    """Sub-VP."""

    kind = "subVP"

    @property
    def schedule(self) -> Schedule:
        return SubVP(self.beta_min, self.beta_max)

    def discretized(self, t: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        t = t.double()
        return 1 + self.schedule.drift(t) / steps, self.schedule.diffusion(t) / math.sqrt(steps)


_KINDS: dict[str, type[ReferenceSDE]] = {sde.kind: sde for sde in (ReferenceVP, ReferenceVE, ReferenceSubVP)}


def build_sde(described: Mapping[str, Any]) -> ReferenceSDE:
    """An SDE from ``{"type": "VP" | "VE" | "subVP", "beta_min": ..., "beta_max": ...}`` (``num_scales`` is ignored).

    Raises:
        ValueError: unknown type or impossible numbers.
    """
    kind = described.get("type")
    if kind not in _KINDS:
        raise ValueError(f"unknown SDE {kind!r}; known: {', '.join(_KINDS)}")
    return _KINDS[str(kind)](float(described["beta_min"]), float(described["beta_max"]))
