"""Symmetric matrices without diagonal, stored as their pairs i < j: half the work of everything done per pair."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["dense_pairs", "packed_pairs", "pair_indices"]


def pair_indices(size: int, device: torch.device | None = None) -> Tensor:
    """Row and column of every pair i < j, int64 (2, P), P = N (N - 1)/2."""
    return torch.triu_indices(size, size, 1, device=device)


def packed_pairs(matrix: Tensor, index: Tensor) -> Tensor:
    """The pairs of matrices: (B, N, N, C) -> (B, P, C)."""
    return matrix[:, index[0], index[1]]


def dense_pairs(pairs: Tensor, index: Tensor, size: int) -> Tensor:
    """Symmetric matrices with zero diagonal from their pairs: (B, P, C) -> (B, N, N, C)."""
    dense = pairs.new_zeros(pairs.shape[0], size, size, *pairs.shape[2:])
    dense[:, index[0], index[1]] = pairs
    dense[:, index[1], index[0]] = pairs
    return dense
