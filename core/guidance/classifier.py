r"""Classifier guidance: :math:`D + s \frac{\sigma^2}{\alpha} \nabla_{x_t} \log p(c | x_t)`.

Source: Dhariwal and Nichol 2021, arXiv 2105.05233, section 4; Song et al. 2021, arXiv 2011.13456, appendix I.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..denoisers import BaseDenoiser, Condition
from ..paths import GaussianPath
from .wrapper import GuidedDenoiser, per_sample, per_sample_sum, score_to_data

__all__ = ["ClassifierGuidance"]


class ClassifierGuidance(GuidedDenoiser):
    """Guide with a classifier of noisy states.

    Args:
        denoiser: a denoiser on a Gaussian path.
        log_likelihood: (x_t (B, *), t) -> log p(c | x_t), shape (B,), differentiable in x_t.
        scale: s, a number or (B,).

    Raises:
        TypeError: if the path is not Gaussian.
    """

    def __init__(
        self,
        denoiser: BaseDenoiser,
        log_likelihood: Callable[[Tensor, Tensor], Tensor],
        scale: float | Tensor = 1.0,
    ) -> None:
        super().__init__(denoiser)
        if not isinstance(self.path, GaussianPath):
            raise TypeError(f"ClassifierGuidance needs a Gaussian path, got {type(self.path).__name__}")
        self.log_likelihood = log_likelihood
        self.scale = scale

    def forward(
        self, x_t: Tensor, t: Tensor, *, mask: Tensor | None = None, condition: Condition | None = None
    ) -> Tensor:
        clean = self.denoiser(x_t, t, mask=mask, condition=condition)
        with torch.enable_grad():
            leaf = x_t.detach().requires_grad_()
            total = per_sample_sum(self.log_likelihood(leaf, t), len(x_t), "log_likelihood")
            (gradient,) = torch.autograd.grad(total, leaf)
        shift = score_to_data(self.path, t, x_t) * self.path.support.project(gradient, mask)
        return clean + per_sample(self.scale, x_t) * shift
