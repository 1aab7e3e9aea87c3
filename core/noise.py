"""Random numbers as a pure function of (seed, sample id, draw, element).

A counter-based generator: the stream of a sample is keyed by (seed, id, key) through SplitMix64 (Steele, Lea and
Flood 2014, "Fast splittable pseudorandom number generators"), and element e of the stream is its e-th output.
Nothing is stored, so a draw does not depend on the other samples of the batch, on their order, on padding (masked
elements are skipped in the count), on the device, or on what was drawn before. Restarting at any step reproduces the
same noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

__all__ = ["Generator", "NoiseSource", "hash_seed"]

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def _signed(value: int) -> int:
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


def _shift_right(z: Tensor, bits: int) -> Tensor:
    return (z >> bits) & ((1 << (64 - bits)) - 1)  # int64 shifts are arithmetic: clear the copied sign


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shift_right(z, 30)) * _signed(_MULTIPLIERS[0])
    z = (z ^ _shift_right(z, 27)) * _signed(_MULTIPLIERS[1])
    return z ^ _shift_right(z, 31)


def hash_seed(*values: int) -> int:
    """Mix integers (seed, epoch, batch, rank, ...) into one well-spread non-negative 63-bit seed."""
    state = 0
    for value in values:
        state = (state + (value & _MASK) + _GOLDEN) & _MASK
        state = ((state ^ (state >> 30)) * _MULTIPLIERS[0]) & _MASK
        state = ((state ^ (state >> 27)) * _MULTIPLIERS[1]) & _MASK
        state ^= state >> 31
    return state >> 1


class NoiseSource:
    """Independent noise per sample id.

    Args:
        seed: any integer.
        ids: one integer per sample of the batch; equal ids give equal noise, whatever the batch.
    """

    def __init__(self, seed: int, ids: Iterable[int] | Tensor) -> None:
        self.seed = int(seed)
        self.ids = ids.long().cpu() if isinstance(ids, Tensor) else torch.tensor(list(ids), dtype=torch.int64)
        self._streams: dict[torch.device, Tensor] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: slice | Tensor) -> NoiseSource:
        """The noise of a part of the batch."""
        return NoiseSource(self.seed, self.ids[index])

    def spawn(self, key: int) -> NoiseSource:
        """A source with the same ids whose draws are independent of this one's."""
        return NoiseSource(hash_seed(self.seed, key), self.ids)

    def _bits(self, shape: Sequence[int], key: int, mask: Tensor | None, device: torch.device) -> Tensor:
        if shape[0] != len(self.ids):
            raise ValueError(f"noise of shape {tuple(shape)} asked from a source with {len(self.ids)} sample ids")
        if device not in self._streams:
            self._streams[device] = _mix(_mix(self.ids.to(device) + _signed(hash_seed(self.seed))) + _signed(_GOLDEN))
        stream = _mix(self._streams[device] + _signed(hash_seed(key)))
        count = math.prod(shape[1:])
        if mask is None:
            element = torch.arange(1, count + 1, device=device).expand(shape[0], count)
        else:
            element = mask.to(device).expand(tuple(shape)).reshape(shape[0], count).long().cumsum(1)
        return _mix(stream[:, None] + element * _signed(_GOLDEN)).reshape(tuple(shape))

    def normal(self, like: Tensor | Sequence[int], key: int, mask: Tensor | None = None) -> Tensor:
        """Standard normal numbers (Box-Muller in float64, cast to the dtype of ``like``).

        Args:
            like: a tensor or a shape (B, *), B = number of ids.
            key: number of the draw; different keys give independent noise.
            mask: bool, broadcastable to the shape; masked-out elements are 0 and do not shift the others.
        """
        shape, dtype, device = _describe(like)
        bits = self._bits(shape, key, mask, device)
        radius = torch.sqrt(-2 * torch.log((_shift_right(bits, 32).double() + 0.5) * 2.0**-32))
        angle = ((bits & 0xFFFFFFFF).double() + 0.5) * (2 * math.pi * 2.0**-32)
        value = radius.mul_(angle.cos_()).to(dtype)
        return value if mask is None else value * mask

    def uniform(self, like: Tensor | Sequence[int], key: int, mask: Tensor | None = None) -> Tensor:
        """Uniform numbers strictly inside (0, 1), arguments as in :meth:`normal`; masked-out elements are 0."""
        shape, dtype, device = _describe(like)
        bits = self._bits(shape, key, mask, device)
        value = (_shift_right(bits, 12).double() + 0.5) * 2.0**-52
        if dtype != torch.float64:
            value = value.to(dtype).clamp(torch.finfo(dtype).tiny, 1 - torch.finfo(dtype).eps / 2)
        return value if mask is None else value * mask


Generator = NoiseSource | torch.Generator | int
"""What every sampling function accepts as its source of randomness."""


def as_noise_source(generator: Generator, batch: int) -> NoiseSource:
    """A source for ``batch`` samples: an int is a seed with ids 0..batch-1; a torch.Generator gives the seed."""
    if isinstance(generator, NoiseSource):
        if len(generator) != batch:
            raise ValueError(f"the noise source has {len(generator)} sample ids, the batch has {batch} samples")
        return generator
    if isinstance(generator, torch.Generator):
        seed = int(torch.randint(0, 2**62, (), generator=generator, device=generator.device))
        return NoiseSource(seed, range(batch))
    return NoiseSource(generator, range(batch))


def _describe(like: Tensor | Sequence[int]) -> tuple[Sequence[int], torch.dtype, torch.device]:
    if isinstance(like, Tensor):
        dtype = like.dtype if like.dtype.is_floating_point else torch.float32
        return like.shape, dtype, like.device
    return like, torch.get_default_dtype(), torch.device("cpu")
