"""Forecasts: windows completed after their context, and horizons longer than a window block by block.

The first block of H steps is drawn given the observed context, all samples of a series at once. Every later block goes
on from each sample by itself, so that errors add up as they do in reality.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .drawing import Drawing, complete, levels_and_signs
from .histories import History, hash_key, level_of

if TYPE_CHECKING:
    from .tsdiff import TSDiff

__all__ = ["forecast_series"]


def forecast_series(
    model: "TSDiff",
    known: Sequence[History],
    num_samples: int,
    settings: Drawing,
    *,
    horizon: int,
    context: int,
    batch_rows: int = 512,
) -> Iterator[NDArray[np.float64]]:
    """Samples `(S, horizon)` of one series after the other.

    Args:
        model: the model, of a horizon H.
        known: the series.
        num_samples: S.
        settings: how to draw.
        horizon: steps to forecast, any number.
        context: steps of context that are used, at most the model's.
        batch_rows: samples per network call.

    Raises:
        ValueError: if a series has no observed value in its context, or covariates are missing.
    """
    group = max(1, batch_rows // num_samples)
    for first in range(0, len(known), group):
        part = [_covered(model, history, horizon) for history in known[first : first + group]]
        made = _first_block(model, part, num_samples, context, settings)
        while made.shape[2] < horizon:
            made = np.concatenate((made, _next_block(model, part, made, context, settings, batch_rows)), axis=2)
        yield from made[:, :, :horizon]


def _first_block(
    model: "TSDiff", part: Sequence[History], num_samples: int, context: int, settings: Drawing
) -> NDArray[np.float64]:
    levels, signs = levels_and_signs(model, [h.key for h in part], num_samples, settings.seed)
    rows = [hash_key(history.key, i) for history in part for i in range(num_samples)]
    return _draw(model, part, num_samples, context, settings, rows, levels, signs)


def _next_block(
    model: "TSDiff",
    part: Sequence[History],
    made: NDArray[np.float64],
    context: int,
    settings: Drawing,
    batch_rows: int,
) -> NDArray[np.float64]:
    """The next block of every sample `(N, S, H')` of forecasts, each from its own past: `(N, S, H)`."""
    count, num_samples, so_far = made.shape
    levels, signs = levels_and_signs(model, [hash_key(h.key, so_far) for h in part], num_samples, settings.seed)
    longer = [
        replace(h, values=np.concatenate((h.values, sample)))
        for h, samples in zip(part, made, strict=True)
        for sample in samples
    ]
    rows = [hash_key(h.key, i, so_far) for h in part for i in range(num_samples)]
    blocks = []
    for first in range(0, len(rows), batch_rows):
        some = slice(first, first + batch_rows)
        blocks.append(_draw(model, longer[some], 1, context, settings, rows[some], levels[some], signs[some]))
    return np.concatenate(blocks).reshape(count, num_samples, -1)


def _draw(
    model: "TSDiff",
    part: Sequence[History],
    num_samples: int,
    context: int,
    settings: Drawing,
    rows: Sequence[int],
    levels: Tensor,
    signs: Tensor,
) -> NDArray[np.float64]:
    """Horizons `(N, S, H)` in units of the user."""
    device = next(model.parameters()).device
    past = torch.from_numpy(np.stack([model.recent(history, context) for history in part])).to(device)
    level = torch.tensor([level_of(history.values) for history in part], dtype=torch.float64, device=device)
    window = model.encode(torch.nn.functional.pad(past, (0, model.prediction_length), value=torch.nan), level)
    window = window.repeat(num_samples)
    covariates = model.covariates(part, [len(h.values) - model.context_length for h in part])
    covariates = None if covariates is None else covariates.repeat_interleave(num_samples, dim=0)
    x = complete(model, window, rows, settings, levels=levels, signs=signs, covariates=covariates)
    values = window.in_units(x[:, model.context_length :]).reshape(len(part), num_samples, -1)
    return (values if model.minimum is None else values.clamp(min=model.minimum)).cpu().numpy()


def _covered(model: "TSDiff", history: History, wanted: int) -> History:
    """The series with dynamic covariates for whole blocks: known ones for the horizon that is wanted, then the last of
    them, for steps that are drawn and thrown away."""
    if history.dynamic is None or not model.dynamic_features:
        return history
    until = len(history.values) + wanted
    if len(history.dynamic) < until:
        raise ValueError(
            f"this model needs known covariates (feat_dynamic_real) for {until} steps, the future included, got "
            f"{len(history.dynamic)}"
        )
    blocks = -(-wanted // model.prediction_length)
    beyond = max(0, len(history.values) + blocks * model.prediction_length - len(history.dynamic))
    return replace(history, dynamic=np.pad(history.dynamic, ((0, beyond), (0, 0)), mode="edge"))
