"""Sound files in and out: WAV, FLAC, OGG, MP3 and whatever else libsndfile reads, at any rate and bit depth.

Samples are float32 in [-1, 1] at full scale, `(channels, length)`. Levels are kept: nothing is normalised on the way in
or clipped on the way out. Writing goes beside the target first and is then renamed, so that a file is whole or absent.
"""

from __future__ import annotations

import math
import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from .torchaudio_compat import torchaudio

__all__ = ["AudioFileError", "Recording", "clipped_share", "read_audio", "resample", "write_audio"]

_SUBTYPES = {".wav": "PCM_24", ".flac": "PCM_24", ".ogg": "VORBIS", ".mp3": "MPEG_LAYER_III"}
# libsndfile's Vorbis encoder overflows its stack on very long single writes.
_BLOCK = 65_536
# Resampling kernels hold up / gcd * (2 width + down / gcd) numbers; beyond this another method is cheaper.
_LARGEST_KERNEL = 4_000_000


class AudioFileError(ValueError):
    """A sound file is missing, unreadable, empty or not a number; the message names the file and the reason."""


@dataclass(frozen=True)
class Recording:
    """A piece of sound.

    Args:
        samples: `(channels, length)` float32, full scale 1.
        sample_rate: Hz.
        name: Where it comes from, for messages.
    """

    samples: Tensor
    sample_rate: int
    name: str = "recording"

    def __post_init__(self) -> None:
        if self.samples.ndim != 2:
            raise ValueError(f"{self.name}: samples must be (channels, length), got shape {tuple(self.samples.shape)}")
        if self.sample_rate < 1:
            raise ValueError(f"{self.name}: sample_rate must be positive, got {self.sample_rate}")

    @property
    def seconds(self) -> float:
        """Duration."""
        return self.samples.shape[1] / self.sample_rate

    def at(self, sample_rate: int) -> Recording:
        """The same sound at another rate."""
        return replace(
            self, samples=resample(self.samples, self.sample_rate, sample_rate), sample_rate=int(sample_rate)
        )

    def mono(self) -> Recording:
        """The mean of all channels, `(1, length)`."""
        return replace(self, samples=self.samples.mean(0, keepdim=True))


def read_audio(
    path: str | Path,
    *,
    sample_rate: int | None = None,
    mono: bool = False,
    start: float = 0.0,
    seconds: float | None = None,
) -> Recording:
    """Read a sound file.

    Args:
        path: WAV, FLAC, OGG, MP3, AIFF, ...
        sample_rate: Resample to this many Hz; default: keep the file's.
        mono: Average the channels.
        start: Skip this many seconds; only what is needed is read.
        seconds: Read at most this much; default: to the end.

    Returns:
        The recording, `(channels, length)`.

    Raises:
        AudioFileError: Missing, not audio, no samples (in the asked part), or NaN or infinite samples.
    """
    path = Path(path)
    if not path.is_file():
        raise AudioFileError(f"{path}: no such file")
    if start < 0 or (seconds is not None and seconds <= 0):
        raise ValueError(f"start must be >= 0 and seconds > 0, got {start} and {seconds}")
    try:
        with soundfile.SoundFile(path) as file:
            rate = file.samplerate
            first = min(round(start * rate), file.frames)
            file.seek(first)
            values = file.read(
                -1 if seconds is None else max(1, round(seconds * rate)), dtype="float32", always_2d=True
            )
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise AudioFileError(
            f"{path}: not a sound file that can be read ({error}); WAV, FLAC, OGG, MP3 and AIFF can"
        ) from error
    if len(values) == 0:
        where = f" after {start:g} s" if first else ""
        raise AudioFileError(f"{path}: holds no samples{where}")
    if not np.isfinite(values).all():
        bad = np.argwhere(~np.isfinite(values))
        raise AudioFileError(
            f"{path}: {len(bad)} of {values.size} samples are NaN or infinite, the first at "
            f"{(first + int(bad[0, 0])) / rate:.3f} s: repair or export the file again"
        )
    recording = Recording(torch.from_numpy(np.ascontiguousarray(values.T)), rate, path.name)
    if mono:
        recording = recording.mono()
    return recording if sample_rate is None else recording.at(sample_rate)


def write_audio(
    path: str | Path, samples: Tensor, sample_rate: int, *, force: bool = False, subtype: str | None = None
) -> Path:
    """Write a sound file; the extension says the format.

    Args:
        path: Ends in .wav, .flac, .ogg or .mp3.
        samples: `(length,)` or `(channels, length)`, full scale 1. A WAV file that would clip becomes 32-bit float.
        sample_rate: Hz.
        force: Replace an existing file.
        subtype: Sample format as libsndfile names it; default: 24 bit for WAV and FLAC.

    Returns:
        The path.

    Raises:
        FileExistsError: The file exists and `force` is not given.
        ValueError: Unknown extension, no samples, NaN samples, or samples beyond full scale where they would clip.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in _SUBTYPES:
        raise ValueError(f"{path}: unknown extension {suffix!r}; known are {', '.join(_SUBTYPES)}")
    values = torch.atleast_2d(samples.detach()).cpu().float().numpy().T
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"{path}: nothing to write, samples have shape {tuple(samples.shape)}")
    if not np.isfinite(values).all():
        raise ValueError(f"{path}: not written, some samples are NaN or infinite")
    if path.exists() and not force:
        raise FileExistsError(f"{path} exists; choose another name or overwrite it with force")
    largest = float(np.abs(values).max())
    kind = subtype or _SUBTYPES[suffix]
    if largest > 1 and kind not in ("FLOAT", "DOUBLE"):
        if suffix != ".wav" or subtype is not None:
            raise ValueError(
                f"{path}: would clip, the peak is {largest:.3f} and {kind} holds at most 1: write a .wav (32-bit float)"
                " or lower the level"
            )
        kind = "FLOAT"
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(suffix=suffix, prefix=f".{path.stem}-", dir=path.parent)
    os.close(handle)
    try:
        with soundfile.SoundFile(temporary, "w", sample_rate, values.shape[1], subtype=kind) as file:
            for begin in range(0, len(values), _BLOCK):
                file.write(values[begin : begin + _BLOCK])
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except soundfile.SoundFileError as error:
        raise ValueError(f"{path}: cannot be written at {sample_rate} Hz as {kind} ({error})") from error
    finally:
        Path(temporary).unlink(missing_ok=True)
    return path


def resample(samples: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Band-limited resampling.

    Args:
        samples: `(*, L)`.
        from_rate: Hz.
        to_rate: Hz.

    Returns:
        `(*, ceil(L to_rate / from_rate))`.
    """
    if from_rate < 1 or to_rate < 1:
        raise ValueError(f"sample rates must be positive, got {from_rate} and {to_rate}")
    if from_rate == to_rate:
        return samples
    divisor = math.gcd(from_rate, to_rate)
    up, down = to_rate // divisor, from_rate // divisor
    width = math.ceil(32 * down / min(up, down))
    if up * (2 * width + down) <= _LARGEST_KERNEL:
        return torchaudio.functional.resample(samples, from_rate, to_rate, lowpass_filter_width=32, rolloff=0.95)
    # Rates without a common divisor (44 101 Hz): a polyphase filter of the same steepness.
    from scipy.signal import resample_poly

    values = resample_poly(samples.numpy(force=True).astype(np.float64), up, down, axis=-1, window=("kaiser", 8.0))
    return torch.from_numpy(values.astype(np.float32)).to(samples)


def clipped_share(samples: Tensor, threshold: float = 0.999) -> float:
    """Share of samples at full scale; above about 1e-4 a recording was overdriven and separation suffers."""
    return float((samples.abs() >= threshold).float().mean()) if samples.numel() else 0.0
