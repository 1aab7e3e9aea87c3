r"""Mixtures with a known target, made as a pure function of a seed.

.. math:: x = g\,(s + c \sum_i a_i n_i), \qquad 10 \log_{10} \frac{\|s\|^2}{\|c \sum_i a_i n_i\|^2} = \mathrm{SNR}

The partners n_i share no label with the target or with each other. The gain g brings the mixture to a fixed peak and
multiplies the target as well, so that the target is what is really inside. Asked for something that is not there, the
right answer is silence: true zeros. A damaged or silent recording is replaced by another draw, of the same class where
that helps, so that a mixture remains a function of the seed, its number and the data.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ...core.noise import hash_seed
from ..errors import DataError
from .bank import AUDIBLE, SoundBank, UnusableSound
from .disjoint import DisjointLabels

__all__ = ["MixingSettings", "Mixture", "Mixtures", "SeparationBatch", "collate", "mix"]

_TRIES = 20
# Different sets of labels that are looked at before one is taken that leaves less room for others.
_JUDGED = 100


@dataclass(frozen=True)
class MixingSettings:
    """How mixtures are made.

    Args:
        seconds: Length.
        min_sources: Fewest sounds in a mixture, at least 2; the one asked for counts, also where it is absent.
        max_sources: Most; where labels do not allow so many, as many as they allow.
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
        DataError: The bank holds too few classes for `min_sources`.
    """

    def __init__(
        self, bank: SoundBank, settings: MixingSettings, *, seed: int, size: int | None = None, cycle: bool = False
    ) -> None:
        self.bank, self.settings, self.seed, self.size, self.cycle = bank, settings, seed, size, cycle
        self._disjoint = DisjointLabels(bank)
        kinds = self._disjoint.most(settings.min_sources)
        if kinds < settings.min_sources:
            raise DataError(
                f"mixtures of at least {settings.min_sources} sounds (data.mixing.min_sources) need as many without a "
                f"common label; there are {kinds}"
            )

    def __len__(self) -> int:
        if self.size is None:
            raise TypeError("endless mixtures have no length")
        return self.size

    def __getitem__(self, index: int) -> Mixture:
        if self.size is not None and not 0 <= index < self.size:
            raise IndexError(index)
        rng = np.random.Generator(np.random.Philox(hash_seed(self.seed, index)))
        return mix(self.bank, self.settings, rng, index if self.cycle else None, self._disjoint)


def mix(
    bank: SoundBank,
    settings: MixingSettings,
    rng: np.random.Generator,
    group: int | None = None,
    disjoint: DisjointLabels | None = None,
) -> Mixture:
    """One mixture.

    Args:
        bank: Where sounds come from.
        settings: How they are mixed.
        rng: All the randomness.
        group: Class of the target (modulo their number); default: at random. Where none of its sounds can be had,
            another class is taken, with a warning.
        disjoint: Of the bank, if it is at hand.

    Raises:
        DataError: Nothing but silence was found, or too few sounds without a common label.
    """
    length = round(settings.seconds * bank.sample_rate)
    spread, fewest = settings.speed_spread, settings.min_sources - 1
    kinds = disjoint or DisjointLabels(bank)
    item, target = _audible(bank, rng, length, spread, _Choice(kinds, frozenset(), fewest), group)
    heard = bank.labels(item)
    absent = settings.silence_share > 0 and rng.uniform() < settings.silence_share
    wanted = int(rng.integers(settings.min_sources, settings.max_sources + 1)) - (0 if absent else 1)
    partners, others = [], []
    while room := kinds.most(wanted - len(partners), heard):
        partner, wave = _audible(bank, rng, length, spread, _Choice(kinds, heard, room - 1))
        heard |= bank.labels(partner)
        gain = 10 ** (rng.uniform(-settings.partner_spread, settings.partner_spread) / 20)
        partners.append(wave * (gain / _rms(wave)))
        others.append(bank.captions(partner)[0])
    if len(partners) < fewest:
        raise DataError(
            f"{bank.source(item)} can be mixed with {len(partners)} sounds without a common label, "
            f"data.mixing.min_sources wants {fewest}"
        )
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


@dataclass(frozen=True)
class _Choice:
    # Sounds that share no label with what is heard and leave room for as many more.
    disjoint: DisjointLabels
    heard: frozenset[str]
    more: int

    def free(self, labels: frozenset[str]) -> bool:
        return not labels & self.heard

    def best(self, labels: frozenset[str]) -> bool:
        return self.free(labels) and self.disjoint.most(self.more, self.heard | labels) == self.more


def _audible(
    bank: SoundBank, rng: np.random.Generator, length: int, spread: float, choice: _Choice, group: int | None = None
) -> tuple[int, np.ndarray]:
    # The group, if one is asked for, in the first half of the tries; in the second any sound that may be taken.
    groups, tried = bank.groups(), {}
    for attempt in range(_TRIES):
        late = attempt >= _TRIES // 2
        members = groups[int(rng.integers(len(groups))) if group is None or late else group % len(groups)]
        item = int(members[rng.integers(len(members))])
        if not choice.best(bank.labels(item)):
            if not late:
                continue
            item = _any(bank, rng, choice)
        try:
            wave = _draw(bank, item, rng, length, spread)
        except UnusableSound:
            tried[bank.source(item)] = "damaged"
            continue
        if _rms(wave) > AUDIBLE:
            if late and group is not None:
                _warn_of_class(bank, groups[group % len(groups)], tried)
            return item, wave
        tried[bank.source(item)] = "silent"
    raise DataError(f"{_TRIES} draws found nothing audible (root mean square above {AUDIBLE:g}): {_list(tried)}")


def _warn_of_class(bank: SoundBank, members: np.ndarray, tried: dict[str, str]) -> None:
    reason = _list(tried) or "none has so few labels that others can be mixed with it"
    name = bank.captions(int(members[0]))[0]
    warnings.warn(f"no sound of {name!r} can be asked for, another is ({reason})", UserWarning, stacklevel=4)


def _list(tried: dict[str, str]) -> str:
    shown = ", ".join(f"{source} is {what}" for source, what in list(tried.items())[:3])
    return shown + (f" and {len(tried) - 3} more" if len(tried) > 3 else "")


def _draw(bank: SoundBank, item: int, rng: np.random.Generator, length: int, spread: float) -> np.ndarray:
    if spread == 0:
        return bank.draw(item, rng, length)
    wave = bank.draw(item, rng, round(length * float(np.exp(rng.uniform(-spread, spread)))))
    # Linear interpolation dampens the highest octave a little; a varied recording is what is wanted.
    places = np.linspace(0, len(wave) - 1, length)
    return np.interp(places, np.arange(len(wave)), wave).astype(np.float32)


def _any(bank: SoundBank, rng: np.random.Generator, choice: _Choice) -> int:
    judged: dict[frozenset[str], bool] = {}
    free = []
    for item in map(int, rng.permutation(len(bank))):
        labels = bank.labels(item)
        if labels not in judged and choice.free(labels) and len(judged) < _JUDGED:
            free.append(item)
            judged[labels] = choice.best(labels)
        if judged.get(labels):
            return item
    if free:
        return free[0]
    raise DataError(f"no sound without a common label with {', '.join(sorted(choice.heard))} to mix with")


def _rms(wave: np.ndarray) -> float:
    return float(np.sqrt(np.mean(wave.astype(np.float64) ** 2)))
