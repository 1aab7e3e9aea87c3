r"""The shared diffusion core: pure PyTorch, no knowledge of audio, graphs, Lightning or files.

Conventions, everywhere:

* time t in [0, 1]; t = 0 is data, t = 1 is noise;
* :math:`x_t = \alpha_t x_0 + \sigma_t \epsilon` (plus :math:`\beta_t y` for a known centre y);
* ``logsnr`` is :math:`\lambda = \log(\alpha/\sigma)`;
* the batch comes first; masks have the leading dimensions of the state, True = real;
* a denoiser returns :math:`E[x_0 | x_t]` (class probabilities for categorical paths);
* nothing touches the global random state: randomness is an argument.

A model is a network in a :class:`Denoiser` on a path; a loss trains it; a :class:`Sampler` (stepper, grid, steps)
samples it; a guidance rule is a denoiser around it::

    path = GaussianPath(VP())
    denoiser = Denoiser(network, path, V())
    loss = DenoisingLoss(denoiser)(x_0, NoiseSource(seed, ids)).value.mean()
    sample = Sampler(Multistep(), StraightGrid(), steps=10)(denoiser, (64, 2), generator=0).x
"""

if __name__.split(".")[0] != "fourfold":
    raise ImportError(f"import this package as fourfold.core, not as {__name__}")

from .categorical import CategoricalPath
from .denoisers import (
    BaseDenoiser,
    CategoricalDenoiser,
    Condition,
    Denoiser,
    JointDenoiser,
    LogSNRInput,
    StepInput,
)
from .densities import (
    CosMapTime,
    DiscreteTime,
    LogitNormalTime,
    ModeTime,
    PowerTime,
    ShiftedTime,
    TimeDensity,
    UniformTime,
)
from .ema import EMA, PowerEMA
from .grids import Grid, KarrasGrid, LogSNRGrid, QuadraticGrid, StraightGrid, TimesGrid, UniformGrid
from .guidance import (
    AdaptiveGuidance,
    ClassifierFree,
    ClassifierGuidance,
    EnergyGuidance,
    GuidedDenoiser,
    Replacement,
)
from .losses import (
    CategoricalLoss,
    DataWeight,
    DenoisingLoss,
    EDMWeight,
    JointLoss,
    LossResult,
    MinSNRWeight,
    NetworkWeight,
    NoiseWeight,
    SigmoidWeight,
    VelocityWeight,
    VWeight,
    Weight,
)
from .noise import NoiseSource, hash_seed
from .parameterizations import Data, Karras, Noise, Parameterization, Score, V, Velocity
from .paths import Centered, GaussianPath, JointPath, Normal, State
from .schedules import EDM, OUVE, VE, VP, Cosine, Discrete, MeanReverting, Rectified, Schedule, SubVP
from .solvers import (
    DDIM,
    DEIS,
    AdamsBashforth,
    Ancestral,
    AnnealedLangevin,
    DPMSolver,
    DPMSolverPP,
    EulerMaruyama,
    Langevin,
    Multistep,
    PredictorCorrector,
    PublicDPMSolverPP3M,
    RungeKutta,
    Sample,
    Sampler,
    SASolver,
    Singlestep,
    Stepper,
    StochasticHeun,
    UniPC,
)
from .supports import CenterFree, Full, Support, Symmetric

__all__ = [
    "DDIM",
    "DEIS",
    "EDM",
    "EMA",
    "OUVE",
    "VE",
    "VP",
    "AdamsBashforth",
    "AdaptiveGuidance",
    "Ancestral",
    "AnnealedLangevin",
    "BaseDenoiser",
    "CategoricalDenoiser",
    "CategoricalLoss",
    "CategoricalPath",
    "CenterFree",
    "Centered",
    "ClassifierFree",
    "ClassifierGuidance",
    "Condition",
    "CosMapTime",
    "Cosine",
    "DPMSolver",
    "DPMSolverPP",
    "Data",
    "DataWeight",
    "Denoiser",
    "DenoisingLoss",
    "Discrete",
    "DiscreteTime",
    "EDMWeight",
    "EnergyGuidance",
    "EulerMaruyama",
    "Full",
    "GaussianPath",
    "Grid",
    "GuidedDenoiser",
    "JointDenoiser",
    "JointLoss",
    "JointPath",
    "Karras",
    "KarrasGrid",
    "Langevin",
    "LogSNRGrid",
    "LogSNRInput",
    "LogitNormalTime",
    "LossResult",
    "MeanReverting",
    "MinSNRWeight",
    "ModeTime",
    "Multistep",
    "NetworkWeight",
    "Noise",
    "NoiseSource",
    "NoiseWeight",
    "Normal",
    "Parameterization",
    "PowerEMA",
    "PowerTime",
    "PredictorCorrector",
    "PublicDPMSolverPP3M",
    "QuadraticGrid",
    "Rectified",
    "Replacement",
    "RungeKutta",
    "SASolver",
    "Sample",
    "Sampler",
    "Schedule",
    "Score",
    "ShiftedTime",
    "SigmoidWeight",
    "Singlestep",
    "State",
    "StepInput",
    "Stepper",
    "StochasticHeun",
    "StraightGrid",
    "SubVP",
    "Support",
    "Symmetric",
    "TimeDensity",
    "TimesGrid",
    "UniPC",
    "UniformGrid",
    "UniformTime",
    "V",
    "VWeight",
    "Velocity",
    "VelocityWeight",
    "Weight",
    "hash_seed",
]
