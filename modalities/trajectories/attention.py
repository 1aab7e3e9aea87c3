r"""Attention along time with relative positions at any real times, factorised.

The scores of frames t and s hold q_t . k_s and a relative part q~_t . psi(t - s). With psi made of cosines and sines
the relative part is an inner product of two vectors as well, since cos w(t - s) = cos wt cos ws + sin wt sin ws:

    q~_t . psi(t - s) = sum_w (a_w cos wt + b_w sin wt) cos ws + (a_w sin wt - b_w cos wt) sin ws

so that no tensor with both t and s and a feature axis is ever made, and frames may lie at any true times.

Features mix by softmax. Vectors mix by SiLU(score)/sqrt(T) without normalisation: silu(c (t - s)) is close to the
positive part of t - s, the kernel that turns accelerations into places, which no convex combination can express.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

__all__ = ["Clock", "TemporalMixing"]

_VECTOR_SIZE = 8


class Clock:
    """Cosines and sines of the frames' times, computed once per call of a network.

    Args:
        times: (B, T).
        rates: angular frequencies per unit of time, (F,).
        heads: how often they are laid side by side for the queries.
    """

    def __init__(self, times: Tensor, rates: Tensor, heads: int) -> None:
        # Times are counted from the middle: only differences matter, and small angles are exact.
        centred = times - times.mean(1, keepdim=True)
        angles = centred.unsqueeze(-1) * rates
        self.waves = torch.cat((angles.cos(), angles.sin()), -1)
        # Laid out in full: products with a short broadcast last axis are slow.
        self.cos, self.sin = (w.repeat(1, 1, heads).unsqueeze(1) for w in (angles.cos(), angles.sin()))
        span = (centred[:, -1:] - centred[:, :1]).clamp(min=1)
        # A straight line in time beside the waves: differences of long times without wrapping.
        self.line = (centred / span)[:, None, :, None]

    def scores(self, a: Tensor, b: Tensor) -> Tensor:
        """a cos w(t - s) + b sin w(t - s), summed over frequencies: (B, N, heads, T, T).

        Args:
            a: (B, N, T, heads F).
            b: likewise.
        """
        batch, agents, frames, _ = a.shape
        size = self.waves.shape[-1]
        on_cos = (a * self.cos + b * self.sin).unflatten(-1, (-1, size // 2))
        on_sin = (a * self.sin - b * self.cos).unflatten(-1, (-1, size // 2))
        # One product per sample: the waves are the same for all agents and heads.
        queries = torch.cat((on_cos, on_sin), -1).transpose(2, 3).reshape(batch, -1, size)
        return (queries @ self.waves.transpose(1, 2)).reshape(batch, agents, -1, frames, frames)


class TemporalMixing(nn.Module):
    """Mixes features h (B, N, T, H) and vectors v (B, N, T, D, C) of each agent over its frames.

    Args:
        hidden: H, divisible by heads.
        channels: C, divisible by heads.
        heads: attention heads of each kind.
        frequencies: of the relative part.
    """

    def __init__(self, hidden: int, channels: int, heads: int, frequencies: int) -> None:
        super().__init__()
        if hidden % heads or channels % heads:
            raise ValueError(f"hidden={hidden} and channels={channels} must be divisible by heads={heads}")
        self.heads = heads
        contents = [2 * hidden // heads, 2 * _VECTOR_SIZE]
        self.sizes = [heads * n for n in (*contents, *[frequencies] * 4, 2)]
        self.queries = nn.Linear(hidden, sum(self.sizes))
        self.values = nn.Linear(hidden, hidden)
        self.gate = nn.Linear(hidden, channels)
        self.out = nn.Linear(hidden, hidden)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, n: Tensor, v: Tensor, clock: Clock, absent: Tensor | None) -> tuple[Tensor, Tensor]:
        """Changes of h and v.

        Args:
            n: normalised features (B, N, T, H).
            v: vectors (B, N, T, D, C).
            clock: of the batch.
            absent: (B, N, T) bool, frames that are never looked at; None if there are none.
        """
        frames = n.shape[2]
        content, vector_content, a, b, va, vb, line = self.queries(n).split(self.sizes, -1)
        query, key = self._heads(content).chunk(2, -1)
        # Scaled before the products: they are the larger arrays.
        scale = 1 / math.sqrt(query.shape[-1])
        scores = (scale * query) @ key.transpose(-1, -2) + clock.scores(scale * a, scale * b)
        # level + slope (t - s), the part of the score that is linear in time.
        slope, level = line.transpose(2, 3).chunk(2, 2)
        now = clock.line.transpose(2, 3)
        linear = (level + slope * now).unsqueeze(-1) - slope.unsqueeze(-1) * now.unsqueeze(-2)
        query, key = self._heads(vector_content).chunk(2, -1)
        weights = (query / math.sqrt(_VECTOR_SIZE)) @ key.transpose(-1, -2) + clock.scores(va, vb) + linear
        weights = silu(weights)
        if absent is not None:
            hidden = absent[:, :, None, None, :]
            scores = scores.masked_fill(hidden, torch.finfo(n.dtype).min)
            weights = weights.masked_fill(hidden, 0)
        mixed = (scores.softmax(-1) @ self._heads(self.values(n))).transpose(2, 3).flatten(3)
        gate = self.gate(n).unsqueeze(3) / math.sqrt(frames)
        gated = (v * gate).unflatten(-1, (self.heads, -1)).permute(0, 1, 4, 2, 3, 5)
        moved = (weights @ gated.flatten(4)).unflatten(-1, gated.shape[4:]).permute(0, 1, 3, 4, 2, 5)
        return self.out(mixed), moved.flatten(4)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(2, 3)
