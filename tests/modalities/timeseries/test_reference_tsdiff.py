"""The published face: encoding, loss, the three orders of guidance by hand, the layout of checkpoints."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import fourfold
from fourfold.core import NoiseSource
from fourfold.modalities.convert import CONVERTERS, convert
from fourfold.modalities.timeseries import (
    CodedSampler,
    DDIMSampler,
    PaperSampler,
    QuantileGuidance,
    ReferenceTSDiff,
    SquaredErrorGuidance,
)
from fourfold.modalities.timeseries.guidance import ObservationEnergy
from fourfold.modalities.timeseries.lags import DAILY_LAGS, lag_channels
from fourfold.modalities.timeseries.reference_checkpoints import PUBLISHED, official_state, read_reference

H, C = 3, 6


def small(**kwargs: Any) -> ReferenceTSDiff:
    torch.manual_seed(0)
    arguments = {"lags": (3, 5), "hidden": 8, "blocks": 2, "modes": 4, "add_input": True, **kwargs}
    return ReferenceTSDiff(H, C, **arguments).eval()


@pytest.fixture
def double_precision() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_lags_are_the_series_some_steps_earlier() -> None:
    values = torch.arange(20.0).repeat(2, 1)
    stacked = lag_channels(values, 8, (1, 12))
    assert stacked.shape == (2, 8, 3)
    assert stacked[0, :, 0].tolist() == list(range(12, 20))
    assert stacked[0, :, 1].tolist() == list(range(11, 19))
    assert stacked[1, :, 2].tolist() == list(range(8))
    with pytest.raises(ValueError, match="between 1 and 12"):
        lag_channels(values, 8, (13,))


def test_windows_are_scaled_by_the_context_and_masked_through_the_lags() -> None:
    target = torch.arange(1.0, 5 + C + H + 1, dtype=torch.float64).repeat(2, 1)
    target[1, 7] = torch.nan  # context position 2
    target[:, -H:] = torch.nan
    x, observed, scale = small()._encode(target)
    assert scale[0, 0] == pytest.approx(np.mean(range(6, 12)))
    assert scale[1, 0] == pytest.approx(np.mean([6, 7, 9, 10, 11]))
    assert x.shape == observed.shape == (2, C + H, 3)
    torch.testing.assert_close(x[0, :C, 0].double(), target[0, 5 : 5 + C] / scale[0])
    # a lag as long as the horizon is known over all of it, and a missing value is missing wherever it turns up
    assert observed[0, C:].tolist() == [[False, True, True]] * H
    assert (~observed[1]).nonzero().tolist() == [[2, 0], [5, 1], [6, 0], [7, 0], [7, 2], [8, 0]]
    shorter = small(lags=(1,))
    # the horizon itself is not known through a lag shorter than it
    assert shorter._encode(target[:, 4:])[1][0, C:, 1].tolist() == [True, False, False]


def test_loss_is_the_mean_squared_error_of_the_noise_over_all_entries() -> None:
    model = small().double()
    target = torch.randn(300, 5 + C + H, dtype=torch.float64) + 3
    target[1, 9:12] = torch.nan
    seen: dict[str, Tensor] = {}

    def keep(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.update(x_t=inputs[0], steps=inputs[1], output=output)

    handle = model.denoiser.network.register_forward_hook(keep)
    loss = model.loss({"target": target}, NoiseSource(3, range(300)))
    handle.remove()
    steps = seen["steps"].round().long()
    torch.testing.assert_close(seen["steps"], steps.double(), rtol=0, atol=1e-9)
    assert (int(steps.min()), int(steps.max())) == (0, 99)
    bar = torch.cumprod(1 - torch.linspace(1e-4, 0.1, 100, dtype=torch.float64), 0)[steps].reshape(-1, 1, 1)
    x = model._encode(target)[0]
    eps = (seen["x_t"] - bar.sqrt() * x) / (1 - bar).sqrt()
    torch.testing.assert_close(loss, (eps - seen["output"]).square().mean((1, 2)))
    assert eps.std().item() == pytest.approx(1, abs=0.02)


def by_hand(model: ReferenceTSDiff, kind: str, energy: ObservationEnergy, scale: float, noise: NoiseSource) -> Tensor:
    """Guided sampling as tables of betas have it, with the noise of the samplers."""
    betas = torch.linspace(1e-4, 0.1, 100, dtype=torch.float64)
    bar = torch.cumprod(1 - betas, 0)
    before = torch.cat((torch.ones(1, dtype=torch.float64), bar[:-1]))
    variance = betas * (1 - before) / (1 - bar)
    shape = torch.empty(len(noise), C + H, 3, dtype=torch.float64)

    def predict(x: Tensor, i: int) -> Tensor:
        return model.denoiser.network(x, torch.full((len(x),), float(i), dtype=torch.float64))

    def gradient(x: Tensor, i: int) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            clean = (x - (1 - bar[i]).sqrt() * predict(x, i)) / bar[i].sqrt()
            return torch.autograd.grad(energy(clean, torch.tensor(0.0)).sum(), x)[0]

    x = noise.normal(shape, 0) * (1 - bar[-1]).sqrt()
    for number, i in enumerate(range(99, -1, -1)):
        eps = predict(x, i).detach()
        if kind == "ddim":
            eps = eps + scale * (1 - bar[i]).sqrt() * gradient(x, i)
            clean = (x - (1 - bar[i]).sqrt() * eps) / bar[i].sqrt()
            x = before[i].sqrt() * clean + (1 - before[i]).sqrt() * eps
            continue
        mean = (x - betas[i] * eps / (1 - bar[i]).sqrt()) / (1 - betas[i]).sqrt()
        z = noise.normal(shape, number + 1) if i else torch.zeros_like(x)
        if kind == "paper":
            x = mean - scale * variance[i] * gradient(x, i) + variance[i].sqrt() * z
        else:
            x = mean + variance[i].sqrt() * z
            x = x - scale * variance[i] * gradient(x, i)
    return x


@pytest.mark.parametrize("guidance", [QuantileGuidance(8.0), SquaredErrorGuidance(2.0)], ids=lambda g: g.name)
@pytest.mark.parametrize("sampler", [CodedSampler(), PaperSampler(), DDIMSampler()], ids=lambda s: s.name)
def test_guided_sampling_step_by_step(sampler: Any, guidance: Any, double_precision: None) -> None:
    model = small(guidance=guidance, sampler=sampler).double()
    series = 5 + np.random.default_rng(0).normal(size=30).cumsum()
    made = model.forecast([series], 4, seed=7)
    target = torch.from_numpy(np.concatenate((series[-5 - C :], np.full(H, np.nan))))[None]
    x, observed, scale = model._encode(target)
    levels = torch.tensor([0.2, 0.4, 0.6, 0.8], dtype=torch.float64)
    energy = ObservationEnergy(guidance, x.expand(4, -1, -1), observed.expand(4, -1, -1), levels)
    from fourfold.modalities.timeseries.histories import hash_key, histories

    (history,) = histories([series])
    noise = NoiseSource(7, [hash_key(history.key, i) for i in range(4)])
    expected = by_hand(model, sampler.name, energy, guidance.scale, noise)[:, C:, 0] * scale
    np.testing.assert_allclose(made[0], expected.numpy(), rtol=1e-6, atol=1e-6)
    free = np.asarray(model.forecast([series], 4, seed=7, guidance=type(guidance)(0.0)))
    assert np.abs(free - made).max() > 1e-2


def test_forecasts_are_deterministic_and_alone_as_in_company() -> None:
    model = small()
    rng = np.random.default_rng(1)
    series = [8 + rng.normal(size=n).cumsum() for n in (40, 14, 7)]
    together = np.asarray(model.forecast(series, 5, seed=2, steps=10))
    assert np.array_equal(together, model.forecast(series, 5, seed=2, steps=10))
    # the identity of an array is its position
    first = np.asarray(model.forecast(series[:1], 5, seed=2, steps=10, batch_rows=1))
    np.testing.assert_allclose(first[0], together[0], rtol=1e-4, atol=1e-4)
    assert model.sample(3, steps=5).shape == (3, C + H)
    with pytest.raises(ValueError, match="no observed value among its last 6"):
        model.forecast([np.full(20, np.nan)], 2)


def test_layout_is_the_official_one(shared: Path) -> None:
    published = json.loads((shared / "golden" / "tsdiff" / "keys.json").read_text())
    state = official_state(PUBLISHED["exchange_rate"].model())
    assert {name: list(value.shape) for name, value in state.items()} == published


def test_checkpoints_convert_strictly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(1)
    model = PUBLISHED["exchange_rate"].model().eval()
    state = official_state(model)
    torch.save(state, tmp_path / "best_checkpoint.ckpt")
    out = convert("tsdiff", tmp_path / "best_checkpoint.ckpt", tmp_path / "model")
    loaded = fourfold.load(out)
    assert isinstance(loaded, ReferenceTSDiff)
    assert loaded.config() == model.config()
    assert loaded.lags == DAILY_LAGS
    assert np.array_equal(loaded.sample(1, steps=3), model.sample(1, steps=3))
    # Lightning's own file wraps the weights
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "last.ckpt")
    assert read_reference(tmp_path / "last.ckpt", "exchange_rate").config() == model.config()
    torch.save({k: v for k, v in state.items() if not k.endswith("time_linear.bias")}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=r"lacks backbone.residual_blocks.0.time_linear.bias"):
        read_reference(tmp_path / "a.ckpt")
    torch.save({**state, "extra": torch.zeros(1)}, tmp_path / "b.ckpt")
    with pytest.raises(ValueError, match="has the unknown extra"):
        read_reference(tmp_path / "b.ckpt")
    with pytest.raises(ValueError, match="does not fit wiki2000"):
        read_reference(tmp_path / "last.ckpt", "wiki2000")
    torch.save({"state_dict": state, "hparams": print}, tmp_path / "c.ckpt")
    with pytest.raises(ValueError, match=r"its pickle asks for .*print.*best_checkpoint.ckpt"):
        read_reference(tmp_path / "c.ckpt")
    assert {f"tsdiff-{name}" for name in PUBLISHED} <= CONVERTERS.keys()


def test_ambiguous_data_sets_must_be_named(tmp_path: Path) -> None:
    torch.save(official_state(PUBLISHED["traffic"].model()), tmp_path / "t.ckpt")
    with pytest.raises(ValueError, match="tsdiff-solar, tsdiff-electricity, tsdiff-traffic"):
        read_reference(tmp_path / "t.ckpt")
    assert convert("tsdiff-traffic", tmp_path / "t.ckpt", tmp_path / "m").is_dir()


def test_a_checkpoint_that_never_ran_is_prepared() -> None:
    model = small(lags=())
    kernel = model.denoiser.network.blocks[0].filter.kernel  # pyright: ignore
    plain = torch.randn(2, 8, 4, dtype=torch.complex64)
    state = kernel.state_dict()
    kernel.load_state_dict({**state, "output": torch.view_as_real(plain), "length": torch.tensor(0)})
    kernel.prepare(C + H)
    assert int(kernel.length) == C + H
    assert not torch.equal(torch.view_as_complex(kernel.output.detach()), plain)


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_shipped_configurations_are_the_published_ones(name: str) -> None:
    import yaml

    from fourfold.data.timeseries import DATASETS
    from fourfold.tasks.names import find

    config = yaml.safe_load(find(f"forecasting/tsdiff-reference-{name}").read_text(encoding="utf-8"))
    arguments, published = config["model"]["adapter"]["init_args"], PUBLISHED[name]
    assert arguments["lags"] == list(published.lags)
    assert arguments["context_length"] == published.context_length
    assert arguments["prediction_length"] == published.prediction_length
    assert arguments["prediction_length"] == DATASETS[config["data"]["name"]].prediction_length
    assert arguments["add_input"] == published.add_input
    assert arguments["features"] == published.features
    assert arguments["guidance"]["init_args"]["scale"] == published.guidance_scale
    assert config["trainer"]["max_epochs"] * config["data"]["batches_per_epoch"] == 128_000
    assert config["trainer"]["gradient_clip_val"] == 0.5
