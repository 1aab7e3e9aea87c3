"""Autoencoder and vocoder to be trained: losses, statistics, the adversary, storage, and that they learn."""

import math
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from separators import FRONT, batch, randomized

from fourfold.core import NoiseSource
from fourfold.modalities.adapter import load
from fourfold.modalities.audio.mel_autoencoder import MelAutoencoder
from fourfold.modalities.audio.mel_vocoder import MelVocoder, multi_resolution_distance
from fourfold.modalities.audio.patch_gan import (
    PatchDiscriminator,
    adaptive_weight,
    discriminator_loss,
    generator_loss,
)

VAE = {"channels": 8, "multipliers": [1, 2], "num_res_blocks": 1, "norm_groups": 4, "latent_channels": 4}
GENERATOR = {
    "num_bands": 16,
    "upsample_rates": [5, 4, 2, 2],
    "upsample_kernels": [10, 8, 4, 4],
    "channels": 32,
    "kernels": [3],
    "dilations": [1],
}


def autoencoder(**options):
    return MelAutoencoder(VAE, FRONT, seconds=0.32, center=-6.0, scale=3.0, **options)


def vocoder():
    return MelVocoder(GENERATOR, FRONT, seconds=0.32, windows=[64, 128])


def train(model, steps, rate=3e-3):
    data, losses = batch(4, 2560), []
    data.queries = ("x",) * 4
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    for _ in range(steps):
        loss = model.train().loss(data, NoiseSource(0, range(len(data)))).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"loss": "multi-resolution", "loudness_power": 0.5},
        {"adversarial_weight": 0.1},
        {"mask_weight": 0.1, "first_std": 0.1},
    ],
)
def test_autoencoder_learns_and_knows_its_latents(options):
    torch.manual_seed(0)
    model = autoencoder(**options)
    losses = train(model, 40)
    assert losses[-1] < 0.8 * losses[0]
    statistics = model.latents.statistics
    assert (statistics.std > 0).all()
    latent = model.latents.vae.encode((model.front(batch().mixture) + 6) / 3).mean
    assert float((statistics.mean - latent.detach().mean((0, 2, 3))).abs().max()) < 3 * float(latent.detach().std())


def test_autoencoder_sees_mixtures_and_targets():
    model = autoencoder().eval()
    data, other = batch(2), batch(2)
    other.target = 2 * other.target
    noise = NoiseSource(0, [0, 1])
    a, b = model.loss(data, noise), model.loss(other, noise)
    assert a[0] == b[0]
    assert a[1] != b[1]


def test_what_a_mask_would_lose():
    # Sound and mixture the same, no noise: nothing is lost but the floor, and both count half.
    torch.manual_seed(0)
    model, data, noise = autoencoder(mask_weight=0.5, first_std=1e-9).eval(), batch(2), NoiseSource(0, [0, 2])
    data.target = data.mixture
    mask_loss = model.loss(data, noise)
    model.mask_weight = 0.0
    torch.testing.assert_close(mask_loss, model.loss(data, noise) + 0.5 * math.log(1e-5), rtol=0, atol=1e-4)
    # A mixture twice as loud everywhere, reconstructed as if it were the sound: the mask keeps it all.
    model.mask_weight = 0.5
    model.latents.vae.decode = lambda latent: torch.zeros(len(latent), *model.front(data.mixture).shape[1:])
    data.target = data.mixture / 2
    model._error = lambda rebuilt, normal, weights: torch.zeros(len(rebuilt))
    model.kl_weight = 0.0
    torch.testing.assert_close(model.loss(data, noise), torch.zeros(2), rtol=0, atol=1e-2)


def test_what_a_mask_would_lose_is_the_difference_of_both_reconstructions():
    model, data, noise = autoencoder(mask_weight=0.5, kl_weight=0.0).eval(), batch(2), NoiseSource(0, [0, 2])
    model._error = lambda rebuilt, normal, weights: torch.zeros(len(rebuilt))
    data.target = data.mixture / 2
    shape, drop = model.front(data.mixture).shape[1:], math.log(2) / 3

    def rebuilt(change):
        # Targets come first; log-mels are divided by 3.
        return lambda latent: torch.tensor([change, change, 0.0, 0.0])[:, None, None].expand(-1, *shape)

    model.latents.vae.decode = rebuilt(-drop)
    torch.testing.assert_close(model.loss(data, noise), torch.full((2,), 0.5 * math.log(1e-5)), rtol=0, atol=0.1)
    # Louder than the mixture is as loud as the mixture: twice the target.
    model.latents.vae.decode = rebuilt(+drop)
    torch.testing.assert_close(model.loss(data, noise), torch.zeros(2), rtol=0, atol=1e-2)


def test_posteriors_begin_as_narrow_as_asked():
    torch.manual_seed(0)
    log_mel = torch.randn(2, 16, 16)
    torch.manual_seed(1)
    wide = autoencoder().latents.vae.encode(log_mel)
    torch.manual_seed(1)
    narrow = autoencoder(first_std=0.05).latents.vae.encode(log_mel)
    assert torch.equal(wide.mean, narrow.mean)
    torch.testing.assert_close(narrow.logvar - wide.logvar, torch.full_like(wide.logvar, 2 * math.log(0.05)))


def test_only_training_moves_the_statistics():
    model = autoencoder().eval()
    before = model.latents.statistics.mean.clone()
    model.loss(batch(), NoiseSource(0, range(3)))
    assert torch.equal(before, model.latents.statistics.mean)


def test_the_game_s_two_gradients_stay_apart():
    torch.manual_seed(0)
    judge = PatchDiscriminator(8, 2)
    made, real = torch.randn(2, 16, 16, requires_grad=True), torch.randn(2, 16, 16)
    generator_loss(judge, made).sum().backward()
    assert made.grad is not None
    assert made.grad.any()
    assert all(p.grad is None for p in judge.parameters())
    made.grad = None
    discriminator_loss(judge, real, made).sum().backward()
    assert made.grad is None
    assert all(p.grad is not None for p in judge.parameters())
    torch.testing.assert_close(generator_loss(judge, made), -judge(made).flatten(1).mean(1))


def test_adaptive_weight_balances_the_gradients():
    w = torch.tensor([1.0, 2.0], requires_grad=True)
    ratio = adaptive_weight((3 * w).sum(), (0.5 * w).sum(), w)
    assert float(ratio) == pytest.approx(6.0, rel=1e-3)
    assert not ratio.requires_grad


def test_vocoder_learns():
    torch.manual_seed(0)
    losses = train(vocoder(), 15)
    assert losses[-1] < 0.8 * losses[0]


def test_what_is_far_below_the_loudest_bin_counts_as_equal():
    torch.manual_seed(0)
    model, data, noise = vocoder().eval(), batch(2), NoiseSource(0, [1, 3])
    quiet = 1e-4 * data.target
    model.generator.waveform = lambda log_mel: quiet
    spectral = multi_resolution_distance(quiet, data.target, model.windows)
    published = model.loss(data, noise) - spectral
    ours, truth = model.front(quiet), model.front(data.target)
    torch.testing.assert_close(published, 45 * (truth - ours).abs().flatten(1).mean(1))
    # Estimates 80 dB down lie below a floor of 20 dB everywhere: what is left is the truth above that floor.
    model.dynamic_range = 20.0
    floor = truth.amax((1, 2), keepdim=True) - math.log(10)
    expected = 45 * (truth - floor).clamp(min=0).flatten(1).mean(1)
    torch.testing.assert_close(model.loss(data, noise) - spectral, expected, rtol=1e-4, atol=1e-3)


def test_multi_resolution_distance():
    wave = torch.randn(2, 1000)
    assert float(multi_resolution_distance(wave, wave, (64, 128)).abs().max()) == 0
    # Half the amplitude: convergence 1/2, logarithm of 2, whatever the window.
    half = multi_resolution_distance(wave / 2, wave, (64,))
    torch.testing.assert_close(half, torch.full((2,), 0.5 + 0.6931), atol=1e-3, rtol=0)


@pytest.mark.parametrize("make", [autoencoder, vocoder])
def test_storage(make, tmp_path):
    model = randomized(make())
    again = load(model.save(tmp_path / "m"))
    assert again.config() == model.config()
    mel = model.front(batch().target)
    assert torch.equal(again.sample(mel), model.sample(mel))


def test_bad_settings():
    for options in ({"loss": "l2"}, {"kl_weight": -1.0}, {"mask_weight": -1.0}, {"first_std": 0.0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            autoencoder(**options)
    with pytest.raises(ValueError, match="every 40 samples"):
        MelVocoder({**GENERATOR, "upsample_rates": [5, 4, 2, 1]}, FRONT)
    with pytest.raises(ValueError, match="dynamic_range must be positive"):
        MelVocoder(GENERATOR, FRONT, dynamic_range=0.0)
