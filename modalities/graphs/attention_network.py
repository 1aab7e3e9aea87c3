r"""The network of GDSS with time: graph multi-head attention over several noisy adjacency matrices.

Channels c of the adjacency, :math:`A^{(0)} = [A, A^2, \ldots]` of every input channel. One layer computes queries, keys
and values by graph convolutions on every channel, :math:`G_c(H) = D_c^{-1/2} (A_c + I) D_c^{-1/2} H W_c`, and

.. math::
    S_c = \tfrac1h \sum_h \tanh(Q_{c,h} K_{c,h}^T / \sqrt{d}), \quad
    A'_{ij} = \mathrm{MLP}[S_{ij} + S_{ji},\ A_{ij}], \quad
    H' = \tanh(\mathrm{MLP}[V_1, \ldots, V_C])

with A' computed on pairs i < j only. The time enters by a shift and a scale of H and of the hidden layer at pairs.
All channels are one batched product. Unlike the published pair of networks this is one network with two outputs.

Source: Jo et al. 2022 (GDSS), arXiv 2202.02514, section 3.4 and appendix C; Baek et al. 2021, arXiv 2102.11533.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .backbone import Backbone
from .pairs import dense_pairs, packed_pairs, pair_indices

__all__ = ["AttentionBackbone", "AttentionNetwork"]


class AttentionNetwork(nn.Module):
    """See the module.

    Args:
        node_inputs, pair_inputs: input channels.
        node_outputs, pair_outputs: output channels.
        embedding: length of the embedding of time and condition.
        width: channels of nodes.
        channels: channels of the adjacency inside.
        powers: matrix powers of the input.
        heads: attention heads; divides ``width``.
        layers: number of layers.
    """

    def __init__(
        self,
        node_inputs: int,
        pair_inputs: int,
        node_outputs: int,
        pair_outputs: int,
        embedding: int,
        width: int = 32,
        channels: int = 8,
        powers: int = 2,
        heads: int = 4,
        layers: int = 5,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"heads ({heads}) must divide width ({width})")
        if powers < 1:
            raise ValueError(f"powers must be at least 1, got {powers}")
        self.powers = powers
        first = powers * pair_inputs
        sizes = [first] + [channels] * layers
        self.layers = nn.ModuleList(
            _Layer(embedding, node_inputs if i == 0 else width, width, sizes[i], sizes[i + 1], heads)
            for i in range(layers)
        )
        seen = node_inputs + layers * width + embedding
        self.node_out = _mlp(seen, 2 * width, node_outputs) if node_outputs else None
        self.pair_out = _mlp(sum(sizes) + embedding, 2 * width, pair_outputs)

    def forward(self, nodes: Tensor, pairs: Tensor, mask: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs at nodes (B, N, node_outputs) and pairs (B, P, pair_outputs); see :class:`.backbone.Backbone`."""
        size = mask.shape[1]
        index = pair_indices(size, mask.device)
        real = (mask[:, index[0]] & mask[:, index[1]]).unsqueeze(-1)
        scale = mask.sum(1).clamp(min=1).to(nodes).rsqrt().reshape(-1, 1, 1, 1)
        matrix = dense_pairs(torch.where(real, pairs, 0), index, size).permute(0, 3, 1, 2)
        stack = [matrix]
        for _ in range(self.powers - 1):
            stack.append(stack[-1] @ matrix * scale)
        adj = torch.cat(stack, dim=1)
        kept_pairs = [packed_pairs(adj.permute(0, 2, 3, 1), index)]
        kept_nodes, h = [nodes], nodes
        for layer in self.layers:
            h, e = layer(h, adj, kept_pairs[-1], index, embedding)
            e = torch.where(real, e, 0)
            adj = dense_pairs(e, index, size).permute(0, 3, 1, 2)
            kept_pairs.append(e)
            kept_nodes.append(h)
        shown = embedding.unsqueeze(1)
        at_pairs = self.pair_out(torch.cat([*kept_pairs, shown.expand(-1, len(index[0]), -1)], dim=-1))
        if self.node_out is None:
            return nodes[..., :0], at_pairs
        return self.node_out(torch.cat([*kept_nodes, shown.expand(-1, size, -1)], dim=-1)), at_pairs


class _Layer(nn.Module):
    def __init__(self, embedding: int, inputs: int, width: int, channels: int, outputs: int, heads: int) -> None:
        super().__init__()
        self.heads, self.width = heads, width
        # queries, keys and values of all channels: one matrix
        self.weight = nn.Parameter(torch.empty(channels, inputs, 3 * width))
        for channel in self.weight:
            nn.init.xavier_uniform_(channel)
        self.bias = nn.Parameter(torch.zeros(channels, 1, 3 * width))
        hidden = 2 * max(channels, outputs)
        self.node_film = nn.Linear(embedding, 2 * inputs)
        self.pair_film = nn.Linear(embedding, 2 * hidden)
        self.values = nn.Sequential(nn.Linear(channels * width, hidden), nn.ELU(), nn.Linear(hidden, width))
        self.pair_in = nn.Linear(2 * channels, hidden)
        self.pair_out = nn.Linear(hidden, outputs)

    def forward(self, h: Tensor, adj: Tensor, pairs: Tensor, index: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor]:
        batch, size, _ = h.shape
        shift, scale = self.node_film(embedding).unsqueeze(1).chunk(2, dim=-1)
        h = h * (1 + scale) + shift
        # self-loops as an addition: the normalisation is one per channel, of absolute values since entries are noisy
        degree = (adj.abs().sum(-1, keepdim=True) + 1).rsqrt()
        features = h.unsqueeze(1) @ self.weight * degree
        q, k, v = ((adj @ features + features) * degree + self.bias).chunk(3, dim=-1)
        shape = (batch, -1, size, self.heads, self.width // self.heads)
        scores = torch.einsum("bcihd,bcjhd->bchij", q.reshape(shape), k.reshape(shape))
        scores = torch.tanh(scores / self.width**0.5).mean(2)
        scores = packed_pairs((scores + scores.transpose(2, 3)).permute(0, 2, 3, 1) / 2, index)
        h = torch.tanh(self.values(v.transpose(1, 2).reshape(batch, size, -1)))
        shift, scale = self.pair_film(embedding).unsqueeze(1).chunk(2, dim=-1)
        hidden = nn.functional.elu(self.pair_in(torch.cat([scores, pairs], dim=-1)))
        return h, self.pair_out(hidden * (1 + scale) + shift)


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    last = nn.Linear(hidden, outputs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ELU(), nn.Linear(hidden, hidden), nn.ELU(), last)


@dataclass(frozen=True)
class AttentionBackbone(Backbone):
    """Sizes of an :class:`AttentionNetwork`.

    Args:
        width: channels of nodes.
        channels: channels of the adjacency inside.
        powers: matrix powers of the input.
        heads: attention heads; divides ``width``.
        layers: number of layers.
    """

    width: int = 32
    channels: int = 8
    powers: int = 2
    heads: int = 4
    layers: int = 5

    def __call__(
        self, node_inputs: int, pair_inputs: int, node_outputs: int, pair_outputs: int, embedding: int
    ) -> nn.Module:
        return AttentionNetwork(
            node_inputs,
            pair_inputs,
            node_outputs,
            pair_outputs,
            embedding,
            self.width,
            self.channels,
            self.powers,
            self.heads,
            self.layers,
        )
