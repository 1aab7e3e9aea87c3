r"""Categorical diffusion: classes are kept with probability :math:`a_t` and otherwise redrawn from a limit
distribution.

.. math:: q(x_t | x_0) = a_t \, \mathrm{onehot}(x_0) + (1 - a_t) \pi

Uniform, marginal and absorbing ("mask") diffusion are choices of :math:`\pi`. With :math:`a_{ts} = a_t/a_s` and
:math:`w_k = p_0(k) / q(x_t | x_0 = k)` the reverse step for any s < t costs O(K) and needs no transition matrices:

.. math::
    q(x_s = k | x_t) \propto [a_{ts} 1(x_t = k) + (1 - a_{ts}) \pi(x_t)] \,
    [a_s w_k + (1 - a_s) \pi_k \textstyle\sum_j w_j]

Source: Austin et al. 2021, "Structured Denoising Diffusion Models in Discrete State-Spaces" (D3PM), arXiv
2107.03006, eq. 3; marginal limits: Vignac et al. 2023 (DiGress), arXiv 2209.14734.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .noise import NoiseSource
from .schedules import Schedule, expand
from .supports import Full, Symmetric

__all__ = ["CategoricalPath", "draw_categories"]


def draw_categories(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Inverse-CDF draw.

    Args:
        probabilities: (B, *, K), rows sum to 1.
        uniform: (B, *), in (0, 1).

    Returns:
        class indices (B, *), int64.
    """
    cdf = probabilities.double().cumsum(-1)
    index = (cdf / cdf[..., -1:] <= uniform.double()[..., None]).sum(-1)
    return index.clamp(max=probabilities.shape[-1] - 1)


class CategoricalPath:
    """Diffusion of class indices. States are int64 tensors (B, *); denoisers return probabilities (B, *, K).

    Args:
        schedule: its alpha sets the survival probability :math:`a_t = \\alpha_t^{power}`.
        limit: :math:`\\pi`, shape (K,), non-negative, summing to 1.
        support: Full, or Symmetric for edges (one draw per pair, both triangles equal).
        power: 2 for tables of betas and the cosine rule (:math:`a = \\bar\\alpha`); 1 with ``Rectified`` for a
            linear decay.

    Raises:
        ValueError: if ``limit`` is not a distribution.
    """

    def __init__(
        self, schedule: Schedule, limit: Tensor, support: Full | Symmetric | None = None, power: float = 2.0
    ) -> None:
        if limit.ndim != 1 or bool((limit < 0).any()) or abs(float(limit.sum()) - 1) > 1e-4:
            raise ValueError(f"limit must be a distribution over K classes, shape (K,) with sum 1, got {limit}")
        self.schedule = schedule
        self.limit = limit.double() / limit.double().sum()
        self.support = support or Full()
        self.power = power

    @classmethod
    def uniform(cls, schedule: Schedule, classes: int, **options: object) -> CategoricalPath:
        """Limit 1/K."""
        return cls(schedule, torch.full((classes,), 1 / classes, dtype=torch.float64), **options)  # pyright: ignore[reportArgumentType]

    @classmethod
    def absorbing(cls, schedule: Schedule, classes: int, **options: object) -> CategoricalPath:
        """All mass ends in the last of ``classes`` classes (the mask)."""
        limit = torch.zeros(classes, dtype=torch.float64)
        limit[-1] = 1
        return cls(schedule, limit, **options)  # pyright: ignore[reportArgumentType]

    @property
    def classes(self) -> int:
        return len(self.limit)

    def survival(self, t: Tensor) -> Tensor:
        """:math:`a_t`, shape of t."""
        return self.schedule.alpha(t) ** self.power

    def marginal(self, x_0: Tensor, t: Tensor) -> Tensor:
        """:math:`q(x_t | x_0)`, shape (B, *, K), float64."""
        survival = expand(self.survival(t.double()), t, x_0[..., None])
        onehot = torch.nn.functional.one_hot(x_0, self.classes).double()
        return survival * onehot + (1 - survival) * self.limit.to(x_0.device)

    def _draw(self, probabilities: Tensor, source: NoiseSource, mask: Tensor | None, key: int) -> Tensor:
        like = probabilities[..., 0]
        drawn = draw_categories(probabilities, self.support.uniform(like, mask, source, key))
        return torch.where(self.support.real(like, mask), drawn, 0)

    def clean(self, x_0: Tensor, mask: Tensor | None = None) -> Tensor:
        """Class indices with class 0 on padding, where they may hold anything."""
        return torch.where(self.support.real(x_0, mask), x_0, 0)

    def perturb(self, x_0: Tensor, t: Tensor, source: NoiseSource, mask: Tensor | None = None, key: int = 0) -> Tensor:
        """A draw of :math:`x_t`; padding (and the diagonal of hollow matrices) is class 0."""
        return self._draw(self.marginal(x_0, t), source, mask, key)

    def prior(self, like: Tensor, source: NoiseSource, mask: Tensor | None = None, key: int = 0) -> Tensor:
        """A draw of the limit distribution, shape of ``like``."""
        return self._draw(self.limit.to(like.device).expand(*like.shape, self.classes), source, mask, key)

    def posterior(self, x_t: Tensor, p_0: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """:math:`\\sum_k q(x_s | x_t, x_0 = k) p_0(k)` for s < t, shape (B, *, K), in float64.

        Args:
            x_t: class indices (B, *).
            p_0: probabilities of the clean class given x_t, (B, *, K).
        """
        p_0 = p_0.double()
        limit = self.limit.to(p_0.device)
        a_t, a_s = (expand(self.survival(time.double()), time, p_0) for time in (t, s))
        a_ts = a_t / a_s
        here = torch.nn.functional.one_hot(x_t, self.classes).double()
        limit_here = limit[x_t][..., None]
        likelihood = a_t * here + (1 - a_t) * limit_here  # q(x_t | x_0 = k), over k
        weight = torch.where(likelihood > 0, p_0 / likelihood.clamp(min=torch.finfo(torch.float64).tiny), 0)
        joint = (a_ts * here + (1 - a_ts) * limit_here) * (
            a_s * weight + (1 - a_s) * limit * weight.sum(-1, keepdim=True)
        )
        return joint / joint.sum(-1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)

    def sample_posterior(
        self,
        x_t: Tensor,
        p_0: Tensor,
        t: Tensor,
        s: Tensor,
        source: NoiseSource,
        mask: Tensor | None = None,
        key: int = 0,
    ) -> Tensor:
        """A draw of :math:`x_s`."""
        return self._draw(self.posterior(x_t, p_0, t, s), source, mask, key)
