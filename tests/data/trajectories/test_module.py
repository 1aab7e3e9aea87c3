"""The catalogue, its cache and the data module."""

import warnings

import numpy as np
import pytest
import torch

from fourfold.data.errors import DataError
from fourfold.data.trajectories import TrajectoryDataModule, dataset_names, load_dataset
from fourfold.data.trajectories.augmentation import RotatedRecords, random_rotation, rotated
from fourfold.data.trajectories.cache import cached_arrays, content_hash
from fourfold.modalities.trajectories.records import TrajectoryRecord

SMALL = {"sizes": [20, 4, 6], "frames": 6, "observed_frames": 2}


def module(tmp_path, **settings):
    m = TrajectoryDataModule("springs", root=str(tmp_path), options=SMALL, batch_size=8, **settings)
    m.setup()
    return m


def test_names():
    assert {"springs", "charged", "gravity", "eth", "zara2", "ethanol", "md17-aspirin"} <= set(dataset_names())


def test_particles(tmp_path):
    data = load_dataset("charged", tmp_path, **SMALL)
    assert [len(p) for p in (data.train, data.validation, data.test)] == [20, 4, 6]
    r = data.train[0]
    assert r.positions.shape == (5, 6, 3)
    np.testing.assert_array_equal(r.edge_features[..., 0], np.outer(r.features, r.features))
    assert set(np.unique(r.features)) <= {-1, 1}
    assert "published parameters" in data.protocol
    assert "energy drift" in data.notes[0]
    springs = load_dataset("springs", tmp_path, **SMALL)
    assert springs.train[0].features.sum() == 0
    assert set(np.unique(springs.train[0].edge_features)) == {0, 1}
    heavy = load_dataset("gravity-corrected", tmp_path, **SMALL, num_balls=3)
    assert heavy.train[0].num_agents == 3
    assert heavy.train[0].features.std() > 0.01
    assert len(list((tmp_path / "trajectories").glob("*.npz"))) == 3


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("springs", {"edition": "new"}, "unknown edition 'new'"),
        ("springs", {"sizes": [0, 1, 1]}, "sizes must be three numbers"),
        ("springs", {**SMALL, "observed_frames": 6}, "observed_frames=6 must leave something"),
        ("springs", {**SMALL, "observed_frames": 0}, "observed_frames=0"),
        ("springs", {"balls": 3}, "has no option 'balls'; it takes edition, sizes"),
    ],
)
def test_bad_options(name, options, message, tmp_path):
    with pytest.raises(DataError, match=message):
        load_dataset(name, tmp_path, **options)


def test_cache_is_keyed_checked_and_mended(tmp_path):
    calls = []

    def build():
        calls.append(1)
        return {"x": np.arange(3)}

    for _ in range(2):
        np.testing.assert_array_equal(cached_arrays("a", {"p": 1}, build, tmp_path)["x"], [0, 1, 2])
    cached_arrays("a", {"p": 2}, build, tmp_path)
    assert len(calls) == 2
    assert content_hash({"a": 1, "b": 2}) == content_hash({"b": 2, "a": 1})
    path = tmp_path / "trajectories" / f"a-{content_hash({'p': 1})}.npz"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.warns(UserWarning, match="damaged"):
        cached_arrays("a", {"p": 1}, build, tmp_path)
    assert len(calls) == 3


def test_a_failed_build_leaves_nothing(tmp_path):
    def build():
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        cached_arrays("a", {}, build, tmp_path)
    assert not list((tmp_path / "trajectories").glob("*.npz"))


def test_loaders(tmp_path):
    m = module(tmp_path)
    batches = list(m.train_dataloader())
    assert [len(b) for b in batches] == [8, 8]
    assert batches[0].observed.sum() == 8 * 5 * 2
    whole = torch.cat([b.positions for b in m.test_dataloader()])
    np.testing.assert_array_equal(whole, np.stack([r.positions for r in m.data.test]))
    assert [len(b) for b in module(tmp_path, eval_batch_size=3).test_dataloader()] == [3, 3]
    assert m.protocol == m.data.protocol
    again, other = module(tmp_path), module(tmp_path, seed=1)
    assert torch.equal(next(iter(again.train_dataloader())).positions, batches[0].positions)
    assert not torch.equal(next(iter(other.train_dataloader())).positions, batches[0].positions)


def test_epochs_can_be_entered_in_the_middle(tmp_path):
    for rotate in (False, True):
        loader = module(tmp_path, rotate=rotate).train_dataloader()
        loader.sampler.set_epoch(3)
        whole = [b.positions for b in loader]
        late = module(tmp_path, rotate=rotate).train_dataloader()
        late.sampler.start_at(3, 8)
        assert torch.equal(next(iter(late)).positions, whole[1])


def test_loader_processes_give_the_same_batches(tmp_path):
    one, two = (list(module(tmp_path, num_workers=n, rotate=True).train_dataloader()) for n in (0, 1))
    assert all(torch.equal(a.positions, b.positions) for a, b in zip(one, two, strict=True))


def test_rotations_keep_distances_and_differ_by_epoch(tmp_path):
    records = module(tmp_path).data.train
    turned = RotatedRecords(records, seed=0)
    epochs = [[turned[20 * e + i] for i in range(20)] for e in range(2)]
    for epoch in epochs:
        assert sorted(r.name for r in epoch) == sorted(r.name for r in records)
    original = {r.name: r for r in records}
    r = epochs[0][0]
    x, y = original[r.name].positions, r.positions
    np.testing.assert_allclose(np.linalg.norm(x[0] - x[1], axis=-1), np.linalg.norm(y[0] - y[1], axis=-1), atol=1e-5)
    np.testing.assert_allclose(x.mean((0, 1)), y.mean((0, 1)), atol=1e-5)
    same = next(s for s in epochs[1] if s.name == r.name)
    assert np.abs(same.positions - y).max() > 1e-3


def test_random_rotations_are_proper_and_uniform():
    rng = np.random.default_rng(0)
    for dim in (2, 3):
        q = np.stack([random_rotation(dim, rng) for _ in range(2000)])
        np.testing.assert_allclose(q @ q.transpose(0, 2, 1), np.broadcast_to(np.eye(dim), q.shape), atol=1e-12)
        np.testing.assert_allclose(np.linalg.det(q), 1)
        np.testing.assert_allclose(q.mean(0), 0, atol=0.06)
        np.testing.assert_allclose((q**2).mean(0), 1 / dim, atol=0.03)
        if dim == 3:  # E of the squared trace is 1 for uniform rotations of space
            assert (np.trace(q, axis1=1, axis2=2) ** 2).mean() == pytest.approx(1, abs=0.15)


def test_rotation_turns_about_known_places():
    present = np.array([[True, True], [True, False]])
    record = TrajectoryRecord([[[0.0, 0], [2, 0]], [[1, 0], [1e6, 1e6]]], present=present)
    half_turn = rotated(record, -np.eye(2))
    np.testing.assert_allclose(half_turn.positions[record.known], [[2, 0], [0, 0], [1, 0]], atol=1e-6)


def test_own_files(tmp_path):
    np.savez(tmp_path / "mine.npz", positions=np.random.default_rng(0).normal(size=(100, 2, 3)))
    options = {"observed_frames": 3, "future_frames": 4}
    m = TrajectoryDataModule(file=str(tmp_path / "mine.npz"), options=options, batch_size=4)
    with pytest.raises(RuntimeError, match="after setup"):
        _ = m.data
    m.setup()
    assert next(iter(m.train_dataloader())).positions.shape == (4, 2, 7, 3)
    wrong = TrajectoryDataModule(file=str(tmp_path / "mine.npz"), options={"observed": 3})
    with pytest.raises(DataError, match="a file has no option 'observed'; known are observed_frames"):
        wrong.setup()
    with pytest.raises(ValueError, match="give a data set"):
        TrajectoryDataModule(None)


def test_nothing_warns(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_dataset("springs", tmp_path, **SMALL)
