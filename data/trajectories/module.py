"""The Lightning data module of trajectories: named data sets or a user's files, padded batches, resumable order."""

import inspect
from typing import Any

import numpy as np
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from ...core.noise import hash_seed
from ...modalities.trajectories.records import TrajectoryBatch, TrajectoryRecord, collate
from ..errors import DataError
from ..resume import FreshSampler, ResumableSampler, eval_loader, train_loader
from .augmentation import RotatedRecords
from .catalog import load_dataset
from .collection import TrajectoryData
from .files import load_file

__all__ = ["TrajectoryDataModule"]


class TrajectoryDataModule(LightningDataModule):
    """Batches of a trajectory data set.

    Args:
        name: data set (see `fourfold.data.trajectories.dataset_names`); ignored if `file` is given.
        file: the user's own trajectories (see `fourfold.data.trajectories.load_file`).
        root: folder of data sets; default: FOURFOLD_DATA or the user's cache folder.
        options: settings of the data set or the file, e.g. {sizes: [1000, 100, 300]}.
        batch_size: systems per step.
        eval_batch_size: systems per validation and test step; default: batch_size.
        seed: seed of the order (and of the rotations).
        num_workers: loader processes.
        rotate: turn every training record by a new random rotation each epoch; for networks that are not equivariant.
    """

    def __init__(
        self,
        name: str | None = "springs",
        file: str | None = None,
        root: str | None = None,
        options: dict[str, Any] | None = None,
        batch_size: int = 64,
        eval_batch_size: int | None = None,
        seed: int = 0,
        num_workers: int = 0,
        rotate: bool = False,
    ) -> None:
        super().__init__()
        if name is None and file is None:
            raise ValueError("give a data set (data.name) or a file (data.file)")
        if batch_size < 1 or (eval_batch_size is not None and eval_batch_size < 1):
            raise ValueError("batch_size and eval_batch_size must be at least 1")
        self.name, self.file, self.root, self.options = name, file, root, options or {}
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size or batch_size
        self.seed, self.num_workers, self.rotate = seed, num_workers, rotate
        self._data: TrajectoryData | None = None

    @property
    def protocol(self) -> str | None:
        """Split, windows and scale in words; None before `setup`."""
        return None if self._data is None else self._data.protocol

    @property
    def data(self) -> TrajectoryData:
        """The data set, after `setup`."""
        if self._data is None:
            raise RuntimeError("the data are available after setup()")
        return self._data

    def setup(self, stage: str | None = None) -> None:
        if self._data is not None:
            return
        if self.file is not None:
            allowed = [p for p in inspect.signature(load_file).parameters if p != "path"]
            unknown = [option for option in self.options if option not in allowed]
            if unknown:
                raise DataError(f"a file has no option {', '.join(map(repr, unknown))}; known are {', '.join(allowed)}")
            self._data = load_file(self.file, **self.options)
        else:
            assert self.name is not None
            self._data = load_dataset(self.name, self.root, **self.options)

    def train_dataloader(self) -> DataLoader[Any]:
        records = self.data.train
        dataset: Dataset[TrajectoryRecord] = Records(records)
        sampler: type[ResumableSampler] = ResumableSampler
        if self.rotate:
            dataset, sampler = RotatedRecords(records, hash_seed(self.seed, 1)), FreshSampler
        return train_loader(
            dataset,
            batch_size=self.batch_size,
            seed=self.seed,
            trainer=self.trainer,
            sampler=sampler,
            size=len(records),
            num_workers=self.num_workers,
            collate_fn=self.collate,
        )

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        return self._evaluate(self.data.validation)

    def test_dataloader(self) -> DataLoader[Any] | list[Any]:
        return self._evaluate(self.data.test)

    def predict_dataloader(self) -> DataLoader[Any] | list[Any]:
        return self._evaluate(self.data.test)

    def collate(self, records: list[TrajectoryRecord]) -> TrajectoryBatch:
        """Records as a batch whose `observed` marks the data set's observed frames."""
        return collate(records, self.data.observed_frames)

    def _evaluate(self, records: list[TrajectoryRecord]) -> DataLoader[Any] | list[Any]:
        if not records:
            return []
        return eval_loader(
            Records(records),
            batch_size=self.eval_batch_size,
            num_workers=self.num_workers,
            collate_fn=self.collate,
        )


class Records(Dataset[TrajectoryRecord]):
    """A list of records as torch knows data sets."""

    def __init__(self, records: list[TrajectoryRecord]) -> None:
        self.records = records

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> TrajectoryRecord:
        return self.records[int(np.asarray(index))]
