"""Baselines on motions they should forecast exactly."""

import numpy as np
import pytest

from fourfold.modalities.trajectories.baselines import (
    BASELINES,
    constant_acceleration,
    constant_velocity,
    linear_interpolation,
    mean_of_observed,
    mean_velocity,
    repeat_last,
)

TIMES = np.array([[0.0, 1.0, 2.5, 4.0, 4.5, 7.0]])
OBSERVED = np.array([[[True, True, True, True, False, False]] * 2])
START, SPEED = np.array([[1.0, 2.0], [0.0, -1.0]]), np.array([[0.5, 0.0], [1.0, 2.0]])


def moving(power=1):
    t = TIMES[0][None, :, None]
    return (START[:, None] + SPEED[:, None] * t**power)[None]


def test_uniform_motion_is_exact_at_irregular_times():
    x = moving()
    np.testing.assert_allclose(constant_velocity(x, TIMES, OBSERVED), x, atol=1e-12)
    np.testing.assert_allclose(constant_acceleration(x, TIMES, OBSERVED), x, atol=1e-12)
    np.testing.assert_allclose(mean_velocity(x, TIMES, OBSERVED), x, atol=1e-12)


def test_parabola_is_exact_for_acceleration_only():
    x = moving(2)
    np.testing.assert_allclose(constant_acceleration(x, TIMES, OBSERVED), x, atol=1e-12)
    assert np.abs(constant_velocity(x, TIMES, OBSERVED) - x).max() > 1


def test_standing_still():
    x = moving()
    np.testing.assert_allclose(repeat_last(x, TIMES, OBSERVED)[0, :, 5], x[0, :, 3])
    np.testing.assert_allclose(mean_of_observed(x, TIMES, OBSERVED)[0, :, 5], x[0, :, :4].mean(1))


def test_gaps_and_late_agents():
    x, observed = moving(), OBSERVED.copy()
    observed[0, 0, [0, 2]] = False  # seen at frames 1 and 3
    observed[0, 1, :3] = False  # seen once
    forecast = constant_velocity(np.where(observed[..., None], x, 99.0), TIMES, observed)
    np.testing.assert_allclose(forecast[0, 0], x[0, 0], atol=1e-12)
    np.testing.assert_allclose(forecast[0, 1, 5], x[0, 1, 3])
    forecast = constant_acceleration(np.where(observed[..., None], x, 99.0), TIMES, observed)
    np.testing.assert_allclose(forecast[0, 0], x[0, 0], atol=1e-12)


@pytest.mark.parametrize("name", [*BASELINES, "interpolation"])
def test_an_agent_never_seen_has_no_forecast(name):
    forecast = BASELINES.get(name, linear_interpolation)
    observed = OBSERVED.copy()
    observed[0, 1] = False
    result = forecast(moving(), TIMES, observed)
    assert np.isnan(result[0, 1]).all()
    assert np.isfinite(result[0, 0]).all()


def test_interpolation_between_observed_neighbours():
    x, observed = moving(2), np.array([[[True, False, False, True, False, True]] * 2])
    y = linear_interpolation(x, TIMES, observed)
    np.testing.assert_allclose(y[observed], x[observed])
    expected = x[0, :, 0] + 2.5 / 4 * (x[0, :, 3] - x[0, :, 0])
    np.testing.assert_allclose(y[0, :, 2], expected)


def test_shapes_and_times_are_checked():
    with pytest.raises(ValueError, match="expected positions"):
        repeat_last(moving()[0], TIMES, OBSERVED)
    with pytest.raises(ValueError, match="strictly increase"):
        repeat_last(moving(), TIMES[:, ::-1], OBSERVED)
