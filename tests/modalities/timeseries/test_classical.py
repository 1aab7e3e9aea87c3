import numpy as np
import pytest

from fourfold.modalities.timeseries.classical import exponential_smoothing, theta

pytest.importorskip("statsmodels")


@pytest.mark.parametrize("method", [exponential_smoothing, theta], ids=lambda m: m.__name__)
def test_seasonal_series_are_forecast_with_their_season(method) -> None:
    rng = np.random.default_rng(0)
    wave = 20 + 5 * np.sin(2 * np.pi * np.arange(132) / 12)
    values = wave + 0.5 * rng.normal(size=132)
    past = values[:120].copy()
    past[50:53] = np.nan
    made = method([past, past[:5]], 12, 12, num_samples=200, seed=1)
    assert made.shape == (2, 200, 12)
    assert np.isfinite(made).all()
    assert np.abs(np.median(made[0], axis=0) - wave[120:]).max() < 1.2
    assert 0.3 < made[0].std(axis=0)[0] < 2.5
    assert np.array_equal(made, method([past, past[:5]], 12, 12, num_samples=200, seed=1))
    with pytest.raises(ValueError, match="without any observed value"):
        method([np.full(20, np.nan)], 3, 4)
