"""The generator's network: published layout, time features, text, masks, batch-mates."""

from __future__ import annotations

import json
import math

import pytest
import torch
import torch.nn.functional as F

from fourfold.modalities.audio.separation_unet import SeparationUNet
from fourfold.modalities.audio.spatial_transformer import SpatialTransformer, attention_bias


def small(**changes):
    torch.manual_seed(1)
    settings = {
        "in_channels": 6,
        "out_channels": 3,
        "channels": 8,
        "multipliers": (1, 2),
        "num_res_blocks": 1,
        "attention_levels": (1,),
        "head_channels": 4,
        "context_channels": 5,
        "norm_groups": 4,
        "time_scale": 1000.0,
    }
    model = SeparationUNet(**{**settings, **changes}).eval()
    # The zero-initialised ends would hide everything before them.
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, 0, 0.3)
    return model


def inputs(batch=2, length=4):
    torch.manual_seed(2)
    return torch.randn(batch, 6, 8, 4), torch.rand(batch), torch.randn(batch, length, 5)


def test_published_layout(shared):
    table = json.loads((shared / "golden/flowsep/keys_unet.json").read_text())
    with torch.device("meta"):
        model = SeparationUNet()
        out = model(torch.empty(1, 16, 256, 16), torch.empty(1), torch.empty(1, 50, 1024))
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == {k: v[0] for k, v in table.items()}
    assert sum(p.numel() for p in model.parameters()) == 265_549_456
    assert out.shape == (1, 16, 256, 16)


def test_published_widths_inside():
    """Shapes of the middle and of every skip, as the published table lists them."""
    seen = []
    with torch.device("meta"):
        model = SeparationUNet()
        for block in [*model.input_blocks, model.middle_block, *model.output_blocks]:
            block[-1].register_forward_hook(lambda _m, _i, out: seen.append(tuple(out.shape[1:])))
        model(torch.empty(1, 16, 256, 16), torch.empty(1), torch.empty(1, 50, 1024))
    down = [(128, 256, 16)] * 3 + [(128, 128, 8)] + [(256, 128, 8)] * 2 + [(256, 64, 4)] + [(384, 64, 4)] * 2
    down += [(384, 32, 2)] + [(640, 32, 2)] * 2
    up = [(640, 32, 2)] * 2 + [(640, 64, 4)] + [(384, 64, 4)] * 2 + [(384, 128, 8)] + [(256, 128, 8)] * 2
    up += [(256, 256, 16)] + [(128, 256, 16)] * 3
    assert seen == [*down, (640, 32, 2), *up]


def test_starts_at_zero():
    torch.manual_seed(0)
    model = SeparationUNet(channels=32, multipliers=(1,), attention_levels=(), num_res_blocks=1, context_channels=4)
    assert not model(torch.randn(1, 16, 4, 4), torch.tensor(0.5), torch.randn(1, 2, 4)).any()


def test_time_features():
    for scale in (1.0, 1000.0):
        features = small(time_scale=scale)._time_features(torch.tensor([0.0, 0.3]), torch.float32)
        frequencies = [10_000 ** (-i / 4) for i in range(4)]
        expected = [math.cos(0.3 * scale * w) for w in frequencies] + [math.sin(0.3 * scale * w) for w in frequencies]
        assert features[0].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
        assert features[1].tolist() == pytest.approx(expected, abs=1e-4)


def test_everything_matters():
    model, (x, t, context) = small(), inputs()
    with torch.no_grad():
        out = model(x, t, context)
        assert out.shape == (2, 3, 8, 4)
        for changed in ((x + 0.1, t, context), (x, t + 0.01, context), (x, t, context + 0.1)):
            assert (model(*changed) - out).abs().max() > 1e-3


def test_gradients_reach_every_parameter():
    model, (x, t, context) = small(), inputs()
    model(x, t, context).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_masked_states_do_not_count():
    model, (x, t, context) = small(), inputs()
    mask = torch.tensor([[True, True, False, False], [True, True, True, False]])
    with torch.no_grad():
        out = model(x, t, context, mask)
        padded = torch.cat([context, torch.randn(2, 3, 5)], 1)
        longer = torch.cat([mask, torch.zeros(2, 3, dtype=torch.bool)], 1)
        assert torch.allclose(model(x, t, padded, longer), out, atol=1e-5)
        assert torch.allclose(model(x[:1], t[:1], context[:1, :2]), out[:1], atol=1e-5)
        assert (model(x, t, context) - out).abs().max() > 1e-3


def test_a_row_without_states_attends_evenly():
    model, (x, t, context) = small(), inputs(1)
    with torch.no_grad():
        none = model(x, t, context, torch.zeros(1, 4, dtype=torch.bool))
    assert torch.isfinite(none).all()


def test_batch_mates_do_not_matter():
    model, (x, t, context) = small(), inputs(3)
    with torch.no_grad():
        together = model(x, t, context)
        alone = torch.cat([model(x[i : i + 1], t[i : i + 1], context[i : i + 1]) for i in range(3)])
        assert torch.allclose(together, alone, atol=1e-5)
        same = model(x, torch.tensor(0.4), context)
        assert torch.allclose(same, model(x, torch.full((3,), 0.4), context), atol=1e-6)


def test_transformer_block_against_torch():
    torch.manual_seed(3)
    block = SpatialTransformer(8, 4, 5, norm_groups=4).transformer_blocks[0]
    x, context = torch.randn(2, 7, 8), torch.randn(2, 3, 5)
    mask = torch.tensor([[True, True, True], [True, False, False]])

    def attend(attention, h, source, ignored):
        reference = torch.nn.MultiheadAttention(
            8, 2, bias=True, kdim=source.shape[2], vdim=source.shape[2], batch_first=True
        )
        if source.shape[2] == 8:
            reference.in_proj_weight.copy_(
                torch.cat([attention.to_q.weight, attention.to_k.weight, attention.to_v.weight])
            )
        else:
            reference.q_proj_weight.copy_(attention.to_q.weight)
            reference.k_proj_weight.copy_(attention.to_k.weight)
            reference.v_proj_weight.copy_(attention.to_v.weight)
        reference.in_proj_bias.zero_()
        reference.out_proj.load_state_dict(attention.to_out[0].state_dict())
        return reference(h, source, source, key_padding_mask=ignored)[0]

    with torch.no_grad():
        h = x + attend(block.attn1, block.norm1(x), block.norm1(x), None)
        h = h + attend(block.attn2, block.norm2(h), context, ~mask)
        value, gate = block.ff.net["0"].proj(block.norm3(h)).chunk(2, -1)
        h = h + block.ff.net["2"](value * F.gelu(gate))
        assert torch.allclose(block(x, context, attention_bias(mask, torch.float32)), h, atol=1e-5)


def test_transformer_without_text_ignores_it():
    block = SpatialTransformer(8, 4, None, norm_groups=4)
    torch.nn.init.normal_(block.proj_out.weight)
    x = torch.randn(1, 8, 3, 2)
    assert torch.equal(block(x, torch.randn(1, 2, 5)), block(x))
    assert not torch.allclose(block(x), x)


def test_config_round_trip():
    model = small()
    SeparationUNet(**json.loads(json.dumps(model.config()))).load_state_dict(model.state_dict())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 10}, "divisible by norm_groups"),
        ({"attention_levels": (2,)}, "level 2 does not exist"),
        ({"head_channels": 5}, "must divide"),
    ],
)
def test_bad_settings(changes, message):
    with pytest.raises(ValueError, match=message):
        small(**changes)


def test_bad_input():
    model, (x, t, context) = small(), inputs()
    for args, message in [
        ((x[:, :5], t, context), r"x must be \(B, 6"),
        ((x[:, :, :7], t, context), "divisible by 2"),
        ((x, t, context[:1]), "context must be"),
        ((x, t, context, torch.ones(2, 3, dtype=torch.bool)), "mask must be"),
    ]:
        with pytest.raises(ValueError, match=message):
            model(*args)


def test_recomputed_activations_give_the_same_gradients():
    torch.manual_seed(0)
    unet = SeparationUNet(
        in_channels=2,
        out_channels=1,
        channels=8,
        multipliers=(1, 2),
        num_res_blocks=1,
        attention_levels=(1,),
        head_channels=8,
        context_channels=4,
        norm_groups=4,
        summary=True,
        scale_shift=True,
    )
    for p in unet.parameters():
        torch.nn.init.normal_(p, 0, 0.2)
    x, context = torch.randn(2, 2, 8, 4), torch.randn(2, 3, 4)
    gradients = []
    for recompute in (False, True):
        unet.checkpoint_activations = recompute
        unet.zero_grad()
        unet(x, torch.tensor(0.3), context).square().mean().backward()
        gradients.append([p.grad.clone() for p in unet.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_words_scale_and_shift():
    """With `summary` the first text state acts even where no attention is, with `scale_shift` as a factor."""
    torch.manual_seed(0)
    unet = SeparationUNet(
        in_channels=1,
        out_channels=1,
        channels=8,
        multipliers=(1,),
        num_res_blocks=1,
        attention_levels=(),
        head_channels=8,
        context_channels=4,
        norm_groups=4,
        summary=True,
        scale_shift=True,
    )
    for p in unet.parameters():
        torch.nn.init.normal_(p, 0, 0.3)
    assert unet.input_blocks[1][0].emb_layers["1"].out_features == 16
    x = torch.randn(1, 1, 4, 4)
    first, second = torch.randn(1, 3, 4), torch.randn(1, 3, 4)
    mixed = torch.cat([first[:, :1], second[:, 1:]], 1)
    with torch.no_grad():
        a, b, c = (unet(x, torch.tensor(0.5), context) for context in (first, mixed, second))
    torch.testing.assert_close(a, b)
    assert not torch.allclose(a, c, atol=1e-3)
