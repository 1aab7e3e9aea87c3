r"""Training losses: denoising error, weighted in log-SNR, one value per sample.

For Gaussian paths the loss is :math:`w(\lambda_t) \|x_0 - \hat x_0\|^2`, evaluated in network space as
:math:`w c_{out}^2 \|F - F^*\|^2` so that it stays finite at both ends of the schedule. The same weight gives the
same loss for every parameterization. Useful equivalences (:math:`\lambda = \log \alpha/\sigma`): MSE on eps is
:math:`e^{2\lambda}`, on v :math:`1 + e^{2\lambda}` (VP), on the velocity of a rectified flow :math:`(1 +
e^{\lambda})^2`.
Categorical paths use the cross-entropy of x_0. The mean runs over real entries, never over padding.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .denoisers import CategoricalDenoiser, Condition, Denoiser, JointDenoiser
from .densities import TimeDensity, UniformTime
from .noise import NoiseSource
from .schedules import Schedule, expand
from .supports import Support, total

__all__ = [
    "CategoricalLoss",
    "DataWeight",
    "DenoisingLoss",
    "EDMWeight",
    "JointLoss",
    "LossResult",
    "MinSNRWeight",
    "NetworkWeight",
    "NoiseWeight",
    "SigmoidWeight",
    "VWeight",
    "VelocityWeight",
    "Weight",
]


class Weight(ABC):
    """Weight of :math:`\\|x_0 - \\hat x_0\\|^2` as a function of :math:`\\lambda`."""

    @abstractmethod
    def log(self, logsnr: Tensor) -> Tensor:
        """log w, shape of ``logsnr``."""


@dataclass(frozen=True)
class NetworkWeight(Weight):
    """MSE of the network output itself: :math:`w = c_{out}^{-2}`."""

    def log(self, logsnr: Tensor) -> Tensor:
        raise TypeError("NetworkWeight is relative to a parameterization and has no weight of its own")


@dataclass(frozen=True)
class DataWeight(Weight):
    """MSE of x_0."""

    def log(self, logsnr: Tensor) -> Tensor:
        return torch.zeros_like(logsnr)


@dataclass(frozen=True)
class NoiseWeight(Weight):
    """MSE of eps. Source: Ho et al. 2020, arXiv 2006.11239, eq. 14."""

    def log(self, logsnr: Tensor) -> Tensor:
        return 2 * logsnr


@dataclass(frozen=True)
class VWeight(Weight):
    """MSE of v on variance-preserving paths (SNR + 1). Source: Salimans and Ho 2022, arXiv 2202.00512."""

    def log(self, logsnr: Tensor) -> Tensor:
        return torch.nn.functional.softplus(2 * logsnr)


@dataclass(frozen=True)
class VelocityWeight(Weight):
    """MSE of the velocity of a rectified flow. Source: Lipman et al. 2023, arXiv 2210.02747."""

    def log(self, logsnr: Tensor) -> Tensor:
        return 2 * torch.nn.functional.softplus(logsnr)


@dataclass(frozen=True)
class EDMWeight(Weight):
    """:math:`1/sd^2 + e^{2\\lambda}`. Source: Karras et al. 2022, arXiv 2206.00364, table 1."""

    data_std: float = 0.5

    def log(self, logsnr: Tensor) -> Tensor:
        return torch.log(self.data_std**-2 + torch.exp(2 * logsnr))


@dataclass(frozen=True)
class MinSNRWeight(Weight):
    """:math:`\\min(e^{2\\lambda}, \\gamma)`. Source: Hang et al. 2023, arXiv 2303.09556."""

    gamma: float = 5.0

    def log(self, logsnr: Tensor) -> Tensor:
        return torch.log(torch.exp(2 * logsnr).clamp(max=self.gamma))


@dataclass(frozen=True)
class SigmoidWeight(Weight):
    """:math:`\\mathrm{sigmoid}(b - 2\\lambda)` on the eps-MSE. Source: Hoogeboom et al. 2024, arXiv 2410.19324."""

    bias: float = 0.0

    def log(self, logsnr: Tensor) -> Tensor:
        return 2 * logsnr + torch.nn.functional.logsigmoid(self.bias - 2 * logsnr)


class LossResult(NamedTuple):
    """Losses of a batch: ``value`` (B,), the times ``t`` (B,) and their ``logsnr`` (B,), for logging by noise level."""

    value: Tensor
    t: Tensor
    logsnr: Tensor


def draw_times(density: TimeDensity, schedule: Schedule, noise: NoiseSource, key: int = 1) -> Tensor:
    """One time per sample in [t_min, t_max], float64, shape (B,)."""
    u = noise.uniform(torch.empty(len(noise), dtype=torch.float64), key)
    return schedule.t_min + (schedule.t_max - schedule.t_min) * density.quantile(u)


def _mean_over_real(error: Tensor, support: Support, mask: Tensor | None, weights: Tensor | None) -> Tensor:
    weight = support.real(error, mask).to(error.dtype).expand(error.shape)
    if weights is not None:
        weight = weight * weights
    # where, not a product: garbage (NaN, inf) in padding must not reach the sum
    return total(torch.where(weight > 0, error, 0) * weight) / total(weight).clamp(min=torch.finfo(error.dtype).tiny)


def _gaussian_error(denoiser: Denoiser, output: Tensor, x_0: Tensor, eps: Tensor, t: Tensor, weight: Weight) -> Tensor:
    """Weighted squared error per entry."""
    schedule, parameterization = denoiser.path.schedule, denoiser.parameterization
    t64 = t.double()
    on_data, on_noise = (expand(c, t, x_0).to(x_0.dtype) for c in parameterization.target_weights(schedule, t64))
    error = (output - on_data * x_0 - on_noise * eps) ** 2
    if isinstance(weight, NetworkWeight):
        return error
    c_out = parameterization.scalings(schedule, t64)[1]
    scale = torch.exp(weight.log(schedule.logsnr(t64)) + 2 * c_out.abs().log())
    return expand(scale, t, x_0).to(x_0.dtype) * error


def _cross_entropy(logits: Tensor, x_0: Tensor) -> Tensor:
    """-log softmax of (B, *, K) at class indices (B, *)."""
    return torch.nn.functional.cross_entropy(logits.movedim(-1, 1), x_0, reduction="none")


class DenoisingLoss:
    """Weighted denoising error on a Gaussian path.

    Args:
        denoiser: the denoiser to train.
        weight: weight in log-SNR; default: MSE of the network output.
        density: distribution of t.
    """

    def __init__(self, denoiser: Denoiser, weight: Weight | None = None, density: TimeDensity | None = None) -> None:
        self.denoiser = denoiser
        self.weight = weight or NetworkWeight()
        self.density = density or UniformTime()

    def __call__(
        self,
        x_0: Tensor,
        noise: NoiseSource,
        *,
        mask: Tensor | None = None,
        condition: Condition | None = None,
        weights: Tensor | None = None,
        t: Tensor | None = None,
        eps: Tensor | None = None,
    ) -> LossResult:
        """Loss of a batch.

        Args:
            x_0: clean data, (B, *); projected on the support, so that padding may hold anything.
            noise: source of times and noise, B ids.
            mask: support mask.
            condition: passed to the network.
            weights: non-negative weights of the entries (e.g. an observed mask), broadcastable to x_0.
            t: times (B,) instead of drawn ones.
            eps: noise of the shape of x_0 instead of drawn noise.
        """
        path = self.denoiser.path
        x_0 = path.support.project(x_0, mask)
        if t is None:
            t = draw_times(self.density, path.schedule, noise).to(x_0.device)
        if eps is None:
            eps = path.noise(x_0, noise, mask, key=2)
        x_t = path.perturb(x_0, t, eps)
        output = path.support.project(self.denoiser.output(x_t, t, mask=mask, condition=condition), mask)
        error = _gaussian_error(self.denoiser, output, x_0, eps, t, self.weight)
        return LossResult(_mean_over_real(error, path.support, mask, weights), t, path.schedule.logsnr(t))


class CategoricalLoss:
    """Cross-entropy of the clean class, averaged over real entries.

    Args:
        denoiser: the denoiser to train.
        density: distribution of t.
    """

    def __init__(self, denoiser: CategoricalDenoiser, density: TimeDensity | None = None) -> None:
        self.denoiser = denoiser
        self.density = density or UniformTime()

    def __call__(
        self,
        x_0: Tensor,
        noise: NoiseSource,
        *,
        mask: Tensor | None = None,
        condition: Condition | None = None,
        weights: Tensor | None = None,
        t: Tensor | None = None,
    ) -> LossResult:
        """Loss of class indices x_0 (B, *); arguments as in :class:`DenoisingLoss`."""
        path = self.denoiser.path
        if t is None:
            t = draw_times(self.density, path.schedule, noise).to(x_0.device)
        x_0 = path.clean(x_0, mask)
        x_t = path.perturb(x_0, t, noise, mask, key=2)
        output = self.denoiser.output(x_t, t, mask=mask, condition=condition)
        error = _cross_entropy(path.support.project(output, mask), x_0)
        return LossResult(_mean_over_real(error, path.support, mask, weights), t, path.schedule.logsnr(t))


class JointLoss:
    """Weighted sum of the components' losses at one common time per sample, from one network call.

    Args:
        denoiser: the joint denoiser.
        weight: weight in log-SNR of the Gaussian components.
        density: distribution of t, mapped to the range of the first component.
        scales: factor of each component, default 1.
    """

    def __init__(
        self,
        denoiser: JointDenoiser,
        weight: Weight | None = None,
        density: TimeDensity | None = None,
        scales: Mapping[str, float] | None = None,
    ) -> None:
        self.denoiser = denoiser
        self.weight = weight or NetworkWeight()
        self.density = density or UniformTime()
        self.scales = dict(scales or {})

    def __call__(
        self,
        x_0: dict[str, Tensor],
        noise: NoiseSource,
        *,
        mask: dict[str, Tensor] | None = None,
        condition: Condition | None = None,
        t: Tensor | None = None,
    ) -> tuple[LossResult, dict[str, Tensor]]:
        """(total, component name -> loss (B,)). Arguments as in :class:`DenoisingLoss`, as dicts."""
        path, heads = self.denoiser.path, self.denoiser.heads
        masks = mask or {}
        device = next(iter(x_0.values())).device
        if t is None:
            t = draw_times(self.density, path.schedule, noise).to(device)
        clean: dict[str, Tensor] = {}
        x_t: dict[str, Tensor] = {}
        eps: dict[str, Tensor] = {}
        for index, (name, head) in enumerate(heads.items()):
            source, own = noise.spawn(index), masks.get(name)
            if isinstance(head, CategoricalDenoiser):
                clean[name] = head.path.clean(x_0[name], own)
                x_t[name] = head.path.perturb(clean[name], t, source, own, key=2)
            else:
                clean[name] = head.path.support.project(x_0[name], own)
                eps[name] = head.path.noise(clean[name], source, own, key=2)
                x_t[name] = head.path.perturb(clean[name], t, eps[name])
        output = self.denoiser.output(x_t, t, mask=mask, condition=condition)
        losses = {}
        for name, head in heads.items():
            support = head.path.support
            projected = support.project(output[name], masks.get(name))
            if isinstance(head, Denoiser):
                error = _gaussian_error(head, projected, clean[name], eps[name], t, self.weight)
            else:
                error = _cross_entropy(projected, clean[name])
            losses[name] = _mean_over_real(error, support, masks.get(name), None)
        value = torch.stack([self.scales.get(name, 1.0) * loss for name, loss in losses.items()]).sum(0)
        return LossResult(value, t, path.schedule.logsnr(t)), losses
