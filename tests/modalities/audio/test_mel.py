"""The log-mel front end against its closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fourfold.modalities.audio.mel import LogMel, MelSettings, to_peak

RATE = 16_000


def slaney(f):
    f = np.asarray(f, dtype=float)
    return np.where(f < 1000, f / (200 / 3), 15 + 27 * np.log(np.maximum(f, 1e-9) / 1000) / math.log(6.4))


def hertz(mel):
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * math.log(6.4) / 27))


def test_filters_are_slaney_triangles():
    filters = LogMel().filters.double().numpy()
    edges = hertz(np.linspace(slaney(0), slaney(8000), 66))
    f = np.arange(513) * RATE / 1024
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    rise = (f[:, None] - lower) / (centre - lower)
    fall = (upper - f[:, None]) / (upper - centre)
    expected = np.maximum(0, np.minimum(rise, fall)) * 2 / (upper - lower)
    assert np.abs(filters - expected).max() < 1e-6
    # The published numbers of the front end.
    assert filters.sum(0) == pytest.approx(np.full(64, 0.0640), abs=1.5e-3)
    assert filters.max() == pytest.approx(0.02133, abs=1e-5)


def test_equals_the_direct_sum():
    wave = torch.randn(2000, dtype=torch.float64) * 0.1
    settings = MelSettings(n_fft=256, hop_length=64, num_bands=20)
    mel = LogMel(settings)
    padded = np.pad(wave.numpy(), 128, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(256) / 256)
    frames = np.stack([padded[i * 64 : i * 64 + 256] * window for i in range(2000 // 64)])
    magnitude = np.abs(np.fft.rfft(frames))
    expected = np.log(np.maximum(magnitude @ mel.filters.double().numpy(), 1e-5))
    assert np.abs(mel(wave).numpy() - expected).max() < 1e-6


def test_published_shape_and_silence():
    mel = LogMel()(torch.zeros(2, 163_840))
    assert mel.shape == (2, 1024, 64)
    assert torch.allclose(mel, torch.tensor(-11.5129), atol=1e-4)
    assert MelSettings().silence == pytest.approx(-11.5129, abs=1e-4)


def test_a_tone_lies_in_its_band():
    t = torch.arange(RATE) / RATE
    centres = hertz(np.linspace(slaney(0), slaney(8000), 66))[1:-1]
    for band in (5, 30, 60):
        mel = LogMel()(torch.sin(2 * math.pi * float(centres[band]) * t))
        assert int(mel[10:-10].mean(0).argmax()) == band


def test_level_is_additive_in_the_log_domain():
    wave = torch.randn(8000)
    quiet = LogMel()(0.1 * wave)
    assert torch.allclose(LogMel()(wave) + math.log(0.1), quiet, atol=1e-4)


def test_spectrum_and_back():
    wave = torch.randn(2, 3, 5000)
    front = LogMel()
    spectrum = front.spectrum(wave)
    assert spectrum.shape == (2, 3, 1 + 5000 // 160, 513)
    assert torch.allclose(front.waveform(spectrum, 5000), wave, atol=1e-5)


def test_interpolation_to_bins():
    front = LogMel()
    constant = front.to_bins(torch.full((4, 64), 0.3))
    assert torch.allclose(constant, torch.full((4, 513), 0.3), atol=1e-6)
    one = front.to_bins(torch.eye(64))
    # At a band's centre its value is kept; beyond the outer centres the outer bands go on.
    assert (one >= 0).all()
    assert one[0, 0] == 1
    assert one[-1, -1] == 1
    centres = front.filters.argmax(0)
    assert (one[torch.arange(64), centres] > 0.55).all()


def test_no_state():
    assert LogMel().state_dict() == {}
    assert LogMel(MelSettings(**LogMel().config())).settings == MelSettings()


def test_peak_level():
    wave = torch.randn(3, 1000) * torch.tensor([[0.01], [1.0], [30.0]]) + 0.2
    scaled, level = to_peak(wave)
    assert scaled.abs().amax(-1) == pytest.approx([0.5] * 3, abs=1e-4)
    assert torch.allclose(level.restore(scaled), wave - wave.mean(-1, keepdim=True), atol=1e-5)
    assert torch.allclose(level.apply(wave), scaled)
    silent, level = to_peak(torch.zeros(10))
    assert not silent.any()
    assert level.gain == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"f_max": 9000.0}, "f_max <= 8000"),
        ({"n_fft": 1023}, "even n_fft"),
        ({"hop_length": 600}, "hop_length"),
        ({"num_bands": 0}, "num_bands"),
        ({"floor": 0.0}, "floor"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        MelSettings(**settings)


def test_empty_bands_and_short_waves():
    with pytest.raises(ValueError, match="lower num_bands or raise n_fft"):
        LogMel(MelSettings(n_fft=128, hop_length=32))
    with pytest.raises(ValueError, match="pad to at least 513"):
        LogMel()(torch.zeros(512))
    assert LogMel()(torch.zeros(513)).shape == (3, 64)


def test_other_rates():
    front = LogMel(MelSettings(sample_rate=44_100, n_fft=2048, hop_length=441, num_bands=80, f_max=20_000))
    assert front(torch.randn(44_100)).shape == (100, 80)
