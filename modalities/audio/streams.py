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
# Vorbis and MP3 hold floating point too.
_CLIPPING = (".flac",)
_FULL_SCALE = 0.999
# libsndfile's Vorbis encoder overflows its stack on very long single writes.
_BLOCK = 65_536


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
            AudioFileError: Some are NaN or infinite, or the file is damaged or ends early.
        """
        try:
            self._file.seek(start)
            values = self._file.read(stop - start, dtype="float32", always_2d=True)
        except (soundfile.SoundFileError, RuntimeError) as error:
            raise AudioFileError(
                f"{self.path}: cannot be read from {start / self.sample_rate:.3f} s on ({error}): damaged or cut off?"
            ) from error
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

    FLAC holds nothing beyond full scale. If samples are louder, all of them go to PATH.wav (32-bit float) instead, in
    full and at their level; `path` says where the sound is.

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
        self._suffix = self.path.suffix.lower()
        if self._suffix not in _SUBTYPES:
            raise ValueError(f"{path}: unknown extension {self._suffix!r}; known are {', '.join(_SUBTYPES)}")
        places = [self.path, self._overflow] if self._suffix in _CLIPPING else [self.path]
        for place in places:
            if place.exists() and not force:
                raise FileExistsError(f"{place} exists; choose another name or overwrite it with --force")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._rate, self._channels = sample_rate, channels
        self._temporary, self._file = self._opened()

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
            ValueError: Some are NaN or infinite.
        """
        values = samples.detach().cpu().float().numpy().T
        if not np.isfinite(values).all():
            raise ValueError(f"{self.path}: not written, some samples are NaN or infinite")
        if self._suffix in _CLIPPING and values.size and float(np.abs(values).max()) > 1:
            self._to_float()
        for begin in range(0, len(values), _BLOCK):
            self._file.write(values[begin : begin + _BLOCK])

    @property
    def _overflow(self) -> Path:
        return self.path.with_name(f"{self.path.name}.wav")

    def _opened(self) -> tuple[Path, soundfile.SoundFile]:
        handle, name = tempfile.mkstemp(suffix=self._suffix, prefix=f".{self.path.stem}-", dir=self.path.parent)
        os.close(handle)
        kind = _SUBTYPES[self._suffix]
        try:
            return Path(name), soundfile.SoundFile(name, "w", self._rate, self._channels, subtype=kind)
        except (soundfile.SoundFileError, RuntimeError) as error:
            Path(name).unlink(missing_ok=True)
            raise ValueError(f"{self.path}: cannot be written at {self._rate} Hz as {kind} ({error})") from error

    def _to_float(self) -> None:
        """Go on in a WAV file that holds what was written so far."""
        self._file.close()
        written = self._temporary
        self.path, self._suffix = self._overflow, ".wav"
        try:
            self._temporary, self._file = self._opened()
            # A FLAC file without samples is empty, and no FLAC file.
            if written.stat().st_size:
                for block in soundfile.blocks(written, _BLOCK, dtype="float32", always_2d=True):
                    self._file.write(block)
        finally:
            written.unlink(missing_ok=True)
