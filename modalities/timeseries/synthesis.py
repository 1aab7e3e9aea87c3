"""Synthesis: windows drawn from the model, to train other models on.

Windows come in the units of the model (scaled). In units of the user each takes location and scale of a real window,
drawn from the series it is to look like.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from .frames import series_of
from .histories import level_of
from .imputation import window_of

if TYPE_CHECKING:
    import pandas as pd

    from .tsdiff import TSDiff

__all__ = ["SyntheticWindows", "real_windows", "synthesize"]


@dataclass(frozen=True)
class SyntheticWindows:
    """Windows of a model.

    Args:
        values: shape `(N, L)`.
        scaled: whether they are in units of the model rather than of the user.
        start: first period of every window, or None.
    """

    values: NDArray[np.float64]
    scaled: bool
    start: "pd.Period | None" = None

    def __len__(self) -> int:
        return len(self.values)

    def entries(self, freq: str = "h") -> "list[dict[str, Any]]":
        """The windows as a GluonTS data set.

        Args:
            freq: frequency of the invented dates (from 2000 on) of windows without a start.
        """
        import pandas as pd

        start = pd.Period("2000-01-01", freq=freq) if self.start is None else self.start
        return [{"target": w, "start": start, "item_id": f"synthetic{i}"} for i, w in enumerate(self.values)]

    def frame(self, freq: str = "h") -> "pd.DataFrame":
        """The windows as a long table with the columns `item_id`, `time` and `value`."""
        import pandas as pd

        count, length = self.values.shape
        start: Any = pd.Period("2000-01-01", freq=freq) if self.start is None else self.start
        times = pd.period_range(start, periods=length, freq=start.freq).to_timestamp()
        names = np.repeat([f"synthetic{i}" for i in range(count)], length)
        return pd.DataFrame({"item_id": names, "time": np.tile(times, count), "value": self.values.ravel()})


def synthesize(
    model: "TSDiff",
    num_windows: int,
    *,
    like: Any = None,
    start: "pd.Period | None" = None,
    seed: int = 0,
    steps: int | None = None,
    batch_rows: int = 512,
) -> SyntheticWindows:
    """Draws windows from the unconditional model.

    Args:
        model: the model.
        num_windows: N.
        like: series (arrays, GluonTS entries, pandas) whose scales and, where the model uses the calendar and no start
            is given, dates the windows take on; None leaves them in scaled units.
        start: first period of the windows.
        seed: seed of the draws.
        steps: sampling steps, default the model's.
        batch_rows: windows per network call.

    Raises:
        ValueError: if the model takes covariates that nothing provides, or no series in `like` is as long as a window.
    """
    if num_windows < 1:
        raise ValueError(f"num_windows must be at least 1, got {num_windows}")
    if model.dynamic_features or model.static_features:
        raise ValueError("windows of a model with known covariates are drawn by sample(dynamic=..., static=...)")
    pieces = []
    for number, first in enumerate(range(0, num_windows, batch_rows)):
        count = min(batch_rows, num_windows - first)
        pieces.append(model.sample(count, seed=seed + 7919 * number, steps=steps, start=start))
    values = np.concatenate(pieces).astype(np.float64)
    if like is None:
        return SyntheticWindows(values, True, start)
    rng = np.random.default_rng(seed)
    real, levels = _windows(like, model.length, num_windows, rng)
    window = model.encode(torch.from_numpy(real), torch.from_numpy(levels))
    values = values * window.scale.cpu().numpy() + window.loc.cpu().numpy()
    if model.minimum is not None:
        values = np.maximum(values, model.minimum)
    return SyntheticWindows(values, False, start)


def real_windows(
    data: Any, length: int, count: int, *, seed: int = 0, context: int | None = None
) -> NDArray[np.float64]:
    """Windows of real series at random places, to compare synthetic ones with.

    Args:
        data: series.
        length: steps L.
        count: how many.
        seed: seed of the places.
        context: if given, every window is divided by the mean magnitude of its first `context` values.

    Returns:
        Shape `(count, L)`, without missing values.
    """
    windows, _ = _windows(data, length, count, np.random.default_rng(seed), complete=True)
    if context is None:
        return windows
    scale = np.abs(windows[:, :context]).mean(axis=1, keepdims=True)
    return windows / np.where(scale > 0, scale, 1.0)


def _windows(
    data: Any, length: int, count: int, rng: np.random.Generator, complete: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Windows `(count, L)` at random places, and the levels `(count,)` of their series."""
    known = series_of(data)
    places = list(_places([h.values for h in known], length, complete))
    if not places:
        raise ValueError(f"no series holds a window of {length} {'complete ' if complete else ''}steps")
    sizes = np.cumsum([len(begins) for _, begins in places])
    rows, levels = [], []
    for chosen in rng.integers(sizes[-1], size=count):
        which = int(np.searchsorted(sizes, chosen, side="right"))
        number, begins = places[which]
        begin = int(begins[chosen - (sizes[which] - len(begins))])
        rows.append(window_of(known[number].values, begin, length))
        levels.append(level_of(known[number].values))
    return np.stack(rows), np.array(levels)


def _places(
    series: Sequence[NDArray[np.float64]], length: int, complete: bool
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    for number, values in enumerate(series):
        known = np.concatenate(([0], np.isfinite(values).cumsum()))
        starts = np.arange(len(values) - length + 1)
        if len(starts):
            seen = known[starts + length] - known[starts]
            starts = starts[seen == length] if complete else starts[2 * seen >= length]
        if len(starts):
            yield number, starts
