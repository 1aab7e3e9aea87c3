r"""Energy guidance: steer by a differentiable cost of the clean estimate.

.. math:: D' = D - s \frac{\sigma^2}{\alpha} \nabla_{x_t} E(D(x_t, t))

One forward and one backward pass per step: the guided prediction reuses the forward pass of the gradient. With an
asymmetric Laplace or Gaussian likelihood of observations as E this is TSDiff's observation self-guidance at x_t
(Kollovieh et al. 2023, arXiv 2307.11494, section 3.2); with :math:`\|y - A D\|` it is diffusion posterior sampling
(Chung et al. 2023, arXiv 2209.14687). Energies are per sample: the batch is never coupled.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..denoisers import BaseDenoiser, Condition
from ..paths import GaussianPath
from .wrapper import GuidedDenoiser, per_sample, per_sample_sum, score_to_data

__all__ = ["Energy", "EnergyGuidance"]

Energy = Callable[[Tensor, Tensor, Condition | None], Tensor]
"""(clean estimate (B, *), t, condition) -> energies (B,)."""


class EnergyGuidance(GuidedDenoiser):
    """Guide down the gradient of an energy of the clean estimate.

    Works under ``torch.no_grad``, not under ``torch.inference_mode``.

    Args:
        denoiser: a denoiser on a Gaussian path.
        energy: see ``Energy``.
        scale: s, a number or (B,).

    Raises:
        TypeError: if the path is not Gaussian.
    """

    def __init__(self, denoiser: BaseDenoiser, energy: Energy, scale: float | Tensor = 1.0) -> None:
        super().__init__(denoiser)
        if not isinstance(self.path, GaussianPath):
            raise TypeError(f"EnergyGuidance needs a Gaussian path, got {type(self.path).__name__}")
        self.energy = energy
        self.scale = scale

    def forward(
        self, x_t: Tensor, t: Tensor, *, mask: Tensor | None = None, condition: Condition | None = None
    ) -> Tensor:
        with torch.enable_grad():
            leaf = x_t.detach().requires_grad_()
            clean = self.denoiser(leaf, t, mask=mask, condition=condition)
            energies = per_sample_sum(self.energy(clean, t, condition), len(x_t), "energy")
            (gradient,) = torch.autograd.grad(energies, leaf)
        shift = score_to_data(self.path, t, x_t) * self.path.support.project(gradient, mask)
        return clean.detach() - per_sample(self.scale, x_t) * shift
