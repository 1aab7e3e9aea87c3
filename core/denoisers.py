r"""Denoisers: :math:`D(x_t, t) = E[x_0 | x_t]` (class probabilities for categorical paths).

Samplers, guidance and likelihoods only ever see a denoiser. Guidance rules are denoisers made of denoisers, so they
nest.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from types import EllipsisType
from typing import Any

import torch
from torch import Tensor, nn

from .categorical import CategoricalPath
from .parameterizations import Karras, Noise, Parameterization
from .paths import GaussianPath, JointPath
from .schedules import Schedule, expand

__all__ = [
    "BaseDenoiser",
    "CategoricalDenoiser",
    "Condition",
    "Denoiser",
    "JointDenoiser",
    "LogSNRInput",
    "StepInput",
    "TimeInput",
]

Condition = Mapping[str, Any]
"""What a network is told besides the state: named tensors with the batch first (other values are passed as they
are)."""

TimeInput = Callable[[Schedule, Tensor], Tensor]
"""How t is shown to the network: a function (schedule, t) -> tensor of the shape of t."""


class StepInput:
    """Show integer steps: t = (i + 1)/T becomes i."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
        return t * self.steps - 1


class LogSNRInput:
    """Show the log-SNR times a factor (EDM's log(sigma)/4 is factor -1/4)."""

    def __init__(self, factor: float = -0.25) -> None:
        self.factor = factor

    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
        return self.factor * schedule.logsnr(t)


class BaseDenoiser(nn.Module):
    """Anything that maps a noisy state to the expected clean state.

    Attributes:
        path: the forward process it denoises.
        rows: number of samples the networks inside were evaluated on so far; samplers report its increase.
    """

    path: Any

    @property
    def rows(self) -> int:
        return sum(child.rows for child in self.children() if isinstance(child, BaseDenoiser))

    def reset(self) -> None:
        """Called by samplers before the first step; guidance with a memory clears it."""
        for child in self.children():
            if isinstance(child, BaseDenoiser):
                child.reset()

    @abstractmethod
    def forward(self, x_t: Any, t: Tensor, *, mask: Any = None, condition: Condition | None = None) -> Any:
        """Clean state expected at x_t.

        Args:
            x_t: noisy state, (B, *) (or a dict of them for joint paths).
            t: time, shape () or (B,), in [0, 1].
            mask: support mask(s), True = real.
            condition: passed to the network.
        """


def _time_per_sample(t: Tensor, x: Tensor) -> Tensor:
    return t.to(x.device, x.dtype if x.dtype.is_floating_point else torch.get_default_dtype()).expand(x.shape[0])


def _shaped(output: Tensor, shape: tuple[int, ...]) -> Tensor:
    # a wrong shape would broadcast silently
    if output.shape != shape:
        raise ValueError(f"the network returned shape {tuple(output.shape)}, expected {tuple(shape)}")
    return output


class Denoiser(BaseDenoiser):
    """A network, a Gaussian path and a parameterization.

    The network is called as ``network(x, t, mask=mask, condition=condition)`` with :math:`x = c_{in}(x_t - \\beta_t
    y)` of shape (B, *), t of shape (B,), and returns F of the shape of x.

    Args:
        network: the module.
        path: the forward process.
        parameterization: the meaning of F.
        time_input: how t is shown to the network; default: t itself.
        data_std: standard deviation of the data, for :math:`c_{in} = (\\alpha^2 sd^2 + \\sigma^2)^{-1/2}`; default:
            that of ``Karras``, else 1. None feeds the state as it is (published checkpoints).
    """

    path: GaussianPath

    def __init__(
        self,
        network: nn.Module,
        path: GaussianPath,
        parameterization: Parameterization | None = None,
        time_input: TimeInput | None = None,
        data_std: float | EllipsisType | None = ...,
    ) -> None:
        super().__init__()
        self.network = network
        self.path = path
        self.parameterization = parameterization or Noise()
        self.time_input = time_input
        if isinstance(data_std, EllipsisType):
            data_std = self.parameterization.data_std if isinstance(self.parameterization, Karras) else 1.0
        self.data_std = data_std
        self._rows = 0

    @property
    def rows(self) -> int:
        return self._rows

    def output(
        self, x_t: Tensor, t: Tensor, *, mask: Tensor | None = None, condition: Condition | None = None
    ) -> Tensor:
        """The raw network output F."""
        schedule = self.path.schedule
        u = x_t - self.path.offset(t, x_t)
        if self.data_std is not None:
            alpha, sigma = schedule.alpha(t), schedule.sigma(t)
            u = expand(((alpha * self.data_std) ** 2 + sigma**2).rsqrt(), t, u).to(u.dtype) * u
        shown = t if self.time_input is None else self.time_input(schedule, t)
        self._rows += x_t.shape[0]
        output = self.network(u, _time_per_sample(shown, x_t), mask=mask, condition=condition)
        return _shaped(output, x_t.shape)

    def estimate(self, output: Tensor, x_t: Tensor, t: Tensor, mask: Tensor | None = None) -> Tensor:
        """:math:`c_{skip} u + c_{out} F` on the support."""
        u = x_t - self.path.offset(t, x_t)
        skip, out = (expand(c, t, u).to(u.dtype) for c in self.parameterization.scalings(self.path.schedule, t))
        return self.path.support.project(skip * u + out * output, mask)

    def forward(
        self, x_t: Tensor, t: Tensor, *, mask: Tensor | None = None, condition: Condition | None = None
    ) -> Tensor:
        return self.estimate(self.output(x_t, t, mask=mask, condition=condition), x_t, t, mask)


class CategoricalDenoiser(BaseDenoiser):
    """A network with logits (B, *, K) and a categorical path; returns probabilities of the clean class.

    The network is called as in :class:`Denoiser`, with class indices (B, *) as state.
    """

    path: CategoricalPath

    def __init__(self, network: nn.Module, path: CategoricalPath) -> None:
        super().__init__()
        self.network = network
        self.path = path
        self._rows = 0

    @property
    def rows(self) -> int:
        return self._rows

    def output(
        self, x_t: Tensor, t: Tensor, *, mask: Tensor | None = None, condition: Condition | None = None
    ) -> Tensor:
        """The logits."""
        self._rows += x_t.shape[0]
        output = self.network(x_t, _time_per_sample(t, x_t), mask=mask, condition=condition)
        return _shaped(output, (*x_t.shape, self.path.classes))

    def estimate(self, output: Tensor, x_t: Tensor, t: Tensor, mask: Tensor | None = None) -> Tensor:
        """Probabilities of the clean class: of symmetrised logits on symmetric supports, uniform on padding."""
        return self.path.support.project(output, mask).softmax(-1)

    def forward(
        self, x_t: Tensor, t: Tensor, *, mask: Tensor | None = None, condition: Condition | None = None
    ) -> Tensor:
        return self.estimate(self.output(x_t, t, mask=mask, condition=condition), x_t, t, mask)


class JointDenoiser(BaseDenoiser):
    """One network for all components of a joint path: one call returns a dict of outputs.

    The network is called as ``network(states, t, mask=masks, condition=condition)`` with dicts of the component names.
    It sees the states as they are: not scaled, and with their centers.

    Args:
        network: the module.
        path: named components, Gaussian or categorical.
        parameterizations: meaning of the Gaussian outputs by name, or one for all; default Noise.
    """

    path: JointPath

    def __init__(
        self,
        network: nn.Module,
        path: JointPath,
        parameterizations: Mapping[str, Parameterization] | Parameterization | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.path = path
        if not isinstance(parameterizations, Mapping):
            parameterizations = dict.fromkeys(path, parameterizations or Noise())
        missing = [k for k in path if k not in parameterizations and isinstance(path[k], GaussianPath)]
        if missing:
            raise ValueError(f"no parameterization for component(s) {missing}")
        self.heads: dict[str, Denoiser | CategoricalDenoiser] = {}
        for name in path:
            component = path[name]
            if isinstance(component, CategoricalPath):
                self.heads[name] = CategoricalDenoiser(nn.Identity(), component)
            elif isinstance(component, GaussianPath):
                self.heads[name] = Denoiser(nn.Identity(), component, parameterizations[name], data_std=None)
            else:
                raise TypeError(f"component {name!r} has an unknown kind of path: {type(component).__name__}")
        self._rows = 0

    @property
    def rows(self) -> int:
        return self._rows

    def output(
        self,
        x_t: dict[str, Tensor],
        t: Tensor,
        *,
        mask: dict[str, Tensor] | None = None,
        condition: Condition | None = None,
    ) -> dict[str, Tensor]:
        """Raw outputs by component."""
        first = next(iter(x_t.values()))
        floating = next((v for v in x_t.values() if v.dtype.is_floating_point), first)
        self._rows += first.shape[0]
        return self.network(x_t, _time_per_sample(t, floating), mask=mask, condition=condition)

    def forward(
        self,
        x_t: dict[str, Tensor],
        t: Tensor,
        *,
        mask: dict[str, Tensor] | None = None,
        condition: Condition | None = None,
    ) -> dict[str, Tensor]:
        output = self.output(x_t, t, mask=mask, condition=condition)
        return {
            name: head.estimate(output[name], x_t[name], t, None if mask is None else mask.get(name))
            for name, head in self.heads.items()
        }
