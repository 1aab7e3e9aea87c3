r"""Anchors: where a place is expected before the model says anything; the model diffuses the residual x - anchor.

Per agent, with p and n the nearest observed frames before and after a frame t:

    between p and n       linear interpolation (constant velocity: the cubic with both end velocities)
    after p, no n         x_p  (last frame)    or    x_p + (t - p) v_p  (constant velocity)
    before n, no p        the same, backwards in time
    neither               the mean of the other agents' anchors at that frame; 0 if nothing at all is observed

All of these are combinations of observed places with weights that sum to one: they turn and move with the data.
With x = anchor + s u the state of :class:`~fourfold.core.Centered` with that centre is the plain state u, which is what
the samplers see here, since anchor and scale s differ from system to system.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from .conditioning import mean_over

__all__ = [
    "ANCHORS",
    "Anchor",
    "Center",
    "ConstantVelocity",
    "LastFrame",
    "Learnt",
    "Spans",
    "build_anchor",
    "describe_anchor",
    "spans",
]

AFTER, BETWEEN, ALONE, NOTHING = range(4)
"""How a place is related to what is observed: its agent is observed on one side of it, on both, not at all though
others are, or nothing is observed."""


@dataclass(frozen=True)
class Spans:
    """Where every place stands between observations; all of shape (B, N, T).

    Args:
        before: index of the last observed frame of the agent up to t, -1 if there is none.
        after: index of the first observed frame of the agent from t on, T if there is none.
        kind: AFTER, BETWEEN, ALONE or NOTHING.
        lead: time to the nearest observed frame of the agent, 0 if there is none (or t itself is one).
    """

    before: Tensor
    after: Tensor
    kind: Tensor
    lead: Tensor


def spans(observed: Tensor, times: Tensor) -> Spans:
    """Spans of a mask.

    Args:
        observed: (B, N, T) bool.
        times: (B, T), increasing.
    """
    frames = observed.shape[2]
    index = torch.arange(frames, device=observed.device).expand(observed.shape)
    before = torch.where(observed, index, -1).cummax(2).values
    after = torch.where(observed, index, frames).flip(2).cummin(2).values.flip(2)
    has_before, has_after = before >= 0, after < frames
    now = times[:, None].expand(observed.shape)
    since = torch.where(has_before, now - now.gather(2, before.clamp(min=0)), torch.inf)
    until = torch.where(has_after, now.gather(2, after.clamp(max=frames - 1)) - now, torch.inf)
    lead = torch.minimum(since, until)
    anything = observed.flatten(1).any(1)[:, None, None]
    kind = torch.where(anything, ALONE, NOTHING).expand(observed.shape)
    kind = torch.where(has_before | has_after, AFTER, kind)
    kind = torch.where(has_before & has_after, BETWEEN, kind)
    return Spans(before, after, kind, torch.where(lead.isinf(), 0, lead))


class Anchor(ABC):
    """A rule that expects places."""

    def __call__(self, positions: Tensor, observed: Tensor, times: Tensor) -> Tensor:
        """Expected places; observed ones are as observed.

        Args:
            positions: (B, N, T, D); only the observed ones are looked at.
            observed: (B, N, T) bool.
            times: (B, T), increasing.

        Returns:
            Shape (B, N, T, D), finite.
        """
        known = torch.where(observed.unsqueeze(-1), positions, 0)
        where = spans(observed, times)
        expected = torch.where(observed.unsqueeze(-1), known, self._expect(known, observed, times, where))
        has_own = where.kind < ALONE
        company = mean_over(expected, has_own, (1,))
        return torch.where(has_own.unsqueeze(-1), expected, company)

    @abstractmethod
    def _expect(self, known: Tensor, observed: Tensor, times: Tensor, where: Spans) -> Tensor:
        """Expected places of agents with observations, (B, N, T, D)."""


@dataclass(frozen=True)
class LastFrame(Anchor):
    """The nearest observed place; between two, linear interpolation."""

    def _expect(self, known: Tensor, observed: Tensor, times: Tensor, where: Spans) -> Tensor:
        return _hermite(known, torch.zeros_like(known), torch.zeros_like(known), times, where, linear=True)


@dataclass(frozen=True)
class ConstantVelocity(Anchor):
    """On with the last observed velocity; between two observations the cubic with both velocities.

    Args:
        window: frames the velocity is averaged over, at least 1.
    """

    window: int = 1

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"the window of a velocity must be at least 1 frame, got {self.window}")

    def _expect(self, known: Tensor, observed: Tensor, times: Tensor, where: Spans) -> Tensor:
        frames = known.shape[2]
        index = torch.arange(frames, device=known.device).expand(observed.shape)
        # The earliest observed frame in the window; if it is empty, the last one before it.
        previous = torch.nn.functional.pad(where.before, (1, -1), value=-1)
        first = torch.minimum(where.after[:, :, (index[0, 0] - self.window).clamp(min=0)], index)
        first = torch.where(first < index, first, previous)
        following = torch.nn.functional.pad(where.after, (-1, 1), value=frames)
        last = torch.maximum(where.before[:, :, (index[0, 0] + self.window).clamp(max=frames - 1)], index)
        last = torch.where(last > index, last, following)
        arriving = _slope(known, times, torch.where(first >= 0, first, index), index)
        leaving = _slope(known, times, index, torch.where(last < frames, last, index))
        # At the ends of what is observed there is only one of the two.
        arriving, leaving = (
            torch.where((first >= 0).unsqueeze(-1), arriving, leaving),
            torch.where((last < frames).unsqueeze(-1), leaving, arriving),
        )
        return _hermite(known, arriving, leaving, times, where, linear=False)


@dataclass(frozen=True)
class Center(Anchor):
    """The mean of everything observed, over agents and frames: residuals are nearly centre-free."""

    def _expect(self, known: Tensor, observed: Tensor, times: Tensor, where: Spans) -> Tensor:
        return mean_over(known, observed, (1, 2)).expand_as(known)


@dataclass(frozen=True)
class Learnt(Anchor):
    """Another anchor plus the displacement of a small network of its own, trained with the model.

    Args:
        layers: layers of the network.
        base: what it starts from, a description of another anchor.
    """

    layers: int = 2
    base: Mapping[str, Any] | None = None

    def _expect(self, known: Tensor, observed: Tensor, times: Tensor, where: Spans) -> Tensor:
        return self.start()._expect(known, observed, times, where)

    def start(self) -> Anchor:
        """The anchor the network corrects."""
        base = build_anchor(self.base or {"name": "velocity"})
        if isinstance(base, Learnt):
            raise ValueError("a learnt anchor needs an anchor by rule as its base")
        return base


ANCHORS: dict[str, type[Anchor]] = {
    "last": LastFrame,
    "velocity": ConstantVelocity,
    "center": Center,
    "learnt": Learnt,
}


def build_anchor(value: Anchor | Mapping[str, Any] | str) -> Anchor:
    """An anchor from its name or description `{"name": ..., **fields}`; anchors pass through.

    Raises:
        ValueError: for an unknown name.
    """
    if isinstance(value, Anchor):
        return value
    arguments: dict[str, Any] = {"name": value} if isinstance(value, str) else dict(value)
    name = arguments.pop("name", None)
    if name not in ANCHORS:
        raise ValueError(f"unknown anchor {name!r}; known are {', '.join(ANCHORS)}")
    try:
        return ANCHORS[name](**arguments)
    except TypeError as error:
        raise ValueError(f"anchor {name!r}: {error}") from error


def describe_anchor(anchor: Anchor) -> dict[str, Any]:
    """Plain description of an anchor."""
    for name, kind in ANCHORS.items():
        if type(anchor) is kind:
            return {"name": name, **asdict(anchor)}  # pyright: ignore[reportArgumentType]
    raise ValueError(f"{type(anchor).__name__} cannot be stored; known are {', '.join(ANCHORS)}")


def _take(x: Tensor, index: Tensor) -> Tensor:
    """x (B, N, T, D) at frames index (B, N, T)."""
    return x.gather(2, index.unsqueeze(-1).expand(*index.shape, x.shape[-1]))


def _slope(known: Tensor, times: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Mean velocity between frames; 0 where they are the same."""
    clock = times[:, None].expand(start.shape)
    last = known.shape[2] - 1
    start, end = start.clamp(0, last), end.clamp(0, last)
    elapsed = (clock.gather(2, end) - clock.gather(2, start)).unsqueeze(-1)
    moved = _take(known, end) - _take(known, start)
    return torch.where(elapsed > 0, moved / torch.where(elapsed > 0, elapsed, 1), 0)


def _hermite(known: Tensor, arriving: Tensor, leaving: Tensor, times: Tensor, where: Spans, linear: bool) -> Tensor:
    """Extrapolation with the velocities given, and interpolation with (or, if linear, without) them."""
    last = known.shape[2] - 1
    before, after = where.before.clamp(min=0), where.after.clamp(max=last)
    clock = times[:, None].expand(before.shape)
    since, until = (clock - clock.gather(2, before)).unsqueeze(-1), (clock.gather(2, after) - clock).unsqueeze(-1)
    x_p, x_n, v_p, v_n = _take(known, before), _take(known, after), _take(arriving, before), _take(leaving, after)
    forwards, backwards = x_p + since * v_p, x_n - until * v_n
    span = (since + until).clamp(min=torch.finfo(known.dtype).tiny)
    s = since / span
    between = x_p + s * (x_n - x_p)
    if not linear:
        bend = (1 - s) * (v_p * span - (x_n - x_p)) - s * (v_n * span - (x_n - x_p))
        between = between + s * (1 - s) * bend
    has_before, has_after = (where.before >= 0).unsqueeze(-1), (where.after <= last).unsqueeze(-1)
    return torch.where(has_before & has_after, between, torch.where(has_before, forwards, backwards))
