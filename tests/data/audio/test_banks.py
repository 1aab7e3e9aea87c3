"""Banks of sounds: synthetic events, folders, tables, captions, ESC."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile
import torch

from fourfold.data.audio import (
    EVENTS,
    SyntheticEvents,
    dataset_names,
    load_captions,
    load_dataset,
    load_folder,
    load_table,
)
from fourfold.data.audio.clips import Clip, ClipBank, crop_start, split_clips
from fourfold.data.audio.esc import ARCHIVE, load_esc
from fourfold.data.audio.folders import content_words
from fourfold.data.errors import DataError
from fourfold.modalities.audio.mel import LogMel

RATE = 16_000


def rng(seed=0):
    return np.random.Generator(np.random.Philox(seed))


def sound(path, seconds=0.5, level=0.1, rate=RATE):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, level * rng(len(path.name)).standard_normal(round(seconds * rate)), rate)
    return path


class TestEvents:
    @pytest.mark.parametrize("kind", list(EVENTS))
    def test_every_kind(self, kind):
        bank = SyntheticEvents([kind])
        waves = [bank.draw(0, rng(seed), 20_000) for seed in range(6)]
        for wave in waves:
            assert wave.shape == (20_000,)
            assert wave.dtype == np.float32
            assert np.sqrt(np.mean(wave**2)) == pytest.approx(0.1, rel=1e-3)
        assert np.array_equal(waves[0], bank.draw(0, rng(0), 20_000))
        assert np.abs(waves[0] - waves[1]).max() > 0.01
        assert len(set(EVENTS[kind][0])) >= 3

    def test_kinds_sound_different(self):
        """A nearest-centroid classifier on mean spectra tells most of them apart."""
        bank, front = SyntheticEvents(), LogMel()

        def features(seeds):
            waves = np.stack([bank.draw(i, rng(1000 * i + s), 32_000) for i in range(len(bank)) for s in seeds])
            mel = front(torch.from_numpy(waves))
            return torch.cat([mel.mean(1), mel.std(1)], 1).reshape(len(bank), len(seeds), -1)

        centroids, test = features(range(6)).mean(1), features(range(10, 14))
        nearest = torch.cdist(test.reshape(-1, test.shape[-1]), centroids).argmin(1).reshape(len(bank), -1)
        assert (nearest == torch.arange(len(bank))[:, None]).float().mean() > 0.75

    def test_other_rates_and_lengths(self):
        for rate, length in ((8000, 4000), (44_100, 44_100)):
            bank = SyntheticEvents(sample_rate=rate)
            for item in range(len(bank)):
                assert np.isfinite(bank.draw(item, rng(item), length)).all()

    def test_errors(self):
        with pytest.raises(ValueError, match=r"unknown kinds of sound \['dog'\]; known are bell"):
            SyntheticEvents(["dog"])
        with pytest.raises(ValueError, match="at least 8000 Hz"):
            SyntheticEvents(sample_rate=4000)


class TestClips:
    def test_crop_is_where_the_sound_is(self):
        wave = np.zeros(16_000, dtype=np.float32)
        wave[9000:10_000] = 1
        starts = {crop_start(wave, rng(seed), 4000) for seed in range(50)}
        assert all(start + 4000 > 9300 and start < 9700 for start in starts)
        assert len(starts) > 30

    def test_short_clips_are_placed_in_silence(self, tmp_path):
        bank = ClipBank([Clip(sound(tmp_path / "a.wav", 0.1), frozenset("a"), ("a",))], RATE)
        waves = [bank.draw(0, rng(seed), 8000) for seed in range(5)]
        assert {int((wave != 0).sum()) for wave in waves} <= {1599, 1600}
        assert len({int(np.flatnonzero(wave)[0]) for wave in waves}) > 1

    def test_resampled_and_mixed_down(self, tmp_path):
        tone = 0.2 * np.sin(2 * np.pi * 440 * np.arange(44_100) / 44_100)
        soundfile.write(tmp_path / "a.wav", np.stack([tone, 0 * tone], 1), 44_100)
        wave = ClipBank([Clip(tmp_path / "a.wav", frozenset("a"), ("a",))], RATE).draw(0, rng(), 8000)
        assert np.abs(wave[500:-500]).max() == pytest.approx(0.1, abs=2e-3)
        assert np.abs(np.fft.rfft(wave)).argmax() == 220

    def test_long_files_are_read_in_part(self, tmp_path):
        ramp = np.repeat(np.linspace(0.1, 0.9, 40), 8000)
        soundfile.write(tmp_path / "a.wav", ramp, 8000)
        bank = ClipBank([Clip(tmp_path / "a.wav", frozenset("a"), ("a",))], 8000)
        means = [float(bank.draw(0, rng(seed), 4000).mean()) for seed in range(8)]
        assert max(means) - min(means) > 0.1
        assert means[0] == float(bank.draw(0, rng(0), 4000).mean())

    def test_memory_is_bounded(self, tmp_path):
        clips = [Clip(sound(tmp_path / f"{i}.wav"), frozenset(str(i)), (str(i),)) for i in range(4)]
        bank = ClipBank(clips, RATE, cache_bytes=2 * 8000 * 4)
        for i in (0, 1, 0, 2, 3):
            bank.draw(i, rng(), 1000)
        assert list(bank._kept) == [2, 3]
        assert bank._bytes == 2 * 8000 * 4

    def test_split_by_name_is_stable(self, tmp_path):
        clips = [Clip(tmp_path / f"{i}.wav", frozenset(str(i % 2)), ("x",)) for i in range(40)]
        parts = split_clips(clips)
        assert [len(parts[p]) for p in ("train", "validation", "test")] == [32, 4, 4]
        assert split_clips(clips[::-1])["test"] == parts["test"]

    def test_splits_are_said_for_all_or_none(self, tmp_path):
        clips = [
            Clip(tmp_path / "a.wav", frozenset("a"), ("a",), "train"),
            Clip(tmp_path / "b.wav", frozenset("b"), ("b",)),
        ]
        with pytest.raises(DataError, match=r"1 of 2 clips have no split, the first is .*b\.wav"):
            split_clips(clips)
        with pytest.raises(DataError, match="unknown split 'other'"):
            split_clips([Clip(tmp_path / "a.wav", frozenset("a"), ("a",), "other")])


class TestFolders:
    def test_folder_per_label(self, tmp_path):
        for label in ("dog_bark", "rain"):
            for i in range(5):
                sound(tmp_path / label / f"{i}.wav")
        (tmp_path / "rain" / "broken.wav").write_text("x")
        (tmp_path / "rain" / "notes.txt").write_text("x")
        data = load_folder(tmp_path, RATE)
        assert [len(b) for b in (data.train, data.validation, data.test)] == [6, 2, 2]
        assert data.train.labels(0) == {"dog_bark"}
        assert data.train.captions(0)[:2] == ("dog bark", "the sound of dog bark")
        assert len(data.train.groups()) == 2
        assert len(data.skipped) == 1
        assert "broken.wav" in data.skipped[0]
        assert "1 files left out" in data.protocol
        with pytest.raises(DataError, match=r"broken\.wav: not a sound file"):
            load_folder(tmp_path, RATE, on_error="raise")

    def test_folder_with_splits(self, tmp_path):
        for split in ("train", "val", "test"):
            for label in ("a", "b"):
                sound(tmp_path / split / label / "1.wav")
        data = load_folder(tmp_path, RATE)
        assert [len(b) for b in (data.train, data.validation, data.test)] == [2, 2, 2]
        sound(tmp_path / "c" / "1.wav")
        with pytest.raises(DataError, match="both splits"):
            load_folder(tmp_path, RATE)

    def test_bad_folders(self, tmp_path):
        with pytest.raises(DataError, match="no such folder"):
            load_folder(tmp_path / "x", RATE)
        with pytest.raises(DataError, match="holds no sounds"):
            load_folder(tmp_path, RATE)
        sound(tmp_path / "a" / "1.wav")
        with pytest.raises(DataError, match="only one label"):
            load_folder(tmp_path, RATE)
        sound(tmp_path / "b" / "1.wav")
        with pytest.raises(DataError, match="no clips for validation and test"):
            load_folder(tmp_path, RATE)

    def test_table_with_captions(self, tmp_path):
        lines = ["file,caption,label,split"]
        for i, split in enumerate(("train", "train", "validation", "test")):
            sound(tmp_path / f"{i}.wav")
            lines.append(f"{i}.wav,a dog number {i} barks,dog;animal {i},{split}")
        lines.append("missing.wav,nothing,x,train")
        lines.append(",no file,x,train")
        (tmp_path / "t.csv").write_text("\n".join(lines))
        data = load_table(tmp_path / "t.csv", RATE)
        assert data.train.captions(1) == ("a dog number 1 barks",)
        assert data.train.labels(1) == {"dog", "animal 1"}
        assert len(data.skipped) == 2
        assert "line 7: needs a file" in data.skipped[0]
        with pytest.raises(DataError, match="line 7"):
            load_table(tmp_path / "t.csv", RATE, on_error="raise")
        (tmp_path / "u.csv").write_text("path,text\n1,2\n")
        with pytest.raises(DataError, match="needs a column 'file' and 'caption' or 'label'; it has path, text"):
            load_table(tmp_path / "u.csv", RATE)

    def test_captions_without_labels(self, tmp_path):
        captions = ["A dog barks loudly", "Rain falling on a roof", "Dogs barking in the background", "An engine idles"]
        items = []
        for i, caption in enumerate(captions * 3):
            sound(tmp_path / f"{i}.wav")
            items.append({"wav": f"{i}.wav", "caption": caption})
        (tmp_path / "c.json").write_text(json.dumps({"data": items}))
        data = load_captions(tmp_path / "c.json", RATE)
        assert [len(b) for b in (data.train, data.validation, data.test)] == [4, 4, 4]
        labels = {data.train.captions(i)[0]: data.train.labels(i) for i in range(4)}
        assert labels[captions[0]] & labels[captions[2]]
        assert not labels[captions[0]] & labels[captions[1]]
        (tmp_path / "c.json").write_text("{}")
        with pytest.raises(DataError, match='entries with "wav" and "caption"'):
            load_captions(tmp_path / "c.json", RATE)
        (tmp_path / "c.json").write_text("[{")
        with pytest.raises(DataError, match="not JSON"):
            load_captions(tmp_path / "c.json", RATE)

    def test_words(self):
        assert content_words("A dog is barking loudly, with sounds of rain") == {"dog", "bark", "loudly", "rain"}


class TestESC:
    def test_local_esc10(self, shared):
        data = load_esc(shared / "data/audio/esc10", ten=True)
        train, validation, test = (list(bank.clips) for bank in (data.train, data.validation, data.test))
        assert [len(train), len(validation), len(test)] == [211, 27, 80]
        assert {clip.path.name[0] for clip in test} == {"4"}
        assert {clip.path.name[0] for clip in train} == {"1", "2", "3"}
        source = lambda clips: {clip.path.name.split("-")[1] for clip in clips}  # noqa: E731
        assert not source(train) & source(validation)
        assert len(data.test.groups()) == 10
        wave = data.test.draw(0, rng(), 40_960)
        assert wave.shape == (40_960,)
        assert wave.any()
        assert "tested on fold 4" in data.protocol

    def test_found_below_the_root(self, shared):
        data = load_dataset("esc10", shared / "data/audio", validation_fold=3)
        assert "trained on folds 1, 2, validated on fold 3" in data.protocol

    def test_repository_layout(self, tmp_path):
        lines = ["filename,fold,target,category,esc10,src_file,take"]
        for fold in (1, 2, 5):
            for category, ten in (("dog", True), ("sea_waves", True), ("cow", False)):
                for take in "AB":
                    name = f"{fold}-{fold}{category}-{take}-0.wav"
                    sound(tmp_path / "audio" / name)
                    lines.append(f"{name},{fold},0,{category},{ten},1,{take}")
        (tmp_path / "meta").mkdir()
        (tmp_path / "meta" / "esc50.csv").write_text("\n".join(lines))
        fifty = load_dataset("esc50", tmp_path)
        ten = load_dataset("esc10", tmp_path, test_fold=5)
        assert [len(b) for b in (fifty.train, fifty.validation, fifty.test)] == [6, 6, 6]
        assert [len(b) for b in (ten.train, ten.validation, ten.test)] == [4, 4, 4]
        assert ten.train.captions(2)[0] in ("dog", "sea waves")

    def test_errors(self, shared, tmp_path):
        with pytest.raises(DataError, match="holds folds 1, 2, 3, 4; test_fold=5"):
            load_esc(shared / "data/audio/esc10", ten=True, test_fold=5)
        (tmp_path / "clips.csv").write_text("file,label\na.wav,dog\n")
        with pytest.raises(DataError, match="line 2: needs file, fold and label"):
            load_esc(tmp_path)

    def test_from_the_archive(self, tmp_path, monkeypatch):
        import hashlib
        import zipfile

        from fourfold.data.audio import esc

        lines = ["filename,fold,category,esc10"]
        (tmp_path / "audio").mkdir()
        archive = tmp_path / "audio" / "ESC-50-master.zip"
        with zipfile.ZipFile(archive, "w") as file:
            for fold in (1, 2):
                for category in ("dog", "cow"):
                    for take in "AB":
                        name = f"{fold}-{take}{category}-{take}-0.wav"
                        file.write(sound(tmp_path / "source" / name), f"ESC-50-master/audio/{name}")
                        lines.append(f"{name},{fold},{category},True")
            file.writestr("ESC-50-master/meta/esc50.csv", "\n".join(lines))
        known = esc.RemoteFile(ARCHIVE.name, (), hashlib.sha256(archive.read_bytes()).hexdigest())
        monkeypatch.setattr(esc, "ARCHIVE", known)
        first = load_esc(tmp_path, ten=True, test_fold=2)
        assert [len(b) for b in (first.train, first.validation, first.test)] == [2, 2, 4]
        # Unpacked once, the archive is no longer needed.
        archive.unlink()
        assert len(load_esc(tmp_path, ten=True, test_fold=2).test) == 4

    def test_without_files_or_network(self, tmp_path, monkeypatch):
        import pooch

        monkeypatch.setattr(pooch, "retrieve", lambda *a, **k: (_ for _ in ()).throw(OSError("no network")))
        with pytest.raises(DataError, match=rf"cannot fetch {ARCHIVE.name}.*no network"):
            load_esc(tmp_path)


def test_catalog():
    assert dataset_names() == ["synthetic", "esc10", "esc50"]
    data = load_dataset("synthetic", kinds=["bell", "hiss"])
    assert "2 kinds of generated sounds (bell, hiss)" in data.protocol
    for call, message in [
        (lambda: load_dataset("mnist"), "unknown data set 'mnist'; known are synthetic"),
        (lambda: load_dataset("synthetic", folds=3), "no option folds; known are kinds"),
        (lambda: load_dataset("synthetic", kinds=["dog"]), "unknown kinds"),
    ]:
        with pytest.raises(DataError, match=message):
            call()
