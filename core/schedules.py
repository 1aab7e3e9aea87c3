r"""Noise schedules: how much signal and how much noise a state holds at time t.

Every continuous corruption of this package is :math:`x_t = \alpha_t x_0 + \beta_t y + \sigma_t \epsilon` with a
known centre y (usually absent). A schedule is the pair :math:`\alpha_t, \sigma_t` on t in [0, 1], t = 0 data, t = 1
noise, with

.. math::
    \lambda_t = \log(\alpha_t / \sigma_t), \quad
    f(t) = \dot\alpha_t / \alpha_t, \quad
    g^2(t) = 2 \sigma_t \dot\sigma_t - 2 f(t) \sigma_t^2,

so that the forward process is dx = f(t) x dt + g(t) dW. :math:`\lambda` is the half log signal-to-noise ratio (2λ is
the log-SNR of "Variational Diffusion Models", Kingma et al. 2021, arXiv 2107.00630).

Times are tensors of any shape; results have that shape, followed by the shape of the schedule where it is vector-valued
(per channel, per frequency). Everything is computed in float64 and returned in the dtype of t.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

__all__ = [
    "EDM",
    "OUVE",
    "VE",
    "VP",
    "Cosine",
    "Discrete",
    "MeanReverting",
    "Rectified",
    "Schedule",
    "SubVP",
    "expand",
]


def expand(value: Tensor, t: Tensor, x: Tensor) -> Tensor:
    """Align a schedule value with a state.

    Args:
        value: result of a schedule, shape ``t.shape + v`` (v is empty for scalar schedules).
        t: the time it was computed at, shape () or (B,).
        x: the state, shape (B, *), whose last dimensions are v for a vector-valued schedule.

    Returns:
        ``value`` with singleton axes inserted between the batch and v, so that it broadcasts against x.
    """
    missing = x.ndim - value.ndim
    if missing <= 0 or t.ndim == 0:
        return value
    return value.reshape(value.shape[: t.ndim] + (1,) * missing + value.shape[t.ndim :])


def _double(t: Tensor) -> Tensor:
    return t.to("cpu", torch.float64) if t.device.type == "mps" else t.double()


class Schedule(ABC):
    """A pair :math:`\\alpha_t, \\sigma_t`. Subclasses give both and their time derivatives in float64.

    Attributes:
        t_min: smallest time at which the log-SNR is finite and worth resolving.
        t_max: largest time at which the log-SNR is finite; sampling starts here.
    """

    t_min: float
    t_max: float

    @abstractmethod
    def _alpha(self, t: Tensor) -> Tensor: ...

    @abstractmethod
    def _sigma(self, t: Tensor) -> Tensor: ...

    @abstractmethod
    def _d_alpha(self, t: Tensor) -> Tensor: ...

    @abstractmethod
    def _d_sigma(self, t: Tensor) -> Tensor: ...

    def _logsnr(self, t: Tensor) -> Tensor:
        return self._alpha(t).log() - self._sigma(t).log()

    def _time(self, logsnr: Tensor) -> Tensor:
        low, high = torch.zeros_like(logsnr), torch.ones_like(logsnr)
        for _ in range(80):
            middle = (low + high) / 2
            noisier = self._logsnr(middle) < logsnr
            low, high = torch.where(noisier, low, middle), torch.where(noisier, middle, high)
        return (low + high) / 2

    def alpha(self, t: Tensor) -> Tensor:
        """Signal level :math:`\\alpha_t` at t, in the dtype of t."""
        return self._alpha(_double(t)).to(t)

    def sigma(self, t: Tensor) -> Tensor:
        """Noise level :math:`\\sigma_t` at t, in the dtype of t."""
        return self._sigma(_double(t)).to(t)

    def d_alpha(self, t: Tensor) -> Tensor:
        """Time derivative of :math:`\\alpha_t`."""
        return self._d_alpha(_double(t)).to(t)

    def d_sigma(self, t: Tensor) -> Tensor:
        """Time derivative of :math:`\\sigma_t`."""
        return self._d_sigma(_double(t)).to(t)

    def logsnr(self, t: Tensor) -> Tensor:
        """:math:`\\lambda_t = \\log(\\alpha_t/\\sigma_t)`, strictly decreasing in t, computed without cancellation."""
        return self._logsnr(_double(t)).to(t)

    def time(self, logsnr: Tensor) -> Tensor:
        """The time at which the schedule has this :math:`\\lambda`: inverse of :meth:`logsnr`."""
        return self._time(_double(logsnr)).to(logsnr)

    def drift(self, t: Tensor) -> Tensor:
        """:math:`f(t) = \\dot\\alpha_t/\\alpha_t` of the forward SDE."""
        t64 = _double(t)
        return (self._d_alpha(t64) / self._alpha(t64)).to(t)

    def diffusion(self, t: Tensor) -> Tensor:
        """:math:`g(t)`, the coefficient (not its square) of dW in the forward SDE."""
        t64 = _double(t)
        sigma = self._sigma(t64)
        squared = 2 * sigma * (self._d_sigma(t64) - self._d_alpha(t64) / self._alpha(t64) * sigma)
        return squared.clamp(min=0).sqrt().to(t)


@dataclass(frozen=True)
class VP(Schedule):
    """Variance preserving, linear beta(t): :math:`\\alpha = e^{-B/2}, \\sigma^2 = 1 - e^{-B}, B = \\int_0^t \\beta`.

    Source: Song et al. 2021, "Score-Based Generative Modeling through SDEs", arXiv 2011.13456, eq. 11 and appendix C.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-3
    t_max: float = 1.0

    def _integral(self, t: Tensor) -> Tensor:
        return t * (self.beta_min + t * (self.beta_max - self.beta_min) / 2)

    def _beta(self, t: Tensor) -> Tensor:
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def _alpha(self, t: Tensor) -> Tensor:
        return torch.exp(-self._integral(t) / 2)

    def _sigma(self, t: Tensor) -> Tensor:
        return torch.sqrt(-torch.expm1(-self._integral(t)))

    def _d_alpha(self, t: Tensor) -> Tensor:
        return -self._beta(t) / 2 * self._alpha(t)

    def _d_sigma(self, t: Tensor) -> Tensor:
        return self._beta(t) / 2 * torch.exp(-self._integral(t)) / self._sigma(t)

    def _logsnr(self, t: Tensor) -> Tensor:
        return -torch.log(torch.expm1(self._integral(t))) / 2

    def _time_of_integral(self, integral: Tensor) -> Tensor:
        root = torch.sqrt(self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * integral)
        return 2 * integral / (self.beta_min + root)

    def _time(self, logsnr: Tensor) -> Tensor:
        return self._time_of_integral(torch.logaddexp(torch.zeros_like(logsnr), -2 * logsnr))


@dataclass(frozen=True)
class SubVP(VP):
    """Sub-VP: :math:`\\alpha = e^{-B/2}, \\sigma = 1 - e^{-B}`.

    Source: Song et al. 2021, arXiv 2011.13456, eq. 12.
    """

    def _sigma(self, t: Tensor) -> Tensor:
        return -torch.expm1(-self._integral(t))

    def _d_sigma(self, t: Tensor) -> Tensor:
        return self._beta(t) * torch.exp(-self._integral(t))

    def _logsnr(self, t: Tensor) -> Tensor:
        return -self._integral(t) / 2 - torch.log(self._sigma(t))

    def _time(self, logsnr: Tensor) -> Tensor:
        ratio = torch.exp(-logsnr)
        alpha = 2 / (ratio + torch.sqrt(ratio**2 + 4))
        return self._time_of_integral(-torch.log1p(-alpha * ratio))


@dataclass(frozen=True)
class Cosine(Schedule):
    """Variance preserving cosine: :math:`\\alpha = \\cos(\\theta)/\\cos(\\theta_0), \\theta =
    \\frac{\\pi}{2}\\frac{t+s}{1+s}`.

    Source: Nichol and Dhariwal 2021, "Improved Denoising Diffusion Probabilistic Models", arXiv 2102.09672, eq. 17.
    """

    s: float = 0.008
    t_min: float = 1e-3
    t_max: float = 0.9946

    @property
    def _rate(self) -> float:
        return math.pi / 2 / (1 + self.s)

    def _angles(self, t: Tensor) -> tuple[Tensor, float]:
        return self._rate * (t + self.s), self._rate * self.s

    def _alpha(self, t: Tensor) -> Tensor:
        angle, first = self._angles(t)
        return torch.cos(angle) / math.cos(first)

    def _sigma(self, t: Tensor) -> Tensor:
        angle, first = self._angles(t)
        # cos^2(first) - cos^2(angle), without the cancellation of 1 - alpha^2 near the data
        return torch.sqrt(torch.sin(self._rate * t) * torch.sin(angle + first)) / math.cos(first)

    def _d_alpha(self, t: Tensor) -> Tensor:
        angle, first = self._angles(t)
        return -self._rate * torch.sin(angle) / math.cos(first)

    def _d_sigma(self, t: Tensor) -> Tensor:
        return -self._alpha(t) * self._d_alpha(t) / self._sigma(t)

    def _time(self, logsnr: Tensor) -> Tensor:
        _, first = self._angles(logsnr)
        alpha, variance = torch.sigmoid(2 * logsnr).sqrt(), torch.sigmoid(-2 * logsnr)
        sine = torch.sqrt(math.sin(first) ** 2 + variance * math.cos(first) ** 2)
        return (torch.atan2(sine, alpha * math.cos(first)) - first) / self._rate


class _VarianceExploding(Schedule):
    """Schedules with :math:`\\alpha = 1`."""

    def _alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def _d_alpha(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)


@dataclass(frozen=True)
class VE(_VarianceExploding):
    """Variance exploding: :math:`\\alpha = 1, \\sigma = \\sigma_{min} (\\sigma_{max}/\\sigma_{min})^t`.

    Source: Song et al. 2021, arXiv 2011.13456, eq. 9. Note that sigma(0) is sigma_min, not 0.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    t_min: float = 0.0
    t_max: float = 1.0

    @property
    def _rate(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    def _sigma(self, t: Tensor) -> Tensor:
        return self.sigma_min * torch.exp(self._rate * t)

    def _d_sigma(self, t: Tensor) -> Tensor:
        return self._rate * self._sigma(t)

    def _logsnr(self, t: Tensor) -> Tensor:
        return -math.log(self.sigma_min) - self._rate * t

    def _time(self, logsnr: Tensor) -> Tensor:
        return (-logsnr - math.log(self.sigma_min)) / self._rate


@dataclass(frozen=True)
class EDM(_VarianceExploding):
    """:math:`\\alpha = 1`, sigma warped by rho so that uniform steps in t are Karras' steps.

    .. math:: \\sigma(t)^{1/\\rho} = \\sigma_{min}^{1/\\rho} + t (\\sigma_{max}^{1/\\rho} - \\sigma_{min}^{1/\\rho})

    Source: Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative Models", arXiv
    2206.00364, eq. 5.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0
    t_min: float = 0.0
    t_max: float = 1.0

    def _ends(self) -> tuple[float, float]:
        return self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)

    def _root(self, t: Tensor) -> Tensor:
        low, high = self._ends()
        return low + t * (high - low)

    def _sigma(self, t: Tensor) -> Tensor:
        return self._root(t) ** self.rho

    def _d_sigma(self, t: Tensor) -> Tensor:
        low, high = self._ends()
        return self.rho * (high - low) * self._root(t) ** (self.rho - 1)

    def _logsnr(self, t: Tensor) -> Tensor:
        return -self.rho * torch.log(self._root(t))

    def _time(self, logsnr: Tensor) -> Tensor:
        low, high = self._ends()
        return (torch.exp(-logsnr / self.rho) - low) / (high - low)


@dataclass(frozen=True)
class Rectified(Schedule):
    """Straight lines between data and noise: :math:`\\alpha = 1 - t, \\sigma = t`.

    Source: Liu et al. 2023, "Flow Straight and Fast", arXiv 2209.03003; Lipman et al. 2023, arXiv 2210.02747 (Cond-OT).
    The log-SNR is infinite at both ends, hence the default t_min and t_max.
    """

    t_min: float = 1e-4
    t_max: float = 1 - 1e-4

    def _alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def _sigma(self, t: Tensor) -> Tensor:
        return t.clone()

    def _d_alpha(self, t: Tensor) -> Tensor:
        return -torch.ones_like(t)

    def _d_sigma(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def _logsnr(self, t: Tensor) -> Tensor:
        return torch.log1p(-t) - torch.log(t)

    def _time(self, logsnr: Tensor) -> Tensor:
        return torch.sigmoid(-logsnr)


@dataclass(frozen=True)
class OUVE(Schedule):
    """Ornstein-Uhlenbeck, variance exploding, about a known centre y (use with ``Centered``).

    .. math:: \\alpha = e^{-\\theta t}, \\quad
        \\sigma^2 = \\sigma_{min}^2 k \\frac{e^{2kt} - e^{-2\\theta t}}{\\theta + k}, \\quad k =
        \\log(\\sigma_{max}/\\sigma_{min})

    Source: Richter et al. 2023, "Speech Enhancement and Dereverberation with Diffusion-Based Generative Models"
    (SGMSE+), arXiv 2208.05830, eq. 12. The signal does not vanish at t = 1 (alpha = 0.22): sample with an SDE solver.
    """

    theta: float = 1.5
    sigma_min: float = 0.05
    sigma_max: float = 0.5
    t_min: float = 0.03
    t_max: float = 1.0

    @property
    def _rate(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    @property
    def _factor(self) -> float:
        return self.sigma_min**2 * self._rate / (self.theta + self._rate)

    def _alpha(self, t: Tensor) -> Tensor:
        return torch.exp(-self.theta * t)

    def _sigma(self, t: Tensor) -> Tensor:
        return self._alpha(t) * torch.sqrt(self._factor * torch.expm1(2 * (self.theta + self._rate) * t))

    def _d_alpha(self, t: Tensor) -> Tensor:
        return -self.theta * self._alpha(t)

    def _d_sigma(self, t: Tensor) -> Tensor:
        growth = self._rate * torch.exp(2 * self._rate * t) + self.theta * torch.exp(-2 * self.theta * t)
        return self._factor * growth / self._sigma(t)

    def _logsnr(self, t: Tensor) -> Tensor:
        return -torch.log(self._factor * torch.expm1(2 * (self.theta + self._rate) * t)) / 2

    def _time(self, logsnr: Tensor) -> Tensor:
        return torch.log1p(torch.exp(-2 * logsnr) / self._factor) / (2 * (self.theta + self._rate))


class _Table(Schedule):
    """:math:`\\log\\alpha` given at the times i/T, i = 0..T (0 at t = 0), linear in between; :math:`\\sigma =
    c\\sqrt{1 - \\alpha^2}`."""

    @property
    def _scale(self) -> float:
        return 1.0

    @cached_property
    def _knots(self) -> Tensor:
        raise TypeError("a table schedule defines _knots")

    @cached_property
    def _device_knots(self) -> dict[torch.device, Tensor]:
        return {}

    def _knots_on(self, device: torch.device) -> Tensor:
        if device not in self._device_knots:
            self._device_knots[device] = self._knots.to(device)
        return self._device_knots[device]

    def _segment(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        knots = self._knots_on(t.device)
        steps = len(knots) - 1
        left = (t * steps).floor().clamp(0, steps - 1)
        index = left.long()
        return knots[index], (knots[index + 1] - knots[index]) * steps, t - left / steps

    def _log_alpha(self, t: Tensor) -> Tensor:
        value, slope, offset = self._segment(t)
        return value + slope * offset

    def _alpha(self, t: Tensor) -> Tensor:
        return torch.exp(self._log_alpha(t))

    def _sigma(self, t: Tensor) -> Tensor:
        return self._scale * torch.sqrt(-torch.expm1(2 * self._log_alpha(t)))

    def _d_alpha(self, t: Tensor) -> Tensor:
        return self._segment(t)[1] * self._alpha(t)

    def _d_sigma(self, t: Tensor) -> Tensor:
        return -(self._scale**2) * self._alpha(t) * self._d_alpha(t) / self._sigma(t)

    def _logsnr(self, t: Tensor) -> Tensor:
        return -torch.log(torch.expm1(-2 * self._log_alpha(t))) / 2 - math.log(self._scale)

    def _time(self, logsnr: Tensor) -> Tensor:
        knots = self._knots_on(logsnr.device)
        steps = len(knots) - 1
        scaled = logsnr + math.log(self._scale)
        log_alpha = -torch.logaddexp(torch.zeros_like(scaled), -2 * scaled) / 2
        right = torch.searchsorted(-knots, -log_alpha.contiguous()).clamp(1, steps)
        left = right - 1
        return (left + (log_alpha - knots[left]) / (knots[right] - knots[left])) / steps


@dataclass(frozen=True)
class Discrete(_Table):
    """A table of betas: variance preserving, exact at t = (i + 1)/T for table index i, with :math:`\\bar\\alpha_i =
    \\prod_{j \\le i}(1-\\beta_j)`.

    Source: Ho et al. 2020, "Denoising Diffusion Probabilistic Models", arXiv 2006.11239, eq. 4.

    Args:
        betas: the T variances, each in (0, 1).
    """

    betas: tuple[float, ...]
    t_max: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(float(b) for b in self.betas))
        if not self.betas or not all(0 < b < 1 for b in self.betas):
            raise ValueError(f"betas must be non-empty and inside (0, 1), got {self.betas[:5]}")

    @property
    def t_min(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        return 1 / len(self.betas)

    @cached_property
    def _knots(self) -> Tensor:
        log_alphas = torch.log1p(-torch.tensor(self.betas, dtype=torch.float64)).cumsum(0) / 2
        return torch.cat([torch.zeros(1, dtype=torch.float64), log_alphas])

    @classmethod
    def linear(cls, steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Discrete:
        """Betas evenly spaced from beta_start to beta_end (Ho et al. 2020)."""
        return cls(tuple(torch.linspace(beta_start, beta_end, steps, dtype=torch.float64).tolist()))

    @classmethod
    def cosine(cls, steps: int = 1000, s: float = 0.008, max_beta: float = 0.999) -> Discrete:
        """Betas of the cosine schedule, clipped at max_beta (Nichol and Dhariwal 2021)."""
        t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        bar = torch.cos((t + s) / (1 + s) * math.pi / 2) ** 2
        return cls(tuple((1 - bar[1:] / bar[:-1]).clamp(1e-12, max_beta).tolist()))


@dataclass(frozen=True)
class MeanReverting(_Table):
    """Mean-reverting SDE with stationary variance :math:`\\lambda^2` about a known centre (use with ``Centered``).

    .. math:: dx = \\theta_t (y - x) dt + g_t dW, \\; g_t^2 = 2\\lambda^2\\theta_t
        \\;\\Rightarrow\\; \\alpha = e^{-\\int\\theta}, \\; \\sigma = \\lambda\\sqrt{1 - \\alpha^2}

    Source: Luo et al. 2023, "Image Restoration with Mean-Reverting SDEs" (IR-SDE), arXiv 2301.11699, eq. 6. The theta
    table is the authors' cosine rule; its unit of time is set by :math:`\\alpha_1 = \\delta`.

    Args:
        stationary_std: :math:`\\lambda`, in units of the data.
        delta: signal left at t = 1.
        steps: table length T.
    """

    stationary_std: float = 10 / 255
    delta: float = 0.01
    steps: int = 100
    s: float = 0.008
    t_max: float = 1.0

    @property
    def t_min(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        return 1 / self.steps

    @property
    def _scale(self) -> float:
        return self.stationary_std

    @cached_property
    def _knots(self) -> Tensor:
        length = self.steps + 2
        t = torch.arange(length + 1, dtype=torch.float64) / length
        bar = torch.cos((t + self.s) / (1 + self.s) * math.pi / 2) ** 2
        theta = 1 - (bar / bar[0])[1:-1]
        integral = theta.cumsum(0) - theta[0]
        return math.log(self.delta) * integral / integral[-1]


def schedule_values(schedule: Schedule, times: Sequence[float]) -> tuple[Tensor, Tensor, Tensor]:
    """(alpha, sigma, logsnr) in float64 at a list of times, each of shape (len(times), *v)."""
    t = torch.tensor(list(times), dtype=torch.float64)
    return schedule.alpha(t), schedule.sigma(t), schedule.logsnr(t)
