r"""Synthetic sound events with labels: the data set that needs no files.

Ten kinds of sound with random parameters, drawn afresh every time, so that nothing repeats between training and test.
All are sums of
:math:`a(t) \sin(2 \pi \int f)` and of noise shaped in frequency and time, and computed without loops over samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

__all__ = ["EVENTS", "SyntheticEvents"]

Rng = np.random.Generator
Maker = Callable[[Rng, np.ndarray, float], np.ndarray]


class SyntheticEvents:
    """A bank of synthetic events, one item per kind.

    Args:
        kinds: Names out of :data:`EVENTS`; default: all.
        sample_rate: Hz, at least 8000.

    Raises:
        ValueError: Unknown kind or too low a rate.
    """

    def __init__(self, kinds: Sequence[str] | None = None, sample_rate: int = 16_000) -> None:
        unknown = [kind for kind in kinds or () if kind not in EVENTS]
        if unknown or (kinds is not None and not kinds):
            raise ValueError(f"unknown kinds of sound {unknown}; known are {', '.join(EVENTS)}")
        if sample_rate < 8000:
            raise ValueError(f"synthetic sounds need at least 8000 Hz, got {sample_rate}")
        self.kinds, self.sample_rate = tuple(kinds or EVENTS), sample_rate

    def __len__(self) -> int:
        return len(self.kinds)

    def labels(self, item: int) -> frozenset[str]:
        """The kind."""
        return frozenset((self.kinds[item],))

    def captions(self, item: int) -> tuple[str, ...]:
        """Its descriptions."""
        return EVENTS[self.kinds[item]][0]

    def groups(self) -> list[np.ndarray]:
        """One group per kind."""
        return [np.asarray([item]) for item in range(len(self))]

    def source(self, item: int) -> str:
        """The generator's name."""
        return f"generated {self.kinds[item]}"

    def draw(self, item: int, rng: Rng, length: int) -> np.ndarray:
        """A new sound of the kind with root mean square 0.1, `(length,)` float32."""
        t = np.arange(length) / self.sample_rate
        wave = EVENTS[self.kinds[item]][1](rng, t, 0.45 * self.sample_rate)
        return (0.1 * wave / np.sqrt(np.mean(wave**2) + 1e-12)).astype(np.float32)


def _log_uniform(rng: Rng, low: float, high: float, size: int | tuple[int, ...] | None = None) -> np.ndarray:
    return np.exp(rng.uniform(np.log(low), np.log(high), size))


def _onsets(rng: Rng, t: np.ndarray, rate: float, jitter: float) -> np.ndarray:
    """Times of repeated events at about `rate` per second, at least one, `(n,)`."""
    period, end = 1 / rate, t[-1] + 1e-9
    times = np.arange(rng.uniform(0, min(period, 0.5 * end)), end, period)
    return np.clip(times + jitter * period * rng.uniform(-0.5, 0.5, len(times)), 0, 0.95 * end)


def _pulses(t: np.ndarray, onsets: np.ndarray, attack: float, decay: float) -> np.ndarray:
    """Envelopes of all onsets, `(n, length)`: a linear rise, then an exponential fall."""
    after = t - onsets[:, None]
    return np.where(after < 0, 0, np.minimum(after / attack, 1) * np.exp(-np.maximum(after - attack, 0) / decay))


def _gates(t: np.ndarray, onsets: np.ndarray, length: float, edge: float = 0.01) -> np.ndarray:
    """Envelopes that are 1 for `length` seconds from each onset, with soft edges, `(n, length)`."""
    after = t - onsets[:, None]
    return np.clip(np.minimum(after, length - after) / edge, 0, 1)


def _place(sound: np.ndarray, onsets: np.ndarray, t: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Copies of a sound from every onset on, to the nearest sample."""
    out = np.zeros(len(t))
    for start, level in zip(np.searchsorted(t, onsets), levels, strict=True):
        part = sound[: len(t) - start]
        out[start : start + len(part)] += level * part
    return out


def _shaped_noise(rng: Rng, t: np.ndarray, low: float, high: float, slope: float = 0.0) -> np.ndarray:
    """Gaussian noise between two frequencies with soft edges, falling by `slope` (amplitude ~ f^-slope)."""
    spectrum = np.fft.rfft(rng.standard_normal(len(t)))
    f = np.fft.rfftfreq(len(t), t[1] - t[0])
    gain = 1 / (1 + (np.maximum(f, 1e-3) / high) ** 8) / (1 + (low / np.maximum(f, 1e-3)) ** 8)
    gain = gain * np.maximum(f, 20.0) ** -slope
    noise = np.fft.irfft(spectrum * gain, len(t))
    return noise / (noise.std() + 1e-12)


def _slow(rng: Rng, t: np.ndarray, rate: float) -> np.ndarray:
    """A smooth random function of about unit size that changes `rate` times per second."""
    knots = max(4, int(t[-1] * rate) + 2)
    return np.interp(t, np.linspace(0, t[-1], knots), rng.standard_normal(knots))


def _harmonics(rng: Rng, t: np.ndarray, f0: np.ndarray, slope: float, top: float) -> np.ndarray:
    """Harmonic series below `top` on a (changing) fundamental; amplitudes ~ k^-slope, random phases."""
    count = max(1, min(40, int(top / f0.max())))
    k = np.arange(1.0, count + 1)[:, None]
    # Single precision is enough for a phase within one turn, and three times as fast.
    phase = (2 * np.pi * (np.cumsum(f0) * (t[1] - t[0]) % 1)).astype(np.float32)
    shift = rng.uniform(0, 2 * np.pi, (count, 1)).astype(np.float32)
    return (k**-slope).astype(np.float32)[:, 0] @ np.sin(k.astype(np.float32) * phase + shift)


def _whistle(rng: Rng, t: np.ndarray, top: float) -> np.ndarray:
    onsets = _onsets(rng, t, rng.uniform(0.6, 2.0), 0.3)
    gates = _gates(t, onsets, rng.uniform(0.3, 0.8), 0.03)
    notes = _log_uniform(rng, 700, min(2200, top), len(onsets))[:, None]
    vibrato = 1 + rng.uniform(0, 0.02) * np.sin(2 * np.pi * rng.uniform(4, 7) * t)
    phase = 2 * np.pi * np.cumsum(notes * vibrato, 1) * (t[1] - t[0])
    return (gates * (np.sin(phase) + rng.uniform(0, 0.2) * np.sin(2 * phase))).sum(0)


def _sweep(rng: Rng, t: np.ndarray, top: float) -> np.ndarray:
    low, high = _log_uniform(rng, 250, 500), _log_uniform(rng, 1500, min(3500, top))
    period = rng.uniform(0.6, 1.6)
    place = (t / period + rng.uniform()) % 1
    if rng.uniform() < 0.5:
        place = 1 - place
    phase = 2 * np.pi * np.cumsum(low * (high / low) ** place) * (t[1] - t[0])
    return np.sin(phase) * np.clip(np.minimum(place, 1 - place) / 0.02, 0, 1)


def _bell(rng: Rng, t: np.ndarray, top: float) -> np.ndarray:
    onsets = _onsets(rng, t, rng.uniform(0.5, 1.6), 0.4)
    f0, ring = _log_uniform(rng, 350, 900), rng.uniform(0.3, 0.9)
    # Ratios of the partials of a cast bell: hum, prime, tierce, quint, nominal and three above.
    ratios = np.array([0.5, 1.0, 1.19, 1.5, 2.0, 2.51, 2.66, 3.01]) * (1 + 0.01 * rng.standard_normal(8))
    ratios = ratios[f0 * ratios < top, None]
    level = rng.uniform(0.3, 1.0, ratios.shape) * np.exp(-t * ratios**0.7 / ring)
    stroke = (level * np.sin(2 * np.pi * f0 * ratios * t)).sum(0) * np.minimum(t / 0.002, 1)
    return _place(stroke, onsets, t, np.ones(len(onsets)))


def _hiss(rng: Rng, t: np.ndarray, top: float) -> np.ndarray:
    noise = _shaped_noise(rng, t, rng.uniform(2500, 3500), min(rng.uniform(6500, 8000), top))
    return noise * np.exp(0.5 * _slow(rng, t, rng.uniform(1, 4)))


def _clap(rng: Rng, t: np.ndarray, top: float) -> np.ndarray:
    onsets = _onsets(rng, t, rng.uniform(1.5, 4.0), 0.3)
    envelope = _pulses(t, onsets, 0.001, rng.uniform(0.015, 0.04))
    return _shaped_noise(rng, t, 500, min(rng.uniform(3000, 5000), top)) * envelope.sum(0)


def _clock(rng: Rng, t: np.ndarray, top: float) -> np.ndarray:
    onsets = _onsets(rng, t, rng.uniform(5, 12), 0.05)
    f, short = min(_log_uniform(rng, 4000, 6500), top), t[: np.searchsorted(t, 0.03)]
    tick = _pulses(short, np.zeros(1), 0.0002, 0.003)[0] * np.sin(2 * np.pi * f * short)
    return _place(tick, onsets, t, np.where(np.arange(len(onsets)) % 2, rng.uniform(0.4, 1.0), 1.0))


def _bird(rng: Rng, t: np.ndarray, top: float) -> np.ndarray:
    onsets = _onsets(rng, t, rng.uniform(3, 8), 0.6)
    length, start = rng.uniform(0.04, 0.12), _log_uniform(rng, 2500, 4500)
    span, short = rng.uniform(-1200, 1800), t[: np.searchsorted(t, length)]
    phase = 2 * np.pi * (min(start, top - max(span, 0)) * short + span * short**2 / (2 * length))
    chirp = _gates(short, np.zeros(1), length, 0.008)[0] * np.sin(phase)
    return _place(chirp, onsets, t, rng.uniform(0.6, 1.0, len(onsets)))


def _engine(rng: Rng, t: np.ndarray, top: float) -> np.ndarray:
    f0 = _log_uniform(rng, 45, 90) * np.exp(0.06 * _slow(rng, t, 1.5))
    body = _harmonics(rng, t, f0, rng.uniform(0.6, 1.0), min(1200, top))
    firing = 1 + 0.4 * np.sin(np.pi * np.cumsum(f0) * (t[1] - t[0]))
    return firing * body + 0.3 * body.std() * _shaped_noise(rng, t, 80, 700, 0.5)


def _buzzer(rng: Rng, t: np.ndarray, top: float) -> np.ndarray:
    f0 = np.full(len(t), _log_uniform(rng, 180, 320))
    onsets = _onsets(rng, t, rng.uniform(0.6, 1.5), 0.2)
    gate = np.minimum(_gates(t, onsets, rng.uniform(0.35, 0.9)).sum(0), 1)
    return gate * _harmonics(rng, t, f0, rng.uniform(0.2, 0.6), min(4500, top))


def _thunder(rng: Rng, t: np.ndarray, top: float) -> np.ndarray:
    noise = _shaped_noise(rng, t, 25, rng.uniform(120, 250), 0.3)
    return noise * np.exp(0.9 * _slow(rng, t, rng.uniform(1.5, 4)))


EVENTS: dict[str, tuple[tuple[str, ...], Maker]] = {
    "bell": (("a bell ringing", "bells", "a church bell is struck", "the ringing of a bell"), _bell),
    "bird": (("a bird chirping", "birds", "chirps of a small bird", "birdsong"), _bird),
    "buzzer": (("an electric buzzer", "buzzing", "a buzzer sounds", "the buzz of an alarm"), _buzzer),
    "clap": (("hands clapping", "applause", "someone claps", "clapping"), _clap),
    "clock": (("a clock ticking", "ticking", "fast ticks of a clock", "clicks of a clockwork"), _clock),
    "engine": (("an engine running", "a motor", "the engine of a car", "an idling motor"), _engine),
    "hiss": (("steam hissing", "hissing", "a hiss of escaping air", "air leaking"), _hiss),
    "siren": (("a siren wailing", "a siren", "sweeping siren sound", "the wail of sirens"), _sweep),
    "thunder": (("thunder rumbling", "rumbling", "a deep rumble", "distant thunder"), _thunder),
    "whistle": (("someone whistling", "a whistle", "whistled notes", "a whistling tune"), _whistle),
}
"""Kind of sound: its descriptions and its generator of (rng, times in seconds, highest frequency in Hz)."""
