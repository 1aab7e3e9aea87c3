r"""Transformer over the places of a feature map, with or without text.

.. math:: x \leftarrow x + \mathrm{Attn}_1(\mathrm{LN}\,x), \quad x \leftarrow x + \mathrm{Attn}_2(\mathrm{LN}\,x, c),
   \quad x \leftarrow x + W_2 \big(a \odot \mathrm{GELU}(b)\big), \; [a, b] = W_1 \mathrm{LN}\,x

between two 1x1 convolutions, added to the map. Without text the second attention is over the map as well. The last
convolution starts at zero, so that a new transformer is the identity.

Source: Rombach et al. 2022 (arXiv 2112.10752), appendix E.2.1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["SpatialTransformer", "attention_bias"]


class SpatialTransformer(nn.Module):
    """One transformer block over `T x F` tokens.

    Args:
        channels: Channels of the map.
        head_channels: Channels per head, divides `channels`.
        context_channels: Channels of the text states; None for a block without text.
        norm_groups: Groups of the group normalisation.
    """

    def __init__(self, channels: int, head_channels: int, context_channels: int | None, norm_groups: int = 32) -> None:
        super().__init__()
        self.takes_context = context_channels is not None
        self.norm = nn.GroupNorm(norm_groups, channels, eps=1e-6)
        self.proj_in = nn.Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList([_Block(channels, head_channels, context_channels)])
        self.proj_out = nn.Conv2d(channels, channels, 1)
        for parameter in self.proj_out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, context: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """The map plus what the block adds.

        Args:
            x: `(B, channels, T, F)`.
            context: Text states `(B, L, context_channels)`; ignored by a block without text.
            bias: Of :func:`attention_bias`.

        Returns:
            `(B, channels, T, F)`.
        """
        tokens = self.proj_in(self.norm(x)).flatten(2).transpose(1, 2)
        if not self.takes_context:
            context = bias = None
        tokens = self.transformer_blocks[0](tokens, context, bias)
        return x + self.proj_out(tokens.transpose(1, 2).reshape(x.shape))


class _Block(nn.Module):
    def __init__(self, channels: int, head_channels: int, context_channels: int | None) -> None:
        super().__init__()
        self.attn1 = _Attention(channels, head_channels, None)
        self.ff = _GatedFeedForward(channels)
        self.attn2 = _Attention(channels, head_channels, context_channels)
        self.norm1 = nn.LayerNorm(channels)
        self.norm2 = nn.LayerNorm(channels)
        self.norm3 = nn.LayerNorm(channels)

    def forward(self, x: Tensor, context: Tensor | None, bias: Tensor | None) -> Tensor:
        x = x + self.attn1(self.norm1(x), None, None)
        x = x + self.attn2(self.norm2(x), context, bias)
        return x + self.ff(self.norm3(x))


class _Attention(nn.Module):
    def __init__(self, channels: int, head_channels: int, context_channels: int | None) -> None:
        super().__init__()
        self.head_channels = head_channels
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(context_channels or channels, channels, bias=False)
        self.to_v = nn.Linear(context_channels or channels, channels, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor, context: Tensor | None, bias: Tensor | None) -> Tensor:
        source = x if context is None else context
        q, k, v = (
            projected.unflatten(2, (-1, self.head_channels)).transpose(1, 2)
            for projected in (self.to_q(x), self.to_k(source), self.to_v(source))
        )
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.to_out[0](attended.transpose(1, 2).flatten(2))


class _GatedFeedForward(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        # The numbers are those of the published checkpoints; activation and dropout carry no weights.
        self.net = nn.ModuleDict({"0": _GEGLU(channels, 4 * channels), "2": nn.Linear(4 * channels, channels)})

    def forward(self, x: Tensor) -> Tensor:
        return self.net["2"](self.net["0"](x))


class _GEGLU(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.proj = nn.Linear(in_channels, 2 * out_channels)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, -1)
        return value * F.gelu(gate)


def attention_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Additive attention mask of `(B, L)` bool: 0 where true, the lowest finite number elsewhere, `(B, 1, 1, L)`.

    Finite, so that a row without a single true attends evenly instead of giving NaN.
    """
    lowest = torch.finfo(dtype).min
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask.bool(), lowest)[:, None, None]
