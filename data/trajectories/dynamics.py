r"""Molecular dynamics with the MMFF94 force field: small molecules that move, in a second, without a network.

Langevin dynamics by the BAOAB splitting, step h, friction $\gamma$, temperature T:

    B  v += h/2 F/m      A  x += h/2 v      O  v = c v + sqrt((1 - c^2) k_B T / m) z,  c = exp(-\gamma h)      A      B

After O the momentum and the angular momentum are taken off, as in the trajectories of MD17: the molecule vibrates and
changes its shape, but neither drifts nor tumbles. Units: Angstrom, femtoseconds, atomic mass units, kcal/mol, Kelvin.

Source: Leimkuhler and Matthews (https://doi.org/10.1093/amrx/abs010) for BAOAB; RDKit for MMFF94.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

__all__ = ["MOLECULES", "VERSION", "ForceField", "MoleculeTrajectory", "simulate_molecule"]

#: The molecules of MD17.
MOLECULES = {
    "aspirin": "CC(=O)Oc1ccccc1C(=O)O",
    "benzene": "c1ccccc1",
    "ethanol": "CCO",
    "malonaldehyde": "O=CCC=O",
    "naphthalene": "c1ccc2ccccc2c1",
    "salicylic_acid": "O=C(O)c1ccccc1O",
    "toluene": "Cc1ccccc1",
    "uracil": "O=c1cc[nH]c(=O)[nH]1",
}

#: Part of every cache key.
VERSION = 1

# kcal/mol/Angstrom/amu in Angstrom/fs^2, and Boltzmann's constant in kcal/mol/K.
_ACCELERATION = 4.184e-4
_BOLTZMANN = 0.0019872043


@dataclass(frozen=True, eq=False)
class MoleculeTrajectory:
    """One molecule over time.

    Args:
        positions: `(T, N, 3)`, Angstrom.
        numbers: atomic numbers, `(N,)`.
        bonds: pairs of atoms, `(M, 2)`.
        frame_time: femtoseconds from frame to frame; None if not known.
    """

    positions: NDArray[np.float64]
    numbers: NDArray[np.int64]
    bonds: NDArray[np.int64]
    frame_time: float | None = None


class ForceField:
    """MMFF94 for one molecule, with hydrogens, at first in a minimum of the energy.

    Args:
        smiles: of the molecule.
        seed: of the first geometry.

    Raises:
        DataError: RDKit cannot read the SMILES, place the atoms, or has no MMFF94 parameters for them.
    """

    def __init__(self, smiles: str, seed: int = 0) -> None:
        from rdkit import Chem
        from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

        molecule = Chem.MolFromSmiles(smiles)
        if molecule is None:
            raise DataError(f"RDKit cannot read the SMILES {smiles!r}")
        # RDKit's field points into the molecule without keeping it alive.
        self.molecule = Chem.AddHs(molecule)
        if rdDistGeom.EmbedMolecule(self.molecule, randomSeed=seed) != 0:
            raise DataError(f"RDKit finds no geometry for {smiles!r}")
        properties = rdForceFieldHelpers.MMFFGetMoleculeProperties(self.molecule)
        if properties is None:
            raise DataError(f"MMFF94 has no parameters for {smiles!r}")
        self._field: Any = rdForceFieldHelpers.MMFFGetMoleculeForceField(self.molecule, properties)
        self._field.Initialize()
        self._field.Minimize(maxIts=1000)
        self._conformer = self.molecule.GetConformer()

    @property
    def positions(self) -> NDArray[np.float64]:
        """Where the atoms were last put, `(N, 3)`, Angstrom."""
        return self._conformer.GetPositions()

    def energy(self, positions: NDArray[np.float64]) -> float:
        """Energy at places `(N, 3)`, kcal/mol."""
        self._put(positions)
        return self._field.CalcEnergy()

    def gradient(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Its gradient, `(N, 3)`, kcal/mol/Angstrom."""
        self._put(positions)
        return np.array(self._field.CalcGrad()).reshape(-1, 3)

    def _put(self, positions: NDArray[np.float64]) -> None:
        self._conformer.SetPositions(positions)
        # Without Initialize() energy and gradient are those of distances computed before.
        self._field.Initialize()


def simulate_molecule(
    smiles: str,
    frames: int,
    *,
    temperature: float = 500.0,
    step: float = 0.5,
    every: int = 10,
    friction: float = 0.002,
    warm_up: int = 2000,
    seed: int = 0,
) -> MoleculeTrajectory:
    """Simulates one molecule.

    Args:
        smiles: of the molecule; hydrogens are added.
        frames: T.
        temperature: Kelvin.
        step: femtoseconds per integration step.
        every: steps from frame to frame.
        friction: 1/fs; 0.002 forgets velocities within 500 fs.
        warm_up: steps before the first frame.
        seed: of the geometry and of the noise.
    """
    if frames < 1 or every < 1 or warm_up < 1 or min(temperature, friction) < 0 or step <= 0:
        raise DataError(
            "frames, every and warm_up must be at least 1, temperature and friction at least 0, step above 0"
        )
    field = ForceField(smiles, seed)
    atoms = list(field.molecule.GetAtoms())
    masses = np.array([atom.GetMass() for atom in atoms])[:, None]
    rng = np.random.default_rng((seed, 94))
    x = field.positions
    x -= (masses * x).sum(0) / masses.sum()

    def acceleration(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return -_ACCELERATION * field.gradient(x) / masses

    thermal = np.sqrt(_BOLTZMANN * temperature * _ACCELERATION / masses)
    v = _at_rest(x, thermal * rng.standard_normal(x.shape), masses)
    keep = np.exp(-friction * step)
    a = acceleration(x)
    places = np.empty((frames, len(atoms), 3))
    for count in range(1, warm_up + every * (frames - 1) + 1):
        v = v + 0.5 * step * a
        x = x + 0.5 * step * v
        v = _at_rest(x, keep * v + np.sqrt(1 - keep**2) * thermal * rng.standard_normal(x.shape), masses)
        x = x + 0.5 * step * v
        a = acceleration(x)
        v = v + 0.5 * step * a
        if count >= warm_up and (count - warm_up) % every == 0:
            places[(count - warm_up) // every] = x
    return MoleculeTrajectory(
        positions=places,
        numbers=np.array([atom.GetAtomicNum() for atom in atoms]),
        bonds=np.array([(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in field.molecule.GetBonds()]).reshape(-1, 2),
        frame_time=step * every,
    )


def _at_rest(x: NDArray[np.float64], v: NDArray[np.float64], masses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Velocities without momentum and angular momentum."""
    v = v - (masses * v).sum(0) / masses.sum()
    if len(x) < 2:
        return v
    arms = x - (masses * x).sum(0) / masses.sum()
    momentum = np.cross(arms, masses * v).sum(0)
    inertia = (masses * (arms**2)).sum() * np.eye(3) - (masses * arms).T @ arms
    # The pseudo-inverse serves linear molecules, which have no inertia about their axis.
    return v - np.cross(np.linalg.pinv(inertia, rcond=1e-8) @ momentum, arms)
