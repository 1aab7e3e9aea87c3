"""Laws of the adapter on a small network that was moved away from its zero start."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from fourfold.core import Ancestral, Multistep, NoiseSource
from fourfold.modalities.timeseries import (
    Anchored,
    LongMean,
    Mean,
    QuantileGuidance,
    SquaredErrorGuidance,
    TSDiff,
    ZScore,
)

H, C = 4, 12


def small(**kwargs: object) -> TSDiff:
    torch.manual_seed(0)
    arguments = {"hidden": 8, "blocks": 2, "modes": 2, "patch": 2, "sampling_steps": 4, **kwargs}
    model = TSDiff(H, C, **arguments)  # pyright: ignore[reportArgumentType]
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


@pytest.fixture
def series() -> list[np.ndarray]:
    rng = np.random.default_rng(2)
    return [10 + rng.normal(size=n).cumsum() for n in (40, 12, 5, 33)]


def entries(series: list[np.ndarray], freq: str = "h") -> list[dict]:
    return [
        {"target": s, "start": pd.Period("2024-01-01", freq=freq), "item_id": f"s{i}"} for i, s in enumerate(series)
    ]


@pytest.mark.parametrize("scaler", [Mean(), Anchored(), ZScore(), LongMean()], ids=lambda s: s.name)
def test_config_rebuilds_and_folder_round_trip_is_identical(
    scaler: object, series: list[np.ndarray], tmp_path: Path
) -> None:
    model = small(
        scaler=scaler, calendar=("hour_of_day",), stepper=Multistep(order=1, eta=1.0), guidance=SquaredErrorGuidance()
    )
    assert TSDiff(**model.config()).config() == model.config()
    model.save(tmp_path / "m")
    loaded = TSDiff.load(tmp_path / "m")
    made, again = (np.stack([f.samples for f in m.forecast(entries(series), 3, seed=5)]) for m in (model, loaded))
    assert np.array_equal(made, again)
    assert not np.array_equal(made, np.stack([f.samples for f in model.forecast(entries(series), 3, seed=6)]))


def test_forecasts_do_not_depend_on_batch_mates(series: list[np.ndarray]) -> None:
    model = small(scaler=Anchored(), sign_flip=True, stepper=Ancestral())
    together = model.forecast(entries(series), 5, seed=1)
    for i, entry in enumerate(entries(series)):
        (alone,) = model.forecast([entry], 5, seed=1)
        np.testing.assert_allclose(alone.samples, together[i].samples, rtol=1e-4, atol=1e-4)
    rebatched = model.forecast(entries(series), 5, seed=1, batch_rows=1)
    np.testing.assert_allclose(rebatched[3].samples, together[3].samples, rtol=1e-4, atol=1e-4)
    assert not np.allclose(together[0].samples[0], together[0].samples[1])


def test_shapes_dates_and_exact_number_of_samples(series: list[np.ndarray]) -> None:
    for freq in ("h", "30min", "D", "B", "W", "M"):
        made = small().forecast(entries(series, freq), 7)
        assert [f.samples.shape for f in made] == [(7, H)] * 4
        assert made[0].start_date == pd.Period("2024-01-01", freq=freq) + 40
        assert made[3].item_id == "s3"
    assert small().forecast(series, 1).shape == (4, 1, H)
    assert small().sample(3).shape == (3, C + H)
    assert np.array_equal(small().sample(3, seed=4)[:2], small().sample(2, seed=4)) or np.allclose(
        small().sample(3, seed=4)[:2], small().sample(2, seed=4), atol=1e-5
    )


def test_twenty_samples_are_as_unbiased_as_a_hundred(series: list[np.ndarray]) -> None:
    # With levels in order, the first 20 of 100 would be the lowest: the mean would sink by about a spread.
    model = small(guidance=QuantileGuidance(8.0), sampling_steps=10)
    model.denoiser.network.head[-1].bias.data.zero_()
    many = np.stack([s.samples for s in model.forecast(entries(series), 100)])
    few = np.stack([s.samples for s in model.forecast(entries(series), 20)])
    spread = many.std(axis=1)
    assert (np.abs(few.mean(1) - many.mean(1)) < 1.0 * spread).all()
    first = many[:, :20].mean(1) - many.mean(1)
    assert (np.abs(first) < 1.0 * spread).all()


def test_missing_values_are_ignored(series: list[np.ndarray]) -> None:
    model = small(scaler=ZScore())
    long = series[0].copy()
    with_nan, with_inf = long.copy(), long.copy()
    with_nan[-5:-2], with_inf[-5:-2] = np.nan, np.inf
    assert np.array_equal(model.forecast([with_nan], 4), model.forecast([with_inf], 4))
    assert not np.array_equal(model.forecast([with_nan], 4), model.forecast([long], 4))
    # what lies before the context plays no part but in the level
    padded = np.concatenate((np.full(7, np.nan), long[-C:]))
    assert np.array_equal(model.forecast([padded], 4), model.forecast([long[-C:]], 4))


def test_loss_ignores_missing_values_and_depends_on_nothing_global() -> None:
    model = small(scaler=ZScore(), sign_flip=True)
    target = torch.randn(6, C + H, dtype=torch.float64)
    target[2, 3:7] = torch.nan
    target[4] = torch.nan
    batch = {"target": target, "level": torch.ones(6, dtype=torch.float64)}
    loss = model.loss(batch, NoiseSource(9, range(6)))
    assert loss.shape == (6,)
    assert torch.isfinite(loss).all()
    assert loss[4] == 0
    torch.manual_seed(123)
    assert torch.equal(loss, model.loss(batch, NoiseSource(9, range(6))))
    part = {k: v[2:4] for k, v in batch.items()}
    torch.testing.assert_close(model.loss(part, NoiseSource(9, range(2, 4))), loss[2:4])
    network = model.denoiser.network
    captured = []
    handle = network.register_forward_hook(lambda module, inputs, output: captured.append(output))
    model.loss(batch, NoiseSource(9, range(6))).sum().backward()
    handle.remove()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_sign_flip_makes_forecasts_of_mirrored_series_mirrored_in_law(series: list[np.ndarray]) -> None:
    model = small(scaler=Anchored(), sign_flip=True)
    up = model.forecast(entries([series[0]]), 400)[0].samples - series[0][-1]
    down = model.forecast(entries([-series[0]]), 400)[0].samples + series[0][-1]
    error = up.std() / np.sqrt(400) * 4
    assert np.abs(up.mean(0) + down.mean(0)).max() < error * 2


def test_minimum_limits_forecasts_only_from_below(series: list[np.ndarray]) -> None:
    free, bounded = small().forecast(series, 20), small(minimum=11.0).forecast(series, 20)
    assert free.min() < 11.0
    assert np.array_equal(bounded, np.maximum(free, 11.0))


def test_context_channels_are_shown_in_forecasts_and_blank_in_samples(series: list[np.ndarray]) -> None:
    model = small(context_dropout=0.5, guidance=QuantileGuidance(0.0), scaler=ZScore())
    seen = []
    model.denoiser.network.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["condition"]["covariates"]), with_kwargs=True
    )
    model.sample(2)
    assert seen[-1].shape == (2, C + H, 2)
    assert not seen[-1].any()
    model.forecast([series[0]], 3)
    shown, known = seen[-1][0].T
    assert known.tolist() == [1.0] * C + [0.0] * H
    assert not shown[C:].any()
    assert shown[:C].std() > 0.5
    batch = {"target": torch.randn(400, C + H, dtype=torch.float64), "level": torch.ones(400, dtype=torch.float64)}
    model.loss(batch, NoiseSource(0, range(400)))
    blank = (seen[-1] == 0).all(dim=(1, 2)).float().mean()
    assert 0.4 < blank < 0.6


def test_mistakes_are_named(series: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="list of one array"):
        small().forecast(series[0])
    with pytest.raises(ValueError, match="'s0' has no observed value"):
        small().forecast(entries([np.full(30, np.nan)]))
    with pytest.raises(ValueError, match="calendar"):
        small(calendar=("hour_of_day",)).forecast(series)
    with pytest.raises(ValueError, match="unknown calendar features"):
        small(calendar=("full_moon",)).forecast(entries(series))
    with pytest.raises(ValueError, match="num_samples"):
        small().forecast(series, 0)
    with pytest.raises(ValueError, match="unknown component 'medium'"):
        TSDiff(4, 8, scaler={"name": "medium"})
    with pytest.raises(ValueError, match="patch"):
        TSDiff(4, 8, patch=3)
