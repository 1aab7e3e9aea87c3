r"""The honest baseline of a generative separator: the same network, regressing the mask in one pass.

.. math:: \hat r = f(X, \text{words}), \qquad \text{loss} = \sum w (x_0 - \hat x_0)^2 / \sum w

with the state x_0 of :mod:`.flowsep`. It gives the mean of what the flow draws from, which squared errors reward; a
generative model has to be compared with it at equal size and training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...core import NoiseSource
from ..registry import register
from .flowsep import NETWORK, check_fit
from .representations import build_representation
from .separation_unet import SeparationUNet
from .separator import MixtureBatch, Query, Separator

__all__ = ["MaskRegression"]

_DROPOUT = 0


@register
class MaskRegression(Separator):
    """Discriminative separator.

    Args:
        representation: What is regressed, see :func:`.build_representation`.
        unet: Arguments of :class:`.SeparationUNet` but for its channels in and out and those of the text.
        front: Arguments of :class:`.MelSettings`.
        seconds: Length of a window.
        text: Description of the text encoder, see :func:`.build_text_encoder`.
        vocoder: Arguments of :class:`.BigVGAN`, for models that carry one.
        dropout: Share of training examples without description.
        sounds: Plain descriptions of what it was trained on; training fills them in.
    """

    name: ClassVar[str] = "mask-regression"

    def __init__(
        self,
        representation: Mapping[str, Any] | None = None,
        unet: Mapping[str, Any] | None = None,
        front: Mapping[str, Any] | None = None,
        seconds: float = 2.56,
        text: Mapping[str, Any] | None = None,
        vocoder: Mapping[str, Any] | None = None,
        dropout: float = 0.0,
        sounds: Sequence[str] = (),
    ) -> None:
        super().__init__(front, seconds, text, vocoder, sounds)
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")
        self.representation, self.dropout = build_representation(representation), dropout
        r = self.representation
        self.unet = SeparationUNet(
            in_channels=r.condition_channels,
            out_channels=r.channels,
            context_channels=self.text.channels,
            **{**NETWORK, **dict(unet or {})},
        )
        check_fit(self.frames, self.front.settings.num_bands, r.factors, self.unet.downsampling)

    def config(self) -> dict[str, Any]:
        """See :class:`.Adapter`."""
        unet = self.unet.config()
        for given in ("in_channels", "out_channels", "context_channels"):
            unet.pop(given)
        return {
            "representation": self.representation.config(),
            "unet": unet,
            **self.common_config(),
            "dropout": self.dropout,
        }

    def loss(self, batch: MixtureBatch, noise: NoiseSource) -> Tensor:
        """Weighted error of the state per sample, `(B,)`."""
        mixture, target = self.front(batch.mixture), self.front(batch.target)
        r = self.representation
        states = self.states(batch.queries, noise.spawn(_DROPOUT), self.dropout)
        output = self.unet(r.condition(mixture), torch.ones((), device=mixture.device), states.states, states.mask)
        error, weights = (output - r.encode(target, mixture)).square(), r.weights(mixture)
        if weights is None:
            return error.flatten(1).mean(1)
        return (weights * error).flatten(1).sum(1) / weights.flatten(1).sum(1)

    def estimate(self, mixture: Tensor, query: Query, ids: Sequence[int]) -> Tensor:
        """See :class:`.Separator`; steps, solver, candidates, start and seed mean nothing here.

        Guidance moves the regressed state like a generator's prediction.
        """
        r = self.representation
        shown = r.condition(mixture)
        state = self._regress(shown, query.text)
        if query.scale() != 1:
            against = self._regress(shown, query.negative or "")
            state = against + query.scale() * (state - against)
        return r.decode(state, mixture).clamp(min=self.front.settings.silence)

    def _regress(self, shown: Tensor, text: str) -> Tensor:
        states = self.states([text]) if text else self.text.unconditional(1).to(self.device)
        context, known = states.states.expand(len(shown), -1, -1), states.mask.expand(len(shown), -1)
        return self.unet(shown, torch.ones((), device=shown.device), context, known)
