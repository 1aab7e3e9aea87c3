r"""TSDiff: an unconditional diffusion model of windows of a series, conditioned at sampling time by self-guidance.

A window of context and horizon, L = c + H steps, is scaled by its observed context and diffused as a whole with T = 100
steps of a linear beta table. A forecast draws windows whose clean estimate is pulled towards the observed context
(:mod:`.guidance`), one forward and one backward pass per step, and keeps the horizon.

Source: `Kollovieh et al. 2023, Predict, Refine, Synthesize <https://arxiv.org/abs/2307.11494>`_. Different here: the
scaler is a component, covariates come from the calendar instead of lag channels, the gradient is taken at x_t, quantile
levels are shuffled per series, layers are diagonal, the network predicts v instead of the noise, sampling takes 25
stochastic steps instead of 100, and with `sign_flip` half of the samples are drawn mirrored.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...core import (
    Denoiser,
    DenoisingLoss,
    Discrete,
    GaussianPath,
    Multistep,
    NoiseSource,
    Parameterization,
    Sampler,
    UniformGrid,
    V,
)
from ...core.solvers.sampler import Stepper
from ..adapter import Adapter
from ..registry import register
from .backbone import Backbone
from .calendar import HARMONICS, calendar_covariates
from .components import GUIDANCES, PARAMETERIZATIONS, SCALERS, STEPPERS, build, describe
from .guidance import QuantileGuidance, SelfGuidance, quantile_levels
from .histories import History, hash_key, histories, level_of
from .s4d import cached_kernels
from .scalers import Scaler, ZScore

if TYPE_CHECKING:
    import pandas as pd
    from gluonts.model.forecast import SampleForecast

__all__ = ["TSDiff"]

# Numbers of the draws that are not the sampler's own; sources are spawned, so they never meet the sampler's keys.
_SIGNS, _LEVELS, _LOSS, _SAMPLER, _DROPOUT = 0, 1, 2, 3, 4


_SCALER, _GUIDANCE, _PARAMETERIZATION = ZScore(), QuantileGuidance(), V()
_STEPPER = Multistep(order=1, eta=1.0, corrector=False, ddim_eta=True)


@dataclass(frozen=True)
class _Window:
    """Scaled windows: x and observed `(B, L, 1)`, loc and scale `(B, 1)`."""

    x: Tensor
    observed: Tensor
    loc: Tensor
    scale: Tensor


@register
class TSDiff(Adapter):
    """Unconditional diffusion model of univariate windows; forecasts by self-guidance.

    Args:
        prediction_length: horizon H in steps.
        context_length: context c in steps.
        scaler: how windows are scaled (a component or its description).
        guidance: default guidance of forecasts.
        stepper: default algorithm of sampling; the noise of a stochastic one corrects what guidance gets wrong on the
            way.
        parameterization: what the network predicts. The paper's noise loses the clean estimate where there is little
            signal (an error of the network is multiplied by sigma / alpha, 13 at t = 1), which is where the level of a
            window is decided.
        sampling_steps: default number of sampling steps, one network evaluation (and its gradient) each.
        calendar: names of calendar covariates, see :data:`.calendar.CALENDAR_FEATURES`.
        sign_flip: train on randomly mirrored windows and draw half of the samples mirrored, for data without a
            preferred direction (returns of prices): a drift the network has picked up cancels.
        context_dropout: None for a network that never sees the context, the model of the paper. A fraction in (0, 1]:
            the network has two more input channels, the observed context and where it is observed, which are blanked
            in this fraction of the training windows (and in :meth:`sample`); forecasts show them, with or without
            guidance on top.
        clip: scaled values are limited to +- this, so that one extreme window does not rule the loss.
        minimum: forecasts are not allowed below this value in units of the user (0 for counts); None for no limit.
        hidden: width of the network.
        blocks: residual blocks of the network.
        modes: complex modes of each state space layer.
        patch: steps per patch of the network, 1, 2 or 4.
        diffusion_steps: T of the beta table.
        beta_start: first beta.
        beta_end: last beta.
    """

    name: ClassVar[str] = "tsdiff"

    def __init__(
        self,
        prediction_length: int,
        context_length: int,
        scaler: Scaler | Mapping[str, Any] = _SCALER,
        guidance: SelfGuidance | Mapping[str, Any] = _GUIDANCE,
        stepper: Stepper | Mapping[str, Any] = _STEPPER,
        parameterization: Parameterization | Mapping[str, Any] = _PARAMETERIZATION,
        sampling_steps: int = 25,
        calendar: Sequence[str] = (),
        sign_flip: bool = False,
        context_dropout: float | None = None,
        clip: float = 10.0,
        minimum: float | None = None,
        hidden: int = 64,
        blocks: int = 3,
        modes: int = 32,
        patch: int = 2,
        diffusion_steps: int = 100,
        beta_start: float = 1e-4,
        beta_end: float = 0.1,
    ) -> None:
        super().__init__()
        if prediction_length < 1 or context_length < 2:
            raise ValueError(
                "prediction_length must be at least 1 and context_length at least 2, "
                f"got {prediction_length} and {context_length}"
            )
        if sampling_steps < 1 or not clip > 0:
            raise ValueError(f"sampling_steps and clip must be positive, got {sampling_steps} and {clip}")
        if context_dropout is not None and not 0 <= context_dropout <= 1:
            raise ValueError(f"context_dropout must be None or in [0, 1], got {context_dropout}")
        self.context_dropout = context_dropout
        self.prediction_length, self.context_length = prediction_length, context_length
        self.scaler: Scaler = build(scaler, SCALERS)
        self.guidance: SelfGuidance = build(guidance, GUIDANCES)
        self.stepper: Stepper = build(stepper, STEPPERS)
        self.parameterization: Parameterization = build(parameterization, PARAMETERIZATIONS)
        self.sampling_steps, self.calendar = sampling_steps, tuple(calendar)
        self.sign_flip, self.clip, self.minimum = sign_flip, clip, minimum
        self._sizes = {"hidden": hidden, "blocks": blocks, "modes": modes, "patch": patch}
        self._betas = {"diffusion_steps": diffusion_steps, "beta_start": beta_start, "beta_end": beta_end}
        covariates = 2 * HARMONICS * len(self.calendar) + (0 if context_dropout is None else 2)
        network = Backbone(self.length, covariates=covariates, **self._sizes)
        schedule = Discrete.linear(diffusion_steps, beta_start, beta_end)
        self.denoiser = Denoiser(network, GaussianPath(schedule), self.parameterization)

    @property
    def length(self) -> int:
        """Window length L = context_length + prediction_length."""
        return self.context_length + self.prediction_length

    def config(self) -> dict[str, Any]:
        return {
            "prediction_length": self.prediction_length,
            "context_length": self.context_length,
            "scaler": describe(self.scaler, SCALERS),
            "guidance": describe(self.guidance, GUIDANCES),
            "stepper": describe(self.stepper, STEPPERS),
            "parameterization": describe(self.parameterization, PARAMETERIZATIONS),
            "sampling_steps": self.sampling_steps,
            "calendar": list(self.calendar),
            "sign_flip": self.sign_flip,
            "context_dropout": self.context_dropout,
            "clip": self.clip,
            "minimum": self.minimum,
            **self._sizes,
            **self._betas,
        }

    def loss(self, batch: Mapping[str, Tensor], noise: NoiseSource) -> Tensor:
        """Mean squared error of the predicted noise over observed entries.

        Args:
            batch: `target` `(B, L)`, float64, NaN where missing; `level` `(B,)`, mean magnitude of each series;
                `covariates` `(B, L, F)` if the model uses the calendar.
            noise: B ids.

        Returns:
            Shape `(B,)`; 0 for windows without any observed value.
        """
        window = self._encode(batch["target"], batch["level"])
        x = window.x
        if self.sign_flip:
            x = x * torch.where(noise.spawn(_SIGNS).uniform((x.shape[0], 1, 1), 0) < 0.5, -1.0, 1.0).to(x)
        shown = None
        if self.context_dropout is not None:
            visible = noise.spawn(_DROPOUT).uniform((x.shape[0], 1, 1), 0).to(x.device) >= self.context_dropout
            shown = self._shown(x, window.observed) * visible
        condition = self._condition(len(x), batch.get("covariates"), shown)
        result = DenoisingLoss(self.denoiser)(x, noise.spawn(_LOSS), weights=window.observed.to(x), condition=condition)
        return result.value

    def sample(
        self,
        num_samples: int,
        *,
        seed: int = 0,
        steps: int | None = None,
        start: "pd.Period | None" = None,
        stepper: Stepper | None = None,
    ) -> NDArray[np.float32]:
        """Draws windows from the unconditional model.

        Args:
            num_samples: how many.
            seed: seed of the draws; sample i depends on the seed and i only.
            steps: sampling steps, default `sampling_steps`.
            start: first period of the windows; needed if the model uses the calendar.
            stepper: algorithm of sampling.

        Returns:
            Windows in scaled units, shape `(num_samples, L)`.
        """
        covariates = None
        if self.calendar:
            if start is None:
                raise ValueError("this model uses the calendar: give the first period of the windows as `start`")
            one = torch.from_numpy(calendar_covariates(start, self.length, self.calendar))
            covariates = one.expand(num_samples, -1, -1)
        condition = self._condition(num_samples, covariates, None)
        noise = NoiseSource(seed, range(num_samples))
        x = self._draw(self.denoiser, noise, condition, steps, stepper)
        return x[..., 0].cpu().numpy()

    def forecast(
        self,
        data: "Iterable[Mapping[str, Any]] | NDArray[np.floating] | Sequence[NDArray[np.floating]]",
        num_samples: int = 100,
        *,
        seed: int = 0,
        steps: int | None = None,
        guidance: SelfGuidance | None = None,
        stepper: Stepper | None = None,
        batch_rows: int = 512,
    ) -> "list[SampleForecast] | NDArray[np.float64]":
        """Forecasts the `prediction_length` steps after the end of each series.

        Series may be of any length from one observed value on; what lies before the context is used for the level of
        the series only, and missing values (NaN) are filled in by the model.

        Args:
            data: a GluonTS data set (entries with `target`, `start` and, optionally, `item_id`), or an array `(N, T)`,
                or a sequence of one-dimensional arrays.
            num_samples: S.
            seed: seed of the draws. A forecast depends on the seed and on its series alone: the noise is keyed by
                `item_id` and the date the forecast starts at, or by the position in `data` where there is no `item_id`.
            steps: sampling steps, default `sampling_steps`; fewer are faster.
            guidance: default the model's.
            stepper: default the model's.
            batch_rows: samples per network call.

        Returns:
            One `SampleForecast` per entry of a data set; samples `(N, S, H)` for arrays.

        Raises:
            ValueError: if a series has no observed value in its context, or dates are needed and missing.
        """
        known = list(histories(data))
        samples = self.forecast_histories(
            known, num_samples, seed=seed, steps=steps, guidance=guidance, stepper=stepper, batch_rows=batch_rows
        )
        if known and known[0].start is None:
            return np.stack(list(samples))
        return [self.as_forecast(history, drawn) for history, drawn in zip(known, samples, strict=True)]

    def as_forecast(self, history: History, samples: NDArray[np.float64]) -> "SampleForecast":
        """GluonTS' forecast object of samples `(S, H)`."""
        from gluonts.model.forecast import SampleForecast

        assert history.start is not None
        start = history.start + len(history.values)
        return SampleForecast(samples.astype(np.float32), start_date=start, item_id=history.item_id)

    def forecast_histories(
        self,
        known: Sequence[History],
        num_samples: int,
        *,
        seed: int = 0,
        steps: int | None = None,
        guidance: SelfGuidance | None = None,
        stepper: Stepper | None = None,
        batch_rows: int = 512,
    ) -> Iterator[NDArray[np.float64]]:
        """Samples `(S, H)` of one series after the other; arguments as in :meth:`forecast`."""
        if num_samples < 1:
            raise ValueError(f"num_samples must be at least 1, got {num_samples}")
        guidance = self.guidance if guidance is None else guidance
        series = max(1, batch_rows // num_samples)
        for first in range(0, len(known), series):
            part = known[first : first + series]
            yield from self._forecast_batch(part, num_samples, seed, steps, guidance, stepper)

    def _forecast_batch(
        self,
        part: Sequence[History],
        num_samples: int,
        seed: int,
        steps: int | None,
        guidance: SelfGuidance,
        stepper: Stepper | None,
    ) -> NDArray[np.float64]:
        device = next(self.parameters()).device
        context = torch.from_numpy(np.stack([self._context(history) for history in part])).to(device)
        level = torch.tensor([level_of(history.values) for history in part], dtype=torch.float64, device=device)
        target = torch.nn.functional.pad(context, (0, self.prediction_length), value=torch.nan)
        window = self._encode(target, level)

        per_series = NoiseSource(seed, [history.key for history in part])
        levels = quantile_levels(per_series.spawn(_LEVELS), num_samples, key=0).flatten().to(device)
        signs = self._signs(per_series, num_samples).to(window.x)
        rows = [hash_key(history.key, i) for history in part for i in range(num_samples)]
        covariates = self._covariates(part)

        def repeat(x: Tensor) -> Tensor:
            return x.repeat_interleave(num_samples, dim=0)

        denoiser = guidance.guide(self.denoiser, repeat(window.x) * signs, repeat(window.observed), levels)
        shown = None if self.context_dropout is None else self._shown(repeat(window.x) * signs, repeat(window.observed))
        covariates = None if covariates is None else repeat(covariates.to(device))
        condition = self._condition(len(rows), covariates, shown)
        x = self._draw(denoiser, NoiseSource(seed, rows).spawn(_SAMPLER), condition, steps, stepper) * signs
        horizon = x[:, self.context_length :, 0].double().reshape(len(part), num_samples, -1)
        values = window.loc.unsqueeze(-1) + window.scale.unsqueeze(-1) * horizon
        return (values if self.minimum is None else values.clamp(min=self.minimum)).cpu().numpy()

    def _draw(
        self,
        denoiser: Any,
        noise: NoiseSource,
        condition: dict[str, Tensor] | None,
        steps: int | None,
        stepper: Stepper | None,
    ) -> Tensor:
        sampler = Sampler(
            stepper or self.stepper, UniformGrid(end=0.0), self.sampling_steps if steps is None else steps
        )
        with cached_kernels(self):
            shape = (len(noise), self.length, 1)
            return sampler(denoiser, shape, generator=noise, condition=condition).x

    def _signs(self, noise: NoiseSource, num_samples: int) -> Tensor:
        if not self.sign_flip:
            return torch.ones(len(noise) * num_samples, 1, 1)
        rank = noise.spawn(_SIGNS).uniform((len(noise), num_samples), 0).argsort(dim=1).argsort(dim=1)
        return torch.where(rank % 2 == 0, 1.0, -1.0).reshape(-1, 1, 1)

    def _encode(self, target: Tensor, level: Tensor) -> _Window:
        if target.ndim != 2 or target.shape[1] != self.length:
            raise ValueError(f"expected windows of shape (B, {self.length}), got {tuple(target.shape)}")
        observed = torch.isfinite(target)
        c = self.context_length
        loc, scale = self.scaler(target[:, :c], observed[:, :c], self.prediction_length, level)
        x = ((_fill(target, observed) - loc) / scale).clamp(-self.clip, self.clip)
        dtype = next(self.parameters()).dtype
        return _Window(x.to(dtype).unsqueeze(-1), observed.unsqueeze(-1), loc, scale)

    def _context(self, history: History) -> NDArray[np.float64]:
        values = history.values[-self.context_length :]
        if not np.isfinite(values).any():
            name = "a series" if history.item_id is None else f"the series {history.item_id!r}"
            raise ValueError(
                f"{name} has no observed value among its last {self.context_length}: it cannot be forecast"
            )
        return np.pad(values, (self.context_length - len(values), 0), constant_values=np.nan)

    def _covariates(self, part: Sequence[History]) -> Tensor | None:
        if not self.calendar:
            return None
        rows = []
        for history in part:
            if history.start is None:
                raise ValueError("this model uses the calendar: forecast entries that have a `start`, not plain arrays")
            first = history.start + (len(history.values) - self.context_length)
            rows.append(calendar_covariates(first, self.length, self.calendar))
        return torch.from_numpy(np.stack(rows))

    def _shown(self, x: Tensor, observed: Tensor) -> Tensor:
        known = observed.to(x)
        known = torch.cat((known[:, : self.context_length], torch.zeros_like(known[:, self.context_length :])), dim=1)
        return torch.cat((x * known, known), dim=-1)

    def _condition(self, batch: int, covariates: Tensor | None, shown: Tensor | None) -> dict[str, Tensor] | None:
        like = next(self.parameters())
        channels = []
        if self.calendar:
            if covariates is None:
                raise ValueError("this model uses the calendar: the batch needs `covariates`")
            channels.append(covariates.to(like))
        if self.context_dropout is not None:
            channels.append(like.new_zeros(batch, self.length, 2) if shown is None else shown)
        return {"covariates": torch.cat(channels, dim=-1)} if channels else None


def _fill(target: Tensor, observed: Tensor) -> Tensor:
    """Missing entries take the last observed value before them, leading ones the first after them.

    The network sees them under noise; the loss and the guidance never do.
    """
    positions = torch.arange(target.shape[1], device=target.device).expand_as(target)
    last = torch.where(observed, positions, torch.full_like(positions, -1)).cummax(dim=1).values
    first = torch.where(observed, positions, torch.full_like(positions, target.shape[1] - 1)).amin(dim=1, keepdim=True)
    filled = target.gather(1, torch.where(last >= 0, last, first))
    return torch.where(torch.isfinite(filled), filled, torch.zeros_like(filled))
