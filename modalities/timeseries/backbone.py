r"""Denoising network for windows of time series: a residual stack of gated state space layers.

    h = embed(patches(x)) + position + calendar
    for each block:  u = h + W_t e(t);  g = tanh(a) * sigmoid(b), (a, b) = W_g gelu(S4D(LayerNorm(u)));
                     h <- h + W_h g,  skip <- skip + W_s g
    out = unpatch(W_2 relu(W_1 skip))                                    (W_2 starts at zero)

after TSDiff (`Kollovieh et al. 2023 <https://arxiv.org/abs/2307.11494>`_) and DiffWave. Patches of p positions divide
the length of the sequence, hence the cost, by p.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...core import Condition
from .s4d import S4D

__all__ = ["Backbone", "StepEmbedding"]


class StepEmbedding(nn.Module):
    """Sines and cosines of the diffusion time, mixed by a small network.

    Args:
        features: number of sines and cosines together (even).
        hidden: width of the result.
    """

    frequencies: Tensor

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        half = features // 2
        # Wavelengths from the whole unit interval down to about a hundredth of it: one step of a 100-step process.
        self.register_buffer("frequencies", torch.logspace(0, math.log10(2 * math.pi * 50), half), persistent=False)
        self.mix = nn.Sequential(nn.Linear(2 * half, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU())

    def forward(self, t: Tensor) -> Tensor:
        """Maps times `(B,)` in [0, 1] to embeddings `(B, hidden)`."""
        angles = t.unsqueeze(-1) * self.frequencies.to(t)
        return self.mix(torch.cat((angles.sin(), angles.cos()), dim=-1))


class Block(nn.Module):
    """One residual block: step embedding in, gated state space layer, residual and skip out."""

    def __init__(self, hidden: int, modes: int) -> None:
        super().__init__()
        self.step = nn.Linear(hidden, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.filter = S4D(hidden, modes)
        self.gate = nn.Linear(hidden, 2 * hidden)
        self.exit = nn.Linear(hidden, 2 * hidden)

    def forward(self, h: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        u = self.norm(h + self.step(step).unsqueeze(1))
        filtered = self.filter(u.transpose(1, 2)).transpose(1, 2)
        a, b = self.gate(F.gelu(filtered)).chunk(2, dim=-1)
        residual, skip = self.exit(torch.tanh(a) * torch.sigmoid(b)).chunk(2, dim=-1)
        return h + residual, skip


class Backbone(nn.Module):
    """Network of the unconditional time series denoiser.

    Args:
        length: window length L the network is built for (context and horizon together).
        channels: channels C of a window.
        covariates: number F of covariate channels known over the whole window, 0 for none.
        hidden: width of the stack.
        blocks: number of residual blocks.
        modes: complex modes per channel of each state space layer.
        patch: positions per patch, 1, 2 or 4.
    """

    def __init__(
        self,
        length: int,
        channels: int = 1,
        covariates: int = 0,
        hidden: int = 64,
        blocks: int = 3,
        modes: int = 32,
        patch: int = 2,
    ) -> None:
        super().__init__()
        if patch not in (1, 2, 4):
            raise ValueError(f"patch must be 1, 2 or 4, got {patch}")
        self.length, self.channels, self.covariates, self.patch = length, channels, covariates, patch
        tokens = -(-length // patch)
        self.embed = nn.Linear(patch * channels, hidden)
        self.position = nn.Parameter(torch.zeros(tokens, hidden))
        self.calendar = nn.Linear(patch * covariates, hidden) if covariates else None
        self.step = StepEmbedding(128, hidden)
        self.blocks = nn.ModuleList(Block(hidden, modes) for _ in range(blocks))
        self.head = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, patch * channels))
        last = self.head[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(
        self, x: Tensor, t: Tensor, *, mask: Tensor | None = None, condition: Condition | None = None
    ) -> Tensor:
        """Evaluates the network.

        Args:
            x: scaled noisy windows, shape `(B, L, C)`.
            t: diffusion times in [0, 1], shape `(B,)` or `()`.
            mask: ignored: windows all have the same length, and unobserved values are a matter of the loss.
            condition: `covariates` of shape `(B, L, F)`, if the network was built with any.

        Returns:
            Prediction, shape `(B, L, C)`.
        """
        if x.shape[1:] != (self.length, self.channels):
            raise ValueError(
                f"the network was built for windows of shape (B, {self.length}, {self.channels}), got {tuple(x.shape)}"
            )
        h = self.embed(self.patches(x)) + self.position
        if self.calendar is not None:
            if condition is None:
                raise ValueError(f"the network expects covariates of shape (B, {self.length}, {self.covariates})")
            h = h + self.calendar(self.patches(condition["covariates"]))
        step = self.step(t.expand(x.shape[0]))
        total: Tensor | None = None
        for block in self.blocks:
            h, skip = block(h, step)
            total = skip if total is None else total + skip
        assert total is not None
        out = self.head(total).reshape(x.shape[0], -1, self.channels)
        return out[:, -self.length :]

    def patches(self, x: Tensor) -> Tensor:
        """Patches `(B, tokens, patch * F)` of sequences `(B, L, F)`."""
        # The oldest end is padded: the horizon always fills whole patches of its own when p divides it.
        missing = -x.shape[1] % self.patch
        x = F.pad(x, (0, 0, missing, 0)) if missing else x
        return x.reshape(x.shape[0], x.shape[1] // self.patch, -1)
