r"""A PPGN-transformer whose pair features grow block by block: the layer and a stack of them.

Node features :math:`x_i` and symmetric pair features :math:`e_{ij}`; row i sees the nodes of earlier blocks and of its
own (:mod:`.ppgn_views`). With :math:`\hat{\cdot}` a LayerNorm, a layer is

.. math::
    z_{ij} &= W_z \hat x_i + W_z \hat x_j, \quad (u, v)_{ij} = W \hat e_{ij}, \quad
    h_{ij} = s(v_{ij} + s(z_{ij}) u_{ij} + z_{ij}), \quad e_{ij} \mathrel{+}= W_e h_{ij} \\
    x_i &\mathrel{+}= W_x \sum_j a_{ij} (W_v \hat x_j + W_h h_{ij}), \quad
    a_{ij} = \mathrm{softmax}_j(q_i \cdot k_j / \sqrt d + w \cdot h_{ij}) \\
    x_i &\mathrel{+}= \mathrm{MLP}(\hat x_i) \\
    e_{ij} &\mathrel{+}= \mathrm{MLP}\Big(\hat e_{ij}, \tfrac{1}{\sqrt{n_i}} \sum_k f_{ik} f_{kj}\Big), \quad
    f = s(\mathrm{MLP}(\hat e))

with s = SiLU and :math:`n_i` the number of nodes that row i sees. The square of a symmetric matrix per channel replaces
the product of two: by polarisation, :math:`AB + BA = ((A+B)^2 - (A-B)^2)/2`, squares span all symmetrised products, and
they keep pairs symmetric, so that only the rows of new nodes ever have to be computed.

What later blocks need of a finished node are its W_z, k and v and the matrix f: a :class:`LayerPrefix`.

Source: `Zhao et al. 2024 <https://arxiv.org/abs/2402.03687>`_ (PPGN-transformer with causal masks); `Maron et al. 2019
<https://arxiv.org/abs/1905.11136>`_ (PPGN); `Ma et al. 2023 <https://arxiv.org/abs/2305.17589>`_ (GRIT attention).
Different here: LayerNorm, scaled attention, a product that does not grow with the graph, symmetric pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from .ppgn_views import Incremental, Parallel, View

__all__ = ["LayerPrefix", "PPGNTransformer", "PPGNTransformerLayer", "extended"]


class LayerPrefix(NamedTuple):
    """What a layer keeps of P finished nodes.

    Args:
        z: node part of the pair update, (B, P, De).
        key: (B, P, Dn).
        value: (B, P, Dn).
        factor: f of all their pairs, symmetric, (B, C, P, P).
    """

    z: Tensor
    key: Tensor
    value: Tensor
    factor: Tensor

    def taken(self, columns: Tensor) -> LayerPrefix:
        """The prefix of these columns only, int64 (B, P')."""
        z, key, value = (x.gather(1, columns[:, :, None].expand(-1, -1, x.shape[-1])) for x in self[:3])
        channels, width = self.factor.shape[1], self.factor.shape[-1]
        rows = self.factor.gather(2, columns[:, None, :, None].expand(-1, channels, -1, width))
        count = columns.shape[1]
        return LayerPrefix(z, key, value, rows.gather(3, columns[:, None, None, :].expand(-1, channels, count, -1)))

    def chosen(self, graphs: Tensor) -> LayerPrefix:
        """The prefix of these graphs only."""
        return LayerPrefix(*(x[graphs] for x in self))


class PPGNTransformerLayer(nn.Module):
    """One layer.

    Args:
        width: Dn, features of a node.
        pair_width: De, features of a pair.
        heads: attention heads, a divisor of ``width``.
    """

    def __init__(self, width: int, pair_width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width ({width}) must be a multiple of heads ({heads})")
        self.heads = heads
        self.node_norm, self.pair_norm = nn.LayerNorm(width), nn.LayerNorm(pair_width)
        self.project = nn.Linear(width, 3 * width + pair_width)
        self.pair_in = nn.Linear(pair_width, 2 * pair_width)
        self.pair_out = nn.Linear(pair_width, pair_width)
        self.bias = nn.Linear(pair_width, heads, bias=False)
        self.pair_value = nn.Parameter(torch.empty(heads, pair_width, width // heads))
        self.node_out = nn.Linear(width, width)
        self.node_mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width)
        )
        self.product_norm = nn.LayerNorm(pair_width)
        self.factor = nn.Sequential(
            nn.Linear(pair_width, pair_width), nn.SiLU(), nn.Linear(pair_width, pair_width), nn.SiLU()
        )
        self.pair_mlp = nn.Sequential(
            nn.Linear(2 * pair_width, 2 * pair_width), nn.SiLU(), nn.Linear(2 * pair_width, pair_width)
        )
        nn.init.normal_(self.pair_value, std=pair_width**-0.5)

    def forward(
        self, x: Tensor, e: Tensor, view: View, prefix: LayerPrefix | None
    ) -> tuple[Tensor, Tensor, LayerPrefix]:
        """Update rows.

        Args:
            x: (S, B, R, Dn), S passes over the same blocks.
            e: (S, B, R, W, De).
            view: what rows see.
            prefix: the finished nodes; None: those of pass 0, all blocks being rows (:class:`Parallel`).

        Returns:
            x and e, updated, and what to keep of pass 0's rows: z, key, value (B, R, .) and factor (B, C, R, W).
        """
        width, pair_width = x.shape[-1], e.shape[-1]
        query, key, value, z = self.project(self.node_norm(x)).split([width, width, width, pair_width], -1)
        before = (z[0], key[0], value[0]) if prefix is None else prefix[:3]
        gate, shift = self.pair_in(self.pair_norm(e)).chunk(2, -1)
        z_ij = z.unsqueeze(-2) + view.join(before[0].unsqueeze(-3), z.unsqueeze(-3))
        h = silu(shift + silu(z_ij) * gate + z_ij)
        x = x + self.node_out(self._attend(query, key, value, before[1], before[2], h, view))
        x = x + self.node_mlp(x)
        e = e + self.pair_out(h)
        e_hat = self.product_norm(e)
        factor = self.factor(e_hat).movedim(-1, -3)
        if prefix is None:
            assert isinstance(view, Parallel)
            whole = view.whole(factor[0])
        else:
            whole = prefix.factor
        product = view.square(factor, whole).movedim(-3, -1) / view.count.unsqueeze(-1).sqrt()
        e = e + self.pair_mlp(torch.cat([e_hat, product], -1))
        return x, e, LayerPrefix(z[0], key[0], value[0], factor[0])

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, old_key: Tensor, old_value: Tensor, h: Tensor, view: View
    ) -> Tensor:
        def by_head(x: Tensor) -> Tensor:  # (..., R, Dn) -> (..., H, R, d)
            return x.unflatten(-1, (self.heads, -1)).transpose(-2, -3)

        query, key, value, old_key, old_value = map(by_head, (query, key, value, old_key, old_value))
        earlier, own = ((query @ k.mT).movedim(-3, -1) for k in (old_key, key))
        logits = view.join(earlier, own) * query.shape[-1] ** -0.5 + self.bias(h)
        seen = view.mask.unsqueeze(-1)
        # a row of padding sees nothing: its weights become 0, not NaN
        share = torch.where(seen, logits, torch.finfo(logits.dtype).min).softmax(-2) * seen
        earlier, own = (part.movedim(-1, -3) for part in view.split(share))
        pooled = share.movedim(-1, -2) @ h  # (..., R, H, De)
        out = (earlier @ old_value + own @ value).transpose(-2, -3)
        return (out + torch.einsum("...hc,hcd->...hd", pooled, self.pair_value)).flatten(-2)


class PPGNTransformer(nn.Module):
    """A stack of layers with the norms of their results.

    Args:
        width: features of a node.
        pair_width: features of a pair.
        layers: how many, at least 1.
        heads: attention heads.
    """

    def __init__(self, width: int, pair_width: int, layers: int, heads: int) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"layers must be at least 1, got {layers}")
        self.layers = nn.ModuleList(PPGNTransformerLayer(width, pair_width, heads) for _ in range(layers))
        self.node_norm, self.pair_norm = nn.LayerNorm(width), nn.LayerNorm(pair_width)

    def forward(
        self, x: Tensor, e: Tensor, view: View, prefix: Sequence[LayerPrefix] | None = None
    ) -> tuple[Tensor, Tensor, list[LayerPrefix]]:
        """As :meth:`PPGNTransformerLayer.forward`, for all layers."""
        kept = []
        for k, layer in enumerate(self.layers):
            x, e, rows = layer(x, e, view, None if prefix is None else prefix[k])
            kept.append(rows)
        return self.node_norm(x), self.pair_norm(e), kept

    def empty_prefix(self, batch: int) -> list[LayerPrefix]:
        """The prefix of no nodes."""
        like = self.node_norm.weight
        width, pair_width = len(like), len(self.pair_norm.weight)
        return [
            LayerPrefix(
                like.new_zeros(batch, 0, pair_width),
                like.new_zeros(batch, 0, width),
                like.new_zeros(batch, 0, width),
                like.new_zeros(batch, pair_width, 0, 0),
            )
            for _ in self.layers
        ]


def extended(prefix: Sequence[LayerPrefix], rows: Sequence[LayerPrefix], view: Incremental) -> list[LayerPrefix]:
    """The prefixes with the rows of a finished block appended, padding included.

    Args:
        prefix: of P columns, one per layer.
        rows: what :meth:`PPGNTransformer.forward` kept of the block's R rows.
        view: the view it was called with.
    """
    made = []
    for old, new in zip(prefix, rows, strict=True):
        before = new.factor[..., : view.earlier.shape[-1]]
        top = torch.cat([old.factor, before.mT], -1)
        z, key, value = (torch.cat([a, b], 1) for a, b in zip(old[:3], new[:3], strict=True))
        made.append(LayerPrefix(z, key, value, torch.cat([top, new.factor], -2)))
    return made
