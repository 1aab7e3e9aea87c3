"""Time series: windows, scaling, self-guidance, forecasts, the GluonTS estimator, baselines, metrics and pictures."""

from typing import TYPE_CHECKING, Any

from .guidance import LineSearchGuidance, QuantileGuidance, SelfGuidance, SquaredErrorGuidance
from .scalers import Anchored, LongMean, Mean, Scaler, ZScore
from .tsdiff import TSDiff

if TYPE_CHECKING:
    from .estimator import TSDiffEstimator, TSDiffPredictor

__all__ = [
    "Anchored",
    "LineSearchGuidance",
    "LongMean",
    "Mean",
    "QuantileGuidance",
    "Scaler",
    "SelfGuidance",
    "SquaredErrorGuidance",
    "TSDiff",
    "TSDiffEstimator",
    "TSDiffPredictor",
    "ZScore",
]


def __getattr__(name: str) -> Any:
    # The estimator pulls in Lightning and GluonTS' torch half, which a model alone does not need.
    if name in ("TSDiffEstimator", "TSDiffPredictor"):
        from . import estimator

        return getattr(estimator, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
