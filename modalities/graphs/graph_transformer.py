r"""A dense transformer on nodes and pairs of nodes, with products of pair matrices.

Nodes h (B, N, d) and pairs i < j, e (B, P, c), P = N (N - 1)/2: everything about pairs is symmetric, so that only half
of it is computed. One layer, with u = adaLN(h), w = adaLN(e) modulated by the time:

.. math::
    h_i &\leftarrow h_i + g\,W\big[\mathrm{softmax}_j(q_i k_j/\sqrt d + b_{ij})\,v_j,\ \textstyle\sum_j s_{ij}/\sqrt N,
        \ \sum_j s_{ij} v'_j/\sqrt N\big], \\
    h_i &\leftarrow h_i + g\,\mathrm{MLP}(u_i), \\
    e_{ij} &\leftarrow e_{ij} + g\,\mathrm{MLP}\big[w_{ij},\ u_i + u_j,\ u_i u_j,\
        \textstyle\sum_k (l_{ik} r_{kj} + r_{ik} l_{kj})/\sqrt N\big]

with b, s, l, r linear in w. The products of pair matrices count paths, so that a few layers see powers of the noisy
adjacency matrix, that is, its spectrum (communities, cycles). Sources: Vignac et al. 2023 (DiGress), arXiv 2209.14734;
Maron et al. 2019 (products of pair tensors), arXiv 1905.11136; Peebles and Xie 2023 (adaLN-zero), arXiv 2212.09748.

Cost per layer O(P c^2 + N^3 m) with m product channels; permuting nodes permutes the output; padding changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .backbone import Backbone
from .pairs import dense_pairs, pair_indices

__all__ = ["GraphTransformer", "TransformerBackbone"]


class GraphTransformer(nn.Module):
    """See the module.

    Args:
        node_inputs, pair_inputs: input channels.
        node_outputs, pair_outputs: output channels.
        embedding: length of the embedding of time and condition.
        node_width: d.
        pair_width: c.
        heads: attention heads; divides ``node_width``.
        products: m, channels of the products of pair matrices.
        layers: number of layers.
    """

    def __init__(
        self,
        node_inputs: int,
        pair_inputs: int,
        node_outputs: int,
        pair_outputs: int,
        embedding: int,
        node_width: int = 64,
        pair_width: int = 32,
        heads: int = 4,
        products: int = 8,
        layers: int = 4,
    ) -> None:
        super().__init__()
        if node_width % heads:
            raise ValueError(f"heads ({heads}) must divide node_width ({node_width})")
        self.node_in = nn.Linear(node_inputs, node_width)
        self.pair_in = nn.Linear(pair_inputs, pair_width)
        self.layers = nn.ModuleList(_Layer(embedding, node_width, pair_width, heads, products) for _ in range(layers))
        self.node_out = _Head(embedding, node_width, node_outputs) if node_outputs else None
        self.pair_out = _Head(embedding, pair_width, pair_outputs)

    def forward(self, nodes: Tensor, pairs: Tensor, mask: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs at nodes and pairs.

        Args:
            nodes: (B, N, node_inputs).
            pairs: (B, P, pair_inputs), pairs i < j in the order of ``torch.triu_indices(N, N, 1)``.
            mask: (B, N) bool.
            embedding: (B, embedding).

        Returns:
            (B, N, node_outputs) and (B, P, pair_outputs).
        """
        index = pair_indices(mask.shape[1], mask.device)
        real = (mask[:, index[0]] & mask[:, index[1]]).unsqueeze(-1)
        present = mask.unsqueeze(-1)
        h = self.node_in(nodes)
        e = self.pair_in(pairs)
        for layer in self.layers:
            h, e = layer(h, e, index, present, real, embedding)
        at_nodes = h[..., :0] if self.node_out is None else self.node_out(h, embedding)
        return at_nodes, self.pair_out(e, embedding)


class _Layer(nn.Module):
    def __init__(self, embedding: int, node_width: int, pair_width: int, heads: int, products: int) -> None:
        super().__init__()
        self.heads, self.products = heads, products
        self.node_film = _Film(embedding, node_width, 5)
        self.pair_film = _Film(embedding, pair_width, 3)
        self.qkv = nn.Linear(node_width, 4 * node_width)
        # attention bias, sums, and the two factors of the products: one linear map, unpacked to matrices once
        self.to_matrix = nn.Linear(pair_width, 2 * heads + 2 * products)
        self.mix = nn.Linear(2 * node_width + heads, node_width)
        self.feed = nn.Sequential(
            nn.Linear(node_width, 2 * node_width), nn.SiLU(), nn.Linear(2 * node_width, node_width)
        )
        self.to_pair = nn.Linear(node_width, 2 * pair_width)
        self.from_product = nn.Linear(products, pair_width, bias=False)
        self.pair_hidden = nn.Linear(pair_width, 2 * pair_width)
        self.pair_feed = nn.Linear(2 * pair_width, pair_width)

    def forward(
        self, h: Tensor, e: Tensor, index: Tensor, present: Tensor, real: Tensor, embedding: Tensor
    ) -> tuple[Tensor, Tensor]:
        batch, size, width = h.shape
        heads, products = self.heads, self.products
        scale = present.sum(1).clamp(min=1).to(h).rsqrt().reshape(-1, 1, 1)
        shift_1, scale_1, gate_1, shift_2, gate_2 = self.node_film(embedding)
        shift_e, scale_e, gate_e = self.pair_film(embedding)
        u = _norm(h) * (1 + scale_1) + shift_1
        w = _norm(e) * (1 + scale_e) + shift_e

        # padding is cleared before anything is summed over nodes
        matrices = dense_pairs(torch.where(real, self.to_matrix(w), 0), index, size)
        bias, sums, left, right = matrices.permute(0, 3, 1, 2).split([heads, heads, products, products], dim=1)
        q, k, v, plain = self.qkv(u).reshape(batch, size, 4, heads, -1).permute(2, 0, 3, 1, 4)
        bias = bias.masked_fill(~present.reshape(batch, 1, 1, size), torch.finfo(h.dtype).min)
        attended = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        summed = sums @ plain * scale.unsqueeze(1)
        total = sums.sum(-1).transpose(1, 2) * scale
        gathered = torch.cat([attended, summed], dim=-1).transpose(1, 2).reshape(batch, size, 2 * width)
        h = h + gate_1 * self.mix(torch.cat([gathered, total], dim=-1))
        h = h + gate_2 * self.feed(_norm(h) + shift_2)

        product = left @ right
        product = (product + product.transpose(2, 3)) * scale.unsqueeze(1)
        paths = self.from_product(product[:, :, index[0], index[1]].transpose(1, 2))
        ends, factors = self.to_pair(_norm(h)).chunk(2, dim=-1)
        joined = w + paths + ends[:, index[0]] + ends[:, index[1]] + factors[:, index[0]] * factors[:, index[1]]
        e = e + gate_e * self.pair_feed(nn.functional.silu(self.pair_hidden(joined)))
        return h, e


class _Film(nn.Module):
    """Shifts, scales and gates from the embedding: ``parts`` tensors (B, 1, width); zero at the start but for gates."""

    def __init__(self, embedding: int, width: int, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.linear = nn.Linear(embedding, parts * width)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        gates = (2, 4) if parts == 5 else (2,)
        with torch.no_grad():
            for gate in gates:
                self.linear.bias[gate * width : (gate + 1) * width] = 0.3

    def forward(self, embedding: Tensor) -> tuple[Tensor, ...]:
        return self.linear(embedding).unsqueeze(1).chunk(self.parts, dim=-1)


class _Head(nn.Module):
    """Modulated norm and a linear map that starts at zero."""

    def __init__(self, embedding: int, width: int, outputs: int) -> None:
        super().__init__()
        self.film = nn.Linear(embedding, 2 * width)
        self.linear = nn.Linear(width, outputs)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        shift, scale = self.film(embedding).unsqueeze(1).chunk(2, dim=-1)
        return self.linear(_norm(x) * (1 + scale) + shift)


def _norm(x: Tensor) -> Tensor:
    return nn.functional.layer_norm(x, x.shape[-1:])


@dataclass(frozen=True)
class TransformerBackbone(Backbone):
    """Sizes of a :class:`GraphTransformer`.

    Args:
        node_width: channels of nodes.
        pair_width: channels of pairs.
        heads: attention heads; divides ``node_width``.
        products: channels of the products of pair matrices.
        layers: number of layers.
    """

    node_width: int = 64
    pair_width: int = 32
    heads: int = 4
    products: int = 8
    layers: int = 4

    def __call__(
        self, node_inputs: int, pair_inputs: int, node_outputs: int, pair_outputs: int, embedding: int
    ) -> nn.Module:
        return GraphTransformer(
            node_inputs,
            pair_inputs,
            node_outputs,
            pair_outputs,
            embedding,
            self.node_width,
            self.pair_width,
            self.heads,
            self.products,
            self.layers,
        )
