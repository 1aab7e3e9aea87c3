"""The bound of the likelihood against the exact one; planted anomalies."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from oracles import covariance, draw, exact_model  # pyright: ignore[reportMissingImports]

from fourfold.core import NoiseSource, StraightGrid
from fourfold.modalities.timeseries.anomalies import bound

H, C = 4, 12


def test_bound_is_the_likelihood_of_gaussian_data() -> None:
    model = exact_model(H, C)
    schedule, finest = model.denoiser.path.schedule, 0.02
    x = torch.from_numpy(np.concatenate((draw(4, H + C), 2 * draw(2, H + C, seed=1)))).unsqueeze(-1)
    times = StraightGrid(end=finest)(schedule, 400)
    made = bound(model.denoiser, x, times, NoiseSource(0, range(6)), draws=8).sum((1, 2)).numpy()

    def energy(t: float) -> np.ndarray:
        """Negative log-likelihood of x under the data blurred to the noise of t, averaged over that noise."""
        moment = torch.tensor(t, dtype=torch.float64)
        ratio = float((schedule.sigma(moment) / schedule.alpha(moment)) ** 2)
        law = covariance(H + C) + ratio * np.eye(H + C)
        quadratic = ((x[..., 0].numpy() @ np.linalg.inv(law)) * x[..., 0].numpy()).sum(1)
        return 0.5 * (quadratic + ratio * np.trace(np.linalg.inv(law)) + np.linalg.slogdet(law)[1])

    # what the levels between t = 1 and the finest tell, whatever the constant
    exact = energy(finest) - energy(1.0)
    assert made - made.mean() == pytest.approx(exact - exact.mean(), abs=0.04 * np.ptp(exact))


def test_planted_anomalies_are_found() -> None:
    series = draw(3, 96, seed=4)
    clean = exact_model(H, C).anomaly_score(list(series))
    planted = [(0, 30), (1, 50), (2, 95), (2, 0)]
    for number, place in planted:
        series[number, place] += 3.5
    scores = exact_model(H, C).anomaly_score(list(series))
    for number in range(3):
        places = {place for which, place in planted if which == number}
        worst = np.argsort(scores[number])[::-1]
        assert places <= set(worst[:4].tolist())
        assert scores[number][list(places)].min() > 3 * np.quantile(np.abs(clean[number]), 0.95)


def test_missing_values_have_no_score_and_short_series_are_refused() -> None:
    series = draw(1, 40)[0]
    series[7:9] = np.nan
    (score,) = exact_model(H, C).anomaly_score([series])
    assert np.flatnonzero(np.isnan(score)).tolist() == [7, 8]
    assert score.shape == (40,)
    with pytest.raises(ValueError, match="a window has 16 steps"):
        exact_model(H, C).anomaly_score([series[:12]])
    with pytest.raises(ValueError, match="a series has no observed value: there is nothing to judge"):
        exact_model(H, C).anomaly_score([series, np.full(40, np.nan)])
