"""Metrics against numbers worked out by hand."""

import numpy as np
import pytest
import torch

from fourfold.modalities.trajectories.metrics import (
    ade,
    baseline_scores,
    bond_angles,
    bond_lengths,
    bond_marginal_score,
    bond_statistics,
    collision_rate,
    displacement_errors,
    fde,
    final_position_clusters,
    marginal_score,
    motion_statistics,
    sample_scores,
    table,
)
from fourfold.modalities.trajectories.records import TrajectoryRecord, collate

TRUTH = np.zeros((2, 2, 2))  # agents, frames, coordinates
PRED = np.array([[[3.0, 4.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 2.0]]])  # distances 5, 1 and 0, 2


def test_ade_and_fde():
    assert ade(PRED, TRUTH) == pytest.approx((5 + 1 + 0 + 2) / 4)
    assert fde(PRED, TRUTH) == pytest.approx((1 + 2) / 2)
    assert ade(torch.from_numpy(PRED)[None], torch.from_numpy(TRUTH)) == pytest.approx(2)
    assert ade(np.stack([PRED, TRUTH]), TRUTH) == pytest.approx(1)


def test_unknown_places_and_other_agents_do_not_count():
    known = np.array([[False, True], [True, False]])
    errors = displacement_errors(PRED, TRUTH, known)
    np.testing.assert_array_equal(errors.ade, [1, 0])
    np.testing.assert_array_equal(errors.fde, [1, np.nan])
    assert fde(PRED, TRUTH, known) == 1
    assert ade(PRED, TRUTH, ego=[True, False]) == 3
    gap = PRED.copy()
    gap[0, 0] = np.nan
    assert ade(gap, TRUTH, known) == 0.5


def test_bad_shapes_and_nan_are_errors():
    with pytest.raises(ValueError, match=r"agents, frames, coordinates"):
        ade(PRED[0], TRUTH[0])
    with pytest.raises(ValueError, match=r"last three axes"):
        ade(PRED, TRUTH[:, :1])
    with pytest.raises(ValueError, match="NaN"):
        ade(PRED * np.nan, TRUTH)
    with pytest.raises(ValueError, match="nothing to judge"):
        ade(PRED, TRUTH, ego=[False, False])


def test_sample_summaries():
    other = np.array([[[0.0, 1.0], [0.0, 3.0]], [[0.0, 4.0], [0.0, 0.0]]])  # 1, 3 and 4, 0
    scores = sample_scores(np.stack([PRED, other])[None], TRUTH[None], scale=2.0)
    # Sample errors: ADE per agent (3, 1) and (2, 2), joint 2 and 2; FDE per agent (1, 2) and (3, 0), joint 1.5 and 1.5.
    assert scores["average_ade"] == pytest.approx(2 * 2)
    assert scores["average_fde"] == pytest.approx(2 * 1.5)
    assert scores["min_ade"] == pytest.approx(2 * 2)
    assert scores["min_ade_per_agent"] == pytest.approx(2 * (2 + 1) / 2)
    assert scores["min_fde_per_agent"] == pytest.approx(2 * (1 + 0) / 2)
    middle = (PRED + other) / 2
    assert scores["mean_prediction_ade"] == pytest.approx(2 * np.linalg.norm(middle, axis=-1).mean())
    assert scores["num_samples"] == 2
    with pytest.raises(ValueError, match=r"samples \(B, K, N, T, D\)"):
        sample_scores(PRED[None], TRUTH[None])


def test_joint_minimum_takes_one_sample_for_all_agents():
    x = np.zeros((1, 2, 2, 1, 2))
    x[0, 0, 0, 0, 0] = x[0, 1, 1, 0, 0] = 1.0  # each sample is right about one agent
    scores = sample_scores(x, np.zeros((1, 2, 1, 2)))
    assert scores["min_ade"] == 0.5
    assert scores["min_ade_per_agent"] == 0


def test_systems_weigh_equally_whatever_their_size():
    samples, truth, known = np.zeros((2, 1, 3, 1, 2)), np.zeros((2, 3, 1, 2)), np.ones((2, 3, 1), bool)
    known[1, 1:] = False
    samples[1, 0, 0, 0, 0] = 4.0
    assert sample_scores(samples, truth, known)["average_ade"] == 2.0


def test_baseline_scores_skip_agents_never_observed():
    t = np.arange(4.0)
    straight = np.stack([np.stack([t, 0 * t], -1), np.stack([0 * t, t**2], -1)])
    late = np.array([[True] * 4, [False, False, False, True]])
    rows = baseline_scores(collate([TrajectoryRecord(straight, present=late)], 2))
    assert rows["constant velocity"] == {"average_ade": 0.0, "average_fde": 0.0}
    assert rows["repeat last"] == {"average_ade": 1.5, "average_fde": 2.0}
    with pytest.raises(ValueError, match="what is observed"):
        baseline_scores(collate([TrajectoryRecord(straight)]))


def test_marginal_score():
    real = np.array([[0.0], [1.0], [2.0], [3.0]])
    assert marginal_score(real, real, bins=2) == 0
    # Two bins of width 1.5: real densities 1/3, 1/3; generated 1/6 and 0 (three of four lie outside).
    assert marginal_score(real, [[0.5], [7.0], [8.0], [-1.0]], bins=2) == pytest.approx((1 / 6 + 1 / 3) / 2)
    with pytest.raises(ValueError, match="all equal"):
        marginal_score(np.zeros((3, 1)), real)


def test_bonds_and_angles():
    right = np.array([[0.0, 0, 0], [1, 0, 0], [0, 2, 0]])[:, None]
    bonds = [[0, 1], [0, 2]]
    np.testing.assert_allclose(bond_lengths(right, bonds), [[1], [2]])
    np.testing.assert_allclose(bond_angles(right, bonds), [[90]])
    wide = right.copy()
    wide[2, 0] = [0, 2.5, 0]
    scores = bond_statistics(right, wide, bonds)
    assert scores["bond_mean_gap"] == pytest.approx(0.25)
    assert scores["bond_wasserstein"] == pytest.approx(0.25)
    assert scores["angle_mean_gap"] == pytest.approx(0)
    many = right + np.random.default_rng(0).normal(0, 0.1, (3, 200, 3))
    assert bond_marginal_score(many, many, bonds) == 0
    assert bond_marginal_score(many, 1.1 * many, bonds) > 0.5


def test_collisions():
    x = np.zeros((3, 2, 2))
    x[1, :, 0], x[2, :, 0] = [5.0, 0.05], [9.0, 9.0]
    assert collision_rate(x, 0.1) == pytest.approx(2 / 3)
    assert collision_rate(x, 0.1, known=[[True, False], [True, True], [True, True]]) == 0


def test_motion_statistics():
    x = np.array([[[0.0, 0], [1, 0], [3, 0]]])
    scores = motion_statistics(x)
    assert scores["speed"] == 1.5
    assert scores["second_difference"] == 1


def test_clusters_keep_spread_out_samples():
    ends = np.array([0.0, 0.1, 0.05, 10, 10.1, 20, 20.2])
    samples = np.zeros((1, 7, 1, 2, 2))
    samples[0, :, 0, -1, 0] = ends
    kept = final_position_clusters(samples, 3)
    assert sorted(np.round(kept[0, :, 0, -1, 0], -1)) == [0, 10, 20]
    with pytest.raises(ValueError, match="count=8"):
        final_position_clusters(samples, 8)


def test_table():
    text = table({"ours": {"ade": 0.12345, "fde": 1}, "baseline": {"ade": 2}}, "a protocol")
    assert "| ours     | 0.1235 | 1   |" in text
    assert text.endswith("a protocol")
