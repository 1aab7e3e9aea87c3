r"""Anomaly scores from the model's bound of the likelihood.

The negative log-likelihood of a window is, up to a constant that is the same for all windows, at most

    1/2 sum_i (SNR(t_{i-1}) - SNR(t_i)) E || x - D(x_{t_i}) ||^2,   SNR = alpha^2 / sigma^2,

a sum over the positions of the window: the part of each position is its score, minus the share it would have if the
model knew nothing but white noise of unit variance. For Gaussian data the sum is exact as the grid becomes fine.
A series is cut into windows that overlap by half; a value's score is the mean over the windows it lies in.

Source: `Kingma et al. 2021, Variational Diffusion Models <https://arxiv.org/abs/2107.00630>`_, equation 13.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...core import BaseDenoiser, Condition, NoiseSource, StraightGrid
from .frames import series_of
from .histories import hash_key, level_of
from .imputation import window_of
from .s4d import cached_kernels

if TYPE_CHECKING:
    from .tsdiff import TSDiff

__all__ = ["anomaly_score", "bound"]


@torch.no_grad()
def bound(
    denoiser: BaseDenoiser,
    x: Tensor,
    times: Sequence[float],
    noise: NoiseSource,
    draws: int = 1,
    condition: Condition | None = None,
) -> Tensor:
    """The bound per entry, in nats and without its constant.

    Args:
        denoiser: on a Gaussian path.
        x: clean windows, shape `(B, L, C)`.
        times: decreasing times t_n ... t_0; details finer than the noise at t_0 do not count.
        noise: B ids.
        draws: noises per time, each used with both signs.
        condition: passed to the network.

    Returns:
        Shape `(B, L, C)`; sums of it differ between windows like bounds of the negative log-likelihood do.
    """
    schedule = denoiser.path.schedule
    moments = torch.tensor(times, dtype=torch.float64)
    alphas, sigmas = schedule.alpha(moments), schedule.sigma(moments)
    snr = (alphas / sigmas).square()
    total = torch.zeros_like(x)
    for i in range(len(times) - 1):
        alpha, sigma, weight = alphas[i].to(x), sigmas[i].to(x), float(snr[i + 1] - snr[i]) / 2
        for draw in range(draws):
            eps = noise.normal(x, i * draws + draw)
            for sign in (1.0, -1.0):
                clean = denoiser(alpha * x + sign * sigma * eps, moments[i], condition=condition)
                total += weight / (2 * draws) * (x - clean).square()
    # White noise of unit variance leaves sigma^2 / (alpha^2 + sigma^2) = 1 / (1 + SNR) at every entry.
    known_nothing = float(((snr[1:] - snr[:-1]) / (1 + snr[:-1])).sum()) / 2
    return total - known_nothing


def anomaly_score(
    model: "TSDiff",
    data: Any,
    *,
    seed: int = 0,
    steps: int = 10,
    draws: int = 2,
    finest: float = 0.05,
    batch_rows: int = 512,
) -> list[NDArray[np.float64]]:
    """How surprising every value of series is.

    Args:
        model: the model.
        data: arrays, GluonTS entries, a pandas Series or a DataFrame with one series per column.
        seed: seed of the noise.
        steps: noise levels at which windows are judged.
        draws: pairs of noises per level.
        finest: time of the finest level; details of less than its noise do not count.
        batch_rows: windows per network call.

    Returns:
        One array `(T,)` per series, in nats: larger is stranger, NaN where the value is missing.

    Raises:
        ValueError: for a series shorter than a window or without any observed value.
    """
    known = series_of(data)
    places: list[tuple[int, int]] = []
    for number, history in enumerate(known):
        total = len(history.values)
        if total < model.length:
            raise ValueError(f"a series of {total} values cannot be judged: a window has {model.length} steps")
        if not np.isfinite(history.values).any():
            raise ValueError(f"{history.name} has no observed value: there is nothing to judge")
        begins = list(range(0, total - model.length + 1, max(1, model.length // 2)))
        if begins[-1] + model.length < total:
            begins.append(total - model.length)
        places += [(number, b) for b in begins if np.isfinite(history.values[b : b + model.length]).any()]
    sums = [np.zeros(len(h.values)) for h in known]
    counts = [np.zeros(len(h.values)) for h in known]
    times = StraightGrid(end=finest)(model.denoiser.path.schedule, steps)
    device = next(model.parameters()).device
    for first in range(0, len(places), batch_rows):
        some = places[first : first + batch_rows]
        series = [known[number] for number, _ in some]
        target = torch.from_numpy(
            np.stack([window_of(h.values, b, model.length) for h, (_, b) in zip(series, some, strict=True)])
        ).to(device)
        level = torch.tensor([level_of(h.values) for h in series], dtype=torch.float64, device=device)
        window = model.encode(target, level, torch.isfinite(target))
        noise = NoiseSource(seed, [hash_key(h.key, "score", b) for h, (_, b) in zip(series, some, strict=True)])
        # Nothing is shown to a conditional network: it would judge the horizon alone.
        condition = model.condition(len(some), model.covariates(series, [b for _, b in some]), None)
        with cached_kernels(model):
            scores = bound(model.denoiser, window.x, times, noise, draws, condition)[..., 0].double().cpu().numpy()
        for (number, begin), score in zip(some, scores, strict=True):
            sums[number][begin : begin + model.length] += score
            counts[number][begin : begin + model.length] += 1
    return [
        np.where(np.isfinite(h.values) & (n > 0), s / np.maximum(n, 1), np.nan)
        for h, s, n in zip(known, sums, counts, strict=True)
    ]
