r"""Published GDSS networks sampled by the core's solvers: a tenth of the evaluations for the same quality.

The published schedule makes N = 1000 Euler (or reverse diffusion) steps of 1/N, each with a Langevin correction. Fewer
of the same fail at both ends: near the data an Euler step is longer than the noise that is left (dt/t > 1), and the
total Langevin motion, N snr^2, shrinks with N. Here

* the predictor is the exact posterior step of the core (``Ancestral``), which is linear in the noise estimate and has
  no step-size limit, on a grid even in sigma/(alpha + sigma);
* the corrector's snr is raised to keep N snr^2, up to 0.3, beyond which its own discretisation shows; the published
  factor of its noise stays, as it lowers the temperature the samples are drawn at; norms are those of each graph;
* the last evaluation is the expected clean state, instead of a last step.

Measured (2000 evaluations and the published schedule -> 199 -> 99 -> 49 -> 19): community_small, mean MMD of subsets of
20: .043-.046 -> .048-.053 -> .058 -> .053 -> .071, standard deviation of one subset .010-.014; QM9 validity without
correction: 94-96 -> 94-97 -> 97 -> 95 -> 95 %, FCD of 400-512 molecules: 3.3-3.4 -> 3.1-3.3 -> 3.1 -> 3.5 -> 3.4.

Steps cost two evaluations of both networks (one without corrector), the end one more. Graphs of one size go through the
solver together, adjacencies as their pairs i < j, so no sample depends on its batch mates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...core import (
    Ancestral,
    GaussianPath,
    Grid,
    JointDenoiser,
    JointPath,
    Langevin,
    Noise,
    NoiseSource,
    PredictorCorrector,
    Sampler,
    Score,
    Stepper,
    StraightGrid,
)
from .reference_networks import pair_mask
from .reference_packing import Bucket, Packing
from .reference_sampler import COMPONENTS, Callback, State
from .reference_sde import ReferenceSDE, ReferenceVE

__all__ = ["FewSteps", "reference_denoiser"]

_LARGEST_SNR = 0.3


class _Scores(nn.Module):
    """Both networks on one bucket as the core calls them."""

    def __init__(self, networks: nn.ModuleDict, packing: Packing) -> None:
        super().__init__()
        self.networks, self.packing = networks, packing

    def forward(self, state: State, t: Tensor, mask: State | None = None, condition: object = None) -> State:
        nodes = None if mask is None else mask["x"]
        return {
            name: self.packing.call(self.networks[name], state["x"], state["adj"], nodes).reshape(state[name].shape)
            for name in COMPONENTS
        }


def reference_denoiser(sdes: Mapping[str, ReferenceSDE], networks: nn.ModuleDict, packing: Packing) -> JointDenoiser:
    """The published networks as a denoiser of "x" (B, N, F) and "adj", the pairs i < j (B, P), for any core solver.

    Under VE a published network is the score, else the negative noise estimate.
    """
    path = JointPath({name: GaussianPath(sdes[name].schedule) for name in COMPONENTS})
    meaning = {name: Score() if isinstance(sdes[name], ReferenceVE) else Noise() for name in COMPONENTS}
    return JointDenoiser(_Scores(networks, packing), path, meaning)


@dataclass(frozen=True)
class FewSteps:
    """Posterior steps with Langevin corrections of every graph by itself.

    Args:
        steps: predictor steps.
        snr: ratio of the norms of score step and noise step in a correction; 0 for no correction.
        scale_eps: factor of its noise.
        grid: where to step; default even in sigma/(alpha + sigma).
    """

    steps: int = 99
    snr: float = 0.0
    scale_eps: float = 0.7
    grid: Grid | None = None

    @classmethod
    def like(cls, published_snr: float, scale_eps: float, steps: int, published_steps: int = 1000) -> FewSteps:
        """With as much Langevin motion as the published sampler, where that is stable."""
        snr = min(published_snr * (published_steps / steps) ** 0.5, max(_LARGEST_SNR, published_snr))
        return cls(steps, snr, scale_eps)

    @property
    def evaluations(self) -> int:
        """Evaluations of both networks."""
        return self.steps * (2 if self.snr else 1) + 1

    @torch.no_grad()
    def __call__(
        self,
        sdes: Mapping[str, ReferenceSDE],
        networks: nn.ModuleDict,
        packing: Packing,
        source: NoiseSource,
        callback: Callback | None = None,
    ) -> State:
        """Sample all graphs of a packing.

        Args:
            sdes: by component.
            networks: by component.
            packing: the graphs.
            source: noise, one identity per graph in the caller's order.
            callback: called as ``callback(step, steps, t, state)`` before each step of each bucket.

        Returns:
            Flat expected clean states.
        """
        denoiser = reference_denoiser(sdes, networks, packing)
        stepper: Stepper = Ancestral()
        if self.snr:
            stepper = PredictorCorrector(Ancestral(), Langevin(self.snr, scale=self.scale_eps))
        sampler = Sampler(stepper, self.grid or StraightGrid(), self.steps)
        parts: dict[str, list[Tensor]] = {name: [] for name in COMPONENTS}
        for index, bucket in enumerate(packing.buckets):
            own = source[bucket.rows.cpu()]
            mask = _masks(bucket)
            x_T = {name: self._prior(packing, index, own, mask, name) for name in COMPONENTS}
            drawn = sampler(denoiser, x_T, generator=own, mask=mask, callback=callback)
            t = torch.tensor(drawn.times[-1], dtype=torch.float64)
            for name, clean in denoiser(drawn.x, t, mask=mask).items():
                parts[name].append(clean.flatten())
        return {name: torch.cat(flat) for name, flat in parts.items()}

    def _prior(self, packing: Packing, index: int, source: NoiseSource, mask: State | None, name: str) -> Tensor:
        # standard normal as published, not the marginal at t = 1; the sampler's own prior draw has key 0
        shown = None if mask is None else mask[name]
        if shown is not None and name == "x":
            shown = shown[..., None]
        like = torch.empty(packing.shapes(name)[index], device=packing.device)
        return source.spawn(COMPONENTS.index(name)).normal(like, 0, shown)


def _masks(bucket: Bucket) -> State | None:
    return None if bucket.mask is None else {"x": bucket.mask, "adj": pair_mask(bucket.mask)}
