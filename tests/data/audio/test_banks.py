"""Banks of sounds: synthetic events, folders, tables, captions, ESC."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import soundfile
import torch

from fourfold.data.audio import (
    EVENTS,
    MixingSettings,
    Mixtures,
    SyntheticEvents,
    dataset_names,
    load_captions,
    load_dataset,
    load_folder,
    load_table,
)
from fourfold.data.audio import clips as clips_module
from fourfold.data.audio.bank import UnusableSound
from fourfold.data.audio.clips import Clip, ClipBank, crop_start, inspect_clips, one_per_file, split_clips
from fourfold.data.audio.esc import ARCHIVE, load_esc
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

    def test_entries_of_a_file_are_joined(self, tmp_path):
        (tmp_path / "b.wav").symlink_to(sound(tmp_path / "a.wav"))
        clips = [
            Clip(tmp_path / "a.wav", frozenset("a"), ("one", "two"), "val"),
            Clip(tmp_path / "x" / ".." / "b.wav", frozenset("b"), ("two", "three"), "validation"),
            Clip(tmp_path / "c.wav", frozenset("c"), ("four",), "test"),
        ]
        joined = one_per_file(clips)
        assert [(clip.labels, clip.captions) for clip in joined] == [
            ({"a", "b"}, ("one", "two", "three")),
            ({"c"}, ("four",)),
        ]

    def test_split_of_captions(self, tmp_path):
        """A rare combination of words is as likely held out as a frequent one."""
        clips = [Clip(tmp_path / f"{i}.wav", frozenset((f"w{i}",)), ("x",)) for i in range(40)]
        clips += [Clip(tmp_path / f"same{i}.wav", frozenset(("w",)), ("x",)) for i in range(3)]
        assert [len(part) for part in split_clips(clips, labelled=False).values()] == [33, 5, 5]
        assert [len(part) for part in split_clips(clips).values()] == [41, 1, 1]


def damaged(folder):
    """One file per kind of damage that its header does not show, and a good one."""
    folder.mkdir(parents=True, exist_ok=True)
    good = sound(folder / "good.flac", 4)
    (folder / "cut.flac").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    wave = 0.1 * rng().standard_normal(4 * RATE)
    soundfile.write(folder / "opposed.wav", np.stack([wave, -wave], 1), RATE)
    wave[2 * RATE] = np.nan
    soundfile.write(folder / "nan.wav", wave, RATE, subtype="FLOAT")
    soundfile.write(folder / "silent.wav", np.zeros(RATE), RATE)
    return {path.stem: Clip(path, frozenset((path.stem,)), (path.stem,)) for path in folder.iterdir()}


class TestDamage:
    def test_found_before_training(self, tmp_path):
        clips = damaged(tmp_path)
        good, reasons = inspect_clips(clips.values())
        assert [clip.path.stem for clip in good] == ["good"]
        for name, reason in (("nan", "1 of 64000 samples are NaN"), ("cut", "not a sound file"), ("silent", "silent")):
            (found,) = (text for text in reasons if f"{name}." in text)
            assert reason in found
            assert found.count(str(tmp_path)) == 1
        for name in ("cut", "nan", "silent", "opposed"):
            with pytest.raises(DataError, match=f"{name}."):
                inspect_clips([clips[name]], on_error="raise")

    def test_large_sets_are_not_decoded(self, tmp_path, monkeypatch):
        monkeypatch.setattr(clips_module, "_DECODED_SECONDS", 10.0)
        good, reasons = inspect_clips(damaged(tmp_path).values())
        assert len(good) == 5
        assert not reasons

    @pytest.mark.parametrize("whole", [30.0, 1.0])
    def test_found_when_drawn(self, tmp_path, monkeypatch, whole):
        """Mixtures take other sounds and remain a function of seed and number, whatever was drawn before."""
        monkeypatch.setattr(clips_module, "_WHOLE_SECONDS", whole)
        clips = damaged(tmp_path)
        for name in ("a", "b"):
            clips[name] = Clip(sound(tmp_path / f"{name}.wav", 4), frozenset((name,)), (name,))
        settings = MixingSettings(seconds=0.5)
        banks = [ClipBank([clips[name] for name in sorted(clips)], RATE) for _ in range(2)]
        first, second = (Mixtures(bank, settings, seed=1) for bank in banks)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            made = [first[i] for i in range(60)]
        damage = [str(w.message) for w in caught]
        assert 2 <= len(damage) == len(set(damage)) <= 3
        assert all(text.endswith("; other sounds are taken instead") for text in damage)
        assert all(text.count(str(tmp_path)) == 1 for text in damage)
        used = {word for m in made for word in (m.query, *m.others)}
        assert {"a", "b", "good"} <= used <= {"a", "b", "good", *(["nan", "cut"] if whole == 1.0 else [])}
        with pytest.warns(match="other sounds"):
            again = [second[i] for i in reversed(range(60))][::-1]
        for m, n in zip(made, again, strict=True):
            assert np.array_equal(m.mixture, n.mixture)
            assert m.query == n.query

    def test_stops_where_asked_to(self, tmp_path):
        bank = ClipBank([damaged(tmp_path)["nan"]], RATE, on_error="raise")
        with pytest.raises(DataError, match=r"nan\.wav: 1 of 64000") as error:
            bank.draw(0, rng(), 100)
        assert not isinstance(error.value, UnusableSound)


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

    def test_several_captions_of_a_file_are_one_sound(self, tmp_path):
        names = ["dog barks", "rain pours", "bell rings", "engine idles", "cat meows"]
        items = []
        for i, letter in enumerate("abcdefghijkl"):
            sound(tmp_path / f"{i}.wav")
            items += [
                {"wav": f"{i}.wav", "caption": f"{name} {letter * 3} in {part}"}
                for name in names
                for part in ("a", "b")
            ]
        (tmp_path / "link").symlink_to(tmp_path)
        for item in items[::3]:
            item["wav"] = f"link/{item['wav']}"
        (tmp_path / "c.json").write_text(json.dumps(items))
        data = load_captions(tmp_path / "c.json", RATE)
        parts = [{clip.path.name for clip in bank.clips} for bank in (data.train, data.validation, data.test)]
        assert [len(part) for part in parts] == [8, 2, 2]
        assert len(set().union(*parts)) == 12
        assert len(data.train.captions(0)) == 10
        assert "12 clips" in data.protocol

    def test_a_file_belongs_to_one_split(self, tmp_path):
        sound(tmp_path / "0.wav")
        (tmp_path / "t.csv").write_text("file,label,split\n0.wav,dog,train\n./0.wav,cat,test\n")
        with pytest.raises(DataError, match=r"0\.wav: said to be in two splits, train and test"):
            load_table(tmp_path / "t.csv", RATE)

    def test_labels_and_captions_mixed(self, tmp_path):
        """Where not all rows have labels, words decide for all."""
        for i in range(6):
            sound(tmp_path / f"{i}.wav")
        rows = ["0.wav,,Dog bark,train", "1.wav,two dogs barking,,train", "2.wav,rain,,train"]
        rows += [f"{i}.wav,rain {i},dog,{part}" for i, part in ((3, "val"), (4, "test"))]
        (tmp_path / "t.csv").write_text("\n".join(["file,caption,label,split", *rows]))
        train = load_table(tmp_path / "t.csv", RATE).train
        assert train.labels(0) & train.labels(1)
        assert not train.labels(0) & train.labels(2)

    def test_numbers_and_other_languages(self, tmp_path):
        for i in range(6):
            sound(tmp_path / f"{i}.wav")

        def load(entries, **options):
            parts = ("train", "train", "validation", "validation", "test", "test")
            items = [
                {"wav": f"{i}.wav", "split": part, **e} for i, (e, part) in enumerate(zip(entries, parts, strict=True))
            ]
            (tmp_path / "c.json").write_text(json.dumps(items))
            return load_captions(tmp_path / "c.json", RATE, **options)

        data = load([{"labels": 0}, {"labels": [74, "rain"]}] * 3)
        assert [data.train.labels(i) for i in range(2)] == [{"0"}, {"74", "rain"}]
        data = load([{"caption": "犬が吠えている"}, {"caption": "雨の音"}] * 3)
        assert not data.train.labels(0) & data.train.labels(1)
        good = [{"caption": "a dog"}, {"caption": "rain"}]
        for entry, message in [
            ({"caption": 5}, r"entry 0: captions must be text, or a list of these, got 5"),
            ({"captions": ["a dog", None]}, r"captions must be text, or a list of these, got None"),
            ({"labels": {"a": 1}}, r"labels must be text or a number, or a list of these, got {'a': 1}"),
            ({"labels": True}, r"got True"),
            ({"caption": "with the 3"}, r"entry 0: no word of 'with the 3' says what is heard; give it a label"),
            ({}, r"entry 0: needs a caption or label"),
            ({"wav": 3, "caption": "a dog"}, r"entry 0: needs a file, got 3"),
        ]:
            with pytest.raises(DataError, match=message):
                load([entry, good[1], *good * 2], on_error="raise")
            assert len(load([entry, good[1], *good * 2]).skipped) == 1


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
