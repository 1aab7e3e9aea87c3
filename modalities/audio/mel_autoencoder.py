r"""The first stage of latent separation, to be trained: an autoencoder of log-mel spectrograms.

.. math:: L = \frac{\sum w |S - \hat S|}{\sum w} + \lambda_{KL} \overline{\mathrm{KL}} (+ \lambda_M L_M + L_G + L_D),
   \qquad w = e^{p (S - \max S)} + \text{floor}

S is normalised as :math:`(S - \text{center}) / \text{scale}`, the KL is the mean over the entries of the latent. The
multi-resolution loss adds the same error of spectrograms averaged over 2 x 2 and 4 x 4 bins. For separators that render
by the mixture's phase

.. math:: L_M = \log \frac{\sum (e^{S} - e^{X + \min(\hat S - \hat X, 0)})^2}{\sum e^{2 S}}

is what the autoencoder costs them, with the mixture X: the error of the spectrogram that :class:`.VAELatents` decodes,
relative to the sound, so that clean mixtures count as much as hard ones. Means and deviations of the latents' channels
are gathered while training (weights of the past fall by 0.99 per step) and stored with the model, so that every user of
the latents whitens them alike.

Source: Rombach et al. 2022 (arXiv 2112.10752); for spectrograms Liu et al. 2023 (arXiv 2301.12503).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ...core import NoiseSource
from ..adapter import Adapter
from ..registry import register
from .mel import LogMel, MelSettings
from .patch_gan import PatchDiscriminator, adaptive_weight, discriminator_loss, generator_loss
from .representations import VAELatents
from .separator import MixtureBatch

__all__ = ["MelAutoencoder"]

_PAST = 0.99
_SHARE_FLOOR = 1e-5


@register
class MelAutoencoder(Adapter):
    """Trainable KL autoencoder.

    Args:
        vae: Arguments of :class:`.KLVAE`.
        front: Arguments of :class:`.MelSettings`.
        seconds: Length of the windows it is trained on.
        center: Subtracted from log-mels before encoding; 0 as published.
        scale: Divides them afterwards; 1 as published.
        loss: "l1", or "multi-resolution".
        kl_weight: lambda.
        loudness_power: p; 0 counts every bin alike, as published.
        loudness_floor: Weight of silent bins.
        mask_weight: lambda_M; above 0 every sample trains on its mixture and its target.
        first_std: Standard deviation of the posterior before training; 1 takes long to become narrow.
        adversarial_weight: Factor on the balanced L_G; 0 trains without discriminator.

    Raises:
        ValueError: Values that make no sense.
    """

    name: ClassVar[str] = "mel-autoencoder"

    def __init__(
        self,
        vae: Mapping[str, Any] | None = None,
        front: Mapping[str, Any] | None = None,
        seconds: float = 2.56,
        center: float = 0.0,
        scale: float = 1.0,
        loss: Literal["l1", "multi-resolution"] = "l1",
        kl_weight: float = 1e-3,
        loudness_power: float = 0.0,
        loudness_floor: float = 0.05,
        mask_weight: float = 0.0,
        first_std: float = 1.0,
        adversarial_weight: float = 0.0,
    ) -> None:
        super().__init__()
        if loss not in ("l1", "multi-resolution"):
            raise ValueError(f"loss must be 'l1' or 'multi-resolution', got {loss!r}")
        factors = {"kl_weight": kl_weight, "loudness_power": loudness_power, "loudness_floor": loudness_floor}
        factors |= {"mask_weight": mask_weight, "adversarial_weight": adversarial_weight}
        negative = [name for name, value in factors.items() if value < 0]
        if negative:
            raise ValueError(f"{', '.join(negative)} must not be negative")
        if first_std <= 0:
            raise ValueError(f"first_std must be positive, got {first_std}")
        self.front, self.seconds = LogMel(MelSettings(**dict(front or {}))), float(seconds)
        self.latents = VAELatents(vae, center, scale)
        self.latents.vae.requires_grad_(True)
        with torch.no_grad():
            bias = self.latents.vae.quant_conv.bias
            assert bias is not None
            bias[self.latents.channels :] += 2 * math.log(first_std)
        self.kind, self.kl_weight, self.adversarial_weight = loss, kl_weight, adversarial_weight
        self.loudness_power, self.loudness_floor = loudness_power, loudness_floor
        self.mask_weight, self.first_std = mask_weight, first_std
        # Three strided layers would leave nothing of a few bands.
        layers = 3 if self.front.settings.num_bands >= 32 else 2
        self.discriminator = PatchDiscriminator(layers=layers) if adversarial_weight else None

    def config(self) -> dict[str, Any]:
        """See :class:`.Adapter`."""
        latents = self.latents.config()
        return {
            "vae": latents["vae"],
            "front": self.front.config(),
            "seconds": self.seconds,
            "center": latents["center"],
            "scale": latents["scale"],
            "loss": self.kind,
            "kl_weight": self.kl_weight,
            "loudness_power": self.loudness_power,
            "loudness_floor": self.loudness_floor,
            "mask_weight": self.mask_weight,
            "first_std": self.first_std,
            "adversarial_weight": self.adversarial_weight,
        }

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self.front.settings.sample_rate

    def loss(self, batch: MixtureBatch, noise: NoiseSource) -> Tensor:
        """Loss per sample, `(B,)`: of mixtures for even, of targets for odd identities; of both with `mask_weight`."""
        if self.mask_weight:
            waves = torch.cat([batch.target, batch.mixture])
        else:
            odd = (noise.ids % 2 == 1).to(batch.mixture.device)
            waves = torch.where(odd[:, None], batch.target, batch.mixture)
        log_mel = self.front(waves)
        normal = (log_mel - self.latents.center) / self.latents.scale
        vae = self.latents.vae
        posterior = vae.encode(normal)
        parts = posterior.mean.split(len(noise))
        epsilon = torch.cat([noise.normal(part, key) for key, part in enumerate(parts)])
        rebuilt = vae.decode(posterior.sample(epsilon))
        if self.training and torch.is_grad_enabled():
            self._gather(posterior.mean)
        error = self._error(rebuilt, normal, self._weights(log_mel))
        total = error + self.kl_weight * posterior.kl() / posterior.mean[0].numel()
        if self.discriminator is not None:
            deceived = generator_loss(self.discriminator, rebuilt)
            if torch.is_grad_enabled():
                balance = adaptive_weight(error.mean(), deceived.mean(), vae.decoder.conv_out.weight)
                total = total + self.adversarial_weight * balance * deceived
            total = total + discriminator_loss(self.discriminator, normal, rebuilt)
        if not self.mask_weight:
            return total
        target, mixture = log_mel.chunk(2)
        rebuilt_target, rebuilt_mixture = rebuilt.chunk(2)
        masked = mixture + self.latents.scale * (rebuilt_target - rebuilt_mixture).clamp(max=0)
        lost = (masked.exp() - target.exp()).square().flatten(1).sum(1)
        share = lost / target.exp().square().flatten(1).sum(1)
        first, second = total.chunk(2)
        return (first + second) / 2 + self.mask_weight * (share + _SHARE_FLOOR).log()

    @torch.no_grad()
    def sample(self, log_mel: Tensor) -> Tensor:
        """Reconstruction of log-mels `(B, T, bands)` through the mode of the latent."""
        return self.latents.reconstruct(self.latents.condition(log_mel))

    def _weights(self, log_mel: Tensor) -> Tensor:
        if self.loudness_power == 0:
            return torch.ones_like(log_mel)
        relative = log_mel - log_mel.amax((1, 2), keepdim=True)
        return (self.loudness_power * relative).exp() + self.loudness_floor

    def _error(self, rebuilt: Tensor, normal: Tensor, weights: Tensor) -> Tensor:
        sizes = (1,) if self.kind == "l1" else (1, 2, 4)
        errors = []
        for size in sizes:
            a, b, w = (F.avg_pool2d(x[:, None], size) if size > 1 else x for x in (rebuilt, normal, weights))
            errors.append((w * (a - b).abs()).flatten(1).sum(1) / w.flatten(1).sum(1))
        return torch.stack(errors).mean(0)

    @torch.no_grad()
    def _gather(self, latent: Tensor) -> None:
        # First and second moments of a moving window, as batch normalisation keeps them.
        statistics = self.latents.statistics
        flat = latent.detach().transpose(0, 1).flatten(1)
        mean, std = flat.mean(1), flat.std(1).clamp(min=1e-4)
        fresh = bool((statistics.mean == 0).all() & (statistics.std == 1).all())
        past = 0.0 if fresh else _PAST
        statistics.set(past * statistics.mean + (1 - past) * mean, past * statistics.std + (1 - past) * std)
