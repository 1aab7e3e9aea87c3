"""Sound files read and written part by part, for recordings that do not fit into memory."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import soundfile
import torch
from torch import Tensor

from .files import AudioFileError

__all__ = ["AudioReader", "AudioWriter"]

# A stream's peak is not known in advance: WAV files hold floating point, which cannot clip.
_SUBTYPES = {".wav": "FLOAT", ".flac": "PCM_24", ".ogg": "VORBIS", ".mp3": "MPEG_LAYER_III"}
_FULL_SCALE = 0.999


class AudioReader:
    """A sound file as random access to its samples.

    Args:
        path: WAV, FLAC, OGG, MP3, AIFF, ... at any rate and bit depth.

    Raises:
        AudioFileError: Missing, not audio, or without samples.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise AudioFileError(f"{path}: no such file")
        try:
            self._file = soundfile.SoundFile(self.path)
        except (soundfile.SoundFileError, RuntimeError) as error:
            raise AudioFileError(
                f"{path}: not a sound file that can be read ({error}); WAV, FLAC, OGG, MP3 and AIFF can"
            ) from error
        self.sample_rate, self.channels, self.length = self._file.samplerate, self._file.channels, self._file.frames
        self._seen_to, self._clipped = 0, 0
        if self.length == 0:
            self._file.close()
            raise AudioFileError(f"{path}: holds no samples")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def clipped_share(self) -> float:
        """Share of what was read so far that is at full scale."""
        return self._clipped / max(1, self._seen_to * self.channels)

    def read(self, start: int, stop: int) -> Tensor:
        """Samples `(channels, stop - start)`.

        Raises:
            AudioFileError: Some are NaN or infinite, or the file ends early.
        """
        self._file.seek(start)
        values = self._file.read(stop - start, dtype="float32", always_2d=True)
        if len(values) < stop - start:
            raise AudioFileError(f"{self.path}: ends after {start + len(values)} of {self.length} samples: damaged?")
        if not np.isfinite(values).all():
            first = start + int(np.argwhere(~np.isfinite(values))[0, 0])
            raise AudioFileError(
                f"{self.path}: samples are NaN or infinite, the first at {first / self.sample_rate:.3f} s: repair or "
                "export the file again"
            )
        fresh = values[max(0, self._seen_to - start) :]
        self._clipped += int((np.abs(fresh) >= _FULL_SCALE).sum())
        self._seen_to = max(self._seen_to, stop)
        return torch.from_numpy(np.ascontiguousarray(values.T))


class AudioWriter:
    """A sound file written part by part, beside its place, and put there when all is well.

    Args:
        path: Ends in .wav (32-bit float), .flac, .ogg or .mp3.
        sample_rate: Hz.
        channels: Of the samples.
        force: Replace an existing file.

    Raises:
        FileExistsError: The file exists and `force` is not given.
        ValueError: Unknown extension, or a rate the format does not know.
    """

    def __init__(self, path: str | Path, sample_rate: int, channels: int, *, force: bool = False) -> None:
        self.path = Path(path)
        suffix = self.path.suffix.lower()
        if suffix not in _SUBTYPES:
            raise ValueError(f"{path}: unknown extension {suffix!r}; known are {', '.join(_SUBTYPES)}")
        if self.path.exists() and not force:
            raise FileExistsError(f"{path} exists; choose another name or overwrite it with --force")
        self._kind = _SUBTYPES[suffix]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(suffix=suffix, prefix=f".{self.path.stem}-", dir=self.path.parent)
        os.close(handle)
        self._temporary = Path(name)
        try:
            self._file = soundfile.SoundFile(name, "w", sample_rate, channels, subtype=self._kind)
        except (soundfile.SoundFileError, RuntimeError) as error:
            self._temporary.unlink(missing_ok=True)
            raise ValueError(f"{path}: cannot be written at {sample_rate} Hz as {self._kind} ({error})") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if error is None:
            self._temporary.chmod(0o644)
            self._temporary.replace(self.path)
        self._temporary.unlink(missing_ok=True)

    def write(self, samples: Tensor) -> None:
        """Append samples `(channels, n)`.

        Raises:
            ValueError: They would clip in this format.
        """
        values = samples.detach().cpu().float().numpy().T
        peak = float(np.abs(values).max()) if values.size else 0.0
        if peak > 1 and self._kind != "FLOAT":
            raise ValueError(
                f"{self.path}: would clip, the peak is {peak:.3f} and {self._kind} holds at most 1: write a .wav "
                "(32-bit float) or lower the level"
            )
        self._file.write(values)
