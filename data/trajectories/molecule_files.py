"""Files of molecular dynamics: MD17's npz, (extended) XYZ, and DCD and XTC through mdtraj."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .dynamics import MoleculeTrajectory
from .molecules import bonds_by_distance

__all__ = ["read_binary", "read_md17", "read_pdb_symbols", "read_xyz"]


def read_md17(path: str | Path) -> MoleculeTrajectory:
    """MD17's npz: `R` of shape `(T, N, 3)` in Angstrom and `z` (or rMD17's `coords` and `nuclear_charges`).

    Raises:
        DataError: not such a file.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            keys = ("R", "z") if "R" in file.files else ("coords", "nuclear_charges")
            if not set(keys) <= set(file.files):
                raise DataError(f"{path}: expected arrays R (T, N, 3) and z (N,), found {', '.join(file.files)}")
            positions, numbers = file[keys[0]].astype(np.float64), file[keys[1]].astype(np.int64)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read as npz ({error})") from error
    return _checked(path, positions, numbers)


def read_xyz(path: str | Path) -> MoleculeTrajectory:
    """Plain or extended XYZ with one or more frames of the same atoms, in Angstrom.

    Raises:
        DataError: a broken file, or frames whose atoms differ; the message gives the line.
    """
    path = Path(path)
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error})") from error
    frames: list[NDArray[np.float64]] = []
    names: list[str] | None = None
    at = 0
    while at < len(lines):
        if not lines[at].strip():
            at += 1
            continue
        try:
            count = int(lines[at])
        except ValueError as error:
            raise DataError(f"{path}, line {at + 1}: expected the number of atoms, got {lines[at]!r}") from error
        if count < 1 or len(lines) < at + 2 + count:
            raise DataError(f"{path}, line {at + 1}: {count} atoms announced, the file ends before")
        species, places = _columns(path, lines[at + 1], at + 2)
        rows = [line.split() for line in lines[at + 2 : at + 2 + count]]
        try:
            found = [row[species] for row in rows]
            frame = np.array([[float(v) for v in row[places : places + 3]] for row in rows]).reshape(count, 3)
        except (IndexError, ValueError) as error:
            raise DataError(f"{path}: the frame at line {at + 1} has a row without symbol and place") from error
        if names is None:
            names = found
        elif names != found:
            raise DataError(f"{path}, line {at + 1}: the atoms differ from those of the first frame")
        frames.append(frame)
        at += 2 + count
    if names is None:
        raise DataError(f"{path} holds no frame")
    return _checked(path, np.stack(frames), _atomic_numbers(path, names))


def read_binary(path: str | Path, topology: str | Path) -> MoleculeTrajectory:
    """DCD or XTC through mdtraj (`pip install fourfold[md]`).

    Args:
        path: the trajectory.
        topology: an XYZ or PDB file with the same atoms, which such files do not name.

    Raises:
        DataError: mdtraj is missing, an unreadable file, or another number of atoms than the topology has.
    """
    path, topology = Path(path), Path(topology)
    try:
        from mdtraj.formats import DCDTrajectoryFile, XTCTrajectoryFile
    except ImportError as error:
        raise DataError(f"{path.suffix} files need mdtraj: pip install 'fourfold[md]'") from error
    if not path.is_file():
        raise DataError(f"{path} does not exist")
    if topology.suffix.lower() == ".pdb":
        numbers = _atomic_numbers(topology, read_pdb_symbols(topology))
    else:
        numbers = read_xyz(topology).numbers
    try:
        if path.suffix.lower() == ".xtc":
            with XTCTrajectoryFile(str(path)) as file:
                positions = 10.0 * np.asarray(file.read()[0], np.float64)  # nanometres
        else:
            with DCDTrajectoryFile(str(path)) as file:
                positions = np.asarray(file.read()[0], np.float64)
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise DataError(f"{path} cannot be read ({error})") from error
    if positions.ndim != 3 or positions.shape[1] != len(numbers):
        raise DataError(f"{path} has frames of shape {positions.shape[1:]}, {topology} has {len(numbers)} atoms")
    return _checked(path, positions, numbers)


def read_pdb_symbols(path: str | Path) -> list[str]:
    """Element of each atom of a PDB file's first model, from columns 77-78 or else the atom's name."""
    found = []
    try:
        lines = Path(path).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error})") from error
    for line in lines:
        if line.startswith("ENDMDL"):
            break
        if line.startswith(("ATOM", "HETATM")):
            element = line[76:78].strip() or re.sub(r"[^A-Za-z]", "", line[12:14])
            found.append(element.capitalize())
    if not found:
        raise DataError(f"{path} holds no ATOM or HETATM lines")
    return found


def _columns(path: Path, comment: str, line: int) -> tuple[int, int]:
    match = re.search(r'Properties=("?)(\S+?)\1(?:\s|$)', comment)
    if match is None:
        return 0, 1
    fields = match.group(2).split(":")
    start, where = 0, {}
    for name, _, width in zip(fields[::3], fields[1::3], fields[2::3], strict=False):
        where[name] = start
        start += int(width) if width.isdigit() else 1
    if not {"species", "pos"} <= set(where):
        raise DataError(f"{path}, line {line}: Properties must name species and pos, got {match.group(2)!r}")
    return where["species"], where["pos"]


def _atomic_numbers(path: Path, names: list[str]) -> NDArray[np.int64]:
    from rdkit import Chem

    table = Chem.GetPeriodicTable()
    known = {table.GetElementSymbol(z): z for z in range(1, 119)}
    unknown = sorted({n for n in names if n not in known and not n.isdigit()})
    if unknown:
        raise DataError(f"{path}: unknown elements {', '.join(unknown)}")
    return np.array([int(n) if n.isdigit() else known[n] for n in names])


def _checked(path: Path, positions: NDArray[np.float64], numbers: NDArray[np.int64]) -> MoleculeTrajectory:
    if positions.ndim != 3 or positions.shape[2] != 3 or positions.shape[1] != len(numbers):
        raise DataError(f"{path}: places of shape {positions.shape} do not go with {len(numbers)} atoms")
    if not np.isfinite(positions).all():
        frame = int(np.argmin(np.isfinite(positions).all((1, 2))))
        raise DataError(f"{path}: frame {frame} holds a place that is NaN or infinite")
    if numbers.min() < 1 or numbers.max() > 118:
        raise DataError(f"{path}: atomic numbers must be between 1 and 118")
    return MoleculeTrajectory(positions, numbers, bonds_by_distance(positions, numbers))
