r"""Random rotations of training records, for networks that do not know that space has no preferred direction.

$x \mapsto c + (x - c) R^\top$ with $R$ uniform over the rotations of the plane or of space and $c$ the mean of the
known places.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from ...core.noise import hash_seed
from ...modalities.trajectories.records import TrajectoryRecord

__all__ = ["RotatedRecords", "random_rotation", "rotated"]


def random_rotation(dim: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """A rotation matrix `(D, D)`, uniformly distributed, determinant 1."""
    q, r = np.linalg.qr(rng.standard_normal((dim, dim)))
    q *= np.sign(np.diag(r))  # without this, QR's choice of signs makes some rotations likelier than others
    if np.linalg.det(q) < 0:
        q[:, 0] *= -1
    return q


def rotated(record: TrajectoryRecord, rotation: NDArray[np.float64]) -> TrajectoryRecord:
    """The record turned about the mean of its known places."""
    centre = record.positions[record.known].mean(0)
    turned = (record.positions - centre) @ rotation.T.astype(np.float32) + centre
    return replace(record, positions=turned)


class RotatedRecords(Dataset[TrajectoryRecord]):
    """Endless epochs of records in random order, each under a new rotation: item i is a function of (seed, i) alone.

    Args:
        records: training records.
        seed: of order and rotations.
    """

    def __init__(self, records: list[TrajectoryRecord], seed: int) -> None:
        self.records, self.seed = records, seed
        self._order: tuple[int, NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> TrajectoryRecord:
        epoch, place = divmod(int(index), len(self.records))
        if self._order is None or self._order[0] != epoch:
            rng = np.random.default_rng(hash_seed(self.seed, 0, epoch))
            self._order = (epoch, rng.permutation(len(self.records)))
        record = self.records[self._order[1][place]]
        return rotated(record, random_rotation(record.dim, np.random.default_rng(hash_seed(self.seed, 1, int(index)))))
