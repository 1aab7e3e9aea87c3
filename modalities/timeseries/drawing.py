"""How windows are drawn: from the model alone, and given whatever is observed of them.

Every random number is named by a seed, the identity of its sample and what it is for, so that a sample depends neither
on its batch mates nor on how many there are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...core import BaseDenoiser, NoiseSource, Sampler, UniformGrid
from ...core.solvers.sampler import Stepper
from .encoding import ScaledWindows
from .guidance import SelfGuidance, quantile_levels
from .s4d import cached_kernels

if TYPE_CHECKING:
    from .tsdiff import TSDiff

__all__ = ["DROPOUT", "LOSS", "MASKS", "SIGNS", "Drawing", "check_count", "complete", "draw", "levels_and_signs"]

# Numbers of the draws that are not the sampler's own; sources are spawned, so they never meet the sampler's keys.
SIGNS, LEVELS, LOSS, SAMPLER, DROPOUT, MASKS = 0, 1, 2, 3, 4, 5


@dataclass(frozen=True)
class Drawing:
    """How windows are drawn.

    Args:
        seed: seed of the noise.
        steps: sampling steps, None for the model's.
        guidance: how observations steer.
        stepper: algorithm, None for the model's.
    """

    seed: int
    steps: int | None
    guidance: SelfGuidance
    stepper: Stepper | None = None


def check_count(num_samples: int) -> None:
    """Raises ValueError for less than one sample."""
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")


def draw(
    model: "TSDiff",
    denoiser: BaseDenoiser,
    noise: NoiseSource,
    condition: dict[str, Tensor] | None,
    steps: int | None,
    stepper: Stepper | None,
) -> Tensor:
    """Scaled windows `(B, L, 1)`, one per id of the noise, from the model's denoiser or a guided one."""
    count = model.sampling_steps if steps is None else steps
    sampler = Sampler(stepper or model.stepper, UniformGrid(end=0.0), count)
    with cached_kernels(model):
        return sampler(denoiser, (len(noise), model.length, 1), generator=noise, condition=condition).x


def complete(
    model: "TSDiff",
    window: ScaledWindows,
    rows: Sequence[int],
    settings: Drawing,
    *,
    levels: Tensor,
    signs: Tensor,
    covariates: Tensor | None,
) -> Tensor:
    """Draws whole windows given what is observed of them, wherever that is.

    Args:
        model: the model.
        window: R windows, one per sample.
        rows: R identities for the noise.
        settings: how to draw.
        levels: quantile level of each sample, shape `(R,)`.
        signs: +1 or, for samples to be drawn mirrored, -1, shape `(R, 1, 1)`.
        covariates: shape `(R, L, F)`, or None.

    Returns:
        Scaled windows, shape `(R, L)`.
    """
    mirrored = window.x * signs
    denoiser = settings.guidance.guide(model.denoiser, mirrored, window.observed, levels)
    shown = None if model.context_dropout is None else model.shown(replace(window, x=mirrored))
    condition = model.condition(len(rows), covariates, shown)
    noise = NoiseSource(settings.seed, rows).spawn(SAMPLER)
    return (draw(model, denoiser, noise, condition, settings.steps, settings.stepper) * signs)[..., 0]


def levels_and_signs(model: "TSDiff", keys: Sequence[int], num_samples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Quantile levels `(R,)` and signs `(R, 1, 1)` of S samples of each series, R = N S.

    With `sign_flip` every other sample of a series, in an order of its own, is drawn mirrored.
    """
    like = next(model.parameters())
    noise = NoiseSource(seed, keys)
    levels = quantile_levels(noise.spawn(LEVELS), num_samples, key=0).flatten().to(like.device)
    if not model.sign_flip:
        return levels, like.new_ones(len(levels), 1, 1)
    rank = noise.spawn(SIGNS).uniform((len(noise), num_samples), 0).argsort(dim=1).argsort(dim=1)
    return levels, torch.where(rank % 2 == 0, 1.0, -1.0).reshape(-1, 1, 1).to(like)
