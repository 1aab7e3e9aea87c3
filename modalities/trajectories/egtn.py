r"""The recommended equivariant network of space and time.

Every agent carries at every frame invariant features h (H numbers) and vectors v (C vectors in space). The state u is
the scaled residual about the anchor; with the noise level as an angle (cos = alpha/sqrt(alpha^2 + sigma^2)) the network
keeps an estimate of the clean residual and of the places that follow from it,

    e = cos u + sin G,        p = anchor + s e,        G = 0 at first,

and every layer computes its messages at the current places p, then adds to G: forces act where the agents are thought
to be. One layer:

    h, v += messages between agents at p               (:mod:`.neighbours`)
    h, v += mixing along time                          (:mod:`.attention`)
    h += MLP(h, <v A, v B>),   v += gate(h) v A,   G += sum_c o_c(h) v_c

Only vectors and differences of places are combined, with invariant weights: the network is equivariant under rotations,
reflections and translations. G is the prediction for which e is :class:`~fourfold.core.Karras`' estimate with unit
variance. Agents and frames that are not present are never looked at.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ...core import Condition
from .attention import Clock, TemporalMixing
from .conditioning import mean_over
from .neighbours import Messages, Pairs, within

__all__ = ["EGTN"]

_KINDS, _ANGLES, _LEADS, _VECTORS = 4, 4, 6, 4


class _Layer(nn.Module):
    def __init__(
        self, hidden: int, channels: int, edge_features: int, messages: int, heads: int, frequencies: int
    ) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(3 if messages else 2))
        self.between = Messages(hidden, channels, edge_features, messages) if messages else None
        self.along = TemporalMixing(hidden, channels, heads, frequencies)
        self.left = nn.Linear(channels, channels, bias=False)
        self.right = nn.Linear(channels, channels, bias=False)
        self.update = nn.Sequential(
            nn.Linear(hidden + channels, 2 * hidden), nn.SiLU(), nn.Linear(2 * hidden, hidden + 2 * channels)
        )
        # At first a layer changes nothing by itself, and the network predicts nothing but the anchor.
        for parameter in self.update[-1].parameters():
            nn.init.zeros_(parameter)
        self.channels = channels

    def forward(
        self,
        h: Tensor,
        v: Tensor,
        places: Tensor,
        present: Tensor | None,
        edges: Tensor | None,
        pairs: Pairs | None,
        clock: Clock,
        absent: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        if self.between is not None:
            dh, dv = self.between(self.norms[2](h), places, present, edges, pairs)
            h, v = h + dh, v + dv
        dh, dv = self.along(self.norms[0](h), v, clock, absent)
        h, v = h + dh, v + dv
        left, right = self.left(v), self.right(v)
        # asinh: inner products grow with the square of the vectors, features must not.
        inner = torch.asinh((left * right).sum(3))
        change = self.update(torch.cat((self.norms[1](h), inner), -1))
        dh, gate, out = change.split([h.shape[-1], self.channels, self.channels], -1)
        v = v + gate.unsqueeze(3) * left
        return h + dh, v, (out.unsqueeze(3) * v).sum(-1)


class EGTN(nn.Module):
    """Equivariant network on trajectories.

    Args:
        features: invariant features per agent F.
        edge_features: per pair E.
        hidden: H.
        channels: vectors per agent and frame C.
        layers: number of layers.
        messages: width of messages between agents; 0 for agents that do not notice each other (or are alone).
        heads: attention heads; divides hidden and channels.
        frequencies: of relative times; they start between half a turn per frame and one in 600 frames, and are learnt.
        radius: only agents within this distance of each other's anchor, in units of the data's length scale, exchange
            messages; None for all pairs. For large systems.

    Raises:
        ValueError: for sizes that are not positive or do not divide.
    """

    def __init__(
        self,
        features: int,
        edge_features: int,
        hidden: int = 64,
        channels: int = 16,
        layers: int = 3,
        messages: int = 32,
        heads: int = 4,
        frequencies: int = 8,
        radius: float | None = None,
    ) -> None:
        super().__init__()
        if min(hidden, channels, layers, heads, frequencies) < 1 or min(features, edge_features, messages) < 0:
            raise ValueError(
                "all sizes of the network must be positive (features, edge_features, messages: not negative)"
            )
        if radius is not None and not radius > 0:
            raise ValueError(f"radius must be positive, got {radius}")
        self.radius, self.heads = radius, heads
        self.log_rates = nn.Parameter(torch.linspace(math.log(math.pi), math.log(math.pi / 300), frequencies))
        inputs = features + 1 + _KINDS + 1 + 2 * _LEADS + 2 * _ANGLES
        self.embed = nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        self.lift = nn.Linear(_VECTORS, channels, bias=False)
        self.layers = nn.ModuleList(
            _Layer(hidden, channels, edge_features, messages, heads, frequencies) for _ in range(layers)
        )

    def forward(
        self, x: Tensor, t: Tensor, *, mask: Tensor | None = None, condition: Condition | None = None
    ) -> Tensor:
        """G of the shape of x.

        Args:
            x: noisy scaled residuals u, (B, N, T, D), brought to unit variance; 0 where observed or absent.
            t: half log-SNR log(alpha/sigma), (B,).
            mask: not needed; `present` of the condition says it.
            condition: what :meth:`GeoTDM.condition` makes: anchor and scale in units of the length, vectors, features,
                edges, present, observed, kind, lead, times.
        """
        if condition is None:
            raise ValueError("the network needs the condition made by GeoTDM")
        given: dict[str, Any] = dict(condition)
        present, anchor, scale = given["present"], given["anchor"], given["scale"]
        cos, sin = (torch.sigmoid(2 * s * t).sqrt()[:, None, None, None] for s in (1.0, -1.0))
        there = present.unsqueeze(-1)
        h = self.embed(torch.cat((given["tokens"], _angles(cos, sin).expand(*x.shape[:3], -1)), -1)) * there
        v = self.lift(torch.cat((x.unsqueeze(-1), given["vectors"]), -1))
        pairs = None
        if self.radius is not None:
            pairs = within(anchor, present, self.radius)
        clock, moved = Clock(given["times"], self.log_rates.exp(), self.heads), torch.zeros_like(x)
        # Nothing is masked where everyone is always there, which the caller knows without a look at the device.
        everyone, absent = (None, None) if given.get("complete", False) else (present, ~present)
        for layer in self.layers:
            places = anchor + scale * (cos * x + sin * moved)
            h, v, change = layer(h, v, places, everyone, given["edges"], pairs, clock, absent)
            moved = moved + change
        return torch.where(there, moved, 0)

    @staticmethod
    def token_features(features: Tensor, observed: Tensor, kind: Tensor, lead: Tensor, scale: Tensor) -> Tensor:
        """Invariant inputs that do not change while sampling, (B, N, T, F + 18)."""
        frames = observed.shape[2]
        wide = features.unsqueeze(2).expand(-1, -1, frames, -1)
        kinds = torch.nn.functional.one_hot(kind, _KINDS).to(scale)
        waves = lead.unsqueeze(-1) / torch.logspace(0, 2, _LEADS, dtype=lead.dtype, device=lead.device)
        return torch.cat((wide, observed.unsqueeze(-1).to(scale), kinds, scale.log() / 4, waves.sin(), waves.cos()), -1)

    @staticmethod
    def start_vectors(
        anchor: Tensor, observed: Tensor, present: Tensor, times: Tensor, speed: Tensor, bend: Tensor
    ) -> Tensor:
        """Velocities, observed accelerations and places about the agent's own mean, (B, N, T, D, 3), of unit size.

        Args:
            anchor: (B, N, T, D) in units of the length.
            observed: (B, N, T) bool.
            present: (B, N, T) bool.
            times: (B, T).
            speed: typical speed, in lengths per unit of time.
            bend: typical acceleration.
        """
        step = times.diff(dim=1)[:, None, :, None]
        there = present.unsqueeze(-1)
        if anchor.shape[2] == 1:
            velocity = torch.zeros_like(anchor)
        else:
            velocity = anchor.diff(dim=2) / step
            both = there[:, :, 1:] & there[:, :, :-1]
            velocity = torch.where(both, velocity, 0)
            velocity = torch.cat((velocity[:, :, :1], velocity), 2)
        acceleration = torch.zeros_like(anchor)
        if anchor.shape[2] > 2:
            known = observed[:, :, 2:] & observed[:, :, 1:-1] & observed[:, :, :-2]
            bending = torch.where(known.unsqueeze(-1), velocity[:, :, 2:].diff(dim=2, prepend=velocity[:, :, 1:2]), 0)
            acceleration[:, :, 2:] = bending / step[:, :, 1:]
        own = torch.where(there, anchor - mean_over(anchor, present, (2,)), 0)
        return torch.stack((velocity / speed, acceleration / bend, own), -1)


def _angles(cos: Tensor, sin: Tensor) -> Tensor:
    """Cosines and sines of 1 to 4 times the angle of the noise level, (B, 1, 1, 8)."""
    angle = torch.atan2(sin, cos) * torch.arange(1, _ANGLES + 1, dtype=cos.dtype, device=cos.device)
    return torch.cat((angle.cos(), angle.sin()), -1)
