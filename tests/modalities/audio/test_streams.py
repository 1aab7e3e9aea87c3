"""Sound files part by part."""

import numpy as np
import pytest
import soundfile
import torch

from fourfold.modalities.audio.files import AudioFileError
from fourfold.modalities.audio.streams import AudioReader, AudioWriter


def write(path, values, rate=8000, **options):
    soundfile.write(path, values, rate, **options)
    return path


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg"])
def test_round_trip_in_parts(tmp_path, suffix):
    wave = 0.4 * torch.sin(torch.arange(9000) / 20).repeat(2, 1)
    path = tmp_path / f"a{suffix}"
    with AudioWriter(path, 8000, 2) as writer:
        for begin in range(0, 9000, 700):
            writer.write(wave[:, begin : begin + 700])
        assert not path.exists()
    with AudioReader(path) as reader:
        assert (reader.length, reader.channels, reader.sample_rate) == (9000, 2, 8000)
        part = reader.read(3000, 4000)
    torch.testing.assert_close(part, wave[:, 3000:4000], atol=0.05 if suffix == ".ogg" else 1e-4, rtol=0)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_nothing_is_left_of_a_file_that_failed(tmp_path):
    for name in ("a.flac", "a.wav", "a.ogg"):
        with pytest.raises(ValueError, match="NaN or infinite"), AudioWriter(tmp_path / name, 8000, 1) as writer:
            writer.write(torch.tensor([[0.1, float("nan")]]))
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_sounds_beyond_full_scale_keep_their_level(tmp_path, suffix):
    wave = torch.sin(torch.arange(200_000) / 7)[None] * torch.linspace(0, 1.5, 200_000)
    path = tmp_path / f"a{suffix}"
    with AudioWriter(path, 44_100, 1) as writer:
        for part in wave.split(90_000, 1):
            writer.write(part)
    assert writer.path == (tmp_path / "a.flac.wav" if suffix == ".flac" else path)
    assert list(tmp_path.iterdir()) == [writer.path]
    values = soundfile.read(writer.path, dtype="float32")[0]
    if suffix in (".wav", ".flac"):
        np.testing.assert_allclose(values, wave[0], atol=2e-7)
    assert np.abs(values).max() > 1.4
    if suffix == ".flac":
        with pytest.raises(FileExistsError, match=r"a\.flac\.wav exists"):
            AudioWriter(path, 44_100, 1)


def test_nothing_is_overwritten(tmp_path):
    path = write(tmp_path / "a.wav", np.zeros(10))
    with pytest.raises(FileExistsError, match="--force"):
        AudioWriter(path, 8000, 1)
    with AudioWriter(path, 8000, 1, force=True) as writer:
        writer.write(torch.ones(1, 3))
    assert len(soundfile.read(path)[0]) == 3
    with pytest.raises(ValueError, match="unknown extension"):
        AudioWriter(tmp_path / "a.txt", 8000, 1)
    with pytest.raises(ValueError, match="cannot be written at 12345 Hz"):
        AudioWriter(tmp_path / "a.mp3", 12345, 1)


def test_bad_files(tmp_path):
    (tmp_path / "text.wav").write_text("hello")
    for name, message in (("none.wav", "no such file"), ("text.wav", "not a sound file")):
        with pytest.raises(AudioFileError, match=message):
            AudioReader(tmp_path / name)
    with pytest.raises(AudioFileError, match="no samples"):
        AudioReader(write(tmp_path / "empty.wav", np.zeros(0)))
    values = np.zeros(100, np.float32)
    values[40] = np.nan
    path = write(tmp_path / "nan.wav", values, subtype="FLOAT")
    with AudioReader(path) as reader:
        reader.read(0, 40)
        with pytest.raises(AudioFileError, match=r"first at 0.005 s"):
            reader.read(20, 60)


def test_a_file_that_was_cut_off(tmp_path):
    rng = np.random.default_rng(0)
    path = write(tmp_path / "a.flac", 0.1 * rng.standard_normal(80_000))
    path.write_bytes(path.read_bytes()[:60_000])
    with AudioReader(path) as reader, pytest.raises(AudioFileError, match=r"a\.flac: .*damaged"):
        reader.read(70_000, 80_000)


@pytest.mark.parametrize(("subtype", "rate"), [("PCM_U8", 8000), ("PCM_16", 96000)])
def test_depths_and_rates(tmp_path, subtype, rate):
    with AudioReader(write(tmp_path / "a.wav", 0.5 * np.ones(100), rate, subtype=subtype)) as reader:
        assert reader.sample_rate == rate
        torch.testing.assert_close(reader.read(0, 100), torch.full((1, 100), 0.5), atol=0.01, rtol=0)


def test_clipped_samples_are_counted_once(tmp_path):
    values = np.zeros(100)
    values[10:20] = 1.0
    with AudioReader(write(tmp_path / "a.wav", values)) as reader:
        reader.read(0, 60)
        reader.read(0, 50)
        reader.read(50, 100)
        assert reader.clipped_share == pytest.approx(0.1)
