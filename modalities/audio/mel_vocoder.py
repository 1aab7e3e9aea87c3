r"""A vocoder to be trained: BigVGAN's generator with a spectral loss.

.. math:: L = 45\, \overline{|S(\hat x) - S(x)|} + \frac1M \sum_m \Big( \frac{\||X_m| - |\hat X_m|\|}{\||X_m|\|} +
   \overline{\big|\log |X_m| - \log |\hat X_m|\big|} \Big)

S is the log-mel the generator reads, X_m are short-time spectra of M window lengths. With a dynamic range both S are
lifted to that far below the sound's loudest bin: at digital silence the logarithm is steep, and otherwise what is
learnt first is to be silent everywhere. There is no adversary: phases come out plausible rather than crisp. Never judge
the result by sample-wise ratios: a vocoder invents its phases.

Source: Lee et al. 2023 (arXiv 2206.04658) for the generator and the weight of the mel loss; Yamamoto et al. 2020
(arXiv 1910.11480) for the multi-resolution loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...core import NoiseSource
from ..adapter import Adapter
from ..registry import register
from .bigvgan import BigVGAN
from .mel import LogMel, MelSettings
from .separator import MixtureBatch

__all__ = ["MelVocoder", "multi_resolution_distance"]

_MEL_WEIGHT = 45.0
_FLOOR = 1e-4
_NEPER = math.log(10) / 20


@register
class MelVocoder(Adapter):
    """Trainable vocoder.

    Args:
        generator: Arguments of :class:`.BigVGAN`.
        front: Arguments of :class:`.MelSettings`.
        seconds: Length of the windows it is trained on.
        windows: Window lengths of the multi-resolution loss, samples.
        dynamic_range: dB below a sound's loudest bin that count as equal in the mel loss; None as published, for
            recordings, which have a noise floor of their own.

    Raises:
        ValueError: Generator and front end differ in bands or hop.
    """

    name: ClassVar[str] = "mel-vocoder"

    def __init__(
        self,
        generator: Mapping[str, Any] | None = None,
        front: Mapping[str, Any] | None = None,
        seconds: float = 0.64,
        windows: Sequence[int] = (256, 512, 1024),
        dynamic_range: float | None = None,
    ) -> None:
        super().__init__()
        self.front, self.seconds, self.windows = (
            LogMel(MelSettings(**dict(front or {}))),
            float(seconds),
            tuple(windows),
        )
        self.dynamic_range = dynamic_range
        if dynamic_range is not None and dynamic_range <= 0:
            raise ValueError(f"dynamic_range must be positive, got {dynamic_range}")
        self.generator = BigVGAN(**dict(generator or {}))
        s = self.front.settings
        if (self.generator.num_bands, self.generator.hop_length) != (s.num_bands, s.hop_length):
            raise ValueError(
                f"the generator takes {self.generator.num_bands} bands every {self.generator.hop_length} samples, the "
                f"front end gives {s.num_bands} every {s.hop_length}"
            )
        if not self.windows or min(self.windows) < 16:
            raise ValueError(f"windows must be at least 16 samples long, got {self.windows}")

    def config(self) -> dict[str, Any]:
        """See :class:`.Adapter`."""
        return {
            "generator": self.generator.config(),
            "front": self.front.config(),
            "seconds": self.seconds,
            "windows": list(self.windows),
            "dynamic_range": self.dynamic_range,
        }

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self.front.settings.sample_rate

    def loss(self, batch: MixtureBatch, noise: NoiseSource) -> Tensor:
        """Loss per sample, `(B,)`: of mixtures for even, of targets for odd identities."""
        odd = (noise.ids % 2 == 1).to(batch.mixture.device)
        wave = torch.where(odd[:, None], batch.target, batch.mixture)
        log_mel = self.front(wave)
        made = self.generator.waveform(log_mel)
        wave = wave[:, : made.shape[1]]
        ours, truth = self.front(made), self.front(wave)
        if self.dynamic_range is not None:
            floor = truth.amax((1, 2), keepdim=True) - self.dynamic_range * _NEPER
            ours, truth = ours.maximum(floor), truth.maximum(floor)
        mel_error = (ours - truth).abs().flatten(1).mean(1)
        return _MEL_WEIGHT * mel_error + multi_resolution_distance(made, wave, self.windows)

    @torch.no_grad()
    def sample(self, log_mel: Tensor) -> Tensor:
        """Samples `(B, hop_length T)` of log-mels `(B, T, bands)`."""
        return self.generator.waveform(log_mel)


def multi_resolution_distance(made: Tensor, wave: Tensor, windows: Sequence[int]) -> Tensor:
    """Spectral convergence plus log-magnitude error, averaged over window lengths; waves `(B, L)` to `(B,)`."""
    total = torch.zeros(len(wave), device=wave.device)
    for length in windows:
        window = torch.hann_window(length, device=wave.device)
        a, b = (
            torch.stft(x, length, length // 4, window=window, return_complex=True).abs().clamp(min=_FLOOR)
            for x in (made, wave)
        )
        convergence = (a - b).flatten(1).norm(dim=1) / b.flatten(1).norm(dim=1)
        total = total + convergence + (a.log() - b.log()).abs().flatten(1).mean(1)
    return total / len(windows)
