"""Which adapter a stored name means. Names, never import paths: a model folder cannot choose what gets imported."""

from __future__ import annotations

from importlib import import_module
from typing import TypeVar

from .adapter import Adapter

# Modules that register an adapter when imported; only the one asked for is imported.
HOMES: dict[str, str] = {
    "flowsep": "fourfold.modalities.audio.flowsep",
    "flowsep-reference": "fourfold.modalities.audio.reference_flowsep",
    "gdss": "fourfold.modalities.graphs",
    "gdss-reference": "fourfold.modalities.graphs.reference_gdss",
    "mask-regression": "fourfold.modalities.audio.mask_regression",
    "mel-autoencoder": "fourfold.modalities.audio.mel_autoencoder",
    "mel-vocoder": "fourfold.modalities.audio.mel_vocoder",
    "pard": "fourfold.modalities.graphs.pard",
    "tsdiff": "fourfold.modalities.timeseries",
    "tsdiff-multivariate": "fourfold.modalities.timeseries.multivariate",
    "tsdiff-reference": "fourfold.modalities.timeseries",
    "geotdm": "fourfold.modalities.trajectories",
    "geotdm-reference": "fourfold.modalities.trajectories",
}

_CLASSES: dict[str, type[Adapter]] = {}

A = TypeVar("A", bound=type[Adapter])


class UnknownAdapter(LookupError):
    """No adapter of that name is registered."""


def register(cls: A) -> A:
    """Class decorator: make an adapter loadable under `cls.name`.

    Raises:
        ValueError: The name is missing or taken by another class.
    """
    name = getattr(cls, "name", "")
    if not name:
        raise ValueError(f"{cls.__name__} has no `name`")
    known = _CLASSES.get(name)
    if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise ValueError(f"the adapter name {name!r} is taken by {known.__module__}.{known.__qualname__}")
    _CLASSES[name] = cls
    return cls


def names() -> list[str]:
    """Every adapter name that can be loaded."""
    return sorted(_CLASSES.keys() | HOMES.keys())


def find(name: str) -> type[Adapter]:
    """The adapter class of that name, importing its module if need be.

    Raises:
        UnknownAdapter: No such name.
    """
    if name not in _CLASSES and name in HOMES:
        import_module(HOMES[name])
    if name not in _CLASSES:
        raise UnknownAdapter(f"unknown adapter {name!r}; this version knows: {', '.join(names())}")
    return _CLASSES[name]
