"""Sound files: formats, rates, depths, levels, and what is wrong with bad ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
import soundfile
import torch

from fourfold.modalities.audio.files import (
    AudioFileError,
    Recording,
    clipped_share,
    read_audio,
    resample,
    write_audio,
)


def tone(rate, seconds=0.5, frequency=440.0, level=0.3):
    return level * torch.sin(2 * math.pi * frequency * torch.arange(round(rate * seconds)) / rate)


@pytest.mark.parametrize(("suffix", "tolerance"), [(".wav", 1e-6), (".flac", 1e-6), (".ogg", 0.03), (".mp3", 0.03)])
def test_round_trip_of_stereo(tmp_path, suffix, tolerance):
    samples = torch.stack([tone(44_100), tone(44_100, frequency=880, level=0.1)])
    path = write_audio(tmp_path / f"a{suffix}", samples, 44_100)
    back = read_audio(path)
    assert back.sample_rate == 44_100
    assert back.samples.shape[0] == 2
    assert (back.samples[:, 4000:18_000] - samples[:, 4000:18_000]).abs().max() < tolerance
    assert list(tmp_path.iterdir()) == [path]


def test_long_vorbis_files(tmp_path):
    path = write_audio(tmp_path / "long.ogg", torch.randn(500_000) * 0.1, 16_000)
    assert read_audio(path).samples.shape == (1, 500_000)


@pytest.mark.parametrize(("subtype", "tolerance"), [("PCM_U8", 0.01), ("PCM_16", 1e-4), ("DOUBLE", 1e-6)])
@pytest.mark.parametrize("rate", [8000, 96_000])
def test_depths_and_rates(tmp_path, subtype, tolerance, rate):
    soundfile.write(tmp_path / "a.wav", tone(rate).numpy(), rate, subtype=subtype)
    back = read_audio(tmp_path / "a.wav", sample_rate=16_000)
    assert back.samples.shape == (1, 8000)
    assert (back.samples[0, 500:-500] - tone(16_000)[500:-500]).abs().max() < tolerance + 1e-3


@pytest.mark.parametrize(("source", "target"), [(44_100, 16_000), (16_000, 22_050), (44_101, 16_000), (11_025, 16_000)])
def test_resampling_keeps_a_tone(source, target):
    out = resample(tone(source)[None], source, target)
    expected = tone(target)
    assert out.shape == (1, math.ceil(round(source * 0.5) * target / source))
    n = min(len(expected), out.shape[1])
    assert (out[0, 500 : n - 500] - expected[500 : n - 500]).abs().max() < 1e-3


@pytest.mark.parametrize("source", [44_100, 44_101])
def test_resampling_removes_what_would_alias(source):
    out = resample(tone(source, frequency=12_000, level=1.0)[None], source, 16_000)
    assert out[0, 500:-500].abs().max() < 1e-2


def test_level_and_mono(tmp_path):
    path = write_audio(tmp_path / "a.wav", torch.stack([tone(16_000, level=0.2), tone(16_000, level=0.4)]), 16_000)
    assert read_audio(path, mono=True).samples.abs().max() == pytest.approx(0.3, abs=1e-3)


def test_parts_of_a_file(tmp_path):
    path = write_audio(tmp_path / "a.wav", torch.linspace(0, 0.9, 16_000), 16_000)
    part = read_audio(path, start=0.25, seconds=0.5)
    assert part.seconds == 0.5
    assert torch.allclose(part.samples[0], torch.linspace(0, 0.9, 16_000)[4000:12_000], atol=1e-6)
    with pytest.raises(AudioFileError, match="no samples after 2 s"):
        read_audio(path, start=2)


def test_loud_results_are_not_clipped(tmp_path):
    loud = torch.tensor([[0.0, 1.5, -2.0]])
    assert torch.equal(read_audio(write_audio(tmp_path / "a.wav", loud, 8000)).samples, loud)
    with pytest.raises(ValueError, match=r"would clip, the peak is 2\.000"):
        write_audio(tmp_path / "a.flac", loud, 8000)
    assert not (tmp_path / "a.flac").exists()


def test_nothing_is_overwritten(tmp_path):
    path = write_audio(tmp_path / "a.wav", tone(8000), 8000)
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="force"):
        write_audio(path, tone(8000, level=0.1), 8000)
    assert path.read_bytes() == before
    write_audio(path, tone(8000, level=0.1), 8000, force=True)
    assert path.read_bytes() != before


def test_bad_files(tmp_path):
    (tmp_path / "text.wav").write_text("no sound")
    (tmp_path / "empty.mp3").write_bytes(b"")
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 8000)
    values = np.zeros(800, dtype=np.float32)
    values[400] = np.nan
    soundfile.write(tmp_path / "nan.wav", values, 8000, subtype="FLOAT")
    for name, message in {
        "missing.wav": "no such file",
        "text.wav": "not a sound file",
        "empty.mp3": "not a sound file",
        "none.wav": "holds no samples",
        "nan.wav": r"1 of 800 samples are NaN or infinite, the first at 0\.050 s",
    }.items():
        with pytest.raises(AudioFileError, match=message) as info:
            read_audio(tmp_path / name)
        assert name in str(info.value)


def test_bad_output(tmp_path):
    for samples, name, message in [
        (torch.zeros(0), "a.wav", "nothing to write"),
        (torch.tensor([math.nan]), "a.wav", "NaN"),
        (torch.zeros(4), "a.xyz", "unknown extension"),
    ]:
        with pytest.raises(ValueError, match=message):
            write_audio(tmp_path / name, samples, 8000)
    with pytest.raises(ValueError, match="cannot be written at 8001 Hz"):
        write_audio(tmp_path / "a.mp3", torch.zeros(8000), 8001)
    assert list(tmp_path.iterdir()) == []


def test_recordings_check_themselves():
    with pytest.raises(ValueError, match=r"\(channels, length\)"):
        Recording(torch.zeros(5), 8000)
    with pytest.raises(ValueError, match="sample_rate"):
        Recording(torch.zeros(1, 5), 0)


def test_clipping():
    assert clipped_share(torch.tensor([0.0, 1.0, -1.0, 0.5])) == 0.5
    assert clipped_share(torch.zeros(0)) == 0
