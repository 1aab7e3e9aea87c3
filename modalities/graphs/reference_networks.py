r"""The published score networks of GDSS, evaluated once per pair and once per channel.

Networks map node features X (B, N, F) and an adjacency A to scores of the same shapes; none is shown the time. A graph
convolution with adjacency A normalises it with the diagonal *set* to one and degrees of at least one,

.. math:: \mathrm{GCN}(X, A) = D^{-1/2} A' D^{-1/2} X W + b, \quad A' = A + I, \quad D_{ii} = \max(1, \sum_j A'_{ij}).

Graph multi-head attention over adjacency channels c has queries, keys and values :math:`Q_c, K_c, V_c` by convolution,
:math:`S_c = \mathrm{mean}_h \tanh(Q_{ch} K_{ch}^T / \sqrt{d_{out}})` made symmetric, new edges :math:`2\,\mathrm{MLP}
([S_1..S_C, A_1..A_C])` per pair and new nodes :math:`\tanh(\mathrm{MLP}([V_1..V_C]))`.

Everything is symmetric in i, j and the diagonals of hidden channels reach no output, so adjacencies are held as their
pairs i < j, in the order of ``torch.triu_indices``: a matrix is (B, P), channels are (C, B, P), P = N (N - 1)/2.
Branches of the published networks that reach no output (values and node MLP of the last edge layer; queries, keys and
edge MLP of the last node layer) are not built. Values have no activation of their own and are multiplied by the first
layer of the node MLP before they meet the nodes.

Source: Jo, Lee and Hwang 2022, "Score-based Generative Modeling of Graphs via the System of Stochastic Differential
Equations", arXiv 2202.02514, section 3.2 and appendix.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["NETWORKS", "AdjacencyNetwork", "NodeNetwork", "ScoreNetworkA", "ScoreNetworkX", "ScoreNetworkXGMH"]
__all__ += ["count_pairs", "from_pairs", "to_pairs"]


def count_pairs(size: int) -> int:
    """P = N (N - 1)/2."""
    return size * (size - 1) // 2


@cache
def _indices(size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Positions of i < j and of j > i in a flat matrix (P,), and the pair of every entry of the matrix (N * N,)."""
    # cached: must not become inference tensors, which training could not use later
    with torch.inference_mode(False):
        row, column = torch.triu_indices(size, size, 1, device=device)
        pair = torch.zeros(size, size, dtype=torch.int64, device=device)
        pair[row, column] = pair[column, row] = torch.arange(len(row), device=device)
        return row * size + column, column * size + row, pair.flatten()


def to_pairs(matrix: Tensor) -> Tensor:
    """The entries i < j of matrices: (*, N, N) -> (*, P)."""
    size = matrix.shape[-1]
    return matrix.reshape(-1, size * size).index_select(1, _indices(size, matrix.device)[0]).reshape(
        *matrix.shape[:-2], count_pairs(size)
    )  # fmt: skip


def from_pairs(pairs: Tensor, size: int, diagonal: float = 0.0) -> Tensor:
    """Symmetric matrices with a constant diagonal: (*, P) -> (*, N, N)."""
    if size < 2:
        return pairs.new_full((*pairs.shape[:-1], size, size), diagonal)
    flat = pairs.reshape(-1, pairs.shape[-1]).index_select(1, _indices(size, pairs.device)[2])
    flat[:, :: size + 1] = diagonal
    return flat.reshape(*pairs.shape[:-1], size, size)


def pair_mask(mask: Tensor) -> Tensor:
    """Pairs of two real nodes: bool (B, N) -> bool (B, P)."""
    return to_pairs(mask[:, :, None] & mask[:, None, :])


def _saturate(x: Tensor) -> Tensor:
    # tanh x = 2 sigmoid(2x) - 1: PyTorch's sigmoid is six times as fast as its tanh on CPUs
    return torch.sigmoid(x * 2) * 2 - 1


def _normalized(pairs: Tensor, size: int) -> Tensor:
    """Normalised adjacencies with unit diagonal before normalisation: (*, P) -> (*, N, N)."""
    adj = from_pairs(pairs, size, diagonal=1.0)
    scale = adj.sum(-1).clamp(min=1).rsqrt()
    return adj * scale[..., None] * scale[..., None, :]


def _powers(pairs: Tensor, size: int, count: int) -> Tensor:
    """Off-diagonal entries of A, A A, ...: (B, P) -> (count, B, P)."""
    adj = from_pairs(pairs, size)
    channels, power = [pairs], adj
    for _ in range(count - 1):
        power = torch.bmm(power, adj)
        channels.append(to_pairs(power))
    return torch.stack(channels)


class MLP(nn.Module):
    """Linear layers with ELU in between; ``transposed`` runs on features first, (F, M).

    Args:
        sizes: widths, input first.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.linears = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(sizes))

    def forward(self, x: Tensor) -> Tensor:
        return self.remaining(functional.linear(x, *self.first()))

    def first(self) -> tuple[Tensor, Tensor]:
        """Weight (out, in) and bias (out,) of the first layer."""
        weight, bias = self.linears[0].parameters()
        return weight, bias

    def remaining(self, x: Tensor) -> Tensor:
        """All that follows the first layer."""
        for linear in self.linears[1:]:
            x = linear(functional.elu_(x))
        return x

    def transposed(self, x: Tensor) -> Tensor:
        """Same layers on (F, M) -> (F', M)."""
        for i, linear in enumerate(self.linears):
            weight, bias = linear.parameters()
            x = torch.addmm(bias[:, None], weight, functional.elu_(x) if i else x)
        return x


class Convolution(nn.Module):
    """Weights and biases of the graph convolutions of C channels, (C, in, out) and (C, 1, out); Glorot, zeros."""

    def __init__(self, channels: int, width: int, out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, width, out))
        self.bias = nn.Parameter(torch.zeros(channels, 1, out))
        bound = math.sqrt(6 / (width + out))
        nn.init.uniform_(self.weight, -bound, bound)


@dataclass(frozen=True)
class AttentionShape:
    """Widths of a layer of graph multi-head attention; see :class:`GraphAttention`."""

    width: int
    attention: int
    out: int
    channels: int
    channels_out: int
    linears: int

    @property
    def edge_sizes(self) -> tuple[int, ...]:
        """Widths of the edge MLP."""
        return (2 * self.channels, *[self._hidden] * (self.linears - 1), self.channels_out)

    @property
    def node_sizes(self) -> tuple[int, ...]:
        """Widths of the node MLP."""
        return (self.channels * self.out, self._hidden, self.out)

    @property
    def _hidden(self) -> int:
        return 2 * max(self.channels, self.channels_out)


class GraphAttention(nn.Module):
    """One layer of graph multi-head attention.

    Args:
        width: features of a node.
        attention: width of queries and keys, all heads together.
        out: features of a node after the layer; its root is the temperature of the attention.
        channels: adjacency channels.
        channels_out: adjacency channels after the layer.
        linears: depth of the edge MLP.
        heads: number of heads; divides ``attention``.
        nodes: whether the layer makes new nodes.
        edges: whether the layer makes new edges.
    """

    def __init__(
        self,
        width: int,
        attention: int,
        out: int,
        channels: int,
        channels_out: int,
        linears: int,
        heads: int,
        *,
        nodes: bool = True,
        edges: bool = True,
    ) -> None:
        super().__init__()
        if attention % heads:
            raise ValueError(f"{heads} heads do not divide a width of {attention}")
        self.shape = AttentionShape(width, attention, out, channels, channels_out, linears)
        self.heads, self.attention, self.temperature = heads, attention, math.sqrt(out)
        self.query = Convolution(channels, width, attention) if edges else None
        self.key = Convolution(channels, width, attention) if edges else None
        self.mlp = MLP(self.shape.edge_sizes) if edges else None
        self.value = Convolution(channels, width, out) if nodes else None
        self.multi_channel = MLP(self.shape.node_sizes) if nodes else None

    def forward(
        self, x: Tensor, adj: Tensor, mask: Tensor | None, real_pairs: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """New nodes and edges.

        Args:
            x: (B, N, width).
            adj: channels, (C, B, P).
            mask: real nodes, (B, N), 0 or 1.
            real_pairs: pairs of real nodes, (B, P), 0 or 1.

        Returns:
            Nodes (B, N, out) and edges (C', B, P), None where the layer does not make them.
        """
        batch, size, width = x.shape
        channels = len(adj)
        normal = _normalized(adj, size).reshape(channels * batch, size, size)
        gathered = torch.bmm(normal, x.repeat(channels, 1, 1)).reshape(channels, batch * size, width)
        parts = self._projections()
        projected = torch.baddbmm(
            torch.cat([bias for _, bias in parts], dim=-1), gathered, torch.cat([weight for weight, _ in parts], dim=-1)
        )
        edges = None
        if self.mlp is not None:
            similar = self._similarities(projected.reshape(channels * batch, size, -1))
            stacked = torch.cat([similar.reshape(channels, -1), adj.reshape(channels, -1)])
            edges = (self.mlp.transposed(stacked) * 2).reshape(-1, batch, adj.shape[-1])
            edges = edges if real_pairs is None else edges * real_pairs
        nodes = None
        if self.multi_channel is not None:
            hidden = projected[..., 2 * self.attention if self.mlp is not None else 0 :].sum(0)
            nodes = self.multi_channel.remaining(hidden).reshape(batch, size, -1)
            nodes = _saturate(nodes if mask is None else nodes * mask[..., None])
        return nodes, edges

    def _projections(self) -> list[tuple[Tensor, Tensor]]:
        """(weight, bias) of scaled queries, keys, and values already multiplied by the first layer of the node MLP."""
        parts: list[tuple[Tensor, Tensor]] = []
        if self.query is not None and self.key is not None:
            scale = 2 / self.temperature  # the factor 2 of tanh x = 2 sigmoid(2x) - 1
            parts += [(self.query.weight * scale, self.query.bias * scale), (self.key.weight, self.key.bias)]
        if self.value is not None and self.multi_channel is not None:
            weight, bias = self.multi_channel.first()
            channels, _, out = self.value.weight.shape
            mixed = weight.reshape(-1, channels, out).permute(1, 2, 0)
            # the bias of the MLP belongs to the sum over channels: each gets its part
            parts.append((torch.bmm(self.value.weight, mixed), torch.bmm(self.value.bias, mixed) + bias / channels))
        return parts

    def _similarities(self, projected: Tensor) -> Tensor:
        """Symmetric part of the mean over heads at the pairs: (C * B, N, queries + keys + ...) -> (C * B, P)."""
        rows, size, _ = projected.shape
        scores = []
        for queries, keys in zip(
            projected[..., : self.attention].chunk(self.heads, dim=-1),
            projected[..., self.attention : 2 * self.attention].chunk(self.heads, dim=-1),
            strict=True,
        ):
            scores.append(torch.bmm(queries, keys.transpose(1, 2)))
        total = torch.stack(scores).sigmoid().sum(0).reshape(rows, size * size)
        upper, lower, _ = _indices(size, projected.device)
        return (total.index_select(1, upper) + total.index_select(1, lower)) / self.heads - 1


class NodeNetwork(nn.Module):
    """A network of node scores: ``network(x (B, N, F), pairs (B, P), mask (B, N) | None) -> (B, N, F)``."""

    kind: ClassVar[str]


class AdjacencyNetwork(nn.Module):
    """A network of adjacency scores: ``network(x (B, N, F), pairs (B, P), mask (B, N) | None) -> (B, P)``."""

    kind: ClassVar[str]


class ScoreNetworkX(NodeNetwork):
    """Stacked graph convolutions with tanh; an MLP on the features of all depths.

    Args:
        max_feat_num: node features F.
        depth: convolutions.
        nhid: their width.
    """

    kind = "ScoreNetworkX"

    def __init__(self, max_feat_num: int, depth: int, nhid: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Convolution(1, nhid if i else max_feat_num, nhid) for i in range(depth))
        width = max_feat_num + depth * nhid
        self.final = MLP([width, 2 * width, 2 * width, max_feat_num])

    def forward(self, x: Tensor, pairs: Tensor, mask: Tensor | None = None) -> Tensor:
        adj = _normalized(pairs, x.shape[1])
        features = [x]
        for layer in self.layers:
            weight, bias = layer.parameters()
            features.append(_saturate(torch.bmm(adj, features[-1] @ weight[0]) + bias[0]))
        out = self.final(torch.cat(features, dim=-1))
        return out if mask is None else out * mask[..., None].to(out)


class ScoreNetworkXGMH(NodeNetwork):
    """Graph multi-head attention layers, tanh of their nodes once more; an MLP on the features of all depths.

    Args:
        max_feat_num: node features F.
        depth: layers, at least 2.
        nhid: width of the nodes.
        num_linears: depth of the edge MLPs.
        c_init: powers of the adjacency shown.
        c_hid: hidden adjacency channels.
        c_final: adjacency channels of the last layer; they reach no output and only set a width.
        adim: width of queries and keys (the first layer's is ``nhid``).
        num_heads: heads.
    """

    kind = "ScoreNetworkX_GMH"

    def __init__(
        self,
        max_feat_num: int,
        depth: int,
        nhid: int,
        num_linears: int,
        c_init: int,
        c_hid: int,
        c_final: int,
        adim: int,
        num_heads: int = 4,
    ) -> None:
        super().__init__()
        self.c_init = c_init
        self.layers = nn.ModuleList(
            GraphAttention(
                nhid if i else max_feat_num,
                adim if i else nhid,
                nhid,
                c_hid if i else c_init,
                c_final if i == depth - 1 else c_hid,
                num_linears,
                num_heads,
                edges=i < depth - 1,
            )
            for i in range(depth)
        )
        width = max_feat_num + depth * nhid
        self.final = MLP([width, 2 * width, 2 * width, max_feat_num])

    def forward(self, x: Tensor, pairs: Tensor, mask: Tensor | None = None) -> Tensor:
        real = None if mask is None else pair_mask(mask).to(x)
        mask = None if mask is None else mask.to(x)
        adj = _powers(pairs, x.shape[1], self.c_init)
        features = [x]
        for layer in self.layers:
            nodes, adj = layer(features[-1], adj, mask, real)
            features.append(_saturate(nodes))
        out = self.final(torch.cat(features, dim=-1))
        return out if mask is None else out * mask[..., None]


class ScoreNetworkA(AdjacencyNetwork):
    """Graph multi-head attention layers; an MLP per pair on the adjacency channels of all depths.

    Args:
        max_feat_num: node features F.
        nhid: width of the nodes.
        num_layers: layers, at least 2.
        num_linears: depth of the edge MLPs.
        c_init: powers of the adjacency shown.
        c_hid: hidden adjacency channels.
        c_final: adjacency channels of the last layer.
        adim: width of queries and keys (the first layer's is ``nhid``).
        num_heads: heads.
    """

    kind = "ScoreNetworkA"

    def __init__(
        self,
        max_feat_num: int,
        nhid: int,
        num_layers: int,
        num_linears: int,
        c_init: int,
        c_hid: int,
        c_final: int,
        adim: int,
        num_heads: int = 4,
    ) -> None:
        super().__init__()
        self.c_init = c_init
        self.layers = nn.ModuleList(
            GraphAttention(
                nhid if i else max_feat_num,
                adim if i else nhid,
                nhid,
                c_hid if i else c_init,
                c_final if i == num_layers - 1 else c_hid,
                num_linears,
                num_heads,
                nodes=i < num_layers - 1,
            )
            for i in range(num_layers)
        )
        width = c_init + c_hid * (num_layers - 1) + c_final
        self.final = MLP([width, 2 * width, 2 * width, 1])

    def forward(self, x: Tensor, pairs: Tensor, mask: Tensor | None = None) -> Tensor:
        real = None if mask is None else pair_mask(mask).to(x)
        mask = None if mask is None else mask.to(x)
        channels = [_powers(pairs, x.shape[1], self.c_init)]
        nodes = x
        for layer in self.layers:
            nodes, edges = layer(nodes, channels[-1], mask, real)
            channels.append(edges)
        out = self.final.transposed(torch.cat([c.reshape(len(c), -1) for c in channels])).reshape(pairs.shape)
        return out if real is None else out * real


NETWORKS: dict[str, type[NodeNetwork] | type[AdjacencyNetwork]] = {
    network.kind: network for network in (ScoreNetworkX, ScoreNetworkXGMH, ScoreNetworkA)
}
