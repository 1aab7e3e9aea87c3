r"""Replacement guidance: entries that are known stay known.

.. math:: D' = m \odot x_0^{known} + (1 - m) \odot D

Because every solver only forms linear combinations of states, noise and denoised states, a known entry then follows
:math:`\alpha_t x_0 + \sigma_t\epsilon` with the noise it started from: this is the replacement of the known part by its
own forward process, without a second noise, and it ends exactly at the known value. Source: Song et al. 2021, arXiv
2011.13456, appendix I.2; Lugmayr et al. 2022 (RePaint), arXiv 2201.09865.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..denoisers import BaseDenoiser, Condition
from ..paths import State
from .wrapper import GuidedDenoiser

__all__ = ["Replacement"]


class Replacement(GuidedDenoiser):
    """A denoiser that knows some entries.

    Args:
        denoiser: what fills in the rest.
        known: clean values, (B, *); for joint paths by component, and components that are absent are free.
        fixed: bool, broadcastable to ``known``, True where the value is known; for joint paths by component. Must be
            symmetric for variables on symmetric supports.

    Raises:
        ValueError: if ``known`` and ``fixed`` name different components, or ones the path does not have.
    """

    def __init__(self, denoiser: BaseDenoiser, known: State, fixed: State) -> None:
        super().__init__(denoiser)
        joint = isinstance(known, dict)
        if joint != isinstance(fixed, dict):
            raise ValueError("known values and their masks must both be tensors, or both be dicts by component")
        if isinstance(known, dict) and isinstance(fixed, dict):
            components: Any = self.path
            if set(known) != set(fixed) or not set(known) <= set(components):
                raise ValueError(
                    f"known values are given for {sorted(known)}, masks for {sorted(fixed)}; the model has "
                    f"{sorted(components)}"
                )
        self.known, self.fixed = known, fixed

    def forward(self, x_t: State, t: Tensor, *, mask: State | None = None, condition: Condition | None = None) -> State:
        clean = self.denoiser(x_t, t, mask=mask, condition=condition)
        if not isinstance(clean, dict):
            assert isinstance(self.known, Tensor)
            assert isinstance(self.fixed, Tensor)
            return torch.where(self.fixed, self.known.to(clean), clean)
        assert isinstance(self.known, dict)
        assert isinstance(self.fixed, dict)
        return {
            name: torch.where(self.fixed[name], self.known[name].to(value), value) if name in self.known else value
            for name, value in clean.items()
        }
