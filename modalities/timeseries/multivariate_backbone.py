r"""Denoising network for several series at once: one stack for all of them, and a mixing of channels in every block.

    h_d = embed(patches(x_d)) + position + e_d                              e_d: which channel this is
    each block:  h_d <- block(h_d), skip_d                                  (the same weights for every channel)
                 h_d <- h_d + W (sum_j A_dj h_j)                            A: channels x channels, starts at zero

so that the cost grows linearly with the number of channels and a model of independent series is where training starts.
"""

import torch
from torch import Tensor, nn

from ...core import Condition
from .backbone import Backbone

__all__ = ["MultivariateBackbone"]


class MultivariateBackbone(nn.Module):
    """Shared stack with channel mixing.

    Args:
        length: window length L.
        channels: number of channels D.
        hidden: width of the stack.
        blocks: number of residual blocks.
        modes: complex modes per state space layer.
        patch: steps per patch, 1, 2 or 4.
    """

    def __init__(
        self, length: int, channels: int, hidden: int = 64, blocks: int = 3, modes: int = 32, patch: int = 2
    ) -> None:
        super().__init__()
        self.length, self.channels = length, channels
        self.shared = Backbone(length, 1, 0, hidden, blocks, modes, patch)
        self.identity = nn.Parameter(0.1 * torch.randn(channels, 1, hidden))
        self.mixing = nn.Parameter(torch.zeros(blocks, channels, channels))
        self.mixed = nn.ModuleList(nn.Linear(hidden, hidden, bias=False) for _ in range(blocks))

    def forward(
        self, x: Tensor, t: Tensor, *, mask: Tensor | None = None, condition: Condition | None = None
    ) -> Tensor:
        """Evaluates the network.

        Args:
            x: scaled noisy windows, shape `(B, L, D)`.
            t: diffusion times in [0, 1], shape `(B,)` or `()`.
            mask: ignored.
            condition: ignored.

        Returns:
            Prediction, shape `(B, L, D)`.
        """
        if x.shape[1:] != (self.length, self.channels):
            raise ValueError(
                f"the network was built for windows of shape (B, {self.length}, {self.channels}), got {tuple(x.shape)}"
            )
        size = len(x)
        rows = x.transpose(1, 2).reshape(size * self.channels, self.length, 1)
        step = self.shared.step(t.expand(size)).repeat_interleave(self.channels, dim=0)
        h = self.shared.embed(self.shared.patches(rows)) + self.shared.position
        h = (h.unflatten(0, (size, self.channels)) + self.identity).flatten(0, 1)
        total = torch.zeros_like(h)
        for block, weights, mixed in zip(self.shared.blocks, self.mixing, self.mixed, strict=True):
            h, skip = block(h, step)
            apart = h.unflatten(0, (size, self.channels))
            h = (apart + mixed(torch.einsum("dj,bjlh->bdlh", weights, apart))).flatten(0, 1)
            total = total + skip + h
        out = self.shared.head(total).reshape(size, self.channels, -1)
        return out[..., -self.length :].transpose(1, 2)
