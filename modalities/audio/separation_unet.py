r"""The U-Net that estimates a target's velocity from noise, mixture and text.

Input are the noisy target and the mixture, concatenated on channels; the text acts through cross-attention. Every
level has residual blocks, shifted by an embedding of time :math:`[\cos(s t \omega_i), \sin(s t \omega_i)]`,
:math:`\omega_i = 10^{-4 i / (d/2)}`; from the second level on, two transformers follow each: one that attends to the
spectrogram itself only, and one that also attends to the text.

Defaults are the published network (265.5 M parameters); parameter names follow its checkpoints. Of its 16 output
channels only the first 8 were trained; new models need no more than the target has.

Source: FlowSep (arXiv 2409.07614), AudioLDM 2 (arXiv 2308.05734) for the second transformer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .spatial_transformer import SpatialTransformer, attention_bias

__all__ = ["SeparationUNet"]


class SeparationUNet(nn.Module):
    """Network of (x, t, text).

    Args:
        in_channels: Channels of noisy target and condition together.
        out_channels: Channels of the result.
        channels: Channels at full resolution, divisible by `norm_groups`.
        multipliers: Factor on `channels` at every level; each level halves time and frequency.
        num_res_blocks: Residual blocks per level; one more on the way up.
        attention_levels: Levels (0 is full resolution) with transformers.
        head_channels: Channels of an attention head; divides the channels of every level with transformers.
        context_channels: Channels of the text states.
        norm_groups: Groups of every group normalisation.
        time_scale: s: 1 as published (nearly all frequencies stay flat for t in [0, 1]); 1000 for new models.
        summary: Add a projection of the first text state to the embedding of time, so that the text acts on every
            residual block; for small models whose first state sums up the description.
        scale_shift: The embedding scales and shifts the second normalisation of every residual block instead of
            being added before it; with `summary`, words can then switch features on and off.
    """

    def __init__(
        self,
        in_channels: int = 16,
        out_channels: int = 16,
        channels: int = 128,
        multipliers: Sequence[int] = (1, 2, 3, 5),
        num_res_blocks: int = 2,
        attention_levels: Sequence[int] = (1, 2, 3),
        head_channels: int = 32,
        context_channels: int = 1024,
        norm_groups: int = 32,
        time_scale: float = 1.0,
        summary: bool = False,
        scale_shift: bool = False,
    ) -> None:
        super().__init__()
        widths = [channels * m for m in multipliers]
        _check_widths(widths, channels, attention_levels, head_channels, norm_groups)
        self._config: dict[str, Any] = {
            "in_channels": in_channels,
            "out_channels": out_channels,
            "channels": channels,
            "multipliers": list(multipliers),
            "num_res_blocks": num_res_blocks,
            "attention_levels": list(attention_levels),
            "head_channels": head_channels,
            "context_channels": context_channels,
            "norm_groups": norm_groups,
            "time_scale": time_scale,
            "summary": summary,
            "scale_shift": scale_shift,
        }
        self.in_channels, self.context_channels = in_channels, context_channels
        self.channels, self.time_scale = channels, time_scale
        self.downsampling = 2 ** (len(widths) - 1)
        self.checkpoint_activations = False
        """Recompute every block in the backward pass instead of keeping what it computed: less memory, more time."""
        embedding = 4 * channels

        def residual(before: int, after: int) -> nn.Module:
            return _ResBlock(before, after, embedding, norm_groups, scale_shift)

        def transformers(level: int) -> list[nn.Module]:
            if level not in attention_levels:
                return []
            width = widths[level]
            return [
                SpatialTransformer(width, head_channels, None, norm_groups),
                SpatialTransformer(width, head_channels, context_channels, norm_groups),
            ]

        self.time_embed = nn.Sequential(nn.Linear(channels, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        if summary:
            self.summary_embed = nn.Linear(context_channels, embedding)
        self.input_blocks = nn.ModuleList([nn.ModuleList([nn.Conv2d(in_channels, channels, 3, padding=1)])])
        skips, width = [channels], channels
        for level, target in enumerate(widths):
            for _ in range(num_res_blocks):
                block = [residual(width, target), *transformers(level)]
                self.input_blocks.append(nn.ModuleList(block))
                width = target
                skips.append(width)
            if level < len(widths) - 1:
                self.input_blocks.append(nn.ModuleList([_Downsample(width)]))
                skips.append(width)
        top = len(widths) - 1
        self.middle_block = nn.ModuleList(
            [
                residual(width, width),
                *transformers(top),
                residual(width, width),
            ]
        )
        self.output_blocks = nn.ModuleList()
        for level in reversed(range(len(widths))):
            for i in range(num_res_blocks + 1):
                target = widths[level]
                block = [residual(width + skips.pop(), target), *transformers(level)]
                width = target
                if level and i == num_res_blocks:
                    block.append(_Upsample(width))
                self.output_blocks.append(nn.ModuleList(block))
        last = nn.Conv2d(channels, out_channels, 3, padding=1)
        _zero(last)
        self.out = nn.Sequential(nn.GroupNorm(norm_groups, channels), nn.SiLU(), last)

    def config(self) -> dict[str, Any]:
        """Constructor arguments as plain values."""
        return dict(self._config)

    def forward(self, x: Tensor, t: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """The network's output.

        Args:
            x: Noisy target and condition, `(B, in_channels, T, F)`; T and F divisible by `downsampling`.
            t: Time, `(B,)` or a scalar, in the direction the weights were trained for (published: 1 is data).
            context: Text states, `(B, L, context_channels)`.
            mask: Which of them count, `(B, L)` bool; default: all. A row without any attends to all evenly, as
                published.

        Returns:
            `(B, out_channels, T, F)`.
        """
        self._check(x, context, mask)
        embedding = self.time_embed(self._time_features(t.expand(len(x)), x.dtype))
        if hasattr(self, "summary_embed"):
            embedding = embedding + self.summary_embed(context[:, 0])
        # The same in every residual block.
        embedding = F.silu(embedding)
        bias = None if mask is None else attention_bias(mask, x.dtype)
        h, skips = x, []
        for block in self.input_blocks:
            h = self._block(block, h, embedding, context, bias)
            skips.append(h)
        h = self._block(self.middle_block, h, embedding, context, bias)
        for block in self.output_blocks:
            h = self._block(block, torch.cat([h, skips.pop()], 1), embedding, context, bias)
        return self.out(h)

    def _block(self, block: nn.Module, x: Tensor, embedding: Tensor, context: Tensor, bias: Tensor | None) -> Tensor:
        if self.checkpoint_activations and torch.is_grad_enabled():
            return cast(Tensor, checkpoint(_run, block, x, embedding, context, bias, use_reentrant=False))
        return _run(block, x, embedding, context, bias)

    def _time_features(self, t: Tensor, dtype: torch.dtype) -> Tensor:
        half = self.channels // 2
        exponents = torch.arange(half, device=t.device, dtype=torch.float32) / half
        angles = self.time_scale * t.float()[:, None] * torch.exp(-math.log(1e4) * exponents)
        return torch.cat([angles.cos(), angles.sin()], 1).to(dtype)

    def _check(self, x: Tensor, context: Tensor, mask: Tensor | None) -> None:
        d = self.downsampling
        if x.ndim != 4 or x.shape[1] != self.in_channels or x.shape[2] % d or x.shape[3] % d:
            raise ValueError(
                f"x must be (B, {self.in_channels}, T, F) with T and F divisible by {d}, got shape {tuple(x.shape)}"
            )
        if context.ndim != 3 or len(context) != len(x) or context.shape[2] != self.context_channels:
            raise ValueError(
                f"context must be ({len(x)}, L, {self.context_channels}), got shape {tuple(context.shape)}"
            )
        if mask is not None and mask.shape != context.shape[:2]:
            raise ValueError(f"mask must be {tuple(context.shape[:2])}, got shape {tuple(mask.shape)}")


def _run(block: nn.Module, x: Tensor, embedding: Tensor, context: Tensor, bias: Tensor | None) -> Tensor:
    for layer in cast(nn.ModuleList, block):
        if isinstance(layer, _ResBlock):
            x = layer(x, embedding)
        elif isinstance(layer, SpatialTransformer):
            x = layer(x, context, bias)
        else:
            x = layer(x)
    return x


class _ResBlock(nn.Module):
    def __init__(
        self, in_channels: int, out_channels: int, embedding: int, groups: int, scale_shift: bool = False
    ) -> None:
        super().__init__()
        self.scale_shift = scale_shift
        # SiLU, dropout and the like sit at the numbers left out; they carry no weights.
        self.in_layers = nn.ModuleDict(
            {"0": nn.GroupNorm(groups, in_channels), "2": nn.Conv2d(in_channels, out_channels, 3, padding=1)}
        )
        self.emb_layers = nn.ModuleDict({"1": nn.Linear(embedding, out_channels * (1 + scale_shift))})
        self.out_layers = nn.ModuleDict(
            {"0": nn.GroupNorm(groups, out_channels), "3": nn.Conv2d(out_channels, out_channels, 3, padding=1)}
        )
        _zero(self.out_layers["3"])
        if in_channels != out_channels:
            self.skip_connection = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.in_layers["2"](F.silu(self.in_layers["0"](x)))
        told = self.emb_layers["1"](embedding)[:, :, None, None]
        if self.scale_shift:
            scale, shift = told.chunk(2, 1)
            h = self.out_layers["0"](h) * (1 + scale) + shift
        else:
            h = self.out_layers["0"](h + told)
        h = self.out_layers["3"](F.silu(h))
        return h + (self.skip_connection(x) if hasattr(self, "skip_connection") else x)


class _Downsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class _Upsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def _zero(module: nn.Module) -> None:
    for parameter in module.parameters():
        nn.init.zeros_(parameter)


def _check_widths(
    widths: Sequence[int], channels: int, attention_levels: Sequence[int], head_channels: int, norm_groups: int
) -> None:
    if channels % norm_groups or channels % 2:
        raise ValueError(f"channels ({channels}) must be even and divisible by norm_groups ({norm_groups})")
    for level in attention_levels:
        if not 0 <= level < len(widths):
            raise ValueError(f"attention level {level} does not exist; levels are 0 to {len(widths) - 1}")
        if widths[level] % head_channels:
            raise ValueError(
                f"level {level} has {widths[level]} channels, which head_channels ({head_channels}) must divide"
            )
