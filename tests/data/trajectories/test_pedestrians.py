"""ETH/UCY: counts and baselines of the published protocols, windows, damaged files."""

import gzip

import numpy as np
import pytest

from fourfold.data.errors import DataError
from fourfold.data.trajectories.catalog import load_dataset
from fourfold.data.trajectories.pedestrians import SCENES, read_recording, windows
from fourfold.modalities.trajectories.metrics import baseline_scores
from fourfold.modalities.trajectories.records import collate

AGENTFORMER = {
    "eth": (30307, 5422, 364),
    "hotel": (29676, 5203, 1197),
    "univ": (9874, 2800, 24334),
    "zara1": (28577, 5184, 2356),
    "zara2": (26076, 4262, 5910),
}
SGAN = {"eth": 181, "hotel": 1053, "univ": 24334, "zara1": 2253, "zara2": 5833}


@pytest.mark.parametrize(("scene", "velocity"), [("eth", (1.075, 2.282)), ("hotel", (0.319, 0.614))])
def test_published_windows_and_constant_velocity(scene, velocity, shared):
    data = load_dataset(scene, shared / "data")
    assert (len(data.train), len(data.validation), len(data.test)) == AGENTFORMER[scene]
    assert all(r.num_agents == 1 for r in data.test)
    rows = baseline_scores(collate(data.test, 8))
    assert rows["constant velocity"]["average_ade"] == pytest.approx(velocity[0], abs=6e-4)
    assert rows["constant velocity"]["average_fde"] == pytest.approx(velocity[1], abs=6e-4)
    if scene == "hotel":
        assert rows["mean velocity"]["average_ade"] == pytest.approx(0.243, abs=6e-4)
    assert "protocol agentformer" in data.protocol
    assert data.units == "m"


@pytest.mark.slow
@pytest.mark.parametrize("scene", ["univ", "zara1", "zara2"])
def test_published_windows_of_the_other_scenes(scene, shared):
    data = load_dataset(scene, shared / "data")
    assert (len(data.train), len(data.validation), len(data.test)) == AGENTFORMER[scene]
    company = np.mean([r.num_agents > 1 for r in data.test])
    assert company == pytest.approx({"univ": 0.996, "zara1": 0.92, "zara2": 0.0}[scene], abs=2e-3)
    assert max(r.num_agents for r in data.test) == SCENES[scene].num_agents
    assert all(r.ego.sum() == 1 and r.ego[0] for r in data.test)


@pytest.mark.parametrize("scene", list(SGAN))
def test_sgan_counts_pedestrians_in_company_only(scene, shared):
    data = load_dataset(scene, shared / "data", protocol="sgan")
    assert sum(int(r.ego.sum()) for r in data.test) == SGAN[scene]
    assert min(r.num_agents for r in data.test) >= 2
    assert "protocol sgan" in data.protocol


def test_test_scale_divides_the_test_places_only(shared):
    scaled = load_dataset("eth", shared / "data", test_scale=1.4, sizes=[5, 5, 364])
    folder = shared / "data" / "trajectories" / "eth_ucy"
    plain = windows(read_recording(folder / "biwi_eth.txt.gz"), "agentformer")
    np.testing.assert_allclose(scaled.test[9].positions * 1.4, plain[9].positions, rtol=1e-6)
    early, _ = read_recording(folder / "biwi_hotel.txt.gz").split()
    np.testing.assert_array_equal(scaled.train[0].positions, windows(early, "agentformer")[0].positions)
    assert scaled.test_scale == 1.4
    assert "test_scale 1.4" in scaled.protocol


def recording(tmp_path, rows):
    path = tmp_path / "walk.txt"
    path.write_text("\n".join("\t".join(map(str, row)) for row in rows))
    return read_recording(path)


def test_neighbours_are_the_nearest_within_reach(tmp_path):
    rows = [(10 * t, i, x, 0.1 * t) for t in range(20) for i, x in ((1, 0.0), (2, 3.0), (3, 1.0), (4, 7.5))]
    samples = windows(recording(tmp_path, rows), "agentformer", num_agents=3)
    assert [s.positions[:, 0, 0].tolist() for s in samples] == [[0, 1, 3], [3, 1, 0], [1, 0, 3], [7.5, 3]]
    few = windows(recording(tmp_path, rows), "agentformer", num_agents=5)
    assert few[3].positions[:, 0, 0].tolist() == [7.5, 0, 3, 1]  # fewer than N: all, in listed order
    (joint,) = windows(recording(tmp_path, rows), "sgan")
    assert joint.num_agents == 4


def test_gaps_break_windows_of_one_protocol_only(tmp_path):
    rows = [(10 * t + (500 if t > 9 else 0), i, i, t) for t in range(20) for i in (1, 2)]
    assert windows(recording(tmp_path, rows), "agentformer") == []
    assert len(windows(recording(tmp_path, rows), "sgan")) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3\n", "four columns"),
        ("", "four columns"),
        ("1 2 3 x\n", "not rows of"),
        ("1 2 3 nan\n", "row 1 holds"),
        ("10 1 0 0\n10 1 1 1\n", "pedestrian 1 is listed more than once in frame 10"),
    ],
)
@pytest.mark.filterwarnings("ignore:loadtxt")
def test_damaged_files(text, message, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_recording(path)


def test_truncated_gzip_and_unknown_names(tmp_path):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"10 1 0 0\n" * 100)[:-12])
    with pytest.raises(DataError, match="not rows of"):
        read_recording(path)
    with pytest.raises(DataError, match="unknown protocol"):
        load_dataset("eth", tmp_path, protocol="mine")
    with pytest.raises(DataError, match="unknown data set 'zara9'"):
        load_dataset("zara9", tmp_path)
    with pytest.raises(DataError, match="has no option 'scale'; it takes protocol"):
        load_dataset("eth", tmp_path, scale=2)
