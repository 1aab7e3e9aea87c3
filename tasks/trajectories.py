"""Trajectories: `fourfold trajectories fit|validate|test|predict|animate|sample|evaluate|export`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import OptimizerCallable
from numpy.typing import NDArray
from torch.optim import AdamW
from torch.optim.lr_scheduler import StepLR

from ..core.noise import hash_seed
from ..data.trajectories import TrajectoryData, TrajectoryDataModule
from ..modalities.adapter import Adapter
from ..modalities.trajectories import GeoTDM, ReferenceGeoTDM, TrajectoryRecord, collate
from ..modalities.trajectories.animation import animate
from ..modalities.trajectories.clips import Clip
from ..modalities.trajectories.export import write_extxyz
from ..modalities.trajectories.metrics import (
    baseline_scores,
    bond_statistics,
    collision_rate,
    final_position_clusters,
    marginal_score,
    motion_statistics,
    sample_scores,
)
from ..modalities.trajectories.player import write_player
from ..modalities.trajectories.plots import save_figure, trajectory_figure
from ..modalities.trajectories.surrogates import classification_score, prediction_score
from .cli import run_cli
from .errors import UserError
from .task import DiffusionTask
from .trainer import TaskTrainer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["TrajectoryTask", "TrajectoryTrainer", "main"]

_MEASURED_RECORDS = 2000
_SHOWN = 6
# Systems that the judging networks need, and metres below which two pedestrians collide.
_JUDGED, _COLLISION = 50, 0.1
_TOO_SHORT = (
    ": the part of a recording that is kept for tests must hold at least a window of observed and future frames "
    "(data.options.split, data.options.future_frames)"
)


class TrajectoryTask(DiffusionTask):
    """Trains a model of trajectories and judges its forecasts.

    Args:
        adapter: The model.
        optimizer: Makes the optimiser from the parameters.
        warmup_steps: Optimiser steps of linear warm-up of the learning rate.
        decay_steps: If given, the rate falls to zero at this step, as half a cosine; otherwise it stays constant.
        decay_epochs: If given, the rate is multiplied by 0.8 every so many epochs instead (published for ETH/UCY).
        ema_decay: Decay of the averaged weights; 0 trains without averaging.
        skip_nonfinite: How many steps in a row with a NaN or infinite loss or gradient are left out before the run
            stops.
        picture_samples: Samples per forecast in the pictures drawn while training; 0 draws none.
        seed: Seed of all noise; the command line sets it from `seed_everything`.
    """

    def __init__(
        self,
        adapter: Adapter,
        optimizer: OptimizerCallable = lambda parameters: AdamW(parameters, lr=3e-3, weight_decay=0.0),
        warmup_steps: int = 50,
        decay_steps: int | None = None,
        decay_epochs: int | None = None,
        ema_decay: float = 0.998,
        skip_nonfinite: int = 0,
        picture_samples: int = 0,
        seed: int = 42,
    ) -> None:
        super().__init__(adapter, optimizer, warmup_steps, decay_steps, ema_decay, skip_nonfinite, seed)
        if not isinstance(adapter, GeoTDM | ReferenceGeoTDM):
            raise ValueError(f"model.adapter must be a GeoTDM or a ReferenceGeoTDM, not a {type(adapter).__name__}")
        if decay_epochs is not None and (decay_epochs < 1 or decay_steps is not None):
            raise ValueError(f"decay_epochs must be at least 1 and excludes decay_steps, got {decay_epochs}")
        self.picture_samples, self.decay_epochs = picture_samples, decay_epochs
        self.cluster_to: int | None = None
        self.judge_generated = False

    def model(self) -> GeoTDM | ReferenceGeoTDM:
        """The adapter, typed."""
        assert isinstance(self.adapter, GeoTDM | ReferenceGeoTDM)
        return self.adapter

    def batch_size(self, batch: Any) -> int:
        return len(batch)

    def configure_callbacks(self) -> list[Callback]:
        return [_MeasureUnits(), *super().configure_callbacks()]

    def configure_optimizers(self) -> Any:
        configured = super().configure_optimizers()
        if self.decay_epochs is not None:
            rate = StepLR(configured["optimizer"], self.decay_epochs, 0.8)
            configured["lr_scheduler"] = {"scheduler": rate, "interval": "epoch"}
        return configured

    def figures(self) -> dict[str, Figure]:
        datamodule = getattr(self.trainer, "datamodule", None)
        if self.picture_samples == 0 or not isinstance(datamodule, TrajectoryDataModule):
            return {}
        data = datamodule.data
        shown = _spread(data.validation or data.train, _SHOWN)
        if not self.forecasts_from_observations():
            drawn = self.draw(data, self.picture_samples, None, 0)
            return {"samples": trajectory_figure(_generated(data, drawn))}
        samples = self.forecast(data, shown, self.picture_samples, None, 0)
        return {"forecasts": trajectory_figure(_clips(data, shown, samples))}

    def forecasts_from_observations(self) -> bool:
        """Whether the model forecasts; otherwise it generates trajectories out of nothing."""
        model = self.model()
        if isinstance(model, ReferenceGeoTDM):
            return model.observed_frames > 0
        return any(weight > 0 for pattern, weight in model.mixture.items() if pattern != "none")

    def generates(self) -> bool:
        """Whether the model can generate trajectories out of nothing."""
        model = self.model()
        return model.observed_frames == 0 if isinstance(model, ReferenceGeoTDM) else model.mixture.get("none", 0.0) > 0

    def forecast(
        self, data: TrajectoryData, records: Sequence[TrajectoryRecord], num_samples: int, steps: int | None, seed: int
    ) -> list[NDArray[np.float32]]:
        """Samples (K, N, T - observed, D) of each record's frames after the data set's observed ones."""
        model = self.model()
        # Records of one length go together, and few enough at a time to fit into memory.
        lengths = sorted({r.num_frames for r in records})
        by_record: dict[int, NDArray[np.float32]] = {}
        for length in lengths:
            members = [i for i, r in enumerate(records) if r.num_frames == length]
            for first in range(0, len(members), 64):
                part = members[first : first + 64]
                known = [records[i].frames(0, data.observed_frames) for i in part]
                options: dict[str, Any] = {"steps": steps, "seed": _part_seed(seed, first, length)}
                if isinstance(model, GeoTDM):
                    options["frames"] = length - data.observed_frames
                try:
                    samples = model.forecast(known, num_samples, **options)
                except (ValueError, FloatingPointError) as error:
                    raise UserError(f"{data.name}: {error}") from error
                by_record |= {i: s[:, : records[i].num_agents] for i, s in zip(part, samples, strict=True)}
        return [by_record[i] for i in range(len(records))]

    def draw(self, data: TrajectoryData, num_samples: int, steps: int | None, seed: int) -> NDArray[np.float32]:
        """Trajectories (S, N, T, D) out of nothing, with the agents of the test (or else the training) records."""
        model, like = self.model(), data.test or data.train
        options: dict[str, Any] = {"like": like, "steps": steps, "seed": seed}
        if isinstance(model, GeoTDM):
            options["frames"] = like[0].num_frames
        try:
            return model.sample(num_samples, **options)
        except (ValueError, FloatingPointError) as error:
            raise UserError(f"{data.name}: {error}") from error

    def write_samples(
        self, datamodule: LightningDataModule, out: Path, *, num_samples: int, steps: int | None, seed: int
    ) -> list[Path]:
        """samples.npz, samples.png and one extended XYZ file per sample: trajectories out of nothing if the model can
        generate them, otherwise one forecast of each of as many test systems."""
        data = _data_of(datamodule)
        out.mkdir(parents=True, exist_ok=True)
        if self.generates():
            drawn = self.draw(data, num_samples, steps, seed)
            clips = _generated(data, drawn)
            whole = [c.record for c in clips]
            np.savez(out / "samples.npz", positions=drawn, seed=seed)
        else:
            records = _spread(data.test or data.validation, num_samples)
            if not records:
                raise UserError(f"{data.name} has no test systems to forecast, and this model generates nothing alone")
            samples = self.forecast(data, records, 1, steps, seed)
            clips = _clips(data, records, samples)
            whole = [
                _continued(r.frames(0, data.observed_frames), s[0], r) for r, s in zip(records, samples, strict=True)
            ]
            _save_padded(out / "samples.npz", [w.positions[None] for w in whole], records, data, seed)
        files = [
            out / "samples.npz",
            save_figure(trajectory_figure(clips[:_SHOWN], title=data.name), out / "samples.png"),
        ]
        return files + _write_xyz(whole, out, "sample")

    def measure(
        self, datamodule: LightningDataModule, out: Path, *, num_samples: int, steps: int | None, seed: int
    ) -> Mapping[str, Mapping[str, float]]:
        """ADE and FDE of the model and of baselines on every test record; draws forecasts.png.

        Molecules' bonds and angles and pedestrians' collisions are compared with what happened. What a model generates
        out of nothing is judged by marginals, networks that tell it from real or learn from it, and its motion.
        """
        data = _data_of(datamodule)
        if not data.test:
            raise UserError(f"{data.name} has no test records to evaluate on{_TOO_SHORT}")
        if self.judge_generated or not self.forecasts_from_observations():
            return self._measure_generated(data, out, num_samples, steps, seed)
        samples = self.forecast(data, data.test, num_samples, steps, seed)
        batch = collate(data.test, data.observed_frames)
        assert batch.observed is not None
        first = data.observed_frames
        agents, frames = batch.positions.shape[1], batch.positions.shape[2] - first
        padded = np.zeros((len(samples), num_samples, agents, frames, data.dim), np.float32)
        for row, drawn in zip(padded, samples, strict=True):
            row[:, : drawn.shape[1], : drawn.shape[2]] = drawn
        if self.cluster_to is not None:
            try:
                padded = final_position_clusters(padded, self.cluster_to, seed)
            except ValueError as error:
                raise UserError(f"--cluster_to {self.cluster_to}: {error}") from error
        ego = (batch.ego & batch.observed.any(-1)).numpy()
        known = batch.present[:, :, first:].numpy()
        truth = batch.positions[:, :, first:].numpy()
        table: dict[str, dict[str, float]] = {
            self.adapter.name: sample_scores(padded, truth, known, ego, data.test_scale),
            **baseline_scores(batch, data.test_scale),
        }
        for name, scores in _geometry(data, truth, padded, known).items():
            table.setdefault(self.adapter.name if name == "model" else name, {}).update(scores)
        shown = np.linspace(0, len(samples) - 1, min(_SHOWN, len(samples))).round().astype(int)
        clips = _clips(data, [data.test[i] for i in shown], [samples[i] for i in shown])
        save_figure(trajectory_figure(clips, title=f"{data.name}: {num_samples} samples"), out / "forecasts.png")
        thinned = "" if self.cluster_to is None else f", thinned to {self.cluster_to} that spread over their end points"
        print(f"{data.protocol}\nseed {seed}, {num_samples} samples of {len(samples)} systems{thinned}", flush=True)
        return table

    def _measure_generated(
        self, data: TrajectoryData, out: Path, num_samples: int, steps: int | None, seed: int
    ) -> dict[str, dict[str, float]]:
        real = _centred([r.positions for r in data.test])
        half = [_centred([r.positions for r in data.train[part::2]]) for part in (0, 1)]
        drawn = self.draw(data, num_samples, steps, seed)
        save_figure(trajectory_figure(_generated(data, drawn), title=data.name), out / "samples.png")
        print(f"{data.protocol}\nseed {seed}, {num_samples} generated trajectories", flush=True)
        rows = {self.adapter.name: list(drawn), "training data": half[0], "training data, other half": half[1]}
        # The judging networks compare system by system: the model's samples have the test records' agents in turn.
        like = [data.test[i % len(data.test)] for i in range(min(num_samples, len(data.test)))]
        table: dict[str, dict[str, float]] = {}
        for name, made in rows.items():
            table[name] = {"marginal": float(marginal_score(np.stack(real), np.stack(made)))}
            if min(len(like), len(made)) >= _JUDGED:
                these = like[: len(made)]
                judged = collate([replace(r, positions=x) for r, x in zip(these, real, strict=False)])
                table[name]["classification"] = classification_score(judged, np.stack(made[: len(these)]), seed=seed)
                table[name]["prediction"] = prediction_score(judged, np.stack(made[: len(these)]), seed=seed)
            table[name] |= motion_statistics(np.stack(made))
        return table | {"test data": dict(motion_statistics(np.stack(real)))}


class TrajectoryTrainer(TaskTrainer):
    """Adds `predict`, which writes forecasts of single systems, and its moving form."""

    def evaluate(
        self,
        model: DiffusionTask,
        datamodule: LightningDataModule | None = None,
        ckpt_path: str | None = None,
        num_samples: int | None = None,  # pyright: ignore[reportIncompatibleMethodOverride]
        steps: int | None = None,
        seed: int = 0,
        out: str | None = None,
        cluster_to: int | None = None,
        generated: bool = False,
    ) -> dict[str, dict[str, float]]:
        """Measure a trained model by its task's protocol, beside the baselines.

        Args:
            model: The task.
            datamodule: Its data.
            ckpt_path: Checkpoint, or "best" or "last" of --run.
            num_samples: Samples per system; default: what is usual for the data, 20 for pedestrians and else 5.
            steps: Sampler steps; default: what the model recommends.
            seed: Seed of the samples.
            out: Folder for metrics.json and pictures; default: the run folder.
            cluster_to: Thin the samples to so many that spread over their end points (for pedestrians usually 20).
            generated: Judge trajectories out of nothing instead of forecasts; models that only generate always do.
        """
        assert isinstance(model, TrajectoryTask)
        model.cluster_to, model.judge_generated = cluster_to, generated
        if generated and not model.generates():
            raise UserError(
                "this model was trained with observations only: train it with conditioning {none: 1.0, ...} to "
                "generate out of nothing"
            )
        if num_samples is None:
            kind = _data_of(self.prepare(model, datamodule, ckpt_path)).kind
            num_samples = 20 if kind == "pedestrians" else 5
            if generated or not model.forecasts_from_observations():
                num_samples = 500
        return super().evaluate(model, datamodule, ckpt_path, num_samples, steps, seed, out)

    def predict(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        model: DiffusionTask,
        datamodule: LightningDataModule | None = None,
        ckpt_path: str | None = None,
        weights_only: bool | None = None,
        num_samples: int = 20,
        systems: int = 6,
        steps: int | None = None,
        seed: int = 0,
        out: str | None = None,
        animated: bool = False,
        fps: int = 10,
    ) -> list[Path]:
        """Forecast systems of the test part.

        Writes forecasts.npz (array `samples` of shape (B, K, N, T, D)), an extended XYZ file per system with its first
        sample, and forecasts.png; animated (the command `animate`) a GIF per system and a page with a time slider, too.

        Args:
            model: The task.
            datamodule: Its data.
            ckpt_path: Checkpoint, or "best" or "last" of --run.
            weights_only: Kept for Lightning.
            num_samples: Samples per system.
            systems: How many systems, spread over the test part; 0 for all.
            steps: Sampler steps; default: what the model recommends.
            seed: Seed of the samples.
            out: Folder to write into; default: forecasts/ in the run folder.
            animated: Also write moving pictures.
            fps: Frames per second of the GIF.
        """
        data = _data_of(self.prepare(model, datamodule, ckpt_path))
        assert isinstance(model, TrajectoryTask)
        if not model.forecasts_from_observations():
            raise UserError("this model generates trajectories out of nothing: use sample")
        records = _spread(data.test or data.validation, systems)
        if not records:
            raise UserError(f"{data.name} has no test systems to forecast{_TOO_SHORT}")
        folder = self._out(out, "forecasts")
        with torch.no_grad():
            samples = model.forecast(data, records, num_samples, steps, seed)
        clips = _clips(data, records, samples)
        _save_padded(folder / "forecasts.npz", samples, records, data, seed)
        figure = trajectory_figure(clips[:_SHOWN], title=f"{data.name}: {num_samples} samples")
        files = [folder / "forecasts.npz", save_figure(figure, folder / "forecasts.png")]
        first = [_continued(r.frames(0, data.observed_frames), s[0], r) for r, s in zip(records, samples, strict=True)]
        files += _write_xyz(first, folder, "forecast")
        if animated:
            files += [animate(clip, folder / f"forecast-{i:03d}.gif", fps=fps) for i, clip in enumerate(clips[:_SHOWN])]
            page = folder / "forecasts.html"
            files.append(write_player(clips, page, title=f"{data.name}: forecasts", note=data.protocol))
        for file in files:
            print(file)
        return files


class _MeasureUnits(Callback):
    """Checks that model and data go together, and measures a new model's units before anything copies them."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        data = _data_of(getattr(trainer, "datamodule", None))
        adapter = getattr(pl_module, "adapter", None)
        if isinstance(adapter, GeoTDM):
            _goes_with(adapter, data)
            if stage == "fit" and not bool(adapter.units.measured):
                records = _spread(data.train, _MEASURED_RECORDS)
                batches = (collate(records[i : i + 256], data.observed_frames) for i in range(0, len(records), 256))
                try:
                    adapter.measure_units(batches, repeats=1 if set(adapter.mixture) == {"forecast"} else 8)
                except ValueError as error:
                    raise UserError(f"{data.name}: {error}") from error
        elif isinstance(adapter, ReferenceGeoTDM) and adapter.observed_frames not in (0, data.observed_frames):
            raise UserError(
                f"{data.name} observes {data.observed_frames} frames, model.adapter has observed_frames="
                f"{adapter.observed_frames}"
            )


def main(args: Sequence[str] | None = None) -> int:
    """The command line. `animate` is `predict` with moving pictures."""
    words = list(sys.argv[1:] if args is None else args)
    if words[:1] == ["animate"]:
        words = ["predict", *words[1:], "--animated=true"]
    return run_cli("trajectories", TrajectoryTask, TrajectoryDataModule, words, trainer_class=TrajectoryTrainer)


def _goes_with(adapter: GeoTDM, data: TrajectoryData) -> None:
    for name, ours, theirs in (
        ("features", adapter.features, data.num_features),
        ("edge_features", adapter.edge_features, data.num_edge_features),
    ):
        if ours != theirs:
            raise UserError(
                f"{data.name} has {theirs} {name.replace('_', ' ')}, model.adapter has {name}={ours}: set "
                f"--model.adapter.init_args.{name}={theirs}"
            )
    if adapter.length_unit not in (None, data.units):
        raise UserError(f"{data.name} is in {data.units!r}, model.adapter has units={adapter.length_unit!r}")


def _part_seed(seed: int, first: int, length: int) -> int:
    # Chunks must not repeat each other's noise; the first one is what a user's own call with this seed gives.
    return seed if first == 0 else hash_seed(seed, first, length)


def _spread(records: Sequence[TrajectoryRecord], count: int) -> list[TrajectoryRecord]:
    if count <= 0 or len(records) <= count:
        return list(records)
    return [records[i] for i in np.linspace(0, len(records) - 1, count).round().astype(int)]


def _geometry(
    data: TrajectoryData, truth: NDArray[Any], samples: NDArray[Any], known: NDArray[np.bool_]
) -> dict[str, dict[str, float]]:
    """What forecasts (B, K, N, T, D) keep of bonds and of distances, as rows "model" and "what happened"."""
    bonds = data.test[0].bonds
    if data.kind == "molecule" and bonds is not None and len(bonds) and bool(known.all()):
        return {"model": bond_statistics(truth, samples, bonds)}
    if data.kind == "pedestrians" and truth.shape[1] > 1:
        name = f"collisions below {_COLLISION} m"
        there = np.broadcast_to(known[:, None], samples.shape[:-1])
        return {
            "model": {name: float(collision_rate(samples, _COLLISION, there))},
            "what happened": {name: float(collision_rate(truth, _COLLISION, known))},
        }
    return {}


def _continued(observed: TrajectoryRecord, future: NDArray[np.float32], whole: TrajectoryRecord) -> TrajectoryRecord:
    """The observed frames followed by forecast ones; agents seen too late to be forecast are left out."""
    positions = np.concatenate((observed.positions, future), 1)
    seen = np.any(observed.known, axis=1, keepdims=True)
    present = np.concatenate((observed.known, np.repeat(seen, future.shape[1], 1)), 1)
    return replace(whole, positions=positions, present=present)


def _clips(
    data: TrajectoryData, records: Sequence[TrajectoryRecord], samples: Sequence[NDArray[np.float32]]
) -> list[Clip]:
    return [
        Clip(r, s, data.observed_frames, r.name or f"{data.name} {i}")
        for i, (r, s) in enumerate(zip(records, samples, strict=True))
    ]


def _generated(data: TrajectoryData, drawn: NDArray[np.float32]) -> list[Clip]:
    templates = data.test or data.train
    clips = []
    for i, positions in enumerate(drawn):
        like = templates[i % len(templates)]
        own = positions[: like.num_agents]
        clips.append(
            Clip(replace(like, positions=own, present=None, times=None, name=f"sample {i}"), title=f"sample {i}")
        )
    return clips


def _write_xyz(records: Sequence[TrajectoryRecord], out: Path, name: str) -> list[Path]:
    """One file per system whose agents are all known at all frames, which the format demands."""
    return [
        write_extxyz(record, out / f"{name}-{i:03d}.xyz")
        for i, record in enumerate(records)
        if bool(record.known.all())
    ]


def _save_padded(
    path: Path,
    samples: Sequence[NDArray[np.float32]],
    records: Sequence[TrajectoryRecord],
    data: TrajectoryData,
    seed: int,
) -> None:
    """Arrays of all systems, padded with NaN to the largest."""

    def padded(arrays: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        shape = [max(sizes) for sizes in zip(*(a.shape for a in arrays), strict=True)]
        out = np.full((len(arrays), *shape), np.nan, np.float32)
        for i, array in enumerate(arrays):
            out[(i, *(slice(0, n) for n in array.shape))] = array
        return out

    known = [np.where(r.known[..., None], r.positions, np.nan).astype(np.float32) for r in records]
    np.savez(
        path,
        samples=padded(list(samples)),
        positions=padded(known),
        observed_frames=data.observed_frames,
        names=np.array([r.name or "" for r in records]),
        units=np.array(data.units),
        protocol=np.array(data.protocol),
        seed=seed,
    )


def _centred(positions: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """Whole trajectories about their mean, as unconditional models generate them."""
    return [x - x.mean((0, 1), keepdims=True) for x in positions]


def _data_of(datamodule: Any) -> TrajectoryData:
    if not isinstance(datamodule, TrajectoryDataModule):
        raise UserError(f"this command needs a TrajectoryDataModule, not a {type(datamodule).__name__}")
    return datamodule.data


if __name__ == "__main__":
    sys.exit(main())
