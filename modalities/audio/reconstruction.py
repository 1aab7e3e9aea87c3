r"""From an estimated log-mel spectrogram back to samples, in three ways behind one interface.

A mel spectrogram has no phase. The mixture it was separated from has one:

.. math:: \hat x = \mathrm{ISTFT}\big( m \odot X \big), \qquad
   m_{tf} = \sum_b P_{bf} \min(e^{\hat S_{tb} - S^{mix}_{tb}}, 1)

with P interpolating linearly between the centres of the bands, at the mixture's own rate (:mod:`.band_mask`). Such an
estimate is aligned in time with the mixture, has its level, and mixture minus estimate is the residual. Griffin and
Lim's iteration starts from the mixture's phase; a vocoder invents a phase of its own, so that its output must never be
judged by sample-wise errors such as the SDR. Both render what was heard once, at the front end's rate; every channel
gets it at the level that the mask leaves there.
"""

from __future__ import annotations

from typing import ClassVar, Protocol

import torch
from torch import Tensor

from .band_mask import BandMask
from .bigvgan import BigVGAN
from .files import resample
from .mel import LogMel

__all__ = ["GriffinLim", "MixturePhaseMask", "Reconstruction", "Vocoder", "band_ratio", "fitted"]

_ROUNDS = 20


class Reconstruction(Protocol):
    """Turns an estimated log-mel spectrogram and its mixture into samples."""

    name: ClassVar[str]
    """Short name, as users choose it."""

    aligned: ClassVar[bool]
    """Whether the result has the mixture's phase and level: a residual and sample-wise metrics make sense."""

    def __call__(
        self, log_mel: Tensor, mixture: Tensor, heard: Tensor | None = None, sample_rate: int | None = None
    ) -> Tensor:
        """Samples of the estimate.

        Args:
            log_mel: Estimate for what was heard, `(B, T, num_bands)`, T = L' // hop_length.
            mixture: `(B, channels, L)` at `sample_rate`.
            heard: What the estimate was made from, `(B, L')` at the front end's rate; default: the mean of the
                mixture's channels, resampled.
            sample_rate: Hz of the mixture; default: the front end's.

        Returns:
            `(B, channels, L)` at `sample_rate`.
        """
        ...


class MixturePhaseMask:
    """The mixture, attenuated per band and frame; no weights needed.

    Args:
        front: The log-mel front end of the estimate.
    """

    name: ClassVar[str] = "mask"
    aligned: ClassVar[bool] = True

    def __init__(self, front: LogMel) -> None:
        self.front = front

    def __call__(
        self, log_mel: Tensor, mixture: Tensor, heard: Tensor | None = None, sample_rate: int | None = None
    ) -> Tensor:
        heard = _checked(self.front, log_mel, mixture, heard, sample_rate)
        ratio = band_ratio(log_mel, self.front.from_spectrum(self.front.spectrum(heard)))
        return BandMask(self.front, sample_rate)(ratio, mixture)


class GriffinLim:
    r"""Alternating projections between the estimated magnitudes and consistent spectra, with momentum.

    Starts from the mixture's phase, hence deterministic. Source: Griffin and Lim 1984; Perraudin, Balazs and
    Sondergaard 2013 for the momentum :math:`c \leftarrow P(c_k) + \alpha (P(c_k) - P(c_{k-1}))`.

    Args:
        front: The log-mel front end of the estimate.
        num_iterations: Projections.
        momentum: alpha, in [0, 1).
    """

    name: ClassVar[str] = "griffinlim"
    aligned: ClassVar[bool] = False

    def __init__(self, front: LogMel, num_iterations: int = 32, momentum: float = 0.99) -> None:
        if num_iterations < 1 or not 0 <= momentum < 1:
            raise ValueError(f"need num_iterations >= 1 and 0 <= momentum < 1, got {num_iterations} and {momentum}")
        self.front, self.num_iterations, self.momentum = front, num_iterations, momentum

    def __call__(
        self, log_mel: Tensor, mixture: Tensor, heard: Tensor | None = None, sample_rate: int | None = None
    ) -> Tensor:
        heard = _checked(self.front, log_mel, mixture, heard, sample_rate)
        spectrum = self.front.spectrum(heard)
        magnitude = self.magnitude(_extend(log_mel, spectrum.shape[1]))
        wave = self.iterate(magnitude, spectrum, heard.shape[-1])
        return _in_channels(self.front, wave, log_mel, mixture, heard, sample_rate)

    def magnitude(self, log_mel: Tensor) -> Tensor:
        """Non-negative STFT magnitudes with (nearly) these mel bands, `(B, T, num_bands)` to `(B, T, F)`.

        Starts from magnitudes that are even within a band; every round scales each bin by how far its bands are off.
        """
        filters = self.front.filters.to(log_mel)
        bands = log_mel.exp()
        magnitude = self.front.to_bins(bands / filters.sum(0))
        for _ in range(_ROUNDS):
            magnitude = magnitude * self.front.to_bins(bands / (magnitude @ filters).clamp(min=1e-12))
        return magnitude

    def iterate(self, magnitude: Tensor, start: Tensor, length: int) -> Tensor:
        """The iteration itself.

        Args:
            magnitude: `(B, T, F)`.
            start: Complex spectrum that gives the first phase, `(B, T, F)`.
            length: Samples.

        Returns:
            `(B, length)`.
        """
        phase, previous = _phase(start), torch.zeros_like(start)
        for _ in range(self.num_iterations):
            rebuilt = self.front.spectrum(self.front.waveform(magnitude * phase, length))
            phase = _phase(rebuilt - previous * (self.momentum / (1 + self.momentum)))
            previous = rebuilt
        return self.front.waveform(magnitude * phase, length)


class Vocoder:
    """A neural vocoder's rendering of the estimate.

    Args:
        front: The log-mel front end of the estimate.
        generator: Trained on that front end.

    Raises:
        ValueError: Bands or hop length of the two differ.
    """

    name: ClassVar[str] = "vocoder"
    aligned: ClassVar[bool] = False

    def __init__(self, front: LogMel, generator: BigVGAN) -> None:
        s = front.settings
        if (generator.num_bands, generator.hop_length) != (s.num_bands, s.hop_length):
            raise ValueError(
                f"the vocoder takes {generator.num_bands} bands every {generator.hop_length} samples, the front end "
                f"gives {s.num_bands} every {s.hop_length}"
            )
        self.front, self.generator = front, generator

    def __call__(
        self, log_mel: Tensor, mixture: Tensor, heard: Tensor | None = None, sample_rate: int | None = None
    ) -> Tensor:
        heard = _checked(self.front, log_mel, mixture, heard, sample_rate)
        length = heard.shape[-1]
        frames = -(-length // self.front.settings.hop_length)
        wave = self.generator.waveform(_extend(log_mel, frames))[:, :length]
        return _in_channels(self.front, wave, log_mel, mixture, heard, sample_rate)


def band_ratio(log_mel: Tensor, mixture_log_mel: Tensor) -> Tensor:
    r""":math:`\min(e^{\hat S - S^{mix}}, 1)`, the share of a sound in every band of its mixture.

    Args:
        log_mel: `(B, T, num_bands)`.
        mixture_log_mel: `(B, T', num_bands)`, T' >= T; missing last frames of the estimate repeat its last one.

    Returns:
        `(B, T', num_bands)` in [0, 1].
    """
    return (_extend(log_mel, mixture_log_mel.shape[1]) - mixture_log_mel).clamp(max=0).exp()


def _extend(log_mel: Tensor, frames: int) -> Tensor:
    missing = frames - log_mel.shape[1]
    if missing <= 0:
        return log_mel[:, :frames]
    return torch.cat([log_mel, log_mel[:, -1:].expand(-1, missing, -1)], 1)


def _phase(spectrum: Tensor) -> Tensor:
    # A zero has no phase; it gets phase 0, as in torchaudio.
    return spectrum / (spectrum.abs() + 1e-16)


def _in_channels(
    front: LogMel, wave: Tensor, log_mel: Tensor, mixture: Tensor, heard: Tensor, sample_rate: int | None
) -> Tensor:
    """A rendering `(B, L')` of what was heard, in every channel of the mixture, scaled by the energies masks leave."""
    rate, length = front.settings.sample_rate, mixture.shape[-1]
    own = rate if sample_rate is None else sample_rate
    out = fitted(resample(wave, rate, own), length)[:, None]
    if mixture.shape[1] == 1:
        return out
    spectrum = front.spectrum(heard)
    gains = front.to_bins(band_ratio(log_mel, front.from_spectrum(spectrum)))
    channels = front.spectrum(fitted(resample(mixture, own, rate), heard.shape[-1]))
    energy = (gains * spectrum.abs()).square().sum((-2, -1))[:, None]
    energies = (gains[:, None] * channels.abs()).square().sum((-2, -1))
    return out * (energies / energy.clamp(min=torch.finfo(energy.dtype).tiny)).sqrt()[..., None]


def fitted(samples: Tensor, length: int) -> Tensor:
    """`(*, L)` cut or followed by silence: `(*, length)`."""
    return torch.nn.functional.pad(samples[..., :length], (0, max(0, length - samples.shape[-1])))


def _checked(front: LogMel, log_mel: Tensor, mixture: Tensor, heard: Tensor | None, sample_rate: int | None) -> Tensor:
    """What was heard, of a length that the estimate fits."""
    if mixture.ndim != 3:
        raise ValueError(f"mixture must be (B, channels, L), got shape {tuple(mixture.shape)}")
    if heard is None:
        rate = front.settings.sample_rate
        heard = resample(mixture.mean(1), rate if sample_rate is None else sample_rate, rate)
    expected = (len(mixture), max(1, front.settings.frames(heard.shape[-1])), front.settings.num_bands)
    if tuple(log_mel.shape) != expected:
        raise ValueError(
            f"log_mel of shape {tuple(log_mel.shape)} does not fit a mixture of {heard.shape[-1]} samples: "
            f"expected {expected}"
        )
    return heard
