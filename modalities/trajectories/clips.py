"""What pictures, animations and players show: one system, what was observed, what was forecast, what happened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .records import TrajectoryRecord

__all__ = ["Clip"]

# Colours that also colour-blind eyes tell apart (Okabe and Ito), then the usual ones of chemistry.
_PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#7a5195", "#444444")
_ELEMENTS = {
    "H": "#b8bcc2",
    "C": "#3b3f45",
    "N": "#3454c5",
    "O": "#d62f2f",
    "F": "#4fae4b",
    "P": "#e08214",
    "S": "#c9a400",
    "Cl": "#2f9e44",
    "Br": "#8c2d04",
    "I": "#6a1b9a",
}
_POSITIVE, _NEGATIVE = "#d62728", "#1f5fbf"


@dataclass(frozen=True, eq=False)
class Clip:
    """One system to be shown.

    Args:
        record: observed frames and, if it is longer than they are, the truth of the following.
        samples: forecasts from the frame after the last observed one on, `(K, N, S, D)`, or of all frames together with
            the observed ones; None shows the record alone.
        observed_frames: how many frames of the record were observed; 0 for generated trajectories without observation.
        title: what it is.
        colors: one per agent (any CSS hexadecimal colour); default: by element, by sign of a charge, else by number.

    Raises:
        ValueError: shapes that do not go together.
    """

    record: TrajectoryRecord
    samples: NDArray[np.floating] | None = None
    observed_frames: int = 0
    title: str = ""
    colors: Sequence[str] | None = None

    def __post_init__(self) -> None:
        r = self.record
        if not 0 <= self.observed_frames <= r.num_frames:
            raise ValueError(f"observed_frames={self.observed_frames} is not within the record's {r.num_frames} frames")
        if self.colors is not None and len(self.colors) != r.num_agents:
            raise ValueError(f"{len(self.colors)} colours for {r.num_agents} agents")
        if self.samples is None:
            return
        samples = np.asarray(self.samples, np.float32)
        if samples.ndim == 3:
            samples = samples[None]
        if samples.ndim != 4 or samples.shape[1] != r.num_agents or samples.shape[3] != r.dim:
            raise ValueError(
                f"samples must have shape (samples, {r.num_agents} agents, frames, {r.dim} coordinates), "
                f"got {np.shape(self.samples)}"
            )
        if not np.isfinite(samples).all():
            raise ValueError("samples hold NaN or infinite places")
        if samples.shape[2] == r.num_frames and self.observed_frames:
            samples = samples[:, :, self.observed_frames :]
        object.__setattr__(self, "samples", samples)

    @property
    def truth(self) -> NDArray[np.float32]:
        """Places after the observed frames, `(N, T - observed, D)`, NaN where not known; may be empty."""
        return self.places[:, self.observed_frames :]

    @property
    def places(self) -> NDArray[np.float32]:
        """The record's places, NaN where not known."""
        return np.where(self.record.known[..., None], self.record.positions, np.nan)

    @property
    def num_frames(self) -> int:
        """Frames to show, of record or samples."""
        future = 0 if self.samples is None else self.samples.shape[2]
        return max(self.record.num_frames, self.observed_frames + future)

    @property
    def agent_colors(self) -> tuple[str, ...]:
        """A colour per agent."""
        r = self.record
        if self.colors is not None:
            return tuple(self.colors)
        if r.atoms is not None:
            return tuple(_ELEMENTS.get(symbol, "#b05fb0") for symbol in r.atoms)
        if r.features is not None and r.features.shape[1] == 1:
            charges = r.features[:, 0]
            if set(charges.tolist()) <= {-1.0, 1.0} and len(set(charges.tolist())) == 2:
                return tuple(_POSITIVE if q > 0 else _NEGATIVE for q in charges)
        return tuple(_PALETTE[i % len(_PALETTE)] for i in range(r.num_agents))

    @property
    def bonds(self) -> NDArray[np.int64]:
        """Pairs to be drawn as bonds, `(M, 2)`, perhaps none."""
        return np.zeros((0, 2), np.int64) if self.record.bonds is None else self.record.bonds

    def sample_record(self, index: int) -> TrajectoryRecord:
        """Observed frames and one sample as a record, e.g. for export."""
        if self.samples is None or not 0 <= index < len(self.samples):
            count = 0 if self.samples is None else len(self.samples)
            raise ValueError(f"there is no sample {index}: the clip has {count}")
        r, at = self.record, self.observed_frames
        future = self.samples[index]
        assert r.times is not None
        times, length = r.times, at + future.shape[1]
        if length > len(times):
            times = np.concatenate([times, times[-1] + np.arange(1, length - len(times) + 1)])
        present = np.concatenate([r.known[:, :at], np.ones(future.shape[:2], bool)], axis=1)
        positions = np.concatenate([r.positions[:, :at], future], axis=1)
        return replace(r, positions=positions, present=present, times=times[:length])

    def extent(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lowest and highest coordinates of all that is shown; samples count up to three times the record's size."""
        shown = self.places.reshape(-1, self.record.dim)
        shown = shown[np.isfinite(shown).all(1)].astype(np.float64)
        low, high = shown.min(0), shown.max(0)
        if self.samples is not None:
            room = 3 * max(float((high - low).max()), 1e-6)
            flat = self.samples.reshape(-1, self.record.dim).astype(np.float64)
            low = np.minimum(low, np.maximum(flat.min(0), low - room))
            high = np.maximum(high, np.minimum(flat.max(0), high + room))
        return low, high
