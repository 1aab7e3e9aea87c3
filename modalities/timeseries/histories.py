"""What a forecaster may know of a series, whatever kind of data set it comes from."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "History",
    "covariates_of",
    "expect_frequency",
    "hash_key",
    "histories",
    "level_of",
    "same_frequency",
    "start_of",
]


@dataclass(frozen=True)
class History:
    """What is known of a series when its forecast is made.

    Args:
        values: float64, shape `(T,)`, NaN where missing, in units of the user.
        start: period of the first value, or None where dates play no part.
        item_id: name of the series, or None.
        key: identity of the series for the noise: equal keys (and seed) give equal noise.
        dynamic: covariates known for the past and the future, float32, shape `(T', F)` with T' >= T, or None.
        static: covariates of the series, float32, shape `(F,)`, or None.
    """

    values: NDArray[np.float64]
    start: "pd.Period | None"
    item_id: str | None
    key: int
    dynamic: NDArray[np.float32] | None = None
    static: NDArray[np.float32] | None = None

    @property
    def name(self) -> str:
        """What messages call the series."""
        return "a series" if self.item_id is None else f"the series {self.item_id!r}"


def histories(data: Any, freq: str | None = None) -> Iterator[History]:
    """The series of a GluonTS data set, or of plain arrays, as :class:`History`.

    Args:
        data: entries, or arrays.
        freq: frequency the series must have; a `start` that is a date or a text is read with it. Default: that of the
            first series.

    Raises:
        ValueError: for a single one-dimensional array (wrap it in a list), entries without a target or start, or
            entries of another frequency.
    """
    if isinstance(data, np.ndarray) and data.ndim == 1:
        raise ValueError("one series is a list of one array: forecast([values])")
    before = None
    for index, entry in enumerate(data):
        if not isinstance(entry, Mapping):
            yield History(_series(entry), None, None, hash_key("array", index))
            continue
        values, item_id = _series(entry["target"]), entry.get("item_id")
        name = f"position {index}" if item_id is None else f"item {item_id}"
        start = start_of(entry, name, freq or before)
        expect_frequency(name, start, freq)
        before = same_frequency(name, start, before)
        key = hash_key(name, str(start + len(values)))
        yield History(values, start, None if item_id is None else str(item_id), key, *covariates_of(entry))


def start_of(entry: Mapping[str, Any], name: str, freq: str | None) -> "pd.Period":
    """The first period of an entry, of any frequency; a date or a text becomes a period of `freq`.

    Raises:
        ValueError: if it is no date, or neither it nor `freq` tells the frequency.
    """
    import pandas as pd

    from .frequencies import is_daily_or_coarser, period_frequency

    start = entry.get("start")
    if isinstance(start, pd.Period):
        return start
    if freq is None or start is None:
        raise ValueError(
            f"{name}: `start` must be a pd.Period, which tells the frequency, for example pd.Period('2024-01-01', "
            f"freq='h'), got {start!r}"
        )
    try:
        stamp: Any = pd.Timestamp(start)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name}: `start` is no date: {start!r}") from error
    if stamp is pd.NaT:
        raise ValueError(f"{name}: `start` is no date: {start!r}")
    if stamp.tzinfo is not None:
        stamp = (stamp if is_daily_or_coarser(freq) else stamp.tz_convert("UTC")).tz_localize(None)
    return stamp.to_period(period_frequency(freq))


def expect_frequency(name: str, start: "pd.Period", freq: str | None) -> None:
    """Refuses a series of another frequency than that of the model (None: any).

    Raises:
        ValueError: if it is another one.
    """
    from .frequencies import same_step

    if freq is not None and not same_step(start.freqstr, freq):
        raise ValueError(f"{name} has the frequency {start.freqstr!r}, the model is one of {freq!r}")


def same_frequency(name: str, start: "pd.Period", freq: str | None) -> str:
    """The frequency of a series, which has to be that of the series before it (None for the first one).

    Raises:
        ValueError: if it is another one.
    """
    if freq is not None and start.freqstr != freq:
        raise ValueError(
            f"{name} has the frequency {start.freqstr!r}, the series before it {freq!r}: a model has one frequency, "
            "keep series of different ones in data sets of their own"
        )
    return start.freqstr


def covariates_of(entry: Mapping[str, Any]) -> tuple[NDArray[np.float32] | None, NDArray[np.float32] | None]:
    """Dynamic `(T', F)` and static `(F,)` covariates of a GluonTS entry: `feat_dynamic_real` `(F, T')` (or `(T',)`) and
    `feat_static_real` `(F,)`."""
    dynamic, static = entry.get("feat_dynamic_real"), entry.get("feat_static_real")
    if dynamic is not None:
        dynamic = np.ascontiguousarray(np.atleast_2d(np.asarray(dynamic, dtype=np.float32)).T)
    return dynamic, None if static is None else np.asarray(static, dtype=np.float32).reshape(-1)


def _series(target: Any) -> NDArray[np.float64]:
    values = np.array(target, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"a series must be one-dimensional and not empty, got shape {values.shape}")
    values[~np.isfinite(values)] = np.nan
    return values


def level_of(values: NDArray[np.float64]) -> float:
    """Mean magnitude of the observed values of a series."""
    return float(np.nanmean(np.abs(values)))


def hash_key(*parts: object) -> int:
    """A well-spread 64-bit key of anything that can be written down, the same in every process."""
    digest = hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)
