"""What makes a network on nodes and pairs: a frozen description that is called with the numbers of channels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import nn

__all__ = ["Backbone"]


@dataclass(frozen=True)
class Backbone(ABC):
    """A kind of network with its sizes."""

    @abstractmethod
    def __call__(
        self, node_inputs: int, pair_inputs: int, node_outputs: int, pair_outputs: int, embedding: int
    ) -> nn.Module:
        """A network ``(nodes (B, N, node_inputs), pairs (B, P, pair_inputs), mask (B, N), embedding (B, embedding)) ->
        (B, N, node_outputs), (B, P, pair_outputs)`` with P = N (N - 1)/2 pairs i < j."""
