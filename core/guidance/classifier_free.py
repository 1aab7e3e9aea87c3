r"""Classifier-free guidance.

.. math:: D = D_\varnothing + \sum_i s_i (D_{c_i} - D_\varnothing)

with s = 1 plain conditional sampling (the other public convention, :math:`(1 + w) D_c - w D_\varnothing`, is s = 1 +
w).
Source: Ho and Salimans 2022, arXiv 2207.12598; limited interval: Kynkäänniemi et al. 2024, arXiv 2404.07724; rescaling:
Lin et al. 2024, arXiv 2305.08891, section 3.4. All conditions are evaluated in one batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..categorical import CategoricalPath
from ..denoisers import BaseDenoiser, Condition
from ..paths import State
from ..supports import total
from .wrapper import GuidedDenoiser, per_sample, repeated, stack_conditions

__all__ = ["ClassifierFree"]


class ClassifierFree(GuidedDenoiser):
    """Guide towards the condition given to the sampler.

    Args:
        denoiser: trained with the condition dropped now and then.
        scale: s, a number or one per sample (B,); 1 means no guidance.
        unconditional: the condition that stands for "none" (same names as the condition; a batch of 1 is expanded).
        interval: (low, high) in :math:`\\lambda = \\log\\alpha/\\sigma`; outside (of it for any
            entry of a vector-valued schedule) only the conditional pass is made.
        rescale: in [0, 1], how much of the standard deviation of the conditional prediction is restored.
        others: further conditions to be guided to, each with its own scale (multi-condition guidance).
    """

    def __init__(
        self,
        denoiser: BaseDenoiser,
        scale: float | Tensor,
        unconditional: Condition,
        *,
        interval: tuple[float, float] = (-math.inf, math.inf),
        rescale: float = 0.0,
        others: Sequence[tuple[Condition, float | Tensor]] = (),
    ) -> None:
        super().__init__(denoiser)
        if not 0 <= rescale <= 1:
            raise ValueError(f"rescale must be in [0, 1], got {rescale}")
        if not interval[0] < interval[1]:
            raise ValueError(f"interval must be (low, high) in log-SNR, got {interval}")
        self.scale = scale
        self.unconditional = unconditional
        self.interval = interval
        self.rescale = rescale
        self.others = tuple(others)

    def forward(self, x_t: State, t: Tensor, *, mask: State | None = None, condition: Condition | None = None) -> State:
        if condition is None:
            raise ValueError("classifier-free guidance needs the condition to guide towards")
        logsnr = self.path.schedule.logsnr(t.double())
        inside = (logsnr >= self.interval[0]) & (logsnr <= self.interval[1])
        if inside.ndim > t.ndim:  # vector-valued schedule
            inside = inside.flatten(t.ndim).all(-1)
        if not bool(inside.any()):
            return self.denoiser(x_t, t, mask=mask, condition=condition)
        batch = next(iter(x_t.values())).shape[0] if isinstance(x_t, dict) else x_t.shape[0]
        conditions = [self.unconditional, condition, *(c for c, _ in self.others)]
        copies = len(conditions)
        clean = self.denoiser(
            repeated(x_t, copies),
            t if t.ndim == 0 else torch.cat([t] * copies),
            mask=repeated(mask, copies),
            condition=stack_conditions(conditions, batch),
        )
        if isinstance(clean, dict):
            masks = mask if isinstance(mask, dict) else {}
            return {
                name: self._combine(self.path[name], value.chunk(copies), inside, masks.get(name))
                for name, value in clean.items()
            }
        return self._combine(self.path, clean.chunk(copies), inside, mask if isinstance(mask, Tensor) else None)

    def _combine(self, path: Any, parts: Sequence[Tensor], inside: Tensor, mask: Tensor | None) -> Tensor:
        categorical = isinstance(path, CategoricalPath)
        if categorical:  # products of powers stay distributions, differences do not
            parts = [p.clamp(min=torch.finfo(p.dtype).tiny).log() for p in parts]
        free, conditional = parts[0], parts[1]
        guided = free + per_sample(self.scale, free) * (conditional - free)
        for part, (_, scale) in zip(parts[2:], self.others, strict=True):
            guided = guided + per_sample(scale, free) * (part - free)
        if categorical:
            guided, conditional = guided.softmax(-1), conditional.softmax(-1)
        elif self.rescale:
            wanted, actual = (_std(p, path.support.real(p, mask)) for p in (conditional, guided))
            guided = guided * per_sample(1 + self.rescale * (wanted / actual - 1), guided)
        if inside.ndim == 0:
            return guided
        return torch.where(inside.to(free.device).reshape(-1, *(1,) * (free.ndim - 1)), guided, conditional)


def _std(x: Tensor, real: Tensor) -> Tensor:
    """Standard deviation of the real entries of every sample, (B,)."""
    weight = real.to(x.dtype).expand(x.shape)
    count = total(weight).clamp(min=1)
    mean = per_sample(total(x * weight) / count, x)
    return (total((x - mean) ** 2 * weight) / count).sqrt().clamp(min=1e-12)
