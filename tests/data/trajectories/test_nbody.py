"""The simulators: laws of physics, published numbers, seeds."""

import numpy as np
import pytest

from fourfold.data.trajectories.nbody import NBodySystem, corrected, energy_drift, published, simulate
from fourfold.modalities.trajectories.baselines import constant_acceleration, constant_velocity
from fourfold.modalities.trajectories.metrics import ade, fde


def test_two_masses_on_a_circle():
    # Two unit masses at distance 1 circle each other with speed sqrt(1/2): period 2 pi / sqrt(2).
    system = NBodySystem("gravity", num_balls=2, first=0, every=1000, scheme="verlet")
    from fourfold.data.trajectories import nbody

    x = np.array([[0.5, 0, 0], [-0.5, 0, 0]])
    v = np.array([[0, 1, 0], [0, -1, 0]]) * np.sqrt(0.5)
    start = (x, v, np.zeros(2), np.ones(2), np.zeros((2, 2)))
    positions = nbody._run(system, [start], 5)[0][0]
    angle = np.sqrt(2) * np.arange(5)
    expected = 0.5 * np.stack([np.cos(angle), np.sin(angle), 0 * angle], -1)
    np.testing.assert_allclose(positions[0], expected, atol=1e-5)
    np.testing.assert_allclose(positions[1], -expected, atol=1e-5)


def test_a_spring_oscillates():
    # The difference of two balls on a spring obeys d'' = -2 k d.
    system = NBodySystem("springs", num_balls=2, first=0, every=1000, scheme="verlet")
    from fourfold.data.trajectories import nbody

    x, spring = np.array([[1.0, 0, 0], [-1.0, 0, 0]]), np.array([[0, 1.0], [1.0, 0]])
    positions = nbody._run(system, [(x, 0 * x, np.zeros(2), np.ones(2), spring)], 6)[0][0]
    np.testing.assert_allclose(positions[0, :, 0], np.cos(np.sqrt(0.2) * np.arange(6)), atol=1e-5)


@pytest.mark.parametrize("law", ["springs", "charged", "gravity"])
def test_corrected_systems_conserve_energy_and_momentum(law):
    s = simulate(corrected(law), 40, frames=20, seed=3)
    assert energy_drift(s).worst < 5e-3
    momentum = (s.masses[:, :, None, None] * s.velocities).sum(1)
    np.testing.assert_allclose(momentum, np.broadcast_to(momentum[:, :1], momentum.shape), atol=1e-9)
    assert (s.masses.std() > 0.1) == (law != "charged")


def test_the_clamp_of_the_published_charges_shows_in_the_drift():
    drift = energy_drift(simulate(published("charged"), 60, seed=0))
    assert drift.broken > 0.2
    assert drift.median < 1e-2
    assert "energy drift" in str(drift)


def test_first_frames_and_starts():
    s = simulate(published("springs"), 8, frames=2)
    late = simulate(NBodySystem("springs", position_scale=0.5, clamp=100.0, box=5.0, first=0), 8, frames=3)
    np.testing.assert_allclose(s.positions, late.positions[:, :, 1:], atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(late.velocities[:, :, 0], axis=-1), 0.5, atol=1e-3)
    gravity = simulate(published("gravity"), 4, frames=1)
    np.testing.assert_allclose(gravity.velocities.sum(1), 0, atol=1e-12)
    assert gravity.velocities.std() == pytest.approx(0.95, abs=0.15)


def test_a_trajectory_depends_on_its_number_only():
    few, many = (
        simulate(published("charged"), 3, frames=3, seed=5),
        simulate(published("charged"), 300, frames=3, seed=5),
    )
    np.testing.assert_allclose(few.positions, many.positions[:3], atol=1e-12)
    other = simulate(published("charged"), 3, frames=3, seed=5, split=1)
    assert np.abs(few.positions - other.positions).max() > 0.1
    assert set(np.unique(many.charges)) == {-1, 1}


@pytest.mark.parametrize(
    ("law", "velocity", "acceleration", "count"),
    [("springs", (0.145, 0.390), (0.050, 0.171), 300), ("charged", (0.499, 1.057), (1.71, 4.63), 500)],
)
def test_baselines_reproduce_the_published_difficulty(law, velocity, acceleration, count):
    x = simulate(published(law), count, seed=1).positions
    times, observed = np.tile(np.arange(30), (count, 1)), np.broadcast_to(np.arange(30) < 10, x.shape[:3])
    for forecast, numbers, tolerance in (
        (constant_velocity, velocity, 0.06),
        (constant_acceleration, acceleration, 0.2),
    ):
        pred = forecast(x, times, observed)[:, :, 10:]
        assert ade(pred, x[:, :, 10:]) == pytest.approx(numbers[0], rel=tolerance)
        assert fde(pred, x[:, :, 10:]) == pytest.approx(numbers[1], rel=tolerance)


def test_bad_settings():
    with pytest.raises(ValueError, match="unknown law 'magnets'"):
        published("magnets")
    with pytest.raises(ValueError, match="masses"):
        NBodySystem("springs", masses=(0.0, 1.0))
    with pytest.raises(ValueError, match="count"):
        simulate(published("springs"), 0)
