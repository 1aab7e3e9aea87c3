"""Published files: synthetic ones of exactly their layout are read completely, everything else is refused."""

from __future__ import annotations

import json

import pytest
import torch

from fourfold.modalities.audio.bigvgan import BigVGAN, split_weight_norm
from fourfold.modalities.audio.klvae import KLVAE
from fourfold.modalities.audio.reference_checkpoints import (
    Architecture,
    LayoutError,
    read_first_stage,
    read_flowsep,
    read_vocoder,
)
from fourfold.modalities.audio.separation_unet import SeparationUNet

SMALL = Architecture(
    unet=lambda: SeparationUNet(
        channels=8,
        multipliers=(1, 2),
        num_res_blocks=1,
        attention_levels=(1,),
        head_channels=4,
        context_channels=6,
        norm_groups=4,
    ),
    vae=lambda: KLVAE(channels=8, multipliers=(1, 2), num_res_blocks=1, norm_groups=4),
    vocoder=lambda: BigVGAN(num_bands=8, channels=32, kernels=(3,), dilations=(1,)),
)
SCHEDULES = [
    "logvar",
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
]


def randomized(module):
    for name, tensor in module.state_dict().items():
        if not name.endswith(".filter"):
            torch.nn.init.normal_(tensor, 0, 0.1)
    return module.eval()


def small_parts():
    torch.manual_seed(5)
    unet, vae, vocoder = randomized(SMALL.unet()), randomized(SMALL.vae()), randomized(SMALL.vocoder())
    with torch.no_grad():
        unet.out[-1].weight[8:] = 0
        unet.out[-1].bias[8:] = 0
    return unet, vae, vocoder


def checkpoint(unet, vae, vocoder):
    """The state dict of a Lightning file, and the averaged weights in it."""
    averaged = {k: 0.9 * v + 0.01 * torch.randn_like(v) * (v != 0) for k, v in unet.items()}
    state = {f"model.diffusion_model.{k}": v for k, v in unet.items()}
    state |= {"model_ema." + f"diffusion_model.{k}".replace(".", ""): v for k, v in averaged.items()}
    state |= {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(7, dtype=torch.int32)}
    state |= {f"first_stage_model.{k}": v for k, v in vae.items()}
    state |= {f"first_stage_model.vocoder.{k}": v for k, v in vocoder.items()}
    state |= {f"first_stage_model.loss.discriminator.{i}": torch.zeros(2) for i in range(56)}
    state |= {f"cond_stage_models.0.model.encoder.{i}": torch.zeros(2) for i in range(220)}
    state |= {name: torch.zeros(1000) for name in SCHEDULES}
    state["scale_factor"] = torch.tensor(0.92)
    return state, averaged


@pytest.fixture(scope="module")
def parts():
    return small_parts()


@pytest.fixture
def saved(parts, tmp_path):
    state, averaged = checkpoint(*(part.state_dict() for part in parts))
    path = tmp_path / "v2.ckpt"

    def save(changes=None, drop=()):
        content = {k: v for k, v in {**state, **(changes or {})}.items() if k not in drop}
        torch.save({"state_dict": content, "epoch": 3, "callbacks": {}}, path)
        return path

    return save, averaged


def same(module, state):
    own = module.state_dict()
    return own.keys() == state.keys() and all(torch.equal(own[k], state[k]) for k in own)


def test_complete_and_equal_to_a_direct_load(parts, saved):
    save, averaged = saved
    read = read_flowsep(save(), architecture=SMALL)
    direct = SMALL.unet()
    direct.load_state_dict(averaged)
    assert same(read.unet, averaged)
    assert same(read.vae, parts[1].state_dict())
    assert same(read.vocoder, parts[2].state_dict())
    assert read.scale_factor == pytest.approx(0.92)
    assert not read.unet.training
    x, t, context = torch.randn(1, 16, 4, 4), torch.tensor(0.3), torch.randn(1, 2, 6)
    with torch.no_grad():
        assert torch.equal(read.unet(x, t, context), direct.eval()(x, t, context))
    assert same(read_flowsep(save(), averaged=False, architecture=SMALL).unet, parts[0].state_dict())
    report = "\n".join(read.report)
    for line in (
        "averaged weights (correlation",
        "channels 8 to 15 are zero",
        "220 tensors of the text encoder",
        "56 of",
    ):
        assert line in report


def test_published_size(shared, tmp_path):
    """Every key and shape of the published file, without its gigabytes: each tensor repeats one number."""
    values = iter(torch.linspace(0.1, 0.2, 5000))

    def part(name):
        table = json.loads((shared / "golden/flowsep" / name).read_text())
        return {k: next(values).expand(shape) for k, (shape, _) in table.items()}

    unet, vae, vocoder = part("keys_unet.json"), part("keys_vae_core.json"), part("keys_bigvgan_plain.json")
    for key in ("out.2.weight", "out.2.bias"):
        zeros = torch.zeros(1).expand(unet[key][8:].shape)
        unet[key] = torch.cat([unet[key][:8], zeros])
    with torch.device("cpu"):
        filters = BigVGAN(channels=32, kernels=(3,)).activation_post.upsample.filter
    vocoder = {k: filters if k.endswith("filter") else v for k, v in vocoder.items()}
    state, _ = checkpoint({}, vae, vocoder)
    state |= {f"model.diffusion_model.{k}": v for k, v in unet.items()}
    state |= {"model_ema." + f"diffusion_model.{k}".replace(".", ""): v for k, v in unet.items()}
    assert len(state) == 3262
    torch.save({"state_dict": state}, tmp_path / "v2_100k.ckpt")
    assert (tmp_path / "v2_100k.ckpt").stat().st_size < 20e6
    read = read_flowsep(tmp_path / "v2_100k.ckpt")
    assert sum(p.numel() for p in read.unet.parameters()) == 265_549_456
    for module, expected in ((read.unet, unet), (read.vae, vae), (read.vocoder, vocoder)):
        own = module.state_dict()
        assert own.keys() == expected.keys()
        assert all(own[k].flatten()[0] == expected[k].flatten()[0] for k in own)


@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
@pytest.mark.parametrize("weight_norm", [True, False])
def test_vocoder_files(parts, tmp_path, prefix, weight_norm):
    state = parts[2].state_dict()
    stored = split_weight_norm(state) if weight_norm else state
    torch.save({"generator": {f"{prefix}{k}": v for k, v in stored.items()}}, tmp_path / "g_01000000")
    read = read_vocoder(tmp_path / "g_01000000", architecture=SMALL)
    own = read.state_dict()
    assert own.keys() == state.keys()
    assert all(torch.allclose(own[k], state[k], atol=1e-7) for k in own)


def test_another_vocoder_beside_the_checkpoint(parts, saved, tmp_path):
    other = {k: v if k.endswith("filter") else v + 1 for k, v in parts[2].state_dict().items()}
    torch.save({"generator": other}, tmp_path / "g")
    read = read_flowsep(saved[0](), tmp_path / "g", architecture=SMALL)
    assert same(read.vocoder, other)
    assert any("from g," in line for line in read.report)


def test_first_stage_files(parts, tmp_path):
    state = dict(parts[1].state_dict())
    stored = {**state, "vocoder.conv_pre.bias": torch.zeros(3), "loss.logvar": torch.zeros(())}
    torch.save({"state_dict": stored}, tmp_path / "vae.ckpt")
    assert same(read_first_stage(tmp_path / "vae.ckpt", architecture=SMALL), state)


UNET, FIRST = "model.diffusion_model.", "first_stage_model."


@pytest.mark.parametrize(
    ("changes", "drop", "message"),
    [
        ({"extra.weight": torch.zeros(1)}, (), r"1 entries do not belong to FlowSep: extra\.weight"),
        ({}, (f"{UNET}time_embed.0.bias",), "averaged weights do not match"),
        ({}, ("model_ema.diffusion_modeltime_embed0bias",), "averaged weights do not match.* 1 missing"),
        ({}, (f"{FIRST}quant_conv.bias",), r"first stage: 1 of .* missing \(quant_conv.bias\)"),
        ({}, (f"{FIRST}vocoder.conv_post.bias",), "vocoder: 1 of .* missing"),
        ({f"{FIRST}quant_conv.bias": torch.zeros(3)}, (), r"quant_conv.bias \(3,\) not \(16,\)"),
        ({f"{FIRST}quant_conv.bias": torch.full((16,), torch.nan)}, (), "quant_conv.bias is not finite"),
        ({}, ("scale_factor",), "no scalar 'scale_factor'"),
        ({"scale_factor": torch.tensor(0.01)}, (), "outside the plausible"),
        ({"model_ema.diffusion_modelout2weight": torch.randn(16, 8, 3, 3)}, (), "channels 8 to 15 .* are not zero"),
        ({f"{FIRST}vocoder.activation_post.upsample.filter": torch.ones(1, 1, 12)}, (), "not the Kaiser-windowed sinc"),
    ],
)
def test_refusals(saved, changes, drop, message):
    with pytest.raises(LayoutError, match=message):
        read_flowsep(saved[0](changes, drop), architecture=SMALL)


def test_averages_of_another_generator(saved, parts):
    save, averaged = saved
    strangers = {
        "model_ema." + f"diffusion_model.{k}".replace(".", ""): torch.randn_like(v) * (v != 0)
        for k, v in averaged.items()
    }
    with pytest.raises(LayoutError, match="cannot belong together"):
        read_flowsep(save(strangers), architecture=SMALL)


def test_files_that_are_something_else(tmp_path):
    (tmp_path / "text.ckpt").write_text("hello")
    torch.save({"model": {}}, tmp_path / "other.ckpt")
    torch.save({"state_dict": {"a": 1}}, tmp_path / "numbers.ckpt")
    torch.save({"state_dict": {}, "made_by": Architecture}, tmp_path / "code.ckpt")
    for name, message in {
        "text.ckpt": "not a PyTorch checkpoint",
        "other.ckpt": "has no 'state_dict'; it holds model",
        "numbers.ckpt": "no tensors: a",
        "code.ckpt": "its pickle asks for .*Architecture",
    }.items():
        with pytest.raises(LayoutError, match=message):
            read_flowsep(tmp_path / name, architecture=SMALL)
    with pytest.raises(FileNotFoundError):
        read_flowsep(tmp_path / "missing.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "empty.ckpt")
    with pytest.raises(LayoutError, match="no generator"):
        read_flowsep(tmp_path / "empty.ckpt")
