"""The published face: its sampler step by step, its conversion from files of exactly the published layout."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from test_reference_checkpoints import SMALL, checkpoint, randomized

from fourfold.core import DDIM, AdamsBashforth, NoiseSource
from fourfold.modalities import convert as conversion
from fourfold.modalities.adapter import load
from fourfold.modalities.audio.bigvgan import split_weight_norm
from fourfold.modalities.audio.reference_checkpoints import FlowSepParts, LayoutError, read_flowsep
from fourfold.modalities.audio.reference_flowsep import ReferenceFlowSep
from fourfold.modalities.audio.separator import Query
from fourfold.modalities.audio.text import TextStates

FRONT = {"sample_rate": 8000, "n_fft": 512, "hop_length": 160, "num_bands": 8, "f_max": 4000.0}
OPTIONS = {"front": FRONT, "seconds": 0.32, "text": {"name": "flan-t5", "channels": 6}}


class Words:
    """Stands for the pretrained encoder."""

    channels = 6

    def __call__(self, prompts):
        generator = torch.Generator().manual_seed(len(prompts[0]))
        states = 10 * torch.randn(1, 4, 6, generator=generator).expand(len(prompts), -1, -1)
        return TextStates(states, torch.ones(len(prompts), 4, dtype=torch.bool))

    def unconditional(self, batch):
        return TextStates(torch.zeros(batch, 4, 6), torch.ones(batch, 4, dtype=torch.bool))


def parts():
    torch.manual_seed(5)
    unet, vae, vocoder = randomized(SMALL.unet()), randomized(SMALL.vae()), randomized(SMALL.vocoder())
    with torch.no_grad():
        unet.out[-1].weight[8:] = 0
        unet.out[-1].bias[8:] = 0
    return FlowSepParts(unet, vae, vocoder, 0.92, ("all of it",))


@pytest.fixture
def model():
    made = ReferenceFlowSep.from_parts(parts(), **OPTIONS)
    made.use_text_encoder(Words())
    return made


def test_ten_euler_steps_as_published(model):
    mel = model.front(0.1 * torch.randn(2, 2560))
    noise = NoiseSource(0, [4, 7])
    latent = 0.92 * model.representation.vae.encode(mel).mode()
    words = Words()(["a bell"] * 2)
    from fourfold.core import hash_seed

    x = NoiseSource(hash_seed(0, 0), [4, 7]).normal(torch.empty_like(latent), key=0)
    with torch.no_grad():
        for k in range(10):
            v = model.unet(torch.cat([x, latent], 1), torch.full((2,), k / 10), words.states, words.mask)[:, :8]
            x = x + v / 10
        expected = model.representation.vae.decode(x / 0.92)
        actual = model.estimate(mel, Query("a bell"), [4, 7])
    torch.testing.assert_close(actual, expected.clamp(min=model.front.settings.silence), rtol=1e-5, atol=2e-6)
    assert len(noise) == 2


def test_the_core_s_order_one_is_the_published_sampler(model):
    mel = model.front(0.1 * torch.randn(1, 2560))
    query = Query("a bell", steps=10)
    with torch.no_grad():
        published = model.estimate(mel, query, [0])
        ours = model.estimate(mel, query, [0], AdamsBashforth(1))
        other = model.estimate(mel, query, [0], DDIM(1.0))
    # The core starts at t = 1 - 1e-4.
    torch.testing.assert_close(ours, published, rtol=2e-2, atol=2e-2)
    assert not torch.allclose(other, published, atol=0.05)


def test_guidance_leads_away_from_the_other_words(model):
    mel = model.front(0.1 * torch.randn(1, 2560))
    with torch.no_grad():
        zero = model.estimate(mel, Query("a bell", "rainfall", guidance=0.0), [0])
        torch.testing.assert_close(zero, model.estimate(mel, Query("rainfall"), [0]), rtol=1e-5, atol=2e-6)
        assert not torch.allclose(zero, model.estimate(mel, Query("a bell"), [0]), rtol=0, atol=2e-5)


def test_loss_of_a_new_network_is_the_variance_of_target_and_noise():
    torch.manual_seed(0)
    made = ReferenceFlowSep(SMALL.unet().config(), SMALL.vae().config(), SMALL.vocoder().config(), **OPTIONS)
    made.use_text_encoder(Words())
    from separators import batch

    data = batch(3, 2560)
    latent = made.representation.encode(made.front(data.target), made.front(data.mixture))
    expected = 1 + float(latent.square().mean())
    assert float(made.loss(data, NoiseSource(0, range(3))).mean().detach()) == pytest.approx(expected, rel=0.15)
    made.loss(data, NoiseSource(0, range(3))).mean().backward()
    assert made.unet.out[-1].weight.grad is not None
    assert not made.unet.out[-1].weight.grad[8:].any()
    assert made.representation.vae.encoder.conv_in.weight.grad is None


def test_stereo_of_any_rate_through_the_vocoder(model):
    wave = 0.1 * torch.randn(2, 11025)
    out = model.separate(wave, 11025, "a bell", steps=2, residual=True)
    assert out.decoder == "vocoder"
    assert out.samples.shape == wave.shape
    assert model.separate(wave, 11025, "a bell", steps=2, decoder="mask").decoder == "mask"


@pytest.fixture
def files(tmp_path, monkeypatch):
    made = parts()
    state, averaged = checkpoint(made.unet.state_dict(), made.vae.state_dict(), made.vocoder.state_dict())
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "v2_100k.ckpt")
    other = {k: 1.1 * v if "filter" not in k else v for k, v in made.vocoder.state_dict().items()}
    torch.save({"generator": split_weight_norm(other)}, tmp_path / "g_01000000")

    def small(path, companion=None):
        return ReferenceFlowSep.from_parts(read_flowsep(path, companion, architecture=SMALL), **OPTIONS)

    module = "fourfold.modalities.audio.reference_flowsep"
    monkeypatch.setattr(f"{module}.convert_flowsep", small)
    return tmp_path, averaged, made, other


def test_conversion_is_complete_and_equal_to_a_direct_load(files):
    folder, averaged, made, _ = files
    out = conversion.convert("flowsep", folder / "v2_100k.ckpt", folder / "out")
    again = load(out)
    assert isinstance(again, ReferenceFlowSep)
    assert all(torch.equal(again.unet.state_dict()[k], v) for k, v in averaged.items())
    assert len(again.unet.state_dict()) == len(averaged)
    assert all(torch.equal(again.representation.vae.state_dict()[k], v) for k, v in made.vae.state_dict().items())
    assert all(torch.equal(again.vocoder.state_dict()[k], v) for k, v in made.vocoder.state_dict().items())
    assert float(again.representation.statistics.std[0]) == pytest.approx(1 / 0.92)
    assert "averaged weights" in (out / "README.md").read_text()
    direct = ReferenceFlowSep.from_parts(read_flowsep(folder / "v2_100k.ckpt", architecture=SMALL), **OPTIONS)
    wave = 0.1 * torch.randn(3000)
    for each in (again, direct):
        each.use_text_encoder(Words())
    results = [each.separate(wave, 8000, "a bell", steps=2).samples for each in (again, direct)]
    assert torch.equal(*results)


def test_conversion_with_the_vocoder_s_own_file(files):
    folder, _, _, other = files
    out = conversion.convert("flowsep", folder / "v2_100k.ckpt", folder / "out", companion=folder / "g_01000000")
    state = load(out).vocoder.state_dict()
    assert all(torch.allclose(state[k], v, rtol=1e-5, atol=1e-6) for k, v in other.items())


def test_conversion_refuses(files):
    folder = files[0]
    with pytest.raises(FileNotFoundError, match="g_none"):
        conversion.convert("flowsep", folder / "v2_100k.ckpt", folder / "out", companion=folder / "g_none")
    with pytest.raises(ValueError, match="one file"):
        conversion.convert("gdss", folder / "v2_100k.ckpt", folder / "out", companion=folder / "g_01000000")
    (folder / "text.ckpt").write_text("hello")
    with pytest.raises(LayoutError, match="not a PyTorch checkpoint"):
        conversion.convert("flowsep", folder / "text.ckpt", folder / "out")
    assert not (folder / "out").exists()


def test_the_published_size_and_layout(shared):
    with torch.device("meta"):
        made = ReferenceFlowSep()
    count = lambda module: sum(p.numel() for p in module.parameters())  # noqa: E731
    assert count(made.unet) == pytest.approx(265.549e6, rel=1e-5)
    assert count(made.representation.vae) == pytest.approx(55.377e6, rel=1e-5)
    assert count(made.vocoder) == pytest.approx(13.954e6, rel=1e-4)
    for module, table in (
        (made.unet, "keys_unet"),
        (made.representation.vae, "keys_vae_core"),
        (made.vocoder, "keys_bigvgan_plain"),
    ):
        keys = json.loads((shared / "golden" / "flowsep" / f"{table}.json").read_text())
        shapes = {k: list(v.shape) for k, v in module.state_dict().items()}
        assert shapes == {k: _shape(v) for k, v in keys.items()}


def _shape(entry):
    return list(entry[0])


def test_channels_that_do_not_fit():
    with pytest.raises(ValueError, match="need 16"):
        ReferenceFlowSep(
            {**SMALL.unet().config(), "in_channels": 12}, SMALL.vae().config(), SMALL.vocoder().config(), **OPTIONS
        )
