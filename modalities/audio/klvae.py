r"""A variational autoencoder of log-mel spectrograms, the first stage of latent diffusion.

.. math:: z = \mu(S) + \sigma(S)\, \epsilon, \qquad \hat S = D(z), \qquad
   \mathrm{KL} = \tfrac12 \big(\mu^2 + \sigma^2 - 1 - \log \sigma^2\big)

The encoder halves time and frequency `len(multipliers) - 1` times; one attention over all places sits in the middle of
both halves. Defaults are the published network of AudioLDM and FlowSep (55.4 M parameters, `(1024, 64)` to
`(8, 256, 16)`); parameter names follow its checkpoints. Small networks do better with `patch`: squares of bins become
channels first, so that nothing is computed at full resolution (Shi et al. 2016, arXiv 1609.05158).

Source: Rombach et al. 2022 (arXiv 2112.10752), Liu et al. 2023 (arXiv 2301.12503).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["KLVAE", "LatentStatistics", "Posterior"]


@dataclass(frozen=True)
class Posterior:
    """Diagonal Gaussian over latents.

    Args:
        mean: `(B, C, T, F)`.
        logvar: Same shape, within [-30, 20].
    """

    mean: Tensor
    logvar: Tensor

    def mode(self) -> Tensor:
        """The mean: what a deterministic condition uses."""
        return self.mean

    def sample(self, epsilon: Tensor) -> Tensor:
        """mean + std epsilon, for standard normal `epsilon` of the same shape."""
        return self.mean + (0.5 * self.logvar).exp() * epsilon

    def kl(self) -> Tensor:
        """KL to the standard normal, summed over a sample's latent: `(B,)`."""
        return 0.5 * (self.mean.square() + self.logvar.exp() - 1 - self.logvar).flatten(1).sum(1)


class KLVAE(nn.Module):
    """Encoder and decoder.

    Args:
        channels: Channels at full resolution, divisible by `norm_groups`.
        multipliers: Factor on `channels` at every resolution.
        num_res_blocks: Residual blocks per resolution of the encoder; the decoder has one more.
        latent_channels: Channels of z.
        norm_groups: Groups of every group normalisation.
        patch: Side of the squares of bins that become channels; 1 as published.
    """

    def __init__(
        self,
        channels: int = 128,
        multipliers: Sequence[int] = (1, 2, 4),
        num_res_blocks: int = 2,
        latent_channels: int = 8,
        norm_groups: int = 32,
        patch: int = 1,
    ) -> None:
        super().__init__()
        if channels % norm_groups:
            raise ValueError(f"channels ({channels}) must be divisible by norm_groups ({norm_groups})")
        if patch < 1:
            raise ValueError(f"patch must be at least 1, got {patch}")
        self._config: dict[str, Any] = {
            "channels": channels,
            "multipliers": list(multipliers),
            "num_res_blocks": num_res_blocks,
            "latent_channels": latent_channels,
            "norm_groups": norm_groups,
            "patch": patch,
        }
        widths = [channels * m for m in multipliers]
        self.latent_channels, self.downsampling = latent_channels, patch * 2 ** (len(widths) - 1)
        self.patch, inputs = patch, patch * patch
        self.encoder = _Encoder(inputs, widths, channels, num_res_blocks, 2 * latent_channels, norm_groups)
        self.decoder = _Decoder(inputs, widths, num_res_blocks, latent_channels, norm_groups)
        self.quant_conv = nn.Conv2d(2 * latent_channels, 2 * latent_channels, 1)
        self.post_quant_conv = nn.Conv2d(latent_channels, latent_channels, 1)

    def config(self) -> dict[str, Any]:
        """Constructor arguments as plain values."""
        return dict(self._config)

    def encode(self, log_mel: Tensor) -> Posterior:
        """Latent distribution.

        Args:
            log_mel: `(B, T, num_bands)`, both divisible by `downsampling`.

        Returns:
            Of shape `(B, latent_channels, T / downsampling, num_bands / downsampling)`.
        """
        if log_mel.ndim != 3 or log_mel.shape[1] % self.downsampling or log_mel.shape[2] % self.downsampling:
            raise ValueError(
                f"log_mel must be (B, T, bands) with T and bands divisible by {self.downsampling}, got shape "
                f"{tuple(log_mel.shape)}"
            )
        mean, logvar = self.quant_conv(self.encoder(F.pixel_unshuffle(log_mel[:, None], self.patch))).chunk(2, 1)
        return Posterior(mean, logvar.clamp(-30, 20))

    def decode(self, latent: Tensor) -> Tensor:
        """Log-mel spectrogram `(B, T, num_bands)` of a latent `(B, latent_channels, T', F')`."""
        if latent.ndim != 4 or latent.shape[1] != self.latent_channels:
            raise ValueError(f"latent must be (B, {self.latent_channels}, T, F), got shape {tuple(latent.shape)}")
        return F.pixel_shuffle(self.decoder(self.post_quant_conv(latent)), self.patch)[:, 0]

    def forward(self, log_mel: Tensor, epsilon: Tensor | None = None) -> tuple[Tensor, Posterior]:
        """Reconstruction from a sample (from the mode without `epsilon`), and the posterior."""
        posterior = self.encode(log_mel)
        return self.decode(posterior.mode() if epsilon is None else posterior.sample(epsilon)), posterior


class LatentStatistics(nn.Module):
    """Whitening of latents per channel, stored with a model: :math:`(z - \\mu_c) / \\sigma_c`.

    Args:
        channels: Latent channels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))

    def set(self, mean: Tensor, std: Tensor) -> None:
        """Choose the statistics, `(channels,)` each or scalars.

        Raises:
            ValueError: Not finite, or a standard deviation that is not positive.
        """
        if not (torch.isfinite(mean).all() and torch.isfinite(std).all() and (std > 0).all()):
            raise ValueError(f"latent statistics must be finite with std > 0, got mean {mean} and std {std}")
        self.mean.copy_(mean.expand_as(self.mean))
        self.std.copy_(std.expand_as(self.std))

    def set_scale_factor(self, scale_factor: float) -> None:
        """The published convention: latents are multiplied by one number."""
        self.set(torch.zeros(()), torch.tensor(1 / scale_factor))

    def measure(self, latents: Tensor) -> None:
        """Take the statistics of latents `(B, channels, T, F)`, as many as there are."""
        flat = latents.double().transpose(0, 1).flatten(1)
        self.set(flat.mean(1).to(self.mean), flat.std(1).to(self.std))

    def normalize(self, latent: Tensor) -> Tensor:
        """`(B, channels, T, F)` to zero mean and unit variance per channel."""
        return (latent - self.mean[:, None, None]) / self.std[:, None, None]

    def restore(self, latent: Tensor) -> Tensor:
        """Inverse of :meth:`normalize`."""
        return latent * self.std[:, None, None] + self.mean[:, None, None]


class _Encoder(nn.Module):
    def __init__(
        self,
        in_channels: int,
        widths: Sequence[int],
        channels: int,
        num_blocks: int,
        out_channels: int,
        groups: int,
    ) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.down = nn.ModuleList()
        for i, (before, width) in enumerate(zip([channels, *widths], widths, strict=False)):
            level = nn.Module()
            level.block = nn.ModuleList(_ResBlock(width if j else before, width, groups) for j in range(num_blocks))
            if i < len(widths) - 1:
                level.downsample = _Downsample(width)
            self.down.append(level)
        self.mid = _Middle(widths[-1], groups)
        self.norm_out = nn.GroupNorm(groups, widths[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(widths[-1], out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down:
            for block in cast(nn.ModuleList, level.block):
                x = block(x)
            if hasattr(level, "downsample"):
                x = cast(nn.Module, level.downsample)(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class _Decoder(nn.Module):
    def __init__(
        self, out_channels: int, widths: Sequence[int], num_blocks: int, latent_channels: int, groups: int
    ) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(latent_channels, widths[-1], 3, padding=1)
        self.mid = _Middle(widths[-1], groups)
        levels, before = [], widths[-1]
        for i in reversed(range(len(widths))):
            level = nn.Module()
            level.block = nn.ModuleList(
                _ResBlock(widths[i] if j else before, widths[i], groups) for j in range(num_blocks + 1)
            )
            if i > 0:
                level.upsample = _Upsample(widths[i])
            before = widths[i]
            levels.append(level)
        # Index 0 is the highest resolution, which runs last.
        self.up = nn.ModuleList(reversed(levels))
        self.norm_out = nn.GroupNorm(groups, widths[0], eps=1e-6)
        self.conv_out = nn.Conv2d(widths[0], out_channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            for block in cast(nn.ModuleList, level.block):
                x = block(x)
            if hasattr(level, "upsample"):
                x = cast(nn.Module, level.upsample)(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class _ResBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_channels, eps=1e-6)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, out_channels, eps=1e-6)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        if in_channels != out_channels:
            self.nin_shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class _Middle(nn.Module):
    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.block_1 = _ResBlock(channels, channels, groups)
        self.attn_1 = _Attention(channels, groups)
        self.block_2 = _ResBlock(channels, channels, groups)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class _Attention(nn.Module):
    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (conv(h).flatten(2).transpose(1, 2)[:, None] for conv in (self.q, self.k, self.v))
        attended = F.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2)
        return x + self.proj_out(attended.reshape(x.shape))


class _Downsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        # Padding on the right and at the bottom only, as the checkpoints were trained.
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class _Upsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
