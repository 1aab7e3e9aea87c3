r"""Stochastic solvers of the reverse SDE.

.. math:: dx = [f x - \tfrac{1 + \kappa}{2} g^2 \nabla\log p_t]\,dt + \sqrt{\kappa}\, g\, dW

has the right marginals for every :math:`\kappa \ge 0` (1: the reverse SDE, 0: the probability-flow ODE).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ..paths import GaussianPath
from ..schedules import schedule_values
from .sampler import Draw, Solution, Stepper

__all__ = ["EulerMaruyama", "StochasticHeun"]


@dataclass(frozen=True)
class EulerMaruyama(Stepper):
    """Euler-Maruyama in t. Source: Song et al. 2021, arXiv 2011.13456, eq. 6.

    Args:
        kappa: amount of noise, >= 0.
    """

    kappa: float = 1.0

    def solve(self, path: GaussianPath, times: Sequence[float], x: Tensor, draw: Draw) -> Solution:
        for i, (t, s) in enumerate(pairwise(times)):
            x = yield from self.step(path, x, t, s, i, draw)
        return x

    def step(self, path: GaussianPath, x: Tensor, t: float, s: float, index: int, draw: Draw) -> Solution:
        """One step from t to s."""
        clean = yield x, t, index
        moment = torch.tensor(t, dtype=torch.float64)
        schedule = path.schedule
        alpha, sigma = schedule.alpha(moment), schedule.sigma(moment)
        drift, diffusion = schedule.drift(moment), schedule.diffusion(moment)
        pull = (1 + self.kappa) / 2 * diffusion**2 / sigma**2
        mean = (1 + (s - t) * (drift + pull)).to(x) * x - ((s - t) * pull * alpha).to(x) * clean
        if self.kappa == 0:
            return mean
        return mean + (diffusion * math.sqrt(self.kappa * (t - s))).to(x) * draw(index)


@dataclass(frozen=True)
class StochasticHeun(Stepper):
    """Heun's method with churn, in :math:`\\sigma/\\alpha`. Source: Karras et al. 2022, arXiv 2206.00364, algorithm 2.

    Two evaluations per step (one in a last step to clean data).

    Args:
        churn: S_churn, noise added in total over the steps, never beyond the first level; 0 is deterministic.
        noise_min, noise_max: range of sigma/alpha in which noise is added.
        noise_scale: S_noise, standard deviation of the added noise.
    """

    churn: float = 0.0
    noise_min: float = 0.0
    noise_max: float = math.inf
    noise_scale: float = 1.0

    def solve(self, path: GaussianPath, times: Sequence[float], x: Tensor, draw: Draw) -> Solution:
        schedule = path.schedule
        steps = len(times) - 1
        alpha, sigma, _ = schedule_values(schedule, times)
        if alpha.ndim > 1:
            raise ValueError("StochasticHeun needs a scalar schedule; use Multistep with a vector-valued one")
        levels = (sigma / alpha).tolist()
        top = levels[0]
        y = x / float(alpha[0])
        for i in range(steps):
            t, level, following = times[i], levels[i], levels[i + 1]
            if self.churn > 0 and self.noise_min <= level <= self.noise_max:
                raised = min(level * (1 + min(self.churn / steps, math.sqrt(2) - 1)), top)
                if raised > level:
                    y = y + math.sqrt(raised**2 - level**2) * self.noise_scale * draw(i)
                    t, level = float(schedule.time(torch.tensor(-math.log(raised), dtype=torch.float64))), raised
            scale = float(schedule_values(schedule, [t])[0])
            clean = yield y * scale, t, i
            slope = (y - clean) / level
            moved = y + (following - level) * slope
            if following > 0:
                clean = yield moved * float(alpha[i + 1]), times[i + 1], i
                moved = y + (following - level) / 2 * (slope + (moved - clean) / following)
            y = moved
        return y * float(alpha[-1])
