"""What every forecasting model of this package offers, whatever is inside."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..adapter import Adapter
from .histories import History, histories

if TYPE_CHECKING:
    from gluonts.model.forecast import SampleForecast

__all__ = ["Forecaster"]


class Forecaster(Adapter):
    """A model of windows of series that forecasts.

    Attributes:
        prediction_length: horizon H in steps.
        context_length: context c in steps.
        lookback: steps before the context that a window needs as well (for lags).
        calendar: names of calendar covariates, see :data:`.calendar.CALENDAR_FEATURES`.
        dynamic_features: number of covariates known for the horizon too.
        static_features: number of covariates of the series.
    """

    prediction_length: int
    context_length: int
    lookback: int = 0
    calendar: tuple[str, ...] = ()
    dynamic_features: int = 0
    static_features: int = 0

    @abstractmethod
    def forecast_histories(
        self,
        known: Sequence[History],
        num_samples: int,
        *,
        seed: int = 0,
        steps: int | None = None,
        batch_rows: int = 512,
    ) -> Iterator[NDArray[np.float64]]:
        """Samples `(S, H)` of one series after the other.

        Args:
            known: the series.
            num_samples: S.
            seed: seed of the draws.
            steps: sampling steps, default the model's.
            batch_rows: samples per network call.

        Raises:
            ValueError: if a series has no observed value in its context, or dates are needed and missing.
        """

    def forecast(
        self,
        data: "Iterable[Mapping[str, Any]] | NDArray[np.floating] | Sequence[NDArray[np.floating]]",
        num_samples: int = 100,
        **options: Any,
    ) -> "list[SampleForecast] | NDArray[np.float64]":
        """Forecasts the `prediction_length` steps after the end of each series.

        Args:
            data: a GluonTS data set (entries with `target`, `start` and, optionally, `item_id`), or an array `(N, T)`,
                or a sequence of one-dimensional arrays.
            num_samples: S.
            options: as of :meth:`forecast_histories`.

        Returns:
            One `SampleForecast` per entry of a data set; samples `(N, S, H)` for arrays.

        Raises:
            ValueError: if a series has no observed value in its context, or dates are needed and missing.
        """
        known = list(histories(data))
        samples = self.forecast_histories(known, num_samples, **options)
        if known and known[0].start is None:
            return np.stack(list(samples))
        return [self.as_forecast(history, drawn) for history, drawn in zip(known, samples, strict=True)]

    def as_forecast(self, history: History, samples: NDArray[np.float64]) -> "SampleForecast":
        """GluonTS' forecast object of samples `(S, H)`, in float64: large values keep their small differences."""
        from gluonts.model.forecast import SampleForecast

        assert history.start is not None
        start = history.start + len(history.values)
        return SampleForecast(samples, start_date=start, item_id=history.item_id)

    def recent(self, history: History, context: int | None = None) -> NDArray[np.float64]:
        """The last lookback + context values of a series, NaN before its start.

        Args:
            history: the series.
            context: steps of context that are used, default all; those before them are NaN.

        Raises:
            ValueError: if there is no observed value in the context that is used.
        """
        used = self.context_length if context is None else context
        length = self.lookback + self.context_length
        values = history.values[-length:]
        if not np.isfinite(values[-used:]).any():
            raise ValueError(f"{history.name} has no observed value among its last {used}: it cannot be forecast")
        padded = np.pad(values, (length - len(values), 0), constant_values=np.nan)
        padded[self.lookback : length - used] = np.nan
        return padded
