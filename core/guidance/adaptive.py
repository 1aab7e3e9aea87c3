r"""Adaptive guidance: stop paying for the unconditional pass once it no longer matters.

A sample whose conditional and unconditional *data* predictions agree, :math:`\|D_c - D_\varnothing\| \le gap
\|D_c\|`, is continued with :math:`D_c` alone. (The rule of Castillo et al. 2023, arXiv 2312.12487, compares noise
predictions; those agree at t = 1 for every accurate model, where both predict x, so that guidance would be switched
off at once.)
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..denoisers import BaseDenoiser, Condition
from .wrapper import GuidedDenoiser, per_sample, stack_conditions

__all__ = ["AdaptiveGuidance"]


class AdaptiveGuidance(GuidedDenoiser):
    """Classifier-free guidance that ends per sample. Keeps a memory during one sampler run.

    Args:
        denoiser: trained with the condition dropped now and then.
        scale: s of classifier-free guidance, a number or (B,).
        unconditional: the condition that stands for "none".
        gap: relative difference of the data predictions below which guidance ends.
    """

    def __init__(
        self, denoiser: BaseDenoiser, scale: float | Tensor, unconditional: Condition, *, gap: float = 0.03
    ) -> None:
        super().__init__(denoiser)
        self.scale = scale
        self.unconditional = unconditional
        self.gap = gap
        self._active: Tensor | None = None

    def reset(self) -> None:
        self._active = None
        super().reset()

    def forward(
        self, x_t: Tensor, t: Tensor, *, mask: Tensor | None = None, condition: Condition | None = None
    ) -> Tensor:
        if condition is None:
            raise ValueError("adaptive guidance needs the condition to guide towards")
        if set(condition) != set(self.unconditional):
            raise ValueError(f"conditions name different things: {sorted(condition)}, {sorted(self.unconditional)}")
        batch = x_t.shape[0]
        if self._active is None or len(self._active) != batch:
            self._active = torch.ones(batch, dtype=torch.bool, device=x_t.device)
        index = self._active.nonzero()[:, 0]
        if len(index) == 0:
            return self.denoiser(x_t, t, mask=mask, condition=condition)

        def part(value: object) -> object:
            return value[index] if isinstance(value, Tensor) and value.ndim and value.shape[0] == batch else value

        everything = dict(condition)
        free_condition = {
            k: v.expand(len(index), *v.shape[1:]) if isinstance(v, Tensor) and v.shape[:1] in ((), (1,)) else part(v)
            for k, v in self.unconditional.items()
        }
        stacked = stack_conditions([everything, everything], batch)
        for name, value in stacked.items():
            if isinstance(value, Tensor):
                stacked[name] = torch.cat([value[:batch], free_condition[name].to(value)])  # pyright: ignore
        clean = self.denoiser(
            torch.cat([x_t, x_t[index]]),
            t if t.ndim == 0 else torch.cat([t, t[index]]),
            mask=None if mask is None else torch.cat([mask, mask[index]]),
            condition=stacked,
        )
        conditional, free = clean[:batch], clean[batch:]
        own = conditional[index]
        scale = self.scale[index] if isinstance(self.scale, Tensor) and self.scale.ndim else self.scale
        guided = free + per_sample(scale, free) * (own - free)
        result = conditional.clone()
        result[index] = guided
        close = (own - free).flatten(1).norm(dim=1) <= self.gap * own.flatten(1).norm(dim=1)
        self._active[index[close]] = False
        return result
