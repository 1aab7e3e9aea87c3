r"""Log-mel spectrograms, the picture of a sound that the models work on.

With :math:`X = \mathrm{STFT}(x)` (periodic Hann window, frames centred by reflection, magnitude and not power),

.. math:: S_{tm} = \log \max\Big(\sum_f |X_{tf}| \, W_{fm},\; 10^{-5}\Big)

W are triangles on the Slaney scale, :math:`f / (200/3)` below 1 kHz and :math:`15 + 27 \ln(f / 1000) / \ln 6.4` above,
each divided by half its width in Hz. The defaults are the front end of AudioLDM and FlowSep: 16 kHz, 1024-point
windows every 160 samples, 64 bands up to 8 kHz; silence is :math:`\log 10^{-5} = -11.51`.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor, nn

from . import short_time
from .torchaudio_compat import torchaudio

__all__ = ["Level", "LogMel", "MelSettings", "band_centres", "to_peak"]


@dataclass(frozen=True)
class MelSettings:
    """What defines a log-mel spectrogram.

    Args:
        sample_rate: Hz.
        n_fft: Window and transform length in samples, even.
        hop_length: Samples between frames.
        num_bands: Mel bands.
        f_min: Lower edge of the lowest band in Hz.
        f_max: Upper edge of the highest band in Hz, at most half the sample rate.
        floor: Smallest magnitude before the logarithm.
    """

    sample_rate: int = 16_000
    n_fft: int = 1024
    hop_length: int = 160
    num_bands: int = 64
    f_min: float = 0.0
    f_max: float = 8000.0
    floor: float = 1e-5

    def __post_init__(self) -> None:
        if self.sample_rate < 1 or self.n_fft < 2 or self.n_fft % 2 or not 0 < self.hop_length <= self.n_fft // 2:
            raise ValueError(
                f"need a positive sample_rate, an even n_fft and 0 < hop_length <= n_fft / 2; got {self.sample_rate}, "
                f"{self.n_fft}, {self.hop_length}"
            )
        if not 0 <= self.f_min < self.f_max <= self.sample_rate / 2:
            raise ValueError(
                f"need 0 <= f_min < f_max <= {self.sample_rate / 2:g} Hz (half the sample rate), got {self.f_min:g} "
                f"and {self.f_max:g}"
            )
        if self.num_bands < 1 or self.floor <= 0:
            raise ValueError(f"need num_bands >= 1 and floor > 0, got {self.num_bands} and {self.floor}")

    @property
    def silence(self) -> float:
        """The value of every entry of a silent spectrogram."""
        return math.log(self.floor)

    def frames(self, length: int) -> int:
        """Frames of a waveform of `length` samples: one per whole hop (1024 for 163 840 samples)."""
        return length // self.hop_length


class LogMel(nn.Module):
    """Waveforms to log-mel spectrograms, and the transform in between.

    Has no entries in the state dict.

    Args:
        settings: See :class:`MelSettings`; default: the published front end.

    Raises:
        ValueError: The transform is too coarse for so many bands (some would be empty).
    """

    window: Tensor
    filters: Tensor
    spread: Tensor

    def __init__(self, settings: MelSettings | None = None) -> None:
        super().__init__()
        self.settings = s = settings or MelSettings()
        # Tables, not weights: they are computed even where a model is only outlined (on the meta device).
        with torch.device("cpu"):
            self._tabulate(s)

    def _tabulate(self, s: MelSettings) -> None:
        filters = _triangles(s, "slaney")
        if bool((filters.amax(0) == 0).any()):
            empty = int((filters.amax(0) == 0).sum())
            raise ValueError(
                f"{empty} of {s.num_bands} mel bands lie between two bins of a {s.n_fft}-point transform at "
                f"{s.sample_rate} Hz: lower num_bands or raise n_fft"
            )
        self.register_buffer("window", torch.hann_window(s.n_fft), persistent=False)
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("spread", _interpolation(_triangles(s, None)), persistent=False)

    def config(self) -> dict[str, float | int]:
        """The settings as plain values."""
        return asdict(self.settings)

    def forward(self, wave: Tensor) -> Tensor:
        """Natural-log mel spectrogram.

        Args:
            wave: Samples, `(*, L)` at the settings' rate; peaks near 0.5 are usual. L > n_fft / 2.

        Returns:
            `(*, L // hop_length, num_bands)`; the last frame of the centred transform is left out, as published.
        """
        return self.from_spectrum(self.spectrum(wave))[..., : self.settings.frames(wave.shape[-1]), :]

    def spectrum(self, wave: Tensor) -> Tensor:
        """Complex short-time spectrum.

        Args:
            wave: `(*, L)`, L > n_fft / 2.

        Returns:
            `(*, 1 + L // hop_length, n_fft // 2 + 1)`.
        """
        return short_time.spectrum(wave, self.window, self.settings.hop_length)

    def waveform(self, spectrum: Tensor, length: int) -> Tensor:
        """Inverse of :meth:`spectrum`, `(*, length)`."""
        return short_time.waveform(spectrum, self.window, self.settings.hop_length, length)

    def from_spectrum(self, spectrum: Tensor) -> Tensor:
        """Log-mel of a complex spectrum `(*, T, F)`, all its frames: `(*, T, num_bands)`."""
        return (spectrum.abs() @ self.filters.to(spectrum.real.dtype)).clamp(min=self.settings.floor).log()

    def to_bins(self, bands: Tensor) -> Tensor:
        """Values per mel band `(*, T, num_bands)` interpolated linearly between band centres: `(*, T, F)`.

        Bins outside the outermost centres get the value of the nearest band, so constants are kept exactly.
        """
        return bands @ self.spread.to(bands.dtype)


@dataclass(frozen=True)
class Level:
    """Offset and gain taken off by :func:`to_peak`.

    Args:
        offset: `(*, 1)`, subtracted first.
        gain: `(*, 1)`, multiplied afterwards.
    """

    offset: Tensor
    gain: Tensor

    def apply(self, wave: Tensor) -> Tensor:
        """What :func:`to_peak` did, for another wave of the same mixture."""
        return (wave - self.offset) * self.gain

    def restore(self, wave: Tensor) -> Tensor:
        """A wave at the original level. The offset stays off: a constant is not part of any sound."""
        return wave / self.gain


def to_peak(wave: Tensor, peak: float = 0.5) -> tuple[Tensor, Level]:
    """Subtract the mean and scale to a peak, as published: :math:`(x - \\bar x) / (\\max|x - \\bar x| + 10^{-8}) p`.

    Args:
        wave: `(*, L)`.
        peak: Largest magnitude of the result.

    Returns:
        The scaled wave, and the level that brings results back. A silent wave stays silent and its gain is 1.
    """
    offset = wave.mean(-1, keepdim=True)
    largest = (wave - offset).abs().amax(-1, keepdim=True)
    gain = torch.where(largest > 0, peak / (largest + 1e-8), torch.ones_like(largest))
    level = Level(offset, gain)
    return level.apply(wave), level


def band_centres(settings: MelSettings) -> np.ndarray:
    """Hz of the peaks of the bands' triangles, `(num_bands,)`, evenly spaced on the Slaney scale."""

    def mel(hertz: float) -> float:
        return hertz / (200 / 3) if hertz < 1000 else 15 + 27 * math.log(hertz / 1000) / math.log(6.4)

    inner = np.linspace(mel(settings.f_min), mel(settings.f_max), settings.num_bands + 2)[1:-1]
    return np.where(inner < 15, inner * (200 / 3), 1000 * np.exp((inner - 15) * math.log(6.4) / 27))


def _triangles(s: MelSettings, norm: str | None) -> Tensor:
    with warnings.catch_warnings():
        # Empty bands are an error of ours, with a clearer message.
        warnings.filterwarnings("ignore", message=".*all zero values.*")
        return torchaudio.functional.melscale_fbanks(
            s.n_fft // 2 + 1, s.f_min, s.f_max, s.num_bands, s.sample_rate, norm=norm, mel_scale="slaney"
        )


def _interpolation(triangles: Tensor) -> Tensor:
    """Rows sum to one per bin: `(num_bands, F)`. Neighbouring triangles sum to one between their centres already."""
    weights = triangles.clone()
    centres = weights.argmax(0)
    weights[: int(centres[0]) + 1] = torch.eye(weights.shape[1])[0]
    weights[int(centres[-1]) :] = torch.eye(weights.shape[1])[-1]
    return (weights / weights.sum(1, keepdim=True)).T.contiguous()
