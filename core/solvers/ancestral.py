"""Ancestral sampling: draw x_s from q(x_s | x_t, x_0) with x_0 replaced by its estimate.

Gaussian: Ho et al. 2020 (DDPM), arXiv 2006.11239, algorithm 2. Categorical: Austin et al. 2021 (D3PM), arXiv
2107.03006.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ..categorical import CategoricalPath, draw_categories
from ..paths import GaussianPath, posterior_coefficients
from .sampler import Draw, Solution, Stepper

__all__ = ["Ancestral"]


@dataclass(frozen=True)
class Ancestral(Stepper):
    """One posterior draw per step, for Gaussian and categorical paths; the last step to t = 0 adds no noise."""

    def solve(self, path: GaussianPath | CategoricalPath, times: Sequence[float], x: Tensor, draw: Draw) -> Solution:
        for i, (t, s) in enumerate(pairwise(times)):
            x = yield from self.step(path, x, t, s, i, draw)
        return x

    def step(
        self, path: GaussianPath | CategoricalPath, x: Tensor, t: float, s: float, index: int, draw: Draw
    ) -> Solution:
        """One step from t to s."""
        clean = yield x, t, index
        moments = torch.tensor([t, s], dtype=torch.float64)
        if isinstance(path, CategoricalPath):
            uniform = draw(index)
            drawn = draw_categories(path.posterior(x, clean, moments[0], moments[1]), uniform)
            return torch.where(uniform > 0, drawn, 0)  # uniform is 0 exactly on padding
        to_clean, to_noisy, std = posterior_coefficients(path.schedule, moments[0], moments[1])
        mean = to_clean.to(x) * clean + to_noisy.to(x) * x
        return mean if not bool((std > 0).any()) else mean + std.to(x) * draw(index)
