r"""Who sees whom: rows of pair features against the columns of earlier blocks and of the own block.

A model that builds a graph block by block keeps for every node i a row of pair features :math:`e_{ij}`, with columns j
of earlier blocks (which are final) and of its own block (which belongs to the same pass). Nothing later is ever seen.

    rows i, R of them      | earlier columns, P | own columns, R |

While training, all blocks are rows at once, and a column of the (N, N) tensor is "earlier" or "own" depending on the
row (:class:`Parallel`). While sampling, only the newest block is rows, its own columns come after those of the stored
prefix (:class:`Incremental`). All tensors may have leading dimensions: several passes (clean, noisy) over the same
blocks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

__all__ = ["Incremental", "Parallel", "View"]


@dataclass(frozen=True)
class View(ABC):
    """What rows see.

    Args:
        earlier: bool (B, R, P), which columns hold nodes of earlier blocks.
        own: bool (B, R, R), which columns hold nodes of the row's own block, itself included.
    """

    earlier: Tensor
    own: Tensor

    @cached_property
    def count(self) -> Tensor:
        """Nodes each row sees, at least 1, (B, R, 1)."""
        return (self.earlier.sum(-1) + self.own.sum(-1)).clamp(min=1).unsqueeze(-1)

    @cached_property
    @abstractmethod
    def mask(self) -> Tensor:
        """Columns that are seen, bool (B, R, W)."""

    @abstractmethod
    def join(self, earlier: Tensor, own: Tensor) -> Tensor:
        """One tensor over all W columns.

        Args:
            earlier: (..., B, R or 1, P, C).
            own: (..., B, R or 1, R, C).
        """

    @abstractmethod
    def split(self, pairs: Tensor) -> tuple[Tensor, Tensor]:
        """The two parts of (..., B, R, W, C), zero where nothing is seen: (..., B, R, P, C) and (..., B, R, R, C)."""

    @abstractmethod
    def square(self, factor: Tensor, prefix: Tensor) -> Tensor:
        r"""The causal matrix square :math:`\sum_k a_{ik} a_{kj}` over the k that row i sees.

        Args:
            factor: symmetric pair values of the rows, channels first, (..., B, C, R, W).
            prefix: those of all pairs of earlier columns, (B, C, P, P).

        Returns:
            (..., B, C, R, W); meaningless where nothing is seen.
        """


class Parallel(View):
    """All blocks at once: R = P = W = N, the two masks exclude each other.

    Made by :meth:`of`.
    """

    @classmethod
    def of(cls, block: Tensor) -> Parallel:
        """The view of block ids (B, N), -1 where there is no node."""
        real = (block >= 0)[:, None, :] & (block >= 0)[:, :, None]
        mine, theirs = block[:, :, None], block[:, None, :]
        return cls((theirs < mine) & real, (theirs == mine) & real)

    @cached_property
    def mask(self) -> Tensor:
        return self.earlier | self.own

    def join(self, earlier: Tensor, own: Tensor) -> Tensor:
        return torch.where(self.own.unsqueeze(-1), own, earlier)

    def split(self, pairs: Tensor) -> tuple[Tensor, Tensor]:
        return pairs * self.earlier.unsqueeze(-1), pairs * self.own.unsqueeze(-1)

    def square(self, factor: Tensor, prefix: Tensor) -> Tensor:
        before, among = factor * self.earlier.unsqueeze(1), factor * self.own.unsqueeze(1)
        # the own block's rows have the same earlier columns, so the last product serves both kinds of columns
        to_earlier = (before @ prefix) * self.earlier.unsqueeze(1)
        to_own = (before @ before.mT) * self.own.unsqueeze(1)
        return to_earlier + to_own + among @ (before + among)

    def whole(self, factor: Tensor) -> Tensor:
        """All pairs from the rows that see them: (B, C, N, N) symmetric."""
        before = factor * self.earlier.unsqueeze(1)
        return before + factor * self.own.unsqueeze(1) + before.mT


class Incremental(View):
    """The newest block: W = P + R, own columns after the earlier ones.

    Made by :meth:`of`.
    """

    @classmethod
    def of(cls, prefix: Tensor, new: Tensor) -> Incremental:
        """The view of padded prefixes and blocks.

        Args:
            prefix: which columns of the prefix hold nodes, bool (B, P).
            new: which rows hold nodes, bool (B, R).
        """
        return cls(new[:, :, None] & prefix[:, None, :], new[:, :, None] & new[:, None, :])

    @cached_property
    def mask(self) -> Tensor:
        return torch.cat([self.earlier, self.own], -1)

    def join(self, earlier: Tensor, own: Tensor) -> Tensor:
        rows = self.own.shape[1]
        shape = (*own.shape[:-3], rows, -1, own.shape[-1])
        earlier = earlier.expand(*own.shape[:-3], *earlier.shape[-3:])
        return torch.cat([earlier.expand(shape), own.expand(shape)], -2)

    def split(self, pairs: Tensor) -> tuple[Tensor, Tensor]:
        width = self.earlier.shape[-1]
        return (
            pairs[..., :width, :] * self.earlier.unsqueeze(-1),
            pairs[..., width:, :] * self.own.unsqueeze(-1),
        )

    def square(self, factor: Tensor, prefix: Tensor) -> Tensor:
        width = self.earlier.shape[-1]
        before = factor[..., :width] * self.earlier.unsqueeze(1)
        among = factor[..., width:] * self.own.unsqueeze(1)
        return torch.cat([before @ prefix + among @ before, before @ before.mT + among @ among], -1)
