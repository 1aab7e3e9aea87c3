r"""Coordinates in which a sampling ODE is solved.

In the coordinate y = x / m the probability-flow ODE becomes :math:`dy = F\,du` with a feature F = p x + q D that is
linear in the state and the denoised state. A solver interpolates F as a polynomial in a node variable v; what
changes between the famous solvers is only (m, u, v, F):

========  ====================  =====================  ======  =====================  ============================
name      m                     u                      v       F                      solvers
========  ====================  =====================  ======  =====================  ============================
straight  alpha + sigma         sigma/(alpha + sigma)  u       eps - D                Adams-Bashforth on flows
trig      sqrt(a^2 sd^2 + s^2)  atan2(s, a sd)         u       (a sd eps - s D/sd)/m  v-prediction AB
sigma     alpha                 sigma/alpha            u       eps                    Euler, Heun (EDM), LMS, DEIS
noise     alpha                 sigma/alpha            lambda  eps                    DPM-Solver
data      sigma                 alpha/sigma            lambda  D                      DPM-Solver++
========  ====================  =====================  ======  =====================  ============================

Sources: Lu et al. 2022, arXiv 2206.00927 and 2211.01095; Zhang and Chen 2023 (DEIS), arXiv 2204.13902; Karras et al.
2022.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

__all__ = ["COORDINATES", "Coordinate", "DataCoordinate", "NoiseCoordinate", "Sigma", "Straight", "Trig"]

Levels = tuple[np.ndarray, np.ndarray]
"""(alpha, sigma) in float64."""


class Coordinate(ABC):
    """All methods work on float64 arrays of any common shape."""

    @abstractmethod
    def scale(self, alpha: np.ndarray, sigma: np.ndarray) -> np.ndarray:
        """m of y = x / m."""

    @abstractmethod
    def position(self, alpha: np.ndarray, sigma: np.ndarray) -> np.ndarray:
        """u of dy = F du."""

    @abstractmethod
    def logsnr_at(self, position: np.ndarray) -> np.ndarray:
        """:math:`\\lambda` at a position."""

    @abstractmethod
    def feature(self, alpha: np.ndarray, sigma: np.ndarray) -> Levels:
        """(p, q) of F = p x + q D."""

    def node(self, alpha: np.ndarray, sigma: np.ndarray) -> np.ndarray:
        """The polynomial variable v."""
        return self.position(alpha, sigma)

    def kernel(self, node: np.ndarray, alpha: np.ndarray, sigma: np.ndarray) -> np.ndarray:
        """:math:`m \\, du/dv` at a node, with m at the target (alpha, sigma): the density that polynomials are
        integrated against."""
        return self.scale(alpha, sigma) * np.ones_like(node)


@dataclass(frozen=True)
class Straight(Coordinate):
    """:math:`y = x/(\\alpha+\\sigma)`: every schedule becomes a rectified flow."""

    def scale(self, alpha: np.ndarray, sigma: np.ndarray) -> np.ndarray:
        return alpha + sigma

    def position(self, alpha: np.ndarray, sigma: np.ndarray) -> np.ndarray:
        return sigma / (alpha + sigma)

    def logsnr_at(self, position: np.ndarray) -> np.ndarray:
        return np.log1p(-position) - np.log(position)

    def feature(self, alpha: np.ndarray, sigma: np.ndarray) -> Levels:
        return 1 / sigma, -(alpha + sigma) / sigma


@dataclass(frozen=True)
class Trig(Coordinate):
    """Rotation between data and noise; exact for Gaussian data of standard deviation ``data_std``."""

    data_std: float = 1.0

    def scale(self, alpha: np.ndarray, sigma: np.ndarray) -> np.ndarray:
        return np.hypot(alpha * self.data_std, sigma)

    def position(self, alpha: np.ndarray, sigma: np.ndarray) -> np.ndarray:
        return np.arctan2(sigma, alpha * self.data_std)

    def logsnr_at(self, position: np.ndarray) -> np.ndarray:
        return -np.log(np.tan(position) * self.data_std)

    def feature(self, alpha: np.ndarray, sigma: np.ndarray) -> Levels:
        scale = self.scale(alpha, sigma)
        return alpha * self.data_std / (scale * sigma), -scale / (sigma * self.data_std)


@dataclass(frozen=True)
class Sigma(Coordinate):
    """:math:`y = x/\\alpha, u = \\sigma/\\alpha, F = \\epsilon`: EDM's coordinate."""

    def scale(self, alpha: np.ndarray, sigma: np.ndarray) -> np.ndarray:
        return alpha

    def position(self, alpha: np.ndarray, sigma: np.ndarray) -> np.ndarray:
        return sigma / alpha

    def logsnr_at(self, position: np.ndarray) -> np.ndarray:
        return -np.log(position)

    def feature(self, alpha: np.ndarray, sigma: np.ndarray) -> Levels:
        return 1 / sigma, -alpha / sigma


@dataclass(frozen=True)
class NoiseCoordinate(Sigma):
    """Exponential integrator of eps in :math:`\\lambda`."""

    def node(self, alpha: np.ndarray, sigma: np.ndarray) -> np.ndarray:
        return np.log(alpha) - np.log(sigma)

    def kernel(self, node: np.ndarray, alpha: np.ndarray, sigma: np.ndarray) -> np.ndarray:
        return -sigma * np.exp(self.node(alpha, sigma) - node)


@dataclass(frozen=True)
class DataCoordinate(Coordinate):
    """Exponential integrator of the data prediction in :math:`\\lambda`."""

    def scale(self, alpha: np.ndarray, sigma: np.ndarray) -> np.ndarray:
        return sigma

    def position(self, alpha: np.ndarray, sigma: np.ndarray) -> np.ndarray:
        return alpha / sigma

    def logsnr_at(self, position: np.ndarray) -> np.ndarray:
        return np.log(position)

    def feature(self, alpha: np.ndarray, sigma: np.ndarray) -> Levels:
        return np.zeros_like(sigma), np.ones_like(sigma)

    def node(self, alpha: np.ndarray, sigma: np.ndarray) -> np.ndarray:
        return np.log(alpha) - np.log(sigma)

    def kernel(self, node: np.ndarray, alpha: np.ndarray, sigma: np.ndarray) -> np.ndarray:
        return alpha * np.exp(node - self.node(alpha, sigma))


COORDINATES: dict[str, Coordinate] = {
    "straight": Straight(),
    "trig": Trig(),
    "sigma": Sigma(),
    "noise": NoiseCoordinate(),
    "data": DataCoordinate(),
}


def coordinate_named(name: str | Coordinate) -> Coordinate:
    """A coordinate from its name.

    Raises:
        ValueError: for an unknown name.
    """
    if isinstance(name, Coordinate):
        return name
    if name not in COORDINATES:
        raise ValueError(f"unknown coordinate {name!r}; choose one of {', '.join(COORDINATES)}")
    return COORDINATES[name]
