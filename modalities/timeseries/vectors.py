"""Vectors of series, as arrays or as GluonTS entries."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .histories import hash_key, same_frequency

if TYPE_CHECKING:
    import pandas as pd
    from gluonts.model.forecast import SampleForecast

__all__ = ["Vector", "forecast_of", "vectors"]


@dataclass(frozen=True)
class Vector:
    """D series of the same times.

    Args:
        values: float64, shape `(T, D)`, NaN where missing.
        name: what messages call it.
        key: its identity for the noise: equal keys (and seed) give equal noise.
        start: period of the first values, or None where dates play no part.
        item_id: its name in the data set, or None.
    """

    values: NDArray[np.float64]
    name: str
    key: int
    start: "pd.Period | None" = None
    item_id: str | None = None


def vectors(data: Any, channels: int) -> Iterator[Vector]:
    """The vectors of series of a data set.

    Args:
        data: arrays `(T, D)`, or GluonTS entries with a `target` `(D, T)`, a `start` and, optionally, an `item_id`.
        channels: D.

    Raises:
        ValueError: for another shape, or entries of different frequencies.
    """
    freq = None
    for index, entry in enumerate(data):
        if not isinstance(entry, Mapping):
            values = np.array(entry, dtype=np.float64)
            _check(f"series {index}", values, ("T", channels), values.shape[1:] == (channels,))
            yield Vector(_finite(values), f"series {index}", hash_key("window", index))
            continue
        start, item_id = entry["start"], entry.get("item_id")
        name = f"position {index}" if item_id is None else f"item {item_id}"
        values = np.array(entry["target"], dtype=np.float64)
        _check(f"the target of {name}", values, (channels, "T"), values.shape[:1] == (channels,))
        freq = same_frequency(name, start, freq)
        key = hash_key(name, str(start + values.shape[1]))
        yield Vector(_finite(values.T), name, key, start, None if item_id is None else str(item_id))


def forecast_of(series: Vector, samples: NDArray[np.float64]) -> "SampleForecast":
    """GluonTS' forecast object of samples `(S, H, D)`."""
    from gluonts.model.forecast import SampleForecast

    assert series.start is not None
    return SampleForecast(samples, start_date=series.start + len(series.values), item_id=series.item_id)


def _check(name: str, values: NDArray[np.float64], shape: tuple[Any, Any], fits: bool) -> None:
    if values.ndim != 2 or not values.size or not fits:
        raise ValueError(f"{name} must have shape ({shape[0]}, {shape[1]}), got {values.shape}")


def _finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.isfinite(values), values, np.nan)
