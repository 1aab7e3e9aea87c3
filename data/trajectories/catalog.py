"""Named trajectory data sets: simulated particles, recorded pedestrians, simulated and published molecules."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import DataError
from .collection import TrajectoryData
from .dynamics import MOLECULES
from .molecules import load_md17, load_simulated
from .nbody import SYSTEMS
from .particles import load_particles
from .pedestrians import SCENES, load_pedestrians

__all__ = ["dataset_names", "load_dataset"]

_Loader = tuple[Callable[..., TrajectoryData], dict[str, Any]]


def _loaders() -> dict[str, _Loader]:
    loaders: dict[str, _Loader] = {}
    for law in SYSTEMS:
        loaders[law] = (load_particles, {"law": law})
        loaders[f"{law}-corrected"] = (load_particles, {"law": law, "edition": "corrected"})
    for scene in SCENES:
        loaders[scene] = (load_pedestrians, {"scene": scene})
    for molecule in MOLECULES:
        loaders[molecule] = (load_simulated, {"molecule": molecule})
        loaders[f"md17-{molecule}"] = (load_md17, {"molecule": molecule})
    return loaders


def dataset_names() -> list[str]:
    """Every name :func:`load_dataset` knows."""
    return list(_loaders())


def load_dataset(name: str, root: str | Path | None = None, **options: Any) -> TrajectoryData:
    """Loads, makes or simulates a data set with its split.

    Args:
        name: one of :func:`dataset_names`: `springs`, `charged`, `gravity` (and `-corrected`, see :mod:`.nbody`); the
            pedestrian scenes `eth`, `hotel`, `univ`, `zara1`, `zara2`; the molecules of MD17 simulated with MMFF94
            (`ethanol`, ...) or from MD17's own files (`md17-ethanol`, ...).
        root: data root, default FOURFOLD_DATA or the user's cache folder.
        **options: of the data set's kind: see `load_particles`, `load_pedestrians`, `load_simulated`, `load_md17`.

    Raises:
        DataError: an unknown name or option, or whatever is wrong with the data.
    """
    loaders = _loaders()
    if name not in loaders:
        raise DataError(f"unknown data set {name!r}; known are {', '.join(loaders)}")
    load, fixed = loaders[name]
    allowed = [p for p in inspect.signature(load).parameters if p not in fixed and p != "root"]
    for option in options:
        if option not in allowed:
            raise DataError(f"data set {name!r} has no option {option!r}; it takes {', '.join(allowed)}")
    return load(root=root, **fixed, **options)
