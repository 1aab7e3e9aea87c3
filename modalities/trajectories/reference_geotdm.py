r"""GeoTDM as published: the reference face.

Conditional: the first T_c frames are observed, the rest is x_r + u with the learnt prior x_r (or, without it, the mean
over nodes and observed frames), and u is diffused by :mod:`.reference_diffusion`. Unconditional: all frames are
diffused in the subspace without the mean over nodes and frames. The network sees absolute positions and predicts the
noise; the loss is its mean squared error, gradients reaching the prior through the noisy state.

Source: `Han et al. 2024, Geometric Trajectory Diffusion Models <https://arxiv.org/abs/2410.13027>`_, with the quirks of
the authors' program. :class:`fourfold.modalities.trajectories.GeoTDM` is the recommended model.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from ...core import CenterFree, Denoiser, GaussianPath, Multistep, Noise, NoiseSource, Sampler, UniformGrid
from ..adapter import Adapter
from ..foreign_checkpoints import read_plain
from ..registry import register
from .conditioning import as_batch, mean_over
from .records import TrajectoryBatch, TrajectoryRecord
from .reference_diffusion import ReferenceDiffusion, ReverseStep
from .reference_egtn import ReferenceEGTN, layout_of

__all__ = ["ReferenceGeoTDM", "read_reference"]

NodeFeatures = Literal["given", "observed and speed"]
Pairs = Literal["all", "all and self", "with features"]

_TIMES, _NOISE, _PRIOR = 0, 1, 2


@register
class ReferenceGeoTDM(Adapter):
    """The published model.

    Args:
        network: arguments of :class:`ReferenceEGTN`.
        observed_frames: T_c; 0 is the unconditional model.
        target_frames: frames that are generated.
        dim: coordinates D.
        num_timesteps: T of the diffusion, the one it was trained with.
        rescale_timesteps: show the network 1000 k / T instead of k.
        node_features: "given", or the pedestrian features (1 where observed, speed).
        pairs: which pairs exchange messages: all of two different nodes, with self loops too, or those whose edge
            features are not all 0.

    Raises:
        ValueError: if these do not go together.
    """

    name: ClassVar[str] = "geotdm-reference"

    def __init__(
        self,
        network: Mapping[str, Any],
        observed_frames: int = 10,
        target_frames: int = 20,
        dim: int = 3,
        num_timesteps: int = 1000,
        rescale_timesteps: bool = False,
        node_features: NodeFeatures = "given",
        pairs: Pairs = "all",
    ) -> None:
        super().__init__()
        self.network = ReferenceEGTN(**network)
        arguments = self.network.arguments
        if observed_frames < 0 or target_frames < 1 or dim not in (2, 3):
            raise ValueError(
                f"observed_frames={observed_frames}, target_frames={target_frames} and dim={dim} do not make sense"
            )
        if arguments["learn_ref_frame"] and (observed_frames == 0 or arguments["num_w"] != target_frames):
            raise ValueError(
                f"a learnt prior for num_w={arguments['num_w']} frames needs observed_frames > 0 and target_frames="
                f"{arguments['num_w']}, got {observed_frames} and {target_frames}"
            )
        if pairs not in ("all", "all and self", "with features"):
            raise ValueError(f"pairs must be 'all', 'all and self' or 'with features', got {pairs!r}")
        if node_features not in ("given", "observed and speed"):
            raise ValueError(f"node_features must be 'given' or 'observed and speed', got {node_features!r}")
        self.observed_frames, self.target_frames, self.dim = observed_frames, target_frames, dim
        self.rescale_timesteps, self.node_features, self.pairs = rescale_timesteps, node_features, pairs
        self.diffusion = ReferenceDiffusion(num_timesteps)

    @property
    def frames(self) -> int:
        """Observed and generated frames together."""
        return self.observed_frames + self.target_frames

    def config(self) -> dict[str, Any]:
        return {
            "network": dict(self.network.arguments),
            "observed_frames": self.observed_frames,
            "target_frames": self.target_frames,
            "dim": self.dim,
            "num_timesteps": self.diffusion.steps,
            "rescale_timesteps": self.rescale_timesteps,
            "node_features": self.node_features,
            "pairs": self.pairs,
        }

    def loss(self, batch: TrajectoryBatch, noise: NoiseSource) -> Tensor:
        """Mean squared error of the predicted noise over the judged agents, shape (B,).

        Args:
            batch: B systems of at least `frames` frames, all known.
            noise: source of diffusion times and noise.
        """
        k = (noise.uniform((len(batch),), _TIMES).double() * self.diffusion.steps).long()
        k = k.clamp(max=self.diffusion.steps - 1).to(batch.positions.device)
        shape = (*batch.positions.shape[:2], self.target_frames, self.dim)
        eps = noise.normal(batch.positions.new_empty(shape), _NOISE, self._real(batch))
        per_node = self.errors(batch, k, eps)
        judged = (batch.ego & batch.nodes).to(per_node)
        return (per_node * judged).sum(1) / judged.sum(1).clamp(min=1)

    def errors(self, batch: TrajectoryBatch, k: Tensor, eps: Tensor) -> Tensor:
        """Mean squared error per agent, (B, N), for given steps k (B,) and noise eps (B, N, T, D)."""
        anchor, target, given = self._prepare(batch)
        eps = self.project(eps, batch)
        u = self.diffusion.perturb(self.project(target - anchor, batch), k, eps)
        return ((eps - self._predict(u, k, anchor, batch, given)) ** 2).mean((2, 3))

    def project(self, x: Tensor, batch: TrajectoryBatch) -> Tensor:
        """P: without the mean over nodes and frames in the unconditional model, unchanged in the conditional one."""
        if self.observed_frames:
            return x
        return CenterFree((1, 2)).project(x, self._real(batch).squeeze(-1).expand(x.shape[:3]))

    def anchor(self, batch: TrajectoryBatch) -> Tensor:
        """x_r of the target frames, (B, N, T, D): learnt, or the mean over nodes and observed frames."""
        return self._prepare(batch)[0]

    def reverse(self, batch: TrajectoryBatch, u: Tensor, k: Tensor) -> ReverseStep:
        """One reverse step from the residual u at steps k (B,)."""
        anchor, _, given = self._prepare(batch)
        u = self.project(u, batch)
        return self.diffusion.reverse(u, k, self._predict(u, k, anchor, batch, given))

    @torch.no_grad()
    def bound(self, batch: TrajectoryBatch, noise: NoiseSource) -> Tensor:
        """Variational bound on the negative log-likelihood in nats per system, (B,); T network evaluations."""
        anchor, target, given = self._prepare(batch)
        real = self._real(batch)
        total = self.diffusion.bound(
            lambda u, k: self._predict(u, k, anchor, batch, given),
            self.project(target - anchor, batch),
            lambda k: self.project(noise.normal(target, k + _PRIOR, real), batch),
        )
        return (total * real).sum((1, 2, 3))

    @torch.no_grad()
    def run(
        self,
        batch: TrajectoryBatch,
        noise: NoiseSource,
        *,
        steps: int | None = None,
        start: int | None = None,
        u: Tensor | None = None,
    ) -> Tensor:
        """Target frames (B, N, T, D), sampled.

        Args:
            batch: the observed frames (and anything after them), or the systems whose shape is generated.
            noise: B ids.
            steps: None for the published chain of all steps; a number for that many ancestral steps on a respaced grid.
            start: first step of the chain, for a state u that is not pure noise.
            u: the residual state to start from; default: noise.

        Raises:
            FloatingPointError: if the chain diverges.
        """
        anchor, target, given = self._prepare(batch)
        real = self._real(batch)
        state = noise.normal(target, _PRIOR, real) if u is None else u
        if steps is None:
            drawn = self.diffusion.chain(
                lambda u, k: self._predict(u, k, anchor, batch, given),
                state,
                lambda k: noise.normal(target, _PRIOR + 1 + k, real),
                start,
                lambda u: self.project(u, batch),
            )
        else:
            denoiser = Denoiser(_Residual(self, anchor, batch, given), self._path(), Noise(), data_std=None)
            sampler = Sampler(Multistep(1, "data", 1.0, corrector=False, ddim_eta=True), UniformGrid(end=0.0), steps)
            mask = real.squeeze(-1).expand(target.shape[:3])
            drawn = sampler(denoiser, state, generator=noise, mask=mask).x
        if not bool(torch.isfinite(drawn).all()):
            raise FloatingPointError(
                "sampling diverged to infinite positions: the published parameterization does that with few steps or "
                "little training; use more steps, or the model 'geotdm'"
            )
        return anchor + drawn

    def forecast(
        self,
        observed: TrajectoryRecord | Sequence[TrajectoryRecord] | ArrayLike,
        num_samples: int = 20,
        *,
        steps: int | None = None,
        seed: int = 0,
        features: ArrayLike | None = None,
        edge_features: ArrayLike | None = None,
    ) -> NDArray[np.float32]:
        """Samples of the frames after the observed ones.

        Args:
            observed: records, or positions (N, T, D) or (B, N, T, D); the last `observed_frames` frames are used.
            num_samples: K.
            steps: None for all of the published steps.
            seed: seed of the draws.
            features: of the agents, for arrays, (N, F) or (B, N, F).
            edge_features: of pairs, for arrays, (N, N, E) or (B, N, N, E).

        Returns:
            (K, N, T, D) for one system, (B, K, N, T, D) for several.

        Raises:
            ValueError: for the unconditional model, or observations that do not fit.
        """
        if self.observed_frames == 0:
            raise ValueError("this model is unconditional: use sample()")
        batch, single = as_batch(observed, features, edge_features)
        if batch.positions.shape[2] < self.observed_frames:
            raise ValueError(f"{self.observed_frames} observed frames are needed, got {batch.positions.shape[2]}")
        last = slice(batch.positions.shape[2] - self.observed_frames, None)
        batch = _windowed(batch, last, self.target_frames)
        rows = torch.arange(len(batch)).repeat_interleave(num_samples)
        drawn = self.run(batch[rows], NoiseSource(seed, range(len(rows))), steps=steps)
        shaped = drawn.reshape(len(batch), num_samples, *drawn.shape[1:]).cpu().numpy()
        return shaped[0] if single else shaped

    def sample(
        self,
        num_samples: int,
        *,
        like: TrajectoryRecord | Sequence[TrajectoryRecord] | None = None,
        num_agents: int | None = None,
        steps: int | None = None,
        seed: int = 0,
    ) -> NDArray[np.float32]:
        """Trajectories of the unconditional model, (S, N, T, D).

        Args:
            num_samples: S.
            like: systems whose features and size are taken, in turn.
            num_agents: N, for models without features.
            steps: None for all of the published steps.
            seed: seed of the draws.
        """
        if self.observed_frames:
            raise ValueError("this model is conditional: use forecast()")
        batch = _templates(like, num_samples, num_agents, self.frames, self.dim, self.network.arguments["node_dim"])
        return self.run(batch, NoiseSource(seed, range(num_samples)), steps=steps).cpu().numpy()

    @torch.no_grad()
    def refine(self, batch: TrajectoryBatch, proposal: Tensor, start: int, *, noise: NoiseSource) -> Tensor:
        """Improve proposed target frames: noise them to step `start` - 1, then run the chain from there.

        Args:
            batch: as in :meth:`run`.
            proposal: (B, N, T, D).
            start: K in 1 ... T.
            noise: B ids.
        """
        if not 1 <= start <= self.diffusion.steps:
            raise ValueError(f"start must be in 1 ... {self.diffusion.steps}, got {start}")
        anchor, _, _ = self._prepare(batch)
        k = torch.full((len(proposal),), start - 1, device=proposal.device)
        eps = self.project(noise.normal(proposal, _NOISE, self._real(batch)), batch)
        u = self.diffusion.perturb(self.project(proposal - anchor, batch), k, eps)
        return self.run(batch, noise, start=start - 1, u=u)

    def _path(self) -> GaussianPath:
        schedule = self.diffusion.schedule()
        return GaussianPath(schedule) if self.observed_frames else GaussianPath(schedule, CenterFree((1, 2)))

    def _real(self, batch: TrajectoryBatch) -> Tensor:
        return batch.nodes[:, :, None, None]

    def _prepare(self, batch: TrajectoryBatch) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """(anchor, target frames, what the network is told besides the state)."""
        x = batch.positions
        if x.shape[2] < self.frames or x.shape[3] != self.dim:
            raise ValueError(f"the model needs positions (B, N, {self.frames}, {self.dim}), got {tuple(x.shape)}")
        nodes = batch.nodes
        late = nodes[:, :, None] & ~batch.present[:, :, : self.frames]
        if bool(late.any()):
            raise ValueError(
                "the published model needs every agent at every frame; the model 'geotdm' takes agents that come late"
            )
        observed, target = x[:, :, : self.observed_frames], x[:, :, self.observed_frames : self.frames]
        adjacency = nodes[:, :, None] & nodes[:, None, :]
        edges = batch.edge_features
        if self.network.arguments["edge_dim"] == 0:
            edges = None
        elif edges is None:
            raise ValueError(f"the model needs edge features with {self.network.arguments['edge_dim']} channels")
        if self.pairs != "all and self":
            adjacency = adjacency & ~torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
        if self.pairs == "with features":
            assert edges is not None
            adjacency = adjacency & (edges != 0).any(-1)
        features = batch.features
        if self.node_features == "observed and speed":
            features = _observed_and_speed(x[:, :, : self.frames], self.observed_frames)
        if features.shape[-1] != self.network.arguments["node_dim"]:
            raise ValueError(
                f"the model needs {self.network.arguments['node_dim']} features per agent, got {features.shape[-1]}"
            )
        given = {"h": features, "adjacency": adjacency, "edges": edges}
        if not self.observed_frames:
            return torch.zeros_like(target), target, given
        if self.network.arguments["learn_ref_frame"]:
            anchor = self.network.anchor(observed, features, adjacency, edges)
        else:
            anchor = mean_over(observed, nodes[:, :, None].expand(observed.shape[:3]), (1, 2)).expand_as(target)
        return anchor, target, {**given, "observed": observed}

    def _predict(
        self, u: Tensor, k: Tensor, anchor: Tensor, batch: TrajectoryBatch, given: Mapping[str, Any]
    ) -> Tensor:
        shown = k * (1000.0 / self.diffusion.steps) if self.rescale_timesteps else k
        x = u + anchor if self.observed_frames else self.project(u, batch)
        displacement, _ = self.network(x, tau=shown, **given)
        return self.project(displacement, batch)


class _Residual(nn.Module):
    """The network as the core calls it: on residuals, at times (k + 1)/T."""

    def __init__(
        self, model: ReferenceGeoTDM, anchor: Tensor, batch: TrajectoryBatch, given: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self._run = lambda u, t: model._predict(u, t * model.diffusion.steps - 1, anchor, batch, given)

    def forward(self, x: Tensor, t: Tensor, *, mask: Any = None, condition: Any = None) -> Tensor:
        return self._run(x, t)


def read_reference(path: Path) -> ReferenceGeoTDM:
    """A model from a state dict trained with the authors' program: ``fourfold.convert("geotdm", path, out)``.

    The layout comes from the keys. What leaves no trace in the weights (length of the diffusion, observed frames, ...)
    is taken from a JSON file of the same name beside it, if there is one, with keys as in :class:`ReferenceGeoTDM`
    (`pre_norm` too); otherwise from the published configuration with the same dimensions, which a warning names.

    Raises:
        ValueError: if the file holds anything but tensors, the tensors are not those of such a network, or neither a
            JSON file nor a published configuration says what is missing.
    """
    content = read_plain(path, hint="save the model's state_dict() with torch.save")
    state = _state_of(content, path)
    layout = layout_of(state)
    beside = path.with_suffix(".json")
    if beside.is_file():
        said = json.loads(beside.read_text(encoding="utf-8"))
        if not isinstance(said, dict):
            raise ValueError(f"{beside} must hold keys and values")
    else:
        said = _published(layout)
        if said is None:
            raise ValueError(
                f"{path} has the layout {layout}, which is none of the published configurations: write what the "
                f'weights do not say into {beside.name} beside it, e.g. {{"observed_frames": 10, "target_frames": 20, '
                '"num_timesteps": 1000, "pre_norm": false}'
            )
        warnings.warn(
            f"{path.name}: taken for the published configuration {said}; if it was trained otherwise, say so in "
            f"{beside.name}",
            UserWarning,
            stacklevel=2,
        )
    said = dict(said)
    layout["pre_norm"] = bool(said.pop("pre_norm", False))
    try:
        model = ReferenceGeoTDM(layout, **said)
        model.network.load_state_dict(state, strict=True)
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"{path} does not fit a trajectory network: {' '.join(str(error).split())[:300]}") from error
    return model.eval()


def _state_of(content: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(content, Mapping) and "state_dict" in content:
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(isinstance(v, Tensor) for v in content.values()):
        raise ValueError(
            f"{path} is refused: a state dict (names and tensors) is needed, not a {type(content).__name__}"
        )
    state = {str(k).removeprefix("module."): v for k, v in content.items()}
    bad = [key for key, value in state.items() if not torch.isfinite(value).all()]
    if bad:
        raise ValueError(f"{path} is refused: {bad[0]} holds NaN or infinite values")
    return state


def _published(layout: Mapping[str, Any]) -> dict[str, Any] | None:
    learnt, num_w = layout["learn_ref_frame"], layout["num_w"]
    match (layout["node_dim"], layout["edge_dim"]):
        case (1, 1):
            said: dict[str, Any] = {"num_timesteps": 1000}
        case (30, 4):
            said = {"num_timesteps": 100, "pairs": "with features"}
        case (2, 0) if learnt:
            return {
                "observed_frames": 8,
                "target_frames": num_w,
                "dim": 2,
                "num_timesteps": 100,
                "rescale_timesteps": True,
                "node_features": "observed and speed",
                "pairs": "all and self",
                "pre_norm": True,
            }
        case _:
            return None
    return {**said, "observed_frames": 10 if learnt else 0, "target_frames": num_w if learnt else 20}


def _observed_and_speed(x: Tensor, observed_frames: int) -> Tensor:
    """ETH/UCY's features per frame: 1 where observed, and the speed, the last observed one in the future."""
    speed = (x[:, :, 1:] - x[:, :, :-1]).norm(dim=-1)
    speed = torch.cat((speed[:, :, :1], speed), -1)
    known = torch.arange(x.shape[2], device=x.device) < observed_frames
    speed = torch.where(known, speed, speed[:, :, observed_frames - 1 : observed_frames])
    return torch.stack((known.to(x).expand_as(speed), speed), -1)


def _windowed(batch: TrajectoryBatch, last: slice, more: int) -> TrajectoryBatch:
    """The observed frames followed by room for the frames to be generated."""
    positions, present, times = batch.positions[:, :, last], batch.present[:, :, last], batch.times[:, last]
    nodes = present.any(-1, keepdim=True).expand(-1, -1, more)
    after = times[:, -1:] + torch.arange(1, more + 1, device=times.device)
    return replace(
        batch,
        positions=torch.nn.functional.pad(positions, (0, 0, 0, more)),
        present=torch.cat((present, nodes), -1),
        times=torch.cat((times, after), -1),
        observed=None,
    )


def _templates(
    like: TrajectoryRecord | Sequence[TrajectoryRecord] | None,
    count: int,
    num_agents: int | None,
    frames: int,
    dim: int,
    node_dim: int,
) -> TrajectoryBatch:
    """A batch of `count` systems without positions, to be generated."""
    if like is None:
        if num_agents is None or node_dim:
            raise ValueError("give `like`: records whose features and size the samples shall have")
        like = [TrajectoryRecord(np.zeros((num_agents, 1, dim), np.float32))]
    batch, _ = as_batch(like, None, None)
    batch = batch[torch.arange(count) % len(batch)]
    nodes = batch.nodes
    return TrajectoryBatch(
        positions=torch.zeros(count, nodes.shape[1], frames, dim),
        features=batch.features,
        present=nodes[:, :, None].expand(-1, -1, frames).contiguous(),
        times=torch.arange(frames, dtype=torch.float32).expand(count, -1),
        ego=batch.ego,
        edge_features=batch.edge_features,
    )
