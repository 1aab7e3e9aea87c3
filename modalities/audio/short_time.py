"""The short-time Fourier transform and its inverse, frames centred by reflection, for any window and step."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["spectrum", "waveform"]


def spectrum(wave: Tensor, window: Tensor, hop: int) -> Tensor:
    """Complex short-time spectrum.

    Args:
        wave: `(*, L)`, L > n_fft / 2.
        window: `(n_fft,)`.
        hop: Samples between frames.

    Returns:
        `(*, 1 + L // hop, n_fft // 2 + 1)`.

    Raises:
        ValueError: Too few samples.
    """
    n_fft = len(window)
    if wave.shape[-1] <= n_fft // 2:
        raise ValueError(
            f"{wave.shape[-1]} samples are too few for a {n_fft}-point transform: pad to at least {n_fft // 2 + 1}"
        )
    flat = wave.reshape(-1, wave.shape[-1])
    values = torch.stft(flat, n_fft, hop, window=window.to(wave.dtype), pad_mode="reflect", return_complex=True)
    return values.transpose(1, 2).reshape(*wave.shape[:-1], values.shape[2], values.shape[1])


def waveform(values: Tensor, window: Tensor, hop: int, length: int) -> Tensor:
    """Inverse of :func:`spectrum`, `(*, length)`."""
    flat = values.reshape(-1, *values.shape[-2:]).transpose(1, 2)
    wave = torch.istft(flat, len(window), hop, window=window.to(values.real.dtype), length=length)
    return wave.reshape(*values.shape[:-2], length)
