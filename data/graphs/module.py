"""The Lightning data module of graphs: named sets, a user's files or graphs at hand, in batches of similar size."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from ...modalities.graphs.intake import OnBad, report_of
from ...modalities.graphs.packed import PackedGraphs
from ...modalities.graphs.properties import properties
from ...modalities.graphs.records import GraphBatch, GraphRecord, to_records
from ..errors import DataError
from ..resume import eval_loader, train_loader
from .buckets import BucketedSampler
from .catalog import GraphData, from_content, load_dataset
from .files import FileContent, encode_molecules, read_files

__all__ = ["GraphDataModule", "PackedDataset"]


class PackedDataset(Dataset[GraphBatch]):
    """Packed graphs that the loader takes batch by batch.

    Args:
        graphs: The graphs.
        repeats: How often an epoch goes through them; index k is graph `k % len(graphs)`.
    """

    def __init__(self, graphs: PackedGraphs, repeats: int = 1) -> None:
        self.graphs, self.repeats = graphs, repeats

    def __len__(self) -> int:
        return len(self.graphs) * self.repeats

    def __getitem__(self, index: int) -> GraphBatch:
        return self.graphs.batch([index % len(self.graphs)])

    def __getitems__(self, indices: list[int]) -> GraphBatch:
        return self.graphs.batch(np.asarray(indices) % len(self.graphs))


class GraphDataModule(LightningDataModule):
    """Batches of graphs for training and validation, and the data set with its protocol.

    Args:
        name: Data set (see `fourfold.data.graphs.dataset_names`); ignored if `file` or `graphs` is given.
        file: A file or folder with graphs or molecules of your own: SMILES, SDF, CSV, GraphML, edge lists, npz.
        graphs: Graphs at hand instead (NetworkX graphs, PyG Data, records; or RDKit molecules or SMILES), from Python.
        smiles_column: Column of the SMILES in a CSV file; default: the one named like "smiles".
        root: Folder of data sets; default: FOURFOLD_DATA or the user's cache folder.
        batch_size: Graphs per step and process.
        target: Property to learn with the graphs: a column of the data, logp, qed, num_atoms, weight, tpsa, num_rings
            (molecules), or num_nodes, num_edges, mean_degree, density, clustering.
        validation: Share of the training part set aside for the validation loss; default: as published for named
            sets (mostly 0), a tenth for your own.
        test: Share of your own graphs that is tested on.
        limit: Train on so many random graphs only.
        repeats: How often an epoch goes through the training graphs (small sets make short epochs).
        pool: Batches that are sorted by size together; 1 mixes all sizes.
        drop_last: Leave out an incomplete last batch.
        seed: Of order and split.
        on_bad: "skip" lists graphs that cannot be used and goes on, "raise" stops.
        num_workers: Loader processes.
    """

    def __init__(
        self,
        name: str | None = "community_small",
        file: str | None = None,
        graphs: Any = None,
        smiles_column: str | None = None,
        root: str | None = None,
        batch_size: int = 64,
        target: str | None = None,
        validation: float | None = None,
        test: float = 0.1,
        limit: int | None = None,
        repeats: int = 1,
        pool: int = 16,
        drop_last: bool = False,
        seed: int = 0,
        on_bad: OnBad = OnBad.SKIP,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        if name is None and file is None and graphs is None:
            raise ValueError("give a data set (data.name), a file (data.file), or graphs")
        if batch_size < 1 or repeats < 1 or pool < 1:
            raise ValueError(f"batch_size, repeats and pool must be at least 1, got {batch_size}, {repeats}, {pool}")
        self.name, self.file, self.graphs, self.smiles_column, self.root = name, file, graphs, smiles_column, root
        self.batch_size, self.target, self.validation, self.test = batch_size, target, validation, test
        self.limit, self.repeats, self.pool, self.drop_last = limit, repeats, pool, drop_last
        self.seed, self.on_bad, self.num_workers = seed, OnBad(on_bad), num_workers
        self._data: GraphData | None = None

    @property
    def data(self) -> GraphData:
        """The data set; loaded at first use."""
        if self._data is None:
            self._data = self._load()
            if self._data.skipped:
                warnings.warn(f"{self._data.name}: {report_of(self._data.skipped)}", UserWarning, stacklevel=2)
        return self._data

    @property
    def protocol(self) -> str | None:
        """Source and split in words; None before `setup`."""
        return None if self._data is None else self._data.protocol

    @property
    def target_mean(self) -> float:
        """Mean of the target over the training graphs; 0 without a target."""
        return 0.0 if self.target is None else float(np.nanmean(self._packed(self.data.train).target(self.target)))

    @property
    def target_std(self) -> float:
        """Standard deviation of the target over the training graphs; 1 without a target."""
        return 1.0 if self.target is None else float(np.nanstd(self._packed(self.data.train).target(self.target)))

    def setup(self, stage: str | None = None) -> None:
        _ = self.data

    def train_dataloader(self) -> DataLoader[Any]:
        graphs = self._packed(self.data.train)
        return train_loader(
            PackedDataset(graphs, self.repeats),
            batch_size=self.batch_size,
            seed=self.seed,
            trainer=self.trainer,
            sampler=partial(BucketedSampler, sizes=graphs.sizes, batch_size=self.batch_size, pool=self.pool),
            num_workers=self.num_workers,
            collate_fn=_same,
            drop_last=self.drop_last,
        )

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        return self._eval(self.data.validation) if len(self.data.validation) else []

    def test_dataloader(self) -> DataLoader[Any] | list[Any]:
        return self._eval(self.data.test) if len(self.data.test) else []

    def _eval(self, graphs: Sequence[GraphRecord]) -> DataLoader[Any]:
        packed = self._packed(graphs)
        # Largest last: batches stay dense, and the order is the same every time.
        ordered = packed.select(np.argsort(packed.sizes, kind="stable"))
        return eval_loader(
            PackedDataset(ordered), batch_size=self.batch_size, num_workers=self.num_workers, collate_fn=_same
        )

    def _load(self) -> GraphData:
        share = 0.1 if self.validation is None else self.validation
        own = {"validation": share, "test": self.test, "seed": self.seed, "limit": self.limit}
        if self.graphs is not None:
            data = from_content("graphs at hand", _content_of(self.graphs, self.on_bad), **own)
        elif self.file is not None:
            content = read_files(self.file, smiles_column=self.smiles_column, on_bad=self.on_bad)
            data = from_content(self.file, content, **own)
        else:
            assert self.name is not None
            data = load_dataset(
                self.name,
                self.root,
                validation=self.validation,
                seed=self.seed,
                limit=self.limit,
                on_bad=self.on_bad,
            )
        return data if self.target is None else _with_target(data, self.target)

    def _packed(self, graphs: Sequence[GraphRecord]) -> PackedGraphs:
        return PackedGraphs.pack(graphs, names=False)


def _same(batch: Any) -> GraphBatch:
    return batch


def _content_of(graphs: Iterable[Any], on_bad: OnBad) -> FileContent:
    items = list(graphs)
    if not items:
        raise DataError("no graphs were given")
    try:
        if isinstance(items[0], str) or hasattr(items[0], "GetAtoms"):
            content = encode_molecules([(f"molecule {k}", item) for k, item in enumerate(items)], on_bad)
        else:
            intake = to_records(items, on_bad)
            content = FileContent(intake.items, "graphs", skipped=intake.skipped)
    except (TypeError, ValueError) as error:
        raise DataError(str(error)) from error
    if not content.graphs:
        raise DataError(f"none of the {len(items)} graphs can be used: {content.skipped[0]}")
    return content


def _with_target(data: GraphData, target: str) -> GraphData:
    from dataclasses import replace

    def known(graphs: Sequence[GraphRecord]) -> Sequence[GraphRecord]:
        if not len(graphs):
            return graphs
        try:
            values = [properties(graph, [target], data.alphabet)[target] for graph in graphs]
        except ValueError as error:
            raise DataError(f"{data.name}: {error} (data.target)") from error
        packed = PackedGraphs.pack(graphs)
        others = PackedGraphs({k: v for k, v in packed.arrays.items() if not k.startswith("target_")}, packed.chosen)
        return others.with_targets({target: np.array(values)})

    train, validation, test = known(data.train), known(data.validation), known(data.test)
    return replace(data, train=train, validation=validation, test=test, protocol=f"{data.protocol}; target {target}")
