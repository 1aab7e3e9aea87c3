r"""The published equivariant geometric trajectory network, on dense arrays.

Positions x (B, N, T, D) and invariant features h (B, N, T, H) pass through pairs of layers. The spatial layer works on
every frame by itself, with d_ij = x_i - x_j and r_ij = |d_ij|^2:

    m_ij = MLP(h_i, h_j, r_ij, e_ij)         h_i <- MLP(h_i, sum_j m_ij)
    x_i <- x_i + mean_j d_ij MLP(m_ij) / (sqrt(r_ij + 1e-8) + 1)

The temporal layer works on every node by itself, psi being a linear map of a sinusoidal embedding of t - s:

    a_ts = softmax_s q_t . (k_s + psi_{t-s})          h_t <- h_t + sum_s a_ts (v_s + psi_{t-s})
    x_t <- x_t + sum_s a_ts MLP(v_s) (x_t - x_s)

Every update of x is a combination of differences with invariant weights: the network is equivariant under rotations,
reflections and translations. Observed frames are put in front of the noisy ones and take part in everything.

The names of the parameters are those of the authors' program, so that ``load_state_dict(theirs, strict=True)`` works.
Instead of lists of edges and tensors of shape (N, H, T, S) there are dense pairs and the factorised scores
q k^T + q Psi^T, which give the same numbers for less than half of the time and memory.

Source: `Han et al. 2024, Geometric Trajectory Diffusion Models <https://arxiv.org/abs/2410.13027>`_.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, silu

__all__ = ["ReferenceEGTN", "layout_of", "sinusoidal"]


def sinusoidal(t: Tensor, dim: int) -> Tensor:
    """sin and cos of t at dim/2 frequencies from 1 to 1/10000: (*) -> (*, dim)."""
    half = dim // 2
    frequencies = torch.exp(torch.arange(half, dtype=t.dtype, device=t.device) * (-math.log(10000) / (half - 1)))
    angles = t.unsqueeze(-1) * frequencies
    return torch.cat((angles.sin(), angles.cos()), -1)


class _MLP(nn.Module):
    """Linear, SiLU, Linear, under the names of the published checkpoints."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.actions = nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.actions(x)


class _Spatial(nn.Module):
    def __init__(self, hidden: int, edge_dim: int, pre_norm: bool) -> None:
        super().__init__()
        self.edge_mlp = _MLP(2 * hidden + 1 + edge_dim, hidden, hidden)
        self.coord_mlp = _MLP(hidden, hidden, 1)
        self.node_mlp = _MLP(2 * hidden, hidden, hidden)
        self.pre_norm = pre_norm

    def forward(self, x: Tensor, h: Tensor, adjacency: Tensor, edges: Tensor | None) -> tuple[Tensor, Tensor]:
        # One frame after the other in memory: (B, T, N, ...).
        x, h = x.transpose(1, 2), h.transpose(1, 2)
        d = x.unsqueeze(3) - x.unsqueeze(2)
        squared = (d * d).sum(-1, keepdim=True)
        r = torch.linalg.vector_norm(d, dim=-1, keepdim=True) if self.pre_norm else squared
        first, _, second = self.edge_mlp.actions
        assert isinstance(first, nn.Linear)
        size = h.shape[-1]
        w_i, w_j, w_r, w_e = first.weight.split([size, size, 1, first.in_features - 2 * size - 1], 1)
        m = linear(h, w_i, first.bias).unsqueeze(3) + linear(h, w_j).unsqueeze(2)
        m = m + r * w_r.squeeze(1)
        if edges is not None and w_e.shape[1]:
            m = m + linear(edges, w_e).unsqueeze(1)
        m = silu(second(silu(m))) * adjacency
        c = self.coord_mlp(m)
        if not self.pre_norm:
            c = c / ((squared + 1e-8).sqrt() + 1)
        degree = adjacency.sum(3).clamp(min=1)
        x = x + (c * d * adjacency).sum(3) / degree
        h = self.node_mlp(torch.cat((h, m.sum(3)), -1))
        return x.transpose(1, 2), h.transpose(1, 2)


class _Temporal(nn.Module):
    def __init__(self, hidden: int, time_emb_dim: int) -> None:
        super().__init__()
        self.q_mlp = _MLP(hidden, hidden, hidden)
        self.k_mlp = _MLP(hidden, hidden, hidden)
        self.v_mlp = _MLP(hidden, hidden, hidden)
        self.x_mlp = _MLP(hidden, hidden, 1)
        self.time_emb = nn.Linear(time_emb_dim, hidden)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        frames = h.shape[2]
        q, k, v = self.q_mlp(h), self.k_mlp(h), self.v_mlp(h)
        offsets = torch.arange(1 - frames, frames, device=h.device, dtype=h.dtype)
        psi = self.time_emb(sinusoidal(offsets, self.time_emb.in_features))
        steps = torch.arange(frames, device=h.device)
        index = steps[:, None] - steps[None, :] + frames - 1
        by_offset = linear(q, psi)
        a = (q @ k.transpose(-1, -2) + by_offset.gather(-1, index.expand(*by_offset.shape[:-2], -1, -1))).softmax(-1)
        h = h + a @ v + torch.einsum("bnts,tsh->bnth", a, psi[index])
        w = a * self.x_mlp(v).transpose(-1, -2)
        return x + w.sum(-1, keepdim=True) * x - w @ x, h


class ReferenceEGTN(nn.Module):
    """The published network; reads the authors' state dicts strictly.

    Args:
        n_layers: pairs of spatial and temporal layers.
        node_dim: features per node F.
        edge_dim: features per pair E.
        hidden_dim: width H.
        time_emb_dim: size of sinusoidal embeddings, at least 4.
        act_fn: must be "silu"; kept so that published configurations can be passed as they are.
        learn_ref_frame: whether it has the learnt prior.
        n_layers_ref: pairs of layers of the prior's own small network.
        num_w: target frames the prior knows.
        pre_norm: distances instead of squared ones, and no division of the coordinate update (ETH/UCY).

    Raises:
        ValueError: for another activation, or sizes that are not positive.
    """

    def __init__(
        self,
        n_layers: int,
        node_dim: int,
        edge_dim: int,
        hidden_dim: int,
        time_emb_dim: int = 32,
        act_fn: str = "silu",
        learn_ref_frame: bool = False,
        n_layers_ref: int = 2,
        num_w: int = 0,
        pre_norm: bool = False,
    ) -> None:
        super().__init__()
        if act_fn != "silu":
            raise ValueError(f"the published networks use silu, not {act_fn!r}")
        if min(n_layers, hidden_dim) < 1 or min(node_dim, edge_dim, num_w) < 0 or time_emb_dim < 4:
            raise ValueError(
                "n_layers and hidden_dim must be positive, dimensions not negative, time_emb_dim at least 4"
            )
        self.arguments: dict[str, Any] = {
            "n_layers": n_layers,
            "node_dim": node_dim,
            "edge_dim": edge_dim,
            "hidden_dim": hidden_dim,
            "time_emb_dim": time_emb_dim,
            "learn_ref_frame": learn_ref_frame,
            "n_layers_ref": n_layers_ref,
            "num_w": num_w,
            "pre_norm": pre_norm,
        }
        self.time_emb_dim = time_emb_dim

        def spatial(count: int) -> nn.ModuleList:
            return nn.ModuleList(_Spatial(hidden_dim, edge_dim, pre_norm) for _ in range(count))

        def temporal(count: int) -> nn.ModuleList:
            return nn.ModuleList(_Temporal(hidden_dim, time_emb_dim) for _ in range(count))

        if learn_ref_frame:
            self.ws = nn.Parameter(torch.ones(num_w))
        self.s_modules, self.t_modules = spatial(n_layers), temporal(n_layers)
        self.input_linear = nn.Linear(node_dim + time_emb_dim, hidden_dim)
        if learn_ref_frame:
            self.input_linear_ref = nn.Linear(node_dim, hidden_dim)
            self.s_modules_ref, self.t_modules_ref = spatial(n_layers_ref), temporal(n_layers_ref)

    def forward(
        self,
        x: Tensor,
        h: Tensor,
        tau: Tensor,
        adjacency: Tensor,
        edges: Tensor | None = None,
        observed: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Displacements and features of the noisy frames.

        Args:
            x: noisy positions, (B, N, T, D).
            h: invariant features, (B, N, F), or (B, N, T_c + T, F) if they change with time.
            tau: diffusion time as the network was trained to see it, (B,).
            adjacency: which pairs exchange messages, receiver first, (B, N, N) bool; False for padding.
            edges: features of pairs, (B, N, N, E).
            observed: observed positions, (B, N, T_c, D), put in front of x.

        Returns:
            (x_out - x) of shape (B, N, T, D) and the last features (B, N, T, H).
        """
        whole = x if observed is None else torch.cat((observed, x), 2)
        features = _per_frame(h, whole.shape[2])
        embedded = sinusoidal(tau.to(x.dtype), self.time_emb_dim)[:, None, None].expand(*features.shape[:3], -1)
        features = self.input_linear(torch.cat((features, embedded), -1))
        moved, features = _through(self.s_modules, self.t_modules, whole, features, adjacency, edges)
        first = whole.shape[2] - x.shape[2]
        return (moved - whole)[:, :, first:], features[:, :, first:]

    def anchor(self, observed: Tensor, h: Tensor, adjacency: Tensor, edges: Tensor | None = None) -> Tensor:
        """The learnt equivariant prior x_r: where the target frames are expected.

        x_r(t) = sum_s W_ts xhat_s with W_ts = gamma_t mean_channels(hhat_s) for all but the last observed frame, whose
        weight makes the sum one; xhat, hhat are the small network's outputs at the observed frames.

        Args:
            observed: (B, N, T_c, D).
            h: features as in :meth:`forward`; of time-varying ones the first T_c frames are used.
            adjacency: (B, N, N) bool.
            edges: (B, N, N, E).

        Returns:
            Shape (B, N, num_w, D).
        """
        frames = observed.shape[2]
        features = self.input_linear_ref(_per_frame(h, frames)[:, :, :frames])
        moved, features = _through(self.s_modules_ref, self.t_modules_ref, observed, features, adjacency, edges)
        free = features.mean(-1)[:, :, None, :-1] * self.ws[:, None]
        weights = torch.cat((free, 1 - free.sum(-1, keepdim=True)), -1)
        return weights @ moved


def layout_of(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Constructor arguments of :class:`ReferenceEGTN`, read off the shapes of a state dict.

    `pre_norm` leaves no trace in the weights and is not among them.

    Raises:
        ValueError: if keys are missing that every such network has.
    """
    try:
        hidden, inputs = state["input_linear.weight"].shape
        time_emb = state["t_modules.0.time_emb.weight"].shape[1]
        edge_inputs = state["s_modules.0.edge_mlp.actions.0.weight"].shape[1]
    except (KeyError, ValueError) as error:
        raise ValueError(f"not the weights of a trajectory network: no matrix {error}") from error
    learnt = "ws" in state
    return {
        "n_layers": _count(state, "s_modules."),
        "node_dim": inputs - time_emb,
        "edge_dim": edge_inputs - 2 * hidden - 1,
        "hidden_dim": hidden,
        "time_emb_dim": time_emb,
        "learn_ref_frame": learnt,
        "n_layers_ref": _count(state, "s_modules_ref.") if learnt else 2,
        "num_w": len(state["ws"]) if learnt else 0,
    }


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    return len({key.removeprefix(prefix).partition(".")[0] for key in state if key.startswith(prefix)})


def _per_frame(h: Tensor, frames: int) -> Tensor:
    return h if h.ndim == 4 else h.unsqueeze(2).expand(-1, -1, frames, -1)


def _through(
    spatial: nn.ModuleList, temporal: nn.ModuleList, x: Tensor, h: Tensor, adjacency: Tensor, edges: Tensor | None
) -> tuple[Tensor, Tensor]:
    connected = adjacency[:, None, :, :, None].to(x.dtype)
    for between, along in zip(spatial, temporal, strict=True):
        x, h = between(x, h, connected, edges)
        x, h = along(x, h)
    return x, h
