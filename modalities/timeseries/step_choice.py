"""How many sampling steps a model needs on given series.

The latest known horizon of every series is forecast from what came before it, with more and more steps, until twice as
many no longer lower the CRPS. Where a forecast is wanted nothing has to be known of the future.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .drawing import check_count
from .histories import History, histories
from .metrics import crps

if TYPE_CHECKING:
    from .tsdiff import TSDiff

__all__ = ["choose_steps"]


def choose_steps(
    model: "TSDiff",
    data: Any,
    *,
    tolerance: float = 0.02,
    candidates: Sequence[int] = (5, 10, 20, 40, 80),
    num_samples: int = 20,
    max_series: int = 32,
    seed: int = 0,
) -> int:
    """The smallest number of steps after which the next larger one gains nothing.

    Args:
        model: the model.
        data: GluonTS entries or arrays, whose last `prediction_length` values are known.
        tolerance: relative gain in CRPS that counts as nothing.
        candidates: numbers of steps, ascending.
        num_samples: samples per forecast.
        max_series: at most so many series are used, evenly spaced.
        seed: seed of the draws, the same for all candidates.

    Returns:
        One of the candidates, to be passed as `steps`.

    Raises:
        ValueError: if no series has known values in its last horizon and before it, or for candidates out of order.
    """
    if not candidates or list(candidates) != sorted(set(candidates)) or candidates[0] < 1:
        raise ValueError(f"candidates must be positive numbers of steps in ascending order, got {list(candidates)}")
    check_count(num_samples)
    horizon = model.prediction_length
    known = [h for h in histories(data) if _judgeable(h, horizon, model.context_length)]
    if not known:
        raise ValueError(f"no series has known values in its last {horizon} steps and before them: nothing to judge by")
    known = [known[i] for i in np.unique(np.linspace(0, len(known) - 1, min(max_series, len(known))).astype(int))]
    truth = np.stack([h.values[-horizon:] for h in known])
    past = [History(h.values[:-horizon], h.start, h.item_id, h.key, h.dynamic, h.static) for h in known]

    def error(steps: int) -> float:
        return crps(np.stack(list(model.forecast_histories(past, num_samples, steps=steps, seed=seed))), truth)

    chosen, best = candidates[0], error(candidates[0])
    for steps in candidates[1:]:
        now = error(steps)
        if now > (1 - tolerance) * best:
            break
        chosen, best = steps, now
    return chosen


def _judgeable(history: History, horizon: int, context: int) -> bool:
    ahead, before = history.values[-horizon:], history.values[:-horizon][-context:]
    return bool(np.isfinite(ahead).any() and np.isfinite(before).any())
