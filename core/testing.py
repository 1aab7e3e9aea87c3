r"""Exact answers to test against: denoisers, scores, densities and posteriors in closed form.

For data N(m, C) the noisy density is :math:`N(\alpha m, \alpha^2 C + \sigma^2 I)` and
:math:`D(x) = m + \alpha C(\alpha^2 C + \sigma^2 I)^{-1}(x - \alpha m)`; a mixture weighs its components by their
responsibilities.
Oracles can be used wherever a denoiser can. They compute in float64 and return the dtype of x.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .denoisers import BaseDenoiser, Condition
from .noise import Generator, as_noise_source
from .paths import GaussianPath
from .schedules import expand

__all__ = ["GaussianMixtureOracle", "GaussianOracle", "LinearGaussianPosterior"]


class _Oracle(BaseDenoiser):
    path: GaussianPath

    def __init__(self, path: GaussianPath) -> None:
        super().__init__()
        self.path = path
        self._rows = 0

    @property
    def rows(self) -> int:
        return self._rows

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        raise TypeError("an oracle defines denoise")

    def log_prob(self, x: Tensor, t: Tensor) -> Tensor:
        raise TypeError("an oracle defines log_prob")

    def forward(
        self, x_t: Tensor, t: Tensor, *, mask: Tensor | None = None, condition: Condition | None = None
    ) -> Tensor:
        self._rows += x_t.shape[0]
        return self.denoise(x_t, t)

    def _levels(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(u = x - offset, alpha, sigma) in float64."""
        t64, x64 = t.double(), x.double()
        schedule = self.path.schedule
        return (
            x64 - self.path.offset(t64, x64),
            expand(schedule.alpha(t64), t64, x64),
            expand(schedule.sigma(t64), t64, x64),
        )

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        """:math:`\\nabla \\log p_t(x) = (\\alpha D - u)/\\sigma^2`, shape of x (B, d)."""
        u, alpha, sigma = self._levels(x, t)
        return ((alpha * self.denoise(x, t).double() - u) / sigma**2).to(x.dtype)


class GaussianOracle(_Oracle):
    """Gaussian data.

    Args:
        mean: (d,).
        cov: covariance (d, d), or variances (d,).
        path: the forward process.
    """

    def __init__(self, mean: Tensor, cov: Tensor, path: GaussianPath) -> None:
        super().__init__(path)
        self.mean = mean.double()
        self.cov = torch.diag(cov.double()) if cov.ndim == 1 else cov.double()
        self.variances, self.basis = torch.linalg.eigh(self.cov)
        self.variances = self.variances.clamp(min=0)

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        """E[x_0 | x_t = x], shape of x (B, d)."""
        u, alpha, sigma = self._levels(x, t)
        gain = alpha * self.variances / (alpha**2 * self.variances + sigma**2)
        return (self.mean + (gain * ((u - alpha * self.mean) @ self.basis)) @ self.basis.T).to(x.dtype)

    def log_prob(self, x: Tensor, t: Tensor) -> Tensor:
        """log p_t(x), shape (B,)."""
        u, alpha, sigma = self._levels(x, t)
        variance = alpha**2 * self.variances + sigma**2
        z = (u - alpha * self.mean) @ self.basis
        return (-(z**2 / variance + torch.log(2 * math.pi * variance)).sum(-1) / 2).to(x.dtype)

    def flow(self, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """Exact map of the probability-flow ODE from time t to time s, shape of x."""
        u, alpha, sigma = self._levels(x, t)
        _, alpha_s, sigma_s = self._levels(x, s)
        ratio = torch.sqrt((alpha_s**2 * self.variances + sigma_s**2) / (alpha**2 * self.variances + sigma**2))
        moved = alpha_s * self.mean + (ratio * ((u - alpha * self.mean) @ self.basis)) @ self.basis.T
        return (moved + self.path.offset(s.double(), x.double())).to(x.dtype)

    def sample(self, n: int, generator: Generator) -> Tensor:
        """n clean samples, (n, d), float64."""
        z = as_noise_source(generator, n).normal(torch.empty(n, len(self.mean), dtype=torch.float64), key=-1)
        return self.mean + (self.variances.sqrt() * z) @ self.basis.T


class GaussianMixtureOracle(_Oracle):
    """A mixture of Gaussians with diagonal covariances.

    Args:
        weights: (K,), summing to 1.
        means: (K, d).
        stds: (K,) isotropic, or (K, d).
        path: the forward process.
    """

    def __init__(self, weights: Tensor, means: Tensor, stds: Tensor, path: GaussianPath) -> None:
        super().__init__(path)
        self.weights = weights.double()
        self.means = means.double()
        stds = stds.double()
        self.stds = (stds[:, None] if stds.ndim == 1 else stds).expand_as(self.means)

    def _components(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(joint log densities (B, K), deviations (B, K, d), variances (B or 1, K, d), alpha)."""
        u, alpha, sigma = self._levels(x, t)
        alpha, sigma = (v[..., None] if v.ndim else v for v in (alpha, sigma))
        variance = (alpha * self.stds) ** 2 + sigma**2
        deviation = u[:, None, :] - alpha * self.means
        density = -(deviation**2 / variance + torch.log(2 * math.pi * variance)).sum(-1) / 2
        return self.weights.log() + density, deviation, variance, alpha

    def responsibilities(self, x: Tensor, t: Tensor) -> Tensor:
        """p(component | x_t = x), (B, K), float64."""
        return self._components(x, t)[0].softmax(-1)

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        """E[x_0 | x_t = x], shape of x (B, d)."""
        log_joint, deviation, variance, alpha = self._components(x, t)
        clean = self.means + alpha * self.stds**2 / variance * deviation
        return (log_joint.softmax(-1)[..., None] * clean).sum(1).to(x.dtype)

    def log_prob(self, x: Tensor, t: Tensor) -> Tensor:
        """log p_t(x), shape (B,)."""
        return self._components(x, t)[0].logsumexp(-1).to(x.dtype)

    def sample(self, n: int, generator: Generator) -> Tensor:
        """n clean samples, (n, d), float64."""
        source = as_noise_source(generator, n)
        u = source.uniform(torch.empty(n, dtype=torch.float64), key=-2)
        cdf = self.weights.cumsum(0) / self.weights.sum()
        component = torch.searchsorted(cdf, u).clamp(max=len(cdf) - 1)
        z = source.normal(torch.empty(n, self.means.shape[1], dtype=torch.float64), key=-1)
        return self.means[component] + self.stds[component] * z


class LinearGaussianPosterior:
    """Exact posterior of x ~ N(mean, cov) given y = H x + N(0, noise_std^2).

    Args:
        mean: prior mean (d,).
        cov: prior covariance (d, d) or variances (d,).
        operator: H, (m, d).
        noise_std: standard deviation of the measurement noise.
    """

    def __init__(self, mean: Tensor, cov: Tensor, operator: Tensor, noise_std: float) -> None:
        self.prior_mean = mean.double()
        self.prior_cov = torch.diag(cov.double()) if cov.ndim == 1 else cov.double()
        self.operator = operator.double()
        self.noise_std = noise_std
        gram = self.operator @ self.prior_cov @ self.operator.T
        gram = gram + noise_std**2 * torch.eye(len(gram), dtype=torch.float64)
        self.gain = torch.linalg.solve(gram, self.operator @ self.prior_cov).T
        self.cov = self.prior_cov - self.gain @ self.operator @ self.prior_cov

    def mean(self, y: Tensor) -> Tensor:
        """E[x | y], (d,) for y of shape (m,)."""
        return self.prior_mean + self.gain @ (y.double() - self.operator @ self.prior_mean)
