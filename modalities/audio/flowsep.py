r"""FlowSep, the recommended face: a rectified flow that draws a sound out of a mixture by its description.

With the state x_0 of the target (:mod:`.representations`), noise :math:`\epsilon` and :math:`x_t = (1 - t) x_0 + t
\epsilon`, a U-Net that also sees the mixture and the words estimates x_0 from x_t; the solver moves along
:math:`\dot x = (x_t - \hat x_0) / t` from t = 1 to 0. The loss is :math:`\sum w (x_0 - \hat x_0)^2 / \sum w` with
:math:`1 - t = u^{10}`, u uniform: what is decided is decided near the noise, from mixture and words alone, and a
network that mostly sees little noise learns to copy x_t.

Source: Yuan et al. 2024, "FlowSep: language-queried sound separation with rectified flow matching" (arXiv 2409.07614).
Different here: bounded log-ratios by default instead of autoencoder latents, x_0 instead of velocity as the network's
output, dropout of words per example and guidance that works, times that the network can tell apart, any length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ...core import (
    BaseDenoiser,
    ClassifierFree,
    Condition,
    Data,
    DataWeight,
    Denoiser,
    DenoisingLoss,
    GaussianPath,
    Multistep,
    NoiseSource,
    PowerTime,
    Rectified,
    Sampler,
    TimesGrid,
    Velocity,
    VelocityWeight,
)
from ...core.solvers.sampler import Stepper
from ..registry import register
from .representations import build_representation
from .separation_unet import SeparationUNet
from .separator import MixtureBatch, Query, Separator, noise_of
from .solvers import grid_for, solver_named
from .text import TextStates

__all__ = ["ConditionedUNet", "FlowSep", "check_fit"]

_DROPOUT, _LOSS = 0, 1
_GRID_POWER = 3

NETWORK: dict[str, Any] = {
    "channels": 32,
    "multipliers": [1, 2, 3],
    "num_res_blocks": 1,
    "attention_levels": [2],
    "norm_groups": 8,
    "time_scale": 1000.0,
    "summary": True,
    "scale_shift": True,
}


class ConditionedUNet(nn.Module):
    """The U-Net as the core calls networks: noisy state and mixture become channels, words the context.

    Of the noisy state it sees the linear estimate of x_0, :math:`\\alpha x_t / (\\alpha^2 + \\sigma^2)`: nothing at t
    = 1, where the state is noise alone. Otherwise the network has to learn to look away from it, which takes longer
    than all the rest.

    Args:
        unet: Takes `channels` of the state and those of the condition.
    """

    def __init__(self, unet: SeparationUNet) -> None:
        super().__init__()
        self.unet = unet

    def forward(
        self, x: Tensor, t: Tensor, *, mask: Tensor | None = None, condition: Condition | None = None
    ) -> Tensor:
        """Output of the shape of x; the condition holds `mixture`, `states` and `known`."""
        assert condition is not None
        # The core has divided by the root of alpha^2 + sigma^2 once.
        known = (1 - t) / ((1 - t).square() + t.square()).sqrt()
        joined = torch.cat([known[:, None, None, None] * x, condition["mixture"]], 1)
        return self.unet(joined, t, condition["states"], condition["known"])


@register
class FlowSep(Separator):
    """Generative separator.

    Args:
        representation: What is generated, see :func:`.build_representation`.
        unet: Arguments of :class:`.SeparationUNet` but for its channels in and out and those of the text.
        front: Arguments of :class:`.MelSettings`.
        seconds: Length of a window.
        text: Description of the text encoder, see :func:`.build_text_encoder`.
        vocoder: Arguments of :class:`.BigVGAN`, for models that carry one.
        prediction: Regression target of the network: "data" or "velocity" (published).
        time_power: p of 1 - t = u^p in training; 1 is uniform.
        dropout: Share of training examples without description.
        sampling_steps: Steps recommended.
        temperature: Factor on the noise that sampling starts from, recommended; below 1 draws lie nearer to their mean,
            which is what ratios like the SI-SDR reward.
        guidance: Scale of classifier-free guidance, recommended; 1 is none, and costs half.
        sounds: Plain descriptions of what it was trained on; training fills them in.

    Raises:
        ValueError: Values that make no sense or do not fit each other.
    """

    name: ClassVar[str] = "flowsep"

    def __init__(
        self,
        representation: Mapping[str, Any] | None = None,
        unet: Mapping[str, Any] | None = None,
        front: Mapping[str, Any] | None = None,
        seconds: float = 2.56,
        text: Mapping[str, Any] | None = None,
        vocoder: Mapping[str, Any] | None = None,
        prediction: Literal["data", "velocity"] = "data",
        time_power: float = 10.0,
        dropout: float = 0.1,
        sampling_steps: int = 10,
        temperature: float = 0.1,
        guidance: float = 1.0,
        sounds: Sequence[str] = (),
    ) -> None:
        super().__init__(front, seconds, text, vocoder, sounds)
        if prediction not in ("data", "velocity"):
            raise ValueError(f"prediction must be 'data' or 'velocity', got {prediction!r}")
        if temperature < 0:
            raise ValueError(f"temperature must not be negative, got {temperature}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")
        self.representation = build_representation(representation)
        r = self.representation
        network = SeparationUNet(
            in_channels=r.channels + r.condition_channels,
            out_channels=r.channels,
            context_channels=self.text.channels,
            **{**NETWORK, **dict(unet or {})},
        )
        check_fit(self.frames, self.front.settings.num_bands, r.factors, network.downsampling)
        self.prediction, self.time_power, self.dropout = prediction, time_power, dropout
        self.sampling_steps, self.temperature, self.guidance = sampling_steps, temperature, guidance
        path = GaussianPath(Rectified())
        kind, weight = (Data(), DataWeight()) if prediction == "data" else (Velocity(), VelocityWeight())
        self.denoiser = Denoiser(ConditionedUNet(network), path, kind)
        self._loss = DenoisingLoss(self.denoiser, weight, PowerTime(time_power))

    def config(self) -> dict[str, Any]:
        """See :class:`.Adapter`."""
        unet = self.unet.config()
        for given in ("in_channels", "out_channels", "context_channels"):
            unet.pop(given)
        return {
            "representation": self.representation.config(),
            "unet": unet,
            **self.common_config(),
            "prediction": self.prediction,
            "time_power": self.time_power,
            "dropout": self.dropout,
            "sampling_steps": self.sampling_steps,
            "temperature": self.temperature,
            "guidance": self.guidance,
        }

    @property
    def unet(self) -> SeparationUNet:
        """The network."""
        network = self.denoiser.network
        assert isinstance(network, ConditionedUNet)
        return network.unet

    def loss(self, batch: MixtureBatch, noise: NoiseSource) -> Tensor:
        """Weighted error of the state per sample, `(B,)`."""
        mixture, target = self.front(batch.mixture), self.front(batch.target)
        states = self.states(batch.queries, noise.spawn(_DROPOUT), self.dropout)
        condition = self._condition(self.representation.condition(mixture), states)
        x_0, weights = self.representation.encode(target, mixture), self.representation.weights(mixture)
        return self._loss(x_0, noise.spawn(_LOSS), condition=condition, weights=weights).value

    def estimate(self, mixture: Tensor, query: Query, ids: Sequence[int], stepper: Stepper | None = None) -> Tensor:
        """See :class:`.Separator`.

        Args:
            mixture: `(B, frames, num_bands)`.
            query: What is asked for.
            ids: Numbers of the windows.
            stepper: Any solver of the core; default: the query's, and the multistep family's.
        """
        r = self.representation
        shown = r.condition(mixture)
        denoiser, condition = self._guided(query, shown)
        begin = denoiser.path.schedule.t_max if query.start is None else query.start
        chosen = stepper or solver_named(query.solver) or Multistep()
        sampler = Sampler(chosen, grid_for(chosen, _grid(begin, query.steps)), query.steps)
        temperature = self.temperature if query.temperature is None else query.temperature
        # From pure noise nothing of x_0 is left; from the mixture, its own state is what is perturbed.
        nothing = shown.new_zeros(len(mixture), r.channels, *shown.shape[2:])
        x_0 = nothing if query.start is None else r.encode(mixture, mixture)
        total = torch.zeros_like(mixture)
        for candidate in range(query.candidates):
            noise = noise_of(query.seed, ids, candidate)
            epsilon = temperature * noise.normal(x_0, key=0)
            x = denoiser.path.perturb(x_0, torch.tensor(begin, dtype=torch.float64), epsilon)
            drawn = sampler(denoiser, x, generator=noise, condition=condition, start=begin)
            total += r.decode(drawn.x, mixture).exp()
        return (total / query.candidates).clamp(min=self.front.settings.floor).log()

    def _guided(self, query: Query, mixture: Tensor) -> tuple[BaseDenoiser, dict[str, Any]]:
        """The denoiser for a query, and what its network is told; the other side of guidance has the same mixture."""
        batch, wanted = len(mixture), self.states([query.text])
        scale = query.scale(self.guidance)
        if scale == 1:
            return self.denoiser, self._condition(mixture, _repeated(wanted, batch))
        against = self.states([query.negative]) if query.negative else self.text.unconditional(1).to(self.device)
        length = max(wanted.states.shape[1], against.states.shape[1])
        told, free = (self._condition(mixture, _repeated(s.padded(length), batch)) for s in (wanted, against))
        return ClassifierFree(self.denoiser, scale, free), told

    def _condition(self, mixture: Tensor, states: TextStates) -> dict[str, Any]:
        return {"mixture": mixture, "states": states.states, "known": states.mask}


def _grid(begin: float, steps: int) -> TimesGrid:
    """begin (1 - (k / N)^3), k = 0 ... N: most steps where training was, and a last one to the data."""
    return TimesGrid(tuple(begin * (1 - (k / steps) ** _GRID_POWER) for k in range(steps + 1)))


def _repeated(states: TextStates, batch: int) -> TextStates:
    return TextStates(states.states.expand(batch, -1, -1), states.mask.expand(batch, -1))


def check_fit(frames: int, bands: int, factors: tuple[int, int], downsampling: int) -> None:
    """Refuse windows that the network cannot halve as often as it must.

    Raises:
        ValueError: With the sizes that would do.
    """
    for what, size, factor in (("frames", frames, factors[0]), ("bands", bands, factors[1])):
        if size % (factor * downsampling):
            raise ValueError(
                f"a window has {size} {what}; representation and network need a multiple of {factor * downsampling}"
            )
