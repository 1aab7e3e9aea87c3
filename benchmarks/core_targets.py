"""Closed-form targets of the core benchmark, and the reference solutions that errors are measured against.

Every schedule becomes the same flow in the straight coordinate w = x / (alpha + sigma), u = sigma / (alpha + sigma), so
one oracle on the rectified path serves all libraries, and a reference depends on where a sampler starts and ends only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fourfold.core import GaussianPath, NoiseSource, Rectified
from fourfold.core.testing import GaussianMixtureOracle, GaussianOracle

__all__ = ["Denoise", "Levels", "Reference", "Target", "targets"]

Levels = tuple[float, float]
"""(alpha, sigma)."""

Denoise = Callable[[Tensor, float, float], Tensor]
"""E[x_0 | x] of a state x at (alpha, sigma), computed in float64."""

_JOINT = 0.02  # references from different ends share the trajectory down to this u
_NEARLY_CLEAN = 1e-6


@dataclass
class Target:
    """A distribution with an exact denoiser.

    Attributes:
        name: short name.
        oracle: exact denoiser on the rectified path.
        size: dimension d.
    """

    name: str
    oracle: GaussianOracle | GaussianMixtureOracle
    size: int

    def denoise(self, x: Tensor, alpha: float, sigma: float) -> Tensor:
        """E[x_0 | x], float64, for a state of any schedule."""
        total = alpha + sigma
        return self.flow_denoise(x.double() / total, sigma / total)

    def flow_denoise(self, w: Tensor, u: float) -> Tensor:
        """E[x_0 | w] at (alpha, sigma) = (1 - u, u)."""
        oracle = self.oracle
        if isinstance(oracle, GaussianOracle):
            return oracle.denoise(w, torch.tensor(u, dtype=torch.float64))
        # the oracle's formula for isotropic modes as matrix products: no (B, K, d) temporaries, several times faster
        alpha, means, variances = 1 - u, oracle.means, oracle.stds[:, 0] ** 2
        noisy = alpha**2 * variances + u**2
        distances = w.square().sum(1, keepdim=True) - (2 * alpha) * w @ means.T + alpha**2 * means.square().sum(1)
        shares = (oracle.weights.log() - self.size / 2 * noisy.log() - distances / (2 * noisy)).softmax(1)
        gains = alpha * variances / noisy
        return shares @ ((1 - alpha * gains)[:, None] * means) + (shares @ gains)[:, None] * w

    def check(self) -> float:
        """Largest difference between :meth:`flow_denoise` and the oracle."""
        noise, worst = self.noise(64), 0.0
        for u in (1.0, 0.9, 0.5, 0.1, 0.01):
            w = u * noise + (1 - u) * self.oracle.sample(64, 1)
            exact = self.oracle.denoise(w, torch.tensor(u, dtype=torch.float64))
            worst = max(worst, float((self.flow_denoise(w, u) - exact).abs().max()))
        return worst

    def noise(self, count: int, seed: int = 0) -> Tensor:
        """The noise all samplers start from, (count, d), float64."""
        return NoiseSource(seed, range(count)).normal(torch.empty(count, self.size, dtype=torch.float64), key=0)


def targets(seed: int = 16) -> list[Target]:
    """One Gaussian with variances 0.01 to 4; 8 unequal modes on a circle; 12 narrow modes in 16 dimensions."""
    path = GaussianPath(Rectified())
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=random, dtype=torch.float64)

    means = torch.linspace(-1.5, 1.5, 16, dtype=torch.float64)[torch.randperm(16, generator=random)]
    variances = torch.logspace(math.log10(0.01), math.log10(4), 16, dtype=torch.float64)
    gauss = GaussianOracle(means, variances, path)

    angles = torch.arange(8, dtype=torch.float64) * (2 * math.pi / 8)
    circle = 1.4 * torch.stack([angles.cos(), angles.sin()], 1)
    weights = 0.4 + uniform(8)
    stds = torch.tensor([0.02, 0.01] * 4, dtype=torch.float64).sqrt()
    ring = GaussianMixtureOracle(weights / weights.sum(), circle, stds, path)

    weights = 0.4 + uniform(12)
    stds = 0.07 + 0.21 * uniform(12)
    mixture = GaussianMixtureOracle(weights / weights.sum(), normal(12, 16), stds, path)
    return [Target("gauss16", gauss, 16), Target("ring2", ring, 2), Target("gmm16", mixture, 16)]


def _rk4(target: Target, w: Tensor, begin: float, end: float, steps: int) -> Tensor:
    """Classical Runge-Kutta for dw/du = (w - D)/u, evenly spaced in the square root of u."""

    def slope(w: Tensor, root: float) -> Tensor:
        return (w - target.flow_denoise(w, root * root)) * (2 / root)

    first, last = math.sqrt(begin), math.sqrt(end)
    h = (last - first) / steps
    for i in range(steps):
        v = first + i * h
        k1 = slope(w, v)
        k2 = slope(w + h / 2 * k1, v + h / 2)
        k3 = slope(w + h / 2 * k2, v + h / 2)
        k4 = slope(w + h * k3, v + h)
        w = w + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return w


@dataclass
class Reference:
    """Exact solutions of the probability-flow ODE of a target from given noise, float64.

    Args:
        target: the distribution.
        noise: (count, d), float64.
        steps: Runge-Kutta steps (four evaluations each).
    """

    target: Target
    noise: Tensor
    steps: int = 400
    _shared: dict[float, Tensor] = field(default_factory=dict)
    _ends: dict[tuple[float, float], Tensor] = field(default_factory=dict)

    def solution(self, start: Levels, end: Levels) -> Tensor:
        """x / alpha at ``end`` of the trajectory through x = sigma * noise at ``start``, (count, d)."""
        u, last = (round(sigma / (alpha + sigma), 12) for alpha, sigma in (start, end))
        if not last < _JOINT < u:
            raise ValueError(f"a sampler goes from u={u} to u={last}; references need an end below {_JOINT}")
        if u not in self._shared:
            self._shared[u] = _rk4(self.target, self.noise * u, u, _JOINT, self.steps)
        if (u, last) not in self._ends:
            stop = max(last, _NEARLY_CLEAN)
            w = _rk4(self.target, self._shared[u], _JOINT, stop, max(2, self.steps // 8))
            self._ends[u, last] = self.target.denoise(w, 1 - stop, stop) if last < stop else w / (1 - last)
        return self._ends[u, last]

    def rmse(self, x: Tensor, start: Levels, end: Levels) -> float:
        """Root mean square error per coordinate of end points x at ``end``."""
        return float((x.double() / end[0] - self.solution(start, end)).square().mean().sqrt())

    def self_error(self) -> float:
        """Change of the reference (RMSE, first start) when its steps are doubled."""
        u, coarse = next(iter(self._shared.items()))
        fine = _rk4(self.target, self.noise * u, u, _JOINT, 2 * self.steps)
        return float((fine - coarse).square().mean().sqrt())
