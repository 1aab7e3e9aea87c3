r"""Gains per mel band and frame, applied to samples of any rate.

The transform has the front end's window and step in seconds, as far as whole samples allow, so that frame k lies at
:math:`k h / r` seconds; gains in between frames and between the centres of the bands are interpolated linearly.
Frequencies above the highest centre take the gain of the highest band: a 44.1 kHz recording keeps its treble where the
front end hears 8 kHz. At the front end's own rate all this is its own transform.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from .mel import LogMel, band_centres
from .short_time import spectrum, waveform

__all__ = ["BandMask"]


class BandMask:
    """A time-varying filter whose gains are given in the bands of a front end.

    Args:
        front: Says what the bands and frames are.
        sample_rate: Hz of the samples to filter; default: the front end's.
    """

    def __init__(self, front: LogMel, sample_rate: int | None = None) -> None:
        s = front.settings
        rate = s.sample_rate if sample_rate is None else sample_rate
        if rate == s.sample_rate:
            self.hop, self.window, self._spread = s.hop_length, front.window, front.spread
        else:
            n_fft = max(2, 2 * round(s.n_fft * rate / s.sample_rate / 2))
            self.hop = min(max(1, round(s.hop_length * rate / s.sample_rate)), n_fft // 2)
            self.window = torch.hann_window(n_fft).to(front.window)
            bins, centres = np.arange(n_fft // 2 + 1) * (rate / n_fft), band_centres(s)
            rows = [np.interp(bins, centres, row) for row in np.eye(len(centres))]
            self._spread = torch.from_numpy(np.stack(rows)).to(front.spread)
        self._step = Fraction(self.hop * s.sample_rate, rate * s.hop_length)

    def __call__(self, gains: Tensor, wave: Tensor) -> Tensor:
        """Filter samples.

        Args:
            gains: `(B, T, num_bands)`, frame j at j hop_length / (the front end's rate) seconds; the last one holds.
            wave: `(B, channels, L)`.

        Returns:
            `(B, channels, L)`.
        """
        values = spectrum(wave, self.window, self.hop)
        per_bin = self._at_own_frames(gains, values.shape[-2]) @ self._spread.to(gains)
        return waveform(values * per_bin[:, None], self.window, self.hop, wave.shape[-1])

    def _at_own_frames(self, gains: Tensor, frames: int) -> Tensor:
        last = gains.shape[1] - 1
        places = [min(k * self._step, Fraction(last)) for k in range(frames)]
        earlier = torch.tensor([int(p) for p in places], device=gains.device)
        share = torch.tensor([float(p - int(p)) for p in places], device=gains.device, dtype=gains.dtype)[:, None]
        before, after = gains[:, earlier], gains[:, (earlier + 1).clamp(max=last)]
        return before + share * (after - before)
