r"""Two small networks that judge generated trajectories: can they be told from real ones, and can one learn from them?

Both see only what rotations, reflections and translations leave alone, so that they suit any system in two or three
dimensions: per agent the speeds $|\dot x_t|$, the products $\dot x_t \cdot \dot x_{t+1}$ and the distances from the
    first place; per pair the
distances at every frame; and the static features. One round of messages over all pairs,

    m_ij = phi(d_ij, f_i, f_j, e_ij)        h_i = psi(s_i, f_i, mean_j m_ij)

The classifier's logit is the mean over agents of a linear map of h_i. The predictor's output is equivariant:

    x_i(t) = constant velocity + sum_s a_ts(h_i) (x_i(s) - x_i(last)) + mean_j sum_s b_ts(h_i, m_ij) (x_j(s) - x_i(s))

Training stops at the best loss on a held-out part; the published scores (GeoTDM, https://arxiv.org/abs/2410.13027, 5.2)
take the last of 100 epochs of another network, so numbers are comparable between methods here, not with the paper.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .records import TrajectoryBatch

__all__ = ["SurrogateSettings", "classification_score", "prediction_score"]


@dataclass(frozen=True)
class SurrogateSettings:
    """How the judging networks are trained.

    Args:
        hidden: width.
        learning_rate: of Adam.
        batch_size: systems per step.
        epochs: at most so many.
        patience: epochs without a better held-out loss after which training stops.
    """

    hidden: int = 32
    learning_rate: float = 5e-3
    batch_size: int = 128
    epochs: int = 100
    patience: int = 15


def classification_score(
    real: TrajectoryBatch, generated: Any, *, seed: int = 0, settings: SurrogateSettings = SurrogateSettings()
) -> float:
    """Cross-entropy of a network that tells generated from real trajectories; higher is better.

    0.693 means indistinguishable, 0 that every trajectory gives itself away. The systems are divided at random into 60
    % that train, 20 % that stop and 20 % that judge, real and generated alike.

    Args:
        real: B systems.
        generated: `(B, N, T, D)`; system b has the agents of `real`'s system b.
        seed: of the division, the weights and the order.
        settings: of the training.

    Raises:
        ValueError: shapes that do not match, fewer than 10 systems, too few frames.
    """
    fake = _like(real, generated)
    if len(real) < 10:
        raise ValueError(f"at least 10 systems are needed, got {len(real)}")
    if real.positions.shape[2] < 3:
        raise ValueError(f"at least 3 frames are needed, got {real.positions.shape[2]}")
    data = _System.of(real.positions, real).joined(_System.of(fake, real))
    labels = torch.cat([torch.zeros(len(real)), torch.ones(len(real))])
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    train, stop, judge = order.tensor_split([int(0.6 * len(order)), int(0.8 * len(order))])
    frames = real.positions.shape[2]

    def build() -> nn.Module:
        return _Classifier(frames, data.features.shape[-1], data.edges.shape[-1], settings.hidden)

    def loss(net: nn.Module, rows: Tensor) -> Tensor:
        return nn.functional.binary_cross_entropy_with_logits(net(data.rows(rows)), labels[rows])

    net = _train(build, loss, data, train, stop, seed, settings)
    with torch.no_grad():
        return float(loss(net, judge))


def prediction_score(
    real: TrajectoryBatch,
    generated: Any,
    *,
    observed_frames: int | None = None,
    seed: int = 0,
    settings: SurrogateSettings = SurrogateSettings(),
) -> float:
    """Mean squared error on real trajectories of a network that learnt forecasting from generated ones; less is better.

    Args:
        real: B systems.
        generated: `(B, N, T, D)`; system b has the agents of `real`'s system b. 80 % train, 20 % stop.
        observed_frames: frames given, the rest is forecast; default half.
        seed: of the division, the weights and the order.
        settings: of the training.

    Returns:
        Mean over judged agents, frames and coordinates, in squared units of the places.

    Raises:
        ValueError: shapes that do not match, fewer than 10 systems, too few frames.
    """
    fake = _like(real, generated)
    frames = real.positions.shape[2]
    given = frames // 2 if observed_frames is None else observed_frames
    if len(real) < 10:
        raise ValueError(f"at least 10 systems are needed, got {len(real)}")
    if not 3 <= given < frames:
        raise ValueError(f"observed_frames={given} must be at least 3 and leave some of the {frames} frames")
    data, truth = _System.of(fake, real), _System.of(real.positions, real)
    order = torch.randperm(len(real), generator=torch.Generator().manual_seed(seed))
    train, stop = order.tensor_split([int(0.8 * len(order))])

    def build() -> nn.Module:
        return _Predictor(given, frames - given, data.features.shape[-1], data.edges.shape[-1], settings.hidden)

    def error(net: nn.Module, system: _System) -> Tensor:
        off = net(system.until(given)) - system.positions[:, :, given:]
        weight = system.nodes.float()[:, :, None, None].expand_as(off)
        return (weight * off**2).sum() / weight.sum().clamp(min=1)

    net = _train(build, lambda n, rows: error(n, data.rows(rows)), data, train, stop, seed, settings, given)
    with torch.no_grad():
        return float(error(net, truth))


@dataclass(frozen=True)
class _System:
    """Systems without gaps: agents with a missing frame do not take part."""

    positions: Tensor
    features: Tensor
    edges: Tensor
    nodes: Tensor

    @classmethod
    def of(cls, positions: Tensor, batch: TrajectoryBatch) -> _System:
        size, agents = batch.features.shape[:2]
        edges = batch.edge_features
        if edges is None:
            edges = torch.zeros(size, agents, agents, 0)
        return cls(positions.float(), batch.features, edges, batch.present.all(-1))

    def joined(self, other: _System) -> _System:
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return _System(*(torch.cat(pair) for pair in pairs))

    def rows(self, index: Tensor) -> _System:
        return _System(*(v[index] for v in vars(self).values()))

    def until(self, frames: int) -> _System:
        return _System(self.positions[:, :, :frames], self.features, self.edges, self.nodes)

    @property
    def pairs(self) -> Tensor:
        both = self.nodes[:, :, None] & self.nodes[:, None, :]
        return both & ~torch.eye(both.shape[1], dtype=torch.bool)


class _Messages(nn.Module):
    """Invariants of agents and pairs and one round of messages: `(B, N, H)` and `(B, N, N, H)`."""

    def __init__(self, frames: int, features: int, edges: int, hidden: int) -> None:
        super().__init__()
        own = (frames - 1) + (frames - 2) + (frames - 1)
        self.edge = _mlp(frames + 2 * features + edges, hidden, hidden)
        self.node = _mlp(own + features + hidden, hidden, hidden)
        # Means and standard deviations of the invariants over the training systems.
        self.own_scale = nn.Buffer(torch.stack([torch.zeros(own), torch.ones(own)]))
        self.pair_scale = nn.Buffer(torch.stack([torch.zeros(frames), torch.ones(frames)]))

    def measure(self, system: _System) -> None:
        for name, values, mask in zip(
            ("own_scale", "pair_scale"), self._invariants(system), (system.nodes, system.pairs), strict=True
        ):
            chosen = values[mask]
            if len(chosen) > 1:
                setattr(self, name, torch.stack([chosen.mean(0), chosen.std(0).clamp(min=1e-6)]))

    def forward(self, system: _System) -> tuple[Tensor, Tensor]:
        own, distance = self._invariants(system)
        own = (own - self.own_scale[0]) / self.own_scale[1]
        distance = (distance - self.pair_scale[0]) / self.pair_scale[1]
        n, f = own.shape[1], system.features
        first, second = f[:, :, None].expand(-1, -1, n, -1), f[:, None].expand(-1, n, -1, -1)
        mask = system.pairs[..., None].float()
        messages = self.edge(torch.cat([distance, first, second, system.edges], -1)) * mask
        mean = messages.sum(2) / mask.sum(2).clamp(min=1)
        return self.node(torch.cat([own, f, mean], -1)), messages

    @staticmethod
    def _invariants(system: _System) -> tuple[Tensor, Tensor]:
        x = system.positions
        v = x.diff(dim=2)
        own = [v.norm(dim=-1), (v[:, :, 1:] * v[:, :, :-1]).sum(-1), (x[:, :, 1:] - x[:, :, :1]).norm(dim=-1)]
        return torch.cat(own, -1), (x[:, :, None] - x[:, None]).norm(dim=-1)


class _Classifier(nn.Module):
    def __init__(self, frames: int, features: int, edges: int, hidden: int) -> None:
        super().__init__()
        self.messages = _Messages(frames, features, edges, hidden)
        self.head = nn.Linear(hidden, 1)

    def forward(self, system: _System) -> Tensor:
        h, _ = self.messages(system)
        mask = system.nodes.float()
        return (self.head(nn.functional.silu(h))[..., 0] * mask).sum(1) / mask.sum(1).clamp(min=1)


class _Predictor(nn.Module):
    def __init__(self, given: int, future: int, features: int, edges: int, hidden: int) -> None:
        super().__init__()
        self.given, self.future = given, future
        self.messages = _Messages(given, features, edges, hidden)
        self.own = _mlp(hidden, hidden, future * (given - 1))
        self.others = _mlp(2 * hidden, hidden, future * given)
        for head in (self.own[-1], self.others[-1]):
            for parameter in head.parameters():
                nn.init.zeros_(parameter)

    def forward(self, system: _System) -> Tensor:
        h, messages = self.messages(system)
        x, n = system.positions, system.positions.shape[1]
        last, velocity = x[:, :, -1:], x[:, :, -1:] - x[:, :, -2:-1]
        ahead = torch.arange(1, self.future + 1, dtype=x.dtype)[:, None]
        own = self.own(h).unflatten(-1, (self.future, self.given - 1))
        weights = self.others(torch.cat([h[:, :, None].expand(-1, -1, n, -1), messages], -1))
        pairs = system.pairs[..., None].float()
        weights = (weights * pairs / pairs.sum(2, keepdim=True).clamp(min=1)).unflatten(-1, (self.future, self.given))
        towards = torch.einsum("bijts,bjsd->bitd", weights, x) - torch.einsum("bijts,bisd->bitd", weights, x)
        return last + ahead * velocity + own @ (x[:, :, :-1] - last) + towards


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, outputs))


def _train(
    build: Callable[[], nn.Module],
    loss: Callable[[nn.Module, Tensor], Tensor],
    data: _System,
    train: Tensor,
    stop: Tensor,
    seed: int,
    settings: SurrogateSettings,
    given: int | None = None,
) -> nn.Module:
    # Initial weights come from torch's global generator: borrow it and give it back.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = build()
    messages = net.messages
    assert isinstance(messages, _Messages)
    known = data.rows(train)
    messages.measure(known if given is None else known.until(given))
    optimizer = torch.optim.Adam(net.parameters(), lr=settings.learning_rate)
    generator = torch.Generator().manual_seed(seed + 1)
    best, best_state, waited = float("inf"), copy.deepcopy(net.state_dict()), 0
    for _ in range(settings.epochs):
        for rows in train[torch.randperm(len(train), generator=generator)].split(settings.batch_size):
            optimizer.zero_grad(set_to_none=True)
            with torch.enable_grad():
                value = loss(net, rows)
            value.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
        with torch.no_grad():
            held_out = float(loss(net, stop))
        if held_out < best:
            best, best_state, waited = held_out, copy.deepcopy(net.state_dict()), 0
        else:
            waited += 1
            if waited >= settings.patience:
                break
    net.load_state_dict(best_state)
    return net.eval()


def _like(real: TrajectoryBatch, generated: Any) -> Tensor:
    fake = torch.as_tensor(generated).detach().cpu().float()
    if fake.shape != real.positions.shape:
        raise ValueError(
            f"generated must have the real positions' shape {tuple(real.positions.shape)}, got {tuple(fake.shape)}"
        )
    if not torch.isfinite(fake).all():
        raise ValueError("generated holds NaN or infinite places")
    return fake
