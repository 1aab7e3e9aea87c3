r"""Guidance with the covariance of the model itself: exact for Gaussian data.

Given x_t, the window has mean D(x_t) and, for the true denoiser, covariance V = sigma^2 / alpha dD/dx_t. If it were
Gaussian, the observations y = H x + N(0, s^2) would move its mean to

    D' = D + V H^T (H V H^T + s^2)^-1 (y - H D),

where V H^T v is one backward pass. The linear system is solved by a few steps of conjugate gradients.

Source: `Rozet et al. 2024 <https://arxiv.org/abs/2405.13712>`_, section 3.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...core import BaseDenoiser, Condition, GuidedDenoiser
from .guidance import SelfGuidance

__all__ = ["MomentMatchingGuidance"]


@dataclass(frozen=True)
class MomentMatchingGuidance(SelfGuidance):
    """Follows the observations to within `noise`, and fills the rest as the covariance of the model says.

    All samples follow the observations themselves; what is not observed spreads as it should. Best for imputation.

    Args:
        scale: 1, or 0 to leave the model unconditional.
        noise: standard deviation s of the observations, in scaled units.
        iterations: steps of conjugate gradients, a backward pass each (and one more). A trained network's Jacobian is
            symmetric and positive only by and large: more than two steps tend to follow its errors.
    """

    name: ClassVar[str] = "moment-matching"
    scale: float = 1.0
    noise: float = 0.05
    iterations: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.noise <= 0 or self.iterations < 1:
            raise ValueError(f"noise and iterations must be positive, got {self.noise} and {self.iterations}")

    def penalty(self, error: Tensor, level: Tensor) -> Tensor:
        return 0.5 * error.square() / self.noise**2

    def guide(self, denoiser: BaseDenoiser, target: Tensor, observed: Tensor, level: Tensor) -> BaseDenoiser:
        if self.scale == 0:
            return denoiser
        return _MomentMatching(denoiser, torch.where(observed, target, torch.zeros_like(target)), observed, self)


class _MomentMatching(GuidedDenoiser):
    def __init__(
        self, denoiser: BaseDenoiser, target: Tensor, observed: Tensor, guidance: MomentMatchingGuidance
    ) -> None:
        super().__init__(denoiser)
        self.target, self.observed, self.guidance = target, observed, guidance

    def forward(
        self, x_t: Tensor, t: Tensor, *, mask: Tensor | None = None, condition: Condition | None = None
    ) -> Tensor:
        schedule = self.path.schedule
        ratio = float(schedule.sigma(t) ** 2 / schedule.alpha(t))
        with torch.enable_grad():
            leaf = x_t.detach().requires_grad_()
            clean = self.denoiser(leaf, t, mask=mask, condition=condition)

            def covariance(v: Tensor) -> Tensor:
                return ratio * torch.autograd.grad(clean, leaf, v, retain_graph=True)[0]

            estimate = clean.detach()
            residual = torch.where(self.observed, self.target - estimate, torch.zeros_like(estimate))
            solution = self._solve(residual, covariance)
            return estimate + self.guidance.scale * covariance(solution)

    def _solve(self, residual: Tensor, covariance: Callable[[Tensor], Tensor]) -> Tensor:
        """Conjugate gradients for (H V H^T + s^2) v = residual, each sample by itself."""
        solution, direction = torch.zeros_like(residual), residual
        size = _dot(residual, residual)
        tiny = torch.finfo(residual.dtype).tiny
        for _ in range(self.guidance.iterations):
            seen = torch.where(self.observed, covariance(direction), torch.zeros_like(direction))
            image = seen + self.guidance.noise**2 * direction
            curvature = _dot(direction, image)
            # A network's Jacobian need not be positive: such a sample keeps what it has.
            step = torch.where(curvature > tiny, size / curvature.clamp(min=tiny), torch.zeros_like(size))
            solution, residual = solution + step * direction, residual - step * image
            new = _dot(residual, residual)
            direction = residual + torch.where(step > 0, new / size.clamp(min=tiny), torch.zeros_like(new)) * direction
            size = new
        return solution


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1).reshape(-1, *(1,) * (a.ndim - 1))
