"""Synthesis: windows drawn from the model, to train other models on.

Windows come in the units of the model (scaled). In units of the user each takes location and scale of a real window,
drawn from the series it is to look like, and with them its date and whatever else the model is told about it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...core import NoiseSource
from .calendar import window_covariates
from .drawing import draw
from .frames import series_of
from .histories import History, level_of
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
        starts: first period of each window, or None where dates play no part.
        dynamic: covariates known for the future too, shape `(N, F, L)`, or None if the model takes none.
        static: covariates of the series, shape `(N, F)`, or None if the model takes none.
    """

    values: NDArray[np.float64]
    scaled: bool
    starts: "tuple[pd.Period, ...] | None" = None
    dynamic: NDArray[np.float32] | None = None
    static: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.values)

    def entries(self, freq: str = "h") -> "list[dict[str, Any]]":
        """The windows as a GluonTS data set, with the covariates they were drawn for.

        Args:
            freq: frequency of the invented dates (from 2000 on) of windows without a start.
        """
        starts = self._starts(freq)
        told = {"feat_dynamic_real": self.dynamic, "feat_static_real": self.static}
        return [
            {"target": w, "start": start, "item_id": f"synthetic{i}"}
            | {name: values[i] for name, values in told.items() if values is not None}
            for i, (w, start) in enumerate(zip(self.values, starts, strict=True))
        ]

    def frame(self, freq: str = "h") -> "pd.DataFrame":
        """The windows as a long table with the columns `item_id`, `time` and `value`."""
        import pandas as pd

        count, length = self.values.shape
        times = [
            pd.period_range(start, periods=length, freq=start.freq).to_timestamp().to_numpy()
            for start in self._starts(freq)
        ]
        names = np.repeat([f"synthetic{i}" for i in range(count)], length)
        return pd.DataFrame({"item_id": names, "time": np.concatenate(times), "value": self.values.ravel()})

    def _starts(self, freq: str) -> "Sequence[Any]":
        import pandas as pd

        return [pd.Period("2000-01-01", freq=freq)] * len(self) if self.starts is None else self.starts


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
        num_windows: N; window i depends on the seed and i only.
        like: series (arrays, GluonTS entries, pandas): each window takes on the scale, the date and the covariates of
            a random window of theirs. None leaves windows in scaled units.
        start: first period of all windows, instead of those of `like`.
        seed: seed of the draws.
        steps: sampling steps, default the model's.
        batch_rows: windows per network call.

    Raises:
        ValueError: if the model takes covariates that nothing provides, or no series in `like` is as long as a window.
    """
    if num_windows < 1:
        raise ValueError(f"num_windows must be at least 1, got {num_windows}")
    places = None if like is None else _random_places(like, model.length, num_windows, np.random.default_rng(seed))
    covariates = _covariates(model, num_windows, places, start)
    pieces = []
    for first in range(0, num_windows, batch_rows):
        last = min(first + batch_rows, num_windows)
        told = None if covariates is None else covariates[first:last]
        condition = model.condition(last - first, told, None)
        x = draw(model, model.denoiser, NoiseSource(seed, range(first, last)), condition, steps, None)
        pieces.append(x[..., 0].double().cpu())
    values = torch.cat(pieces)
    if places is None:
        return SyntheticWindows(values.numpy(), True, None if start is None else (start,) * num_windows)
    real, levels = _cut(places, model.length)
    values = model.encode(torch.from_numpy(real), torch.from_numpy(levels)).in_units(values).numpy()
    if model.minimum is not None:
        values = np.maximum(values, model.minimum)
    starts = (start,) * num_windows if start is not None else _starts(places)
    given = None if covariates is None else covariates.cpu().numpy()
    return SyntheticWindows(values, False, starts, *_told(model, given))


def _told(
    model: "TSDiff", covariates: NDArray[np.float32] | None
) -> tuple[NDArray[np.float32] | None, NDArray[np.float32] | None]:
    """The dynamic `(N, F, L)` and static `(N, F)` ones among covariates `(N, L, F)`, which come after the calendar."""
    dynamic, static = model.dynamic_features, model.static_features
    if covariates is None or not dynamic + static:
        return None, None
    own = covariates[..., covariates.shape[-1] - dynamic - static :]
    return own[..., :dynamic].swapaxes(1, 2) if dynamic else None, own[:, 0, dynamic:] if static else None


def _starts(places: Sequence[tuple[History, int]]) -> "tuple[pd.Period, ...] | None":
    """First periods of windows at these places; None unless every series has dates."""
    starts = tuple(h.start + begin for h, begin in places if h.start is not None)
    return starts if len(starts) == len(places) else None


def _covariates(
    model: "TSDiff", count: int, places: "Sequence[tuple[History, int]] | None", start: "pd.Period | None"
) -> Tensor | None:
    """Covariates `(N, L, F)` of windows at these places, or from one date on."""
    if not model.num_covariates:
        return None
    if places is not None and start is None:
        return model.covariates([h for h, _ in places], [begin for _, begin in places])
    if model.dynamic_features or model.static_features:
        raise ValueError(
            "this model takes covariates of its series: draw windows `like` series that have them, without a `start`, "
            "or one at a time by sample(dynamic=..., static=...)"
        )
    one = torch.from_numpy(window_covariates(start, 0, model.length, model.calendar))
    return one.expand(count, -1, -1).to(next(model.parameters()).device)


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
    windows, _ = _cut(_random_places(data, length, count, np.random.default_rng(seed), complete=True), length)
    if context is None:
        return windows
    scale = np.abs(windows[:, :context]).mean(axis=1, keepdims=True)
    return windows / np.where(scale > 0, scale, 1.0)


def _random_places(
    data: Any, length: int, count: int, rng: np.random.Generator, complete: bool = False
) -> list[tuple[History, int]]:
    """Series and begins of windows at random places, every place as likely as any other."""
    known = series_of(data)
    places = list(_places([h.values for h in known], length, complete))
    if not places:
        raise ValueError(f"no series holds a window of {length} {'complete ' if complete else ''}steps")
    sizes = np.cumsum([len(begins) for _, begins in places])
    chosen = []
    for draw_of in rng.integers(sizes[-1], size=count):
        which = int(np.searchsorted(sizes, draw_of, side="right"))
        number, begins = places[which]
        chosen.append((known[number], int(begins[draw_of - (sizes[which] - len(begins))])))
    return chosen


def _cut(places: Sequence[tuple[History, int]], length: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Windows `(N, L)`, and the levels `(N,)` of their series."""
    levels = {id(h): level_of(h.values) for h, _ in places}
    windows = np.stack([window_of(h.values, begin, length) for h, begin in places])
    return windows, np.array([levels[id(h)] for h, _ in places])


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
