r"""The linear subspace a variable lives in.

A diffusion on adjacency matrices, or on positions without their centre of mass, is an ordinary Gaussian diffusion
whose noise and denoiser stay inside a linear subspace. A support knows that subspace and the padding of a batch, and
nothing else: projection, standard Gaussian noise on it, and its number of degrees of freedom. Because every solver
only forms linear combinations of states, noise and denoised states, a sampler needs no further knowledge of the
geometry.

Masks have the shape of the leading dimensions of x, e.g. (B, N) for nodes of (B, N, F); True is real, False is padding.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from .noise import NoiseSource

__all__ = ["CenterFree", "Full", "Support", "Symmetric"]


def _align(mask: Tensor, x: Tensor) -> Tensor:
    if mask.shape != x.shape[: mask.ndim]:
        raise ValueError(
            f"mask of shape {tuple(mask.shape)} does not match the leading dimensions of a state {tuple(x.shape)}"
        )
    return mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim))


class Support(ABC):
    """A linear subspace with padding. All methods take x of shape (B, *) and an optional mask."""

    @abstractmethod
    def project(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Orthogonal projection on the subspace; padding becomes 0. Idempotent."""

    @abstractmethod
    def noise(self, like: Tensor, mask: Tensor | None, source: NoiseSource, key: int) -> Tensor:
        """Standard Gaussian noise of the shape of ``like`` on the subspace."""

    @abstractmethod
    def ndim(self, like: Tensor, mask: Tensor | None = None) -> Tensor:
        """Degrees of freedom of every sample, shape (B,)."""

    @abstractmethod
    def real(self, like: Tensor, mask: Tensor | None = None) -> Tensor:
        """Bool tensor, broadcastable to ``like``: the entries that are neither padding nor fixed at 0."""


@dataclass(frozen=True)
class Full(Support):
    """The whole space, minus padding. Mask: leading dimensions of x."""

    def real(self, like: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is None:
            return torch.ones((1,) * like.ndim, dtype=torch.bool, device=like.device)
        return _align(mask, like).bool()

    def project(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return x if mask is None else torch.where(self.real(x, mask), x, 0)

    def noise(self, like: Tensor, mask: Tensor | None, source: NoiseSource, key: int) -> Tensor:
        return source.normal(like, key, None if mask is None else self.real(like, mask))

    def uniform(self, like: Tensor, mask: Tensor | None, source: NoiseSource, key: int) -> Tensor:
        """Uniform numbers in (0, 1), one per degree of freedom, 0 on padding."""
        return source.uniform(like, key, None if mask is None else self.real(like, mask))

    def ndim(self, like: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.real(like, mask).expand(like.shape).flatten(1).sum(1)


@dataclass(frozen=True)
class Symmetric(Support):
    """Symmetric matrices x[:, i, j] = x[:, j, i], shape (B, N, N) or (B, N, N, C), by default with an empty diagonal.

    Off-diagonal noise has variance 1, one draw per pair, so E|noise|^2 = 2 ndim for hollow matrices. Mask: nodes,
    (B, N).
    """

    hollow: bool = True

    def _pairs(self, like: Tensor, mask: Tensor | None) -> Tensor:
        if like.ndim < 3 or like.shape[1] != like.shape[2]:
            raise ValueError(f"Symmetric needs states of shape (B, N, N, ...), got {tuple(like.shape)}")
        size = like.shape[1]
        pairs = torch.ones(1, size, size, dtype=torch.bool, device=like.device)
        if mask is not None:
            if mask.shape != like.shape[:2]:
                raise ValueError(f"the node mask must have shape {tuple(like.shape[:2])}, got {tuple(mask.shape)}")
            pairs = mask.bool()[:, :, None] & mask.bool()[:, None, :]
        if self.hollow:
            pairs = pairs & ~torch.eye(size, dtype=torch.bool, device=like.device)
        return pairs.reshape(pairs.shape + (1,) * (like.ndim - 3))

    def real(self, like: Tensor, mask: Tensor | None = None) -> Tensor:
        return self._pairs(like, mask)

    def project(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return torch.where(self._pairs(x, mask), (x + x.transpose(1, 2)) / 2, 0)

    def _upper(self, like: Tensor, mask: Tensor | None) -> Tensor:
        size = like.shape[1]
        upper = torch.ones(size, size, dtype=torch.bool, device=like.device).triu()
        return self._pairs(like, mask) & upper.reshape((1, size, size) + (1,) * (like.ndim - 3))

    def _mirror(self, x: Tensor) -> Tensor:
        diagonal = torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
        mirrored = x.transpose(1, 2)
        return x + torch.where(diagonal.reshape((1, *diagonal.shape) + (1,) * (x.ndim - 3)), 0, mirrored)

    def noise(self, like: Tensor, mask: Tensor | None, source: NoiseSource, key: int) -> Tensor:
        return self._mirror(source.normal(like, key, self._upper(like, mask)))

    def uniform(self, like: Tensor, mask: Tensor | None, source: NoiseSource, key: int) -> Tensor:
        """Uniform numbers in (0, 1), one per pair, 0 on padding."""
        return self._mirror(source.uniform(like, key, self._upper(like, mask)))

    def ndim(self, like: Tensor, mask: Tensor | None = None) -> Tensor:
        return self._upper(like, mask).expand(like.shape).flatten(1).sum(1)


@dataclass(frozen=True)
class CenterFree(Support):
    """States whose mean over ``dim`` is zero, e.g. positions without their centre of mass.

    Args:
        dim: the dimension(s) the mean is taken over: -2 for (B, N, D); (1, 2) for trajectories (B, N, T, D) with one
            common centre over particles and frames. Mask: leading dimensions of x, e.g. (B, N) or (B, N, T).
    """

    dim: int | tuple[int, ...] = -2

    def _dims(self, x: Tensor) -> tuple[int, ...]:
        dims = (self.dim,) if isinstance(self.dim, int) else self.dim
        return tuple(d % x.ndim for d in dims)

    def real(self, like: Tensor, mask: Tensor | None = None) -> Tensor:
        return Full().real(like, mask)

    def project(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        dims = self._dims(x)
        if mask is None:
            return x - x.mean(dims, keepdim=True)
        real = self.real(x, mask)
        kept = torch.where(real, x, 0)
        count = real.expand(_outer(real, x, dims)).sum(dims, keepdim=True).clamp(min=1)
        # subtracting the mean fills the padding again: mask once more
        return torch.where(real, kept - kept.sum(dims, keepdim=True) / count, 0)

    def noise(self, like: Tensor, mask: Tensor | None, source: NoiseSource, key: int) -> Tensor:
        return self.project(Full().noise(like, mask, source, key), mask)

    def ndim(self, like: Tensor, mask: Tensor | None = None) -> Tensor:
        dims = self._dims(like)
        real = self.real(like, mask).expand(like.shape)
        groups = real.any(dims[0], keepdim=True)
        for d in dims[1:]:
            groups = groups.any(d, keepdim=True)
        return real.flatten(1).sum(1) - groups.flatten(1).sum(1)


def _outer(real: Tensor, x: Tensor, dims: tuple[int, ...]) -> list[int]:
    """Shape of ``real`` with the reduced dimensions at full length (a mask may be broadcast along them)."""
    return [x.shape[d] if d in dims else real.shape[d] for d in range(x.ndim)]


def total(values: Tensor) -> Tensor:
    """Sum over everything but the batch: (B, *) -> (B,)."""
    return values.reshape(values.shape[0], math.prod(values.shape[1:])).sum(1)
