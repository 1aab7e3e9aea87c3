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
    V,
)
from ...core.solvers.sampler import Stepper
from ..components import build, describe
from ..registry import register
from . import drawing
from .backbone import Backbone
from .calendar import HARMONICS, window_covariates
from .components import GUIDANCES, MASKS, PARAMETERIZATIONS, SCALERS, STEPPERS
from .encoding import ScaledWindows, scale_windows
from .forecaster import Forecaster
from .forecasting import forecast_series
from .guidance import QuantileGuidance, SelfGuidance
from .histories import History
from .masks import ContextMasks, Masks
from .scalers import Scaler, ZScore

if TYPE_CHECKING:
    import pandas as pd
    from gluonts.model.forecast import SampleForecast

    from .imputation import Imputation
    from .synthesis import SyntheticWindows

__all__ = ["TSDiff"]

_SCALER, _GUIDANCE, _PARAMETERIZATION, _MASK = ZScore(), QuantileGuidance(), V(), ContextMasks()
_STEPPER = Multistep(order=1, eta=1.0, corrector=False, ddim_eta=True)


@register
class TSDiff(Forecaster):
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
        masks: what of a window a network with `context_dropout` is shown, in training and sampling; with
            :class:`.masks.RandomMasks` one network forecasts, imputes and backcasts.
        dynamic_features: number of covariates that are known for the horizon too, besides the calendar
            (`feat_dynamic_real` of an entry; of order one, as they are not scaled).
        static_features: number of covariates that belong to the series (`feat_static_real`).
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
        masks: Masks | Mapping[str, Any] = _MASK,
        dynamic_features: int = 0,
        static_features: int = 0,
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
        if min(dynamic_features, static_features) < 0:
            raise ValueError(f"numbers of covariates must not be negative: {dynamic_features}, {static_features}")
        self.context_dropout = context_dropout
        self.dynamic_features, self.static_features = dynamic_features, static_features
        self.masks: Masks = build(masks, MASKS)
        self.prediction_length, self.context_length = prediction_length, context_length
        self.scaler: Scaler = build(scaler, SCALERS)
        self.guidance: SelfGuidance = build(guidance, GUIDANCES)
        self.stepper: Stepper = build(stepper, STEPPERS)
        self.parameterization: Parameterization = build(parameterization, PARAMETERIZATIONS)
        self.sampling_steps, self.calendar = sampling_steps, tuple(calendar)
        self.sign_flip, self.clip, self.minimum = sign_flip, clip, minimum
        self._sizes = {"hidden": hidden, "blocks": blocks, "modes": modes, "patch": patch}
        self._betas = {"diffusion_steps": diffusion_steps, "beta_start": beta_start, "beta_end": beta_end}
        shown = 0 if context_dropout is None else 2
        network = Backbone(self.length, covariates=self.num_covariates + shown, **self._sizes)
        schedule = Discrete.linear(diffusion_steps, beta_start, beta_end)
        self.denoiser = Denoiser(network, GaussianPath(schedule), self.parameterization)

    @property
    def length(self) -> int:
        """Window length L = context_length + prediction_length."""
        return self.context_length + self.prediction_length

    @property
    def num_covariates(self) -> int:
        """Covariate channels F of a window: calendar, dynamic and static ones."""
        return 2 * HARMONICS * len(self.calendar) + self.dynamic_features + self.static_features

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
            "masks": describe(self.masks, MASKS),
            "dynamic_features": self.dynamic_features,
            "static_features": self.static_features,
            "clip": self.clip,
            "minimum": self.minimum,
            **self._sizes,
            **self._betas,
        }

    def loss(self, batch: Mapping[str, Tensor], noise: NoiseSource) -> Tensor:
        """Mean squared error of the predicted noise over observed entries.

        Args:
            batch: `target` `(B, L)`, float64, NaN where missing; `level` `(B,)`, mean magnitude of each series;
                `covariates` `(B, L, F)` if the model takes any.
            noise: B ids.

        Returns:
            Shape `(B,)`; 0 for windows without any observed value.
        """
        target, seen = batch["target"], None
        if self.context_dropout is not None:
            seen = self.masks.draw(torch.isfinite(target), self.context_length, noise.spawn(drawing.MASKS))
        # What a network trained on the context alone is shown never decides the scale: the context does, all of it.
        window = self.encode(target, batch["level"], None if isinstance(self.masks, ContextMasks) else seen)
        x = window.x
        if self.sign_flip:
            x = x * torch.where(noise.spawn(drawing.SIGNS).uniform((x.shape[0], 1, 1), 0) < 0.5, -1.0, 1.0).to(x)
        shown = None
        if seen is not None and self.context_dropout is not None:
            dropout = noise.spawn(drawing.DROPOUT).uniform((x.shape[0], 1, 1), 0).to(x.device)
            shown = _shown(x, seen.unsqueeze(-1)) * (dropout >= self.context_dropout)
        condition = self.condition(len(x), batch.get("covariates"), shown)
        result = DenoisingLoss(self.denoiser)(
            x, noise.spawn(drawing.LOSS), weights=window.observed.to(x), condition=condition
        )
        return result.value

    def sample(
        self,
        num_samples: int,
        *,
        seed: int = 0,
        steps: int | None = None,
        start: "pd.Period | None" = None,
        stepper: Stepper | None = None,
        dynamic: NDArray[np.float32] | None = None,
        static: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """Draws windows from the unconditional model.

        Args:
            num_samples: how many.
            seed: seed of the draws; sample i depends on the seed and i only.
            steps: sampling steps, default `sampling_steps`.
            start: first period of the windows; needed if the model uses the calendar.
            stepper: algorithm of sampling.
            dynamic: known covariates of the windows, shape `(L, F)`, if the model takes any.
            static: covariates of the series, shape `(F,)`, if the model takes any.

        Returns:
            Windows in scaled units, shape `(num_samples, L)`.
        """
        drawing.check_count(num_samples)
        covariates = None
        if self.num_covariates:
            counts = (self.dynamic_features, self.static_features)
            one = window_covariates(start, 0, self.length, self.calendar, dynamic, static, counts)
            covariates = torch.from_numpy(one).expand(num_samples, -1, -1)
        condition = self.condition(num_samples, covariates, None)
        noise = NoiseSource(seed, range(num_samples))
        x = drawing.draw(self, self.denoiser, noise, condition, steps, stepper)
        return x[..., 0].cpu().numpy()

    def forecast(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        data: "Iterable[Mapping[str, Any]] | NDArray[np.floating] | Sequence[NDArray[np.floating]]",
        num_samples: int = 100,
        *,
        seed: int = 0,
        steps: int | None = None,
        guidance: SelfGuidance | None = None,
        stepper: Stepper | None = None,
        batch_rows: int = 512,
        prediction_length: int | None = None,
        context_length: int | None = None,
    ) -> "list[SampleForecast] | NDArray[np.float64]":
        """Forecasts what follows the end of each series.

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
            prediction_length: horizon, default the model's. A longer one is made in blocks: every sample goes on from
                its own past, so that errors add up as they do in reality, and beyond what the model was trained for.
            context_length: steps of context that are used, at most (and by default) the model's.

        Returns:
            One `SampleForecast` per entry of a data set; samples `(N, S, H)` for arrays.

        Raises:
            ValueError: if a series has no observed value in its context, or dates or covariates are needed and missing.
        """
        return super().forecast(
            data,
            num_samples,
            seed=seed,
            steps=steps,
            guidance=guidance,
            stepper=stepper,
            batch_rows=batch_rows,
            prediction_length=prediction_length,
            context_length=context_length,
        )

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
        prediction_length: int | None = None,
        context_length: int | None = None,
    ) -> Iterator[NDArray[np.float64]]:
        """Samples `(S, H)` of one series after the other; arguments as in :meth:`forecast`."""
        drawing.check_count(num_samples)
        wanted = self.prediction_length if prediction_length is None else prediction_length
        context = self.context_length if context_length is None else context_length
        if wanted < 1 or not 1 <= context <= self.context_length:
            raise ValueError(
                f"prediction_length must be at least 1 and context_length between 1 and {self.context_length}, the "
                f"context this model was built for; got {wanted} and {context}"
            )
        settings = drawing.Drawing(seed, steps, self.guidance if guidance is None else guidance, stepper)
        yield from forecast_series(
            self, known, num_samples, settings, horizon=wanted, context=context, batch_rows=batch_rows
        )

    def impute(self, data: Any, num_samples: int = 100, **options: Any) -> "list[Imputation]":
        """Fills the missing values of series; see :func:`.imputation.impute`."""
        from .imputation import impute

        return impute(self, data, num_samples, **options)

    def refine(self, data: Any, forecasts: Any, **options: Any) -> Any:
        """Improves the forecasts of another model; see :func:`.refinement.refine`."""
        from .refinement import refine

        return refine(self, data, forecasts, **options)

    def synthesize(self, num_windows: int, **options: Any) -> "SyntheticWindows":
        """Draws windows to train other models on; see :func:`.synthesis.synthesize`."""
        from .synthesis import synthesize

        return synthesize(self, num_windows, **options)

    def anomaly_score(self, data: Any, **options: Any) -> list[NDArray[np.float64]]:
        """How surprising every value of series is; see :func:`.anomalies.anomaly_score`."""
        from .anomalies import anomaly_score

        return anomaly_score(self, data, **options)

    def choose_steps(self, data: Any, **options: Any) -> int:
        """How many sampling steps these series need; see :func:`.step_choice.choose_steps`."""
        from .step_choice import choose_steps

        return choose_steps(self, data, **options)

    def encode(self, target: Tensor, level: Tensor | None, seen: Tensor | None = None) -> ScaledWindows:
        """Scales windows `(B, L)`, NaN where missing; see :func:`.encoding.scale_windows`."""
        if target.ndim != 2 or target.shape[1] != self.length:
            raise ValueError(f"expected windows of shape (B, {self.length}), got {tuple(target.shape)}")
        dtype = next(self.parameters()).dtype
        return scale_windows(target, level, self.scaler, self.context_length, self.clip, dtype, seen)

    def covariates(self, known: Sequence[History], begins: Sequence[int]) -> Tensor | None:
        """Covariates `(N, L, F)` of the windows that begin at these positions of the series; None if there are none."""
        if not self.num_covariates:
            return None
        counts = (self.dynamic_features, self.static_features)
        rows = [
            window_covariates(h.start, begin, self.length, self.calendar, h.dynamic, h.static, counts)
            for h, begin in zip(known, begins, strict=True)
        ]
        return torch.from_numpy(np.stack(rows)).to(next(self.parameters()).device)

    def condition(self, batch: int, covariates: Tensor | None, shown: Tensor | None) -> dict[str, Tensor] | None:
        """What the network is told besides the state: covariates `(B, L, F)` and what it is shown `(B, L, 2)`."""
        like = next(self.parameters())
        channels = []
        if self.num_covariates:
            if covariates is None or covariates.shape[-1] != self.num_covariates:
                got = "none" if covariates is None else str(covariates.shape[-1])
                raise ValueError(
                    f"this model takes {self.num_covariates} covariates (calendar "
                    f"{', '.join(self.calendar) or 'none'}, dynamic {self.dynamic_features}, static "
                    f"{self.static_features}): the batch needs `covariates`, got {got}"
                )
            channels.append(covariates.to(like))
        if self.context_dropout is not None:
            channels.append(like.new_zeros(batch, self.length, 2) if shown is None else shown)
        return {"covariates": torch.cat(channels, dim=-1)} if channels else None

    def shown(self, window: ScaledWindows) -> Tensor:
        """What a conditional network is shown of windows: values and where they are, `(B, L, 2)`."""
        return _shown(window.x, self.masks.allowed(window.observed[..., 0], self.context_length).unsqueeze(-1))


def _shown(x: Tensor, seen: Tensor) -> Tensor:
    known = seen.to(x)
    return torch.cat((x * known, known), dim=-1)
