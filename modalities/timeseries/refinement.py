r"""Refinement: the forecast of any model, moved towards what the diffusion model finds likely.

    E(y) = || eps - eps_theta(alpha_tau y + sigma_tau eps, tau) ||^2 + lambda R(y, y~),   eps drawn afresh each time

with y~ the observed context followed by one sample of the base forecast, and R over the whole window, its horizon
included (missing values of the context aside):

    squared:   R = sum (y - y~)^2
    quantile:  R = sum max(q (y~ - y), (q - 1)(y~ - y)),   q the level of the sample among the sorted base samples

Samples of y follow Langevin dynamics, y <- y - eta grad E + sqrt(2 eta) kappa xi, or the gradient alone (maximum
likelihood). The first term estimates the bound of the likelihood by a single step tau, the one whose loss is nearest to
the mean over all steps: on the past of the series itself, so that no series changes when others join it.

Source: `Kollovieh et al. 2023 <https://arxiv.org/abs/2307.11494>`_, section 3.3. In the published code the squared
regulariser leaves the horizon out, so that nothing holds the forecast.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...core import BaseDenoiser, Condition, NoiseSource
from ...core.schedules import expand
from .guidance import QuantileGuidance, SelfGuidance, SquaredErrorGuidance
from .histories import History, hash_key, histories, level_of
from .imputation import window_of
from .s4d import cached_kernels

if TYPE_CHECKING:
    from .tsdiff import TSDiff

__all__ = [
    "LangevinRefinement",
    "MaximumLikelihoodRefinement",
    "Refinement",
    "past_time",
    "refine",
    "refine_histories",
    "representative_time",
    "samples_of",
]


@dataclass(frozen=True)
class Refinement:
    """How the energy is followed.

    Args:
        step_size: eta.
        iterations: number of steps.
        noise_scale: kappa; 0 follows the gradient alone.
        regularizer: "quantile" or "squared".
        weight: lambda.
    """

    step_size: float = 0.1
    iterations: int = 20
    noise_scale: float = 0.1
    regularizer: SelfGuidance = field(default_factory=QuantileGuidance)
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.step_size <= 0 or self.iterations < 0 or self.noise_scale < 0 or self.weight < 0:
            raise ValueError(f"step_size must be positive, the rest not negative: {self}")

    def run(
        self,
        denoiser: BaseDenoiser,
        base: Tensor,
        held: Tensor,
        level: Tensor,
        tau: float | Tensor,
        noise: NoiseSource,
        condition: Condition | None = None,
    ) -> Tensor:
        """Moves windows.

        Args:
            denoiser: on a Gaussian path.
            base: y~, shape `(B, L, C)`.
            held: where R counts, boolean, shape `(B, L, C)`.
            level: q of each sample, shape `(B,)`.
            tau: time at which the likelihood is judged, one for all or of shape `(B,)`.
            noise: B ids.
            condition: passed to the network.
        """
        y, moment = base.clone(), torch.as_tensor(tau, dtype=torch.float64, device=base.device)
        for iteration in range(self.iterations):
            eps = noise.normal(base, 2 * iteration)
            with torch.enable_grad():
                leaf = y.detach().requires_grad_()
                bound = noise_error(denoiser, leaf, moment, eps, condition).flatten(1).sum(1)
                penalty = self.regularizer.penalty(base - leaf, level.reshape(-1, 1, 1))
                held_back = torch.where(held, penalty, torch.zeros_like(penalty)).flatten(1).sum(1)
                (gradient,) = torch.autograd.grad((bound + self.weight * held_back).sum(), leaf)
            y = y - self.step_size * gradient
            if self.noise_scale:
                y = y + (2 * self.step_size) ** 0.5 * self.noise_scale * noise.normal(base, 2 * iteration + 1)
        return y


def LangevinRefinement(
    regularizer: str = "quantile", step_size: float = 0.1, iterations: int = 20, noise_scale: float = 0.1
) -> Refinement:
    """LMC-Q and LMC-MSE of the publication."""
    return Refinement(step_size, iterations, noise_scale, _regularizer(regularizer))


def MaximumLikelihoodRefinement(
    regularizer: str = "quantile", step_size: float = 0.1, iterations: int = 20
) -> Refinement:
    """ML-Q and ML-MSE of the publication."""
    return Refinement(step_size, iterations, 0.0, _regularizer(regularizer))


def noise_error(
    denoiser: BaseDenoiser, x: Tensor, t: Tensor, eps: Tensor, condition: Condition | None = None
) -> Tensor:
    """Squared error of the noise the model finds in windows `(B, L, C)` perturbed at times `()` or `(B,)`, per entry,
    whatever the network predicts."""
    schedule = denoiser.path.schedule
    alpha, sigma = (expand(v, t, x).to(x) for v in (schedule.alpha(t), schedule.sigma(t)))
    x_t = alpha * x + sigma * eps
    clean = denoiser(x_t, t, condition=condition)
    return ((alpha / sigma) * (x - clean)).square()  # eps - (x_t - alpha clean) / sigma = -alpha (x - clean) / sigma


@torch.no_grad()
def representative_time(
    denoiser: BaseDenoiser, x: Tensor, times: Sequence[float], seed: int = 0, condition: Condition | None = None
) -> float:
    """The time whose loss is nearest to the mean of the losses over all times.

    Args:
        denoiser: on a Gaussian path.
        x: clean scaled windows, shape `(B, L, C)`.
        times: candidates.
        seed: seed of the noise, drawn afresh for every time.
        condition: passed to the network.
    """
    noise = NoiseSource(seed, range(len(x)))
    losses = [
        float(noise_error(denoiser, x, torch.tensor(t, dtype=torch.float64), noise.normal(x, i), condition).mean())
        for i, t in enumerate(times)
    ]
    return float(times[int(np.argmin(np.abs(np.array(losses) - np.mean(losses))))])


def refine(
    model: "TSDiff",
    data: Any,
    forecasts: Any,
    *,
    method: Refinement | None = None,
    tau: float | None = None,
    seed: int = 0,
    batch_rows: int = 512,
) -> Any:
    """Improves forecasts.

    Args:
        model: the diffusion model.
        data: what was forecast from: GluonTS entries or arrays, N series.
        forecasts: base forecasts: an array of samples `(N, S, H)` (S = 1 for points), or GluonTS forecasts.
        method: default Langevin dynamics with the quantile regulariser.
        tau: time in (0, 1] at which the likelihood is judged, for all series; default: :func:`past_time` of each series
            by itself.
        seed: seed of the noise. What becomes of a forecast depends on the seed, the forecast and its series alone.
        batch_rows: samples per network call.

    Returns:
        Samples `(N, S, H)`, or GluonTS sample forecasts if GluonTS forecasts of any kind were given. The samples of a
        series start from the i-th smallest base samples of every step, i = 1 ... S, and come in random order, so that
        any part of them is a forecast as well.

    Raises:
        ValueError: if numbers or horizons do not fit, tau is not a time, or a series has too little past to choose it.
    """
    known = list(histories(data))
    given = isinstance(forecasts, np.ndarray)
    samples = np.asarray(forecasts, dtype=np.float64) if given else samples_of(forecasts)
    if samples.ndim != 3 or samples.shape[::2] != (len(known), model.prediction_length) or samples.shape[1] < 1:
        raise ValueError(
            f"expected base forecasts of shape ({len(known)}, S, {model.prediction_length}), got {samples.shape}"
        )
    made = list(refine_histories(model, known, samples, method=method, tau=tau, seed=seed, batch_rows=batch_rows))
    if given:
        return np.stack(made)
    return [model.as_forecast(history, drawn) for history, drawn in zip(known, made, strict=True)]


def refine_histories(
    model: "TSDiff",
    known: Sequence[History],
    samples: NDArray[np.float64],
    *,
    method: Refinement | None = None,
    tau: float | None = None,
    seed: int = 0,
    batch_rows: int = 512,
) -> Iterator[NDArray[np.float64]]:
    """Refined samples `(S, H)` of one series after the other; arguments as of :func:`refine`, base forecasts
    `(N, S, H)`."""
    check_tau(tau)
    method = method or LangevinRefinement()
    group = max(1, batch_rows // samples.shape[1])
    for first in range(0, len(known), group):
        part = known[first : first + group]
        times = [past_time(model, [history], seed) if tau is None else tau for history in part]
        yield from _refine_batch(model, part, samples[first : first + group], method, times, seed)


def check_tau(tau: float | None) -> None:
    """Raises ValueError unless tau is None or a time in (0, 1]."""
    if tau is not None and not 0 < tau <= 1:
        raise ValueError(f"tau, the time at which the likelihood is judged, must be in (0, 1], got {tau}")


def _refine_batch(
    model: "TSDiff",
    known: Sequence[History],
    samples: NDArray[np.float64],
    method: Refinement,
    times: Sequence[float],
    seed: int,
) -> NDArray[np.float64]:
    count, num_samples, horizon = samples.shape
    device = next(model.parameters()).device
    # Sorted, so that rank i stands for the quantile (i + 1)/(S + 1) of the base forecast at every step.
    ordered = np.sort(samples, axis=1).reshape(count * num_samples, horizon)
    past = np.stack([model.recent(history) for history in known]).repeat(num_samples, axis=0)
    target = torch.from_numpy(np.concatenate((past, ordered), axis=1)).to(device)
    level = torch.tensor([level_of(h.values) for h in known], dtype=torch.float64, device=device)
    window = model.encode(target, level.repeat_interleave(num_samples))
    rows = [hash_key(h.key, "refine", i) for h in known for i in range(num_samples)]
    levels = (torch.arange(1, num_samples + 1, device=device) / (num_samples + 1)).repeat(count)
    covariates = model.covariates(known, [len(h.values) - model.context_length for h in known])
    covariates = None if covariates is None else covariates.repeat_interleave(num_samples, dim=0)
    shown = model.shown(window) if model.context_dropout is not None else None
    with cached_kernels(model):
        y = method.run(
            model.denoiser,
            window.x,
            window.observed,
            levels.to(window.x),
            torch.tensor(times, dtype=torch.float64, device=device).repeat_interleave(num_samples),
            NoiseSource(seed, rows),
            model.condition(len(rows), covariates, shown),
        )
    values = window.in_units(y[:, model.context_length :, 0])
    values = values if model.minimum is None else values.clamp(min=model.minimum)
    made = values.reshape(count, num_samples, horizon).cpu().numpy()
    order = NoiseSource(seed, [hash_key(h.key, "order") for h in known]).uniform((count, num_samples), 0).argsort(dim=1)
    return np.take_along_axis(made, order.numpy()[:, :, None], axis=1)


def past_time(model: "TSDiff", known: Sequence[History], seed: int = 0, windows: int = 32) -> float:
    """The :func:`representative_time` of windows from the past of series: `tau` where none is given.

    Args:
        model: the model.
        known: the series. Their windows lie one horizon apart, counted from the end. A series that is shorter than a
            window has one, filled before its start as in a forecast.
        seed: seed of the noise.
        windows: so many windows are judged, evenly spaced; fewer are used again, with other noise.

    Raises:
        ValueError: if there is no such window with an observed value in its context.
    """
    places = [(h, begin) for h in known for begin in _begins(model, h)]
    if not places:
        found = f"{known[0].name} has no window" if len(known) == 1 else "no series has a window"
        raise ValueError(
            f"{found} of the past with an observed value in its context, by which the step of refinement is chosen: "
            "give it as tau"
        )
    chosen = [places[i] for i in np.arange(windows) * len(places) // windows]
    target = torch.from_numpy(np.stack([window_of(h.values, begin, model.length) for h, begin in chosen]))
    level = torch.tensor([level_of(h.values) for h, _ in chosen], dtype=torch.float64)
    device = next(model.parameters()).device
    window = model.encode(target.to(device), level.to(device))
    covariates = model.covariates([h for h, _ in chosen], [begin for _, begin in chosen])
    shown = model.shown(window) if model.context_dropout is not None else None
    times = [(i + 1) / 25 for i in range(25)]
    with cached_kernels(model):
        return representative_time(
            model.denoiser, window.x, times, seed, model.condition(len(chosen), covariates, shown)
        )


def _begins(model: "TSDiff", history: History) -> list[int]:
    """Where the windows of a series begin, the latest first; those without an observed value in their context are left
    out."""
    last = len(history.values) - model.length
    return [
        begin
        for begin in range(last, min(last, 0) - 1, -model.prediction_length)
        if np.isfinite(history.values[max(begin, 0) : max(begin + model.context_length, 0)]).any()
    ]


def samples_of(forecasts: Iterable[Any]) -> NDArray[np.float64]:
    """Samples of GluonTS forecasts of any kind; quantile forecasts give one sample per stored quantile."""
    rows = []
    for forecast in forecasts:
        if hasattr(forecast, "samples"):
            rows.append(np.asarray(forecast.samples, dtype=np.float64))
        else:
            rows.append(np.stack([np.asarray(forecast.quantile(q / 10)) for q in range(1, 10)]).astype(np.float64))
    return np.stack(rows)


def _regularizer(name: str) -> SelfGuidance:
    known: Mapping[str, SelfGuidance] = {"quantile": QuantileGuidance(), "squared": SquaredErrorGuidance()}
    if name not in known:
        raise ValueError(f"unknown regularizer {name!r}; known are {', '.join(known)}")
    return known[name]
