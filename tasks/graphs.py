"""Graphs and molecules: `fourfold graphs fit|validate|test|sample|evaluate|export`."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import ExponentialLR

from ..data.graphs import GraphData, GraphDataModule
from ..data.graphs.molecule_sets import cache_folder
from ..modalities.adapter import Adapter
from ..modalities.graphs import GDSS, PARD
from ..modalities.graphs.files import write_graphml, write_npz, write_sdf, write_smiles
from ..modalities.graphs.metrics.evaluation import evaluate_graphs, evaluate_molecules
from ..modalities.graphs.molecules import Alphabet
from ..modalities.graphs.pictures import graph_grid, molecule_grid, molecule_svg, save_figure
from ..modalities.graphs.records import GraphBatch, GraphRecord
from ..modalities.graphs.reference_gdss import ReferenceGDSS
from .cli import run_cli
from .errors import UserError
from .runs import RunFolder
from .task import DiffusionTask
from .trainer import TaskTrainer

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rdkit.Chem import Mol

__all__ = ["GraphTask", "GraphTrainer", "main"]

# The blocks of so many graphs take seconds to find, and are kept on disk.
_LARGE = 10_000


class GraphTask(DiffusionTask):
    """Trains a model of graphs or molecules and judges what it draws.

    Args:
        adapter: The model.
        optimizer: Makes the optimiser from the parameters.
        warmup_steps: Optimiser steps of linear warm-up of the learning rate.
        decay_steps: If given, the rate falls to zero at this step, as half a cosine; otherwise it stays constant.
        epoch_decay: If given, the rate is multiplied by this after every epoch instead.
        clip_per_network: If given, the largest gradient norm of each of the adapter's networks by itself (in place of
            trainer.gradient_clip_val, which is about all of them together).
        ema_decay: Decay of the averaged weights; 0 trains without averaging.
        skip_nonfinite: How many steps in a row with a NaN or infinite loss or gradient are left out before the run
            stops.
        picture_samples: Graphs in the pictures drawn while training; 0 draws none.
        seed: Seed of all noise; the command line sets it from `seed_everything`.
    """

    def __init__(
        self,
        adapter: Adapter,
        optimizer: OptimizerCallable = lambda parameters: AdamW(parameters, lr=2e-3, weight_decay=0.0),
        warmup_steps: int = 50,
        decay_steps: int | None = None,
        epoch_decay: float | None = None,
        clip_per_network: float | None = None,
        ema_decay: float = 0.995,
        skip_nonfinite: int = 0,
        picture_samples: int = 8,
        seed: int = 42,
    ) -> None:
        super().__init__(adapter, optimizer, warmup_steps, decay_steps, ema_decay, skip_nonfinite, seed)
        if epoch_decay is not None and not (0 < epoch_decay <= 1 and decay_steps is None):
            raise ValueError(f"epoch_decay must be in (0, 1] and excludes decay_steps, got {epoch_decay}")
        self.epoch_decay, self.clip_per_network = epoch_decay, clip_per_network
        self.picture_samples = picture_samples

    def batch_size(self, batch: GraphBatch) -> int:
        return len(batch)

    def configure_callbacks(self) -> list[Callback]:
        datamodule = self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        target = getattr(self.adapter, "target", None)
        if isinstance(datamodule, GraphDataModule) and datamodule.target is None:
            # the data are loaded after this: what the model is told about, they must have
            datamodule.target = target
        return [_LearnFromData(), *super().configure_callbacks()]

    def configure_optimizers(self) -> Any:
        configured = super().configure_optimizers()
        if self.epoch_decay is not None:
            rate = ExponentialLR(configured["optimizer"], self.epoch_decay)
            configured["lr_scheduler"] = {"scheduler": rate, "interval": "epoch"}
        return configured

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        if self.clip_per_network is None:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        networks = self.adapter.networks() if isinstance(self.adapter, ReferenceGDSS) else self.adapter
        for network in networks.children():
            clip_grad_norm_(network.parameters(), self.clip_per_network)

    def training_step(self, batch: GraphBatch, batch_idx: int) -> Tensor | None:
        return super().training_step(self._translated(batch), batch_idx)

    def validation_step(self, batch: GraphBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        super().validation_step(self._translated(batch), batch_idx, dataloader_idx)

    def test_step(self, batch: GraphBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        super().test_step(self._translated(batch), batch_idx, dataloader_idx)

    def _translated(self, batch: GraphBatch) -> GraphBatch:
        """Published models know elements only: node types by element, whatever the charge."""
        atoms, datamodule = getattr(self.adapter, "atoms", None), getattr(self.trainer, "datamodule", None)
        if atoms is None or not isinstance(datamodule, GraphDataModule) or datamodule.data.alphabet is None:
            return batch
        table = torch.tensor([_element(atoms, symbol) for symbol, _ in datamodule.data.alphabet.atoms])
        return replace(batch, node_types=table.to(batch.node_types)[batch.node_types])

    def figures(self) -> dict[str, Figure]:
        datamodule = getattr(self.trainer, "datamodule", None)
        if self.picture_samples == 0 or not isinstance(datamodule, GraphDataModule):
            return {}
        records = self.records(self.picture_samples, seed=0)
        return {
            "samples": _picture(self.alphabet(datamodule.data), datamodule.data, records, shown=self.picture_samples)
        }

    def alphabet(self, data: GraphData) -> Alphabet | None:
        """What the node types of drawn molecules mean: for published models their elements; None for graphs."""
        atoms = getattr(self.adapter, "atoms", None)
        return data.alphabet if atoms is None else Alphabet(tuple((symbol, 0) for symbol in atoms))

    def records(self, n: int, **options: Any) -> list[GraphRecord]:
        """Draw graphs; options as of the adapter's `sample_records`."""
        sampler: Any = self.adapter
        try:
            return sampler.sample_records(n, **{k: v for k, v in options.items() if v is not None})
        except (ValueError, TypeError) as error:
            raise UserError(str(error)) from error

    def write_samples(
        self,
        datamodule: LightningDataModule,
        out: Path,
        *,
        num_samples: int,
        steps: int | None,
        seed: int,
        num_nodes: int | None = None,
        target: float | None = None,
        guidance: float | None = None,
    ) -> list[Path]:
        """graphs.npz, GraphML and samples.png; for molecules molecules.smi, .sdf and .svg beside them."""
        data = _data_of(datamodule)
        records = self.records(
            num_samples, steps=steps, seed=seed, num_nodes=num_nodes, target=target, guidance=guidance
        )
        files = [write_npz(records, out / "graphs.npz"), write_graphml(records, out / "graphs.graphml")]
        if data.kind == "molecules":
            molecules = _molecules(self.alphabet(data), records)
            files.append(write_smiles(molecules, out / "molecules.smi"))
            files.append(write_sdf(molecules, out / "molecules.sdf"))
            (out / "molecules.svg").write_text(molecule_svg(molecules[:36]), encoding="utf-8")
            files.append(out / "molecules.svg")
        files.append(save_figure(_picture(self.alphabet(data), data, records), out / "samples.png"))
        return files

    def measure(
        self, datamodule: LightningDataModule, out: Path, *, num_samples: int, steps: int | None, seed: int
    ) -> Mapping[str, Mapping[str, float]]:
        """The metrics of the model, of training graphs (the floor) and of a baseline; draws samples.png.

        At least as many graphs are drawn as there are test graphs: the published protocol compares the first ones.
        """
        data = _data_of(datamodule)
        if not data.test:
            raise UserError(f"{data.name} has no test graphs to evaluate on")
        count = num_samples if data.kind == "molecules" else max(num_samples, len(data.test))
        begin = time.process_time()
        records = self.records(count, steps=steps, seed=seed)
        spent = (time.process_time() - begin) / count
        if data.kind == "molecules":
            alphabet = self.alphabet(data)
            assert alphabet is not None
            drawn = {self.adapter.name: [alphabet.build(record) for record in records]}
            judged = evaluate_molecules(drawn, data.train, data.test, alphabet=data.alphabet)
        else:
            judged = evaluate_graphs({self.adapter.name: records}, data.train, data.test, validity=data.validity)
        save_figure(_picture(self.alphabet(data), data, records), out / "samples.png")
        print(
            f"{data.protocol}\n{judged.protocol}\nseed {seed}, {count} samples, {spent:.3g} CPU-seconds each",
            flush=True,
        )
        RunFolder(out).record(
            "evaluate_protocol",
            {
                "data": data.protocol,
                "metrics": judged.protocol,
                "num_generated": count,
                "cpu_seconds_per_sample": spent,
                "intervals": {
                    method: {name: [value.low, value.high] for name, value in row.items()}
                    for method, row in judged.intervals.items()
                },
            },
        )
        return judged.table


class GraphTrainer(TaskTrainer):
    """Adds what only graphs have to the command `sample`."""

    def prepare(
        self, model: DiffusionTask, datamodule: LightningDataModule | None, ckpt_path: str | None
    ) -> LightningDataModule:
        """As usual; a published model is told the sizes of the training graphs, which its weights do not hold."""
        data = super().prepare(model, datamodule, ckpt_path)
        _learn_sizes(model.adapter, _data_of(data))
        return data

    def sample(
        self,
        model: DiffusionTask,
        datamodule: LightningDataModule | None = None,
        ckpt_path: str | None = None,
        num_samples: int = 32,
        steps: int | None = None,
        seed: int = 0,
        out: str | None = None,
        num_nodes: int | None = None,
        target: str | None = None,
        guidance: float | None = None,
    ) -> list[Path]:
        """Draw graphs or molecules from a trained model and write them into a folder.

        Args:
            model: The task.
            datamodule: Its data.
            ckpt_path: Checkpoint, or "best" or "last" of --run.
            num_samples: How many to draw.
            steps: Sampler steps; default: what the model recommends.
            seed: Seed of the samples.
            out: Folder to write into; default: samples/ in the run folder.
            num_nodes: Nodes of every graph; default: as in the training data.
            target: Wanted property, VALUE or NAME=VALUE, for models trained with one.
            guidance: Scale of classifier-free guidance towards the target.
        """
        data = self.prepare(model, datamodule, ckpt_path)
        assert isinstance(model, GraphTask)
        folder = self._out(out, "samples")
        value = None if target is None else _target_value(target, getattr(model.adapter, "target", None))
        with torch.no_grad():
            files = model.write_samples(
                data,
                folder,
                num_samples=num_samples,
                steps=steps,
                seed=seed,
                num_nodes=num_nodes,
                target=value,
                guidance=guidance,
            )
        for file in files:
            print(file)
        return files


class _LearnFromData(Callback):
    """Shows a new model its data before anything copies or optimises its weights."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        adapter: Any = getattr(pl_module, "adapter", None)
        data = _data_of(getattr(trainer, "datamodule", None))
        _learn_sizes(adapter, data)
        if stage != "fit" or not isinstance(adapter, (GDSS, PARD)) or adapter.ready:
            return
        atoms = () if data.alphabet is None else data.alphabet.atoms
        root = trainer.datamodule.root  # pyright: ignore[reportAttributeAccessIssue]
        try:
            if isinstance(adapter, PARD):
                with cache_folder(root) as folder:
                    large = len(data.train) >= _LARGE
                    adapter.learn(data.train, atoms=atoms, cache=folder / "blocks" if large else None)
            else:
                adapter.learn(data.train, atoms=atoms)
        except ValueError as error:
            raise UserError(f"{data.name}: {error}") from error


def _element(atoms: Sequence[str], symbol: str) -> int:
    if symbol not in atoms:
        raise UserError(f"the data hold {symbol}, the model knows {', '.join(atoms)}: set model.adapter's atoms")
    return list(atoms).index(symbol)


def _learn_sizes(adapter: Adapter, data: GraphData) -> None:
    if isinstance(adapter, ReferenceGDSS) and adapter.node_counts is None:
        adapter.fit_node_counts([record.num_nodes for record in data.train])


def main(args: Sequence[str] | None = None) -> int:
    """The command line."""
    return run_cli("graphs", GraphTask, GraphDataModule, args, trainer_class=GraphTrainer)


def _picture(alphabet: Alphabet | None, data: GraphData, records: Sequence[GraphRecord], shown: int = 16) -> Figure:
    """Samples beside test graphs, or molecules."""
    if alphabet is not None:
        return molecule_grid(_molecules(alphabet, records[: 2 * shown]), title=f"{data.name}: generated")
    return graph_grid({"generated": records[:shown], "test": data.test[:shown]}, title=data.name)


def _molecules(alphabet: Alphabet | None, records: Sequence[GraphRecord]) -> list[Mol | None]:
    assert alphabet is not None
    return [alphabet.decode(record) for record in records]


def _target_value(text: str, known: str | None) -> float:
    name, equals, value = text.rpartition("=")
    if equals and name != known:
        raise UserError(f"--target {text}: this model generates for {known or 'no target'}, not for {name!r}")
    try:
        return float(value)
    except ValueError:
        raise UserError(f"--target {text}: expected VALUE or NAME=VALUE, with a number as value") from None


def _data_of(datamodule: Any) -> GraphData:
    if not isinstance(datamodule, GraphDataModule):
        raise UserError(f"this command needs a GraphDataModule, not a {type(datamodule).__name__}")
    return datamodule.data


if __name__ == "__main__":
    sys.exit(main())
