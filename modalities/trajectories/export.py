"""Trajectories as files other programs read: extended XYZ, multi-model PDB, CSV."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .records import TrajectoryRecord

__all__ = ["write_csv", "write_extxyz", "write_pdb"]


def write_extxyz(record: TrajectoryRecord, path: str | Path) -> Path:
    """Extended XYZ, one block per frame, as ASE, OVITO and VMD read it; agents without a symbol are called X.

    Args:
        record: all of whose agents are present at all frames; two-dimensional places get z = 0.
        path: of the file.

    Raises:
        ValueError: an agent is absent at a frame, which the format cannot say.
    """
    places = _complete(record)
    symbols = record.atoms or ("X",) * record.num_agents
    assert record.times is not None
    lines = []
    for frame, time in zip(places, record.times, strict=True):
        lines += [str(record.num_agents), f'Properties=species:S:1:pos:R:3 Time={float(time):g} pbc="F F F"']
        lines += [f"{s:<3s}{x:16.8f}{y:16.8f}{z:16.8f}" for s, (x, y, z) in zip(symbols, frame.tolist(), strict=True)]
    return _write(path, lines)


def write_pdb(record: TrajectoryRecord, path: str | Path) -> Path:
    """A PDB file with one model per frame and the bonds, as every molecular viewer plays it; places to 0.001.

    Args:
        record: with `atoms`, all present at all frames.
        path: of the file.

    Raises:
        ValueError: no symbols, an absent agent, more than 99,999 atoms, or places beyond the format's columns.
    """
    if record.atoms is None:
        raise ValueError("a PDB file needs the symbols of the atoms: TrajectoryRecord(atoms=...)")
    places = _complete(record)
    if record.num_agents > 99_999:
        raise ValueError(f"a PDB file holds at most 99,999 atoms, got {record.num_agents}")
    if places.min() <= -999.9995 or places.max() >= 9999.9995:
        raise ValueError("places must be between -999.999 and 9999.999 to fit a PDB file's columns")
    names = _atom_names(record.atoms)
    lines = []
    for model, frame in enumerate(places, start=1):
        lines.append(f"MODEL     {model:4d}")
        for serial, (name, symbol, (x, y, z)) in enumerate(zip(names, record.atoms, frame.tolist(), strict=True), 1):
            lines.append(
                f"HETATM{serial:5d} {name:<4s} MOL A   1    {x:8.3f}{y:8.3f}{z:8.3f}{1:6.2f}{0:6.2f}          "
                f"{symbol.upper():>2s}"
            )
        lines.append("ENDMDL")
    partners: dict[int, list[int]] = {}
    for i, j in [] if record.bonds is None else record.bonds.tolist():
        partners.setdefault(i + 1, []).append(j + 1)
        partners.setdefault(j + 1, []).append(i + 1)
    for serial in sorted(partners):
        for start in range(0, len(partners[serial]), 4):
            others = "".join(f"{other:5d}" for other in sorted(partners[serial])[start : start + 4])
            lines.append(f"CONECT{serial:5d}{others}")
    return _write(path, [*lines, "END"])


def write_csv(record: TrajectoryRecord, path: str | Path) -> Path:
    """A table `frame,id,x,y[,z]` with a row per agent and frame; absent agents have no row.

    Args:
        record: any.
        path: of the file.
    """
    assert record.times is not None
    lines = ["frame,id," + ",".join("xyz"[: record.dim])]
    for t, time in enumerate(record.times.tolist()):
        for n in np.flatnonzero(record.known[:, t]):
            lines.append(f"{time:.9g},{n}," + ",".join(f"{v:.9g}" for v in record.positions[n, t].tolist()))
    return _write(path, lines)


def _complete(record: TrajectoryRecord) -> NDArray[np.float64]:
    """Places `(T, N, 3)`."""
    if not record.known.all():
        agent, frame = (int(i) for i in np.argwhere(~record.known)[0])
        raise ValueError(f"agent {agent} is absent at frame {frame}: the format needs all agents at all frames")
    places = record.positions.transpose(1, 0, 2).astype(np.float64)
    return np.pad(places, ((0, 0), (0, 0), (0, 3 - record.dim)))


def _atom_names(atoms: tuple[str, ...]) -> list[str]:
    # Columns 13-16: one-letter elements begin in column 14; a number makes the name unique as far as there is room.
    counts: dict[str, int] = {}
    names = []
    for symbol in atoms:
        counts[symbol] = counts.get(symbol, 0) + 1
        name = f"{symbol.upper()}{counts[symbol]}"[:4]
        names.append(f" {name}" if len(symbol) == 1 and len(name) < 4 else name)
    return names


def _write(path: str | Path, lines: list[str]) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
