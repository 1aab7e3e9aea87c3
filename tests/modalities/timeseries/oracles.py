"""A first-order autoregressive Gaussian process, and a model that knows it exactly."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fourfold.core import BaseDenoiser, Condition
from fourfold.core.testing import GaussianOracle
from fourfold.modalities.timeseries import Scaler, TSDiff


@dataclass(frozen=True)
class Units(Scaler):
    """Leaves values as they are."""

    name: ClassVar[str] = "units"

    def _statistics(
        self, values: Tensor, observed: Tensor, horizon: int, level: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        zero = torch.zeros(len(values), 1, dtype=values.dtype)
        return zero, zero + 1


class Exact(BaseDenoiser):
    """The exact denoiser of windows of one channel."""

    def __init__(self, oracle: GaussianOracle) -> None:
        super().__init__()
        self.path, self.oracle = oracle.path, oracle
        self.dtype_and_device = nn.Parameter(torch.zeros(1))

    def forward(
        self, x_t: Tensor, t: Tensor, *, mask: Tensor | None = None, condition: Condition | None = None
    ) -> Tensor:
        return self.oracle(x_t[..., 0], t)[..., None]


def covariance(length: int, decay: float = 0.9) -> NDArray[np.float64]:
    position = np.arange(length)
    return decay ** np.abs(position[:, None] - position)


def exact_model(horizon: int, context: int, **kwargs: Any) -> TSDiff:
    model = TSDiff(horizon, context, scaler=Units(), hidden=4, blocks=1, modes=2, patch=1, **kwargs)
    law = torch.from_numpy(covariance(horizon + context))
    model.denoiser = Exact(GaussianOracle(torch.zeros(len(law), dtype=torch.float64), law, model.denoiser.path))  # pyright: ignore
    return model.eval()


def draw(count: int, length: int, seed: int = 0) -> NDArray[np.float64]:
    """Paths of the process, shape `(count, length)`."""
    noise = np.random.default_rng(seed).normal(size=(count, length))
    return noise @ np.linalg.cholesky(covariance(length)).T


def posterior(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and covariance of what is missing (NaN) given the rest."""
    known, law = np.isfinite(values), covariance(len(values))
    gain = law[np.ix_(~known, known)] @ np.linalg.inv(law[np.ix_(known, known)])
    return gain @ values[known], law[np.ix_(~known, ~known)] - gain @ law[np.ix_(known, ~known)]
