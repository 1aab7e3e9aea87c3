"""The judging networks: seeded, blind to rotation, and able to judge."""

import numpy as np
import pytest
import torch

from fourfold.modalities.trajectories.records import TrajectoryRecord, collate
from fourfold.modalities.trajectories.surrogates import SurrogateSettings, classification_score, prediction_score

QUICK = SurrogateSettings(epochs=30, batch_size=32)


def systems(count, seed, wiggle=0.0):
    rng = np.random.default_rng(seed)
    t = np.arange(8)[:, None]
    start, speed = rng.normal(size=(2, count, 3, 1, 3))
    return start + 0.2 * speed * t + 0.01 * speed * t**2 + wiggle * rng.normal(size=(count, 3, 8, 3))


@pytest.fixture(scope="module")
def real():
    return collate([TrajectoryRecord(x, features=np.ones((3, 1))) for x in systems(120, 0)])


def test_generated_like_real_cannot_be_told(real):
    assert classification_score(real, systems(120, 1), settings=QUICK) > 0.55
    assert classification_score(real, systems(120, 1, wiggle=0.1), settings=QUICK) < 0.2


def test_forecasting_learnt_from_noise_is_worse(real):
    good = prediction_score(real, systems(120, 1), settings=QUICK)
    assert good < 0.5 * prediction_score(real, systems(120, 1, wiggle=0.3), settings=QUICK)


def test_scores_repeat_and_leave_the_global_generator_alone(real):
    before = torch.get_rng_state()
    first = classification_score(real, systems(120, 1), settings=SurrogateSettings(epochs=2))
    second = classification_score(real, systems(120, 1), settings=SurrogateSettings(epochs=2))
    assert first == second
    assert torch.equal(before, torch.get_rng_state())


def test_rotation_reflection_and_shift_change_nothing(real):
    turn, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    settings = SurrogateSettings(epochs=2)
    fake = systems(120, 1, wiggle=0.05)
    moved = [TrajectoryRecord(x @ turn + 1.0, features=np.ones((3, 1))) for x in real.positions.double().numpy()]
    for score in (classification_score, prediction_score):
        assert score(real, fake, settings=settings) == pytest.approx(
            score(collate(moved), fake @ turn + 1.0, settings=settings), rel=2e-2
        )


def test_bad_input(real):
    with pytest.raises(ValueError, match="shape"):
        classification_score(real, systems(119, 1))
    with pytest.raises(ValueError, match="NaN"):
        prediction_score(real, systems(120, 1) * np.nan)
    with pytest.raises(ValueError, match="at least 10"):
        classification_score(real[:4], systems(4, 1))
    with pytest.raises(ValueError, match="observed_frames=2"):
        prediction_score(real, systems(120, 1), observed_frames=2)
