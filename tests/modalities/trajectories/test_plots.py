"""Pictures, animations and the player: what is drawn, that it moves, that it needs no network."""

import base64
import json
import re
import shutil
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image, ImageSequence

from fourfold.modalities.trajectories.animation import animate, animation_frames
from fourfold.modalities.trajectories.clips import Clip
from fourfold.modalities.trajectories.player import player_html, write_player
from fourfold.modalities.trajectories.plots import bond_figure, horizon_figure, save_figure, trajectory_figure
from fourfold.modalities.trajectories.records import TrajectoryRecord


def clip(dim=2, molecule=False, observed=4, frames=6, samples=3, **parts):
    rng = np.random.default_rng(0)
    x = np.cumsum(rng.normal(size=(3, frames, dim)), axis=1)
    kind = {"atoms": ("C", "O", "H"), "bonds": [[0, 1], [1, 2]], "units": "angstrom"} if molecule else {"units": "m"}
    forecast = x[:, observed:] + rng.normal(size=(samples, 3, frames - observed, dim))
    return Clip(TrajectoryRecord(x, **kind, **parts), forecast, observed, "a clip")


def test_clip_checks_shapes():
    record = clip().record
    with pytest.raises(ValueError, match="3 agents"):
        Clip(record, np.zeros((2, 4, 2, 2)), 4)
    with pytest.raises(ValueError, match="observed_frames=7"):
        Clip(record, None, 7)
    with pytest.raises(ValueError, match="NaN"):
        Clip(record, np.full((1, 3, 2, 2), np.nan), 4)
    with pytest.raises(ValueError, match="2 colours"):
        Clip(record, None, 4, colors=["#000000"] * 2)


def test_whole_length_samples_lose_their_observed_frames():
    record = clip().record
    whole = np.zeros((5, 3, 6, 2))
    assert Clip(record, whole, 4).samples.shape == (5, 3, 2, 2)
    assert Clip(record, whole, 0).samples.shape == (5, 3, 6, 2)
    assert Clip(record, np.zeros((5, 3, 9, 2)), 4).num_frames == 13


def test_sample_record_continues_the_observed_frames():
    c = clip(times=[0, 1, 2, 4, 5, 6])
    r = c.sample_record(1)
    np.testing.assert_array_equal(r.positions[:, :4], c.record.positions[:, :4])
    np.testing.assert_array_equal(r.positions[:, 4:], c.samples[1])
    assert r.times.tolist() == [0, 1, 2, 4, 5, 6]
    with pytest.raises(ValueError, match="no sample 3"):
        c.sample_record(3)


def test_charges_and_elements_have_colours():
    charged = Clip(TrajectoryRecord(np.zeros((3, 2, 3)), features=[[1], [-1], [1]]))
    red, blue, again = charged.agent_colors
    assert red == again != blue
    assert len(set(clip(3, True).agent_colors)) == 3


def test_observed_is_solid_truth_dashed_samples_thin():
    axes = trajectory_figure([clip()]).axes[0]
    lines = axes.get_lines()
    assert len(lines) == 3 * (3 + 1 + 1)
    observed = [line for line in lines if line.get_linewidth() > 2]
    assert len(observed) == 3
    assert all(len(line.get_xdata()) == 4 and line.get_linestyle() == "-" for line in observed)
    dashed = [line for line in lines if line.get_linestyle() == "--"]
    assert len(dashed) == 3
    assert all(len(line.get_xdata()) == 3 for line in dashed)  # joined to the last observed place
    assert axes.name == "rectilinear"
    assert axes.get_xlabel() == "x (m)"
    assert trajectory_figure([clip(3)]).axes[0].name == "3d"


def test_figures_are_files(tmp_path):
    present = np.ones((3, 6), bool)
    present[0, :2] = present[1, 5] = False
    figure = trajectory_figure([clip(), clip(3), clip(3, True), clip(present=present), Clip(clip().record)], 2, "all")
    assert Image.open(save_figure(figure, tmp_path / "a" / "all.png")).size[0] > 800
    c = clip(3, True)
    bonds = bond_figure(c.record.positions, c.samples, c.bonds, c.record.atoms)
    assert [axes.get_title() for axes in bonds.axes[:2]] == ["C0-O1", "O1-H2"]
    curves = horizon_figure({"model": np.arange(3.0), "constant velocity": np.arange(3.0) ** 2}, units="m")
    assert save_figure(curves, tmp_path / "h.svg").stat().st_size > 1000
    with pytest.raises(ValueError, match="no clips"):
        trajectory_figure([])


@pytest.mark.parametrize("c", [clip(), clip(3), clip(3, True), clip(observed=0)], ids=["2d", "3d", "molecule", "free"])
def test_gif_has_all_frames_and_they_differ(c, tmp_path):
    path = animate(c, tmp_path / "clip.gif", fps=20, size=2)
    pictures = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(Image.open(path))]
    assert len(pictures) == 6
    assert all((a != b).any() for a, b in pairwise(pictures))


def test_mp4_needs_ffmpeg(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match="ffmpeg"):
        animate(clip(), tmp_path / "clip.mp4", size=1)
    with pytest.raises(ValueError, match=r"\.gif or \.mp4"):
        animate(clip(), tmp_path / "clip.avi")
    assert not list(tmp_path.iterdir())


def test_mp4_pipes_all_frames(tmp_path, monkeypatch):
    fake = tmp_path / "ffmpeg"
    fake.write_text('#!/bin/sh\nfor last; do :; done\ncat > "$last"\n')
    fake.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(fake))
    raw = animate(clip(), tmp_path / "clip.mp4", size=1, dpi=50).read_bytes()
    height, width, _ = next(iter(animation_frames(clip(), size=1, dpi=50))).shape
    assert len(raw) == 6 * (height // 2 * 2) * (width // 2 * 2) * 3


def test_player_is_small_self_contained_and_exact(tmp_path):
    c = clip(3, True, frames=30, observed=10, samples=20)
    path = write_player([c, clip()], tmp_path / "p" / "clip.html", title="<b>bold</b>", note="protocol & more")
    text = path.read_text(encoding="utf-8")
    assert path.stat().st_size < 200_000
    assert not re.search(r"(https?:)?//[a-z]+\.|src=|@import|url\(|<link", text.split("<script>")[0] + text)
    assert "&lt;b&gt;bold&lt;/b&gt;" in text
    assert "protocol &amp; more" in text
    data = json.loads(re.search(r"const clips = (\[.*\]);", text).group(1))
    assert [d["dim"] for d in data] == [3, 2]
    first = data[0]
    whole = np.frombuffer(base64.b64decode(first["samples"][7]), "<i2").reshape(3, 20, 3)
    places = whole / 32767 * first["half"] + first["centre"]
    np.testing.assert_allclose(places, c.samples[7], atol=first["half"] / 32767)


def test_player_marks_unknown_places_and_escapes_its_data():
    present = np.ones((3, 6), bool)
    present[0, 0] = False
    c = Clip(clip(present=present).record, None, 4, "</script><script>alert(1)")
    text = player_html([c])
    assert text.count("</script>") == 1
    data = json.loads(re.search(r"const clips = (\[.*\]);", text).group(1))
    whole = np.frombuffer(base64.b64decode(data[0]["record"]), "<i2").reshape(3, 6, 2)
    assert (whole[0, 0] == -32768).all()
    assert (whole[0, 1:] != -32768).all()
    with pytest.raises(ValueError, match="no clips"):
        player_html([])
