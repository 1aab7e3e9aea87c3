"""What every law runs over: one table per kind of thing the core exports, and a fixture for each table.

A test that takes ``schedule`` runs once per registered schedule, and so on. ``test_registry.py`` fails when an exported
class is missing here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from fourfold.core import (
    DDIM,
    DEIS,
    EDM,
    OUVE,
    VE,
    VP,
    AdamsBashforth,
    Ancestral,
    AnnealedLangevin,
    CenterFree,
    Cosine,
    CosMapTime,
    Data,
    DataWeight,
    Discrete,
    DiscreteTime,
    DPMSolver,
    DPMSolverPP,
    EDMWeight,
    EulerMaruyama,
    Full,
    GaussianPath,
    Karras,
    KarrasGrid,
    Langevin,
    LogitNormalTime,
    LogSNRGrid,
    MeanReverting,
    MinSNRWeight,
    ModeTime,
    Multistep,
    NetworkWeight,
    Noise,
    NoiseWeight,
    PowerTime,
    PredictorCorrector,
    PublicDPMSolverPP3M,
    QuadraticGrid,
    Rectified,
    RungeKutta,
    SASolver,
    Schedule,
    Score,
    ShiftedTime,
    SigmoidWeight,
    Singlestep,
    Stepper,
    StochasticHeun,
    StraightGrid,
    SubVP,
    Support,
    Symmetric,
    TimesGrid,
    UniformGrid,
    UniformTime,
    UniPC,
    V,
    Velocity,
    VelocityWeight,
    VWeight,
)
from fourfold.core.solvers import COORDINATES
from fourfold.core.testing import GaussianMixtureOracle, GaussianOracle

DOUBLE = torch.float64


@dataclass(frozen=True)
class PerChannelVP(VP):
    """A vector-valued schedule: every channel runs at its own rate."""

    rates: tuple[float, ...] = (0.5, 1.0, 2.0)

    def _integral(self, t: Tensor) -> Tensor:
        return super()._integral(t)[..., None] * torch.tensor(self.rates, dtype=t.dtype)

    def _beta(self, t: Tensor) -> Tensor:
        return super()._beta(t)[..., None] * torch.tensor(self.rates, dtype=t.dtype)


SCHEDULES: dict[str, Schedule] = {
    "VP": VP(),
    "VP-slow": VP(beta_min=0.4, beta_max=8.0),
    "SubVP": SubVP(),
    "Cosine": Cosine(),
    "VE": VE(),
    "EDM": EDM(),
    "Rectified": Rectified(),
    "Discrete-linear": Discrete.linear(100, 1e-4, 0.1),
    "Discrete-cosine": Discrete.cosine(60),
    "OUVE": OUVE(),
    "MeanReverting": MeanReverting(stationary_std=0.7, steps=80),
}

PARAMETERIZATIONS = {
    "Data": Data(),
    "Noise": Noise(),
    "Score": Score(),
    "V": V(),
    "Velocity": Velocity(),
    "Karras": Karras(0.7),
}

WEIGHTS = {
    "Network": NetworkWeight(),
    "Data": DataWeight(),
    "Noise": NoiseWeight(),
    "V": VWeight(),
    "Velocity": VelocityWeight(),
    "EDM": EDMWeight(0.6),
    "MinSNR": MinSNRWeight(),
    "Sigmoid": SigmoidWeight(0.3),
}

DENSITIES = {
    "Uniform": UniformTime(),
    "Discrete": DiscreteTime(20),
    "LogitNormal": LogitNormalTime(0.2, 0.8),
    "Mode": ModeTime(),
    "Power": PowerTime(),
    "CosMap": CosMapTime(),
    "Shifted": ShiftedTime(3.0, LogitNormalTime()),
}

GRIDS = {
    "Uniform": UniformGrid(),
    "Quadratic": QuadraticGrid(),
    "LogSNR": LogSNRGrid(),
    "Karras": KarrasGrid(),
    "Straight": StraightGrid(),
}

RUNGE_KUTTA: tuple[tuple[Literal["euler", "midpoint", "heun", "rk4"], int], ...] = (
    ("euler", 1),
    ("midpoint", 2),
    ("heun", 2),
    ("rk4", 4),
)

# steppers of the probability-flow ODE, with the order of their error at equal numbers of evaluations
DETERMINISTIC: dict[str, tuple[Stepper, float]] = {
    "DDIM": (DDIM(), 1),
    "DPMSolver-2": (DPMSolver(2), 2),
    "DPMSolver-2-exact": (DPMSolver(2, "lagrange"), 2),
    "DPMSolver-3": (DPMSolver(3), 3),
    "DPMSolverPP-2": (DPMSolverPP(2), 2),
    "DPMSolverPP-2-exact": (DPMSolverPP(2, extrapolation="lagrange"), 2),
    "DPMSolverPP-3": (DPMSolverPP(3), 3),
    "PublicDPMSolverPP3M": (PublicDPMSolverPP3M(), 2),
    "DEIS-2": (DEIS(2), 2),
    "DEIS-3": (DEIS(3), 3),
    "AdamsBashforth-2": (AdamsBashforth(2), 2),
    "AdamsBashforth-3": (AdamsBashforth(3), 3),
    "UniPC-1": (UniPC(1), 2),
    "UniPC-2": (UniPC(2), 3),
    "Multistep": (Multistep(), 3),
    **{
        f"Multistep-{name}-{order}": (Multistep(order, name, corrector=False), order)
        for name in COORDINATES
        for order in (1, 2, 3)
    },
    **{f"Multistep-{name}-2-corrected": (Multistep(2, name), 3) for name in COORDINATES},
    "Multistep-to-the-end": (Multistep(2, "data", corrector=False, lower_order_final=False), 2),
    **{
        f"RungeKutta-{method}-{name}": (RungeKutta(method, name), order)
        for method, order in RUNGE_KUTTA
        for name in ("straight", "sigma", "trig")
    },
    "RungeKutta-heun-data": (RungeKutta("heun", "data"), 2),
    "RungeKutta-heun-time": (RungeKutta("heun", "time"), 2),
    "Singlestep-2-data": (Singlestep(2, "data"), 2),
    "Singlestep-2-noise": (Singlestep(2, "noise"), 2),
    "Singlestep-3-data": (Singlestep(3, "data"), 1),  # its last interval has order 1
    "Singlestep-3-noise": (Singlestep(3, "noise"), 1),
    "StochasticHeun-0": (StochasticHeun(), 2),
    "EulerMaruyama-0": (EulerMaruyama(kappa=0), 1),
}

# stochastic steppers whose steps are affine in the state and the noise, for linear denoisers
STOCHASTIC: dict[str, Stepper] = {
    "DDIM-0.5": DDIM(0.5),
    "DDIM-1": DDIM(1.0),
    "SDE-DPMSolverPP-2": DPMSolverPP(2, eta=1.0),
    "SDE-DPMSolverPP-3": DPMSolverPP(3, eta=1.0),
    "SASolver": SASolver(),
    "SASolver-0.5": SASolver(2, tau=0.5, corrector=False),
    **{f"Multistep-{name}-eta-0.5": Multistep(2, name, 0.5, corrector=False) for name in COORDINATES},
    **{f"Multistep-{name}-eta-1": Multistep(2, name, 1.0) for name in COORDINATES},
    "Ancestral": Ancestral(),
    "StochasticHeun-churn": StochasticHeun(churn=20.0),
    "EulerMaruyama": EulerMaruyama(),
    "EulerMaruyama-0.5": EulerMaruyama(kappa=0.5),
}

# step sizes of these depend on the norm of the state
ADAPTIVE: dict[str, Stepper] = {
    "PredictorCorrector": PredictorCorrector(),
    "PredictorCorrector-annealed": PredictorCorrector(EulerMaruyama(), AnnealedLangevin(0.3)),
    "PredictorCorrector-two": PredictorCorrector(Ancestral(), Langevin(0.1, steps=2)),
}

STEPPERS: dict[str, Stepper] = {**{k: s for k, (s, _) in DETERMINISTIC.items()}, **STOCHASTIC, **ADAPTIVE}

# a few of each kind, for laws that do not concern the coefficients
FEW = ("Multistep", "DDIM-1", "Multistep-trig-eta-1", "RungeKutta-midpoint-sigma", "Singlestep-3-data", "Ancestral")
FEW += ("StochasticHeun-churn", "EulerMaruyama", "PredictorCorrector", "PredictorCorrector-annealed")


@dataclass(frozen=True)
class Case:
    """A support with states of five real entries along the masked dimension; ``pad`` adds ``extra`` more."""

    support: Support
    shape: Callable[[int], tuple[int, ...]]
    padded_dims: tuple[int, ...]
    mask_shape: Callable[[int], tuple[int, ...]]

    def state(self, seed: int, batch: int = 3, size: int = 5) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(batch, *self.shape(size), generator=generator, dtype=DOUBLE)

    def mask(self, batch: int = 3, size: int = 5, real: tuple[int, ...] = (5, 3, 4)) -> Tensor:
        """The first ``real[b]`` entries of sample b are real."""
        rows = torch.arange(size) < torch.tensor(real[:batch])[:, None]
        shape = self.mask_shape(size)
        return rows.reshape(batch, size, *(1,) * (len(shape) - 1)).expand(batch, *shape).clone()

    def pad(self, x: Tensor, extra: int, value: float = 0.0) -> Tensor:
        for dim in self.padded_dims:
            shape = list(x.shape)
            shape[dim] = extra
            x = torch.cat([x, torch.full(shape, value, dtype=x.dtype)], dim)
        return x

    def crop(self, x: Tensor, size: int = 5) -> Tensor:
        for dim in self.padded_dims:
            x = x.narrow(dim, 0, size)
        return x


SUPPORTS: dict[str, Case] = {
    "Full": Case(Full(), lambda n: (n, 2), (1,), lambda n: (n,)),
    "Symmetric": Case(Symmetric(), lambda n: (n, n), (1, 2), lambda n: (n,)),
    "Symmetric-channels": Case(Symmetric(), lambda n: (n, n, 2), (1, 2), lambda n: (n,)),
    "Symmetric-diagonal": Case(Symmetric(hollow=False), lambda n: (n, n), (1, 2), lambda n: (n,)),
    "CenterFree": Case(CenterFree(), lambda n: (n, 2), (1,), lambda n: (n,)),
    "CenterFree-frames": Case(CenterFree((1, 2)), lambda n: (n, 4, 3), (1,), lambda n: (n,)),
    "CenterFree-frame-masks": Case(CenterFree((1, 2)), lambda n: (n, 4, 3), (1,), lambda n: (n, 4)),
    "CenterFree-each-frame": Case(CenterFree(1), lambda n: (n, 4, 3), (1,), lambda n: (n, 4)),
}


class Mixer(nn.Module):
    """A fixed smooth network: sees the mask, couples the real entries of a sample, and writes garbage on padding.

    Args:
        symmetric_breaking: scale of a term that leaves every subspace.
    """

    def __init__(self, symmetric_breaking: float = 0.3) -> None:
        super().__init__()
        self.symmetric_breaking = symmetric_breaking

    def forward(self, x: Tensor, t: Tensor, *, mask: Tensor | None = None, condition: Any = None) -> Tensor:
        shape = (-1,) + (1,) * (x.ndim - 1)
        time = t.reshape(shape)
        real = torch.ones_like(x, dtype=torch.bool)
        if mask is not None:
            real = mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim)).expand(x.shape)
            if x.ndim > 2 and x.shape[1] == x.shape[2]:
                real = real & real.transpose(1, 2)
        kept = torch.where(real, x, 0)
        count = real.flatten(1).sum(1).reshape(shape).clamp(min=1)
        mean = kept.flatten(1).sum(1).reshape(shape) / count
        first = torch.arange(x.shape[1], dtype=x.dtype).reshape((1, -1) + (1,) * (x.ndim - 2))
        label = 0.0 if condition is None else condition["label"].reshape(shape).to(x.dtype)
        out = torch.tanh(x + 0.5 * mean - time + label) + self.symmetric_breaking * torch.cos(first + time)
        return torch.where(real, out, 7.0)


@pytest.fixture
def make_mixer() -> Callable[..., Mixer]:
    return Mixer


def _table(name: str, table: dict[str, Any]) -> Any:
    @pytest.fixture(name=name, params=list(table.values()), ids=list(table))
    def value(request: pytest.FixtureRequest) -> Any:
        return request.param

    return value


schedule = _table("schedule", SCHEDULES)
parameterization = _table("parameterization", PARAMETERIZATIONS)
weight = _table("weight", WEIGHTS)
density = _table("density", DENSITIES)
grid = _table("grid", GRIDS)
case = _table("case", SUPPORTS)
deterministic = _table("deterministic", {k: s for k, (s, _) in DETERMINISTIC.items()})
ordered = _table("ordered", DETERMINISTIC)
affine = _table("affine", STOCHASTIC)
stepper = _table("stepper", STEPPERS)
few = _table("few", {k: STEPPERS[k] for k in FEW})


@pytest.fixture
def registry() -> SimpleNamespace:
    """All tables."""
    return SimpleNamespace(
        schedules=SCHEDULES,
        parameterizations=PARAMETERIZATIONS,
        weights=WEIGHTS,
        densities=DENSITIES,
        grids={**GRIDS, "Times": TimesGrid(times=(1.0, 0.5, 0.1))},
        supports={k: c.support for k, c in SUPPORTS.items()},
        steppers=STEPPERS,
    )


@pytest.fixture
def vector() -> PerChannelVP:
    """A vector-valued schedule with three channels."""
    return PerChannelVP()


def double(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=DOUBLE)


def _g10(path: GaussianPath) -> GaussianOracle:
    return GaussianOracle(torch.cos(torch.arange(10.0, dtype=DOUBLE)), double([k**-2.0 for k in range(1, 11)]), path)


def _m2(path: GaussianPath) -> GaussianMixtureOracle:
    means = double([[1.5, 1.5], [-1.5, 1.5], [-1.5, -1.5], [1.5, -1.5]])
    return GaussianMixtureOracle(double([0.1, 0.2, 0.3, 0.4]), means, double([0.2, 0.3, 0.4, 0.5]), path)


def _m10(path: GaussianPath) -> GaussianMixtureOracle:
    means = [[1.5 * math.cos(2 * math.pi * (j + 1) * (k + 1) / 7 + 0.3 * k) for j in range(10)] for k in range(5)]
    weights, stds = double([0.1, 0.15, 0.2, 0.25, 0.3]), double([0.15, 0.2, 0.25, 0.3, 0.35])
    return GaussianMixtureOracle(weights, double(means), stds, path)


def _small(path: GaussianPath) -> GaussianOracle:
    return GaussianOracle(double([0.7, -0.4]), double([[0.6, 0.2], [0.2, 0.3]]), path)


@pytest.fixture
def targets() -> SimpleNamespace:
    """Closed-form data distributions by name: functions of a path."""
    return SimpleNamespace(g10=_g10, m2=_m2, m10=_m10, small=_small)


@dataclass(frozen=True)
class Moments:
    """Exact mean and variance of what a stepper returns for 1-D Gaussian data, and the truth at the last time."""

    mean: float
    variance: float
    true_mean: float
    true_variance: float


def _moments(schedule: Schedule, stepper: Stepper, times: tuple[float, ...], mean: float, std: float) -> Moments:
    """The denoiser is affine, so the result is affine in the start and in every noise draw: probe the coefficients.

    Row 0 starts from the true mean without noise, row 1 one standard deviation off, row 2 + k has unit noise in draw k.
    """
    path = GaussianPath(schedule)
    oracle = GaussianOracle(double([mean]), double([std**2]), path)
    levels = {t: (float(schedule.alpha(double(t))), float(schedule.sigma(double(t)))) for t in (times[0], times[-1])}
    (a, s), (a_0, s_0) = levels[times[0]], levels[times[-1]]
    draws: dict[int, int] = {}
    rows = 2 + len(times)

    def draw(key: int) -> Tensor:
        draws.setdefault(key, 2 + len(draws))
        noise = torch.zeros(rows, 1, dtype=DOUBLE)
        noise[draws[key]] = 1
        return noise

    x = torch.full((rows, 1), a * mean, dtype=DOUBLE)
    x[1] += math.hypot(a * std, s)
    solution = stepper.solve(path, times, x, draw)
    reply: Any = None
    while True:
        try:
            state, t, _ = solution.send(reply)
        except StopIteration as stop:
            result = stop.value[:, 0]
            break
        reply = oracle.denoise(state, double(t))
    effects = result[1:] - result[0]
    return Moments(float(result[0]), float((effects**2).sum()), a_0 * mean, (a_0 * std) ** 2 + s_0**2)


@pytest.fixture
def moments() -> Callable[..., Moments]:
    return _moments


@pytest.fixture
def g10_starts() -> Tensor:
    """500 starting points of the 10-dimensional Gaussian target."""
    import numpy as np

    return torch.from_numpy(np.random.default_rng(0).standard_normal((500, 10)))


@pytest.fixture(scope="session")
def golden_folder(shared: Path) -> Path:
    return shared / "golden"


@pytest.fixture
def golden(golden_folder: Path) -> Callable[[str], Any]:
    """A golden JSON file by its path below the golden folder."""
    return lambda name: json.loads((golden_folder / name).read_text())


@pytest.fixture
def moderate() -> Callable[[Schedule], Schedule]:
    """The same schedule, sampled away from its ends."""

    def narrowed(schedule: Any) -> Schedule:
        changes = {k: v for k, v in {"t_min": 0.05, "t_max": 0.95}.items() if k in schedule.__dataclass_fields__}
        return replace(schedule, **changes)

    return narrowed
