"""The sampling loop: a stepper asks for denoised states, the sampler provides them.

A stepper is written as a generator that reads like its algorithm on one page: it yields (state, time, step) whenever
it needs the denoiser and receives E[x_0 | x_t]. The sampler drives one such generator, or one per component of a
joint state in lockstep, so that all components share every network call.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..categorical import CategoricalPath
from ..denoisers import BaseDenoiser, Condition
from ..grids import Grid, UniformGrid
from ..noise import Generator as NoiseLike
from ..noise import NoiseSource, as_noise_source
from ..paths import GaussianPath, JointPath, State

__all__ = ["Draw", "Sample", "Sampler", "Solution", "Stepper"]

Draw = Callable[[int], Tensor]
"""Noise of the shape of the state, on its support; the argument numbers the draw."""

Solution = Generator[tuple[Tensor, float, int], Tensor, Tensor]
"""Yields (x_t, t, step), receives E[x_0 | x_t], returns the state at the last time."""


class Stepper(ABC):
    """An algorithm that moves a state along a time grid."""

    @abstractmethod
    def solve(self, path: Any, times: Sequence[float], x: Tensor, draw: Draw) -> Solution:
        """Move x from times[0] to times[-1].

        Args:
            path: the Gaussian (or categorical) path of the state.
            times: strictly decreasing.
            x: state at times[0], shape (B, *); for centered paths :math:`u = x - \\beta_t y`.
            draw: source of noise.
        """


@dataclass(frozen=True)
class Sample:
    """Result of a sampler.

    Attributes:
        x: state(s) at the last time.
        evaluations: network evaluations per sample, mean over the batch.
        seconds: wall-clock time.
        times: the time grid.
    """

    x: Any
    evaluations: float
    seconds: float
    times: tuple[float, ...]


class Sampler:
    """A stepper on a grid of ``steps`` steps.

    Args:
        stepper: the algorithm, or one per component of a joint path.
        grid: where to step.
        steps: how often.
    """

    def __init__(self, stepper: Stepper | Mapping[str, Stepper], grid: Grid | None = None, steps: int = 20) -> None:
        self.stepper = stepper
        self.grid = grid or UniformGrid()
        self.steps = steps

    @torch.no_grad()
    def __call__(
        self,
        denoiser: BaseDenoiser,
        x_T: State | Sequence[int] | Mapping[str, Sequence[int]],
        *,
        generator: NoiseLike | None = None,
        mask: State | None = None,
        condition: Condition | None = None,
        start: float | None = None,
        callback: Callable[[int, int, float, State], None] | None = None,
    ) -> Sample:
        """Sample.

        Args:
            denoiser: what to sample from; its ``path`` sets prior, schedule and support.
            x_T: the state to start from, (B, *), or the shape of it: then the prior is drawn. Dicts for joint paths.
                A given state is projected on the support.
            generator: seed, ``torch.Generator`` or ``NoiseSource``; may be omitted if nothing random is needed.
            mask: support mask(s).
            condition: passed to the network.
            start: time at which ``x_T`` lives (editing, refinement, anchors); default t_max.
            callback: called as ``callback(step, steps, t, x)`` before each step; an exception interrupts the run.

        Raises:
            ValueError: if noise is needed and no generator is given, shapes and ids do not fit, the schedule is
                singular at the start, or the steppers of a joint path do not evaluate at the same times.
        """
        begin = time.perf_counter()
        path = denoiser.path
        joint = isinstance(path, JointPath)
        components = path.components if isinstance(path, JointPath) else {"": path}
        given: Any = x_T if joint else {"": x_T}
        masks: Any = (mask if joint else {"": mask}) or {}
        if not isinstance(given, Mapping) or set(given) != set(components):
            raise ValueError(f"this path needs a dict of states with the keys {sorted(components)}")
        steppers = self.stepper if isinstance(self.stepper, Mapping) else dict.fromkeys(components, self.stepper)
        if set(steppers) != set(components):
            raise ValueError(f"steppers are given for {sorted(steppers)}, the path has {sorted(components)}")
        batch = next(iter(given.values()))
        batch = batch.shape[0] if isinstance(batch, Tensor) else int(batch[0])
        source = None if generator is None else as_noise_source(generator, batch)
        times = self.grid(path.schedule, self.steps, start)

        states: dict[str, Any] = {}
        solutions: dict[str, Solution] = {}
        for index, (name, component) in enumerate(components.items()):
            component_source = source.spawn(index) if joint and source is not None else source
            x = given[name]
            if not isinstance(x, Tensor):
                like = torch.empty(tuple(x), device=_device(denoiser))
                if start is not None:
                    raise ValueError("start needs the state at that time, not a shape")
                x = component.prior(like, _required(component_source), masks.get(name))
            solutions[name] = steppers[name].solve(
                component,
                times,
                _start(component, times[0], x, masks.get(name)),
                _drawer(component, x, component_source, masks.get(name)),
            )

        denoiser.reset()
        rows_before, calls, last_step = denoiser.rows, 0, -1
        reply: dict[str, Tensor | None] = dict.fromkeys(components)
        finished: dict[str, Tensor] = {}
        while True:
            asked, step = set(), len(times) - 1
            for name, solution in solutions.items():
                t = times[-1]
                try:
                    x, t, step = solution.send(reply[name])  # pyright: ignore[reportArgumentType]
                    asked.add(t)
                except StopIteration as stop:
                    finished[name] = stop.value
                    x = stop.value
                offset = _offset(components[name], t, x)
                states[name] = x if isinstance(offset, float) else x + offset
            if finished:
                break
            if len(asked) > 1:
                raise ValueError(f"the steppers of a joint path evaluate at different times: {sorted(asked)}")
            t = asked.pop()
            if callback is not None and step > last_step:
                callback(step, len(times) - 1, t, states if joint else states[""])
            last_step = max(step, last_step)
            moment = torch.tensor(t, dtype=torch.float64)
            clean = denoiser(states if joint else states[""], moment, mask=mask, condition=condition)
            calls += 1
            reply = clean if joint else {"": clean}
        if len(finished) != len(components):
            raise ValueError("the steppers of a joint path must use the same number of evaluations")
        evaluations = (denoiser.rows - rows_before) / batch or float(calls)
        return Sample(states if joint else states[""], evaluations, time.perf_counter() - begin, times)


def _device(denoiser: BaseDenoiser) -> torch.device:
    return next((p.device for p in denoiser.parameters()), torch.device("cpu"))


def _start(path: Any, t: float, x: Tensor, mask: Tensor | None) -> Tensor:
    """The state a solver starts from: centered, on its support."""
    if isinstance(path, CategoricalPath):
        return path.clean(x, mask)
    if not bool(torch.isfinite(path.schedule.logsnr(torch.tensor(t, dtype=torch.float64))).all()):
        name, end = type(path.schedule).__name__, path.schedule.t_max
        raise ValueError(f"{name} is singular at t={t}: start at most at its t_max={end}")
    return path.support.project(x - _offset(path, t, x), mask)


def _required(source: NoiseSource | None) -> NoiseSource:
    if source is None:
        raise ValueError("this sampler draws noise: pass generator= (a seed, a torch.Generator or a NoiseSource)")
    return source


def _offset(path: Any, t: float, x: Tensor) -> Tensor | float:
    if type(path) is GaussianPath:
        return 0.0  # most paths: no need for a tensor in every step
    if isinstance(path, GaussianPath):
        return path.offset(torch.tensor(t, dtype=torch.float64), x)
    return 0.0 if x.dtype.is_floating_point else x.new_zeros(())


def _drawer(path: Any, like: Tensor, source: NoiseSource | None, mask: Tensor | None) -> Draw:
    # key 0 is the prior: the draws of the steps start at 1
    if isinstance(path, CategoricalPath):
        return lambda key: path.support.uniform(
            like.new_empty(like.shape, dtype=torch.float64), mask, _required(source), key + 1
        )
    return lambda key: path.noise(like, _required(source), mask, key + 1)
