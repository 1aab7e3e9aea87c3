"""Lag channels: the series itself, some steps earlier, beside each of its values.

They are diffused and denoised together with the series. Where a lag reaches back to what is observed, it says
something about the horizon as well; a missing value is missing in every channel it appears in.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["DAILY_LAGS", "HOURLY_LAGS", "lag_channels"]

HOURLY_LAGS: tuple[int, ...] = (24, 48, 72, 96, 120, 144, 168, 336, 504, 672)
DAILY_LAGS: tuple[int, ...] = tuple(range(30, 361, 30))


def lag_channels(values: Tensor, length: int, lags: Sequence[int]) -> Tensor:
    """The last `length` steps and their lags as channels.

    Args:
        values: shape `(B, P + length)`, P at least the largest lag.
        length: steps L of the window.
        lags: K lags in steps, all positive.

    Returns:
        Shape `(B, L, 1 + K)`.
    """
    past = values.shape[1] - length
    if any(not 0 < lag <= past for lag in lags):
        raise ValueError(f"lags {tuple(lags)} must lie between 1 and {past}, the number of steps before the window")
    return torch.stack([values[:, past - lag : past - lag + length] for lag in (0, *lags)], dim=-1)
