r"""Forward processes: what a noisy state is, given clean data.

A :class:`GaussianPath` is a schedule on a support, :math:`x_t = \alpha_t x_0 + \sigma_t \epsilon`. :class:`Centered`
adds a known centre, :math:`x_t = \alpha_t x_0 + \beta_t y + \sigma_t \epsilon`: with :math:`u = x - \beta y` it is
the plain case again, so that every sampler is written once. A :class:`JointPath` names several components that share
the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from .noise import NoiseSource
from .schedules import Schedule, expand
from .supports import Full, Support

__all__ = ["Centered", "GaussianPath", "JointPath", "Normal", "Path", "State", "each"]

State = Tensor | dict[str, Tensor]
"""A state: one tensor (B, *), or named tensors of a joint path."""

T = TypeVar("T")


class Normal(NamedTuple):
    """A Gaussian with independent entries: ``mean`` of the shape of the state, ``std`` broadcastable to it."""

    mean: Tensor
    std: Tensor


class Path(Protocol):
    """What samplers and losses need of a forward process on one tensor."""

    @property
    def schedule(self) -> Schedule: ...

    @property
    def support(self) -> Support: ...

    def prior(self, like: Tensor, source: NoiseSource, mask: Tensor | None = None, key: int = 0) -> Tensor: ...


@dataclass(frozen=True)
class GaussianPath:
    """:math:`q(x_t | x_0) = N(\\alpha_t x_0, \\sigma_t^2)` on a support.

    Args:
        schedule: alpha and sigma.
        support: the subspace and its noise.
    """

    schedule: Schedule
    support: Support = field(default_factory=Full)

    def offset(self, t: Tensor, x: Tensor) -> Tensor | float:
        """:math:`\\beta_t y`, here 0."""
        return 0.0

    def perturb(self, x_0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """:math:`x_t` from clean data.

        Args:
            x_0: clean data, shape (B, *).
            t: times, shape () or (B,).
            noise: standard Gaussian noise on the support, shape of x_0.
        """
        alpha, sigma = (expand(f(t), t, x_0).to(x_0.dtype) for f in (self.schedule.alpha, self.schedule.sigma))
        return alpha * x_0 + sigma * noise + self.offset(t, x_0)

    def noise(self, like: Tensor, source: NoiseSource, mask: Tensor | None = None, key: int = 0) -> Tensor:
        """Standard Gaussian noise on the support."""
        return self.support.noise(like, mask, source, key)

    def prior(self, like: Tensor, source: NoiseSource, mask: Tensor | None = None, key: int = 0) -> Tensor:
        """A state at t_max: :math:`\\beta y + \\sigma \\epsilon` (the signal left there is neglected)."""
        t = torch.tensor(self.schedule.t_max, dtype=torch.float64)
        noise = self.noise(like, source, mask, key)
        return expand(self.schedule.sigma(t), t, noise).to(noise) * noise + self.offset(t, noise)

    def posterior(self, x_t: Tensor, x_0: Tensor, t: Tensor, s: Tensor) -> Normal:
        """:math:`q(x_s | x_t, x_0)` for s < t.

        With :math:`\\rho = (\\alpha_t\\sigma_s/\\alpha_s\\sigma_t)^2` the mean is
        :math:`\\alpha_s(1-\\rho)x_0 + (\\alpha_t/\\alpha_s)(\\sigma_s/\\sigma_t)^2 x_t` and the variance
        :math:`\\sigma_s^2(1-\\rho)` (Ho et al. 2020, eq. 6-7; Kingma et al. 2021, appendix A.2).
        """
        to_clean, to_noisy, std = (expand(c, t, x_t).to(x_t.dtype) for c in posterior_coefficients(self.schedule, t, s))
        centered = x_t - self.offset(t, x_t)
        return Normal(to_clean * x_0 + to_noisy * centered + self.offset(s, x_t), std)


def posterior_coefficients(schedule: Schedule, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(weight of x_0, weight of x_t, standard deviation) of :math:`q(x_s|x_t,x_0)`."""
    alpha_t, sigma_t, alpha_s, sigma_s = schedule.alpha(t), schedule.sigma(t), schedule.alpha(s), schedule.sigma(s)
    one_minus_rho = -torch.expm1(2 * (schedule.logsnr(t) - schedule.logsnr(s)))
    return (
        alpha_s * one_minus_rho,
        alpha_t / alpha_s * (sigma_s / sigma_t) ** 2,
        sigma_s * one_minus_rho.clamp(min=0).sqrt(),
    )


@dataclass(frozen=True, eq=False)
class Centered(GaussianPath):
    """A Gaussian path about a known centre: :math:`x_t = \\alpha_t x_0 + \\beta_t y + \\sigma_t\\epsilon`.

    Covers OUVE (SGMSE+), mean-reverting SDEs (IR-SDE), residual diffusion (RDDM) and learnt or conditional priors
    (GeoTDM).

    Args:
        path: the path of :math:`u = x - \\beta_t y`. ``Centered(path, y)`` takes over its schedule and support.
        center: y, of the shape of the state (or broadcastable to it).
        weight: :math:`\\beta_t` as a function of t; default :math:`1 - \\alpha_t`, for which the process reverts to y.
    """

    center: Tensor = field(default_factory=lambda: torch.zeros(()))
    weight: Callable[[Tensor], Tensor] | None = None

    def __init__(self, path: GaussianPath, center: Tensor, weight: Callable[[Tensor], Tensor] | None = None) -> None:
        if isinstance(path, Centered):
            raise TypeError("the path is already centered; add the two centers instead of nesting")
        for name, value in (("schedule", path.schedule), ("support", path.support), ("center", center)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "weight", weight)

    def offset(self, t: Tensor, x: Tensor) -> Tensor:
        beta = 1 - self.schedule.alpha(t) if self.weight is None else self.weight(t)
        return expand(beta, t, x).to(x.dtype) * self.center

    def prior(self, like: Tensor, source: NoiseSource, mask: Tensor | None = None, key: int = 0) -> Tensor:
        """A state at t_max with the signal left there taken at the center.

        :math:`(\\alpha + \\beta) y + \\sigma \\epsilon`: for the default weight :math:`y + \\sigma \\epsilon`, as in
        SGMSE+ and IR-SDE.
        """
        x = super().prior(like, source, mask, key)
        t = torch.tensor(self.schedule.t_max, dtype=torch.float64)
        left = expand(self.schedule.alpha(t), t, x).to(x) * self.center
        return x + (left if mask is None else torch.where(self.support.real(x, mask), left, 0))


class JointPath:
    """Named components, each with its own path, at one common time. States and masks are dicts with the same keys.

    Args:
        components: name -> path, e.g. ``{"x": GaussianPath(...), "adj": GaussianPath(..., Symmetric())}``.
    """

    def __init__(self, components: Mapping[str, Path]) -> None:
        if not components:
            raise ValueError("a joint path needs at least one component")
        self.components = dict(components)

    def __getitem__(self, name: str) -> Path:
        return self.components[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.components)

    @property
    def schedule(self) -> Schedule:
        """The schedule of the first component: it sets the range of times and log-SNR grids."""
        return next(iter(self.components.values())).schedule


def each(function: Callable[..., T], *states: State | None) -> T | dict[str, T]:
    """Apply a function of tensors to every component of states (a state that is None is passed as None)."""
    first = states[0]
    if isinstance(first, dict):
        return {k: function(*(s[k] if isinstance(s, dict) else s for s in states)) for k in first}
    return function(*states)
