r"""The published samplers of GDSS: predictor-corrector and S4, step for step.

Both components move in lockstep and see each other's state at the start of each stage. With scores s, noise z and

.. math:: a = 2 \alpha_t (\mathrm{snr}\, \|z\| / \|s\|)^2, \qquad v \leftarrow v + a s + \sqrt{2a}\, z\, \mathrm{scale}

for the Langevin correction, a predictor-corrector step is n corrections of X (A fixed), n of A (the old X), then one
predictor step of both. The norms are *means over the batch* as published, so a graph depends on its batch mates; or
those of each graph. The result is the mean of the last predictor step.

S4 evaluates the networks once per step: a correction with these scores, half of the linear SDE, the score's drift over
the whole step, the other half.

Noise is drawn in this order in every step: corrections of X, corrections of A, then X and A once per predictor or twice
per half of S4.

Source: Jo et al. 2022, arXiv 2202.02514, section 3.3, algorithm 1; Song et al. 2021, arXiv 2011.13456, algorithms 2-5.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from .reference_packing import Packing
from .reference_sde import ReferenceSDE, published_times

__all__ = ["S4", "Euler", "Langevin", "PredictorCorrector", "ReferenceSampler", "ReverseDiffusion", "State"]

COMPONENTS: tuple[str, ...] = ("x", "adj")

State = dict[str, Tensor]
"""Flat states of a packing, "x" and "adj"."""

Outputs = Callable[[str, Tensor, Tensor], Tensor]
"""(component, x, adj) -> output of its network, flat; scores before the SDE's scaling."""

Draw = Callable[[str], Tensor]
"""Next noise of a component, flat."""

Callback = Callable[[int, int, float, Any], None]
"""Called as ``callback(step, steps, t, state)`` before each step."""


class Coefficients(NamedTuple):
    """mean = keep * v + pull * score, state = mean + noise * z; one entry per step."""

    keep: list[float]
    pull: list[float]
    noise: list[float]


class Predictor(Protocol):
    """One way to discretise the reverse SDE."""

    def coefficients(self, sde: ReferenceSDE, steps: int) -> Coefficients: ...


@dataclass(frozen=True)
class Euler:
    """Euler-Maruyama with steps of 1/N.

    Args:
        probability_flow: the ODE instead of the SDE.
    """

    probability_flow: bool = False

    def coefficients(self, sde: ReferenceSDE, steps: int) -> Coefficients:
        """See :class:`Coefficients`."""
        t = published_times(steps).double()
        drift, variance = sde.schedule.drift(t), sde.schedule.diffusion(t) ** 2
        return _coefficients(1 - drift / steps, variance / steps, self.probability_flow)


@dataclass(frozen=True)
class ReverseDiffusion:
    """The reverse of the discretised forward process.

    Args:
        probability_flow: without noise, with half of the score.
    """

    probability_flow: bool = False

    def coefficients(self, sde: ReferenceSDE, steps: int) -> Coefficients:
        """See :class:`Coefficients`."""
        factor, g = sde.discretized(published_times(steps), steps)
        return _coefficients(2 - factor, g**2, self.probability_flow)


def _coefficients(keep: Tensor, variance: Tensor, probability_flow: bool) -> Coefficients:
    half = 0.5 if probability_flow else 1.0
    noise = [0.0] * len(keep) if probability_flow else variance.sqrt().tolist()
    return Coefficients(keep.tolist(), (half * variance).tolist(), noise)


@dataclass(frozen=True)
class Langevin:
    """Langevin corrections.

    Args:
        snr: ratio of the norms of score step and noise step.
        scale_eps: factor of the noise.
        n_steps: corrections per step (S4 makes one).
        batch_norms: norms are means over the batch, as published; else each graph's own.
    """

    snr: float
    scale_eps: float
    n_steps: int = 1
    batch_norms: bool = True

    def move(self, packing: Packing, name: str, v: Tensor, score: Tensor, z: Tensor, alpha: float) -> Tensor:
        """One correction of a component, flat."""
        noise_norm, score_norm = packing.norms(z, name), packing.norms(score, name)
        if self.batch_norms:
            noise_norm, score_norm = noise_norm.mean(), score_norm.mean()
        tiny = torch.finfo(v.dtype).tiny
        step = 2 * alpha * (self.snr * noise_norm / score_norm.clamp(min=tiny)) ** 2
        size = (2 * step).sqrt() * self.scale_eps
        if not self.batch_norms:
            step, size = packing.spread(step, name), packing.spread(size, name)
        return v + step * score + size * z


class ReferenceSampler(ABC):
    """A sampler of both components."""

    @torch.no_grad()
    def __call__(
        self,
        sdes: Mapping[str, ReferenceSDE],
        packing: Packing,
        outputs: Outputs,
        state: State,
        draw: Draw,
        steps: int,
        *,
        first: int = 0,
        last: int | None = None,
        callback: Callback | None = None,
    ) -> State:
        """Move a state through the steps ``first`` to ``last`` (not included) of ``steps``.

        Args:
            sdes: by component.
            packing: layout of the state.
            outputs: the networks.
            state: at the time of step ``first``.
            draw: noise.
            steps: N, number of steps from t = 1 to 0.
            first: first step made.
            last: end of the range; default all.
            callback: called as ``callback(step, steps, t, state)`` before each step.

        Returns:
            The state without the noise of the last step.
        """
        if steps < 2:
            raise ValueError(f"the published samplers need at least 2 steps, got {steps}")
        times = published_times(steps).tolist()
        stepper = self._stepper(sdes, packing, outputs, draw, steps)
        mean = state
        for i in range(first, steps if last is None else last):
            if callback is not None:
                callback(i, steps, times[i], state)
            state, mean = stepper(i, state)
        return mean

    @abstractmethod
    def evaluations(self, steps: int) -> int:
        """Evaluations of both networks in ``steps`` steps."""

    @abstractmethod
    def _stepper(
        self, sdes: Mapping[str, ReferenceSDE], packing: Packing, outputs: Outputs, draw: Draw, steps: int
    ) -> Callable[[int, State], tuple[State, State]]:
        """A function (step, state) -> (state, state without noise)."""


@dataclass(frozen=True)
class PredictorCorrector(ReferenceSampler):
    """Corrections, then a predictor step.

    Args:
        predictor: ``Euler`` or ``ReverseDiffusion``.
        corrector: ``Langevin`` or None.
    """

    predictor: Predictor
    corrector: Langevin | None = None

    def evaluations(self, steps: int) -> int:
        return steps * (1 + (0 if self.corrector is None else self.corrector.n_steps))

    def _stepper(
        self, sdes: Mapping[str, ReferenceSDE], packing: Packing, outputs: Outputs, draw: Draw, steps: int
    ) -> Callable[[int, State], tuple[State, State]]:
        times = published_times(steps)
        factors = {name: sdes[name].score_factor(times.double()).tolist() for name in COMPONENTS}
        alphas = {name: sdes[name].langevin_alpha(times, steps).tolist() for name in COMPONENTS}
        rows = {name: self.predictor.coefficients(sdes[name], steps) for name in COMPONENTS}

        def correct(i: int, state: State) -> State:
            if self.corrector is None:
                return state
            corrected = {}
            for name in COMPONENTS:
                own = dict(state)
                for _ in range(self.corrector.n_steps):
                    score = outputs(name, own["x"], own["adj"]) * factors[name][i]
                    own[name] = self.corrector.move(packing, name, own[name], score, draw(name), alphas[name][i])
                corrected[name] = own[name]
            return corrected

        def step(i: int, state: State) -> tuple[State, State]:
            state = correct(i, state)
            mean, moved = {}, {}
            for name, (keep, pull, noise) in rows.items():
                out = outputs(name, state["x"], state["adj"])
                mean[name] = keep[i] * state[name] + (pull[i] * factors[name][i]) * out
                z = draw(name)  # drawn even where it is not used: the order of draws is part of the published sampler
                moved[name] = mean[name] + noise[i] * z
            return moved, mean

        return step


@dataclass(frozen=True)
class S4(ReferenceSampler):
    """Symmetric splitting of the system of SDEs; one evaluation per step.

    Args:
        corrector: the correction made with the step's scores.
        exact: the exact variance of the linear half steps instead of the published one.
    """

    corrector: Langevin
    exact: bool = False

    def evaluations(self, steps: int) -> int:
        return steps

    def _stepper(
        self, sdes: Mapping[str, ReferenceSDE], packing: Packing, outputs: Outputs, draw: Draw, steps: int
    ) -> Callable[[int, State], tuple[State, State]]:
        times = published_times(steps)
        dt, half = -1 / steps, -0.5 / steps
        factors = {name: sdes[name].score_factor(times.double()).tolist() for name in COMPONENTS}
        alphas = {name: sdes[name].langevin_alpha(times, steps).tolist() for name in COMPONENTS}
        variances = {name: (sdes[name].schedule.diffusion(times.double()) ** 2).tolist() for name in COMPONENTS}
        halves = {
            name: [
                [values.tolist() for values in sdes[name].transition(t, half, exact=self.exact)]
                for t in (times, times + half)
            ]
            for name in COMPONENTS
        }

        def move(i: int, state: State, which: int) -> tuple[State, State]:
            mean = {name: halves[name][which][0][i] * state[name] for name in COMPONENTS}
            return {name: mean[name] + halves[name][which][1][i] * draw(name) for name in COMPONENTS}, mean

        def step(i: int, state: State) -> tuple[State, State]:
            scores = {name: outputs(name, state["x"], state["adj"]) * factors[name][i] for name in COMPONENTS}
            state = {
                name: self.corrector.move(packing, name, state[name], scores[name], draw(name), alphas[name][i])
                for name in COMPONENTS
            }
            state, _ = move(i, state, 0)
            state = {name: state[name] - (variances[name][i] * dt) * scores[name] for name in COMPONENTS}
            return move(i, state, 1)

        return step
