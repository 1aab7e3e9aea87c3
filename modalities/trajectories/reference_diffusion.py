r"""The published diffusion in integer steps, exactly as the authors run it.

beta_k, k = 0 ... T-1, is linear from 0.1/T to 20/T; ab_k = prod (1 - beta). On a residual u (conditional: u = x - x_r;
unconditional: x itself, with the projection P that removes the mean over nodes and frames applied to data, noise and
network output):

    q(u_k | u_0) = N(sqrt(ab_k) u_0, 1 - ab_k)           uhat_0 = u_k/sqrt(ab_k) - sqrt(1/ab_k - 1) eps_hat
    u_{k-1} = posterior mean(uhat_0, u_k) + sqrt(beta_k) z          (no noise at k = 0, no clipping)

The variational bound has a Gaussian decoder at k = 0, with the standard deviation of the first posterior.

Source: Ho et al. 2020, arXiv 2006.11239 (variance "fixed large"); `Han et al. 2024
<https://arxiv.org/abs/2410.13027>`_.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ...core import Discrete

__all__ = ["ReferenceDiffusion", "ReverseStep"]


class ReverseStep(NamedTuple):
    """One reverse step: mean and log-variance of u_{k-1}, and the clean state expected."""

    mean: Tensor
    clean: Tensor
    log_variance: Tensor


class ReferenceDiffusion:
    """Tables of the linear schedule and what is computed from them.

    Args:
        steps: T, at least 20 (below, betas would exceed 1).

    Raises:
        ValueError: for fewer steps.
    """

    def __init__(self, steps: int) -> None:
        if steps < 20:
            raise ValueError(f"the published schedule needs at least 20 steps (beta would exceed 1), got {steps}")
        self.steps = steps
        scale = 1000 / steps
        self.betas = torch.linspace(scale * 1e-4, scale * 0.02, steps, dtype=torch.float64)
        self.bars = torch.cumprod(1 - self.betas, 0)
        before = torch.cat((torch.ones(1, dtype=torch.float64), self.bars[:-1]))
        self.posterior_variance = self.betas * (1 - before) / (1 - self.bars)
        self.on_clean = self.betas * before.sqrt() / (1 - self.bars)
        self.on_noisy = (1 - before) * (1 - self.betas).sqrt() / (1 - self.bars)
        # The first posterior variance is 0; the published code takes the second one's logarithm instead.
        self.log_variance = torch.cat((self.posterior_variance[1:2], self.betas[1:])).log()

    def schedule(self) -> Discrete:
        """The same table for the core's samplers: step k is the time (k + 1)/T."""
        return Discrete(tuple(self.betas.tolist()))

    def perturb(self, u_0: Tensor, k: Tensor, noise: Tensor) -> Tensor:
        """q(u_k | u_0); k of shape (B,)."""
        return _at(self.bars.sqrt(), k, u_0) * u_0 + _at((1 - self.bars).sqrt(), k, u_0) * noise

    def reverse(self, u: Tensor, k: Tensor, noise_estimate: Tensor) -> ReverseStep:
        """p(u_{k-1} | u_k) from the predicted noise."""
        clean = _at(self.bars.rsqrt(), k, u) * u - _at((1 / self.bars - 1).sqrt(), k, u) * noise_estimate
        mean = _at(self.on_clean, k, u) * clean + _at(self.on_noisy, k, u) * u
        return ReverseStep(mean, clean, _at(self.log_variance, k, u).expand_as(u))

    def chain(
        self,
        predict: Callable[[Tensor, Tensor], Tensor],
        u: Tensor,
        noise: Callable[[int], Tensor],
        start: int | None = None,
        project: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Ancestral sampling.

        Args:
            predict: (u, k of shape (B,)) -> predicted noise.
            u: state at the first step.
            noise: standard normal numbers for step k.
            start: first step; default T - 1.
            project: applied to the state before every step.
        """
        for step in range(self.steps - 1 if start is None else start, -1, -1):
            k = torch.full((u.shape[0],), step, device=u.device)
            u = u if project is None else project(u)
            mean, _, log_variance = self.reverse(u, k, predict(u, k))
            u = mean + (0.5 * log_variance).exp() * noise(step) if step else mean
        return u

    def bound(
        self,
        predict: Callable[[Tensor, Tensor], Tensor],
        u_0: Tensor,
        noise: Callable[[int], Tensor],
        project: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Variational bound in nats by entry, summed over steps, of the shape of u_0 (T network evaluations).

        Args:
            predict: as in :meth:`chain`.
            u_0: clean residuals.
            noise: standard normal numbers for step k.
            project: applied to noisy states before the network sees them.
        """
        total = torch.zeros_like(u_0)
        for step in range(self.steps):
            k = torch.full((u_0.shape[0],), step, device=u_0.device)
            u = self.perturb(u_0, k, noise(step))
            u = u if project is None else project(u)
            mean, _, log_variance = self.reverse(u, k, predict(u, k))
            if step == 0:
                total += 0.5 * (math.log(2 * math.pi) + log_variance + (u_0 - mean) ** 2 * (-log_variance).exp())
                continue
            true_mean = _at(self.on_clean, k, u) * u_0 + _at(self.on_noisy, k, u) * u
            true_log = _at(self.posterior_variance.log(), k, u)
            total += _normal_kl(true_mean, true_log, mean, log_variance)
        last = torch.full((u_0.shape[0],), self.steps - 1, device=u_0.device)
        prior_mean = _at(self.bars.sqrt(), last, u_0) * u_0
        return total + _normal_kl(
            prior_mean, _at((1 - self.bars).log(), last, u_0), u_0.new_zeros(()), u_0.new_zeros(())
        )


def _at(table: Tensor, k: Tensor, like: Tensor) -> Tensor:
    return table.to(k.device)[k].to(like.dtype).reshape(-1, *(1,) * (like.ndim - 1))


def _normal_kl(mean: Tensor, log_variance: Tensor, other: Tensor, other_log_variance: Tensor) -> Tensor:
    ratio = (log_variance - other_log_variance).exp()
    return 0.5 * (ratio - 1 + other_log_variance - log_variance + (mean - other) ** 2 * (-other_log_variance).exp())
