r"""TSDiff exactly as published: weights, numbers and quirks of the authors' code carry over.

    x_0 = [y_t, y_{t-l_1}, ..., y_{t-l_K}]_t / s,   s = mean |y| over the observed context
    loss = mean over all entries of (eps - eps_theta(sqrt(abar_i) x_0 + sqrt(1 - abar_i) eps, i))^2,   i uniform

T = 100 steps, beta linear from 1e-4 to 0.1. Missing values are zeros that count in the loss and not in the guidance.
Sample i of S follows the quantile (i + 1)/(S + 1), in this order: a part of the samples is a biased forecast. The
recommended model without these quirks is :class:`.tsdiff.TSDiff`.

Two things differ from the published code. Its scale of a context without any observed value is that of its batch mates;
here such a series is refused in forecasts and has scale 1 in training. Its kernels are those of the formula in the
paper on S4, which its own fallback without compiled extensions misses.

Source: `Kollovieh et al. 2023, Predict, Refine, Synthesize <https://arxiv.org/abs/2307.11494>`_.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...core import (
    Ancestral,
    Denoiser,
    DenoisingLoss,
    Discrete,
    DiscreteTime,
    GaussianPath,
    Noise,
    NoiseSource,
    Sampler,
    StepInput,
    UniformGrid,
)
from ..components import build, describe
from ..registry import register
from .components import GUIDANCES
from .drawing import check_count
from .forecaster import Forecaster
from .guidance import ObservationEnergy, QuantileGuidance, SelfGuidance
from .histories import History, hash_key
from .lags import lag_channels
from .reference_backbone import ReferenceBackbone
from .reference_guidance import CodedSampler, DDIMSampler, GuidedSampler, PaperSampler
from .reference_s4 import cached_reference_kernels
from .scalers import Mean

__all__ = ["ReferenceTSDiff"]

SAMPLERS: dict[str, type[GuidedSampler]] = {kind.name: kind for kind in (CodedSampler, PaperSampler, DDIMSampler)}
_GUIDANCE, _SAMPLER = QuantileGuidance(8.0), CodedSampler()


@register
class ReferenceTSDiff(Forecaster):
    """The published unconditional model.

    Args:
        prediction_length: horizon H in steps.
        context_length: context c in steps.
        lags: lags in steps that become channels, see :mod:`.lags`; empty for none.
        guidance: energy and scale of forecasts; the scale is set per data set.
        sampler: algorithm of forecasts, see :mod:`.reference_guidance`.
        add_input: whether the network adds its input to its output; set per data set.
        features: feature channels of the checkpoint's dead weights: 7 for daily and business-day, 8 for hourly data.
        hidden: width of the network.
        blocks: number of residual blocks.
        modes: stored modes per channel of the state space layers.
        diffusion_steps: T.
        beta_start: first beta.
        beta_end: last beta.
    """

    name: ClassVar[str] = "tsdiff-reference"

    def __init__(
        self,
        prediction_length: int,
        context_length: int,
        lags: Sequence[int] = (),
        guidance: SelfGuidance | Mapping[str, Any] = _GUIDANCE,
        sampler: GuidedSampler | Mapping[str, Any] = _SAMPLER,
        add_input: bool = False,
        features: int = 7,
        hidden: int = 64,
        blocks: int = 3,
        modes: int = 64,
        diffusion_steps: int = 100,
        beta_start: float = 1e-4,
        beta_end: float = 0.1,
    ) -> None:
        super().__init__()
        if prediction_length < 1 or context_length < 1:
            raise ValueError(f"lengths must be positive, got {prediction_length} and {context_length}")
        self.prediction_length, self.context_length = prediction_length, context_length
        self.lags = tuple(int(lag) for lag in lags)
        if any(lag < 1 for lag in self.lags):
            raise ValueError(f"lags must be positive, got {self.lags}")
        self.lookback = max(self.lags, default=0)
        self.guidance: SelfGuidance = build(guidance, GUIDANCES)
        self.sampler: GuidedSampler = build(sampler, SAMPLERS)
        self._sizes = {"features": features, "hidden": hidden, "blocks": blocks, "modes": modes}
        self._betas = {"diffusion_steps": diffusion_steps, "beta_start": beta_start, "beta_end": beta_end}
        self.add_input = add_input
        network = ReferenceBackbone(self.length, 1 + len(self.lags), add_input=add_input, **self._sizes)
        schedule = Discrete.linear(diffusion_steps, beta_start, beta_end)
        time_input = StepInput(diffusion_steps)
        self.denoiser = Denoiser(network, GaussianPath(schedule), Noise(), time_input, data_std=None)
        # Weight of a static category that is never used; kept for the layout of published checkpoints.
        self.category = nn.Parameter(torch.zeros(1, 1), requires_grad=False)

    @property
    def length(self) -> int:
        """Window length L = context_length + prediction_length."""
        return self.context_length + self.prediction_length

    def config(self) -> dict[str, Any]:
        return {
            "prediction_length": self.prediction_length,
            "context_length": self.context_length,
            "lags": list(self.lags),
            "guidance": describe(self.guidance, GUIDANCES),
            "sampler": describe(self.sampler, SAMPLERS),
            "add_input": self.add_input,
            **self._sizes,
            **self._betas,
        }

    def loss(self, batch: Mapping[str, Tensor], noise: NoiseSource) -> Tensor:
        """Mean squared error of the predicted noise over all entries, observed or not.

        Args:
            batch: `target` `(B, lookback + L)`, float64, NaN where missing.
            noise: B ids.
        """
        x, _, _ = self._encode(batch["target"])
        steps = int(self._betas["diffusion_steps"])
        return DenoisingLoss(self.denoiser, density=DiscreteTime(steps))(x, noise).value

    def sample(self, num_samples: int, *, seed: int = 0, steps: int | None = None) -> NDArray[np.float32]:
        """Draws windows from the unconditional model, ancestrally.

        Args:
            num_samples: how many.
            seed: sample i depends on the seed and i only.
            steps: sampling steps, default T.

        Returns:
            Windows in scaled units, shape `(num_samples, L)`; the lag channels are left out.
        """
        check_count(num_samples)
        sampler = Sampler(Ancestral(), UniformGrid(end=0.0), steps or int(self._betas["diffusion_steps"]))
        shape = (num_samples, self.length, 1 + len(self.lags))
        with cached_reference_kernels(self):
            return (
                sampler(self.denoiser, shape, generator=NoiseSource(seed, range(num_samples))).x[..., 0].cpu().numpy()
            )

    def forecast_histories(
        self,
        known: Sequence[History],
        num_samples: int,
        *,
        seed: int = 0,
        steps: int | None = None,
        batch_rows: int = 512,
        guidance: SelfGuidance | None = None,
        sampler: GuidedSampler | None = None,
    ) -> Iterator[NDArray[np.float64]]:
        """Samples `(S, H)` of one series after the other.

        Args:
            known: the series.
            num_samples: S; sample i follows the quantile (i + 1)/(S + 1).
            seed: seed of the draws.
            steps: sampling steps, default T.
            batch_rows: samples per network call.
            guidance: default the model's.
            sampler: default the model's.
        """
        check_count(num_samples)
        guidance = self.guidance if guidance is None else guidance
        sampler = self.sampler if sampler is None else sampler
        group = max(1, batch_rows // num_samples)
        for first in range(0, len(known), group):
            yield from self._forecast_batch(known[first : first + group], num_samples, seed, steps, guidance, sampler)

    def _forecast_batch(
        self,
        part: Sequence[History],
        num_samples: int,
        seed: int,
        steps: int | None,
        guidance: SelfGuidance,
        sampler: GuidedSampler,
    ) -> NDArray[np.float64]:
        device = next(self.parameters()).device
        past = torch.from_numpy(np.stack([self.recent(history) for history in part])).to(device)
        target = torch.nn.functional.pad(past, (0, self.prediction_length), value=torch.nan)
        x, observed, scale = self._encode(target)
        rows = [hash_key(history.key, i) for history in part for i in range(num_samples)]
        levels = torch.arange(1, num_samples + 1, device=device) / (num_samples + 1)
        energy = ObservationEnergy(
            guidance,
            x.repeat_interleave(num_samples, dim=0),
            observed.repeat_interleave(num_samples, dim=0),
            levels.repeat(len(part)),
        )
        with cached_reference_kernels(self):
            drawn = sampler.draw(
                self.denoiser,
                energy,
                guidance.scale,
                (len(rows), self.length, x.shape[-1]),
                NoiseSource(seed, rows),
                steps or int(self._betas["diffusion_steps"]),
            )
        horizon = drawn[:, self.context_length :, 0].double().reshape(len(part), num_samples, -1)
        return (horizon * scale.unsqueeze(-1)).cpu().numpy()

    def _encode(self, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scaled windows with lags and what of them is observed, `(B, L, 1 + K)`, and the scale `(B, 1)`."""
        if target.ndim != 2 or target.shape[1] != self.lookback + self.length:
            raise ValueError(
                f"expected windows of shape (B, {self.lookback + self.length}), got {tuple(target.shape)}: "
                f"{self.lookback} steps for the lags, {self.context_length} of context, {self.prediction_length} ahead"
            )
        observed = torch.isfinite(target)
        values = torch.where(observed, target, torch.zeros_like(target))
        context = slice(self.lookback, self.lookback + self.context_length)
        _, scale = Mean()(values[:, context], observed[:, context], self.prediction_length)
        x = lag_channels(values / scale, self.length, self.lags)
        return x.to(next(self.parameters()).dtype), lag_channels(observed, self.length, self.lags), scale
