r"""Symmetric splitting of the reverse SDE, with exact linear half-steps (S4 of GDSS).

In reverse time :math:`\tau` the SDE :math:`dx = [-f x + g^2 \nabla\log p]\,d\tau + g\,dW` is the sum of a linear
process and a drift along the score. One step from t to s, with m between them, is

1. optionally a Langevin move at t with the score that is needed anyway;
2. the linear process from t to m, exactly: :math:`x \leftarrow \frac{\alpha_m}{\alpha_t} x + \alpha_m
   \sqrt{\sigma_t^2/\alpha_t^2 - \sigma_m^2/\alpha_m^2}\; z`;
3. the drift :math:`x \leftarrow x + (t - s)\, g_m^2 \nabla\log p_t`;
4. the linear process from m to s.

One network evaluation per step. The published solver takes the half-step's variance of the forward process, which is
right for many steps only. Source: Jo et al. 2022 (GDSS), arXiv 2202.02514, section 3.3 and algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ...core import GaussianPath, Stepper
from ...core.schedules import schedule_values
from ...core.solvers import Draw, Solution
from ...core.supports import total

__all__ = ["Splitting"]


@dataclass(frozen=True)
class Splitting(Stepper):
    """See the module. The last step to t = 0 is the data prediction.

    Args:
        snr: signal-to-noise ratio of the Langevin move, per sample; 0 leaves it out.
        scale: factor of the Langevin noise.
    """

    snr: float = 0.0
    scale: float = 0.7

    def solve(self, path: GaussianPath, times: Sequence[float], x: Tensor, draw: Draw) -> Solution:
        schedule = path.schedule
        for i, (t, s) in enumerate(pairwise(times)):
            clean = yield x, t, i
            middle = (t + s) / 2
            alpha, sigma, _ = (v.tolist() for v in schedule_values(schedule, [t, middle, s]))
            if sigma[2] == 0:
                return alpha[2] * clean
            score = (alpha[0] * clean - x) / sigma[0] ** 2
            if self.snr > 0:
                z = draw(3 * i)
                ratio = total(z**2) / total(score**2).clamp(min=torch.finfo(x.dtype).tiny)
                step = (2 * self.snr**2 * ratio).reshape(-1, *(1,) * (x.ndim - 1))
                x = x + step * score + (2 * step).sqrt() * self.scale * z
            x = _linear(x, alpha[:2], sigma[:2], draw(3 * i + 1))
            drift = float(schedule.diffusion(torch.tensor(middle, dtype=torch.float64)) ** 2)
            x = x + (t - s) * drift * score
            x = _linear(x, alpha[1:], sigma[1:], draw(3 * i + 2))
        return x


def _linear(x: Tensor, alpha: Sequence[float], sigma: Sequence[float], z: Tensor) -> Tensor:
    spread = (sigma[0] / alpha[0]) ** 2 - (sigma[1] / alpha[1]) ** 2
    return alpha[1] / alpha[0] * x + alpha[1] * max(spread, 0.0) ** 0.5 * z
