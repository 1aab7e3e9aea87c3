"""Components as plain JSON, so that a saved model names its parts and a checkpoint never imports anything.

A component is a frozen dataclass; its description is `{"name": ..., **fields}`.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, TypeVar

from ...core import Ancestral, Data, Multistep, Noise, Parameterization, V
from ...core.solvers.sampler import Stepper
from .guidance import LineSearchGuidance, QuantileGuidance, SelfGuidance, SquaredErrorGuidance
from .masks import ContextMasks, Masks, RandomMasks
from .moment_matching import MomentMatchingGuidance
from .scalers import Anchored, LongMean, Mean, Scaler, ZScore

__all__ = ["GUIDANCES", "MASKS", "PARAMETERIZATIONS", "SCALERS", "STEPPERS", "build", "describe"]

SCALERS: dict[str, type[Scaler]] = {kind.name: kind for kind in (Mean, Anchored, ZScore, LongMean)}
GUIDANCES: dict[str, type[SelfGuidance]] = {
    kind.name: kind for kind in (QuantileGuidance, SquaredErrorGuidance, LineSearchGuidance, MomentMatchingGuidance)
}
MASKS: dict[str, type[Masks]] = {kind.name: kind for kind in (ContextMasks, RandomMasks)}
STEPPERS: dict[str, type[Stepper]] = {"ancestral": Ancestral, "multistep": Multistep}

PARAMETERIZATIONS: dict[str, type[Parameterization]] = {"noise": Noise, "v": V, "data": Data}

T = TypeVar("T")


def describe(component: Any, table: Mapping[str, type]) -> dict[str, Any]:
    """Plain description of a component.

    Raises:
        ValueError: if its class is not in the table.
    """
    for name, kind in table.items():
        if type(component) is kind:
            return {"name": name, **asdict(component)}
    raise ValueError(f"{type(component).__name__} cannot be stored; known kinds are {', '.join(sorted(table))}")


def build(value: T | Mapping[str, Any], table: Mapping[str, type[T]]) -> T:
    """A component from its description; components themselves pass through.

    Raises:
        ValueError: for an unknown name.
    """
    if not isinstance(value, Mapping):
        return value
    arguments = dict(value)
    name = arguments.pop("name", None)
    if name not in table:
        raise ValueError(f"unknown component {name!r}; known are {', '.join(sorted(table))}")
    return table[name](**arguments)
