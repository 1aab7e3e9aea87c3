r"""GeoTDM: diffusion of the trajectories of several agents under any pattern of observations; the recommended face.

A boolean mask (B, N, T) says which places are observed. The others are x = a + s u: an anchor a made from the observed
places (:mod:`.anchors`), a scale s measured on the data (:mod:`.scaling`), and a residual u of about unit variance,
which is what is diffused. Where nothing at all is observed the anchor is 0 and u lives in the subspace without the mean
over agents and frames. The network (:mod:`.egtn`) sees anchor, scales, velocities and features, and is equivariant: a
turned and shifted observation gives a forecast turned and shifted.

Source: `Han et al. 2024, Geometric Trajectory Diffusion Models <https://arxiv.org/abs/2410.13027>`_. Different here:
any mask with true times instead of a prefix; anchors by rule instead of (or before) a learnt one; residuals of unit
variance at every lead; a flow with straight paths and few solver steps instead of 1000 ancestral ones; another
network.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ...core import (
    CenterFree,
    DataWeight,
    Denoiser,
    DenoisingLoss,
    Full,
    GaussianPath,
    Karras,
    LogSNRInput,
    Multistep,
    NoiseSource,
    Rectified,
    Sampler,
    StraightGrid,
    UniformTime,
    VelocityWeight,
    VWeight,
    Weight,
)
from ...core.solvers.sampler import Stepper
from ..registry import register
from .anchors import Anchor, ConstantVelocity, Learnt, build_anchor, describe_anchor, spans
from .conditioning import PATTERNS, draw_observed, mean_over
from .egtn import EGTN
from .generation import Generation
from .records import UNITS, TrajectoryBatch
from .scaling import Units

__all__ = ["GeoTDM"]

_WEIGHTS: dict[str, Weight] = {"data": DataWeight(), "v": VWeight(), "flow": VelocityWeight()}

# Numbers of the draws that are not the sampler's or the loss's own.
_MASKS, _LOSS, _SAMPLER, _REFINE, _BLUR = 0, 1, 2, 3, 4

_ANCHOR = ConstantVelocity()


@register
class GeoTDM(Generation):
    """Diffusion model of trajectories with any conditioning.

    Args:
        features: invariant features per agent F.
        edge_features: features per pair E.
        observed_frames: first frames a forecast usually sees; a batch's own `observed` mask overrides it.
        target_frames: frames forecast by default.
        anchor: where unknown places are expected: an anchor, its name or its description.
        conditioning: mixture of training masks, pattern -> weight (:data:`.conditioning.PATTERNS`).
        parameterization: which regression the training loss is: "data" (clean residuals), "v", or "flow" (velocity).
            The network's output is the same function in all of them; they weigh noise levels differently.
        sampling_steps: default number of network evaluations per sample.
        sampling_temperature: default of the factor on the noise that sampling starts from (:mod:`.generation`).
        units: unit of length of the training data, one of :data:`.records.UNITS`; records in another unit are then
            refused. None does not check; arrays carry no unit.
        observation_noise: observed places are blurred in training by Gaussian noise whose standard deviation is drawn,
            for every system, between 0 and this (in the data's unit of length): for a model that will meet recordings
            that jitter more than those it learns from.
        hidden, channels, layers, messages, heads, frequencies, radius: of :class:`.EGTN`.

    Raises:
        ValueError: for values that make no sense.
    """

    name: ClassVar[str] = "geotdm"

    def __init__(
        self,
        features: int,
        edge_features: int = 0,
        observed_frames: int = 10,
        target_frames: int = 20,
        anchor: Anchor | Mapping[str, Any] | str = _ANCHOR,
        conditioning: Mapping[str, float] | None = None,
        parameterization: Literal["data", "v", "flow"] = "v",
        sampling_steps: int = 8,
        sampling_temperature: float = 1.0,
        units: str | None = None,
        observation_noise: float = 0.0,
        hidden: int = 64,
        channels: int = 16,
        layers: int = 3,
        messages: int = 32,
        heads: int = 4,
        frequencies: int = 8,
        radius: float | None = None,
    ) -> None:
        super().__init__()
        mixture = dict(conditioning or {"forecast": 1.0})
        unknown = [name for name in mixture if name not in PATTERNS]
        if unknown or min(mixture.values()) < 0 or not sum(mixture.values()) > 0:
            raise ValueError(f"conditioning must give weights >= 0 to some of {', '.join(PATTERNS)}, got {mixture}")
        if observed_frames < 0 or target_frames < 1 or sampling_steps < 1:
            raise ValueError(
                f"observed_frames={observed_frames}, target_frames={target_frames} and sampling_steps={sampling_steps} "
                "do not make sense"
            )
        if not 0 <= sampling_temperature < math.inf:
            raise ValueError(f"sampling_temperature must be 0 or more, got {sampling_temperature}")
        if units is not None and units not in UNITS:
            raise ValueError(f"unknown unit of length {units!r}; known are {', '.join(UNITS)}")
        if observation_noise < 0:
            raise ValueError(f"observation_noise must not be negative, got {observation_noise}")
        if parameterization not in _WEIGHTS:
            raise ValueError(f"parameterization must be one of {', '.join(_WEIGHTS)}, got {parameterization!r}")
        self.features, self.edge_features = features, edge_features
        self.observed_frames, self.target_frames = observed_frames, target_frames
        self.anchor_rule, self.mixture, self.parameterization = build_anchor(anchor), mixture, parameterization
        self.sampling_steps, self.observation_noise = sampling_steps, observation_noise
        self.sampling_temperature, self.length_unit = sampling_temperature, units
        self._sizes: dict[str, Any] = {
            "hidden": hidden,
            "channels": channels,
            "layers": layers,
            "messages": messages,
            "heads": heads,
            "frequencies": frequencies,
            "radius": radius,
        }
        self.network = EGTN(features, edge_features, **self._sizes)
        self.anchor_network: EGTN | None = None
        if isinstance(self.anchor_rule, Learnt):
            self.anchor_network = EGTN(features, edge_features, **{**self._sizes, "layers": self.anchor_rule.layers})
        self.units = Units(observed_frames + target_frames)
        self._schedule = Rectified()

    def config(self) -> dict[str, Any]:
        return {
            "features": self.features,
            "edge_features": self.edge_features,
            "observed_frames": self.observed_frames,
            "target_frames": self.target_frames,
            "anchor": describe_anchor(self.anchor_rule),
            "conditioning": self.mixture,
            "parameterization": self.parameterization,
            "sampling_steps": self.sampling_steps,
            "sampling_temperature": self.sampling_temperature,
            "units": self.length_unit,
            "observation_noise": self.observation_noise,
            **self._sizes,
        }

    def measure_units(self, batches: Iterable[TrajectoryBatch], repeats: int = 1) -> None:
        """Measure lengths and residual scales on training data; to be done once, before training.

        Args:
            batches: training data.
            repeats: masks drawn per sample.

        Raises:
            ValueError: if there is nothing to measure.
        """

        def samples() -> Iterable[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]:
            for number, batch in enumerate(batches):
                for repeat in range(repeats):
                    source = NoiseSource(number, range(len(batch))).spawn(repeat)
                    observed, x = self._masks(batch, source), batch.positions
                    seen = self._blurred(batch, source.spawn(_BLUR)).positions
                    rule = self.anchor_rule.start() if isinstance(self.anchor_rule, Learnt) else self.anchor_rule
                    yield x, rule(seen, observed, batch.times), batch.present, observed, batch.times

        self.units.measure(samples())

    def loss(self, batch: TrajectoryBatch, noise: NoiseSource) -> Tensor:
        """Weighted denoising error of the places not observed, (B,); 0 where there are none.

        Args:
            batch: B systems. The conditioning mixture decides what is observed, its pattern "forecast" taking the
                batch's own mask where there is one.
            noise: B ids.
        """
        self._check(batch)
        observed = self._masks(batch, noise.spawn(_MASKS))
        seen = self._blurred(batch, noise.spawn(_BLUR)) if self.training else batch
        condition, anchor, scale = self.condition(seen, observed)
        asked = batch.present & ~observed
        u = torch.where(asked.unsqueeze(-1), (batch.positions - anchor) / scale, 0)
        free = ~observed.flatten(1).any(1)
        source = noise.spawn(_LOSS)
        if not bool(free.any()):
            return self._loss(u, asked, condition, source, centre_free=False)
        value = u.new_zeros(len(u))
        for centre_free, rows in ((False, (~free).nonzero().flatten()), (True, free.nonzero().flatten())):
            if len(rows):
                part = {k: _rows(v, rows) for k, v in condition.items()}
                lost = self._loss(u[rows], asked[rows], part, source[rows.cpu()], centre_free=centre_free)
                value = value.index_copy(0, rows, lost)
        return value

    def condition(self, batch: TrajectoryBatch, observed: Tensor) -> tuple[dict[str, Any], Tensor, Tensor]:
        """What the network is told, and the anchor (B, N, T, D) and scale (B, N, T, 1) of the residuals.

        Args:
            batch: positions matter where observed only.
            observed: (B, N, T) bool, inside `present`.
        """
        where = spans(observed, batch.times)
        scale = self.units(where)
        known = torch.where(observed.unsqueeze(-1), batch.positions, 0)
        anchor = self.anchor_rule(known, observed, batch.times)
        # Differences of places far from the origin would lose digits: the network works about the observed mean.
        middle = mean_over(known, observed, (1, 2))
        length = self.units.length
        told = self._told(batch, observed, where.kind, where.lead, scale, (anchor - middle) / length)
        if self.anchor_network is not None:
            still = torch.zeros_like(anchor)
            clean = still.new_full((len(still),), 20.0)
            moved = self.anchor_network(still, -clean, condition=told)
            anchor = torch.where(observed.unsqueeze(-1), anchor, anchor + scale * moved)
            told = self._told(batch, observed, where.kind, where.lead, scale, (anchor - middle) / length)
        return told, anchor, scale

    def _told(
        self, batch: TrajectoryBatch, observed: Tensor, kind: Tensor, lead: Tensor, scale: Tensor, anchor: Tensor
    ) -> dict[str, Any]:
        units = self.units
        relative = scale / units.length
        vectors = EGTN.start_vectors(
            anchor, observed, batch.present, batch.times, units.speed / units.length, units.bend / units.length
        )
        return {
            "anchor": anchor,
            "scale": torch.where(observed.unsqueeze(-1), 0, relative),
            "vectors": vectors,
            "tokens": EGTN.token_features(batch.features, observed, kind, lead, relative),
            "edges": batch.edge_features,
            "present": batch.present,
            "complete": bool(batch.present.all()),
            "times": batch.times,
        }

    def denoiser(self, *, centre_free: bool = False) -> Denoiser:
        """The core's denoiser of residuals; it shares the network."""
        support = CenterFree((1, 2)) if centre_free else Full()
        return Denoiser(self.network, GaussianPath(self._schedule, support), Karras(1.0), LogSNRInput(1.0))

    @torch.no_grad()
    def draw(
        self,
        batch: TrajectoryBatch,
        observed: Tensor,
        noise: NoiseSource,
        *,
        steps: int | None = None,
        stepper: Stepper | None = None,
        start: float | None = None,
        proposal: Tensor | None = None,
        temperature: float | None = None,
    ) -> Tensor:
        """Positions (B, N, T, D): the observed ones as they are, the others sampled, 0 where not present.

        Args:
            batch: the systems.
            observed: (B, N, T) bool.
            noise: B ids.
            steps: network evaluations; default `sampling_steps`.
            stepper: algorithm; default: second order on the straight coordinate with the free corrector.
            start: time in (0, 1) to start at from `proposal`, noised; default: from pure noise.
            proposal: positions (B, N, T, D).
            temperature: factor on the noise that sampling starts from; default `sampling_temperature`.

        Raises:
            ValueError: for a negative or infinite temperature.
            FloatingPointError: if the model gives infinite positions.
        """
        self._check(batch)
        heat = self.sampling_temperature if temperature is None else temperature
        if not 0 <= heat < math.inf:
            raise ValueError(f"temperature must be 0 or more, got {heat}")
        observed = observed & batch.present
        free = ~observed.flatten(1).any(1)
        out = torch.zeros_like(batch.positions)
        for centre_free, rows in ((False, (~free).nonzero().flatten()), (True, free.nonzero().flatten())):
            if len(rows) == 0:
                continue
            part, seen, source = batch[rows], observed[rows], noise[rows.cpu()]
            condition, anchor, scale = self.condition(part, seen)
            asked = part.present & ~seen
            denoiser = self.denoiser(centre_free=centre_free)
            state: Any = anchor.shape
            if proposal is not None:
                residual = torch.where(asked.unsqueeze(-1), (proposal[rows] - anchor) / scale, 0)
                residual = denoiser.path.support.project(residual, asked)
                eps = denoiser.path.noise(residual, source.spawn(_REFINE), asked)
                when = torch.tensor(1.0 if start is None else start, dtype=torch.float64, device=residual.device)
                state = denoiser.path.perturb(residual, when, eps)
            elif heat != 1:
                state = heat * denoiser.path.prior(torch.empty_like(anchor), source.spawn(_SAMPLER), asked)
            grid = StraightGrid(end=0.0)
            sampler = Sampler(stepper or Multistep(), grid, self.sampling_steps if steps is None else steps)
            u = sampler(
                denoiser, state, generator=source.spawn(_SAMPLER), mask=asked, condition=condition, start=start
            ).x
            if not bool(torch.isfinite(u).all()):
                raise FloatingPointError("the model gave infinite positions: its weights are damaged or hardly trained")
            drawn = torch.where(asked.unsqueeze(-1), anchor + scale * u, 0)
            out[rows] = torch.where(seen.unsqueeze(-1), part.positions, drawn)
        return out

    def _loss(
        self, u: Tensor, asked: Tensor, condition: Mapping[str, Any], noise: NoiseSource, *, centre_free: bool
    ) -> Tensor:
        loss = DenoisingLoss(self.denoiser(centre_free=centre_free), _WEIGHTS[self.parameterization], UniformTime())
        return loss(u, noise, mask=asked, condition=condition).value

    def _masks(self, batch: TrajectoryBatch, noise: NoiseSource) -> Tensor:
        return draw_observed(batch, self.mixture, self.observed_frames, noise)

    def _blurred(self, batch: TrajectoryBatch, noise: NoiseSource) -> TrajectoryBatch:
        if self.observation_noise == 0:
            return batch
        x = batch.positions
        spread = self.observation_noise * noise.uniform((len(x), 1, 1, 1), 0).to(x)
        return replace(batch, positions=x + spread * noise.normal(x, 1, batch.present.unsqueeze(-1)))

    def _check(self, batch: TrajectoryBatch) -> None:
        found = batch.features.shape[-1], 0 if batch.edge_features is None else batch.edge_features.shape[-1]
        if found != (self.features, self.edge_features):
            raise ValueError(
                f"the model takes {self.features} features per agent and {self.edge_features} per pair, got {found[0]} "
                f"and {found[1]}"
            )


def _rows(value: Any, rows: Tensor) -> Any:
    return value[rows] if isinstance(value, Tensor) else value
