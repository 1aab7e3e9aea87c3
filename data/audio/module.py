"""The Lightning data module of separation: endless training mixtures, fixed validation and test pairs."""

import warnings
from dataclasses import replace
from typing import Any

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from ...core.noise import hash_seed
from ..errors import DataError
from ..resume import FreshSampler, eval_loader, train_loader
from .bank import AudioData
from .catalog import load_dataset
from .disjoint import DisjointLabels
from .folders import load_captions, load_folder, load_table
from .mixing import MixingSettings, Mixtures, collate

__all__ = ["SeparationDataModule"]

_TRAINING, _VALIDATION, _TEST = 0, 1, 2


class SeparationDataModule(LightningDataModule):
    """Mixtures of a data set of labelled sounds.

    Args:
        name: data set (see `fourfold.data.audio.dataset_names`); ignored if a folder, csv or json is given.
        folder: the user's sounds, a folder per label.
        csv: a table with columns file and caption or label.
        json: AudioCaps-style captions; where sounds have captions only, those that share a word are one class.
        root: folder of data sets; default: FOURFOLD_DATA or the user's cache folder.
        options: settings of the data set, e.g. {kinds: [bell, engine]} or {test_fold: 3}.
        sample_rate: Hz.
        mixing: how mixtures are made.
        batch_size: mixtures per step.
        batches_per_epoch: steps per epoch; training mixtures never repeat.
        validation_size: fixed validation mixtures.
        test_size: fixed test mixtures.
        seed: seed of all choices.
        num_workers: loader processes.
        on_error: what happens to bad files of the user: "skip" (with a warning) or "raise".
    """

    def __init__(
        self,
        name: str | None = "synthetic",
        folder: str | None = None,
        csv: str | None = None,
        json: str | None = None,
        root: str | None = None,
        options: dict[str, Any] | None = None,
        sample_rate: int = 16_000,
        mixing: MixingSettings | None = None,
        batch_size: int = 12,
        batches_per_epoch: int = 100,
        validation_size: int = 60,
        test_size: int = 100,
        seed: int = 0,
        num_workers: int = 0,
        on_error: str = "skip",
    ) -> None:
        super().__init__()
        if sum(given is not None for given in (folder, csv, json)) > 1:
            raise ValueError("give one of data.folder, data.csv and data.json, and null for the others")
        if name is None and folder is None and csv is None and json is None:
            raise ValueError(
                "give the sounds themselves (data.folder, data.csv or data.json) or a data set (data.name)"
            )
        if min(batch_size, batches_per_epoch, validation_size, test_size) < 1:
            raise ValueError("batch_size, batches_per_epoch, validation_size and test_size must be at least 1")
        self.name, self.folder, self.csv, self.json = name, folder, csv, json
        self.root, self.options, self.sample_rate = root, options or {}, sample_rate
        self.mixing, self.batch_size, self.batches_per_epoch = mixing or MixingSettings(), batch_size, batches_per_epoch
        self.validation_size, self.test_size = validation_size, test_size
        self.seed, self.num_workers, self.on_error = seed, num_workers, on_error
        self._data: AudioData | None = None
        self._most: dict[str, int] = {}

    @property
    def protocol(self) -> str | None:
        """Split and mixing in words; None before `setup`."""
        if self._data is None:
            return None
        m = self.mixing
        sources = f"{m.min_sources}" if m.min_sources == m.max_sources else f"{m.min_sources}-{m.max_sources}"
        fewer = "".join(f" (at most {n} in {part})" for part, n in self._most.items() if n < m.max_sources)
        return (
            f"{self._data.protocol}; mixtures of {sources} sources of different classes{fewer}, {m.seconds:g} s, SNR "
            f"U({m.min_snr:g}, {m.max_snr:g}) dB, seed {self.seed}"
        )

    @property
    def data(self) -> AudioData:
        """The data set, after `setup`."""
        if self._data is None:
            raise RuntimeError("the data are available after setup()")
        return self._data

    def setup(self, stage: str | None = None) -> None:
        if self._data is not None:
            return
        if self.folder is not None:
            self._data = load_folder(self.folder, self.sample_rate, on_error=self.on_error)
        elif self.csv is not None:
            self._data = load_table(self.csv, self.sample_rate, on_error=self.on_error)
        elif self.json is not None:
            self._data = load_captions(self.json, self.sample_rate, on_error=self.on_error)
        else:
            assert self.name is not None
            self._data = load_dataset(self.name, self.root, self.sample_rate, **self.options)
        if self._data.skipped:
            warnings.warn(
                f"{len(self._data.skipped)} sounds were left out, the first: {self._data.skipped[0]}",
                UserWarning,
                stacklevel=2,
            )

        self._most = self._room(self._data)

    def train_dataloader(self) -> DataLoader[Any]:
        return train_loader(
            Mixtures(self.data.train, self.mixing, seed=hash_seed(self.seed, _TRAINING)),
            batch_size=self.batch_size,
            seed=self.seed,
            trainer=self.trainer,
            sampler=FreshSampler,
            size=self.batch_size * self.batches_per_epoch,
            num_workers=self.num_workers,
            collate_fn=collate,
        )

    def val_dataloader(self) -> DataLoader[Any]:
        return self._fixed(self.validation_mixtures())

    def test_dataloader(self) -> DataLoader[Any]:
        return self._fixed(self.test_mixtures())

    def predict_dataloader(self) -> DataLoader[Any]:
        return self._fixed(self.test_mixtures())

    def validation_mixtures(self) -> Mixtures:
        """The same pairs every time, plain descriptions, every class as often as the others."""
        return self._pairs(_VALIDATION, self.validation_size)

    def test_mixtures(self) -> Mixtures:
        """As :meth:`validation_mixtures`, from the test part."""
        return self._pairs(_TEST, self.test_size)

    def _pairs(self, part: int, size: int) -> Mixtures:
        bank = self.data.validation if part == _VALIDATION else self.data.test
        settings = replace(self.mixing, plain_captions=True, speed_spread=0.0)
        return Mixtures(bank, settings, seed=hash_seed(self.seed, part), size=size, cycle=True)

    def _room(self, data: AudioData) -> dict[str, int]:
        # How many sounds the labels of each part allow in a mixture, at most as many as are wanted.
        m, most = self.mixing, {}
        for part, bank in (("training", data.train), ("validation", data.validation), ("test", data.test)):
            most[part] = DisjointLabels(bank).most(m.max_sources)
            if most[part] < m.min_sources:
                raise DataError(
                    f"{data.name}: only {most[part]} of the {len(bank)} sounds for {part} can be in a mixture, the "
                    f"others share labels; data.mixing.min_sources is {m.min_sources}: add sounds with other labels"
                )
        fewest = min(most, key=lambda part: most[part])
        if most[fewest] < m.max_sources:
            warnings.warn(
                f"data.mixing.max_sources is {m.max_sources}, but mixtures for {fewest} hold at most {most[fewest]} "
                "sounds: no more of them have no label in common",
                UserWarning,
                stacklevel=3,
            )
        return most

    def _fixed(self, mixtures: Mixtures) -> DataLoader[Any]:
        return eval_loader(mixtures, batch_size=self.batch_size, num_workers=self.num_workers, collate_fn=collate)
