"""What a user asks of a model of trajectories: forecast, interpolate, sample, extend, refine.

Every verb comes to the same thing: a batch, a mask of what is observed, and as many draws of the rest as asked for. The
model itself supplies only the draw. Temperature tau scales the noise a draw starts from, x_1 ~ tau N(0, I): 1 gives
the learnt distribution, lower values less spread about its centre (a lower average error, a worse best sample), 0 one
deterministic forecast.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeGuard

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ...core import NoiseSource
from ..adapter import Adapter
from .conditioning import as_batch, extended
from .records import TrajectoryBatch, TrajectoryRecord

__all__ = ["Generation"]


class Generation(Adapter):
    """The verbs. A model that inherits them sets the attributes and implements :meth:`draw`."""

    features: int
    edge_features: int
    observed_frames: int
    target_frames: int
    mixture: Mapping[str, float]
    length_unit: str | None

    @abstractmethod
    def draw(
        self,
        batch: TrajectoryBatch,
        observed: Tensor,
        noise: NoiseSource,
        *,
        steps: int | None = None,
        start: float | None = None,
        proposal: Tensor | None = None,
        temperature: float | None = None,
    ) -> Tensor:
        """Positions (B, N, T, D): the observed ones (B, N, T) as they are, the others sampled."""

    def forecast(
        self,
        observed: TrajectoryRecord | Sequence[TrajectoryRecord] | ArrayLike,
        num_samples: int = 20,
        steps: int | None = None,
        seed: int = 0,
        *,
        frames: int | None = None,
        features: ArrayLike | None = None,
        edge_features: ArrayLike | None = None,
        times: ArrayLike | None = None,
        future_times: ArrayLike | None = None,
        batch_rows: int = 256,
        temperature: float | None = None,
    ) -> NDArray[np.float32]:
        """Samples of what comes after the observed frames.

        Args:
            observed: records (agents may come late: `present`), or positions (N, T, D) or (B, N, T, D).
            num_samples: K.
            steps: network evaluations per sample; default `sampling_steps`.
            seed: seed of the draws; a forecast depends on the seed, its place in the list, and its system alone.
            frames: how many to forecast; default `target_frames`.
            features: of the agents, for arrays, (N, F) or (B, N, F).
            edge_features: of pairs, for arrays, (N, N, E) or (B, N, N, E).
            times: of the observed frames, for arrays, (T,).
            future_times: true times of the frames to forecast, (frames,), after the observed ones; default: one apart.
            batch_rows: samples per network call.
            temperature: tau >= 0; default `sampling_temperature`.

        Returns:
            (K, N, frames, D) for one system; (B, K, N, frames, D) for several, padded with 0 to the largest.

        Raises:
            ValueError: wrong shapes, NaN positions, no observed frames, times that do not increase, wrong features.
        """
        if num_samples < 1:
            raise ValueError(f"num_samples must be at least 1, got {num_samples}")
        batch, single = self._batch(observed, features, edge_features, times)
        count = batch.positions.shape[2]
        ahead = _future(batch.times, future_times, self.target_frames if frames is None else frames)
        batch = extended(batch, ahead)
        assert batch.observed is not None
        drawn = self._many(batch, batch.observed, num_samples, seed, steps, batch_rows, temperature=temperature)[
            :, :, :, count:
        ]
        return drawn[0] if single else drawn

    def interpolate(
        self,
        positions: TrajectoryRecord | Sequence[TrajectoryRecord] | ArrayLike,
        observed: ArrayLike,
        num_samples: int = 20,
        steps: int | None = None,
        seed: int = 0,
        *,
        features: ArrayLike | None = None,
        edge_features: ArrayLike | None = None,
        times: ArrayLike | None = None,
        batch_rows: int = 256,
        temperature: float | None = None,
    ) -> NDArray[np.float32]:
        """Samples of whole trajectories that agree with the observed places: between frames, missing agents, gaps.

        Args:
            positions: records or arrays as in :meth:`forecast`, over all frames; what is not observed may be anything.
            observed: which places are given: (T,) frames, (N, T), or (B, N, T).
            num_samples: K.
            steps: network evaluations per sample.
            seed: seed of the draws.
            features: for arrays.
            edge_features: for arrays.
            times: for arrays, the true times of all frames.
            batch_rows: samples per network call.
            temperature: tau >= 0; default `sampling_temperature`.

        Returns:
            (K, N, T, D) or (B, K, N, T, D), the observed places as given.

        Raises:
            ValueError: as in :meth:`forecast`; a NaN in an observed place; nothing observed (use :meth:`sample`).
        """
        seen = np.asarray(observed)
        if seen.dtype != bool:
            raise ValueError(f"observed must be boolean, got {seen.dtype}")
        if not isinstance(positions, TrajectoryRecord) and not _records(positions):
            array = np.asarray(positions, np.float32)
            if array.ndim not in (3, 4):
                raise ValueError(f"positions must have shape (N, T, D) or (B, N, T, D), got {array.shape}")
            try:
                seen_here = np.broadcast_to(seen, array.shape[:-1])
            except ValueError as error:
                raise ValueError(
                    f"observed of shape {seen.shape} does not go with positions of shape {array.shape}: (T,), (N, T) "
                    "or (B, N, T) is needed"
                ) from error
            if not np.isfinite(array[seen_here]).all():
                raise ValueError("observed positions are NaN or infinite; mark them as not observed")
            positions = np.where(seen_here[..., None], array, 0)
        batch, single = self._batch(positions, features, edge_features, times)
        shape = tuple(batch.present.shape)
        given = seen[None] if seen.ndim == 2 else seen
        try:
            mask = torch.from_numpy(np.broadcast_to(given, shape).copy()) & batch.present
        except ValueError as error:
            raise ValueError(
                f"observed of shape {seen.shape} does not go with {shape}: (T,), (N, T) or (B, N, T) is needed"
            ) from error
        if not bool(mask.flatten(1).any(1).all()):
            raise ValueError("nothing is observed: use sample() for trajectories out of nothing")
        # Places that are not known are exactly what is asked for.
        batch = replace(batch, present=batch.nodes.unsqueeze(-1).expand(shape).contiguous())
        drawn = self._many(batch, mask, num_samples, seed, steps, batch_rows, temperature=temperature)
        return drawn[0] if single else drawn

    def sample(
        self,
        num_samples: int,
        *,
        like: TrajectoryRecord | Sequence[TrajectoryRecord] | None = None,
        num_agents: int | None = None,
        frames: int | None = None,
        dim: int = 3,
        steps: int | None = None,
        seed: int = 0,
        batch_rows: int = 256,
        temperature: float | None = None,
    ) -> NDArray[np.float32]:
        """Trajectories out of nothing, centred at the origin. The model must have been trained with the pattern "none".

        Args:
            num_samples: S.
            like: systems whose agents and features the samples have, in turn.
            num_agents: N, for models without features.
            frames: T; default observed_frames + target_frames.
            dim: D, if `like` is not given.
            steps: network evaluations per sample.
            seed: seed of the draws.
            batch_rows: samples per network call.
            temperature: tau >= 0; default `sampling_temperature`.

        Returns:
            (S, N, T, D).

        Raises:
            ValueError: for a model that never saw the pattern, or if it is not said what to sample.
        """
        if not self.mixture.get("none", 0.0) > 0:
            raise ValueError(
                "this model was trained with observations only: use forecast() or interpolate(), or train with "
                "conditioning {none: 1.0}"
            )
        if like is None:
            if num_agents is None or self.features or self.edge_features:
                raise ValueError("give `like`: records whose agents and features the samples shall have")
            like = TrajectoryRecord(np.zeros((num_agents, 1, dim), np.float32))
        batch = _blank(as_batch(like)[0], frames or self.observed_frames + self.target_frames)
        batch = batch[torch.arange(num_samples) % len(batch)]
        observed = torch.zeros_like(batch.present)
        return self._many(batch, observed, 1, seed, steps, batch_rows, temperature=temperature)[:, 0]

    def extend(
        self,
        observed: TrajectoryRecord | Sequence[TrajectoryRecord] | ArrayLike,
        frames: int,
        num_samples: int = 1,
        steps: int | None = None,
        seed: int = 0,
        *,
        overlap: int | None = None,
        features: ArrayLike | None = None,
        edge_features: ArrayLike | None = None,
        times: ArrayLike | None = None,
        batch_rows: int = 256,
        temperature: float | None = None,
    ) -> NDArray[np.float32]:
        """Long forecasts, block after block: each block of `target_frames` follows the last frames of the one before.

        Args:
            observed: as in :meth:`forecast`.
            frames: how many to append, any number.
            num_samples: K.
            steps: network evaluations per block.
            seed: seed of the draws.
            overlap: frames each block looks back at; default `observed_frames`.
            features: for arrays.
            edge_features: for arrays.
            times: for arrays.
            batch_rows: samples per network call.
            temperature: tau >= 0; default `sampling_temperature`.

        Returns:
            (K, N, frames, D) or (B, K, N, frames, D).
        """
        back = self.observed_frames if overlap is None else overlap
        if frames < 1 or back < 1:
            raise ValueError(f"frames and overlap must be at least 1, got {frames} and {back}")
        batch, single = self._batch(observed, features, edge_features, times)
        rows = torch.arange(len(batch)).repeat_interleave(num_samples)
        current, blocks, done = batch[rows].to(self._device()), [], 0
        while done < frames:
            size = min(self.target_frames, frames - done)
            count = current.positions.shape[2]
            whole = extended(current, _future(current.times, None, size))
            assert whole.observed is not None
            drawn = self._chunks(
                whole, whole.observed, NoiseSource(seed, range(len(rows))).spawn(done), steps, batch_rows
            )
            blocks.append(drawn[:, :, count:])
            kept = slice(max(0, count + size - back), None)
            current = replace(
                whole,
                positions=drawn[:, :, kept],
                present=whole.present[:, :, kept],
                observed=whole.present[:, :, kept],
                times=whole.times[:, kept],
            )
            done += size
        joined = torch.cat(blocks, 2).unflatten(0, (len(batch), num_samples)).cpu().numpy()
        return joined[0] if single else joined

    def refine(
        self,
        proposal: TrajectoryRecord | Sequence[TrajectoryRecord] | ArrayLike,
        observed: ArrayLike,
        start: float = 0.5,
        num_samples: int = 1,
        steps: int | None = None,
        seed: int = 0,
        *,
        features: ArrayLike | None = None,
        edge_features: ArrayLike | None = None,
        times: ArrayLike | None = None,
        batch_rows: int = 256,
    ) -> NDArray[np.float32]:
        """Improve a proposed trajectory: noise what is not observed to the time `start`, then denoise from there.

        Args:
            proposal: whole trajectories, e.g. another model's forecast.
            observed: which places are to stay: (T,), (N, T) or (B, N, T), bool.
            start: t* in (0, 1); near 0 hardly changes anything, near 1 forgets the proposal.
            num_samples: K.
            steps: network evaluations.
            seed: seed of the draws.
            features: for arrays.
            edge_features: for arrays.
            times: for arrays.
            batch_rows: samples per network call.

        Returns:
            (K, N, T, D) or (B, K, N, T, D).
        """
        if not 0 < start < 1:
            raise ValueError(f"start must be in (0, 1), got {start}")
        batch, single = self._batch(proposal, features, edge_features, times)
        seen = np.asarray(observed, bool)
        mask = torch.from_numpy(np.broadcast_to(seen, tuple(batch.present.shape)).copy()) & batch.present
        drawn = self._many(batch, mask, num_samples, seed, steps, batch_rows, start)
        return drawn[0] if single else drawn

    def _batch(
        self,
        given: TrajectoryRecord | Sequence[TrajectoryRecord] | ArrayLike,
        features: ArrayLike | None,
        edge_features: ArrayLike | None,
        times: ArrayLike | None,
    ) -> tuple[TrajectoryBatch, bool]:
        for record in [given] if isinstance(given, TrajectoryRecord) else given if _records(given) else []:
            if self.length_unit is not None and record.units != self.length_unit:
                raise ValueError(
                    f"the model was trained on places in {self.length_unit!r}, {record.name or 'a record'} is in "
                    f"{record.units!r}: convert its positions"
                )
        return as_batch(given, features, edge_features, times)

    def _many(
        self,
        batch: TrajectoryBatch,
        observed: Tensor,
        num_samples: int,
        seed: int,
        steps: int | None,
        batch_rows: int,
        start: float | None = None,
        temperature: float | None = None,
    ) -> NDArray[np.float32]:
        rows = torch.arange(len(batch)).repeat_interleave(num_samples)
        noise = NoiseSource(seed, range(len(rows)))
        drawn = self._chunks(batch[rows], observed[rows], noise, steps, batch_rows, start, temperature)
        return drawn.unflatten(0, (len(batch), num_samples)).cpu().numpy()

    def _chunks(
        self,
        batch: TrajectoryBatch,
        observed: Tensor,
        noise: NoiseSource,
        steps: int | None,
        batch_rows: int,
        start: float | None = None,
        temperature: float | None = None,
    ) -> Tensor:
        device, parts = self._device(), []
        for first in range(0, len(batch), max(1, batch_rows)):
            part = slice(first, first + max(1, batch_rows))
            own = batch[part].to(device)
            proposal = None if start is None else own.positions
            parts.append(
                self.draw(
                    own,
                    observed[part].to(device),
                    noise[part],
                    steps=steps,
                    start=start,
                    proposal=proposal,
                    temperature=temperature,
                )
            )
        return torch.cat(parts)

    def _device(self) -> torch.device:
        return next(self.parameters()).device


def _records(value: Any) -> TypeGuard[Sequence[TrajectoryRecord]]:
    return isinstance(value, Sequence) and len(value) > 0 and all(isinstance(r, TrajectoryRecord) for r in value)


def _future(times: Tensor, wanted: ArrayLike | None, frames: int) -> Tensor:
    if frames < 1:
        raise ValueError(f"at least one frame must be forecast, got {frames}")
    if wanted is None:
        return times[:, -1:] + torch.arange(1, frames + 1, dtype=times.dtype, device=times.device)
    ahead = torch.as_tensor(np.asarray(wanted, np.float32), device=times.device)
    if ahead.ndim != 1 or len(ahead) == 0:
        raise ValueError(f"future_times must have shape (frames,), got {tuple(ahead.shape)}")
    return ahead.expand(len(times), -1)


def _blank(batch: TrajectoryBatch, frames: int) -> TrajectoryBatch:
    """The systems' agents and features without places, over `frames` frames."""
    nodes = batch.nodes
    size, agents, dim = len(batch), nodes.shape[1], batch.positions.shape[-1]
    return replace(
        batch,
        positions=batch.positions.new_zeros(size, agents, frames, dim),
        present=nodes.unsqueeze(-1).expand(-1, -1, frames).contiguous(),
        times=torch.arange(frames, dtype=batch.times.dtype).expand(size, -1).contiguous(),
        observed=None,
    )
