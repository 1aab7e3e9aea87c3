r"""How close a separated sound is to its target.

.. math:: \mathrm{SI\text{-}SDR} = 10 \log_{10} \frac{\|\alpha s\|^2}{\|\hat s - \alpha s\|^2}, \;
   \alpha = \frac{\langle \hat s, s \rangle}{\|s\|^2}, \qquad
   \mathrm{SDR} = 10 \log_{10} \frac{\|s\|^2}{\|\hat s - s\|^2}

and their improvements over the mixture. For silent targets both mean nothing; what counts is how much of the mixture
was taken away. Sample-wise ratios judge phase, which a vocoder invents: for those only the spectral distance is given.

Source: Le Roux et al. 2019, "SDR: half-baked or well done?" (arXiv 1811.02508).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio, signal_noise_ratio

from .mel import LogMel
from .reconstruction import MixturePhaseMask

__all__ = ["log_spectral_distance", "oracle_ratio_mask", "sdr", "separation_scores", "si_sdr", "summarize"]

_SILENT = 1e-8


def si_sdr(estimate: Tensor, target: Tensor) -> Tensor:
    """Scale-invariant ratio in dB, `(*, L)` to `(*,)`; offsets are removed first. NaN for silent targets."""
    value = scale_invariant_signal_distortion_ratio(estimate, target, zero_mean=True)
    return value.masked_fill(_silent(target), torch.nan)


def sdr(estimate: Tensor, target: Tensor) -> Tensor:
    """Ratio in dB without any fitting (level errors count), `(*, L)` to `(*,)`. NaN for silent targets."""
    return signal_noise_ratio(estimate, target).masked_fill(_silent(target), torch.nan)


def log_spectral_distance(estimate: Tensor, target: Tensor, front: LogMel, dynamic_range: float = 80.0) -> Tensor:
    r""":math:`\frac1T \sum_t \sqrt{\frac1F \sum_f (20 \log_{10} |\hat S_{tf}| / |S_{tf}|)^2}` in dB, of waves `(*, L)`.

    Args:
        estimate: `(*, L)`.
        target: Same shape.
        front: Gives the transform.
        dynamic_range: Magnitudes this many dB below the target's largest count as equal.

    Returns:
        `(*,)`. NaN for silent targets.
    """
    a, b = front.spectrum(estimate).abs(), front.spectrum(target).abs()
    floor = b.amax((-2, -1), keepdim=True) * 10 ** (-dynamic_range / 20)
    difference = 20 * (a.maximum(floor).log10() - b.maximum(floor).log10())
    return difference.square().mean(-1).sqrt().mean(-1).masked_fill(_silent(target), torch.nan)


def separation_scores(
    estimate: Tensor, target: Tensor, mixture: Tensor, front: LogMel, *, aligned: bool = True
) -> dict[str, Tensor]:
    """All scores of a batch.

    Args:
        estimate: `(B, L)`.
        target: `(B, L)`; silent ones get NaN everywhere but in `attenuation`.
        mixture: `(B, L)`.
        front: Gives the transform of the spectral distance.
        aligned: Whether the estimate has the mixture's phase; otherwise sample-wise scores are left out.

    Returns:
        `(B,)` each, in dB: `lsd` and `attenuation` (of the mixture, for silent targets), and, if aligned, `si_sdr`,
        `si_sdri`, `sdr`, `sdri` (the last letter: improvement over the mixture).
    """
    scores = {"lsd": log_spectral_distance(estimate, target, front)}
    ratio = estimate.square().sum(-1).clamp(min=1e-12) / mixture.square().sum(-1).clamp(min=1e-12)
    scores["attenuation"] = (-10 * ratio.log10()).masked_fill(~_silent(target), torch.nan)
    if aligned:
        scores["si_sdr"], scores["sdr"] = si_sdr(estimate, target), sdr(estimate, target)
        scores["si_sdri"] = scores["si_sdr"] - si_sdr(mixture, target)
        scores["sdri"] = scores["sdr"] - sdr(mixture, target)
    return scores


def summarize(scores: Mapping[str, Tensor]) -> dict[str, float]:
    """Means of scores (and the median and the share of improved samples of `si_sdri`), NaN left out.

    A score that no sample has is left out.
    """
    summary: dict[str, float] = {}
    for name, values in scores.items():
        known = values[~values.isnan()]
        if len(known) == 0:
            continue
        summary[name] = float(known.mean())
        if name == "si_sdri":
            summary["si_sdri_median"] = float(known.median())
            summary["improved"] = float((known > 0).float().mean())
    return summary


def oracle_ratio_mask(target: Tensor, mixture: Tensor, front: LogMel) -> Tensor:
    """What the mixture-phase mask gives for the true mel spectrogram: the ceiling of every estimate through it.

    Args:
        target: `(B, L)`.
        mixture: `(B, L)`.
        front: The log-mel front end.

    Returns:
        `(B, L)`.
    """
    return MixturePhaseMask(front)(front(target), mixture[:, None])[:, 0]


def _silent(wave: Tensor) -> Tensor:
    return wave.square().mean(-1) <= _SILENT**2
