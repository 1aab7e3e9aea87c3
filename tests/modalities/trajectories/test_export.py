"""Files for other programs, read back."""

import numpy as np
import pytest
from rdkit import Chem

from fourfold.data.trajectories.molecule_files import read_pdb_symbols, read_xyz
from fourfold.data.trajectories.tables import read_table
from fourfold.modalities.trajectories.export import write_csv, write_extxyz, write_pdb
from fourfold.modalities.trajectories.records import TrajectoryRecord

WATER = np.array([[0.0, 0, 0.1], [0.76, 0, -0.48], [-0.76, 0, -0.48]])


@pytest.fixture
def water():
    x = WATER[:, None] + 0.02 * np.random.default_rng(0).normal(size=(3, 5, 3))
    return TrajectoryRecord(x, atoms=("O", "H", "H"), bonds=[[0, 1], [0, 2]], units="angstrom")


def test_extended_xyz_round_trip(water, tmp_path):
    back = read_xyz(write_extxyz(water, tmp_path / "sub" / "w.extxyz"))
    np.testing.assert_allclose(back.positions.transpose(1, 0, 2), water.positions, atol=1e-7)
    assert back.numbers.tolist() == [8, 1, 1]
    assert back.bonds.tolist() == [[0, 1], [0, 2]]


def test_rdkit_reads_every_model_of_the_pdb(water, tmp_path):
    path = write_pdb(water, tmp_path / "w.pdb")
    molecule = Chem.MolFromPDBFile(str(path), removeHs=False)
    assert molecule.GetNumConformers() == 5
    assert [atom.GetSymbol() for atom in molecule.GetAtoms()] == ["O", "H", "H"]
    assert molecule.GetNumBonds() == 2
    for frame, conformer in enumerate(molecule.GetConformers()):
        np.testing.assert_allclose(conformer.GetPositions(), water.positions[:, frame], atol=6e-4)
    assert read_pdb_symbols(path) == ["O", "H", "H"]


def test_csv_round_trip_with_absent_agents(tmp_path):
    x = np.random.default_rng(1).normal(size=(2, 4, 2)).astype(np.float32)
    present = np.array([[True, True, False, True], [False, True, True, True]])
    path = write_csv(TrajectoryRecord(x, present=present), tmp_path / "t.csv")
    (back,), skipped = read_table(path)
    assert skipped == 0
    np.testing.assert_array_equal(np.isfinite(back.places[..., 0]), present)
    np.testing.assert_array_equal(back.places[present].astype(np.float32), x[present])


def test_what_a_format_cannot_say_is_an_error(water, tmp_path):
    gone = TrajectoryRecord(water.positions, present=np.arange(15).reshape(3, 5) != 7, atoms=water.atoms)
    for write in (write_extxyz, write_pdb):
        with pytest.raises(ValueError, match="agent 1 is absent at frame 2"):
            write(gone, tmp_path / "x")
    with pytest.raises(ValueError, match="symbols"):
        write_pdb(TrajectoryRecord(water.positions), tmp_path / "x")
    with pytest.raises(ValueError, match="columns"):
        write_pdb(TrajectoryRecord(2e4 * water.positions.clip(0.5), atoms=water.atoms), tmp_path / "x")
    assert not (tmp_path / "x").exists()
