"""Imputation: samples of what is missing in a series, given everything observed before and after.

A window of L steps is laid over the missing values such that a margin of context lies on both sides; the model draws
it given what is observed in it. Gaps longer than a window are filled piece by piece, each sample going on from its own
past (or, at the start of a series, from its own future).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...core.solvers.sampler import Stepper
from .drawing import Drawing, check_count, complete, levels_and_signs
from .frames import series_of
from .guidance import SelfGuidance
from .histories import History, hash_key, level_of
from .moment_matching import MomentMatchingGuidance

if TYPE_CHECKING:
    import pandas as pd

    from .tsdiff import TSDiff

__all__ = ["Imputation", "impute", "plan_windows"]


@dataclass(frozen=True)
class Imputation:
    """A series and samples of what is missing in it.

    Args:
        values: as observed, NaN where missing, shape `(T,)`.
        samples: the whole series, observed values as they are, shape `(S, T)`.
        item_id: name of the series, or None.
        start: first period, or None.
    """

    values: NDArray[np.float64]
    samples: NDArray[np.float64]
    item_id: str | None
    start: "pd.Period | None"

    @property
    def missing(self) -> NDArray[np.bool_]:
        """What was missing, shape `(T,)`."""
        return ~np.isfinite(self.values)

    def quantile(self, level: float) -> NDArray[np.float64]:
        """A quantile of every value, shape `(T,)`; observed values are all their quantiles."""
        return np.quantile(self.samples, level, axis=0)

    def filled(self) -> NDArray[np.float64]:
        """The series with the median where it was missing, shape `(T,)`."""
        return np.where(self.missing, self.quantile(0.5), self.values)

    def frame(self, levels: Sequence[float] = (0.05, 0.25, 0.5, 0.75, 0.95)) -> "pd.DataFrame":
        """A table of the missing values alone: one row each, their mean and quantiles `q0.05`, ..."""
        import pandas as pd

        rows = np.flatnonzero(self.missing)
        index: Any = rows
        if self.start is not None:
            index = pd.period_range(self.start, periods=len(self.values), freq=self.start.freq)[rows]
        columns = {"mean": self.samples[:, rows].mean(axis=0)}
        columns |= {f"q{level:g}": np.quantile(self.samples[:, rows], level, axis=0) for level in levels}
        return pd.DataFrame(columns, index=index)


def impute(
    model: "TSDiff",
    data: Any,
    num_samples: int = 100,
    *,
    seed: int = 0,
    steps: int | None = None,
    guidance: SelfGuidance | None = None,
    stepper: Stepper | None = None,
    batch_rows: int = 512,
) -> list[Imputation]:
    """Fills the missing values of series.

    Args:
        model: the model.
        data: arrays, GluonTS entries, a pandas Series or a DataFrame with one series per column; NaN where missing.
        num_samples: S.
        seed: seed of the draws.
        steps: sampling steps, default the model's.
        guidance: default :class:`.moment_matching.MomentMatchingGuidance`, with which gaps meet their edges and spread
            as far as the model says; :class:`.guidance.LineSearchGuidance` takes half the time.
        stepper: default the model's.
        batch_rows: samples per network call.

    Returns:
        One :class:`Imputation` per series.

    Raises:
        ValueError: for series without any observed value, or whose dates are not regular.
    """
    check_count(num_samples)
    known = series_of(data)
    for history in known:
        if not np.isfinite(history.values).any():
            raise ValueError(f"{history.name} has no observed value: there is nothing to fill it from")
    settings = Drawing(seed, steps, MomentMatchingGuidance() if guidance is None else guidance, stepper)
    filled = [np.repeat(h.values[None], num_samples, axis=0) for h in known]
    plans = [plan_windows(~np.isfinite(h.values), model.length) for h in known]
    group = max(1, batch_rows // num_samples)
    for stage in range(max((len(plan) for plan in plans), default=0)):
        due = [i for i, plan in enumerate(plans) if stage < len(plan)]
        for first in range(0, len(due), group):
            some = due[first : first + group]
            begins = [plans[i][stage][0] for i in some]
            made = _fill_windows(model, [known[i] for i in some], [filled[i] for i in some], begins, stage, settings)
            for i, samples in zip(some, made, strict=True):
                begin, positions = plans[i][stage]
                filled[i][:, positions] = samples[:, positions - begin]
    return [Imputation(h.values, samples, h.item_id, h.start) for h, samples in zip(known, filled, strict=True)]


def plan_windows(missing: NDArray[np.bool_], length: int) -> list[tuple[int, NDArray[np.int64]]]:
    """Windows that cover all missing values, and which of them each is to fill.

    Args:
        missing: shape `(T,)`, not all True.
        length: steps L of a window.

    Returns:
        Begin of the window (negative where it begins before the series does) and positions to fill, in the order in
        which the windows are to be drawn: every window has something to go on from.
    """
    total, margin = len(missing), length // 4
    first = int(np.flatnonzero(~missing)[0])
    plan = []
    left = np.flatnonzero(missing[:first])
    if first > length - margin:
        # A leading gap longer than a window is filled backwards from the first observed value.
        while left.size:
            end = min(int(left[-1]) + 1 + margin, total)
            begin = max(end - length, 0)
            taken = left[left >= (begin + margin if begin else 0)]
            plan.append((min(begin, end - length), taken))
            left = left[: len(left) - len(taken)]
    rest = np.concatenate((left, first + np.flatnonzero(missing[first:])))
    while rest.size:
        begin = min(max(int(rest[0]) - margin, 0), total - length)
        end = begin + length
        taken = rest[rest < (end if end >= total else end - margin)]
        plan.append((begin, taken))
        rest = rest[len(taken) :]
    return plan


def _fill_windows(
    model: "TSDiff",
    known: Sequence[History],
    filled: Sequence[NDArray[np.float64]],
    begins: Sequence[int],
    stage: int,
    settings: Drawing,
) -> NDArray[np.float64]:
    """Drawn windows `(N, S, L)` of N series, in units of the user."""
    device = next(model.parameters()).device
    num_samples = len(filled[0])
    cut = np.stack(
        [window_of(row, begin, model.length) for rows, begin in zip(filled, begins, strict=True) for row in rows]
    )
    level = np.repeat([level_of(h.values) for h in known], num_samples)
    target = torch.from_numpy(cut).to(device)
    seen = model.masks.allowed(torch.isfinite(target), model.context_length)
    # Whatever is observed gives the scale where the context gives none.
    seen = torch.where(seen.any(dim=1, keepdim=True), seen, torch.isfinite(target))
    window = model.encode(target, torch.from_numpy(level).to(device), seen)
    keys = [hash_key(h.key, "impute", stage) for h in known]
    levels, signs = levels_and_signs(model, keys, num_samples, settings.seed)
    rows = [hash_key(key, i) for key in keys for i in range(num_samples)]
    covariates = model.covariates(known, begins)
    covariates = None if covariates is None else covariates.repeat_interleave(num_samples, dim=0)
    x = complete(model, window, rows, settings, levels=levels, signs=signs, covariates=covariates)
    values = window.in_units(x)
    values = values if model.minimum is None else values.clamp(min=model.minimum)
    return values.reshape(len(known), num_samples, -1).cpu().numpy()


def window_of(values: NDArray[np.float64], begin: int, length: int) -> NDArray[np.float64]:
    """`length` values from `begin` on, NaN outside the series."""
    inside = values[max(begin, 0) : begin + length]
    before = max(-begin, 0)
    return np.pad(inside, (before, length - before - len(inside)), constant_values=np.nan)
