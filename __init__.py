"""fourfold: diffusion and flow models for audio, graphs, time series and trajectories.

    import fourfold
    model = fourfold.load("name or folder")
    fourfold.convert("kind", "published.ckpt", "folder")

Importing this module imports nothing heavy; `fourfold.core` and the rest are loaded when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from . import core as core
    from . import data as data
    from . import modalities as modalities
    from . import tasks as tasks
    from .modalities.convert import convert as convert
    from .modalities.zoo import load as load

__all__ = ["__version__", "convert", "core", "data", "load", "modalities", "tasks"]

_FUNCTIONS = {"load": ".modalities.zoo", "convert": ".modalities.convert"}
_FOLDERS = ("core", "data", "modalities", "tasks")


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _FUNCTIONS:
        return getattr(import_module(_FUNCTIONS[name], __name__), name)
    if name in _FOLDERS:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
