"""The N-body data sets of the GeoTDM paper, simulated here: springs, charged, gravity."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from . import nbody
from .cache import cached_arrays, content_hash
from .collection import TrajectoryData

__all__ = ["SIZES", "load_particles"]

#: Training, validation and test trajectories unless the caller says otherwise.
SIZES = {"springs": (1000, 100, 300), "charged": (3000, 500, 500), "gravity": (1000, 100, 150)}

_PARTS = ("train", "validation", "test")


def load_particles(
    law: str,
    root: str | Path | None = None,
    *,
    edition: str = "published",
    sizes: Sequence[int] | None = None,
    frames: int = 30,
    observed_frames: int = 10,
    seed: int = 0,
    num_balls: int | None = None,
) -> TrajectoryData:
    """Simulates an N-body data set, or takes it from the cache below `root`.

    Args:
        law: "springs", "charged" or "gravity".
        root: data root.
        edition: "published" (the settings behind the published numbers) or "corrected" (:mod:`.nbody`).
        sizes: number of training, validation and test trajectories; the published experiments use 3000, 2000, 2000.
        frames: per trajectory.
        observed_frames: of them, what a forecast looks at.
        seed: of the simulation.
        num_balls: per system, default 5 (gravity 10).

    Raises:
        DataError: an unknown law or edition, or impossible sizes.
    """
    if law not in nbody.SYSTEMS:
        raise DataError(f"unknown N-body system {law!r}; known are {', '.join(nbody.SYSTEMS)}")
    editions = {"published": nbody.published, "corrected": nbody.corrected}
    if edition not in editions:
        raise DataError(f"unknown edition {edition!r}; known are {', '.join(editions)}")
    counts = tuple(SIZES[law] if sizes is None else sizes)
    if len(counts) != 3 or counts[0] < 1 or min(counts) < 0:
        raise DataError(f"sizes must be three numbers (train, validation, test), the first at least 1, got {counts}")
    system = editions[edition](law)
    parameters = system.parameters()
    if num_balls is not None:
        parameters["num_balls"] = num_balls
        system = nbody.NBodySystem(**parameters)
    name = law if edition == "published" else f"{law}-{edition}"
    key = {**parameters, "sizes": counts, "frames": frames, "seed": seed, "version": nbody.VERSION}
    arrays = cached_arrays(name, key, lambda: _simulate(system, counts, frames, seed), root)
    parts = [_records(system, arrays, part, name) if n else [] for part, n in zip(_PARTS, counts, strict=True)]
    drift = nbody.EnergyDrift(*(float(x) for x in arrays["drift"]))
    return TrajectoryData(
        name=name,
        train=parts[0],
        validation=parts[1],
        test=parts[2],
        observed_frames=observed_frames,
        protocol=f"{name}: {counts[0]}/{counts[1]}/{counts[2]} simulated trajectories of {system.num_balls} balls "
        f"({edition} parameters, seed {seed}, data {content_hash(key)}), {observed_frames} -> "
        f"{frames - observed_frames} frames of {system.step * system.every:g} time units; errors averaged over balls",
        units="1",
        kind="particles",
        notes=[str(drift)],
    )


def _simulate(system: nbody.NBodySystem, counts: tuple[int, ...], frames: int, seed: int) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    drifts = []
    for split, (part, count) in enumerate(zip(_PARTS, counts, strict=True)):
        if not count:
            continue
        simulation = nbody.simulate(system, count, frames=frames, seed=seed, split=split)
        arrays[f"{part}_positions"] = simulation.positions.astype(np.float32)
        arrays[f"{part}_charges"] = simulation.charges
        arrays[f"{part}_masses"] = simulation.masses
        arrays[f"{part}_springs"] = simulation.springs
        drifts.append((count, nbody.energy_drift(simulation)))
    # The training part, being first, speaks for the law; the others are smaller draws of the same.
    drift = drifts[0][1]
    arrays["drift"] = np.array([drift.median, drift.p95, drift.worst, drift.broken])
    return arrays


def _records(system: nbody.NBodySystem, arrays: dict[str, NDArray[Any]], part: str, name: str) -> list[Any]:
    return nbody.records(
        system,
        arrays[f"{part}_positions"],
        arrays[f"{part}_charges"],
        arrays[f"{part}_masses"],
        arrays[f"{part}_springs"],
        f"{name} {part}",
    )
