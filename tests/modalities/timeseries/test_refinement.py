"""Refinement of Gaussian data, where the expected energy is quadratic and its minimum known."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from gluonts.model.seasonal_naive import SeasonalNaivePredictor

sys.path.insert(0, str(Path(__file__).parent))

from oracles import covariance, draw, exact_model  # pyright: ignore[reportMissingImports]

from fourfold.core import NoiseSource
from fourfold.modalities.timeseries import (
    LangevinRefinement,
    MaximumLikelihoodRefinement,
    ReferenceTSDiff,
    Refinement,
    SquaredErrorGuidance,
    TSDiff,
    TSDiffPredictor,
    TSDiffRefiner,
)
from fourfold.modalities.timeseries.histories import histories
from fourfold.modalities.timeseries.refinement import noise_error, past_time, representative_time

H, C = 4, 12
L = H + C


def minimum(base: np.ndarray, tau: float, weight: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Where E || eps - eps_theta ||^2 + lambda || y - base ||^2 is smallest, and half its curvature.

    For N(0, S): eps_theta(x) = sigma M x with M = (alpha^2 S + sigma^2)^-1, so the mean of the first term over eps is
    alpha^2 sigma^2 y' M^2 y and a constant.
    """
    schedule = exact_model(H, C).denoiser.path.schedule
    t = torch.tensor(tau, dtype=torch.float64)
    alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
    m = np.linalg.inv(alpha**2 * covariance(L) + sigma**2 * np.eye(L))
    curvature = weight * np.eye(L) + alpha**2 * sigma**2 * m @ m
    return np.linalg.solve(curvature, weight * base), curvature


@pytest.mark.parametrize("tau", [0.1, 0.4])
def test_maximum_likelihood_finds_the_minimum_of_the_energy(tau: float) -> None:
    model, base = exact_model(H, C), 2 * draw(1, L, seed=2)
    rows = torch.from_numpy(np.repeat(base, 400, axis=0)).float().unsqueeze(-1)
    held = torch.ones_like(rows, dtype=torch.bool)
    method = Refinement(0.02, 300, 0.0, SquaredErrorGuidance())
    made = method.run(model.denoiser, rows, held, torch.full((400,), 0.5), tau, NoiseSource(0, range(400)))
    expected, _ = minimum(base[0], tau)
    assert np.abs(made[..., 0].mean(0).numpy() - expected).max() < 0.05
    assert np.abs(expected - base[0]).max() > 0.3


def test_langevin_noise_has_the_temperature_it_says() -> None:
    model, tau, kappa = exact_model(H, C), 0.02, 1.0
    rows, count = torch.zeros(3000, L, 1), 3000
    held = torch.ones_like(rows, dtype=torch.bool)
    # A strong regulariser, so that the noise of eps in the gradient hardly counts beside the Langevin noise.
    method = Refinement(0.002, 60, kappa, SquaredErrorGuidance(), weight=20.0)
    made = method.run(model.denoiser, rows, held, torch.full((count,), 0.5), tau, NoiseSource(0, range(count)))
    law = np.cov(made[..., 0].T.numpy())
    _, curvature = minimum(np.zeros(L), tau, 20.0)
    # y' = (1 - 2 eta A) y + sqrt(2 eta) kappa xi has the stationary covariance kappa^2 / 2 A^-1 (1 - eta A)^-1.
    expected = kappa**2 / 2 * np.linalg.inv(curvature @ (np.eye(L) - 0.002 * curvature))
    assert np.abs(law - expected).max() < 0.2 * expected.max()


def test_whole_window_is_held_and_missing_values_are_not() -> None:
    model = exact_model(H, C)
    past = draw(1, C, seed=5)[0]
    base = np.full((1, 3, H), 4.0)
    free = Refinement(0.05, 60, 0.0, SquaredErrorGuidance(), weight=0.0)
    held = Refinement(0.05, 60, 0.0, SquaredErrorGuidance(), weight=50.0 / 10)
    loose, tight = (np.asarray(model.refine([past], base, method=m, tau=0.2)) for m in (free, held))
    # the horizon, too, is held to the base forecast
    assert np.abs(tight - base).mean() < 0.3 * np.abs(loose - base).mean()
    gap = past.copy()
    gap[-3:] = np.nan
    made = np.asarray(model.refine([gap], base, method=held, tau=0.2))
    assert np.isfinite(made).all()
    assert not np.allclose(made, tight)


def test_refining_improves_a_poor_forecast_of_a_known_process() -> None:
    model, paths = exact_model(H, C), draw(60, C + H, seed=9)
    rng = np.random.default_rng(0)
    truth = paths[:, C:]
    poor = paths[:, None, C - 1 : C] + 1.5 * rng.normal(size=(60, 20, H))  # rough and too wide
    from fourfold.modalities.timeseries.metrics import crps

    before = crps(poor, truth)
    for method in (LangevinRefinement(), MaximumLikelihoodRefinement(), MaximumLikelihoodRefinement("squared")):
        after = crps(np.asarray(model.refine(list(paths[:, :C]), poor, method=method, tau=0.3)), truth)
        assert after < 0.95 * before


def test_representative_time_is_the_one_nearest_to_the_mean_loss() -> None:
    model = exact_model(H, C)
    x = torch.from_numpy(draw(2000, L)).float().unsqueeze(-1)
    times = [i / 10 for i in range(1, 11)]
    schedule, law = model.denoiser.path.schedule, covariance(L)
    losses = []
    for t in times:
        alpha, sigma = (float(f(torch.tensor(t, dtype=torch.float64))) for f in (schedule.alpha, schedule.sigma))
        # trace of the posterior covariance of x, in units of the noise
        losses.append(alpha**2 * np.trace(law @ np.linalg.inv(alpha**2 * law + sigma**2 * np.eye(L))) / L)
    error = [float(noise_error(model.denoiser, x, torch.tensor(t), torch.randn_like(x)).mean()) for t in (0.2, 0.7)]
    assert error == pytest.approx([losses[1], losses[6]], rel=0.03)
    expected = times[int(np.argmin(np.abs(np.array(losses) - np.mean(losses))))]
    assert representative_time(model.denoiser, x, times) == expected


def trained(horizon: int = H) -> TSDiff:
    torch.manual_seed(0)
    model = TSDiff(horizon, C, hidden=8, modes=2, blocks=1)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


def test_refiner_is_a_gluonts_predictor(tmp_path: Path) -> None:
    from gluonts.model.predictor import Predictor

    entries = [
        {"target": 10 + draw(1, 60, seed=i)[0], "start": pd.Period("2024-01-01", freq="h"), "item_id": f"s{i}"}
        for i in range(3)
    ]
    refiner = TSDiffRefiner(SeasonalNaivePredictor(H, season_length=6), trained(), num_samples=7)
    made = list(refiner.predict(entries))
    assert [f.samples.shape for f in made] == [(7, H)] * 3
    assert [f.item_id for f in made] == ["s0", "s1", "s2"]
    assert made[0].start_date == pd.Period("2024-01-01", freq="h") + 60
    assert {f.num_samples for f in refiner.predict(entries, num_samples=3)} == {3}
    refiner.serialize(tmp_path)
    loaded = Predictor.deserialize(tmp_path)
    assert isinstance(loaded, TSDiffRefiner)
    for ours, theirs in zip(made, loaded.predict(entries), strict=True):
        assert np.array_equal(ours.samples, theirs.samples)
    # a base predictor with samples of its own
    inner = TSDiffRefiner(refiner, trained(), num_samples=5)
    assert next(iter(inner.predict(entries))).samples.shape == (5, H)
    with pytest.raises(ValueError, match="forecasts 6 steps, the model 4"):
        TSDiffRefiner(SeasonalNaivePredictor(6, season_length=6), trained())


def named(count: int, names: bool = True) -> list[dict[str, Any]]:
    """Series of different lengths and levels."""
    series = [10 * (i + 1) + (1 + i) * draw(1, 30 + 7 * i, seed=i)[0] for i in range(count)]
    start = pd.Period("2024-01-01", freq="h")
    return [{"target": s, "start": start, **({"item_id": f"s{i}"} if names else {})} for i, s in enumerate(series)]


@pytest.mark.parametrize(
    ("base", "tau", "names"), [("points", None, True), ("samples", None, False), ("points", 0.2, False)]
)
def test_a_refined_forecast_depends_on_its_series_alone(base: str, tau: float | None, names: bool) -> None:
    inner: Any = SeasonalNaivePredictor(H, season_length=6)
    if base == "samples":
        inner = TSDiffPredictor(trained(), num_samples=3, steps=1)
    method, entries = LangevinRefinement(iterations=2), named(4, names)
    refiner = TSDiffRefiner(inner, trained(), method, tau=tau, num_samples=3)
    expected = [f.samples for f in refiner.predict(entries)]
    for some, rows in ((entries, 1), (entries, 6), (iter(entries), 6), (entries[:2], 512)):
        made = [f.samples for f in refiner.predict(some, batch_rows=rows)]
        np.testing.assert_allclose(made, expected[: len(made)], rtol=1e-5)
    assert len(made) == 2
    if base == "samples":
        forecasts = list(inner.predict(entries))
        direct = trained().refine(entries, forecasts, method=method, tau=tau, batch_rows=4)
        np.testing.assert_allclose([f.samples for f in direct], expected, rtol=1e-5)


def test_the_step_is_chosen_on_the_past_of_each_series() -> None:
    model, smooth, rough = exact_model(H, C), np.zeros(60), 1.5 * np.random.default_rng(0).normal(size=60)
    known = list(histories([smooth, rough, draw(1, 10)[0]]))
    alone = [past_time(model, [history]) for history in known]
    assert alone[0] != alone[1]
    base = np.random.default_rng(1).normal(size=(3, 5, H))
    made = np.asarray(model.refine([h.values for h in known], base))
    for i, tau in enumerate(alone):
        fixed = np.asarray(model.refine([h.values for h in known], base, tau=tau))
        np.testing.assert_allclose(made[i], fixed[i], atol=1e-5)
        assert i == 2 or not np.allclose(made[1 - i], fixed[1 - i], atol=1e-3)


def test_refined_samples_come_in_an_order_of_their_own_for_each_series() -> None:
    model, past = exact_model(H, C), list(draw(30, 20))
    base = np.sort(np.random.default_rng(0).normal(size=(30, 8, H)), axis=1)
    made = np.asarray(model.refine(past, base, method=Refinement(iterations=0), tau=0.2))
    np.testing.assert_allclose(np.sort(made, axis=1), base, atol=1e-5)
    order = made.argsort(axis=1)
    # a sample keeps its level of the base throughout the horizon
    assert (order == order[:, :, :1]).all()
    assert len({tuple(row) for row in order[:, :, 0]}) == 30


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"expected base forecasts of shape \(1, S, 4\)"):
        trained().refine([draw(1, 40)[0]], np.zeros((1, 3, 5)))
    with pytest.raises(ValueError, match=r"a series has no window of the past .* give it as tau"):
        trained().refine([draw(1, H)[0]], np.zeros((1, 3, H)))
    for tau in (0.0, -0.1, 1.5, 20, float("nan")):
        with pytest.raises(ValueError, match=r"tau, .*, must be in \(0, 1\], got"):
            trained().refine([draw(1, 40)[0]], np.zeros((1, 3, H)), tau=tau)
        with pytest.raises(ValueError, match=r"must be in \(0, 1\]"):
            TSDiffRefiner(SeasonalNaivePredictor(H, season_length=6), trained(), tau=tau)
    with pytest.raises(TypeError, match="needs a TSDiff, which can refine; ReferenceTSDiff cannot"):
        TSDiffRefiner(SeasonalNaivePredictor(H, season_length=6), ReferenceTSDiff(H, C, hidden=8, modes=4))  # pyright: ignore
    refiner = TSDiffRefiner(SeasonalNaivePredictor(H, season_length=6), trained())
    with pytest.raises(ValueError, match="num_samples must be at least 1, got 0"):
        next(refiner.predict([], num_samples=0))
    with pytest.raises(ValueError, match="num_samples must be at least 1, got 0"):
        TSDiffRefiner(SeasonalNaivePredictor(H, season_length=6), trained(), num_samples=0)
    with pytest.raises(ValueError, match=r"expected base forecasts of shape \(1, S, 4\)"):
        trained().refine([draw(1, 40)[0]], np.zeros((1, 0, H)))
    with pytest.raises(ValueError, match="unknown regularizer"):
        LangevinRefinement("cubic")
    with pytest.raises(ValueError, match="step_size must be positive"):
        LangevinRefinement(step_size=0)
