r"""Trajectories of agents (particles, atoms, people): one record per system, dense batches of records.

A record holds positions $x \in \mathbb{R}^{N \times T \times D}$ of $N$ agents at $T$ frames, what is known of the
agents beside their places (charges, masses, atom types: unchanged by rotation), and which places are known at all. A
batch pads systems of different sizes to the largest and says by masks what is padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

__all__ = ["UNITS", "TrajectoryBatch", "TrajectoryRecord", "collate"]

#: Units of length a record may be in; "1" is for numbers without a unit, "px" for picture coordinates.
UNITS = ("1", "m", "cm", "mm", "km", "ft", "px", "angstrom", "nm", "bohr")


@dataclass(frozen=True, eq=False)
class TrajectoryRecord:
    """One system of agents over time; checks itself.

    Args:
        positions: shape `(N, T, D)` with D = 2 or 3, stored as float32; places where `present` is False are ignored.
        features: static properties of the agents that do not change under rotation, shape `(N, F)`; default: none.
        edge_features: static properties of ordered pairs, shape `(N, N, E)`.
        present: where a place is known, shape `(N, T)`: False for agents that come late, leave early or miss frames;
            default: everywhere.
        times: strictly increasing times of the frames, shape `(T,)`, in units of one frame; default 0, 1, 2, ...
        ego: agents that are judged, shape `(N,)`; default: all.
        name: any text.
        atoms: chemical symbols, N of them.
        bonds: pairs of agents to be drawn as bonds, shape `(M, 2)`.
        units: unit of length, one of :data:`UNITS`.

    Raises:
        ValueError: wrong shapes, no agents or frames, a NaN or infinite place that is said to be known, times that do
            not increase, an unknown unit. The message says which.
    """

    positions: NDArray[np.float32]
    features: NDArray[np.float32] | None = None
    edge_features: NDArray[np.float32] | None = None
    present: NDArray[np.bool_] | None = None
    times: NDArray[np.float32] | None = None
    ego: NDArray[np.bool_] | None = None
    name: str | None = None
    atoms: tuple[str, ...] | None = None
    bonds: NDArray[np.int64] | None = None
    units: str = "1"

    def __post_init__(self) -> None:
        positions = _floats("positions", self.positions)
        if positions.ndim != 3 or positions.shape[2] not in (2, 3):
            raise self._error(f"positions must have shape (agents, frames, 2 or 3 coordinates), got {positions.shape}")
        agents, frames, _ = positions.shape
        if agents == 0 or frames == 0:
            raise self._error(f"at least one agent and one frame are needed, got {agents} agents and {frames} frames")
        present = None if self.present is None else self._shaped("present", _bools(self.present), (agents, frames))
        self._set("present", present)
        self._check_finite(positions, present)
        self._set("positions", positions)
        features = np.zeros((agents, 0), np.float32) if self.features is None else _floats("features", self.features)
        self._set("features", self._finite("features", self._shaped("features", features, (agents, None))))
        if self.edge_features is not None:
            pairs = self._shaped("edge_features", _floats("edge_features", self.edge_features), (agents, agents, None))
            self._set("edge_features", self._finite("edge_features", pairs))
        times = np.arange(frames) if self.times is None else np.asarray(self.times)
        self._set("times", self._increasing(self._shaped("times", times, (frames,))))
        ego = np.ones(agents, bool) if self.ego is None else _bools(self.ego)
        self._set("ego", self._shaped("ego", ego, (agents,)))
        if self.atoms is not None:
            self._set("atoms", tuple(str(symbol) for symbol in self.atoms))
            if len(self.atoms) != agents:
                raise self._error(f"{len(self.atoms)} atom symbols for {agents} agents")
        if self.bonds is not None:
            bonds = np.asarray(self.bonds, np.int64).reshape(-1, 2)
            if bonds.size and (bonds.min() < 0 or bonds.max() >= agents or (bonds[:, 0] == bonds[:, 1]).any()):
                raise self._error(f"bonds must join two different agents in 0 ... {agents - 1}")
            self._set("bonds", bonds)
        if self.units not in UNITS:
            raise self._error(f"unknown unit of length {self.units!r}; known are {', '.join(UNITS)}")

    @property
    def num_agents(self) -> int:
        """N."""
        return self.positions.shape[0]

    @property
    def num_frames(self) -> int:
        """T."""
        return self.positions.shape[1]

    @property
    def dim(self) -> int:
        """D, 2 or 3."""
        return self.positions.shape[2]

    @property
    def known(self) -> NDArray[np.bool_]:
        """`present`, all True where it was not given, shape `(N, T)`."""
        return np.ones(self.positions.shape[:2], bool) if self.present is None else self.present

    def frames(self, start: int, stop: int) -> TrajectoryRecord:
        """The frames `start ... stop - 1` with their times."""
        if not 0 <= start < stop <= self.num_frames:
            raise self._error(f"frames {start} to {stop} are not within 0 to {self.num_frames}")
        assert self.times is not None
        present = None if self.present is None else self.present[:, start:stop]
        return replace(self, positions=self.positions[:, start:stop], present=present, times=self.times[start:stop])

    def _error(self, message: str) -> ValueError:
        return ValueError(message if self.name is None else f"{self.name}: {message}")

    def _set(self, field: str, value: Any) -> None:
        object.__setattr__(self, field, value)

    def _shaped(self, what: str, values: NDArray[Any], shape: tuple[int | None, ...]) -> NDArray[Any]:
        fits = values.ndim == len(shape) and all(s in (None, n) for s, n in zip(shape, values.shape, strict=True))
        if not fits:
            wanted = ", ".join("any" if s is None else str(s) for s in shape)
            raise self._error(f"{what} must have shape ({wanted}) to go with the positions, got {values.shape}")
        return values

    def _finite(self, what: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
        if not np.isfinite(values).all():
            raise self._error(f"{what} holds NaN or infinite values")
        return values

    def _check_finite(self, positions: NDArray[np.float32], present: NDArray[np.bool_] | None) -> None:
        bad = ~np.isfinite(positions).all(-1)
        if present is not None:
            bad &= present
            if not present.any():
                raise self._error("no agent is present at any frame")
        if bad.any():
            agent, frame = (int(i) for i in np.argwhere(bad)[0])
            raise self._error(
                f"{int(bad.sum())} positions are NaN or infinite, the first of agent {agent} at frame {frame}; "
                "say present=False where a place is not known"
            )

    def _increasing(self, times: NDArray[Any]) -> NDArray[np.float32]:
        if not np.isfinite(times).all():
            raise self._error("times hold NaN or infinite values")
        single = times.astype(np.float32)
        steps = np.diff(times)
        if (steps <= 0).any():
            where = int(np.argmax(steps <= 0))
            raise self._error(
                f"times must strictly increase, but frame {where + 1} is at {times[where + 1]} after {times[where]}"
            )
        if (np.diff(single) <= 0).any():
            raise self._error("times are too large for single precision: count them from the first frame")
        return single


@dataclass(frozen=True, eq=False)
class TrajectoryBatch:
    """Records side by side, padded to the largest.

    Args:
        positions: `(B, N, T, D)` float32; 0 where not present.
        features: `(B, N, F)` float32.
        present: `(B, N, T)` bool, False where padded or not known.
        times: `(B, T)` float32, strictly increasing, also over padded frames.
        ego: `(B, N)` bool, agents that are judged; False where padded.
        edge_features: `(B, N, N, E)` float32, or None.
        observed: `(B, N, T)` bool, what a forecast may look at; None if the user of the batch decides.
    """

    positions: Tensor
    features: Tensor
    present: Tensor
    times: Tensor
    ego: Tensor
    edge_features: Tensor | None = None
    observed: Tensor | None = None

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def nodes(self) -> Tensor:
        """Agents that exist, i.e. are present at some frame, shape `(B, N)`."""
        return self.present.any(-1)

    def to(self, device: torch.device | str) -> TrajectoryBatch:
        """The same batch on a device."""
        return self._map(lambda t: t.to(device))

    def pin_memory(self) -> TrajectoryBatch:
        """The same batch in page-locked memory (torch's loader calls this)."""
        return self._map(lambda t: t.pin_memory())

    def __getitem__(self, index: Any) -> TrajectoryBatch:
        """Some samples of the batch, by slice, index tensor or mask."""
        if isinstance(index, int):
            index = slice(index, index + 1 or None)
        return self._map(lambda t: t[index])

    def _map(self, change: Any) -> TrajectoryBatch:
        parts: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: change(v) for k, v in parts.items() if v is not None})


def collate(records: Sequence[TrajectoryRecord], observed_frames: int | None = None) -> TrajectoryBatch:
    """Records as one batch; systems of different sizes and lengths are padded.

    Args:
        records: at least one, all of one dimension, with equally many features, and in one unit.
        observed_frames: mark the known places of this many first frames as observed; None leaves `observed` None.

    Returns:
        A batch as large as the largest record.

    Raises:
        ValueError: no records, or records that do not go together.
    """
    if not records:
        raise ValueError("no records to collate")
    first = records[0]
    assert first.features is not None
    for index, record in enumerate(records):
        _goes_with(first, record, index)
    size, agents, frames = len(records), max(r.num_agents for r in records), max(r.num_frames for r in records)
    shortest = min(r.num_frames for r in records)
    if observed_frames is not None and not 0 <= observed_frames <= shortest:
        raise ValueError(
            f"observed_frames={observed_frames} must be between 0 and the {shortest} frames of the shortest record"
        )
    positions = np.zeros((size, agents, frames, first.dim), np.float32)
    features = np.zeros((size, agents, first.features.shape[1]), np.float32)
    present = np.zeros((size, agents, frames), bool)
    times = np.zeros((size, frames), np.float32)
    ego = np.zeros((size, agents), bool)
    edges = None
    if first.edge_features is not None:
        edges = np.zeros((size, agents, agents, first.edge_features.shape[2]), np.float32)
    for b, r in enumerate(records):
        n, t = r.num_agents, r.num_frames
        assert r.features is not None
        assert r.times is not None
        known = r.known
        positions[b, :n, :t] = np.where(known[..., None], r.positions, 0)
        features[b, :n], present[b, :n, :t], ego[b, :n] = r.features, known, r.ego
        times[b, :t] = r.times
        times[b, t:] = r.times[-1] + np.arange(1, frames - t + 1)
        if edges is not None:
            assert r.edge_features is not None
            edges[b, :n, :n] = r.edge_features
    observed = None
    if observed_frames is not None:
        observed = present & (np.arange(frames) < observed_frames)
    return TrajectoryBatch(
        positions=torch.from_numpy(positions),
        features=torch.from_numpy(features),
        present=torch.from_numpy(present),
        times=torch.from_numpy(times),
        ego=torch.from_numpy(ego),
        edge_features=None if edges is None else torch.from_numpy(edges),
        observed=None if observed is None else torch.from_numpy(observed),
    )


def _goes_with(first: TrajectoryRecord, record: TrajectoryRecord, index: int) -> None:
    def facts(r: TrajectoryRecord) -> dict[str, Any]:
        assert r.features is not None
        return {
            "coordinates": r.dim,
            "features per agent": r.features.shape[1],
            "features per pair": None if r.edge_features is None else r.edge_features.shape[2],
            "units": r.units,
        }

    for (what, expected), found in zip(facts(first).items(), facts(record).values(), strict=True):
        if expected != found:
            name = "" if record.name is None else f" ({record.name})"
            raise ValueError(f"record {index}{name} has {what} {found!r}, the first record has {expected!r}")


def _floats(what: str, values: ArrayLike) -> NDArray[np.float32]:
    array = np.asarray(values)
    if array.dtype == object or not (np.issubdtype(array.dtype, np.number) or array.dtype == bool):
        raise ValueError(f"{what} must be numbers, got {array.dtype}")
    if np.iscomplexobj(array):
        raise ValueError(f"{what} must be real")
    return np.ascontiguousarray(array, dtype=np.float32)


def _bools(values: ArrayLike) -> NDArray[np.bool_]:
    array = np.asarray(values)
    if array.dtype != bool and not np.isin(array, (0, 1)).all():
        raise ValueError("masks (present, ego) must be boolean")
    return array.astype(bool)
