"""What a stored model of series may be made of, by name; see :mod:`..components`."""

from ...core import Ancestral, Data, Multistep, Noise, Parameterization, V
from ...core.solvers.sampler import Stepper
from .guidance import LineSearchGuidance, QuantileGuidance, SelfGuidance, SquaredErrorGuidance
from .masks import ContextMasks, Masks, RandomMasks
from .moment_matching import MomentMatchingGuidance
from .scalers import Anchored, LongMean, Mean, Scaler, ZScore

__all__ = ["GUIDANCES", "MASKS", "PARAMETERIZATIONS", "SCALERS", "STEPPERS"]

SCALERS: dict[str, type[Scaler]] = {kind.name: kind for kind in (Mean, Anchored, ZScore, LongMean)}
GUIDANCES: dict[str, type[SelfGuidance]] = {
    kind.name: kind for kind in (QuantileGuidance, SquaredErrorGuidance, LineSearchGuidance, MomentMatchingGuidance)
}
MASKS: dict[str, type[Masks]] = {kind.name: kind for kind in (ContextMasks, RandomMasks)}
STEPPERS: dict[str, type[Stepper]] = {"ancestral": Ancestral, "multistep": Multistep}

PARAMETERIZATIONS: dict[str, type[Parameterization]] = {"noise": Noise, "v": V, "data": Data}
