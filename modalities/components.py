"""Parts of a model as plain JSON: a stored model names its parts, and loading one imports nothing.

A component is a frozen dataclass; its description is `{"name": ..., **fields}`. Each modality has tables of its own,
name -> class, and only what stands in them can be built.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, TypeVar

__all__ = ["build", "describe"]

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
