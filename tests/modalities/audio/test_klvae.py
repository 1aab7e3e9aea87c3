"""The first stage: published layout, shapes, the posterior, latent statistics."""

from __future__ import annotations

import json
import math

import pytest
import torch
import torch.nn.functional as F

from fourfold.modalities.audio.klvae import KLVAE, LatentStatistics, Posterior


def small():
    torch.manual_seed(1)
    return KLVAE(channels=8, multipliers=(1, 2), num_res_blocks=1, latent_channels=4, norm_groups=4).eval()


def test_published_layout(shared):
    table = json.loads((shared / "golden/flowsep/keys_vae_core.json").read_text())
    with torch.device("meta"):
        model = KLVAE()
        latent = model.encode(torch.empty(1, 1024, 64)).mean
        assert latent.shape == (1, 8, 256, 16)
        assert model.decode(latent).shape == (1, 1024, 64)
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == {k: v[0] for k, v in table.items()}
    count = lambda part: sum(p.numel() for p in part.parameters())  # noqa: E731
    assert count(model) == 55_376_873
    assert round(count(model.encoder) / 1e6, 3) == 22.395
    assert round(count(model.decoder) / 1e6, 3) == 32.982
    assert (count(model.quant_conv), count(model.post_quant_conv)) == (272, 72)


def test_shapes_and_gradients():
    model = small()
    log_mel = torch.randn(2, 16, 8)
    epsilon = torch.randn(2, 4, 8, 4)
    rebuilt, posterior = model(log_mel, epsilon)
    assert rebuilt.shape == log_mel.shape
    assert posterior.mean.shape == epsilon.shape
    (rebuilt.square().sum() + posterior.kl().sum()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_patches_are_channels():
    torch.manual_seed(1)
    model = KLVAE(channels=8, multipliers=(1, 2), num_res_blocks=1, latent_channels=4, norm_groups=4, patch=2)
    assert model.downsampling == 4
    rebuilt, posterior = model(torch.randn(2, 16, 8))
    assert posterior.mean.shape == (2, 4, 4, 2)
    assert rebuilt.shape == (2, 16, 8)
    # Without convolutions in between, a bin comes back to where it was.
    model.encoder, model.decoder = torch.nn.Identity(), torch.nn.Identity()
    model.quant_conv, model.post_quant_conv = torch.nn.Conv2d(4, 8, 1, bias=False), torch.nn.Identity()
    with torch.no_grad():
        model.quant_conv.weight.copy_(torch.eye(4).repeat(2, 1)[..., None, None])
    log_mel = torch.randn(1, 8, 8)
    assert torch.equal(model(log_mel)[0], log_mel)
    assert torch.equal(model.encode(log_mel).mean[0, :, 1, 3], log_mel[0, 2:4, 6:8].flatten())
    with pytest.raises(ValueError, match="patch must be at least 1"):
        KLVAE(patch=0)


def test_mode_and_sample():
    model = small()
    log_mel = torch.randn(1, 16, 8)
    with torch.no_grad():
        posterior = model.encode(log_mel)
        assert torch.equal(model(log_mel)[0], model.decode(posterior.mode()))
        epsilon = torch.randn_like(posterior.mean)
        assert torch.equal(model(log_mel, epsilon)[0], model.decode(posterior.sample(epsilon)))


def test_posterior():
    posterior = Posterior(torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[0.0, math.log(4.0)]]]]))
    assert posterior.kl() == pytest.approx(0.5 * (1 + 1 - 1) + 0.5 * (4 - 1 - math.log(4.0)))
    assert torch.allclose(posterior.sample(torch.full((1, 1, 1, 2), 3.0)), torch.tensor([[[[4.0, 6.0]]]]))
    standard = torch.distributions.Normal(0.0, 1.0)
    other = torch.distributions.Normal(posterior.mean, (0.5 * posterior.logvar).exp())
    assert posterior.kl() == pytest.approx(float(torch.distributions.kl_divergence(other, standard).sum()))


def test_logvar_is_bounded():
    model = small()
    with torch.no_grad():
        model.quant_conv.bias[4:] = torch.tensor([1e3, -1e3, 0.0, 0.0])
        logvar = model.encode(torch.randn(1, 16, 8)).logvar
    assert logvar[:, 0].eq(20).all()
    assert logvar[:, 1].eq(-30).all()


def test_middle_attention_is_softmax_attention():
    attention = small().encoder.mid.attn_1
    x = torch.randn(2, 16, 3, 5)
    with torch.no_grad():
        h = attention.norm(x)
        q, k, v = (conv(h).flatten(2) for conv in (attention.q, attention.k, attention.v))
        weights = torch.softmax(torch.einsum("bci,bcj->bij", q, k) / math.sqrt(16), -1)
        expected = x + attention.proj_out(torch.einsum("bij,bcj->bci", weights, v).reshape(x.shape))
        assert torch.allclose(attention(x), expected, atol=1e-5)


def test_residual_block():
    block = small().encoder.down[1].block[0]
    x = torch.randn(1, 8, 4, 4)
    with torch.no_grad():
        h = block.conv1(F.silu(F.group_norm(x, 4, block.norm1.weight, block.norm1.bias, 1e-6)))
        h = block.conv2(F.silu(F.group_norm(h, 4, block.norm2.weight, block.norm2.bias, 1e-6)))
        assert torch.allclose(block(x), block.nin_shortcut(x) + h, atol=1e-6)


def test_downsampling_pads_right_and_bottom():
    down = small().encoder.down[0].downsample
    with torch.no_grad():
        down.conv.weight.zero_()
        down.conv.bias.zero_()
        for c in range(8):
            down.conv.weight[c, c, 0, 0] = 1
        x = torch.randn(1, 8, 6, 4)
        # The kernel's upper left tap reads the even places: nothing was padded before them.
        assert torch.equal(down(x), x[:, :, ::2, ::2])


def test_statistics():
    statistics = LatentStatistics(3)
    latents = torch.randn(4, 3, 50, 6) * torch.tensor([1.0, 2.0, 5.0])[:, None, None] + 0.7
    statistics.measure(latents)
    white = statistics.normalize(latents)
    assert white.mean((0, 2, 3)).abs().max() < 1e-5
    assert torch.allclose(white.std((0, 2, 3)), torch.ones(3), atol=1e-3)
    assert torch.allclose(statistics.restore(white), latents, atol=1e-5)
    assert statistics.state_dict().keys() == {"mean", "std"}
    statistics.set_scale_factor(0.5)
    assert torch.allclose(statistics.normalize(latents), 0.5 * latents)
    for std in (0.0, math.nan):
        with pytest.raises(ValueError, match="latent statistics"):
            statistics.set(torch.zeros(3), torch.tensor(std))


def test_config_round_trip():
    model = small()
    again = KLVAE(**json.loads(json.dumps(model.config())))
    again.load_state_dict(model.state_dict())


def test_bad_input():
    with pytest.raises(ValueError, match="divisible by norm_groups"):
        KLVAE(channels=20)
    with pytest.raises(ValueError, match="divisible by 2"):
        small().encode(torch.zeros(1, 15, 8))
    with pytest.raises(ValueError, match=r"\(B, 4, T, F\)"):
        small().decode(torch.zeros(1, 3, 8, 4))
