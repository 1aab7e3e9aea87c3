"""What every separator of sounds by description has in common: hearing, reading, recordings of any length, rendering.

A separator sees the mixture as log-mel windows of a fixed length at a peak of 0.5, estimates the log-mel of what the
description asks for, and renders it (:mod:`.reconstruction`). Rates, channels and levels of the user's recording are
kept. What the model hears of a window is the mean of its channels at the model's rate, or the channel of largest energy
where the mean cancels them: where its energy is less than a tenth of what unrelated channels would leave in it. Every
window decides for itself, so that nothing depends on what lies minutes away.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...core import NoiseSource, hash_seed
from ..adapter import Adapter
from .bigvgan import BigVGAN
from .files import resample
from .mel import LogMel, MelSettings, to_peak
from .reconstruction import GriffinLim, MixturePhaseMask, Reconstruction, Vocoder, fitted
from .solvers import SOLVERS
from .text import TextEncoder, TextStates
from .text_encoders import FrozenText, build_text_encoder
from .windows import Windows, in_windows

__all__ = ["DECODERS", "MixtureBatch", "Query", "Separation", "Separator"]

DECODERS = ("auto", "mask", "vocoder", "griffinlim")
_PEAK = 0.5
# A window this much below full scale is taken as silence; bringing it to the usual peak would only amplify noise.
_SILENT_PEAK = 1e-4
# Unrelated channels leave a share 1 / channels of their energy in their mean; this much of that means cancellation.
_CANCELLED = 0.1
# Ambisonics of the seventh order has 64; more are samples taken for channels.
_MOST_CHANNELS = 64


class MixtureBatch(Protocol):
    """What training data look like."""

    mixture: Tensor
    """`(B, L)`, peaks near 0.5."""

    target: Tensor
    """`(B, L)`, inside the mixture at this level."""

    queries: tuple[str, ...]
    """B descriptions."""

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Query:
    """What is asked for, in full.

    Args:
        text: Description of the wanted sound, not empty.
        negative: Description of what must not be heard, or None.
        guidance: Scale of classifier-free guidance; 1 is none. Default: the model's, and 2 with a negative description.
        steps: Steps of the generator.
        candidates: Estimates that are averaged in the mel domain.
        start: Begin at this noise level, in (0, 1), from the mixture itself instead of from noise.
        seed: Of all noise.
        temperature: Factor on the noise a generator starts from: below 1 estimates are nearer to each other and to
            their mean. Default: the model's.
        solver: One of :data:`.SOLVERS`. Default: the model's.
    """

    text: str
    negative: str | None = None
    guidance: float | None = None
    steps: int = 10
    candidates: int = 1
    start: float | None = None
    seed: int = 0
    temperature: float | None = None
    solver: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not self.text.strip():
            raise ValueError("the query is empty: describe the sound to keep, for example 'a dog barking'")
        if self.negative is not None and not isinstance(self.negative, str):
            raise ValueError(f"the negative query is a description in words, got {self.negative!r}")
        if self.negative is not None and not self.negative.strip():
            raise ValueError("the negative query is empty: describe the sound to avoid, or leave it out")
        for name in ("steps", "candidates", "seed"):
            if not isinstance(getattr(self, name), Integral):
                raise ValueError(f"{name} must be a whole number, got {getattr(self, name)!r}")
        if self.steps < 1 or self.candidates < 1:
            raise ValueError(f"steps and candidates must be at least 1, got {self.steps} and {self.candidates}")
        for name in ("guidance", "start", "temperature"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, Real) and math.isfinite(value)):
                raise ValueError(f"{name} must be a finite number, got {value!r}")
        if self.temperature is not None and self.temperature < 0:
            raise ValueError(f"temperature must not be negative, got {self.temperature}")
        if self.start is not None and not 0 < self.start < 1:
            raise ValueError(f"start must be a noise level between 0 and 1, got {self.start}")
        if self.solver is not None and self.solver not in SOLVERS:
            raise ValueError(f"unknown solver {self.solver!r}; known are {', '.join(SOLVERS)}")

    def scale(self, usual: float = 1.0) -> float:
        """The guidance that applies, for a model that usually takes `usual`."""
        if self.guidance is not None:
            return self.guidance
        return usual if self.negative is None else 2.0


@dataclass(frozen=True)
class Separation:
    """A separated sound.

    Args:
        samples: Shape, rate and level of the mixture.
        residual: Mixture minus samples, if asked for.
        sample_rate: Hz.
        decoder: How it was rendered: "mask", "vocoder" or "griffinlim".
    """

    samples: Tensor
    residual: Tensor | None
    sample_rate: int
    decoder: str


class Separator(Adapter):
    """Base of the separators.

    Args:
        front: Arguments of :class:`.MelSettings`.
        seconds: Length of a window.
        text: Description of the text encoder, see :func:`.build_text_encoder`.
        vocoder: Arguments of :class:`.BigVGAN`, for models that carry one.
        sounds: Plain descriptions of what it was trained on, where these are few; empty if it knows language at large.
    """

    sampling_steps: int = 1
    """Steps of the generator that are recommended."""

    def __init__(
        self,
        front: Mapping[str, Any] | None,
        seconds: float,
        text: Mapping[str, Any] | None,
        vocoder: Mapping[str, Any] | None,
        sounds: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.sounds = tuple(sounds)
        self.front = LogMel(MelSettings(**dict(front or {})))
        s = self.front.settings
        self.seconds = float(seconds)
        self.window = round(seconds * s.sample_rate)
        if self.window < s.n_fft or self.window % s.hop_length:
            raise ValueError(
                f"seconds={seconds:g} is {self.window} samples at {s.sample_rate} Hz; it must be a multiple of "
                f"hop_length ({s.hop_length}) and at least n_fft ({s.n_fft})"
            )
        self.frames = s.frames(self.window)
        self.text = build_text_encoder(text)
        self.vocoder = None if vocoder is None else BigVGAN(**dict(vocoder)).requires_grad_(False)

    def common_config(self) -> dict[str, Any]:
        """Arguments of this class as plain values."""
        return {
            "front": self.front.config(),
            "seconds": self.seconds,
            "text": self.text.config(),
            "vocoder": None if self.vocoder is None else self.vocoder.config(),
            "sounds": list(self.sounds),
        }

    @property
    def sample_rate(self) -> int:
        """Hz the model works at."""
        return self.front.settings.sample_rate

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def use_text_encoder(self, encoder: TextEncoder) -> None:
        """Use an encoder that is already loaded.

        Raises:
            ValueError: The model has its own, or its states have other channels.
        """
        if not isinstance(self.text, FrozenText):
            raise ValueError("this model's text encoder was learnt with it and cannot be replaced")
        self.text.use(encoder)

    def look_for_text_in(self, source: str) -> None:
        """Load the pretrained text encoder from another folder, or by another hub name, than the model says.

        Raises:
            ValueError: The model has its own.
        """
        if not isinstance(self.text, FrozenText):
            raise ValueError("this model's text encoder was learnt with it and cannot be replaced")
        self.text.look_in(source)

    @abstractmethod
    def estimate(self, mixture: Tensor, query: Query, ids: Sequence[int]) -> Tensor:
        """Log-mel of the wanted sound.

        Args:
            mixture: Log-mel of windows at a peak of 0.5, `(B, frames, num_bands)`.
            query: What is asked for.
            ids: Numbers of the windows: equal ones get equal noise.

        Returns:
            `(B, frames, num_bands)`.
        """

    def reconstruction(self, decoder: str = "auto") -> Reconstruction:
        """How estimates become samples.

        Args:
            decoder: "mask", "vocoder", "griffinlim", or "auto": the vocoder if the model carries one, else the mask.

        Raises:
            ValueError: Unknown name, or a vocoder that is not there.
        """
        if decoder not in DECODERS:
            raise ValueError(f"unknown decoder {decoder!r}; known are {', '.join(DECODERS)}")
        if decoder == "auto":
            decoder = "mask" if self.vocoder is None else "vocoder"
        if decoder == "griffinlim":
            return GriffinLim(self.front)
        if decoder == "mask":
            return MixturePhaseMask(self.front)
        if self.vocoder is None:
            raise ValueError("this model carries no vocoder: use decoder='mask' or 'griffinlim'")
        return Vocoder(self.front, self.vocoder)

    def separate(
        self,
        wave: Tensor | NDArray[np.floating],
        sample_rate: int,
        query: str,
        negative: str | None = None,
        steps: int | None = None,
        seed: int = 0,
        decoder: str = "auto",
        residual: bool = False,
        *,
        guidance: float | None = None,
        candidates: int = 1,
        start: float | None = None,
        temperature: float | None = None,
        solver: str | None = None,
        overlap: float = 0.25,
        batch: int = 4,
        progress: Callable[[int, int], None] | None = None,
    ) -> Separation:
        """Keep what a description asks for.

        Args:
            wave: Samples `(L,)` or `(channels, L)`, full scale 1, any L >= 1.
            sample_rate: Hz; any.
            query: Description of the wanted sound.
            negative: Description of a sound to avoid.
            steps: Steps of the generator; default: what the model recommends, 10 for the published one.
            seed: Of the noise; equal seeds give equal results.
            decoder: See :meth:`reconstruction`.
            residual: Also give mixture minus estimate.
            guidance: Scale of classifier-free guidance; default: the model's, and 2 with a negative description.
            candidates: Estimates to average.
            start: Begin at this noise level from the mixture; default: from noise.
            temperature: Factor on the noise it begins with; default: the model's.
            solver: One of :data:`.SOLVERS`; default: the model's.
            overlap: Share of a window that it has in common with the next, at most 0.5.
            batch: Windows computed together.
            progress: Called as `progress(done, windows)`.

        Returns:
            The estimate and how it was rendered.

        Raises:
            ValueError: Empty query, no samples, samples that are NaN or infinite, more than 64 channels, or settings
                that make no sense or lead to an estimate that is not finite.
        """
        samples = torch.as_tensor(np.asarray(wave) if not isinstance(wave, Tensor) else wave).float()
        mixture, sample_rate = _checked(samples), whole_rate(sample_rate)
        steps = self.sampling_steps if steps is None else steps
        asked = Query(query, negative, guidance, steps, candidates, start, seed, temperature, solver)
        pieces = self.stream(
            lambda begin, end: mixture[:, begin:end],
            mixture.shape[1],
            sample_rate,
            asked,
            decoder=decoder,
            overlap=overlap,
            batch=batch,
            progress=progress,
        )
        out = torch.empty_like(mixture)
        for begin, part in pieces:
            out[:, begin : begin + part.shape[1]] = part
        return Separation(
            out.reshape(samples.shape),
            (mixture - out).reshape(samples.shape) if residual else None,
            sample_rate,
            self.reconstruction(decoder).name,
        )

    def stream(
        self,
        read: Callable[[int, int], Tensor],
        length: int,
        sample_rate: int,
        query: Query,
        *,
        decoder: str = "auto",
        overlap: float = 0.25,
        batch: int = 4,
        progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[tuple[int, Tensor]]:
        """As :meth:`separate`, part by part, for recordings that do not fit into memory.

        Args:
            read: `(start, stop)` to samples `(channels, stop - start)`.
            length: Samples per channel.
            sample_rate: Hz.
            query: What is asked for.
            decoder: See :meth:`reconstruction`.
            overlap: Share of a window, at most 0.5.
            batch: Windows computed together.
            progress: Called as `progress(done, windows)`.

        Yields:
            Start, and the samples `(channels, n)` from there on.
        """
        sample_rate = whole_rate(sample_rate)
        if length < 1 or batch < 1 or not 0 <= overlap <= 0.5:
            raise ValueError(
                f"need at least one sample, batch >= 1 and overlap in [0, 0.5]; got {length}, {batch}, {overlap}"
            )
        render = self.reconstruction(decoder)
        # Two samples are the least that a transform can reflect.
        window = max(2, round(self.seconds * sample_rate))
        windows = Windows(length, window, int(overlap * window))

        def process(parts: Tensor, numbers: Sequence[int]) -> Tensor:
            with torch.inference_mode():
                out = self._render(parts.to(self.device), query, numbers, render, sample_rate).to(parts)
            if not torch.isfinite(out).all():
                asked = {k: v for k in ("guidance", "temperature") if (v := getattr(query, k)) is not None}
                cause = ", ".join(f"lower {name}, now {value:g}" for name, value in asked.items())
                raise ValueError(f"the estimate is NaN or infinite: {cause or 'are the weights of the model damaged?'}")
            return out

        for done, (begin, part) in enumerate(in_windows(windows, read, process, batch=batch), start=1):
            yield begin, part
            if progress is not None:
                progress(done, len(windows))

    def _render(
        self, parts: Tensor, query: Query, numbers: Sequence[int], render: Reconstruction, sample_rate: int
    ) -> Tensor:
        """Windows `(B, channels, L)` at any rate to estimates of the same shape and level."""
        audible = fitted(resample(heard(parts), sample_rate, self.sample_rate), self.window)
        mono, level = to_peak(audible, _PEAK)
        estimate = self.estimate(self.front(mono), query, numbers)
        # The gain was taken from what is heard; phase and offset are each channel's own.
        scaled = (parts - parts.mean(-1, keepdim=True)) * level.gain[:, None]
        out = level.gain[:, None].reciprocal() * render(estimate, scaled, mono, sample_rate)
        loud = audible.abs().amax(-1) > _SILENT_PEAK
        return torch.where(loud[:, None, None], out, torch.zeros_like(out))

    def sample(self, mixture: Tensor, queries: Sequence[str], **options: Any) -> Tensor:
        """Estimates of many short mixtures at once, each with a description of its own.

        Args:
            mixture: `(B, L)` at the model's rate, L at most a window.
            queries: B descriptions.
            options: Of :class:`Query`, and `decoder`; without `steps` those recommended.

        Returns:
            `(B, L)`.
        """
        options = {"steps": self.sampling_steps, **options}
        decoder = self.reconstruction(options.pop("decoder", "auto"))
        length = mixture.shape[-1]
        if mixture.ndim != 2 or not 0 < length <= self.window or len(queries) != len(mixture):
            raise ValueError(
                f"expected (B, L) with L <= {self.window} and B descriptions, got {tuple(mixture.shape)} and "
                f"{len(queries)}"
            )
        parts = torch.nn.functional.pad(mixture.to(self.device), (0, self.window - length))[:, None]
        with torch.inference_mode():
            out = torch.empty_like(parts)
            for text in dict.fromkeys(queries):
                chosen = [i for i, query in enumerate(queries) if query == text]
                for some in (chosen[i : i + 16] for i in range(0, len(chosen), 16)):
                    out[some] = self._render(parts[some], Query(text, **options), some, decoder, self.sample_rate)
        return out[:, 0, :length].to(mixture)

    def states(self, queries: Sequence[str], noise: NoiseSource | None = None, dropout: float = 0.0) -> TextStates:
        """Encoded descriptions on the model's device, some dropped at random for classifier-free guidance.

        Args:
            queries: B descriptions.
            noise: One identity per sample, needed for dropout.
            dropout: Chance, per example, to be told nothing.
        """
        encoded = self.text(queries).to(self.device)
        if not dropout or noise is None:
            return encoded
        keep = noise.uniform((len(queries),), 0) >= dropout
        return encoded.where(keep.to(self.device), self.text.unconditional(len(queries)).to(self.device))


def noise_of(seed: int, ids: Sequence[int], candidate: int) -> NoiseSource:
    """Noise of a candidate for some windows: does not depend on which windows are computed together."""
    return NoiseSource(hash_seed(seed, candidate), ids)


def whole_rate(sample_rate: float) -> int:
    """A sample rate as a whole number of Hz.

    Raises:
        ValueError: It is none, or less than 1.
    """
    if not isinstance(sample_rate, Real) or not math.isfinite(sample_rate) or sample_rate != int(sample_rate):
        raise ValueError(f"sample_rate must be a whole number of Hz, got {sample_rate!r}")
    if sample_rate < 1:
        raise ValueError(f"sample_rate must be positive, got {sample_rate}")
    return int(sample_rate)


def heard(parts: Tensor) -> Tensor:
    """What a model hears of windows: the mean of their channels, or the loudest where the mean cancels them.

    Args:
        parts: `(B, channels, L)`.

    Returns:
        `(B, L)`.
    """
    return torch.einsum("bc,bcl->bl", channel_weights(parts), parts)


def channel_weights(parts: Tensor) -> Tensor:
    """How :func:`heard` adds up the channels of `(B, channels, L)`: `(B, channels)`, with sums of 1."""
    even = torch.full_like(parts[..., 0], 1 / parts.shape[1])
    energies, kept = (x.var(-1, correction=0) for x in (parts, parts.mean(1)))
    cancelled = kept < _CANCELLED / parts.shape[1] * energies.mean(1)
    loudest = torch.nn.functional.one_hot(energies.argmax(1), parts.shape[1]).to(parts)
    return torch.where(cancelled[:, None], loudest, even)


def _checked(wave: Tensor) -> Tensor:
    if wave.ndim not in (1, 2):
        raise ValueError(f"samples must be (L,) or (channels, L), got shape {tuple(wave.shape)}")
    if wave.numel() == 0:
        raise ValueError("the recording holds no samples")
    if wave.ndim == 2 and len(wave) > _MOST_CHANNELS:
        raise ValueError(
            f"samples must be (channels, L) with at most {_MOST_CHANNELS} channels, got shape {tuple(wave.shape)}: "
            "pass x.T if x is (L, channels), as soundfile reads it"
        )
    if not torch.isfinite(wave).all():
        bad = int((~torch.isfinite(wave)).sum())
        raise ValueError(f"{bad} of {wave.numel()} samples are NaN or infinite: repair or export the recording again")
    return torch.atleast_2d(wave)
