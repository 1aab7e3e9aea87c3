"""Separation metrics against their closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from fourfold.modalities.audio.mel import LogMel
from fourfold.modalities.audio.metrics import (
    log_spectral_distance,
    oracle_ratio_mask,
    sdr,
    separation_scores,
    si_sdr,
    summarize,
)

FRONT = LogMel()


def orthogonal(length=8000):
    """Two zero-mean sounds of equal energy without correlation."""
    t = torch.arange(length) / length
    return torch.sin(2 * math.pi * 50 * t), torch.sin(2 * math.pi * 80 * t)


def test_ratios_in_closed_form():
    s, n = orthogonal()
    assert si_sdr(3 * (s + 0.1 * n), s) == pytest.approx(20, abs=1e-3)
    assert sdr(s + 0.1 * n, s) == pytest.approx(20, abs=1e-3)
    assert sdr(2 * s, s) == pytest.approx(0, abs=1e-3)
    assert si_sdr(s + 5.0, s) > 60


def test_improvements():
    s, n = orthogonal()
    scores = separation_scores((s + 0.1 * n)[None], s[None], (s + n)[None], FRONT)
    assert scores["si_sdri"] == pytest.approx(20, abs=1e-3)
    assert scores["sdri"] == pytest.approx(20, abs=1e-3)
    assert scores["attenuation"].isnan().all()


def test_spectral_distance_of_a_gain():
    wave = torch.randn(2, 8000)
    distance = log_spectral_distance(0.5 * wave, wave, FRONT)
    assert distance.tolist() == pytest.approx([20 * math.log10(2)] * 2, rel=1e-3)
    assert log_spectral_distance(wave, wave, FRONT).max() == 0


def test_silent_targets():
    mixture = torch.randn(1, 8000)
    scores = separation_scores(0.1 * mixture, torch.zeros(1, 8000), mixture, FRONT)
    assert scores["attenuation"] == pytest.approx(20, abs=1e-3)
    assert all(scores[name].isnan().all() for name in ("si_sdr", "si_sdri", "sdr", "sdri", "lsd"))
    perfect = separation_scores(torch.zeros(1, 8000), torch.zeros(1, 8000), mixture, FRONT)
    assert perfect["attenuation"] > 100


def test_no_sample_wise_scores_for_vocoders():
    wave = torch.randn(1, 8000)
    assert separation_scores(wave, wave, wave, FRONT, aligned=False).keys() == {"lsd", "attenuation"}


def test_summary():
    values = torch.tensor([1.0, -2.0, 4.0, math.nan])
    summary = summarize({"si_sdri": values, "lsd": values.abs(), "attenuation": torch.tensor([math.nan])})
    assert summary == pytest.approx({"si_sdri": 1.0, "si_sdri_median": 1.0, "improved": 2 / 3, "lsd": 7 / 3})


def test_oracle_mask():
    t = torch.arange(16_000) / 16_000
    low, high = 0.3 * torch.sin(2 * math.pi * 300 * t), 0.3 * torch.sin(2 * math.pi * 3000 * t)
    estimate = oracle_ratio_mask(low[None], (low + high)[None], FRONT)
    assert si_sdr(estimate, low[None]) > 25
