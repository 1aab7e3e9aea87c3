"""The famous multistep solvers as points of the :class:`Multistep` family."""

from __future__ import annotations

from .multistep import Extrapolation, Multistep

__all__ = [
    "DDIM",
    "DEIS",
    "AdamsBashforth",
    "DPMSolver",
    "DPMSolverPP",
    "PublicDPMSolverPP3M",
    "SASolver",
    "UniPC",
]


def DDIM(eta: float = 0.0) -> Multistep:
    """Order 1, any eta in [0, 1] (1 = ancestral). Source: Song et al. 2021, arXiv 2010.02502, eq. 12."""
    return Multistep(1, "data", eta, corrector=False, ddim_eta=True)


def DPMSolver(order: int = 2, extrapolation: Extrapolation = "midpoint") -> Multistep:
    """Multistep DPM-Solver on the predicted noise. Source: Lu et al. 2022, arXiv 2206.00927."""
    return Multistep(order, "noise", corrector=False, extrapolation=_public(order, extrapolation))


def DPMSolverPP(order: int = 2, eta: float = 0.0, extrapolation: Extrapolation = "midpoint") -> Multistep:
    """DPM-Solver++(2M), its exact third order, and with eta = 1 the SDE form. Source: Lu et al. 2022, arXiv
    2211.01095."""
    return Multistep(order, "data", eta, corrector=False, extrapolation=_public(order, extrapolation))


def PublicDPMSolverPP3M() -> Multistep:
    """The third-order DPM-Solver++ as distributed: its second difference lacks a factor 2, so its order is 2."""
    return Multistep(3, "data", corrector=False, extrapolation="public3")


def DEIS(order: int = 3) -> Multistep:
    """Exponential integrator with polynomials in sigma/alpha. Source: Zhang and Chen 2023, arXiv 2204.13902
    (rho-AB)."""
    return Multistep(order, "sigma", corrector=False)


def UniPC(order: int = 2) -> Multistep:
    """Data-prediction multistep with the free corrector. Source: Zhao et al. 2023, arXiv 2302.04867."""
    return Multistep(order, "data", corrector=True)


def AdamsBashforth(order: int = 2, corrector: bool = False) -> Multistep:
    """Adams-Bashforth on the straightened flow."""
    return Multistep(order, "straight", corrector=corrector)


def SASolver(order: int = 2, tau: float = 1.0, corrector: bool = True) -> Multistep:
    """Stochastic Adams solver, :math:`\\eta = \\tau^2`. Source: Xue et al. 2023, arXiv 2309.05019."""
    return Multistep(order, "data", tau**2, corrector=corrector)


def _public(order: int, extrapolation: Extrapolation) -> Extrapolation:
    return extrapolation if order == 2 else "lagrange"
