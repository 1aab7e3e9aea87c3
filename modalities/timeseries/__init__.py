"""Time series: windows, scaling, self-guidance, forecasts, the GluonTS estimator, baselines, metrics and pictures."""

from typing import TYPE_CHECKING, Any

from .forecaster import Forecaster
from .guidance import LineSearchGuidance, QuantileGuidance, SelfGuidance, SquaredErrorGuidance
from .masks import ContextMasks, RandomMasks
from .moment_matching import MomentMatchingGuidance
from .multivariate import MultivariateTSDiff
from .predictive_scores import linear_predictive_score
from .reference_guidance import CodedSampler, DDIMSampler, PaperSampler
from .reference_tsdiff import ReferenceTSDiff
from .refinement import LangevinRefinement, MaximumLikelihoodRefinement, Refinement
from .scalers import Anchored, LongMean, Mean, Scaler, ZScore
from .tsdiff import TSDiff

if TYPE_CHECKING:
    from .estimator import TSDiffEstimator, TSDiffPredictor
    from .refiner import TSDiffRefiner

__all__ = [
    "Anchored",
    "CodedSampler",
    "ContextMasks",
    "DDIMSampler",
    "Forecaster",
    "LangevinRefinement",
    "LineSearchGuidance",
    "LongMean",
    "MaximumLikelihoodRefinement",
    "Mean",
    "MomentMatchingGuidance",
    "MultivariateTSDiff",
    "PaperSampler",
    "QuantileGuidance",
    "RandomMasks",
    "ReferenceTSDiff",
    "Refinement",
    "Scaler",
    "SelfGuidance",
    "SquaredErrorGuidance",
    "TSDiff",
    "TSDiffEstimator",
    "TSDiffPredictor",
    "TSDiffRefiner",
    "ZScore",
    "linear_predictive_score",
]


def __getattr__(name: str) -> Any:
    # The estimator pulls in Lightning and GluonTS' torch half, which a model alone does not need.
    if name in ("TSDiffEstimator", "TSDiffPredictor"):
        from . import estimator

        return getattr(estimator, name)
    if name == "TSDiffRefiner":
        from .refiner import TSDiffRefiner

        return TSDiffRefiner
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
