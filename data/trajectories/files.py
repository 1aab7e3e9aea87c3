"""The user's own trajectories: npz, CSV, XYZ, DCD and XTC files as data sets."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...modalities.trajectories.records import TrajectoryRecord
from ..errors import DataError
from .collection import TrajectoryData
from .cutting import Shares, spread, time_split, window_starts
from .dynamics import MoleculeTrajectory
from .molecule_files import read_binary, read_md17, read_xyz
from .molecules import molecule_data
from .tables import read_table, table_windows

__all__ = ["load_file"]

_TABLES = (".csv", ".tsv", ".txt", ".gz")


def load_file(
    path: str | Path,
    *,
    observed_frames: int = 10,
    future_frames: int = 20,
    sizes: Sequence[int] | None = None,
    split: Shares = (0.6, 0.2, 0.2),
    every: int = 1,
    units: str | None = None,
    topology: str | None = None,
    frame: str = "frame",
    agent: str = "id",
    coordinates: Sequence[str] | None = None,
    recording: str | None = None,
    bad_rows: Literal["error", "skip"] = "error",
) -> TrajectoryData:
    """A data set from a file.

    - `.npz` with `positions` `(T, N, D)`: one long recording, split in time and cut into windows;
    - `.npz` with `positions` `(B, N, T, D)`: B records, split in their order or by an array `split` `(B,)` of 0
      (train), 1 (validation), 2 (test); beside it any of `features` `(N, F)` or `(B, N, F)`, `edge_features` `(N, N,
      E)` or `(B, N, N, E)`, `present` `(B, N, T)`, `times` `(T,)` or `(B, T)`, `ego` `(N,)` or `(B, N)`;
    - `.npz` with `R` and `z`: MD17; `.xyz`, `.extxyz`; `.dcd`, `.xtc` with a `topology`: one molecule, split in time;
    - `.csv` (`.tsv`, `.txt`, gzipped) with rows `frame,id,x,y[,z]`: recordings, each split in time.

    Args:
        path: of the file.
        observed_frames: what a forecast looks at.
        future_frames: what it forecasts; for records `(B, N, T, D)` it is what remains.
        sizes: at most so many training, validation and test windows, evenly spread.
        split: shares of training, validation and test.
        every: keep every so manieth frame of a long recording.
        units: of the places; default: Angstrom for molecules, else none ("1").
        topology: XYZ or PDB file that names the atoms of a DCD or XTC file.
        frame: column of the frame in a table.
        agent: column of the agent in a table.
        coordinates: columns of the places in a table.
        recording: column of the recording in a table.
        bad_rows: "error" or "skip" rows of a table that hold no finite numbers.

    Raises:
        DataError: whatever is wrong with the file.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} does not exist")
    if min(observed_frames, future_frames, every) < 1:
        raise DataError("observed_frames, future_frames and every must be at least 1")
    suffix = path.suffix.lower()
    common: dict[str, Any] = {"observed_frames": observed_frames, "future_frames": future_frames, "split": split}
    limit = (10**9,) * 3 if sizes is None else tuple(sizes)
    if len(limit) != 3:
        raise DataError(f"sizes must be three numbers (train, validation, test), got {limit}")
    if suffix == ".npz":
        arrays = _arrays(path)
        if "positions" in arrays:
            return _from_arrays(path, arrays, every=every, sizes=limit, units=units or "1", **common)
        molecule = read_md17(path)
    elif suffix in (".xyz", ".extxyz"):
        molecule = read_xyz(path)
    elif suffix in (".dcd", ".xtc"):
        if topology is None:
            raise DataError(f"{path} does not name its atoms: give topology, an XYZ or PDB file")
        molecule = read_binary(path, topology)
    elif suffix in _TABLES:
        recordings, skipped = read_table(
            path, frame=frame, agent=agent, coordinates=coordinates, recording=recording, bad_rows=bad_rows
        )
        parts: list[list[TrajectoryRecord]] = [[], [], []]
        for item in recordings:
            for part, (start, stop) in zip(parts, time_split(len(item.times), split), strict=True):
                part += table_windows(
                    item,
                    observed_frames=observed_frames,
                    future_frames=future_frames,
                    start=start,
                    stop=stop,
                    units=units or "1",
                )
        parts = [spread(part, size) for part, size in zip(parts, limit, strict=True)]
        notes = [f"{skipped} rows without finite numbers were left out"] if skipped else []
        text = f"{len(recordings)} recording(s), agents seen at an observed and a later frame judged"
        return _assemble(path, parts, text, split, observed_frames, units or "1", notes)
    else:
        raise DataError(f"{path}: unknown kind of file; known are .npz, .csv, .tsv, .txt, .xyz, .extxyz, .dcd, .xtc")
    if units not in (None, "angstrom"):
        raise DataError(f"{path}: molecules are read in angstrom, not {units!r}")
    kept = MoleculeTrajectory(molecule.positions[::every], molecule.numbers, molecule.bonds)
    return molecule_data(kept, path.name, sizes=limit, **common)


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read as npz of plain arrays ({error})") from error


def _from_arrays(
    path: Path,
    arrays: dict[str, NDArray[Any]],
    *,
    observed_frames: int,
    future_frames: int,
    split: Shares,
    every: int,
    sizes: tuple[int, ...],
    units: str,
) -> TrajectoryData:
    positions = arrays["positions"]
    known = {"positions", "features", "edge_features", "present", "times", "ego", "split"}
    if set(arrays) - known:
        unknown = ", ".join(sorted(set(arrays) - known))
        raise DataError(f"{path}: unknown arrays {unknown}; known are {', '.join(sorted(known))}")
    if positions.ndim == 3:
        span, whole = observed_frames + future_frames, positions[::every].transpose(1, 0, 2)
        present = None if "present" not in arrays else arrays["present"].T[:, ::every]
        static = {key: arrays[key] for key in ("features", "edge_features", "ego") if key in arrays}
        times = arrays["times"][::every] / every if "times" in arrays else np.arange(whole.shape[1])
        parts = []
        for (start, stop), size in zip(time_split(whole.shape[1], split), sizes, strict=True):
            parts.append(
                [
                    _record(
                        path,
                        name=f"{path.name} frame {i}",
                        positions=whole[:, i : i + span],
                        present=None if present is None else present[:, i : i + span],
                        times=times[i : i + span] - times[i],
                        units=units,
                        **static,
                    )
                    for i in window_starts(start, stop, span, size)
                ]
            )
        text = f"one recording of {whole.shape[1]} frames split in time"
        return _assemble(path, parts, text, split, observed_frames, units, [])
    if positions.ndim != 4:
        raise DataError(
            f"{path}: positions must have shape (frames, agents, coordinates) or "
            f"(records, agents, frames, coordinates), got {positions.shape}"
        )
    count = len(positions)
    single = {"features": 2, "edge_features": 3, "present": 2, "times": 1, "ego": 1}
    rows = []
    for i in range(count):
        parts_of = {k: (v if v.ndim == single[k] else v[i]) for k, v in arrays.items() if k in single}
        rows.append(_record(path, name=f"{path.name} {i}", positions=positions[i], units=units, **parts_of))
    if "split" in arrays:
        belongs = arrays["split"]
        if belongs.shape != (count,) or not np.isin(belongs, (0, 1, 2)).all():
            raise DataError(f"{path}: split must be {count} numbers 0 (train), 1 (validation) or 2 (test)")
    else:
        belongs = np.repeat([0, 1, 2], [stop - start for start, stop in time_split(count, split)])
    parts = [spread([r for r, b in zip(rows, belongs, strict=True) if b == p], sizes[p]) for p in range(3)]
    text = f"{count} records" + (", split given" if "split" in arrays else " split in their order")
    return _assemble(path, parts, text, split, observed_frames, units, [])


def _record(path: Path, **parts: Any) -> TrajectoryRecord:
    try:
        return TrajectoryRecord(**parts)
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: {error}") from error


def _assemble(
    path: Path,
    parts: list[list[TrajectoryRecord]],
    text: str,
    split: Shares,
    observed_frames: int,
    units: str,
    notes: list[str],
) -> TrajectoryData:
    if not parts[0]:
        raise DataError(f"{path}: too short for a single training window; lower observed_frames or future_frames")
    future = parts[0][0].num_frames - observed_frames
    return TrajectoryData(
        name=path.name,
        train=parts[0],
        validation=parts[1],
        test=parts[2],
        observed_frames=observed_frames,
        protocol=f"{path.name}: {text} ({'/'.join(f'{100 * s:g}' for s in split)} %), "
        f"{len(parts[0])}/{len(parts[1])}/{len(parts[2])} windows, {observed_frames} -> {future} frames, units {units}",
        units=units,
        notes=notes,
    )
