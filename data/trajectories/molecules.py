r"""Molecules as trajectory data: what is known of atoms and pairs, windows of a long simulation, the named sets.

An atom's features are its element, one-hot, times $(1, Z/10, (Z/10)^2)$; for molecules of elements up to fluorine the
one-hot part is over Z = 0 ... 9, as in the published MD17 experiments (30 features), for others over the elements that
occur. A pair's features are one-hot over its distance in the graph of bonds: further than three bonds, one, two, three.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...modalities.trajectories.records import TrajectoryRecord
from ..errors import DataError
from ..fetch import data_root
from .cache import cached_arrays, content_hash
from .collection import TrajectoryData
from .cutting import Shares, time_split, window_starts
from .dynamics import MOLECULES, VERSION, MoleculeTrajectory, simulate_molecule

__all__ = [
    "atom_features",
    "bonds_by_distance",
    "load_md17",
    "load_simulated",
    "molecule_data",
    "pair_features",
    "symbols",
]


def symbols(numbers: NDArray[np.int64]) -> tuple[str, ...]:
    """Chemical symbols of atomic numbers."""
    from rdkit import Chem

    table = Chem.GetPeriodicTable()
    return tuple(table.GetElementSymbol(int(z)) for z in numbers)


def atom_features(numbers: NDArray[np.int64]) -> NDArray[np.float32]:
    """Features of atoms, `(N, 30)` for elements up to fluorine, else `(N, 3 * number of elements)`."""
    kinds = np.arange(10) if numbers.max() < 10 else np.unique(numbers)
    hot = (numbers[:, None] == kinds).astype(np.float32)
    powers = (numbers[:, None] / 10.0) ** np.arange(3)
    return (hot[:, :, None] * powers[:, None, :]).reshape(len(numbers), -1).astype(np.float32)


def pair_features(num_atoms: int, bonds: NDArray[np.int64]) -> NDArray[np.float32]:
    """Features of pairs, `(N, N, 4)`: further than three bonds, one bond, two, three; zero for an atom with itself."""
    joined = np.zeros((num_atoms, num_atoms), bool)
    joined[bonds[:, 0], bonds[:, 1]] = joined[bonds[:, 1], bonds[:, 0]] = True
    hops = np.full((num_atoms, num_atoms), -1)
    np.fill_diagonal(hops, 0)
    reached = np.eye(num_atoms, dtype=bool)
    for hop in (1, 2, 3):
        # Integer products: numpy's boolean matrix product is the logical one, but slow.
        reached = reached | ((reached.astype(int) @ joined.astype(int)) > 0)
        hops[reached & (hops < 0)] = hop
    classes = np.where(hops < 0, 0, hops)
    features = np.eye(4, dtype=np.float32)[classes]
    features[np.arange(num_atoms), np.arange(num_atoms)] = 0
    return features


def bonds_by_distance(
    positions: NDArray[np.floating], numbers: NDArray[np.int64], factor: float = 1.25
) -> NDArray[np.int64]:
    """Bonds of a molecule from its places: pairs whose mean distance is below `factor` times the sum of covalent radii.

    Args:
        positions: `(T, N, 3)`, Angstrom; the mean is over time, since single frames stretch bonds.
        numbers: atomic numbers, `(N,)`.
        factor: tolerance.

    Returns:
        Pairs i < j, `(M, 2)`.
    """
    from rdkit import Chem

    table = Chem.GetPeriodicTable()
    radii = np.array([table.GetRcovalent(int(z)) for z in numbers])
    first, second = np.triu_indices(len(numbers), 1)
    # A hundred frames are enough for the mean and keep long files cheap.
    some = positions[:: max(1, len(positions) // 100)]
    distances = np.linalg.norm(some[:, first] - some[:, second], axis=-1).mean(0)
    near = distances < factor * (radii[first] + radii[second])
    return np.stack([first[near], second[near]], axis=1)


def molecule_data(
    trajectory: MoleculeTrajectory,
    name: str,
    *,
    observed_frames: int = 10,
    future_frames: int = 20,
    sizes: Sequence[int] = (5000, 100, 100),
    split: Shares = (0.6, 0.2, 0.2),
    source: str = "",
) -> TrajectoryData:
    """Windows of one long molecular trajectory, split in time.

    Args:
        trajectory: of one molecule, Angstrom.
        name: of the data set.
        observed_frames: per window.
        future_frames: per window.
        sizes: at most so many training, validation and test windows.
        split: shares of the three parts.
        source: where the trajectory is from, for the protocol.
    """
    if len(sizes) != 3:
        raise DataError(f"sizes must be three numbers (train, validation, test), got {tuple(sizes)}")
    span = observed_frames + future_frames
    frames, atoms, _ = trajectory.positions.shape
    features, pairs = atom_features(trajectory.numbers), pair_features(atoms, trajectory.bonds)
    names = symbols(trajectory.numbers)
    parts: list[list[TrajectoryRecord]] = []
    for (start, stop), size in zip(time_split(frames, split), sizes, strict=True):
        parts.append(
            [
                TrajectoryRecord(
                    positions=trajectory.positions[i : i + span].transpose(1, 0, 2).astype(np.float32),
                    features=features,
                    edge_features=pairs,
                    name=f"{name} frame {i}",
                    atoms=names,
                    bonds=trajectory.bonds,
                    units="angstrom",
                )
                for i in window_starts(start, stop, span, size)
            ]
        )
    if not parts[0]:
        raise DataError(f"{name}: {frames} frames are too few for windows of {span} in each part of {tuple(split)}")
    spacing = "" if trajectory.frame_time is None else f" of {trajectory.frame_time:g} fs"
    return TrajectoryData(
        name=name,
        train=parts[0],
        validation=parts[1],
        test=parts[2],
        observed_frames=observed_frames,
        protocol=f"{name}{source and ' (' + source + ')'}: {frames} frames{spacing} of {atoms} atoms, split in time "
        f"{'/'.join(f'{100 * s:g}' for s in split)} %, {'/'.join(str(len(part)) for part in parts)} overlapping "
        f"windows, {observed_frames} -> {future_frames} frames, Angstrom, errors averaged over atoms",
        units="angstrom",
        kind="molecule",
    )


def load_simulated(
    molecule: str = "ethanol",
    root: str | Path | None = None,
    *,
    smiles: str | None = None,
    frames: int = 2000,
    temperature: float = 500.0,
    friction: float = 0.002,
    every: int = 10,
    seed: int = 0,
    observed_frames: int = 10,
    future_frames: int = 20,
    sizes: Sequence[int] = (5000, 100, 100),
    split: Shares = (0.6, 0.2, 0.2),
) -> TrajectoryData:
    """A molecule simulated with MMFF94 (:mod:`.dynamics`), from the cache below `root` if it was simulated before.

    Args:
        molecule: one of MD17's eight, or any name if `smiles` is given.
        root: data root.
        smiles: of another molecule.
        frames: of the simulation, 0.5 fs times `every` apart.
        temperature: Kelvin.
        friction: 1/fs.
        every: steps of 0.5 fs from frame to frame.
        seed: of the simulation.
        observed_frames: per window.
        future_frames: per window.
        sizes: at most so many windows.
        split: shares of time.
    """
    if smiles is None:
        if molecule not in MOLECULES:
            raise DataError(f"unknown molecule {molecule!r}; known are {', '.join(MOLECULES)}; others by smiles=")
        smiles = MOLECULES[molecule]
    settings = {"smiles": smiles, "frames": frames, "temperature": temperature, "friction": friction, "every": every}
    key = {**settings, "seed": seed, "version": VERSION}

    def build() -> dict[str, NDArray[np.generic]]:
        t = simulate_molecule(smiles, frames, temperature=temperature, friction=friction, every=every, seed=seed)
        return {"positions": t.positions.astype(np.float32), "numbers": t.numbers, "bonds": t.bonds}

    arrays = cached_arrays(f"mmff94-{molecule}", key, build, root)
    trajectory = MoleculeTrajectory(arrays["positions"], arrays["numbers"], arrays["bonds"], 0.5 * every)
    return molecule_data(
        trajectory,
        molecule,
        observed_frames=observed_frames,
        future_frames=future_frames,
        sizes=sizes,
        split=split,
        source=f"MMFF94 Langevin dynamics at {temperature:g} K, friction {friction:g}/fs, without drift and rotation, "
        f"seed {seed}, data {content_hash(key)}; not MD17",
    )


def load_md17(
    molecule: str,
    root: str | Path | None = None,
    *,
    every: int = 10,
    observed_frames: int = 10,
    future_frames: int = 20,
    sizes: Sequence[int] = (5000, 1000, 1000),
) -> TrajectoryData:
    """MD17 from `md17_MOLECULE.npz` (or `MOLECULE_dft.npz`), split as the published experiments do: 60/20/20 in time.

    Args:
        molecule: one of MD17's eight.
        root: the file is looked for here, in `root/md17` and in `root/trajectories/md17`.
        every: frames of 0.5 fs from one kept frame to the next.
        observed_frames: per window.
        future_frames: per window.
        sizes: at most so many windows.

    Raises:
        DataError: the file is not there (MD17 has no checksums to download it by: the message says where it belongs).
    """
    from .molecule_files import read_md17

    base = data_root(root)
    folders = (base, base / "md17", base / "trajectories" / "md17")
    names = (f"md17_{molecule}.npz", f"{molecule}_dft.npz")
    found = [folder / name for folder in folders for name in names if (folder / name).is_file()]
    if not found:
        raise DataError(
            f"MD17's {names[0]} is not below {base}: get it from http://www.sgdml.org/#datasets and put it at "
            f"{folders[2] / names[0]}, or use the simulated data set {molecule!r}"
        )
    trajectory = read_md17(found[0])
    # The last frame goes because the published data set needs a next one for its velocities.
    kept = MoleculeTrajectory(trajectory.positions[:-1][::every], trajectory.numbers, trajectory.bonds, 0.5 * every)
    return molecule_data(
        kept,
        f"md17-{molecule}",
        observed_frames=observed_frames,
        future_frames=future_frames,
        sizes=sizes,
        source=f"MD17, every {every}. frame",
    )
