r"""Mixtures with a known target, made as a pure function of a seed.

.. math:: x = g\,(s + c \sum_i a_i n_i), \qquad 10 \log_{10} \frac{\|s\|^2}{\|c \sum_i a_i n_i\|^2} = \mathrm{SNR}

The partners n_i share no label with the target or with each other. The gain g brings the mixture to a fixed peak and
multiplies the target as well, so that the target is what is really inside. Asked for something that is not there, the
right answer is silence: true zeros.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ...core.noise import hash_seed
from ..errors import DataError
from .bank import SoundBank

__all__ = ["MixingSettings", "Mixture", "Mixtures", "SeparationBatch", "collate", "mix"]

_QUIET = 1e-4
_TRIES = 20


@dataclass(frozen=True)
class MixingSettings:
    """How mixtures are made.

    Args:
        seconds: Length.
        min_sources: Fewest sounds in a mixture, at least 2.
        max_sources: Most.
        min_snr: Lowest level of the target over all partners together, dB.
        max_snr: Highest.
        partner_spread: Levels of the partners among each other, uniform within plus and minus this, dB.
        peak: Largest magnitude of every mixture.
        silence_share: Share of mixtures that are asked for something they do not hold.
        plain_captions: Only the first description of a sound, as validation uses.
        speed_spread: Every sound is played faster or slower by a factor drawn between exp(-s) and exp(s), which
            changes its pitch as well; stretches a small set of recordings. Never in validation.
    """

    seconds: float = 2.56
    min_sources: int = 2
    max_sources: int = 2
    min_snr: float = -5.0
    max_snr: float = 5.0
    partner_spread: float = 3.0
    peak: float = 0.5
    silence_share: float = 0.0
    plain_captions: bool = False
    speed_spread: float = 0.0

    def __post_init__(self) -> None:
        if self.seconds <= 0 or self.peak <= 0:
            raise ValueError(f"seconds and peak must be positive, got {self.seconds} and {self.peak}")
        if not 2 <= self.min_sources <= self.max_sources:
            raise ValueError(f"need 2 <= min_sources <= max_sources, got {self.min_sources} and {self.max_sources}")
        if self.min_snr > self.max_snr or self.partner_spread < 0:
            raise ValueError(
                f"need min_snr <= max_snr and partner_spread >= 0, got {self.min_snr}, {self.max_snr}, "
                f"{self.partner_spread}"
            )
        if not 0 <= self.speed_spread <= 1:
            raise ValueError(f"speed_spread must be in [0, 1], got {self.speed_spread}")
        if not 0 <= self.silence_share < 1:
            raise ValueError(f"silence_share must be in [0, 1), got {self.silence_share}")


@dataclass(frozen=True)
class Mixture:
    """A mixture and its target.

    Args:
        mixture: `(L,)` float32.
        target: What the query asks for, inside the mixture at this level, `(L,)`.
        query: A description of the target.
        others: Plain descriptions of the partners: wrong queries.
        snr: Of the target over the rest, dB; minus infinity for a silent target.
    """

    mixture: np.ndarray
    target: np.ndarray
    query: str
    others: tuple[str, ...]
    snr: float


@dataclass(frozen=True)
class SeparationBatch:
    """Mixtures below each other.

    Args:
        mixture: `(B, L)` float32.
        target: `(B, L)`.
        queries: B descriptions.
        others: Wrong queries of each.
        snr: `(B,)` dB.
    """

    mixture: Tensor
    target: Tensor
    queries: tuple[str, ...]
    others: tuple[tuple[str, ...], ...]
    snr: Tensor

    def __len__(self) -> int:
        return len(self.mixture)

    def to(self, device: torch.device | str) -> SeparationBatch:
        """The same on another device."""
        return SeparationBatch(
            self.mixture.to(device), self.target.to(device), self.queries, self.others, self.snr.to(device)
        )


class Mixtures(Dataset[Mixture]):
    """Mixtures by number: `mixtures[i]` depends on the bank, the settings, the seed and i alone.

    Args:
        bank: Where sounds come from.
        settings: How they are mixed.
        seed: Any integer.
        size: How many there are; None for as many as asked (training).
        cycle: Targets go through the classes in turn, so that a small set holds all alike.

    Raises:
        DataError: The bank holds too few classes for so many sources.
    """

    def __init__(
        self, bank: SoundBank, settings: MixingSettings, *, seed: int, size: int | None = None, cycle: bool = False
    ) -> None:
        self.bank, self.settings, self.seed, self.size, self.cycle = bank, settings, seed, size, cycle
        needed = settings.max_sources + (1 if settings.silence_share else 0)
        kinds = _most_disjoint(bank, needed)
        if kinds < needed:
            raise DataError(
                f"mixtures of {settings.max_sources} sources{' with silence' if settings.silence_share else ''} need "
                f"{needed} sounds without a common label; the bank has {kinds}"
            )

    def __len__(self) -> int:
        if self.size is None:
            raise TypeError("endless mixtures have no length")
        return self.size

    def __getitem__(self, index: int) -> Mixture:
        if self.size is not None and not 0 <= index < self.size:
            raise IndexError(index)
        rng = np.random.Generator(np.random.Philox(hash_seed(self.seed, index)))
        return mix(self.bank, self.settings, rng, group=index if self.cycle else None)


def mix(bank: SoundBank, settings: MixingSettings, rng: np.random.Generator, group: int | None = None) -> Mixture:
    """One mixture.

    Args:
        bank: Where sounds come from.
        settings: How they are mixed.
        rng: All the randomness.
        group: Class of the target (modulo their number); default: at random.

    Raises:
        DataError: Nothing but silence was found, or no partner without a common label.
    """
    length = round(settings.seconds * bank.sample_rate)
    spread = settings.speed_spread
    item, target = _audible(bank, rng, length, frozenset(), group, spread)
    heard = bank.labels(item)
    absent = settings.silence_share > 0 and rng.uniform() < settings.silence_share
    partners, others = [], []
    for _ in range(int(rng.integers(settings.min_sources, settings.max_sources + 1)) - (0 if absent else 1)):
        partner, wave = _audible(bank, rng, length, heard, None, spread)
        heard |= bank.labels(partner)
        gain = 10 ** (rng.uniform(-settings.partner_spread, settings.partner_spread) / 20)
        partners.append(wave * (gain / _rms(wave)))
        others.append(bank.captions(partner)[0])
    rest = np.sum(partners, axis=0)
    snr = float(rng.uniform(settings.min_snr, settings.max_snr))
    if absent:
        target, snr = np.zeros_like(target), -math.inf
    else:
        # Two partners may cancel; the level of their sum is what counts.
        rest = rest * (_rms(target) / max(_rms(rest), 1e-12) * 10 ** (-snr / 20))
    mixture = target + rest
    gain = settings.peak / float(np.abs(mixture).max())
    captions = bank.captions(item)
    query = captions[0 if settings.plain_captions else int(rng.integers(len(captions)))]
    return Mixture((gain * mixture).astype(np.float32), (gain * target).astype(np.float32), query, tuple(others), snr)


def collate(mixtures: Sequence[Mixture]) -> SeparationBatch:
    """Mixtures of equal length as a batch."""
    return SeparationBatch(
        torch.from_numpy(np.stack([m.mixture for m in mixtures])),
        torch.from_numpy(np.stack([m.target for m in mixtures])),
        tuple(m.query for m in mixtures),
        tuple(m.others for m in mixtures),
        torch.tensor([m.snr for m in mixtures]),
    )


def _audible(
    bank: SoundBank,
    rng: np.random.Generator,
    length: int,
    heard: frozenset[str],
    group: int | None,
    spread: float = 0.0,
) -> tuple[int, np.ndarray]:
    groups = bank.groups()
    for attempt in range(_TRIES):
        members = groups[int(rng.integers(len(groups))) if group is None else group % len(groups)]
        item = int(members[rng.integers(len(members))])
        if bank.labels(item) & heard:
            if attempt < _TRIES // 2:
                continue
            item = _any_disjoint(bank, rng, heard)
        wave = _draw(bank, item, rng, length, spread)
        if _rms(wave) > _QUIET:
            return item, wave
    raise DataError(f"{_TRIES} draws found nothing audible (root mean square above {_QUIET:g}); check the recordings")


def _draw(bank: SoundBank, item: int, rng: np.random.Generator, length: int, spread: float) -> np.ndarray:
    if spread == 0:
        return bank.draw(item, rng, length)
    wave = bank.draw(item, rng, round(length * float(np.exp(rng.uniform(-spread, spread)))))
    # Linear interpolation dampens the highest octave a little; a varied recording is what is wanted.
    places = np.linspace(0, len(wave) - 1, length)
    return np.interp(places, np.arange(len(wave)), wave).astype(np.float32)


def _any_disjoint(bank: SoundBank, rng: np.random.Generator, heard: frozenset[str]) -> int:
    for item in rng.permutation(len(bank)):
        if not bank.labels(int(item)) & heard:
            return int(item)
    raise DataError(f"no sound without a common label with {', '.join(sorted(heard))} to mix with")


def _most_disjoint(bank: SoundBank, needed: int) -> int:
    heard: frozenset[str] = frozenset()
    count = 0
    for item in range(len(bank)):
        if not bank.labels(item) & heard:
            heard |= bank.labels(item)
            count += 1
        if count == needed:
            break
    return count


def _rms(wave: np.ndarray) -> float:
    return float(np.sqrt(np.mean(wave.astype(np.float64) ** 2)))
