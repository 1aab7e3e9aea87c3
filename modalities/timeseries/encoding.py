"""Windows in the units of the model: scaled by what may be seen of them, gaps filled, everything else kept apart."""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from .scalers import Scaler

__all__ = ["ScaledWindows", "scale_windows"]


@dataclass(frozen=True)
class ScaledWindows:
    """A batch of scaled windows.

    Args:
        x: scaled values, gaps filled, shape `(B, L, 1)`.
        observed: which entries are known, boolean, shape `(B, L, 1)`.
        loc: location, float64, shape `(B, 1)`.
        scale: scale, float64, shape `(B, 1)`.
    """

    x: Tensor
    observed: Tensor
    loc: Tensor
    scale: Tensor

    def repeat(self, copies: int) -> Self:
        """Every window `copies` times in a row."""
        return replace(
            self,
            **{
                name: getattr(self, name).repeat_interleave(copies, dim=0) for name in ("x", "observed", "loc", "scale")
            },
        )

    def in_units(self, x: Tensor) -> Tensor:
        """Scaled values `(B, L')` in units of the user, float64."""
        return self.loc + self.scale * x.double()


def scale_windows(
    target: Tensor,
    level: Tensor | None,
    scaler: Scaler,
    context: int,
    clip: float,
    dtype: torch.dtype,
    seen: Tensor | None = None,
) -> ScaledWindows:
    """Scales windows by the observed part of their context.

    Args:
        target: shape `(B, L)`, NaN where missing.
        level: mean magnitude of each series, shape `(B,)`.
        scaler: the scaler.
        context: steps c of context.
        clip: scaled values are limited to +- this.
        dtype: of the scaled values.
        seen: if given, only these entries `(B, L)` count in the scale; a window none of whose context is seen is scaled
            by whatever else is, and one of which nothing is seen by its whole context.
    """
    observed = torch.isfinite(target)
    horizon = target.shape[1] - context
    loc, scale = scaler(target[:, :context], observed[:, :context], horizon, level)
    if seen is not None:
        first, anywhere = seen[:, :context], scaler(target, seen, horizon, level)
        from_context = scaler(target[:, :context], first, horizon, level)
        for found, kind in ((seen, anywhere), (first, from_context)):
            some = found.any(dim=1, keepdim=True)
            loc, scale = torch.where(some, kind[0], loc), torch.where(some, kind[1], scale)
    x = ((_fill(target, observed) - loc) / scale).clamp(-clip, clip)
    return ScaledWindows(x.to(dtype).unsqueeze(-1), observed.unsqueeze(-1), loc, scale)


def _fill(target: Tensor, observed: Tensor) -> Tensor:
    """Missing entries take the last observed value before them, leading ones the first after them.

    The network sees them under noise; the loss and the guidance never do.
    """
    positions = torch.arange(target.shape[1], device=target.device).expand_as(target)
    last = torch.where(observed, positions, torch.full_like(positions, -1)).cummax(dim=1).values
    first = torch.where(observed, positions, torch.full_like(positions, target.shape[1] - 1)).amin(dim=1, keepdim=True)
    filled = target.gather(1, torch.where(last >= 0, last, first))
    return torch.where(torch.isfinite(filled), filled, torch.zeros_like(filled))
