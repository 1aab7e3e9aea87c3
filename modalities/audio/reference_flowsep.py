r"""FlowSep as published: its networks, its direction of time, its sampler; for the authors' weights.

With the latents z_1 of the target, noise :math:`\epsilon` and s = 1e-4

.. math:: x_t = (1 - (1 - s) t)\, \epsilon + t z_1, \qquad v = z_1 - (1 - s)\, \epsilon, \qquad
   x_{k+1} = x_k + v_\theta(x_k, z^{mix}, k / N, c) / N

time running from noise (0) to data (1), opposite to the core's; N = 10 in the published configuration, 20 in its
inference script. Differences to the published code: the mixture's latent is the mode of its posterior, not a sample,
so that results are deterministic; any length, rate and number of channels; the 32 samples the vocoder adds are cut off;
the level is given back; guidance, which the published code ignores, works. Weights are the same.

Source: Yuan et al. 2024 (arXiv 2409.07614).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...core import (
    ClassifierFree,
    Condition,
    Denoiser,
    DenoisingLoss,
    GaussianPath,
    NoiseSource,
    Rectified,
    Sampler,
    UniformGrid,
    Velocity,
)
from ...core.solvers.sampler import Stepper
from ..registry import register
from .flowsep import check_fit
from .reference_checkpoints import FlowSepParts, read_flowsep
from .representations import VAELatents
from .separation_unet import SeparationUNet
from .separator import MixtureBatch, Query, Separator, noise_of
from .solvers import grid_for, solver_named
from .text import TextStates

__all__ = ["ReferenceFlowSep", "convert_flowsep"]

_DROPOUT, _LOSS = 0, 1


class _PublishedVelocity(nn.Module):
    """The published network as the core calls networks: the first half of its channels, in the core's time."""

    def __init__(self, unet: SeparationUNet, channels: int) -> None:
        super().__init__()
        self.unet, self.channels = unet, channels

    def forward(
        self, x: Tensor, t: Tensor, *, mask: Tensor | None = None, condition: Condition | None = None
    ) -> Tensor:
        assert condition is not None
        joined = torch.cat([x, condition["mixture"]], 1)
        return -self.unet(joined, 1 - t, condition["states"], condition["known"])[:, : self.channels]


@register
class ReferenceFlowSep(Separator):
    """The published separator.

    Args:
        unet: Arguments of :class:`.SeparationUNet`; default: the published ones (265.5 M parameters).
        vae: Arguments of :class:`.KLVAE`; default: the published ones (55.4 M).
        vocoder: Arguments of :class:`.BigVGAN`; default: the published ones (14.0 M).
        front: Arguments of :class:`.MelSettings`.
        seconds: Length of a window.
        text: Description of the text encoder; default: FLAN-T5 large, of which the published weights know the states.
        dropout: Share of training examples without description.
        sampling_steps: N.
        sounds: Plain descriptions of what it was trained on; empty for captions.
    """

    name: ClassVar[str] = "flowsep-reference"

    def __init__(
        self,
        unet: Mapping[str, Any] | None = None,
        vae: Mapping[str, Any] | None = None,
        vocoder: Mapping[str, Any] | None = None,
        front: Mapping[str, Any] | None = None,
        seconds: float = 10.24,
        text: Mapping[str, Any] | None = None,
        dropout: float = 0.1,
        sampling_steps: int = 10,
        sounds: Sequence[str] = (),
    ) -> None:
        super().__init__(front, seconds, text or {"name": "flan-t5"}, vocoder or {}, sounds)
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")
        self.representation = VAELatents(vae, relative=False)
        network = SeparationUNet(**dict(unet or {}))
        r = self.representation
        if network.in_channels != 2 * r.channels or network.context_channels != self.text.channels:
            raise ValueError(
                f"the network takes {network.in_channels} channels and text states of {network.context_channels}; "
                f"latents of {r.channels} need {2 * r.channels}, the text encoder gives {self.text.channels}"
            )
        check_fit(self.frames, self.front.settings.num_bands, r.factors, network.downsampling)
        self.dropout, self.sampling_steps = dropout, sampling_steps
        self.report: tuple[str, ...] = ()
        published = _PublishedVelocity(network, r.channels)
        self.denoiser = Denoiser(published, GaussianPath(Rectified()), Velocity(), data_std=None)
        self._loss = DenoisingLoss(self.denoiser)

    def config(self) -> dict[str, Any]:
        """See :class:`.Adapter`."""
        return {
            "unet": self.unet.config(),
            "vae": self.representation.vae.config(),
            **self.common_config(),
            "dropout": self.dropout,
            "sampling_steps": self.sampling_steps,
        }

    @classmethod
    def from_parts(cls, parts: FlowSepParts, **options: Any) -> ReferenceFlowSep:
        """The model around networks read from published files; nothing is copied.

        Args:
            parts: Of :func:`.read_flowsep`.
            options: Other arguments of the class.
        """
        networks = {"unet": parts.unet.config(), "vae": parts.vae.config(), "vocoder": parts.vocoder.config()}
        # Empty networks first: those of the files take their places.
        with torch.device("meta"):
            model = cls(**networks, **options)
        published = model.denoiser.network
        assert isinstance(published, _PublishedVelocity)
        published.unet = parts.unet
        model.representation.vae = parts.vae.requires_grad_(False)
        model.representation.statistics.to_empty(device="cpu")
        model.representation.statistics.set_scale_factor(parts.scale_factor)
        model.vocoder = parts.vocoder.requires_grad_(False)
        model.report = parts.report
        return model.eval()

    @property
    def unet(self) -> SeparationUNet:
        """The generator."""
        network = self.denoiser.network
        assert isinstance(network, _PublishedVelocity)
        return network.unet

    def loss(self, batch: MixtureBatch, noise: NoiseSource) -> Tensor:
        """Mean square error of the velocity per sample at a uniform time, `(B,)`."""
        mixture, target = self.front(batch.mixture), self.front(batch.target)
        states = self.states(batch.queries, noise.spawn(_DROPOUT), self.dropout)
        condition = self._condition(self.representation.condition(mixture), states)
        x_0 = self.representation.encode(target, mixture)
        return self._loss(x_0, noise.spawn(_LOSS), condition=condition).value

    def estimate(self, mixture: Tensor, query: Query, ids: Sequence[int], stepper: Stepper | None = None) -> Tensor:
        """See :class:`.Separator`; a solver of the core replaces the published Euler steps where one is asked for."""
        stepper = stepper or solver_named(query.solver)
        r = self.representation
        shown = r.condition(mixture)
        total = torch.zeros_like(mixture)
        for candidate in range(query.candidates):
            noise = noise_of(query.seed, ids, candidate)
            temperature = 1.0 if query.temperature is None else query.temperature
            epsilon = temperature * noise.normal(torch.empty_like(shown), key=0)
            x = epsilon
            if query.start is not None:
                x = (1 - query.start) * shown + query.start * epsilon
            drawn = self._euler(x, shown, query) if stepper is None else self._solve(x, shown, query, stepper, noise)
            total += r.decode(drawn, mixture).exp()
        return (total / query.candidates).clamp(min=self.front.settings.floor).log()

    def velocity(self, x: Tensor, mixture: Tensor, t: float, states: TextStates) -> Tensor:
        """The published network's velocity at published time t (0 is noise).

        Args:
            x: `(B, 8, T, F)`.
            mixture: Whitened latents of the mixture, same shape.
            t: In [0, 1].
            states: Text states, B of them.
        """
        time = torch.full((len(x),), t, device=x.device)
        joined = torch.cat([x, mixture], 1)
        return self.unet(joined, time, states.states, states.mask)[:, : self.representation.channels]

    def _euler(self, x: Tensor, mixture: Tensor, query: Query) -> Tensor:
        wanted = self._words(query.text, len(x))
        against = None if query.scale() == 1 else self._words(query.negative, len(x))
        begin = 0.0 if query.start is None else 1 - query.start
        step = (1 - begin) / query.steps
        for k in range(query.steps):
            t = begin + k * step
            velocity = self.velocity(x, mixture, t, wanted)
            if against is not None:
                free = self.velocity(x, mixture, t, against)
                velocity = free + query.scale() * (velocity - free)
            x = x + step * velocity
        return x

    def _solve(self, x: Tensor, mixture: Tensor, query: Query, stepper: Stepper, noise: NoiseSource) -> Tensor:
        condition = self._condition(mixture, self._words(query.text, len(x)))
        denoiser = self.denoiser
        if query.scale() != 1:
            free = self._condition(mixture, self._words(query.negative, len(x)))
            denoiser = ClassifierFree(denoiser, query.scale(), free)
        sampler = Sampler(stepper, grid_for(stepper, UniformGrid(end=0.0)), query.steps)
        start = query.start if query.start is not None else self.denoiser.path.schedule.t_max
        return sampler(denoiser, x, generator=noise, condition=condition, start=start).x

    def _words(self, text: str | None, batch: int) -> TextStates:
        states = self.states([text]) if text else self.text.unconditional(1).to(self.device)
        return TextStates(states.states.expand(batch, -1, -1), states.mask.expand(batch, -1))

    def _condition(self, mixture: Tensor, states: TextStates) -> dict[str, Any]:
        return {"mixture": mixture, "states": states.states, "known": states.mask}


def convert_flowsep(path: Path, companion: Path | None = None) -> ReferenceFlowSep:
    """Read `v2_100k.ckpt`, with the vocoder of `g_01000000` if given.

    Raises:
        LayoutError: A file is not of the published layout.
    """
    return ReferenceFlowSep.from_parts(read_flowsep(path, companion))
