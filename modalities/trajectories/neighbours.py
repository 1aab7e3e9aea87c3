r"""Messages between agents at the same frame, over all pairs or over those within a radius.

With d_ij = p_i - p_j and rho a few smooth functions of |d_ij|,

    m_ij = SiLU(A n_i + B n_j + W rho(|d_ij|) + E e_ij)
    h_i += (sum_j O m_ij) / sqrt(k_i)         v_ic += (sum_j (G m_ij)_c d_ij / sqrt(|d_ij|^2 + 0.01)) / sqrt(k_i)

k_i being the number of partners. One nonlinearity per pair keeps everything that is quadratic in the width on agents,
not pairs; all functions are smooth where agents coincide.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, silu

__all__ = ["Messages", "Pairs", "radial", "within"]

_RADIAL = 8


class Pairs(NamedTuple):
    """Pairs that exchange messages, one entry per pair and frame: indices of sample, receiver, sender, frame."""

    sample: Tensor
    receiver: Tensor
    sender: Tensor
    frame: Tensor


def radial(squared: Tensor) -> Tensor:
    """Smooth functions of a squared distance (*, 1), in units of the typical length: (*, 8)."""
    r = (squared + 1e-8).sqrt()
    centres = torch.tensor([0.25, 0.75, 1.5, 2.5], dtype=squared.dtype, device=squared.device)
    bumps = torch.exp(-2 * (r - centres) ** 2)
    return torch.cat(
        (r / (1 + 0.1 * r), torch.log(squared + 0.01), 1 / (squared + 0.1), 0.1 / (squared + 0.01), bumps), -1
    )


def within(positions: Tensor, present: Tensor, radius: float, chunk: int = 64) -> Pairs:
    """Pairs of different agents, both present, at most `radius` apart.

    Args:
        positions: (B, N, T, D).
        present: (B, N, T) bool.
        radius: in the unit of the positions.
        chunk: receivers looked at together, which bounds the memory to B T chunk N.
    """
    found: list[Tensor] = []
    agents = positions.shape[1]
    places, there = positions.transpose(1, 2), present.transpose(1, 2)
    for first in range(0, agents, chunk):
        own = slice(first, first + chunk)
        near = torch.cdist(places[:, :, own], places, compute_mode="donot_use_mm_for_euclid_dist") <= radius
        near &= there[:, :, own, None] & there[:, :, None]
        sample, frame, receiver, sender = near.nonzero(as_tuple=True)
        receiver = receiver + first
        kept = receiver != sender
        found.append(torch.stack((sample, receiver, sender, frame))[:, kept])
    return Pairs(*torch.cat(found, 1))


class Messages(nn.Module):
    """One exchange of messages.

    Args:
        hidden: width H of the features.
        channels: vectors per agent C.
        edge_features: features per pair E.
        width: width of a message.
    """

    def __init__(self, hidden: int, channels: int, edge_features: int, width: int) -> None:
        super().__init__()
        self.receive = nn.Linear(hidden, width)
        self.send = nn.Linear(hidden, width, bias=False)
        self.distance = nn.Linear(_RADIAL, width, bias=False)
        self.edge = nn.Linear(edge_features, width, bias=False) if edge_features else None
        self.out = nn.Linear(width, hidden)
        self.pull = nn.Linear(width, channels)

    def forward(
        self, n: Tensor, positions: Tensor, present: Tensor | None, edges: Tensor | None, pairs: Pairs | None
    ) -> tuple[Tensor, Tensor]:
        """Changes of h (B, N, T, H) and of v (B, N, T, D, C).

        Args:
            n: normalised features (B, N, T, H).
            positions: (B, N, T, D) in units of the typical length.
            present: (B, N, T) bool; None if everyone is always there.
            edges: features of pairs (B, N, N, E).
            pairs: the pairs; None for all.
        """
        if pairs is None:
            return self._all(n, positions, present, edges)
        return self._listed(n, positions, edges, pairs)

    def _all(self, n: Tensor, positions: Tensor, present: Tensor | None, edges: Tensor | None) -> tuple[Tensor, Tensor]:
        # (B, T, receiver, sender): the sums over senders are then matrix products.
        places, features = positions.transpose(1, 2), n.transpose(1, 2)
        d = places.unsqueeze(3) - places.unsqueeze(2)
        squared = (d * d).sum(-1, keepdim=True)
        m = self.receive(features).unsqueeze(3) + self.send(features).unsqueeze(2) + self.distance(radial(squared))
        if self.edge is not None and edges is not None:
            m = m + self.edge(edges).unsqueeze(1)
        m = silu(m)
        direction = d / (squared + 0.01).sqrt()
        if present is None:
            partners = torch.full((1, 1, 1, 1), max(n.shape[1] - 1, 1), dtype=n.dtype, device=n.device)
        else:
            there = present.transpose(1, 2)
            real = (there.unsqueeze(3) & there.unsqueeze(2)).unsqueeze(-1).to(n.dtype)
            m, direction = m * real, direction * real
            partners = (real.sum(3) - there.unsqueeze(-1).to(n.dtype)).clamp(min=1)
        norm = partners.rsqrt()
        # An agent's message to itself is taken out again; the direction of that pair is 0 as it is.
        own = m.diagonal(dim1=2, dim2=3).transpose(-1, -2)
        gathered = self.out((m.sum(3) - own) * norm)
        pulled = direction.transpose(-1, -2) @ self.pull(m)
        return gathered.transpose(1, 2), (pulled * norm.unsqueeze(-1)).transpose(1, 2)

    def _listed(self, n: Tensor, positions: Tensor, edges: Tensor | None, pairs: Pairs) -> tuple[Tensor, Tensor]:
        b, i, j, t = pairs
        d = positions[b, i, t] - positions[b, j, t]
        squared = (d * d).sum(-1, keepdim=True)
        m = self.receive(n)[b, i, t] + self.send(n)[b, j, t] + self.distance(radial(squared))
        if self.edge is not None and edges is not None:
            m = m + linear(edges[b, i, j], self.edge.weight)
        m = silu(m)
        shape = n.shape[:3]
        place = (b * shape[1] + i) * shape[2] + t
        size = shape[0] * shape[1] * shape[2]
        count = n.new_zeros(size).index_add(0, place, n.new_ones(len(b)))
        norm = count.clamp(min=1).rsqrt().unsqueeze(-1)
        summed = n.new_zeros(size, m.shape[1]).index_add(0, place, m)
        vectors = self.pull(m).unsqueeze(1) * (d / (squared + 0.01).sqrt()).unsqueeze(-1)
        pulled = n.new_zeros(size, *vectors.shape[1:]).index_add(0, place, vectors)
        return self.out(summed * norm).unflatten(0, shape), (pulled * norm.unsqueeze(-1)).unflatten(0, shape)
