"""Molecules: a force field that is a gradient, a thermostat that keeps its temperature, features, windows."""

import numpy as np
import pytest

from fourfold.data.errors import DataError
from fourfold.data.trajectories.catalog import load_dataset
from fourfold.data.trajectories.dynamics import MOLECULES, ForceField, simulate_molecule
from fourfold.data.trajectories.molecules import atom_features, bonds_by_distance, pair_features


@pytest.fixture(scope="module")
def ethanol():
    return simulate_molecule("CCO", 400, seed=1)


def test_bonds_stay_and_nothing_drifts_or_tumbles(ethanol):
    x, bonds = ethanol.positions, ethanol.bonds
    lengths = np.linalg.norm(x[:, bonds[:, 0]] - x[:, bonds[:, 1]], axis=-1)
    assert lengths.shape == (400, 8)
    assert 0.9 < lengths.min() < lengths.max() < 1.8
    assert 0.02 < lengths.std(0).mean() < 0.06
    masses = np.array([{1: 1.008, 6: 12.011, 8: 15.999}[z] for z in ethanol.numbers])
    centre = (masses[:, None] * x).sum(1) / masses.sum()
    assert np.abs(centre - centre[0]).max() < 1e-6


def test_seeded():
    a, b, c = (simulate_molecule("CO", 3, warm_up=20, seed=s).positions for s in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 0.01


def test_temperature():
    # A fast thermostat on a stiff molecule: the mean kinetic energy of 3N - 6 momenta, from differences.
    t = simulate_molecule("CO", 3000, temperature=300, every=1, friction=0.05, seed=2)
    masses = np.array([{1: 1.008, 6: 12.011, 8: 15.999}[z] for z in t.numbers])[:, None]
    v = (t.positions[2:] - t.positions[:-2]) / (2 * 0.5)
    kinetic = 0.5 * (masses * v**2).sum((1, 2)).mean() / 4.184e-4
    assert 2 * kinetic / (0.0019872 * (3 * 6 - 6)) == pytest.approx(300, rel=0.2)


def test_forces_are_fresh():
    field = ForceField("CCO")
    x = field.positions + 0.05 * np.random.default_rng(0).normal(size=(9, 3))
    step = np.zeros((9, 3))
    step[2, 1] = 1e-4
    slope = (field.energy(x + step) - field.energy(x - step)) / 2e-4
    assert field.gradient(x)[2, 1] == pytest.approx(slope, rel=1e-4)


def test_features_are_the_published_ones():
    numbers = np.array([6, 1, 8])
    features = atom_features(numbers)
    assert features.shape == (3, 30)
    np.testing.assert_allclose(features[0, 18:21], [1, 0.6, 0.36], rtol=1e-6)
    assert features[0].sum() == pytest.approx(1.96)
    assert atom_features(np.array([6, 17])).shape == (2, 6)
    chain = np.array([[0, 1], [1, 2], [2, 3], [3, 4]])
    pairs = pair_features(5, chain)
    assert pairs[0].argmax(-1)[1:].tolist() == [1, 2, 3, 0]
    assert pairs[0, 4, 0] == 1  # four bonds apart
    assert pairs[np.arange(5), np.arange(5)].sum() == 0
    np.testing.assert_array_equal(pairs, pairs.transpose(1, 0, 2))


def test_bonds_from_distances_equal_the_graph(ethanol):
    found = bonds_by_distance(ethanol.positions, ethanol.numbers)
    assert {tuple(b) for b in found.tolist()} == {tuple(sorted(b)) for b in ethanol.bonds.tolist()}


def test_data_set_and_its_cache(tmp_path):
    options = {"frames": 300, "sizes": [50, 5, 5]}
    data = load_dataset("ethanol", tmp_path, **options)
    assert [len(p) for p in (data.train, data.validation, data.test)] == [50, 5, 5]
    record = data.train[0]
    assert record.positions.shape == (9, 30, 3)
    assert record.atoms[:3] == ("C", "C", "O")
    assert record.units == data.units == "angstrom"
    assert "MMFF94" in data.protocol
    assert "not MD17" in data.protocol
    (file,) = (tmp_path / "trajectories").glob("mmff94-ethanol-*.npz")
    before = file.stat().st_mtime_ns
    again = load_dataset("ethanol", tmp_path, **options)
    assert file.stat().st_mtime_ns == before
    np.testing.assert_array_equal(again.test[2].positions, data.test[2].positions)
    load_dataset("ethanol", tmp_path, **options, seed=1)
    assert len(list((tmp_path / "trajectories").glob("mmff94-ethanol-*.npz"))) == 2


def test_md17_from_its_own_file(tmp_path, ethanol):
    with pytest.raises(DataError, match=r"md17_ethanol.npz is not below .* put it at"):
        load_dataset("md17-ethanol", tmp_path)
    np.savez(tmp_path / "md17_ethanol.npz", R=ethanol.positions, z=ethanol.numbers, E=np.zeros(400))
    data = load_dataset("md17-ethanol", tmp_path, every=2, sizes=[20, 4, 4])
    np.testing.assert_allclose(data.train[0].positions[:, 1], ethanol.positions[2], rtol=1e-6)
    assert data.train[0].bonds.shape == (8, 2)
    assert [len(data.train), len(data.test)] == [20, 4]


def test_every_molecule_has_parameters():
    assert all(np.abs(field.gradient(field.positions)).max() < 1 for field in map(ForceField, MOLECULES.values()))


def test_bad_molecules():
    with pytest.raises(DataError, match="cannot read the SMILES"):
        simulate_molecule("not a molecule", 10)
    with pytest.raises(DataError, match="no parameters"):
        ForceField("[Na+].[Fe]")
    with pytest.raises(DataError, match="warm_up must be at least 1"):
        simulate_molecule("CO", 1, warm_up=0)
    with pytest.raises(DataError, match="too few for windows"):
        load_dataset("ethanol", frames=40)
