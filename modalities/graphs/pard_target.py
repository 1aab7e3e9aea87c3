"""The target a PARD model generates for, as the network sees it: scaled, and hidden where it is not given."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...core import NoiseSource
from .pard_network import PARDNetwork
from .records import GraphBatch
from .statistics import GraphStatistics

__all__ = ["hidden", "hidden_condition", "sampling_condition", "training_condition", "wanted_values"]


def training_condition(
    network: PARDNetwork, batch: GraphBatch, target: str | None, statistics: GraphStatistics, hide: Tensor
) -> Tensor | None:
    """Targets of a training batch, (B, Dn), or None for a model without.

    Args:
        network: the model.
        batch: B graphs.
        target: its name.
        statistics: for the scale.
        hide: which graphs are not told theirs, bool (B,); unknown values (NaN) are hidden as well.

    Raises:
        ValueError: the batch has no such target.
    """
    if target is None:
        return None
    if target not in batch.targets:
        raise ValueError(f"the batch has no target {target!r}, only {sorted(batch.targets)}")
    value = batch.targets[target]
    known = ~hide.to(value.device) & torch.isfinite(value)
    scaled = (value - statistics.target_mean) / statistics.target_std
    return network.embed_condition(torch.where(known, scaled, 0), known.to(scaled))


def hidden(batch: int, share: float, noise: NoiseSource) -> Tensor:
    """Which graphs of a training batch are not told their target, bool (B,)."""
    return noise.uniform((batch,), 0) < share


def wanted_values(
    n: int, target: float | Sequence[float] | None, known: str | None, statistics: GraphStatistics
) -> Tensor | None:
    """Scaled values asked for, (n,), or None.

    Args:
        n: number of graphs.
        target: one value for all, or one for each.
        known: name of the target the model was trained with.
        statistics: for the scale.

    Raises:
        ValueError: a model without target, or a wrong number of values.
    """
    if target is None:
        return None
    if known is None:
        raise ValueError("this model was trained without a target: train one with the option `target`")
    values = torch.as_tensor(target, dtype=torch.float64).reshape(-1)
    if len(values) not in (1, n):
        raise ValueError(f"target has {len(values)} values for {n} graphs")
    return ((values - statistics.target_mean) / statistics.target_std).expand(n)


def hidden_condition(network: PARDNetwork, batch: int) -> Tensor | None:
    """The condition of graphs that are told nothing, (B, Dn), or None for a model without target."""
    if network.condition is None:
        return None
    nothing = torch.zeros(batch, device=network.start.device)
    return network.embed_condition(nothing, nothing)


def sampling_condition(network: PARDNetwork, batch: int, values: Tensor | None) -> tuple[Tensor | None, int]:
    """The condition of graphs to be drawn, and in how many variants each is computed.

    Args:
        network: the model.
        batch: number of graphs.
        values: scaled values (B,); None tells nothing.

    Returns:
        (B, Dn) and 1; or with values (2 B, Dn) and 2: first with them, then without.
    """
    if values is None:
        return hidden_condition(network, batch), 1
    shown = values.to(network.start)
    known = torch.cat([torch.ones_like(shown), torch.zeros_like(shown)])
    return network.embed_condition(shown.repeat(2), known), 2
