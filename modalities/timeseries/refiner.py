"""A GluonTS predictor around another one: its forecasts, refined."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from inspect import signature
from itertools import islice, tee
from pathlib import Path
from typing import Any

import numpy as np
from gluonts.model.forecast import Forecast, SampleForecast
from gluonts.model.predictor import Predictor
from numpy.typing import NDArray

from ..components import build, describe
from .components import GUIDANCES
from .drawing import check_count
from .histories import histories
from .refinement import LangevinRefinement, Refinement, check_tau, refine_histories
from .tsdiff import TSDiff

__all__ = ["TSDiffRefiner"]


class TSDiffRefiner(Predictor):
    """Refines the forecasts of any GluonTS predictor.

    Args:
        base_predictor: makes the forecasts; its prediction length must be the model's.
        model: the diffusion model.
        method: default Langevin dynamics with the quantile regulariser.
        tau: time in (0, 1] at which the likelihood is judged, for all series; default: chosen on the past of each
            series by itself, see :func:`.refinement.past_time`.
        num_samples: samples per forecast asked of the base predictor where `predict` is not told.
        seed: seed of the noise.

    Raises:
        TypeError: for a model of another kind.
        ValueError: if the horizons differ, tau is not a time, or num_samples is less than 1.
    """

    def __init__(
        self,
        base_predictor: Predictor,
        model: TSDiff,
        method: Refinement | None = None,
        tau: float | None = None,
        num_samples: int = 100,
        seed: int = 0,
    ) -> None:
        if not isinstance(model, TSDiff):
            raise TypeError(f"TSDiffRefiner needs a TSDiff, which can refine; {type(model).__name__} cannot")
        check_tau(tau)
        check_count(num_samples)
        if base_predictor.prediction_length != model.prediction_length:
            raise ValueError(
                f"the base predictor forecasts {base_predictor.prediction_length} steps, the model "
                f"{model.prediction_length}"
            )
        super().__init__(prediction_length=model.prediction_length)
        self.base_predictor, self.model = base_predictor, model.eval()
        self.method = method or LangevinRefinement()
        self.tau, self.num_samples, self.seed = tau, num_samples, seed

    def predict(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, dataset: Iterable[Mapping[str, Any]], num_samples: int | None = None, batch_rows: int = 512, **kwargs: Any
    ) -> Iterator[SampleForecast]:
        """One refined forecast per entry, in order; point forecasts become `num_samples` samples.

        A forecast depends on the seed, its base forecast and its series alone: the noise is keyed by `item_id` and the
        date the forecast starts at, or by the position in `dataset` where there is no `item_id`.

        Args:
            dataset: GluonTS entries, read as they are needed.
            num_samples: default that of the refiner.
            batch_rows: samples per network call.
            kwargs: passed to the base predictor.
        """
        count = self.num_samples if num_samples is None else num_samples
        check_count(count)
        # A data set that can be read once only is read for the base predictor and for the refinement together.
        theirs, ours = tee(dataset) if isinstance(dataset, Iterator) else (dataset, dataset)
        pairs = zip(histories(ours), self._base(theirs, count, kwargs), strict=True)
        while group := list(islice(pairs, max(1, batch_rows // count))):
            known = [history for history, _ in group]
            drawn = refine_histories(
                self.model,
                known,
                np.stack([_samples_of(forecast, count) for _, forecast in group]),
                method=self.method,
                tau=self.tau,
                seed=self.seed,
                batch_rows=batch_rows,
            )
            for history, samples in zip(known, drawn, strict=True):
                yield self.model.as_forecast(history, samples)

    def serialize(self, path: Path) -> None:
        """Writes base predictor, model and settings into an existing folder."""
        path = Path(path)
        super().serialize(path)
        (path / "base").mkdir(exist_ok=True)
        self.base_predictor.serialize(path / "base")
        self.model.save(path / "model")
        method = {**asdict(self.method), "regularizer": describe(self.method.regularizer, GUIDANCES)}
        settings = {"method": method, "tau": self.tau, "num_samples": self.num_samples, "seed": self.seed}
        (path / "refiner.json").write_text(json.dumps(settings), encoding="utf-8")

    @classmethod
    def deserialize(cls, path: Path, device: Any = None, **kwargs: Any) -> "TSDiffRefiner":
        """Reads a folder written by :meth:`serialize`."""
        path = Path(path)
        settings = json.loads((path / "refiner.json").read_text(encoding="utf-8"))
        method = settings.pop("method")
        method = Refinement(**{**method, "regularizer": build(method["regularizer"], GUIDANCES)})
        model = TSDiff.load(path / "model")
        if device is not None and str(device) != "auto":
            model.to(device)
        return cls(Predictor.deserialize(path / "base"), model, method, **settings)

    def _base(self, dataset: Iterable[Any], count: int, kwargs: dict[str, Any]) -> Iterator[Forecast]:
        takes = signature(self.base_predictor.predict).parameters
        # Predictors of points and quantiles take no number of samples.
        asked = {"num_samples": count} if "num_samples" in takes else {}
        return iter(self.base_predictor.predict(dataset, **asked, **kwargs))  # pyright: ignore[reportArgumentType]


def _samples_of(forecast: Forecast, count: int) -> NDArray[np.float64]:
    """Exactly `count` samples `(S, H)`: quantiles (i + 1)/(count + 1) of the forecast, whatever its kind."""
    drawn = getattr(forecast, "samples", None)
    if drawn is None or len(drawn) != count:
        drawn = np.stack([np.asarray(forecast.quantile((i + 1) / (count + 1))) for i in range(count)])
    return np.asarray(drawn, dtype=np.float64)
