"""The published vocoder: layout, filters, lengths, weight norm."""

from __future__ import annotations

import json
import math

import pytest
import torch
import torch.nn.functional as F

from fourfold.modalities.audio.bigvgan import BigVGAN, fold_weight_norm, kaiser_sinc, split_weight_norm


def small():
    torch.manual_seed(1)
    return BigVGAN(num_bands=8, channels=32, kernels=(3, 5), dilations=(1, 3)).eval()


def table(shared, name):
    return {key: tuple(shape) for key, (shape, _) in json.loads((shared / "golden/flowsep" / name).read_text()).items()}


def shapes(state):
    return {key: tuple(value.shape) for key, value in state.items()}


def test_published_layout(shared):
    with torch.device("meta"):
        model = BigVGAN()
    assert shapes(model.state_dict()) == table(shared, "keys_bigvgan_plain.json")
    assert shapes(split_weight_norm(model.state_dict())) == table(shared, "keys_bigvgan_with_weight_norm.json")
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 3) == 13.954


def test_weight_norm_round_trip():
    state = small().state_dict()
    split = split_weight_norm(state)
    split["ups.0.0.weight_v"] = 3 * split["ups.0.0.weight_v"]
    folded = fold_weight_norm(split)
    assert folded.keys() == state.keys()
    assert all(torch.allclose(folded[key], state[key], atol=1e-7) for key in state)
    assert all(torch.equal(a, b) for a, b in zip(fold_weight_norm(state).values(), state.values(), strict=True))


@pytest.mark.parametrize("half", ["weight_g", "weight_v"])
def test_half_a_pair_is_an_error(half):
    split = split_weight_norm(small().state_dict())
    del split[f"conv_pre.{half}"]
    with pytest.raises(ValueError, match=r"conv_pre.* has no partner"):
        fold_weight_norm(split)


def test_equals_torchs_weight_norm():
    conv = torch.nn.utils.parametrizations.weight_norm(torch.nn.ConvTranspose1d(4, 3, 5))
    with torch.no_grad():
        conv.parametrizations.weight.original0.mul_(1.7)
    state = conv.state_dict()
    folded = fold_weight_norm(
        {
            "weight.weight_g": state["parametrizations.weight.original0"],
            "weight.weight_v": state["parametrizations.weight.original1"],
        }
    )
    assert torch.allclose(folded["weight.weight"], conv.weight)


def test_overhang():
    with torch.device("meta"):
        model = BigVGAN()
        assert model.hop_length == 160
        assert model.overhang == 32
        assert model(torch.empty(1, 64, 1024)).shape == (1, 1, 163_872)
        assert model.waveform(torch.empty(1, 1024, 64)).shape == (1, 163_840)
    even = BigVGAN(num_bands=4, upsample_rates=(4, 2), upsample_kernels=(8, 4), channels=8)
    assert even.overhang == 0
    assert even(torch.zeros(1, 4, 10)).shape == (1, 1, 80)


def test_overhang_is_cut_evenly():
    model = small()
    log_mel = torch.randn(1, 9, 8)
    with torch.no_grad():
        whole, cut = model(log_mel.transpose(1, 2))[:, 0], model.waveform(log_mel)
    assert torch.equal(cut, whole[:, 16:-16])


def test_kaiser_sinc_is_a_half_band_filter():
    taps = kaiser_sinc().double()
    assert taps.sum() == pytest.approx(1)
    assert torch.equal(taps, taps.flip(0))
    response = torch.fft.rfft(taps, 4096).abs()
    assert response[: int(4096 * 0.05)].min() > 0.9
    assert response[int(4096 * 0.45) :].max() < 0.02


def test_resampling_inside_the_activation():
    """At low frequencies up- and downsampling undo each other, in place and without shift."""
    activation = small().activation_post
    x = torch.sin(2 * math.pi * 0.02 * torch.arange(400.0))[None, None]
    up = activation.upsample(x)
    assert up.shape == (1, 1, 800)
    assert torch.allclose(activation.downsample(up)[..., 20:-20], x[..., 20:-20], atol=5e-3)
    # The textbook form: insert zeros, filter with replicated edges, times two.
    stuffed = torch.zeros(1, 1, 820)
    stuffed[..., ::2] = F.pad(x, (5, 5), mode="replicate")
    expected = 2 * F.conv1d(F.pad(stuffed, (11, 11)), activation.upsample.filter)[..., 15 : 15 + 800]
    assert torch.allclose(up, expected, atol=1e-5)


def test_snake():
    act = small().activation_post.act
    with torch.no_grad():
        act.alpha.fill_(math.log(2.0))
        act.beta.fill_(math.log(4.0))
    x = torch.randn(1, 1, 7)
    assert torch.allclose(act(x), x + torch.sin(2 * x) ** 2 / 4, atol=1e-6)


def test_gradients_reach_every_parameter():
    model = small()
    model.waveform(torch.randn(2, 6, 8)).square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_config_round_trip():
    model = small()
    assert shapes(BigVGAN(**json.loads(json.dumps(model.config()))).state_dict()) == shapes(model.state_dict())


def test_bad_settings():
    with pytest.raises(ValueError, match="upsample_kernels"):
        BigVGAN(upsample_rates=(5, 4), upsample_kernels=(4, 4))
    with pytest.raises(ValueError, match="divisible"):
        BigVGAN(channels=48)
    with pytest.raises(ValueError, match=r"\(B, T, 8\)"):
        small().waveform(torch.zeros(1, 8, 9))
