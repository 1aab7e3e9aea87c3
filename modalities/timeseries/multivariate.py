r"""TSDiff for vectors of series: windows `(L, D)` diffused as a whole, each channel scaled by its own context.

Channels inform each other through the network (:mod:`.multivariate_backbone`), and, in sampling, through the gradient
of the guidance: a channel that is observed where another one is not tells it. Samples that follow quantile levels of
their own spread too far for that (seven times, where a channel is known from another one to a tenth), hence a line
search is the default here. Everything else is :class:`.tsdiff.TSDiff`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...core import Denoiser, DenoisingLoss, Discrete, GaussianPath, Multistep, NoiseSource, Sampler, UniformGrid, V
from ...core.solvers.sampler import Stepper
from ..adapter import Adapter
from ..components import build, describe
from ..registry import register
from .components import GUIDANCES, SCALERS, STEPPERS
from .drawing import Drawing, check_count
from .encoding import scale_windows
from .guidance import LineSearchGuidance, SelfGuidance, quantile_levels
from .histories import hash_key
from .multivariate_backbone import MultivariateBackbone
from .s4d import cached_kernels
from .scalers import Scaler, ZScore
from .vectors import Vector, forecast_of, vectors

if TYPE_CHECKING:
    from gluonts.model.forecast import SampleForecast

__all__ = ["MultivariateTSDiff"]

_SCALER, _GUIDANCE = ZScore(), LineSearchGuidance()
_STEPPER = Multistep(order=1, eta=1.0, corrector=False, ddim_eta=True)


@register
class MultivariateTSDiff(Adapter):
    """Unconditional diffusion model of windows of D series at once; forecasts and imputes by self-guidance.

    Args:
        prediction_length: horizon H in steps.
        context_length: context c in steps. Channels are scaled apart from each other, so it has to be long enough to
            show how they relate: 24 steps rather than 8.
        channels: number of series D.
        scaler: how each channel is scaled.
        guidance: how observations steer.
        stepper: algorithm of sampling.
        sampling_steps: default number of sampling steps.
        clip: scaled values are limited to +- this.
        hidden: width of the network.
        blocks: residual blocks.
        modes: complex modes of each state space layer.
        patch: steps per patch, 1, 2 or 4.
        diffusion_steps: T of the beta table.
        beta_start: first beta.
        beta_end: last beta.
    """

    name: ClassVar[str] = "tsdiff-multivariate"

    def __init__(
        self,
        prediction_length: int,
        context_length: int,
        channels: int,
        scaler: Scaler | Mapping[str, Any] = _SCALER,
        guidance: SelfGuidance | Mapping[str, Any] = _GUIDANCE,
        stepper: Stepper | Mapping[str, Any] = _STEPPER,
        sampling_steps: int = 25,
        clip: float = 10.0,
        hidden: int = 64,
        blocks: int = 3,
        modes: int = 32,
        patch: int = 2,
        diffusion_steps: int = 100,
        beta_start: float = 1e-4,
        beta_end: float = 0.1,
    ) -> None:
        super().__init__()
        if min(prediction_length, channels) < 1 or context_length < 2 or sampling_steps < 1 or not clip > 0:
            raise ValueError(
                "prediction_length, channels, sampling_steps and clip must be positive and context_length at least 2, "
                f"got {prediction_length}, {channels}, {sampling_steps}, {clip} and {context_length}"
            )
        self.prediction_length, self.context_length, self.channels = prediction_length, context_length, channels
        self.scaler: Scaler = build(scaler, SCALERS)
        self.guidance: SelfGuidance = build(guidance, GUIDANCES)
        self.stepper: Stepper = build(stepper, STEPPERS)
        self.sampling_steps, self.clip = sampling_steps, clip
        self._sizes = {"hidden": hidden, "blocks": blocks, "modes": modes, "patch": patch}
        self._betas = {"diffusion_steps": diffusion_steps, "beta_start": beta_start, "beta_end": beta_end}
        network = MultivariateBackbone(self.length, channels, **self._sizes)
        self.denoiser = Denoiser(network, GaussianPath(Discrete.linear(diffusion_steps, beta_start, beta_end)), V())

    @property
    def length(self) -> int:
        """Window length L = context_length + prediction_length."""
        return self.context_length + self.prediction_length

    def config(self) -> dict[str, Any]:
        return {
            "prediction_length": self.prediction_length,
            "context_length": self.context_length,
            "channels": self.channels,
            "scaler": describe(self.scaler, SCALERS),
            "guidance": describe(self.guidance, GUIDANCES),
            "stepper": describe(self.stepper, STEPPERS),
            "sampling_steps": self.sampling_steps,
            "clip": self.clip,
            **self._sizes,
            **self._betas,
        }

    def loss(self, batch: Mapping[str, Tensor], noise: NoiseSource) -> Tensor:
        """Mean squared error over observed entries.

        Args:
            batch: `target` `(B, L, D)`, float64, NaN where missing.
            noise: B ids.
        """
        x, observed, _, _ = self._encode(batch["target"])
        return DenoisingLoss(self.denoiser)(x, noise, weights=observed.to(x)).value

    def sample(self, num_samples: int, *, seed: int = 0, steps: int | None = None) -> NDArray[np.float32]:
        """Draws windows `(num_samples, L, D)` in scaled units from the unconditional model."""
        check_count(num_samples)
        noise = NoiseSource(seed, range(num_samples))
        with cached_kernels(self):
            shape = (num_samples, self.length, self.channels)
            return self._sampler(steps)(self.denoiser, shape, generator=noise).x.cpu().numpy()

    def forecast(
        self,
        data: Iterable[Mapping[str, Any]] | Sequence[NDArray[np.floating]],
        num_samples: int = 100,
        *,
        seed: int = 0,
        steps: int | None = None,
        guidance: SelfGuidance | None = None,
        batch_rows: int = 512,
        prediction_length: int | None = None,
    ) -> "list[SampleForecast] | NDArray[np.float64]":
        """Forecasts what follows the end of vectors of series.

        Args:
            data: N arrays `(T, D)`, or GluonTS entries with a `target` `(D, T)`; NaN where missing.
            num_samples: S.
            seed: seed of the draws; the noise is keyed by `item_id` and the date the forecast starts at, or by the
                position in `data`.
            steps: sampling steps, default `sampling_steps`.
            guidance: default the model's.
            batch_rows: samples per network call.
            prediction_length: horizon, default the model's. A longer one is made in blocks, every sample going on from
                its own past.

        Returns:
            Shape `(N, S, H, D)` for arrays; for entries a `SampleForecast` each, with samples `(S, H, D)`.

        Raises:
            ValueError: for another number of channels, or a channel without any value in its context.
        """
        check_count(num_samples)
        wanted = self.prediction_length if prediction_length is None else prediction_length
        if wanted < 1:
            raise ValueError(f"prediction_length must be at least 1, got {wanted}")
        known = list(vectors(data, self.channels))
        for series in known:
            silent = np.flatnonzero(~np.isfinite(series.values[-self.context_length :]).any(axis=0))
            if silent.size:
                raise ValueError(f"channel {silent[0]} of {series.name} has no observed value in its context")
        settings = Drawing(seed, steps, self.guidance if guidance is None else guidance)
        group = max(1, batch_rows // num_samples)
        made = [
            samples
            for first in range(0, len(known), group)
            for samples in self._forecast(known[first : first + group], num_samples, settings, batch_rows, wanted)
        ]
        if known and known[0].start is not None:
            return [forecast_of(series, samples) for series, samples in zip(known, made, strict=True)]
        return np.stack(made)

    def complete(
        self,
        windows: NDArray[np.floating],
        num_samples: int = 100,
        *,
        seed: int = 0,
        steps: int | None = None,
        guidance: SelfGuidance | None = None,
        batch_rows: int = 512,
    ) -> NDArray[np.float64]:
        """Draws windows given whatever is observed of them: one channel from the others, gaps, the future.

        Args:
            windows: shape `(N, L, D)`, NaN where missing.
            num_samples: S.
            seed: seed of the draws.
            steps: sampling steps, default `sampling_steps`.
            guidance: default the model's.
            batch_rows: samples per network call.

        Returns:
            Shape `(N, S, L, D)`; observed entries as drawn.
        """
        check_count(num_samples)
        settings = Drawing(seed, steps, self.guidance if guidance is None else guidance)
        keys = [hash_key("window", i) for i in range(len(windows))]
        repeated = np.repeat(np.asarray(windows, dtype=np.float64), num_samples, axis=0)
        drawn = self._draw(repeated, keys, num_samples, settings, batch_rows)
        return drawn.reshape(len(windows), num_samples, *drawn.shape[1:])

    def _forecast(
        self, part: Sequence[Vector], num_samples: int, settings: Drawing, batch_rows: int, wanted: int
    ) -> NDArray[np.float64]:
        """Samples `(N, S, wanted, D)`."""
        rows = [series.values[-self.context_length :] for series in part for _ in range(num_samples)]
        made = np.empty((len(rows), 0, self.channels))
        while made.shape[1] < wanted:
            so_far = made.shape[1]
            keys = [hash_key(series.key, so_far) if so_far else series.key for series in part]
            past = [np.concatenate(pair)[-self.context_length :] for pair in zip(rows, made, strict=True)]
            windows = np.full((len(rows), self.length, self.channels), np.nan)
            for window, values in zip(windows, past, strict=True):
                window[self.context_length - len(values) : self.context_length] = values
            block = self._draw(windows, keys, num_samples, settings, batch_rows)[:, self.context_length :]
            made = np.concatenate((made, block), axis=1)
        return made[:, :wanted].reshape(len(part), num_samples, wanted, self.channels)

    def _draw(
        self,
        windows: NDArray[np.float64],
        keys: Sequence[int],
        num_samples: int,
        settings: Drawing,
        batch_rows: int,
    ) -> NDArray[np.float64]:
        """Windows `(N S, L, D)` drawn given what is observed of `windows` `(N S, L, D)`, S for each of N keys."""
        device = next(self.parameters()).device
        levels = quantile_levels(NoiseSource(settings.seed, keys), num_samples, key=0).flatten().to(device)
        ids = [hash_key(key, i) for key in keys for i in range(num_samples)]
        pieces = []
        for first in range(0, len(windows), batch_rows):
            some = slice(first, first + batch_rows)
            x, observed, loc, scale = self._encode(torch.from_numpy(windows[some]).to(device))
            guided = settings.guidance.guide(self.denoiser, x, observed, levels[some])
            with cached_kernels(self):
                noise = NoiseSource(settings.seed, ids[some])
                drawn = self._sampler(settings.steps)(guided, tuple(x.shape), generator=noise).x
            pieces.append((loc + scale * drawn.double()).cpu().numpy())
        return np.concatenate(pieces)

    def _sampler(self, steps: int | None) -> Sampler:
        return Sampler(self.stepper, UniformGrid(end=0.0), self.sampling_steps if steps is None else steps)

    def _encode(self, target: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Scaled windows and what is observed `(B, L, D)`, locations and scales `(B, 1, D)`."""
        if target.ndim != 3 or target.shape[1:] != (self.length, self.channels):
            raise ValueError(
                f"expected windows of shape (B, {self.length}, {self.channels}), got {tuple(target.shape)}"
            )
        rows = target.transpose(1, 2).flatten(0, 1)
        found = torch.isfinite(rows)
        level = torch.where(found, rows, 0).abs().sum(1) / found.sum(1).clamp(min=1)
        dtype = next(self.parameters()).dtype
        window = scale_windows(rows, level, self.scaler, self.context_length, self.clip, dtype, found)

        def together(part: Tensor) -> Tensor:
            return part.reshape(len(target), self.channels, -1).transpose(1, 2)

        return together(window.x), together(window.observed), together(window.loc), together(window.scale)
