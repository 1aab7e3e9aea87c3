"""The user's own files, whole and broken."""

import sys

import numpy as np
import pytest

from fourfold.data.errors import DataError
from fourfold.data.trajectories.files import load_file
from fourfold.data.trajectories.molecule_files import read_binary, read_xyz
from fourfold.data.trajectories.tables import read_table, table_windows

RNG = np.random.default_rng(0)


def test_npz_of_one_recording(tmp_path):
    x = RNG.normal(size=(200, 3, 2))
    np.savez(tmp_path / "a.npz", positions=x, features=np.ones((3, 1)))
    data = load_file(tmp_path / "a.npz", observed_frames=4, future_frames=6, sizes=[7, 3, 2], every=2, units="m")
    assert [len(p) for p in (data.train, data.validation, data.test)] == [7, 3, 2]
    np.testing.assert_allclose(data.train[0].positions, x[:20:2].transpose(1, 0, 2), rtol=1e-6)
    assert data.train[1].times.tolist() == list(range(10))
    np.testing.assert_allclose(data.test[0].positions[:, 0], x[160], rtol=1e-6)
    assert data.num_features == 1
    assert data.units == "m"


def test_npz_of_records_with_a_split(tmp_path):
    x = RNG.normal(size=(6, 3, 12, 3))
    split = [0, 1, 0, 2, 0, 2]
    np.savez(tmp_path / "a.npz", positions=x, split=split, present=np.ones((6, 3, 12), bool), ego=[True, False, True])
    data = load_file(tmp_path / "a.npz", observed_frames=4)
    np.testing.assert_allclose(data.test[1].positions, x[5], rtol=1e-6)
    assert data.validation[0].ego.tolist() == [True, False, True]
    assert "split given" in data.protocol


def test_csv_with_late_agents_and_gaps(tmp_path):
    rows = [(10 * t, "b", t, 2 * t) for t in range(12)] + [(10 * t, "a", -t, 0) for t in range(3, 12) if t != 5]
    text = "frame,id,x,y\n" + "\n".join(",".join(map(str, row)) for row in rows)
    (tmp_path / "t.csv").write_text(text)
    (recording,), skipped = read_table(tmp_path / "t.csv")
    assert recording.agents == ["a", "b"]
    assert skipped == 0
    first, *_, last = table_windows(recording, observed_frames=4, future_frames=3)
    assert first.num_agents == 2
    assert first.known[0].tolist() == [False] * 3 + [True, True, False, True]
    assert first.known[1].all()
    assert first.ego.all()
    np.testing.assert_array_equal(last.positions[1, 0], [5, 10])
    early, *_ = table_windows(recording, observed_frames=2, future_frames=3)
    assert early.num_agents == 1  # agent a comes after the observed frames
    data = load_file(tmp_path / "t.csv", observed_frames=2, future_frames=2, split=(0.5, 0.25, 0.25))
    assert len(data.train) == 3


def test_csv_of_irregular_times_and_own_columns(tmp_path):
    times = [0, 1, 2.3, 3.1, 4.75]
    text = "t;who;lon;lat;h;run\n" + "\n".join(f"{t};1;{t};0;{i};r{i // 3}" for i, t in enumerate(times))
    (tmp_path / "t.txt").write_text(text)
    columns = {"frame": "t", "agent": "who", "coordinates": ["lon", "lat", "h"]}
    (whole,), _ = read_table(tmp_path / "t.txt", **columns)
    assert whole.places.shape == (1, 5, 3)
    np.testing.assert_allclose(np.diff(whole.times) / np.diff(times), 1 / np.median(np.diff(times)))
    runs, _ = read_table(tmp_path / "t.txt", recording="run", **columns)
    assert [len(r.times) for r in runs] == [3, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("frame,id,x\n1,1,2\n", "has no column 'y'; it has frame, id, x"),
        ("frame,id,x,y\n1,1,2,\n2,1,0,0\n", "1 rows hold missing values or no numbers, the first in line 2"),
        ("frame,id,x,y\n1,1,2,abc\n", "no numbers"),
        ("frame,id,x,y\n1,1,2,3\n1,1,2,3\n2,1,0,0\n", "agent '1' is listed more than once at frame 1"),
        ("", "cannot be read as a table"),
        ("frame,id,x,y\n1,1,2,3\n2,1,2,3\n", "too short"),
    ],
)
def test_broken_tables(text, message, tmp_path):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        load_file(tmp_path / "t.csv")


def test_bad_rows_can_be_skipped_and_are_counted(tmp_path):
    rows = [f"{t},1,{t},{'oops' if t == 7 else 0}" for t in range(60)]
    (tmp_path / "t.csv").write_text("frame,id,x,y\n" + "\n".join(rows))
    data = load_file(tmp_path / "t.csv", bad_rows="skip", observed_frames=3, future_frames=3)
    assert data.notes == ["1 rows without finite numbers were left out"]
    assert not data.train[3].known.all()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"positions": np.zeros((4, 3))}, "positions must have shape"),
        ({"positions": np.full((40, 2, 3), np.nan)}, "NaN or infinite"),
        ({"positions": np.zeros((40, 2, 3)), "charge": np.zeros(2)}, "unknown arrays charge"),
        ({"positions": np.zeros((40, 2, 3)), "times": np.zeros(40)}, "strictly increase"),
        ({"positions": np.zeros((2, 2, 40, 3)), "split": [0, 3]}, "split must be 2 numbers"),
        ({"positions": np.zeros((10, 2, 3))}, "too short"),
        ({"R": np.zeros((10, 2, 3))}, "expected arrays R"),
        ({"R": np.zeros((10, 2, 3)), "z": np.array([1, 1, 1])}, "do not go with 3 atoms"),
        ({"R": np.zeros((10, 2, 3)), "z": np.array([0, 1])}, "between 1 and 118"),
    ],
)
def test_broken_npz(arrays, message, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=message):
        load_file(tmp_path / "a.npz", observed_frames=10, future_frames=10, split=(1.0, 0.0, 0.0))


def test_pickles_and_unknown_files_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", positions=np.array([{"evil": 1}], dtype=object))
    with pytest.raises(DataError, match="cannot be read as npz of plain arrays"):
        load_file(tmp_path / "a.npz")
    (tmp_path / "b.npz").write_bytes(b"no zip")
    with pytest.raises(DataError, match="cannot be read"):
        load_file(tmp_path / "b.npz")
    (tmp_path / "c.docx").write_text("")
    with pytest.raises(DataError, match="unknown kind of file"):
        load_file(tmp_path / "c.docx")
    with pytest.raises(DataError, match="does not exist"):
        load_file(tmp_path / "d.npz")
    np.savez(tmp_path / "e.npz", positions=np.zeros((40, 2, 3)))
    with pytest.raises(DataError, match="three shares"):
        load_file(tmp_path / "e.npz", split=(0.5, 0.6, 0.2))


def xyz(tmp_path, frames=3, comment="", extra=""):
    block = f"2\n{comment}\nO 0 0 {{z}}{extra}\nH 0 0 0.97{extra}\n"
    path = tmp_path / "a.xyz"
    path.write_text("".join(block.format(z=0.001 * i) for i in range(frames)))
    return path


def test_xyz_plain_and_extended(tmp_path):
    plain = read_xyz(xyz(tmp_path))
    assert plain.positions.shape == (3, 2, 3)
    assert plain.bonds.tolist() == [[0, 1]]
    path = tmp_path / "b.extxyz"
    path.write_text('1\nLattice="1 0 0 0 1 0 0 0 1" Properties=id:I:1:pos:R:3:species:S:1 energy=1\n7 1.0 2.0 3.0 C\n')
    extended = read_xyz(path)
    assert extended.positions.tolist() == [[[1, 2, 3]]]
    assert extended.numbers.tolist() == [6]
    data = load_file(xyz(tmp_path, 60), observed_frames=2, future_frames=3)
    assert data.train[0].atoms == ("O", "H")
    with pytest.raises(DataError, match="angstrom, not 'm'"):
        load_file(xyz(tmp_path, 60), units="m")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("two\n\n", "line 1: expected the number of atoms"),
        ("2\n\nO 0 0 0\n", "the file ends before"),
        ("1\n\nO 0 0\n", "row without symbol and place"),
        ("1\n\nQq 0 0 0\n", "unknown elements Qq"),
        ("1\n\nO 0 0 0\n1\n\nC 0 0 0\n", "line 4: the atoms differ"),
        ("1\n\nO 0 0 nan\n", "frame 0 holds a place that is NaN"),
        ("1\nProperties=pos:R:3\n0 0 0\n", "must name species and pos"),
        ("\n", "holds no frame"),
    ],
)
def test_broken_xyz(text, message, tmp_path):
    (tmp_path / "a.xyz").write_text(text)
    with pytest.raises(DataError, match=message):
        read_xyz(tmp_path / "a.xyz")


def test_dcd_and_xtc(tmp_path):
    formats = pytest.importorskip("mdtraj.formats")
    x = np.array([[0, 0, 0], [0, 0, 0.97]]) + 0.01 * RNG.normal(size=(5, 2, 3))
    with formats.DCDTrajectoryFile(str(tmp_path / "a.dcd"), "w") as file:
        file.write(x.astype(np.float32))
    with formats.XTCTrajectoryFile(str(tmp_path / "a.xtc"), "w") as file:
        file.write((x / 10).astype(np.float32))
    for name, precision in (("a.dcd", 1e-5), ("a.xtc", 0.02)):
        found = read_binary(tmp_path / name, xyz(tmp_path))
        np.testing.assert_allclose(found.positions, x, atol=precision)
        assert found.numbers.tolist() == [8, 1]
    (tmp_path / "b.dcd").write_bytes(b"nothing")
    with pytest.raises(DataError, match="cannot be read"):
        read_binary(tmp_path / "b.dcd", xyz(tmp_path))
    with pytest.raises(DataError, match="give topology"):
        load_file(tmp_path / "a.dcd")


def test_without_mdtraj_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mdtraj.formats", None)
    with pytest.raises(DataError, match=r"pip install 'fourfold\[md\]'"):
        read_binary(tmp_path / "a.dcd", xyz(tmp_path))
