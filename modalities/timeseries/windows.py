"""Windows of series as training samples: random ones that can be drawn again, and fixed ones for validation."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ...core.noise import hash_seed
from .calendar import window_covariates
from .histories import covariates_of, expect_frequency, same_frequency, start_of

__all__ = ["Part", "RandomWindows", "ValidationWindows", "WindowError", "split_series"]


class WindowError(ValueError):
    """No window can be cut from the data; the message says why."""


@dataclass(frozen=True)
class Part:
    """A stretch of a series from which windows are taken.

    Args:
        values: float64, NaN where missing.
        level: mean magnitude of the series.
        covariates: calendar, dynamic and static covariates, shape `(T, F)`, or None.
    """

    values: NDArray[np.float64]
    level: float
    covariates: NDArray[np.float32] | None


class _Windows(Dataset[dict[str, Tensor]]):
    """Base: windows of `length` steps out of parts."""

    def __init__(self, parts: Sequence[Part], length: int) -> None:
        self.parts, self.length = parts, length

    def _window(self, part: Part, begin: int) -> dict[str, Tensor]:
        end = begin + self.length
        item = {
            "target": torch.from_numpy(part.values[begin:end].copy()),
            "level": torch.tensor(part.level, dtype=torch.float64),
        }
        if part.covariates is not None:
            item["covariates"] = torch.from_numpy(part.covariates[begin:end].copy())
        return item


class RandomWindows(_Windows):
    """Random windows: number i is a pure function of (seed, i), for any i >= 0.

    Every start of a window is as likely as any other, whichever series it lies in, if its context and its horizon hold
    enough observed values; the data set has no end, `len` is the number of windows of one epoch.

    Args:
        parts: stretches of at least `length` values.
        length: L.
        context: steps of the window that are context.
        size: windows per epoch.
        seed: seed of the draws.
        lookback: steps before the context that belong to the window, for lags; they may be missing.
    """

    def __init__(
        self, parts: Sequence[Part], length: int, context: int, size: int, seed: int = 0, lookback: int = 0
    ) -> None:
        super().__init__(parts, length)
        self.size, self.seed = size, seed
        starts = [_good_starts(part.values, length, context, lookback) for part in parts]
        self._owner = np.concatenate([np.full(len(s), i) for i, s in enumerate(starts)])
        self._start = np.concatenate(starts)
        if not len(self._start):
            raise WindowError(
                f"no window of {length} steps has at least half of its context and of its horizon observed"
            )

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        chosen = hash_seed(self.seed, index) % len(self._start)
        return self._window(self.parts[self._owner[chosen]], int(self._start[chosen]))


class ValidationWindows(_Windows):
    """All windows whose horizons tile the held-out end of every series.

    Args:
        parts: the held-out stretches, each with the context of its first window in front.
        length: L.
        stride: steps between two windows, usually the horizon.
        repeats: how often each window occurs.
    """

    def __init__(self, parts: Sequence[Part], length: int, stride: int, repeats: int = 1) -> None:
        super().__init__(parts, length)
        self._index = [
            (part, begin)
            for part in parts
            for begin in range(len(part.values) - length, -1, -stride)
            if np.isfinite(part.values[begin : begin + length]).any()
        ] * repeats

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        part, begin = self._index[index]
        return self._window(part, begin)


def split_series(
    series: Sequence[Mapping[str, Any]],
    context: int,
    horizon: int,
    held_out: int,
    calendar: Sequence[str] = (),
    counts: tuple[int, int] = (0, 0),
    freq: str | None = None,
) -> tuple[list[Part], list[Part], list[str]]:
    """Training and validation stretches.

    The last `held_out` steps of a series are never part of a training window; the contexts of validation windows may
    reach back into the training stretch. Series too short for that train whole and validate nothing.

    Args:
        series: entries.
        context: c.
        horizon: H.
        held_out: steps kept for validation, 0 for none.
        calendar: names of calendar covariates.
        counts: how many dynamic (`feat_dynamic_real`) and static (`feat_static_real`) covariates the model takes.
        freq: frequency the series must have; default: that of the first one.

    Returns:
        Training parts, validation parts, and what was left out, in words.

    Raises:
        WindowError: if no series is long enough for a window.
        ValueError: if series have different frequencies, or another one than `freq`.
    """
    length, before = context + horizon, None
    train, validation, short, empty = [], [], [], []
    for e in series:
        values = np.asarray(e["target"], dtype=np.float64)
        name = str(e.get("item_id", len(train) + len(short) + len(empty)))
        start = None
        if e.get("start") is not None:
            start = start_of(e, f"item {name}", freq or before)
            expect_frequency(f"item {name}", start, freq)
            before = same_frequency(f"item {name}", start, before)
        if not np.isfinite(values).any():
            empty.append(name)
            continue
        if len(values) < length:
            short.append(name)
            continue
        covariates = None
        if calendar or any(counts):
            covariates = window_covariates(start, 0, len(values), calendar, *covariates_of(e), counts)
        validates = held_out >= horizon and len(values) >= length + held_out
        seen = values[: len(values) - held_out] if validates else values
        part = Part(values, float(np.nanmean(np.abs(seen if np.isfinite(seen).any() else values))), covariates)
        if validates:
            train.append(_cut(part, 0, len(values) - held_out))
            validation.append(_cut(part, len(values) - held_out - context, len(values)))
        else:
            train.append(part)
    notes = []
    if short:
        notes.append(
            f"{len(short)} of {len(series)} series left out of training, shorter than {length} steps: {_some(short)}"
        )
    if empty:
        notes.append(f"{len(empty)} of {len(series)} series left out of training, without any value: {_some(empty)}")
    if not train:
        raise WindowError(
            f"nothing to train on: a window has {context} + {horizon} = {length} steps, "
            f"{len(short)} series are shorter, {len(empty)} have no value; choose a shorter context_length"
        )
    for note in notes:
        warnings.warn(note, UserWarning, stacklevel=2)
    return train, validation, notes


def _cut(part: Part, begin: int, end: int) -> Part:
    covariates = None if part.covariates is None else part.covariates[begin:end]
    return Part(part.values[begin:end], part.level, covariates)


def _good_starts(values: NDArray[np.float64], length: int, context: int, lookback: int) -> NDArray[np.int64]:
    known = np.concatenate(([0], np.isfinite(values).cumsum()))
    starts = np.arange(len(values) - length + 1)
    begin, horizon = starts + lookback, starts + lookback + context
    in_context = known[horizon] - known[begin]
    in_horizon = known[starts + length] - known[horizon]
    return starts[(2 * in_context >= context) & (2 * in_horizon >= length - lookback - context)]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
