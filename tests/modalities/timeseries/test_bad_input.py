"""Series no model was made for: what happens is defined, and nothing is silently wrong."""

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from oracles import draw, exact_model  # pyright: ignore[reportMissingImports]

from fourfold.core import NoiseSource
from fourfold.modalities.timeseries import (
    Anchored,
    LongMean,
    Mean,
    QuantileGuidance,
    ReferenceTSDiff,
    TSDiff,
    TSDiffEstimator,
    TSDiffPredictor,
    ZScore,
)
from fourfold.modalities.timeseries.baselines import bootstrap_random_walk
from fourfold.modalities.timeseries.windows import split_series

H, C = 4, 12
SCALERS = (Mean(), Anchored(), ZScore(), LongMean())


def small(**kwargs: Any) -> TSDiff:
    torch.manual_seed(0)
    model = TSDiff(H, C, hidden=8, blocks=1, modes=2, sampling_steps=4, **kwargs)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def entry(values: np.ndarray, name: str = "a", freq: str = "h") -> dict[str, Any]:
    return {"target": values, "start": pd.Period("2024-01-01", freq=freq), "item_id": name}


@pytest.mark.parametrize("scaler", SCALERS, ids=lambda s: s.name)
@pytest.mark.parametrize(
    "values",
    [np.zeros(30), np.full(30, 7.0), np.full(30, -3e7), -1000 + draw(1, 30)[0], 1e12 * (5 + draw(1, 30)[0])],
    ids=["zeros", "constant", "negative constant", "negative", "very large"],
)
def test_every_verb_stays_finite(scaler: Any, values: np.ndarray) -> None:
    model = small(scaler=scaler)
    gap = values.copy()
    gap[10:13] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        forecast = np.asarray(model.forecast([values], 5))
        (filled,) = model.impute([gap], 5)
        refined = np.asarray(model.refine([values], forecast, tau=0.2))
        (score,) = model.anomaly_score([values], steps=3, draws=1)
    for made in (forecast, filled.samples, refined, score):
        assert np.isfinite(made).all()
    target = torch.from_numpy(values[: C + H])[None].repeat(3, 1)
    loss = model.loss({"target": target, "level": target.abs().mean(1)}, NoiseSource(0, range(3)))
    assert torch.isfinite(loss).all()


@pytest.mark.parametrize("scaler", SCALERS, ids=lambda s: s.name)
def test_forecasts_are_in_the_units_of_the_series_whatever_they_are(scaler: Any) -> None:
    values = 20 + draw(1, 30)[0]
    one = np.asarray(small(scaler=scaler).forecast([values], 5))
    for factor in (1e-12, 1e12):
        other = np.asarray(small(scaler=scaler).forecast([factor * values], 5))
        np.testing.assert_allclose(other, factor * one, rtol=1e-3)


@pytest.mark.parametrize("scaler", [ZScore(), Anchored()], ids=lambda s: s.name)
def test_constant_series_are_forecast_as_constant(scaler: Any) -> None:
    made = np.asarray(small(scaler=scaler).forecast([np.full(30, 500.0)], 20))
    assert np.abs(made - 500).max() < 500 * 1e-3


def test_the_published_model_takes_zeros_and_large_values() -> None:
    torch.manual_seed(0)
    model = ReferenceTSDiff(H, C, lags=(6,), hidden=8, modes=4).eval()
    for values in (np.zeros(40), np.full(40, -2.0), 1e12 * np.arange(1.0, 41.0)):
        assert np.isfinite(np.asarray(model.forecast([values], 3, steps=5))).all()


@pytest.mark.parametrize(("offset", "unit"), [(1e9, 1.0), (-1e6, 0.1), (0.0, 1e39), (0.0, 1e-50)])
def test_forecast_objects_keep_what_a_series_is_made_of(offset: float, unit: float) -> None:
    values = unit * draw(1, 30)[0]
    model = small()
    (made,) = model.forecast([entry(offset + values)], 5)
    for drawn in (made.samples, model.refine([entry(offset + values)], [made], tau=0.2)[0].samples):  # pyright: ignore
        assert drawn.dtype == np.float64
        assert np.isfinite(drawn).all()
        assert len(np.unique(drawn)) == drawn.size
        assert 0.1 * unit < drawn.std() < 10 * unit


def test_a_shortened_context_without_a_value_is_refused() -> None:
    values = 10 + draw(1, 30)[0]
    values[-6:] = np.nan
    model = small()
    assert np.isfinite(np.asarray(model.forecast([values], 3))).all()
    assert np.isfinite(np.asarray(model.forecast([values], 3, context_length=7))).all()
    with pytest.raises(ValueError, match="a series has no observed value among its last 6: it cannot be forecast"):
        model.forecast([values], 3, context_length=6)
    with pytest.raises(ValueError, match="the series 'a' has no observed value among its last 6"):
        model.forecast([entry(values)], 3, context_length=6)
    np.testing.assert_array_equal(
        model.forecast([values[:-6]], 3, context_length=6), model.forecast([values[6:-6]], 3, context_length=6)
    )


def test_no_samples_are_refused() -> None:
    values, model, predictor = 10 + draw(1, 30)[0], small(), TSDiffPredictor(small(), steps=1)
    reference = ReferenceTSDiff(H, C, hidden=8, modes=4)
    calls: list[Callable[[], Any]] = [
        lambda: model.forecast([values], 0),
        lambda: model.sample(0),
        lambda: model.impute([values], 0),
        lambda: model.choose_steps([values], num_samples=0),
        lambda: reference.forecast([values], 0),
        lambda: reference.sample(0),
        lambda: next(predictor.predict([entry(values)], num_samples=0)),
        lambda: TSDiffPredictor(model, num_samples=0),
        lambda: TSDiffEstimator("h", H, num_samples=0),
        lambda: bootstrap_random_walk([values], H, 0),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="num_samples must be at least 1, got 0"):
            call()


def test_unseen_series_and_series_of_one_value_are_forecast() -> None:
    model = small(calendar=("hour_of_day",))
    made = model.forecast([entry(5 + draw(1, 30)[0], "never seen"), entry(np.array([3.0]), "one value")], 6)
    assert [f.item_id for f in made] == ["never seen", "one value"]  # pyright: ignore
    assert all(np.isfinite(f.samples).all() for f in made)  # pyright: ignore


def test_mixed_frequencies_are_refused() -> None:
    mixed = [entry(np.arange(30.0), "hourly"), entry(np.arange(30.0), "daily", "D")]
    with pytest.raises(ValueError, match="item daily has the frequency 'D', the series before it 'h'"):
        small().forecast(mixed, 3)
    with pytest.raises(ValueError, match="a model has one frequency"):
        split_series(mixed, C, H, 0)


def assert_exchangeable(values: np.ndarray) -> None:
    """The rank of a sample among its fellows says nothing about its number: one value `(300, 8)` of each of 8 samples
    of 300 series."""
    ranks = values.argsort(axis=1).argsort(axis=1)
    # Ranks 0 ... 7 have the standard deviation 2.29; of a mean of 300 it is 0.13.
    assert np.abs(ranks.mean(axis=0) - 3.5).max() < 4 * 0.13
    assert np.abs(np.corrcoef(ranks.T)[np.triu_indices(8, 1)] + 1 / 7).max() < 0.25


@pytest.mark.parametrize("options", [{}, {"sign_flip": True}], ids=str)
def test_no_sample_is_tied_to_a_quantile(options: dict[str, bool]) -> None:
    model, past, guidance = exact_model(H, C, **options), draw(300, 20), QuantileGuidance(4.0)
    made = np.asarray(model.forecast(list(past), 8, steps=20, guidance=guidance, prediction_length=2 * H))
    assert_exchangeable(made[:, :, 0])
    assert_exchangeable(made[:, :, -1])
    past[:, 12:15] = np.nan
    filled = np.stack([i.samples for i in model.impute(list(past), 8, steps=20, guidance=guidance)])
    assert_exchangeable(filled[:, :, 13])
    base = np.random.default_rng(0).normal(size=(300, 8, H))
    assert_exchangeable(np.asarray(model.refine(list(past), base, tau=0.2))[:, :, 0])


def test_steps_are_chosen_by_what_more_of_them_gain() -> None:
    model, series = exact_model(H, C), list(draw(40, 30, seed=2))
    few = model.choose_steps(series, candidates=(1, 2, 5, 10, 20, 40))
    assert few in (2, 5, 10, 20)
    assert model.choose_steps(series, candidates=(1, 2, 5, 10, 20, 40), tolerance=0.9) == 1
    assert model.choose_steps(series) == model.choose_steps(series)
    with pytest.raises(ValueError, match="ascending"):
        model.choose_steps(series, candidates=(10, 5))
    with pytest.raises(ValueError, match="nothing to judge by"):
        model.choose_steps([np.full(30, np.nan)])
