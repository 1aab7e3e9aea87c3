"""Records say what is wrong with them; batches pad without touching what is there."""

import numpy as np
import pytest
import torch

from fourfold.modalities.trajectories.records import TrajectoryRecord, collate


def record(agents=2, frames=4, dim=3, **parts):
    rng = np.random.default_rng(agents * 100 + frames)
    return TrajectoryRecord(rng.normal(size=(agents, frames, dim)), **parts)


def test_defaults():
    r = record()
    assert r.features.shape == (2, 0)
    np.testing.assert_array_equal(r.times, [0, 1, 2, 3])
    assert r.ego.all()
    assert r.known.all()
    assert r.positions.dtype == np.float32


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"positions": np.zeros((2, 4))}, r"positions must have shape"),
        ({"positions": np.zeros((2, 4, 4))}, r"2 or 3 coordinates"),
        ({"positions": np.zeros((0, 4, 3))}, r"0 agents"),
        ({"positions": np.zeros((2, 0, 3))}, r"0 frames"),
        ({"positions": [["a", "b"]]}, r"must be numbers"),
        ({"features": np.zeros((3, 1))}, r"features must have shape \(2, any\)"),
        ({"features": np.full((2, 1), np.nan)}, r"features holds NaN"),
        ({"edge_features": np.zeros((2, 3, 1))}, r"edge_features must have shape \(2, 2, any\)"),
        ({"present": np.ones((2, 3), bool)}, r"present must have shape \(2, 4\)"),
        ({"present": np.zeros((2, 4), bool)}, r"no agent is present"),
        ({"present": np.full((2, 4), 0.5)}, r"boolean"),
        ({"times": [0, 1, 1, 2]}, r"frame 2 is at 1 after 1"),
        ({"times": [3, 2, 1, 0]}, r"strictly increase"),
        ({"times": [0, 1, 2]}, r"times must have shape \(4\)"),
        ({"times": [0, 1, 2, np.nan]}, r"times hold NaN"),
        ({"times": 1.7e9 + np.arange(4)}, r"too large for single precision"),
        ({"ego": [True]}, r"ego must have shape"),
        ({"atoms": ("C",)}, r"1 atom symbols for 2 agents"),
        ({"bonds": [[0, 2]]}, r"bonds must join"),
        ({"units": "furlong"}, r"unknown unit of length 'furlong'"),
    ],
)
def test_bad_input_is_named(parts, message):
    with pytest.raises(ValueError, match=message):
        TrajectoryRecord(**({"positions": np.zeros((2, 4, 3)), "name": "it"} | parts))


def test_nan_is_an_error_only_where_a_place_is_known():
    positions = np.zeros((2, 4, 3))
    positions[1, 2, 0] = np.nan
    with pytest.raises(ValueError, match=r"agent 1 at frame 2"):
        TrajectoryRecord(positions)
    present = np.ones((2, 4), bool)
    present[1, 2] = False
    batch = collate([TrajectoryRecord(positions, present=present)])
    assert torch.isfinite(batch.positions).all()
    assert not batch.present[0, 1, 2]


def test_collate_pads_sizes_and_lengths():
    small = record(2, 3, features=np.ones((2, 1)), edge_features=np.ones((2, 2, 1)), times=[0, 1.5, 4])
    large = record(4, 5, features=np.ones((4, 1)), edge_features=np.ones((4, 4, 1)), ego=[True, False, True, True])
    batch = collate([small, large], observed_frames=2)
    assert len(batch) == 2
    assert batch.positions.shape == (2, 4, 5, 3)
    np.testing.assert_array_equal(batch.positions[0, :2, :3], small.positions)
    np.testing.assert_array_equal(batch.positions[1], large.positions)
    assert batch.positions[0, 2:].abs().sum() == 0
    assert batch.present[0].sum() == 6
    assert batch.present[1].all()
    assert batch.times[0].tolist() == [0, 1.5, 4, 5, 6]
    assert batch.ego.tolist() == [[True, True, False, False], [True, False, True, True]]
    assert batch.edge_features[0].sum() == 4
    assert batch.observed.sum() == 4 + 8
    assert batch.nodes.tolist() == [[True, True, False, False], [True] * 4]
    assert batch.to("cpu")[1].positions.shape == (1, 4, 5, 3)
    assert batch[torch.tensor([1, 0])].times[1].tolist() == [0, 1.5, 4, 5, 6]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"dim": 2}, r"record 1 has coordinates 2, the first record has 3"),
        ({"features": np.ones((2, 1))}, r"features per agent 1"),
        ({"edge_features": np.ones((2, 2, 1))}, r"features per pair 1"),
        ({"units": "m"}, r"units 'm', the first record has '1'"),
    ],
)
def test_collate_refuses_a_mixture(second, message):
    with pytest.raises(ValueError, match=message):
        collate([record(), record(**second)])


def test_collate_refuses_nothing_and_too_much():
    with pytest.raises(ValueError, match="no records"):
        collate([])
    with pytest.raises(ValueError, match="observed_frames=5"):
        collate([record()], observed_frames=5)


def test_frames_keep_times_and_presence():
    present = np.ones((2, 4), bool)
    present[0, 0] = False
    part = record(times=[0, 2, 4, 7], present=present).frames(1, 3)
    assert part.times.tolist() == [2, 4]
    assert part.known.all()
    with pytest.raises(ValueError, match="not within"):
        record().frames(2, 5)
