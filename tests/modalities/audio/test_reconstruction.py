"""Back from mel spectrograms to samples: exact cases, alignment, levels."""

from __future__ import annotations

import math

import pytest
import torch

from fourfold.modalities.audio.band_mask import BandMask
from fourfold.modalities.audio.bigvgan import BigVGAN
from fourfold.modalities.audio.files import resample
from fourfold.modalities.audio.mel import LogMel, MelSettings, band_centres
from fourfold.modalities.audio.reconstruction import GriffinLim, MixturePhaseMask, Vocoder, band_ratio
from fourfold.modalities.audio.torchaudio_compat import torchaudio

FRONT = LogMel()
RATE = 16_000


def tone(frequency, length=16_000, level=0.3):
    return level * torch.sin(2 * math.pi * frequency * torch.arange(length) / RATE)


def test_the_mixture_estimates_itself():
    mixture = torch.randn(2, 2, 12_345) * 0.1
    mono = mixture.mean(1)
    estimate = MixturePhaseMask(FRONT)(FRONT(mono), mixture)
    assert estimate.shape == mixture.shape
    # The last frame repeats the one before, so the end may be attenuated.
    assert torch.allclose(estimate[..., :11_000], mixture[..., :11_000], atol=1e-5)


def test_constant_attenuation_is_exact():
    mixture = torch.randn(1, 1, 16_000) * 0.1
    log_mel = FRONT.from_spectrum(FRONT.spectrum(mixture[:, 0]))[:, :100] + math.log(0.25)
    estimate = MixturePhaseMask(FRONT)(log_mel, mixture)
    assert torch.allclose(estimate[..., :15_000], 0.25 * mixture[..., :15_000], atol=1e-5)


def test_separates_two_tones_in_time_level_and_stereo():
    low, high = tone(300), tone(3000, level=0.2)
    left, right = low + high, 0.5 * low - 0.2 * high
    mixture = torch.stack([left, right])[None]
    # The estimate of a sound panned like the mono mix: (1 + 0.5) / 2 of it.
    log_mel = FRONT(0.75 * low[None])
    estimate = MixturePhaseMask(FRONT)(log_mel, mixture)
    middle = slice(1000, -1000)
    assert (estimate[0, 0] - low)[middle].abs().max() < 0.01
    assert (estimate[0, 1] - 0.5 * low)[middle].abs().max() < 0.01
    residual = mixture - estimate
    assert (residual[0, 0] - high)[middle].abs().max() < 0.01


def test_silent_estimate_and_silent_mixture():
    mask = MixturePhaseMask(FRONT)
    mixture = tone(500)[None, None]
    quiet = mask(torch.full((1, 100, 64), FRONT.settings.silence), mixture)
    # The floor of the estimate against a loud mixture: at most 1e-5 over the tone's own band.
    assert quiet.abs().max() < 1e-3 * mixture.abs().max() + 1e-4
    assert not mask(torch.zeros(1, 100, 64), torch.zeros(1, 1, 16_000)).any()


def test_ratios_never_amplify():
    ratio = band_ratio(torch.full((1, 3, 4), 2.0), torch.zeros(1, 5, 4))
    assert ratio.shape == (1, 5, 4)
    assert (ratio == 1).all()


def test_griffin_lim_is_torchaudios_from_the_same_phase():
    settings = MelSettings(n_fft=512, hop_length=128, num_bands=40)
    front = LogMel(settings)
    spectrum = front.spectrum(torch.randn(1, 4096))
    magnitude = spectrum.abs()
    ours = GriffinLim(front, 8).iterate(magnitude, torch.ones_like(spectrum), 4096)
    theirs = torchaudio.functional.griffinlim(
        magnitude.transpose(1, 2),
        window=front.window,
        n_fft=512,
        hop_length=128,
        win_length=512,
        power=1.0,
        n_iter=8,
        momentum=0.99,
        length=4096,
        rand_init=False,
    )
    assert torch.allclose(ours, theirs, atol=1e-4 * float(theirs.abs().max()))


def test_griffin_lim_reaches_the_mel_bands():
    wave = (tone(440) + tone(1000) + 0.01 * torch.randn(16_000))[None]
    log_mel = FRONT(wave)
    griffin_lim = GriffinLim(FRONT, 16)
    reached = (griffin_lim.magnitude(log_mel) @ FRONT.filters).log()
    assert (reached - log_mel).abs().mean() < 0.05
    out = griffin_lim(log_mel, torch.stack([wave, wave], 1)[0][None])
    assert out.shape == (1, 2, 16_000)
    assert torch.equal(out[0, 0], out[0, 1])
    assert (FRONT(out[:, 0]) - log_mel)[:, 5:-5].abs().mean() < 0.5
    assert torch.equal(out, griffin_lim(log_mel, torch.stack([wave, wave], 1)[0][None]))


@pytest.mark.parametrize("rate", [44_100, 22_050, 48_000, 11_025])
def test_the_mask_works_at_the_mixtures_own_rate(rate):
    length = rate
    at = torch.arange(length) / rate
    low, high = (0.2 * torch.sin(2 * math.pi * f * at) for f in (500, 0.45 * rate))
    heard = resample((low + high)[None], rate, RATE)
    silent_below = torch.full((1, 100, 64), FRONT.settings.silence)
    # A tone that is wanted, with everything at and above the highest band; then that alone.
    whole = MixturePhaseMask(FRONT)(FRONT(heard), (low + high)[None, None], heard, rate)[0, 0]
    middle = slice(length // 10, -length // 10)
    assert (whole - low - high)[middle].abs().max() < 1e-5
    top = silent_below.clone()
    top[..., -40:] = FRONT(heard)[..., -40:]
    estimate = MixturePhaseMask(FRONT)(top, (low + high)[None, None], heard, rate)[0, 0]
    assert (estimate - high)[middle].abs().max() < 2e-3


@pytest.mark.parametrize("rate", [44_100, 22_050])
def test_masks_of_all_rates_agree_in_time_and_frequency(rate):
    generator = torch.Generator().manual_seed(0)
    slow = resample(0.1 * torch.randn(1, 12_000, generator=generator), 12_000, RATE)
    gains = torch.rand(1, slow.shape[-1] // 160 // 10 + 2, 64, generator=generator)
    gains = torch.nn.functional.interpolate(gains.mT, size=slow.shape[-1] // 160 + 1, mode="linear").mT
    expected = BandMask(FRONT)(gains, slow[:, None])[0, 0]
    native = BandMask(FRONT, rate)(gains, resample(slow, RATE, rate)[:, None])
    error = (resample(native, rate, RATE)[0, 0] - expected)[1000:-1000]
    assert float(error.square().mean()) < 1e-4 * float(expected.square().mean())


def test_centres_of_bands_are_the_peaks_of_the_triangles():
    for settings in (MelSettings(), MelSettings(f_min=50, num_bands=20, f_max=7000)):
        fine = MelSettings(**{**LogMel(settings).config(), "n_fft": 32_768})
        peaks = LogMel(fine).filters.argmax(0) * fine.sample_rate / fine.n_fft
        torch.testing.assert_close(torch.from_numpy(band_centres(settings)), peaks.double(), atol=0.5, rtol=0)


def test_renderings_keep_the_levels_of_channels():
    generator = torch.Generator().manual_seed(0)
    left = tone(440) + 0.01 * torch.randn(16_000, generator=generator)
    mixture = torch.stack([left, 0.5 * left])[None]
    front = LogMel(MelSettings(num_bands=16))
    vocoder = Vocoder(front, BigVGAN(num_bands=16, channels=32, kernels=(3,), dilations=(1,)).eval())
    for render in (GriffinLim(front, 2), vocoder):
        with torch.no_grad():
            out = render(front(mixture.mean(1)), mixture)
        torch.testing.assert_close(out[0, 1], 0.5 * out[0, 0], rtol=1e-3, atol=1e-6)
    with torch.no_grad():
        mono = vocoder(front(mixture.mean(1)), mixture.mean(1, keepdim=True))
    torch.testing.assert_close(out[:, 0], mono[:, 0] / 0.75, rtol=1e-3, atol=1e-6)


def test_vocoder_lengths():
    front = LogMel(MelSettings(num_bands=16))
    generator = BigVGAN(num_bands=16, channels=32, kernels=(3,), dilations=(1,)).eval()
    vocoder = Vocoder(front, generator)
    mixture = torch.randn(1, 2, 2000)
    with torch.no_grad():
        out = vocoder(front(mixture.mean(1)), mixture)
    assert out.shape == (1, 2, 2000)
    with pytest.raises(ValueError, match="16 bands every 160 samples, the front end gives 64"):
        Vocoder(FRONT, generator)


def test_what_is_aligned():
    assert MixturePhaseMask.aligned
    assert not GriffinLim.aligned
    assert not Vocoder.aligned


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"expected \(1, 100, 64\)"):
        MixturePhaseMask(FRONT)(torch.zeros(1, 99, 64), torch.zeros(1, 1, 16_000))
    with pytest.raises(ValueError, match=r"\(B, channels, L\)"):
        MixturePhaseMask(FRONT)(torch.zeros(1, 100, 64), torch.zeros(1, 16_000))
    with pytest.raises(ValueError, match="momentum"):
        GriffinLim(FRONT, momentum=1.0)
