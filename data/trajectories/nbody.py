r"""Seeded N-body systems, all trajectories simulated at once.

Three laws of force between balls i and j at distance r, with the potential energy V that the drift report uses:

    springs   F = -k s_ij (x_i - x_j)               V = k s_ij r^2 / 2          s_ij in {0, 1}, k = 0.1, rest length 0
    charged   F = q_i q_j (x_i - x_j) / r^3         V = q_i q_j / r             q_i in {-1, 1}
    gravity   F = -m_i m_j (x_i - x_j) / (r^2 + e^2)^(3/2)    V = -m_i m_j / (r^2 + e^2)^(1/2)

The systems come in two editions. `published` keeps what the GeoTDM experiments (and EGNN's and NRI's before) simulated:
semi-implicit Euler steps of 1e-3 for springs and charges with every force component clamped to 100, the first frame
kept at step 100; kick-drift-kick from step 0 with unit masses for gravity. Close encounters of opposite charges meet
the clamp and do not conserve energy. `corrected` has velocity Verlet for all, begins at step 0, gives springs and
gravity the random masses the paper speaks of (uniform in [0.5, 1.5]; m is then a feature, and the acceleration is F /
m), draws gravity's velocities with the stated norm, and softens the charges' potential, V = q_i q_j / (r^2 + e^2)^(1/2)
with e = 0.1, so that no clamp is needed.

Every trajectory has a generator of its own, seeded by (seed, split, number): the first 100 of 1000 are those of 100.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...modalities.trajectories.records import TrajectoryRecord

__all__ = [
    "SYSTEMS",
    "VERSION",
    "EnergyDrift",
    "NBodySystem",
    "Simulation",
    "corrected",
    "energy_drift",
    "published",
    "records",
    "simulate",
]

#: Names of the three systems.
SYSTEMS = ("springs", "charged", "gravity")

#: Part of every cache key: raised when the numbers of a simulation change.
VERSION = 1

# Balls x pairs of 256 systems stay in the processor's cache.
_CHUNK = 256


@dataclass(frozen=True)
class NBodySystem:
    """What is simulated; :func:`published` and :func:`corrected` make the usual ones.

    Args:
        law: "springs", "charged" or "gravity".
        num_balls: balls per system.
        position_scale: standard deviation of the initial coordinates.
        speed: norm of every initial velocity, directions being uniform; None draws each component from N(0, 1).
        step: time of one integration step.
        every: integration steps from frame to frame.
        first: integration steps before the first frame.
        scheme: "euler" (semi-implicit) or "verlet".
        clamp: largest force component; None for no limit.
        softening: e in the laws above.
        box: half width of the box into which initial positions are reflected once; None for no box.
        zero_momentum: take the mean velocity off at the start.
        masses: lowest and highest mass, drawn uniformly.
        strength: k of the springs.
    """

    law: Literal["springs", "charged", "gravity"]
    num_balls: int = 5
    position_scale: float = 1.0
    speed: float | None = 0.5
    step: float = 1e-3
    every: int = 100
    first: int = 100
    scheme: Literal["euler", "verlet"] = "euler"
    clamp: float | None = None
    softening: float = 0.0
    box: float | None = None
    zero_momentum: bool = False
    masses: tuple[float, float] = (1.0, 1.0)
    strength: float = 0.1

    def __post_init__(self) -> None:
        if self.law not in SYSTEMS:
            raise ValueError(f"unknown law {self.law!r}; known are {', '.join(SYSTEMS)}")
        if self.num_balls < 1 or self.every < 1 or self.first < 0 or self.step <= 0:
            raise ValueError("num_balls and every must be at least 1, first at least 0, step above 0")
        if not 0 < self.masses[0] <= self.masses[1]:
            raise ValueError(f"masses must be two increasing positive numbers, got {self.masses}")

    def parameters(self) -> dict[str, Any]:
        """All settings as plain values."""
        return asdict(self)


def published(law: str) -> NBodySystem:
    """The system as the published experiments simulated it (GeoTDM, https://arxiv.org/abs/2410.13027, section 5.1)."""
    match law:
        case "springs":
            return NBodySystem("springs", position_scale=0.5, clamp=100.0, box=5.0)
        case "charged":
            return NBodySystem("charged", clamp=100.0, box=5.0)
        case "gravity":
            return NBodySystem(
                "gravity", num_balls=10, speed=None, first=0, scheme="verlet", softening=0.1, zero_momentum=True
            )
    raise ValueError(f"unknown law {law!r}; known are {', '.join(SYSTEMS)}")


def corrected(law: str) -> NBodySystem:
    """The system with the known faults mended (see the head of this module); not comparable to published numbers."""
    match law:
        case "springs":
            return NBodySystem("springs", position_scale=0.5, first=0, scheme="verlet", masses=(0.5, 1.5))
        case "charged":
            return NBodySystem("charged", first=0, scheme="verlet", softening=0.1)
        case "gravity":
            return NBodySystem(
                "gravity",
                num_balls=10,
                first=0,
                scheme="verlet",
                softening=0.1,
                zero_momentum=True,
                masses=(0.5, 1.5),
            )
    raise ValueError(f"unknown law {law!r}; known are {', '.join(SYSTEMS)}")


@dataclass(frozen=True)
class Simulation:
    """Simulated trajectories.

    Args:
        positions: `(B, N, T, 3)`.
        velocities: `(B, N, T, 3)`, at the same times.
        energy: total energy per frame, `(B, T)`.
        charges: `(B, N)`; zeros for springs and gravity.
        masses: `(B, N)`.
        springs: `(B, N, N)`; zeros for charges and gravity.
    """

    positions: NDArray[np.float64]
    velocities: NDArray[np.float64]
    energy: NDArray[np.float64]
    charges: NDArray[np.float64]
    masses: NDArray[np.float64]
    springs: NDArray[np.float64]


@dataclass(frozen=True)
class EnergyDrift:
    """How well energy is conserved; every number is relative to the system's mean kinetic energy.

    Args:
        median: median over systems of the largest deviation from the first frame's energy.
        p95: 95 % quantile of the same.
        worst: largest of the same.
        broken: share of systems with more than 10 %.
    """

    median: float
    p95: float
    worst: float
    broken: float

    def __str__(self) -> str:
        return (
            f"energy drift: median {self.median:.1e}, 95 % {self.p95:.1e}, worst {self.worst:.1e} of the kinetic "
            f"energy; {self.broken:.1%} of the systems above 10 %"
        )


def simulate(system: NBodySystem, count: int, *, frames: int = 30, seed: int = 0, split: int = 0) -> Simulation:
    """Simulates `count` systems.

    Args:
        system: law and settings.
        count: number of trajectories B.
        frames: T, first frame included.
        seed: seed of the data set.
        split: number of the part (train 0, validation 1, test 2), so that parts never share a trajectory.
    """
    if count < 1 or frames < 1:
        raise ValueError(f"count and frames must be at least 1, got {count} and {frames}")
    starts = [_start(system, np.random.default_rng((seed, split, number))) for number in range(count)]
    parts = [_run(system, starts[i : i + _CHUNK], frames) for i in range(0, count, _CHUNK)]
    return Simulation(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def energy_drift(simulation: Simulation) -> EnergyDrift:
    """How far the total energy wanders from its value at the first frame."""
    kinetic = 0.5 * (simulation.masses[..., None] * (simulation.velocities**2).sum(-1)).sum(1).mean(1)
    drift = np.abs(simulation.energy - simulation.energy[:, :1]).max(1) / kinetic
    return EnergyDrift(
        float(np.median(drift)), float(np.quantile(drift, 0.95)), float(drift.max()), float((drift > 0.1).mean())
    )


def records(
    system: NBodySystem,
    positions: NDArray[np.floating],
    charges: NDArray[np.float64],
    masses: NDArray[np.float64],
    springs: NDArray[np.float64],
    name: str,
) -> list[TrajectoryRecord]:
    """Trajectories as records: charge or mass as feature, product of charges or spring as feature of the pairs.

    Args:
        system: what was simulated.
        positions: `(B, N, T, 3)`.
        charges: `(B, N)`.
        masses: `(B, N)`.
        springs: `(B, N, N)`.
        name: the records are called `NAME 0`, `NAME 1`, ...
    """
    result = []
    for number, places in enumerate(positions):
        match system.law:
            case "charged":
                features, pairs = charges[number], np.outer(charges[number], charges[number])
            case "springs":
                # Published springs all have mass 1 and the feature 0.
                equal = system.masses[0] == system.masses[1]
                features, pairs = masses[number] * (not equal), springs[number]
            case _:
                features, pairs = masses[number], np.zeros((system.num_balls, system.num_balls))
        result.append(
            TrajectoryRecord(
                positions=np.asarray(places, np.float32),
                features=np.asarray(features[:, None], np.float32),
                edge_features=np.asarray(pairs[..., None], np.float32),
                name=f"{name} {number}",
            )
        )
    return result


def _start(system: NBodySystem, rng: np.random.Generator) -> tuple[NDArray[np.float64], ...]:
    n = system.num_balls
    charges, springs = np.zeros(n), np.zeros((n, n))
    if system.law == "charged":
        charges = rng.choice([-1.0, 1.0], n)
    if system.law == "springs":
        springs = np.triu(rng.integers(0, 2, (n, n)), 1).astype(float)
        springs += springs.T
    masses = rng.uniform(*system.masses, n)
    x = system.position_scale * rng.standard_normal((n, 3))
    v = rng.standard_normal((n, 3))
    if system.speed is not None:
        v *= system.speed / np.linalg.norm(v, axis=1, keepdims=True)
    if system.zero_momentum:
        v -= (masses[:, None] * v).sum(0) / masses.sum()
    if system.box is not None:
        over, under = x > system.box, x < -system.box
        x = np.where(over, 2 * system.box - x, np.where(under, -2 * system.box - x, x))
        v = np.where(over, -np.abs(v), np.where(under, np.abs(v), v))
    return x, v, charges, masses, springs


def _run(system: NBodySystem, starts: list[tuple[NDArray[np.float64], ...]], frames: int) -> tuple[NDArray[Any], ...]:
    x, v, charges, masses, springs = (np.stack(part, axis=-1) for part in zip(*starts, strict=True))
    x, v = np.ascontiguousarray(x.transpose(1, 0, 2)), np.ascontiguousarray(v.transpose(1, 0, 2))  # (3, N, B)
    forces = _Forces(system, charges, masses, springs)
    dt, steps = system.step, system.first + system.every * (frames - 1)
    xs, vs, energies = [], [], []
    a = forces(x) / masses
    for step in range(steps + 1):
        if step >= system.first and (step - system.first) % system.every == 0:
            # Semi-implicit Euler's velocity stands half a step behind: its energy is that of v at the position's time.
            now = v if system.scheme == "verlet" else v + 0.5 * dt * a
            xs.append(x.copy())
            vs.append(now.copy())
            energies.append(0.5 * (masses * (now**2).sum(0)).sum(0) + forces.potential(x))
        if step == steps:
            break
        if system.scheme == "verlet":
            v = v + 0.5 * dt * a
            x = x + dt * v
            a = forces(x) / masses
            v = v + 0.5 * dt * a
        else:
            v = v + dt * a
            x = x + dt * v
            a = forces(x) / masses
    return (
        np.stack(xs).transpose(3, 2, 0, 1),
        np.stack(vs).transpose(3, 2, 0, 1),
        np.stack(energies, axis=-1),
        charges.T,
        masses.T,
        springs.transpose(2, 0, 1),
    )


class _Forces:
    """Forces on balls from pairs i < j, in arrays whose last axis runs over systems."""

    def __init__(self, system: NBodySystem, charges: NDArray[Any], masses: NDArray[Any], springs: NDArray[Any]) -> None:
        self.system = system
        first, second = np.triu_indices(system.num_balls, 1)
        # Row of a ball: +1 in the pairs it begins, -1 in those it ends. Differences and sums are two small matrix
        # products.
        self.incidence = np.zeros((system.num_balls, len(first)))
        self.incidence[first, np.arange(len(first))] = 1
        self.incidence[second, np.arange(len(first))] = -1
        match system.law:
            case "springs":
                self.coupling = -system.strength * springs[first, second]
            case "charged":
                self.coupling = charges[first] * charges[second]
            case _:
                self.coupling = -masses[first] * masses[second]

    def __call__(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        d = self.incidence.T @ x
        if self.system.law == "springs":
            force = self.incidence @ (self.coupling * d)
        else:
            squared = np.einsum("dpb,dpb->pb", d, d) + self.system.softening**2
            force = self.incidence @ (self.coupling / (squared * np.sqrt(squared)) * d)
        if self.system.clamp is not None:
            force = np.clip(force, -self.system.clamp, self.system.clamp)
        return force

    def potential(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        d = self.incidence.T @ x
        squared = (d * d).sum(0)
        if self.system.law == "springs":
            return -0.5 * (self.coupling * squared).sum(0)
        return (self.coupling / np.sqrt(squared + self.system.softening**2)).sum(0)
