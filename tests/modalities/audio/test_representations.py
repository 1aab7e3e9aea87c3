"""States of log-mels: bounded, invertible within the bounds, never louder than the mixture."""

import pytest
import torch

from fourfold.modalities.audio.representations import LogRatioPatches, VAELatents, build_representation

VAE = {"channels": 8, "multipliers": [1, 2], "num_res_blocks": 1, "norm_groups": 4, "latent_channels": 3}


def mels():
    mixture = torch.rand(2, 16, 8) * 10 - 9
    return mixture, mixture + torch.rand(2, 16, 8) * 8 - 6


def test_log_ratio_is_bounded_and_inverted():
    r = LogRatioPatches((4, 2), depth=4.0)
    mixture, target = mels()
    x = r.encode(target, mixture)
    assert x.shape == (2, 8, 4, 4)
    assert x.shape == r.condition(mixture).shape == r.weights(mixture).shape
    assert float(x.min()) >= -1
    assert float(x.max()) <= 1
    decoded = r.decode(x, mixture)
    torch.testing.assert_close(decoded, torch.maximum(torch.minimum(target, mixture), mixture - 4.0))
    # A wild estimate stays within the mixture as well.
    wild = r.decode(5 * torch.randn_like(x), mixture)
    assert (wild <= mixture + 1e-6).all()
    assert (wild >= mixture - 4.0 - 1e-5).all()


def test_patches_keep_places():
    r = LogRatioPatches((4, 2))
    mixture = torch.zeros(1, 8, 4)
    target = mixture.clone()
    target[0, 5, 3] = -1.0
    x = r.encode(target, mixture)
    assert (x[0] != 1).nonzero().tolist() == [[1 * 2 + 1, 1, 1]]


def test_loud_bins_weigh_more():
    r = LogRatioPatches((1, 1), power=0.5, floor=0.05)
    mixture = torch.tensor([0.0, -4.0, -20.0]).reshape(1, 1, 3)
    torch.testing.assert_close(
        r.weights(mixture).flatten(), torch.tensor([1.05, 0.05 + 2.718281828**-2, 0.05 + 2.718281828**-10])
    )


def test_latents_are_whitened_modes_and_frozen():
    r = VAELatents(VAE, center=-6.0, scale=3.0)
    mixture, target = mels()
    r.statistics.set(torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 2.0, 1.0]))
    x = r.encode(target, mixture)
    expected = r.vae.encode((target + 6) / 3).mean
    torch.testing.assert_close(
        x, (expected - torch.tensor([0.1, 0.2, 0.3])[:, None, None]) / r.statistics.std[:, None, None]
    )
    assert torch.equal(x, r.encode(target, mixture))
    assert r.weights(mixture) is None
    assert not any(p.requires_grad for p in r.parameters())
    assert r.decode(x, mixture).shape == mixture.shape


def test_latents_are_decoded_relative_to_the_mixture():
    torch.manual_seed(0)
    r, plain = VAELatents(VAE, center=-6.0, scale=3.0), VAELatents(VAE, center=-6.0, scale=3.0, relative=False)
    plain.load_state_dict(r.state_dict())
    mixture, target = mels()
    assert torch.equal(r.decode(r.encode(mixture, mixture), mixture), mixture)
    x = r.encode(target, mixture)
    decoded = plain.decode(x, mixture)
    torch.testing.assert_close(decoded, 3 * r.vae.decode(r.statistics.restore(x)) - 6)
    torch.testing.assert_close(decoded, r.reconstruct(x))
    rebuilt = 3 * r.vae.decode(r.vae.encode((mixture + 6) / 3).mean) - 6
    torch.testing.assert_close(r.decode(x, mixture), mixture + (decoded - rebuilt).clamp(max=0))


def test_latents_as_differences_from_the_mixture():
    torch.manual_seed(0)
    plain, r = VAELatents(VAE), VAELatents(VAE, residual=True)
    r.load_state_dict(plain.state_dict())
    mixture, target = mels()
    assert not r.encode(mixture, mixture).any()
    x = r.encode(target, mixture)
    torch.testing.assert_close(x + r.condition(mixture), plain.encode(target, mixture))
    torch.testing.assert_close(r.decode(x, mixture), plain.decode(plain.encode(target, mixture), mixture))
    direct = VAELatents(VAE, relative=False, residual=True)
    direct.load_state_dict(plain.state_dict())
    torch.testing.assert_close(direct.decode(x, mixture), plain.reconstruct(plain.condition(target)))


def test_loud_latents_weigh_more():
    r = VAELatents(VAE, floor=0.05, power=0.5)
    mixture = torch.full((1, 4, 4), -20.0)
    mixture[0, 0, 0] = 0.0
    mixture[0, 3, 1] = -4.0
    quiet = 2.718281828**-10
    places = [[0.25 + 0.75 * quiet, quiet], [0.25 * 2.718281828**-2 + 0.75 * quiet, quiet]]
    weights = r.weights(mixture)
    torch.testing.assert_close(weights, (torch.tensor(places) + 0.05).expand(1, 3, 2, 2))
    assert weights.shape == r.encode(mixture, mixture).shape
    with pytest.raises(ValueError, match="power >= 0"):
        VAELatents(VAE, power=-1.0)


@pytest.mark.parametrize("made", [LogRatioPatches((2, 4), depth=3.0, power=1.0), VAELatents(VAE, -5.0, 2.0, False)])
def test_descriptions(made):
    again = build_representation(made.config())
    assert again.config() == made.config()
    assert type(again) is type(made)


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"name": "mel"}, "unknown representation"),
        ({"name": "vae", "depth": 3}, "representation vae"),
        ({"depth": 0}, "unknown"),
    ],
)
def test_nonsense_is_refused(description, message):
    with pytest.raises(ValueError, match=message):
        build_representation(description)
    with pytest.raises(ValueError, match="depth"):
        LogRatioPatches(depth=0)
    with pytest.raises(ValueError, match="patches"):
        LogRatioPatches((4, 4)).condition(torch.zeros(1, 6, 8))
