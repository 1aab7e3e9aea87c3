r"""Exponential smoothing and the theta method, from statsmodels, as samples.

Both are fitted to the end of each series alone, with an additive season. Exponential smoothing (error, damped trend,
season) draws paths from the fitted state space model. The theta method gives a mean and a standard deviation per step
(of a local level with drift), from which samples are drawn independently: enough for the quantiles of every step.

Sources: `Hyndman et al. 2002 <https://doi.org/10.1016/S0169-2070(01)00110-8>`_; `Assimakopoulos and Nikolopoulos 2000
<https://doi.org/10.1016/S0169-2070(00)00066-2>`_.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .drawing import check_count

__all__ = ["exponential_smoothing", "theta"]


def exponential_smoothing(
    past: Sequence[NDArray[np.floating]], horizon: int, season: int, num_samples: int = 100, seed: int = 0
) -> NDArray[np.float64]:
    """Paths of ETS(A, Ad, A), without season where a series is shorter than two.

    Args:
        past: N one-dimensional arrays, NaN where missing (filled linearly).
        horizon: H.
        season: length of the season in steps, 1 for none.
        num_samples: S.
        seed: seed of the paths.

    Returns:
        Shape `(N, S, H)`.

    Raises:
        ModuleNotFoundError: without statsmodels.
    """
    check_count(num_samples)
    from statsmodels.tsa.exponential_smoothing.ets import ETSModel  # pyright: ignore[reportMissingImports]

    forecasts = []
    for index, series in enumerate(past):
        values = _recent(series, season)
        seasonal = "add" if 1 < season <= len(values) // 2 else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # short or constant series: what it converged to is what is wanted
            model = ETSModel(
                values,
                trend="add",
                damped_trend=True,
                seasonal=seasonal,
                seasonal_periods=season if seasonal else None,
                # Fitting the 48 initial states of a season of 48 takes minutes and changes little at the end.
                initialization_method="heuristic" if len(values) >= 10 else "estimated",
            )
            fitted: Any = model.fit(disp=False, maxiter=200)
            generator = np.random.default_rng((seed, index))
            # Errors are passed, not a seed: the name of its argument differs between versions.
            errors = generator.normal(scale=float(fitted.scale) ** 0.5, size=(horizon, num_samples))
            drawn = fitted.simulate(horizon, anchor="end", repetitions=num_samples, random_errors=errors)
        forecasts.append(np.asarray(drawn).reshape(horizon, num_samples).T)
    return np.stack(forecasts)


def theta(
    past: Sequence[NDArray[np.floating]], horizon: int, season: int, num_samples: int = 100, seed: int = 0
) -> NDArray[np.float64]:
    """Samples of the theta method; arguments as of :func:`exponential_smoothing`."""
    check_count(num_samples)
    from statsmodels.tsa.forecasting.theta import ThetaModel  # pyright: ignore[reportMissingImports]

    forecasts = []
    for index, series in enumerate(past):
        values = _recent(series, season)
        seasonal = 1 < season <= len(values) // 2
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fitted = ThetaModel(
                values, period=season if seasonal else 1, deseasonalize=seasonal, method="additive"
            ).fit()
            mean = np.asarray(fitted.forecast(horizon))
            band = np.asarray(fitted.prediction_intervals(horizon, alpha=0.3173))
        spread = (band[:, 1] - band[:, 0]) / 2  # the central 68.27 % of a normal law is one standard deviation each way
        noise = np.random.default_rng((seed, index)).normal(size=(num_samples, horizon))
        forecasts.append(mean + spread * noise)
    return np.stack(forecasts)


def _recent(series: NDArray[np.floating], season: int) -> NDArray[np.float64]:
    """The last eight seasons (at least 250 steps), gaps filled linearly."""
    values = np.asarray(series, dtype=np.float64)[-max(8 * season, 250) :]
    known = np.isfinite(values)
    if not known.any():
        raise ValueError("a series without any observed value cannot be forecast")
    return np.interp(np.arange(len(values)), np.flatnonzero(known), values[known])
