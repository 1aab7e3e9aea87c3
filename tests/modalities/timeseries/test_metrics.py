"""Metrics against GluonTS; baselines against known numbers."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fourfold.data.timeseries import load_dataset
from fourfold.modalities.timeseries import baselines, metrics


@pytest.fixture
def forecasts() -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    rng = np.random.default_rng(3)
    past = [np.abs(rng.normal(size=60).cumsum()) + 1 for _ in range(7)]
    return rng.gamma(2.0, size=(7, 33, 12)), rng.gamma(2.0, size=(7, 12)), past


def test_metrics_equal_gluonts(forecasts: tuple[np.ndarray, np.ndarray, list[np.ndarray]]) -> None:
    from gluonts.evaluation import Evaluator
    from gluonts.model.forecast import SampleForecast

    samples, truth, past = forecasts
    truth[2, 5] = np.nan
    start = pd.Period("2020-01-01", freq="D")
    series = [
        pd.DataFrame(np.concatenate((p, y)), index=pd.period_range(start, periods=72, freq="D"))
        for p, y in zip(past, truth, strict=True)
    ]
    made = [SampleForecast(s, start_date=start + 60, item_id=str(i)) for i, s in enumerate(samples)]
    levels = [i / 10 for i in range(1, 10)]
    aggregate, _ = Evaluator(levels, num_workers=0, seasonality=7)(series, made)
    assert metrics.crps(samples, truth) == pytest.approx(aggregate["mean_wQuantileLoss"], rel=1e-12)
    assert metrics.nd(samples, truth) == pytest.approx(aggregate["ND"], rel=1e-12)
    ours = metrics.mase(samples, truth, metrics.seasonal_error(past, 7))
    assert ours == pytest.approx(aggregate["MASE"], rel=1e-12)
    for level, value in metrics.coverage(samples[[0, 1, 3, 4, 5, 6]], truth[[0, 1, 3, 4, 5, 6]], levels).items():
        covered = [(truth[i] <= made[i].quantile(level)).mean() for i in (0, 1, 3, 4, 5, 6)]
        assert value == pytest.approx(float(np.mean(covered)))


def test_perfect_and_point_forecasts(forecasts: tuple[np.ndarray, np.ndarray, list[np.ndarray]]) -> None:
    _, truth, _ = forecasts
    assert metrics.crps(truth[:, None], truth) == 0.0
    point = truth[:, None] * 1.1
    assert metrics.crps(point, truth) == pytest.approx(0.1) == pytest.approx(metrics.nd(point, truth))
    with pytest.raises(ValueError, match="no known value"):
        metrics.crps(point, np.full_like(truth, np.nan))


def test_seasonal_naive_skips_missing_values() -> None:
    series = np.array([1.0, 2.0, 3.0, 4.0, np.nan, 6.0])
    assert baselines.seasonal_naive([series], 5, 3)[0, 0].tolist() == [4.0, 2.0, 6.0, 4.0, 2.0]
    assert baselines.seasonal_naive([series[:2]], 3, 7)[0, 0].tolist() == [2.0, 2.0, 2.0]
    assert baselines.naive([np.array([1.0, 5.0, np.nan])], 2)[0, 0].tolist() == [5.0, 5.0]
    with pytest.raises(ValueError, match="observed"):
        baselines.naive([np.array([np.nan])], 2)


def test_random_walk_is_centred_and_depends_on_nothing_but_seed_and_series() -> None:
    rng = np.random.default_rng(0)
    upward = np.exp(0.01 * np.arange(400) + 0.02 * rng.normal(size=400))
    walk = baselines.bootstrap_random_walk([upward, upward - upward.mean()], 20, 4000, seed=1)
    log_end = np.log(walk[0, :, -1] / upward[-1])
    assert abs(log_end.mean()) < 0.01
    assert log_end.std() == pytest.approx(0.02 * np.sqrt(2 * 20), rel=0.15)
    assert np.array_equal(walk[:1], baselines.bootstrap_random_walk([upward], 20, 4000, seed=1))


def test_shapes_that_do_not_fit_are_refused() -> None:
    samples = np.ones((2, 3, 4))
    for truth in (np.ones((1, 4)), np.ones((2, 1)), np.ones((2, 3, 4)), np.ones(4), np.ones((3, 4))):
        for metric in (metrics.crps, metrics.nd, metrics.coverage, lambda s, t: metrics.mase(s, t, np.ones(2))):
            with pytest.raises(ValueError, match="do not fit each other"):
                metric(samples, truth)
    for shape in ((2, 0, 4), (2, 4), (1, 3, 4)):
        with pytest.raises(ValueError, match="do not fit each other"):
            metrics.crps(np.ones(shape), np.ones((2, 4)))
    with pytest.raises(ValueError, match="a scale for each of 2 series"):
        metrics.mase(samples, np.ones((2, 4)), np.ones(1))


def test_known_scores_on_exchange_rate(shared: Path) -> None:
    data = load_dataset("exchange_rate_nips", shared / "data" / "timeseries")
    past, truth = [e["target"] for e in data.inputs()], data.truth()
    assert truth.shape == (40, 30)
    assert len(data.train) == 8
    assert metrics.crps(baselines.seasonal_naive(past, 30, 5), truth) == pytest.approx(0.01075, abs=5e-6)
    assert metrics.crps(baselines.naive(past, 30), truth) == pytest.approx(0.00931, abs=5e-6)
    walks = [metrics.crps(baselines.bootstrap_random_walk(past, 30, 100, seed), truth) for seed in range(3)]
    assert np.mean(walks) == pytest.approx(0.0072, abs=1.5e-4)


@pytest.mark.filterwarnings("error")
def test_relative_errors_of_a_truth_of_zeros_are_not_defined() -> None:
    samples, truth = np.ones((2, 5, 3)), np.zeros((2, 3))
    assert np.isnan(metrics.crps(samples, truth))
    assert np.isnan(metrics.nd(samples, truth))
    assert np.isnan(metrics.mase(samples, truth, np.zeros(2)))
    assert metrics.mase(samples, truth, np.array([0.5, 0.0])) == 2
