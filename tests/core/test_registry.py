"""Nothing the core exports escapes the laws, and the public names stay."""

from __future__ import annotations

import inspect
from types import ModuleType, SimpleNamespace

import pytest

import fourfold.core as core
from fourfold.core.solvers import named


@pytest.mark.parametrize(
    ("table", "base"),
    [
        ("schedules", core.Schedule),
        ("parameterizations", core.Parameterization),
        ("weights", core.Weight),
        ("densities", core.TimeDensity),
        ("grids", core.Grid),
        ("supports", core.Support),
        ("steppers", core.Stepper),
    ],
)
def test_every_exported_class_is_registered(registry: SimpleNamespace, table: str, base: type) -> None:
    exported = {
        value
        for name in core.__all__
        if inspect.isclass(value := getattr(core, name)) and issubclass(value, base) and not inspect.isabstract(value)
    }
    assert exported - {type(value) for value in getattr(registry, table).values()} == set()


def test_every_named_solver_is_registered(registry: SimpleNamespace) -> None:
    assert set(named.__all__) <= set(core.__all__)
    assert {name for name in named.__all__ if not any(name in key for key in registry.steppers)} == set()


def test_exports_are_names_not_modules() -> None:
    assert len(set(core.__all__)) == len(core.__all__)
    assert not [name for name in core.__all__ if isinstance(getattr(core, name), ModuleType)]


@pytest.mark.parametrize(
    "names",
    [
        "VP Cosine VE SubVP EDM Rectified Discrete OUVE MeanReverting",
        "GaussianPath CategoricalPath JointPath Centered Full Symmetric CenterFree",
        "Denoiser DenoisingLoss Sampler Multistep RungeKutta Ancestral StochasticHeun PredictorCorrector",
        "UniformGrid LogSNRGrid KarrasGrid ClassifierFree AdaptiveGuidance EnergyGuidance NoiseSource",
    ],
)
def test_names_others_rely_on(names: str) -> None:
    assert set(names.split()) <= set(core.__all__)


def test_oracles_have_the_promised_methods() -> None:
    from fourfold.core.testing import GaussianMixtureOracle, GaussianOracle

    for oracle in (GaussianOracle, GaussianMixtureOracle):
        assert all(callable(getattr(oracle, name)) for name in ("denoise", "score", "log_prob", "sample"))
