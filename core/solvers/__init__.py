"""Solvers: steppers, the sampling loop, and the coordinates they work in."""

from .ancestral import Ancestral
from .coordinates import COORDINATES, Coordinate, DataCoordinate, NoiseCoordinate, Sigma, Straight, Trig
from .langevin import AnnealedLangevin, Langevin, PredictorCorrector
from .multistep import Multistep, multistep_update
from .named import DDIM, DEIS, AdamsBashforth, DPMSolver, DPMSolverPP, PublicDPMSolverPP3M, SASolver, UniPC
from .runge_kutta import RungeKutta, Singlestep
from .sampler import Draw, Sample, Sampler, Solution, Stepper
from .stochastic import EulerMaruyama, StochasticHeun

__all__ = [
    "COORDINATES",
    "DDIM",
    "DEIS",
    "AdamsBashforth",
    "Ancestral",
    "AnnealedLangevin",
    "Coordinate",
    "DPMSolver",
    "DPMSolverPP",
    "DataCoordinate",
    "Draw",
    "EulerMaruyama",
    "Langevin",
    "Multistep",
    "NoiseCoordinate",
    "PredictorCorrector",
    "PublicDPMSolverPP3M",
    "RungeKutta",
    "SASolver",
    "Sample",
    "Sampler",
    "Sigma",
    "Singlestep",
    "Solution",
    "Stepper",
    "StochasticHeun",
    "Straight",
    "Trig",
    "UniPC",
    "multistep_update",
]
