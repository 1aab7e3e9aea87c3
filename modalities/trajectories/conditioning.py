r"""What is known and what is asked: the user's arrays and records as batches, and masks of observed places.

One boolean mask (B, N, T) says which places of which agents at which frames are given; the rest of what is present is
generated. A forecast observes the first frames, an interpolation the ends, an in-fill whatever is left, an
unconditional model nothing at all. In training masks are drawn from a mixture of such patterns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ...core import NoiseSource
from .records import TrajectoryBatch, TrajectoryRecord, collate

__all__ = ["PATTERNS", "as_batch", "draw_observed", "extended", "mean_over"]

PATTERNS = ("forecast", "interpolate", "frames", "agents", "places", "none")
"""Patterns of the mixture: the first frames; the first and last frames; random frames; whole agents beside the first
frames of the others; random places; nothing."""


def as_batch(
    observed: TrajectoryRecord | Sequence[TrajectoryRecord] | ArrayLike,
    features: ArrayLike | None = None,
    edge_features: ArrayLike | None = None,
    times: ArrayLike | None = None,
) -> tuple[TrajectoryBatch, bool]:
    """What a user holds, as a batch, and whether it was a single system.

    Args:
        observed: a record, several, or positions (N, T, D) or (B, N, T, D).
        features: (N, F) or (B, N, F), for arrays.
        edge_features: (N, N, E) or (B, N, N, E), for arrays.
        times: (T,), for arrays.

    Raises:
        ValueError: wrong shapes, positions that are not finite, times that do not increase, nothing at all.
    """
    if isinstance(observed, TrajectoryRecord):
        return collate([observed]), True
    if isinstance(observed, Sequence) and len(observed) and all(isinstance(r, TrajectoryRecord) for r in observed):
        return collate(list(observed)), False  # pyright: ignore[reportArgumentType]
    try:
        positions = np.asarray(observed.cpu() if isinstance(observed, Tensor) else observed, np.float32)
    except ValueError as error:
        raise ValueError(
            "systems of different sizes cannot be one array: pass a list of TrajectoryRecord, one per system"
        ) from error
    if positions.ndim not in (3, 4) or positions.shape[-1] not in (2, 3):
        raise ValueError(
            "observed positions must have shape (agents, frames, coordinates) or (systems, agents, frames, "
            f"coordinates) with 2 or 3 coordinates, got {positions.shape}"
        )
    single = positions.ndim == 3
    if not single and len(positions) == 0:
        raise ValueError("no systems given")
    if positions.shape[-2] == 0:
        raise ValueError("zero observed frames: at least one frame is needed")

    def row(values: ArrayLike | None, index: int, ndim: int) -> np.ndarray | None:
        if values is None:
            return None
        array = np.asarray(values, np.float32)
        return array[index] if array.ndim == ndim + 1 else array

    systems = positions[None] if single else positions
    records = [
        TrajectoryRecord(
            p,
            features=row(features, i, 2),
            edge_features=row(edge_features, i, 3),
            times=None if times is None else np.asarray(times),
        )
        for i, p in enumerate(systems)
    ]
    return collate(records), single


def extended(batch: TrajectoryBatch, times: Tensor) -> TrajectoryBatch:
    """The batch with unknown frames appended at the given times (B, M); agents that exist are present there."""
    more = times.shape[1]
    if bool((times[:, :1] <= batch.times[:, -1:]).any()) or bool((times.diff() <= 0).any()):
        raise ValueError("times to be forecast must strictly increase and come after the observed ones")
    nodes = batch.nodes.unsqueeze(-1).expand(-1, -1, more)
    observed = batch.present if batch.observed is None else batch.observed
    return replace(
        batch,
        positions=torch.nn.functional.pad(batch.positions, (0, 0, 0, more)),
        present=torch.cat((batch.present, nodes), -1),
        observed=torch.nn.functional.pad(observed, (0, more)),
        times=torch.cat((batch.times, times.to(batch.times)), 1),
    )


def draw_observed(
    batch: TrajectoryBatch, mixture: Mapping[str, float], observed_frames: int, noise: NoiseSource
) -> Tensor:
    """A mask of observed places for every sample, each pattern with its probability.

    Args:
        batch: B samples; where it says itself what is observed, the pattern "forecast" is that.
        mixture: pattern -> weight, patterns from :data:`PATTERNS`.
        observed_frames: first frames that a forecast observes, and half of what an interpolation does.
        noise: B ids; a sample's mask depends on its own stream only.

    Returns:
        (B, N, T) bool, inside `present`; "forecast" always leaves a frame unknown.
    """
    present, device = batch.present, batch.present.device
    size, agents, frames = present.shape
    weights = torch.tensor([mixture.get(p, 0.0) for p in PATTERNS], dtype=torch.float64)
    bounds = (weights.cumsum(0) / weights.sum()).to(device)
    choice = torch.bucketize(noise.uniform((size,), 0).double().to(device), bounds[:-1], right=True)
    kept = min(observed_frames, frames - 1)
    frame = torch.arange(frames, device=device)
    first = (frame < kept).expand(size, agents, frames) if batch.observed is None else batch.observed
    half = max(1, min(observed_frames // 2, (frames - 1) // 2))
    ends = ((frame < half) | (frame >= frames - half)).expand_as(first)
    share = noise.uniform((size, 1, 1), 1).to(device)
    some_frames = (noise.uniform((size, 1, frames), 2).to(device) < share).expand_as(first)
    whole = noise.uniform((size, agents, 1), 3).to(device) < share
    places = noise.uniform((size, agents, frames), 4).to(device) < share
    drawn = torch.stack((first, ends, some_frames, first | whole, places, torch.zeros_like(first)))
    return drawn[choice, torch.arange(size, device=device)] & present


def mean_over(x: Tensor, mask: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Mean over the real places, (B, N, T, D) and (B, N, T) -> kept dimensions of size 1; 0 where there are none."""
    weight = mask.unsqueeze(-1).to(x.dtype)
    return (torch.where(mask.unsqueeze(-1), x, 0)).sum(dims, keepdim=True) / weight.sum(dims, keepdim=True).clamp(min=1)
