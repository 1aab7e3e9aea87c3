r"""Langevin correctors and predictor-corrector sampling.

A corrector moves a state inside the marginal :math:`p_t`: :math:`x \leftarrow x + a \nabla\log p_t(x) + \sqrt{2a}\,z`.
Source: Song et al. 2021, arXiv 2011.13456, algorithms 2-5. Step sizes are computed for every sample by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from ..paths import GaussianPath
from ..supports import total
from .ancestral import Ancestral
from .sampler import Draw, Solution, Stepper

__all__ = ["AnnealedLangevin", "Corrector", "Langevin", "OneStep", "PredictorCorrector"]

_CORRECTOR_DRAWS = 1 << 20  # draw numbers of correctors start here: predictors use the step index


class OneStep(Protocol):
    """A stepper that can make a single step."""

    def step(self, path: GaussianPath, x: Tensor, t: float, s: float, index: int, draw: Draw) -> Solution: ...


class Corrector(Protocol):
    """Moves a state at fixed time."""

    def correct(self, path: GaussianPath, x: Tensor, t: float, index: int, draw: Draw) -> Solution: ...


def _score(path: GaussianPath, x: Tensor, clean: Tensor, t: float) -> Tensor:
    moment = torch.tensor(t, dtype=torch.float64)
    alpha, sigma = path.schedule.alpha(moment), path.schedule.sigma(moment)
    return (alpha / sigma**2).to(x) * clean - (1 / sigma**2).to(x) * x


@dataclass(frozen=True)
class Langevin:
    """Step size from a signal-to-noise ratio: :math:`a = 2 (snr \\|z\\|/\\|score\\|)^2`, per sample.

    The factor :math:`1 - \\beta_i` of the published rule for VP tables depends on the table's length and is left out.

    Args:
        snr: target ratio of the norms of score and noise steps.
        steps: corrector steps per predictor step.
        scale: factor of the noise.
    """

    snr: float = 0.16
    steps: int = 1
    scale: float = 1.0

    def correct(self, path: GaussianPath, x: Tensor, t: float, index: int, draw: Draw) -> Solution:
        for k in range(self.steps):
            clean = yield x, t, index
            score = _score(path, x, clean, t)
            z = draw(_CORRECTOR_DRAWS + index * self.steps + k)
            ratio = total(z**2) / total(score**2).clamp(min=torch.finfo(x.dtype).tiny)
            step = (2 * self.snr**2 * ratio).reshape(-1, *(1,) * (x.ndim - 1))
            x = x + step * score + (2 * step).sqrt() * self.scale * z
        return x


@dataclass(frozen=True)
class AnnealedLangevin:
    """Step size from the noise level: :math:`a = (snr\\, \\sigma_t)^2` (Song and Ermon 2019; SGMSE+).

    Args:
        snr: relative step.
        steps: corrector steps per predictor step.
    """

    snr: float = 0.16
    steps: int = 1

    def correct(self, path: GaussianPath, x: Tensor, t: float, index: int, draw: Draw) -> Solution:
        step = (self.snr * path.schedule.sigma(torch.tensor(t, dtype=torch.float64))) ** 2
        for k in range(self.steps):
            clean = yield x, t, index
            z = draw(_CORRECTOR_DRAWS + index * self.steps + k)
            x = x + step.to(x) * _score(path, x, clean, t) + (2 * step).sqrt().to(x) * z
        return x


@dataclass(frozen=True)
class PredictorCorrector(Stepper):
    """A corrector at every time, then a predictor step; (1 + corrector steps) evaluations per step.

    Args:
        predictor: ``Ancestral`` or ``EulerMaruyama``.
        corrector: ``Langevin`` or ``AnnealedLangevin``.
    """

    predictor: OneStep = field(default_factory=Ancestral)
    corrector: Corrector = field(default_factory=Langevin)

    def solve(self, path: GaussianPath, times: Sequence[float], x: Tensor, draw: Draw) -> Solution:
        for i, (t, s) in enumerate(pairwise(times)):
            x = yield from self.corrector.correct(path, x, t, i, draw)
            x = yield from self.predictor.step(path, x, t, s, i, draw)
        return x
