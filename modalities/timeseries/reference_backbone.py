r"""The published network of TSDiff: residual blocks of gated state space layers on single positions.

    h = relu(W x + b)
    each block:  u = h + W_t e(i);  v = u + S4(LayerNorm(u));  g = tanh(v) * sigmoid(v)
                 skip <- skip + W_2 g,  h <- h + W_1 g
    out = W relu(W skip)   (+ x, where the data set's configuration says so)

The step i = 0 ... T - 1 is embedded by 64 sines and 64 cosines. Dropout is 0 in every published configuration and left
out. The feature encoders are dead weights in the unconditional model: features are never passed.

Source: `Kollovieh et al. 2023 <https://arxiv.org/abs/2307.11494>`_, appendix B.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...core import Condition
from .reference_s4 import ReferenceS4

__all__ = ["ReferenceBackbone"]

_EMBEDDING = 128


class _Block(nn.Module):
    def __init__(self, hidden: int, modes: int, length: int, features: int) -> None:
        super().__init__()
        self.step = nn.Linear(hidden, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.filter = ReferenceS4(hidden, modes, length)
        self.mix = nn.Conv1d(hidden, hidden, 1)
        self.residual = nn.Conv1d(hidden, hidden, 1)
        self.skip = nn.Conv1d(hidden, hidden, 1)
        self.features = nn.Conv1d(features, hidden, 1)

    def forward(self, h: Tensor, step: Tensor, features: Tensor | None) -> tuple[Tensor, Tensor]:
        """Positions are the second axis, as in `(B, L, hidden)`; the kernels of the 1 x 1 convolutions are matrices."""
        u = h + self.step(step).unsqueeze(1)
        filtered = F.gelu(self.filter(self.norm(u).transpose(1, 2))).transpose(1, 2)
        v = u + _pointwise(self.mix, filtered)
        if features is not None:
            v = v + _pointwise(self.features, features)
        gated = torch.tanh(v) * torch.sigmoid(v)
        weight = torch.cat((self.residual.weight, self.skip.weight))[..., 0]
        bias = torch.cat((self.residual.bias, self.skip.bias))  # pyright: ignore[reportArgumentType, reportCallIssue]
        residual, skip = F.linear(gated, weight, bias).chunk(2, dim=-1)
        return h + residual, skip


class ReferenceBackbone(nn.Module):
    """Network of the published model; parameters have the official shapes.

    Args:
        length: window length L.
        channels: channels C of the input: the series and its lags.
        features: feature channels of the (dead) feature encoders.
        hidden: width of the stack.
        blocks: number of residual blocks.
        modes: stored modes per channel of each state space layer.
        add_input: whether the input is added to the output.
    """

    frequencies: Tensor

    def __init__(
        self,
        length: int,
        channels: int,
        features: int,
        hidden: int = 64,
        blocks: int = 3,
        modes: int = 64,
        add_input: bool = False,
    ) -> None:
        super().__init__()
        self.length, self.channels, self.add_input = length, channels, add_input
        self.embed = nn.Linear(channels, hidden)
        self.step = nn.Sequential(nn.Linear(_EMBEDDING, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU())
        self.blocks = nn.ModuleList(_Block(hidden, modes, length, features) for _ in range(blocks))
        self.head = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, channels))
        half = _EMBEDDING // 2
        frequencies = torch.exp(-math.log(10_000) / (half - 1) * torch.arange(half))
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(
        self, x: Tensor, t: Tensor, *, mask: Tensor | None = None, condition: Condition | None = None
    ) -> Tensor:
        """Evaluates the network.

        Args:
            x: noisy windows, shape `(B, L, C)`.
            t: steps 0 ... T - 1 (as numbers of any type), shape `(B,)`.
            mask: ignored.
            condition: `features` of shape `(B, L, F)`, for the conditional variant; otherwise ignored.

        Returns:
            Predicted noise, shape `(B, L, C)`.
        """
        if x.shape[1:] != (self.length, self.channels):
            raise ValueError(
                f"the network was built for windows of shape (B, {self.length}, {self.channels}), got {tuple(x.shape)}"
            )
        angles = t.unsqueeze(-1).to(x) * self.frequencies
        step = self.step(torch.cat((angles.sin(), angles.cos()), dim=-1))
        features = None if condition is None else condition.get("features")
        h = F.relu(self.embed(x))
        total = None
        for block in self.blocks:
            h, skip = block(h, step, features)
            total = skip if total is None else total + skip
        out = self.head(total)
        return out + x if self.add_input else out


def _pointwise(convolution: nn.Conv1d, x: Tensor) -> Tensor:
    return F.linear(x, convolution.weight[..., 0], convolution.bias)
