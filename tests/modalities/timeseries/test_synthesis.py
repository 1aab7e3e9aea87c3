"""Synthetic windows, and what they are worth: linear scores against a library, memorisation of planted copies."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from oracles import covariance, draw, exact_model  # pyright: ignore[reportMissingImports]

from fourfold.modalities.timeseries import Anchored, TSDiff, linear_predictive_score, metrics
from fourfold.modalities.timeseries.predictive_scores import RidgeForecaster, memorisation, train_on_synthetic
from fourfold.modalities.timeseries.synthesis import real_windows

H, C = 4, 12


def test_windows_have_the_law_of_the_process() -> None:
    made = exact_model(H, C).synthesize(3000, steps=100)
    assert made.values.shape == (3000, H + C)
    assert np.abs(np.cov(made.values.T) - covariance(H + C)).max() < 0.12
    again = [exact_model(H, C).synthesize(700, steps=5, batch_rows=300).values for _ in range(2)]
    assert np.array_equal(*again)
    assert len(np.unique(again[0][:, 0])) == 700  # no batch repeats another one


def test_export_and_units() -> None:
    model = TSDiff(H, C, scaler=Anchored(), hidden=4, modes=2, blocks=1, minimum=0.0)
    like = [100 + 5 * draw(1, 80, seed=i)[0] for i in range(3)]
    made = model.synthesize(40, like=like)
    assert not made.scaled
    assert 60 < made.values.mean() < 140
    assert made.values.min() >= 0
    frame = made.frame("D")
    assert list(frame.columns) == ["item_id", "time", "value"]
    assert len(frame) == 40 * 16
    entries = made.entries("D")
    assert entries[1]["start"] == pd.Period("2000-01-01", freq="D")
    assert len(entries) == len(made) == 40
    assert np.isfinite(np.asarray(model.forecast([e["target"] for e in entries[:2]], 3))).all()
    with pytest.raises(ValueError, match="no series holds a window of 16"):
        model.synthesize(3, like=[np.ones(10)])
    with pytest.raises(ValueError, match="num_windows"):
        model.synthesize(0)
    with pytest.raises(ValueError, match="calendar"):
        TSDiff(H, C, hidden=4, modes=2, calendar=("hour_of_day",)).synthesize(2)


def test_ridge_equals_a_least_squares_solution_and_the_score_is_nd() -> None:
    rng = np.random.default_rng(0)
    windows = rng.normal(size=(200, 9)) + 3
    x, y = windows[:, :6], windows[:, 6:]
    # alpha = 1 as one more observation per weight, with the intercept as a column that is not penalised
    rows = np.concatenate((np.c_[x, np.ones(200)], np.c_[np.eye(6), np.zeros(6)]))
    solution = np.linalg.lstsq(rows, np.concatenate((y, np.zeros((6, 3)))), rcond=None)[0]
    made = RidgeForecaster.fit(windows, 6)
    np.testing.assert_allclose(np.r_[made.weights, made.intercept[None]], solution, atol=1e-10)
    real = 50 * (rng.normal(size=(30, 9)) + 3)
    scale = np.abs(real[:, :6]).mean(1, keepdims=True)
    forecast = (np.c_[real[:, :6] / scale, np.ones(30)] @ solution) * scale
    expected = np.abs(forecast - real[:, 6:]).sum() / np.abs(real[:, 6:]).sum()
    assert linear_predictive_score(windows, real, 6) == pytest.approx(expected)
    assert metrics.linear_predictive_score is linear_predictive_score
    with pytest.raises(ValueError, match="missing"):
        RidgeForecaster.fit(np.full((5, 9), np.nan), 6)
    with pytest.raises(ValueError, match="horizon"):
        RidgeForecaster.fit(windows, 9)


def test_synthetic_windows_of_the_right_law_train_as_well_as_real_ones() -> None:
    def positive(seed: int, count: int) -> np.ndarray:
        return 10 + draw(count, H + C, seed=seed)

    table = train_on_synthetic(positive(1, 2000), positive(2, 2000), positive(3, 500), C)
    assert table["trained on synthetic"] == pytest.approx(table["trained on real"], rel=0.02)
    shuffled = np.random.default_rng(0).permuted(positive(1, 2000), axis=1)
    worse = train_on_synthetic(shuffled, positive(2, 2000), positive(3, 500), C)
    assert worse["trained on synthetic"] > 1.2 * table["trained on real"]


def test_memorisation_tells_copies_from_fresh_windows() -> None:
    training, held_out = draw(400, 16, seed=0), draw(400, 16, seed=1)
    fresh = memorisation(draw(300, 16, seed=2), training, held_out)
    assert fresh.share_nearer_to_training == pytest.approx(0.5, abs=0.1)
    assert fresh.copies < 0.06
    noise = 0.01 * np.random.default_rng(0).normal(size=(300, 16))
    copied = memorisation(training[:300] + noise, training, held_out)
    assert copied.share_nearer_to_training > 0.95
    assert copied.copies > 0.95
    assert copied.to_training.max() < 0.03
    with pytest.raises(ValueError, match="same length"):
        memorisation(training, training, held_out[:, :5])


def test_real_windows_are_whole_and_scaled() -> None:
    series = [np.arange(1.0, 41.0), np.r_[np.ones(9), np.nan, np.ones(3)]]
    windows = real_windows(series, 8, 200, context=4)
    assert windows.shape == (200, 8)
    assert np.isfinite(windows).all()
    np.testing.assert_allclose(np.abs(windows[:, :4]).mean(1), 1)
    with pytest.raises(ValueError, match="complete"):
        real_windows([series[1]], 12, 3)


def test_windows_take_dates_and_covariates_of_real_ones() -> None:
    torch.manual_seed(0)
    model = TSDiff(H, C, scaler=Anchored(), hidden=4, modes=2, blocks=1, calendar=("hour_of_day",), dynamic_features=1)
    like = [
        {
            "target": 100 + draw(1, 60, seed=i)[0],
            "start": pd.Period("2024-01-01 05:00", freq="h") + i,
            "item_id": f"s{i}",
            "feat_dynamic_real": 1000 * i + np.arange(60.0),
        }
        for i in range(2)
    ]
    seen: list[torch.Tensor] = []
    model.denoiser.network.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["condition"]["covariates"]), with_kwargs=True
    )
    made = model.synthesize(30, like=like, steps=2)
    told = seen[-1][:, 0]  # of the first step of every window
    assert made.starts is not None
    for start, covariates in zip(made.starts, told, strict=True):
        series, place = divmod(int(covariates[-1]), 1000)
        assert start == like[series]["start"] + place
        angle = 2 * np.pi * (start.hour / 23 - 0.5)
        assert covariates[:2].tolist() == pytest.approx([np.sin(angle), np.cos(angle)], abs=1e-5)
    assert len({str(start) for start in made.starts}) > 10
    assert made.frame()["time"].iloc[16] == made.starts[1].to_timestamp()
    assert [e["start"] for e in made.entries()] == list(made.starts)
    whole, pieces = (model.synthesize(9, like=like, steps=2, batch_rows=rows).values for rows in (512, 4))
    np.testing.assert_allclose(pieces, whole, rtol=1e-5)
    with pytest.raises(ValueError, match="takes covariates of its series"):
        model.synthesize(3, start=pd.Period("2024-01-01", freq="h"))
