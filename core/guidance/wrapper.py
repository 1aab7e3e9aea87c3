"""What all guidance rules share: they are denoisers around a denoiser."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..denoisers import BaseDenoiser, Condition
from ..paths import GaussianPath, State
from ..schedules import expand

__all__ = ["GuidedDenoiser", "per_sample"]


class GuidedDenoiser(BaseDenoiser):
    """A denoiser with the path of another one.

    Args:
        denoiser: what is guided.
    """

    def __init__(self, denoiser: BaseDenoiser) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.path = denoiser.path


def per_sample(value: float | Tensor, x: Tensor) -> Tensor:
    """A number, or one per sample (B,), shaped to multiply x (B, *)."""
    tensor = torch.as_tensor(value, dtype=x.dtype, device=x.device)
    return tensor.reshape(-1, *(1,) * (x.ndim - 1)) if tensor.ndim else tensor


def per_sample_sum(values: Tensor, batch: int, name: str) -> Tensor:
    """The sum of one value per sample, whose gradient does not couple the samples.

    Raises:
        ValueError: if there is not one value per sample (a mean over the batch would weaken the guidance of big ones).
    """
    if values.shape != (batch,):
        raise ValueError(f"{name} must return one value per sample, shape ({batch},), got {tuple(values.shape)}")
    return values.sum()


def score_to_data(path: GaussianPath, t: Tensor, x: Tensor) -> Tensor:
    """:math:`\\sigma^2/\\alpha`: what turns a gradient of a log-likelihood into a shift of the data prediction."""
    return expand(path.schedule.sigma(t) ** 2 / path.schedule.alpha(t), t, x).to(x)


def stack_conditions(conditions: list[Condition], batch: int) -> dict[str, object]:
    """One condition for a batch made of several copies of the states, one condition each.

    Raises:
        ValueError: if the conditions name different things, or something that is not a tensor differs.
    """
    names = set(conditions[0])
    if any(set(c) != names for c in conditions):
        raise ValueError(f"conditions name different things: {[sorted(c) for c in conditions]}")
    stacked: dict[str, object] = {}
    for name in conditions[0]:
        values = [c[name] for c in conditions]
        if all(isinstance(v, Tensor) for v in values):
            stacked[name] = torch.cat([v.expand(batch, *v.shape[1:]) for v in values])
        elif all(v is values[0] for v in values):
            stacked[name] = values[0]
        else:
            raise ValueError(f"condition {name!r} is not a tensor and differs between the guided and the free pass")
    return stacked


def repeated(state: State | None, copies: int) -> State | None:
    """A state (or mask) with its batch repeated."""
    if state is None:
        return None
    if isinstance(state, Mapping):
        return {k: torch.cat([v] * copies) for k, v in state.items()}
    return torch.cat([state] * copies)
