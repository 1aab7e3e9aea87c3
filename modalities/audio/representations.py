r"""What a separator estimates: the state its generator works on, and the way back to a log-mel spectrogram.

Log-ratio patches need no first stage. With the mels S of the target and X of the mixture (not logarithmic, floor 1e-5)

.. math:: r = \mathrm{clamp}\big(\log (S / X),\, -c,\, 0\big), \qquad x_0 = 1 + 2 r / c \in [-1, 1],
   \qquad \hat S = X e^{\hat r}

cut into patches that become channels. An estimate is never louder than its mixture, silent bins are bounded, and errors
are weighted by :math:`\sqrt{X / \max X} + 0.05`, since only what can be heard counts. The plain log-mel as target is
dominated by bins in which nothing sounds.

Latents come from a frozen autoencoder (E, D) and are whitened per channel; the condition is the mixture's latent, the
mode of its posterior, not a sample. They are decoded relative to the mixture,

.. math:: \hat S = X + \min\big(D(\hat z) - D(E(X)),\, 0\big) \quad\text{(of log-mels)},

since what the autoencoder loses of a sound, it loses of the mixture where that sound dominates it: there the difference
vanishes, and the mixture passes untouched. As published, S is D(z) itself. With `residual` states are differences
E(S) - E(X), zero where nothing is to be done; errors are weighted as above, by the loudness of a latent's bins.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from .klvae import KLVAE, LatentStatistics

__all__ = ["LogRatioPatches", "Representation", "VAELatents", "build_representation"]


class Representation(Protocol):
    """Log-mel spectrograms to states and back."""

    channels: int
    """Channels of the state."""

    condition_channels: int
    """Channels of the condition."""

    factors: tuple[int, int]
    """Frames and bands per place of the state."""

    def config(self) -> dict[str, Any]:
        """Description: `build_representation(r.config())` is the same one."""
        ...

    def condition(self, mixture: Tensor) -> Tensor:
        """What the network is told of a mixture's log-mel `(B, T, bands)`: `(B, condition_channels, T', F')`."""
        ...

    def encode(self, target: Tensor, mixture: Tensor) -> Tensor:
        """State `(B, channels, T', F')` of a target's log-mel."""
        ...

    def weights(self, mixture: Tensor) -> Tensor | None:
        """Weights of the state's entries in the loss, or None for equal ones."""
        ...

    def decode(self, state: Tensor, mixture: Tensor) -> Tensor:
        """Log-mel `(B, T, bands)` of a state."""
        ...


class LogRatioPatches(nn.Module):
    """Bounded log-ratio of target and mixture, in patches.

    Args:
        patch: Frames and bands of a patch.
        depth: c, natural logarithm: 4.6 attenuates by at most 40 dB.
        center: Subtracted from log-mels before the network sees them.
        scale: Divides them afterwards.
        floor: Weight of silent bins.
        power: Weights are (X / max X)^power + floor.
    """

    name = "log-ratio"

    def __init__(
        self,
        patch: tuple[int, int] = (4, 4),
        depth: float = 4.6,
        center: float = -6.0,
        scale: float = 3.0,
        floor: float = 0.05,
        power: float = 0.5,
    ) -> None:
        super().__init__()
        if min(patch) < 1 or depth <= 0 or scale <= 0 or floor < 0 or power < 0:
            raise ValueError(
                f"need patch >= 1, depth > 0, scale > 0, floor >= 0, power >= 0; got {patch}, {depth}, {scale}, "
                f"{floor}, {power}"
            )
        self.factors = (int(patch[0]), int(patch[1]))
        self.depth, self.center, self.scale, self.floor, self.power = depth, center, scale, floor, power
        self.channels = self.condition_channels = math.prod(self.factors)

    def config(self) -> dict[str, Any]:
        """See :class:`Representation`."""
        return {
            "name": self.name,
            "patch": list(self.factors),
            "depth": self.depth,
            "center": self.center,
            "scale": self.scale,
            "floor": self.floor,
            "power": self.power,
        }

    def condition(self, mixture: Tensor) -> Tensor:
        """The normalised log-mel in patches."""
        return self._patches((mixture - self.center) / self.scale)

    def encode(self, target: Tensor, mixture: Tensor) -> Tensor:
        """See :class:`Representation`."""
        ratio = (target - mixture).clamp(-self.depth, 0)
        return self._patches(1 + 2 * ratio / self.depth)

    def weights(self, mixture: Tensor) -> Tensor:
        """See :class:`Representation`."""
        relative = (mixture - mixture.amax((1, 2), keepdim=True)).exp()
        return self._patches(relative**self.power + self.floor)

    def decode(self, state: Tensor, mixture: Tensor) -> Tensor:
        """See :class:`Representation`."""
        ratio = (self._whole(state) - 1).clamp(-2, 0) / 2 * self.depth
        return mixture + ratio

    def _patches(self, mel: Tensor) -> Tensor:
        a, b = self.factors
        if mel.shape[1] % a or mel.shape[2] % b:
            raise ValueError(f"{mel.shape[1]} frames and {mel.shape[2]} bands do not divide into patches of {a} x {b}")
        return mel.unflatten(2, (-1, b)).unflatten(1, (-1, a)).permute(0, 2, 4, 1, 3).flatten(1, 2)

    def _whole(self, patches: Tensor) -> Tensor:
        return patches.unflatten(1, self.factors).permute(0, 3, 1, 4, 2).flatten(3, 4).flatten(1, 2)


class VAELatents(nn.Module):
    """Whitened latents of a frozen autoencoder.

    Args:
        vae: Arguments of :class:`.KLVAE`.
        center: Subtracted from log-mels before encoding; 0 as published.
        scale: Divides them afterwards; 1 as published.
        relative: Whether estimates are decoded relative to the mixture.
        residual: Whether states are differences from the mixture's latent.
        floor: Weight of silent bins.
        power: Weights are the mean of (X / max X)^power over a latent's bins, plus floor; 0 counts every entry alike.
    """

    name = "vae"

    def __init__(
        self,
        vae: Mapping[str, Any] | None = None,
        center: float = 0.0,
        scale: float = 1.0,
        relative: bool = True,
        residual: bool = False,
        floor: float = 0.05,
        power: float = 0.0,
    ) -> None:
        super().__init__()
        if scale <= 0 or floor < 0 or power < 0:
            raise ValueError(f"need scale > 0, floor >= 0, power >= 0; got {scale}, {floor}, {power}")
        self.vae = KLVAE(**dict(vae or {})).requires_grad_(False)
        self.statistics = LatentStatistics(self.vae.latent_channels)
        self.center, self.scale, self.relative, self.residual = center, scale, relative, residual
        self.floor, self.power = floor, power
        self.channels = self.condition_channels = self.vae.latent_channels
        self.factors = (self.vae.downsampling, self.vae.downsampling)

    def config(self) -> dict[str, Any]:
        """See :class:`Representation`."""
        return {
            "name": self.name,
            "vae": self.vae.config(),
            "center": self.center,
            "scale": self.scale,
            "relative": self.relative,
            "residual": self.residual,
            "floor": self.floor,
            "power": self.power,
        }

    @torch.no_grad()
    def condition(self, mixture: Tensor) -> Tensor:
        """The mixture's latent: the mode, so that results are deterministic."""
        return self.statistics.normalize(self.vae.encode((mixture - self.center) / self.scale).mode())

    def encode(self, target: Tensor, mixture: Tensor) -> Tensor:
        """See :class:`Representation`; the mode as well."""
        state = self.condition(target)
        return state - self.condition(mixture) if self.residual else state

    def weights(self, mixture: Tensor) -> Tensor | None:
        """See :class:`Representation`; None where every entry counts alike."""
        if self.power == 0:
            return None
        loudness = (self.power * (mixture - mixture.amax((1, 2), keepdim=True))).exp()
        pooled = functional.avg_pool2d(loudness[:, None], self.factors)
        return (pooled + self.floor).expand(-1, self.channels, -1, -1)

    def decode(self, state: Tensor, mixture: Tensor) -> Tensor:
        """See :class:`Representation`."""
        if not (self.relative or self.residual):
            return self.reconstruct(state)
        shown = self.condition(mixture)
        estimate = self.reconstruct(state + shown if self.residual else state)
        if not self.relative:
            return estimate
        return mixture + (estimate - self.reconstruct(shown)).clamp(max=0)

    def reconstruct(self, latent: Tensor) -> Tensor:
        """What the autoencoder makes of whitened latents: log-mel `(B, T, bands)`."""
        return self.vae.decode(self.statistics.restore(latent)) * self.scale + self.center


_KINDS: dict[str, Any] = {"log-ratio": LogRatioPatches, "vae": VAELatents}


def build_representation(description: Mapping[str, Any] | None) -> LogRatioPatches | VAELatents:
    """A representation from its description, `{name: log-ratio, ...}` or `{name: vae, vae: {...}, ...}`.

    Raises:
        ValueError: Unknown name or arguments that make no sense.
    """
    arguments = dict(description or {"name": "log-ratio"})
    name = arguments.pop("name", None)
    if name not in _KINDS:
        raise ValueError(f"unknown representation {name!r}; known are {', '.join(_KINDS)}")
    try:
        return _KINDS[name](**arguments)
    except TypeError as error:
        raise ValueError(f"representation {name}: {error}") from error
