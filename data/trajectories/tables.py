"""Trajectories from a table with one row per agent and frame: `frame,id,x,y[,z]`."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...modalities.trajectories.records import TrajectoryRecord
from ..errors import DataError

__all__ = ["TableRecording", "read_table", "table_windows"]


@dataclass(frozen=True, eq=False)
class TableRecording:
    """Agents of one recording on a grid of frames.

    Args:
        name: of the recording.
        agents: identifiers, N of them.
        times: times of the frames in units of the usual step, `(T,)`.
        places: `(N, T, D)`, NaN where an agent is not listed.
    """

    name: str
    agents: list[str]
    times: NDArray[np.float64]
    places: NDArray[np.float64]


def read_table(
    path: str | Path,
    *,
    frame: str = "frame",
    agent: str = "id",
    coordinates: Sequence[str] | None = None,
    recording: str | None = None,
    bad_rows: Literal["error", "skip"] = "error",
) -> tuple[list[TableRecording], int]:
    """Reads a CSV file (or one separated by tabs or semicolons).

    Frames whose numbers are whole multiples of the smallest step apart make a grid with gaps; otherwise the listed
    frames are taken as they are, with their true times.

    Args:
        path: of the file, plain or compressed.
        frame: column of the frame's number or time.
        agent: column that tells agents apart.
        coordinates: columns of the places, two or three; default x, y and, if there is one, z.
        recording: column that tells recordings apart; default: there is one.
        bad_rows: what to do with rows that hold something else than finite numbers.

    Returns:
        The recordings, and how many rows were left out.

    Raises:
        DataError: missing columns, bad rows, an agent listed twice at a time. The message says where.
    """
    try:
        table = pd.read_csv(path, sep=_separator(Path(path)))
    except (OSError, ValueError, UnicodeDecodeError, EOFError) as error:
        raise DataError(f"{path} cannot be read as a table ({error})") from error
    if coordinates is None:
        coordinates = ["x", "y", *(["z"] if "z" in table.columns else [])]
    if len(coordinates) not in (2, 3):
        raise DataError(f"coordinates must be two or three columns, got {list(coordinates)}")
    wanted = [frame, agent, *coordinates, *([] if recording is None else [recording])]
    missing = [column for column in wanted if column not in table.columns]
    if missing:
        raise DataError(
            f"{path} has no column {', '.join(map(repr, missing))}; it has {', '.join(map(str, table.columns))}"
        )
    numbers = table[[frame, *coordinates]].apply(pd.to_numeric, errors="coerce").astype(float)
    good = np.isfinite(numbers.to_numpy()).all(1) & table[agent].notna().to_numpy()
    skipped = int((~good).sum())
    if skipped and bad_rows == "error":
        raise DataError(
            f"{path}: {skipped} rows hold missing values or no numbers, the first in line {int(np.argmin(good)) + 2}; "
            "bad_rows=skip leaves them out"
        )
    if not good.any():
        raise DataError(f"{path} holds no usable rows")
    values = numbers.to_numpy()[good]
    agents = table[agent].to_numpy()[good].astype(str)
    groups = np.full(len(values), "") if recording is None else table[recording].to_numpy()[good].astype(str)
    result = []
    for name in dict.fromkeys(groups.tolist()):
        rows = groups == name
        title = Path(path).name + (f" {name}" if name else "")
        result.append(_grid(title, values[rows, 0], agents[rows], values[rows, 1:]))
    return result, skipped


def table_windows(
    recording: TableRecording,
    *,
    observed_frames: int,
    future_frames: int,
    start: int = 0,
    stop: int | None = None,
    stride: int = 1,
    units: str = "1",
) -> list[TrajectoryRecord]:
    """Windows of a recording; agents may come late and miss frames.

    A window holds the agents that are listed at one of its observed frames at least; those that are also listed
    afterwards are judged. Windows in which none is are left out.

    Args:
        recording: from :func:`read_table`.
        observed_frames: per window.
        future_frames: per window.
        start: first frame to use.
        stop: end of the frames to use; default: all.
        stride: frames from one window's begin to the next.
        units: of the places.
    """
    span, end = observed_frames + future_frames, len(recording.times) if stop is None else stop
    present = ~np.isnan(recording.places[..., 0])
    windows = []
    for begin in range(start, end - span + 1, stride):
        there = present[:, begin : begin + span]
        seen = np.any(there[:, :observed_frames], axis=1)
        judged = seen & np.any(there[:, observed_frames:], axis=1)
        if not judged.any():
            continue
        windows.append(
            TrajectoryRecord(
                positions=np.nan_to_num(recording.places[seen, begin : begin + span]).astype(np.float32),
                present=there[seen],
                times=(recording.times[begin : begin + span] - recording.times[begin]).astype(np.float32),
                ego=judged[seen],
                name=f"{recording.name} window {begin}",
                units=units,
            )
        )
    return windows


def _separator(path: Path) -> str:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        header = file.readline()
    return max(",;\t ", key=header.count)


def _grid(
    name: str, frames: NDArray[np.float64], agents: NDArray[np.str_], places: NDArray[np.float64]
) -> TableRecording:
    listed, index = np.unique(frames, return_inverse=True)
    identifiers, who = np.unique(agents, return_inverse=True)
    steps = np.diff(listed)
    step = float(steps.min()) if len(steps) else 1.0
    whole = steps / step
    times = (listed - listed[0]) / step
    if len(steps) and np.allclose(whole, np.round(whole), atol=1e-6) and whole.sum() <= 10 * len(listed):
        index = np.round(times).astype(int)[index]
        times = np.arange(index.max() + 1, dtype=float)
    elif len(steps):
        times = (listed - listed[0]) / float(np.median(steps))
    grid = np.full((len(identifiers), len(times), places.shape[1]), np.nan)
    _, first, counts = np.unique(np.stack([who, index]), axis=1, return_index=True, return_counts=True)
    if (counts > 1).any():
        row = first[np.argmax(counts > 1)]
        raise DataError(f"{name}: agent {str(agents[row])!r} is listed more than once at frame {frames[row]:g}")
    grid[who, index] = places
    return TableRecording(name, [str(i) for i in identifiers], times, grid)
