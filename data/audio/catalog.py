"""Named data sets of labelled sounds."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import DataError
from .bank import AudioData
from .esc import load_esc
from .events import SyntheticEvents

__all__ = ["dataset_names", "load_dataset"]


def load_dataset(name: str, root: str | Path | None = None, sample_rate: int = 16_000, **options: Any) -> AudioData:
    """Load a data set with its split.

    Args:
        name: One of :func:`dataset_names`.
        root: Folder of the data; default: FOURFOLD_DATA or the user's cache folder.
        sample_rate: Hz.
        options: Settings of the data set: `kinds` of synthetic; `test_fold`, `validation_fold`, `on_error` of esc10 and
            esc50.

    Raises:
        DataError: Unknown name or option, or files that are neither here nor reachable.
    """
    if name not in _LOADERS:
        raise DataError(f"unknown data set {name!r}; known are {', '.join(dataset_names())}")
    loader = _LOADERS[name]
    allowed = [p for p in inspect.signature(loader).parameters if p not in ("root", "sample_rate")]
    unknown = [option for option in options if option not in allowed]
    if unknown:
        raise DataError(f"{name} has no option {', '.join(unknown)}; known are {', '.join(allowed)}")
    return loader(root, sample_rate, **options)


def dataset_names() -> list[str]:
    """Every name :func:`load_dataset` knows."""
    return list(_LOADERS)


def _synthetic(root: str | Path | None, sample_rate: int, kinds: list[str] | None = None) -> AudioData:
    try:
        bank = SyntheticEvents(kinds, sample_rate)
    except ValueError as error:
        raise DataError(str(error)) from error
    protocol = (
        f"synthetic: {len(bank)} kinds of generated sounds ({', '.join(bank.kinds)}), fresh parameters for every "
        f"mixture, {sample_rate} Hz"
    )
    return AudioData("synthetic", bank, bank, bank, protocol)


def _esc10(
    root: str | Path | None,
    sample_rate: int,
    test_fold: int = 4,
    validation_fold: int | None = None,
    on_error: str = "skip",
) -> AudioData:
    return load_esc(
        root, sample_rate, ten=True, test_fold=test_fold, validation_fold=validation_fold, on_error=on_error
    )


def _esc50(
    root: str | Path | None,
    sample_rate: int,
    test_fold: int = 5,
    validation_fold: int | None = None,
    on_error: str = "skip",
) -> AudioData:
    return load_esc(root, sample_rate, test_fold=test_fold, validation_fold=validation_fold, on_error=on_error)


_LOADERS: dict[str, Callable[..., AudioData]] = {"synthetic": _synthetic, "esc10": _esc10, "esc50": _esc50}
