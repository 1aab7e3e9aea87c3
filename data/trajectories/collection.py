"""A trajectory data set with its split and the protocol its numbers belong to."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...modalities.trajectories.records import TrajectoryRecord
from ..errors import DataError

__all__ = ["TrajectoryData"]


@dataclass(frozen=True)
class TrajectoryData:
    """Records for training, validation and test.

    Args:
        name: of the data set, or the user's file.
        train: records, at least one.
        validation: may be empty.
        test: may be empty.
        observed_frames: how many first frames a forecast looks at.
        protocol: windows, split and scale in words; goes with every number.
        units: unit of length of the places.
        kind: "particles", "pedestrians", "molecule" or "own".
        test_scale: the test records' places have been divided by this; multiply lengths predicted on them by it before
            they are compared with metres.
        licence: as far as the publisher states one.
        notes: what is worth knowing, e.g. the energy drift of a simulation.
    """

    name: str
    train: list[TrajectoryRecord]
    validation: list[TrajectoryRecord]
    test: list[TrajectoryRecord]
    observed_frames: int
    protocol: str
    units: str
    kind: str = "own"
    test_scale: float = 1.0
    licence: str | None = None
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.train:
            raise DataError(f"{self.name}: no training records")
        shortest = min(r.num_frames for part in (self.train, self.validation, self.test) for r in part)
        if not 1 <= self.observed_frames < shortest:
            raise DataError(
                f"{self.name}: observed_frames={self.observed_frames} must leave something to forecast: at least 1 and "
                f"below the {shortest} frames of the shortest record"
            )

    @property
    def dim(self) -> int:
        """Number of coordinates, 2 or 3."""
        return self.train[0].dim

    @property
    def num_features(self) -> int:
        """Features per agent."""
        features = self.train[0].features
        assert features is not None
        return features.shape[1]

    @property
    def num_edge_features(self) -> int:
        """Features per pair, 0 where there are none."""
        pairs = self.train[0].edge_features
        return 0 if pairs is None else pairs.shape[2]

    @property
    def num_frames(self) -> int:
        """Frames of the longest training record."""
        return max(r.num_frames for r in self.train)
