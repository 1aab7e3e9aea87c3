r"""Classes as points of a Gaussian path, and the exact share of the noisy entry in their posterior.

Class k of K is the corner :math:`c_k \in R^{K-1}` of a regular simplex with edges of length 2: for K = 2 these are -1
and 1. An entry :math:`x_t = \alpha c_k + \sigma\epsilon` gives each class the log-likelihood (up to a constant)

.. math:: \ell_k = \frac{\alpha}{\sigma^2} \langle x_t, c_k \rangle - \frac{\alpha^2}{2\sigma^2} |c_k|^2,

so that a network only has to say what the *other* entries tell, as log-odds F, and

.. math:: p_k \propto \pi_k e^{\ell_k + F_k}, \qquad E[x_0 | x_t] = \sum_k p_k c_k

with the frequencies :math:`\pi` of the classes in the data: with F = 0 this is the exact denoiser of independent
entries. The cross-entropy of p is minimised by the true posterior, hence by the true denoiser.

Related: Chen et al. 2022, "Analog Bits", arXiv 2208.04202; Dieleman et al. 2022 (CDCD), arXiv 2211.15089.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...core import Schedule

__all__ = ["Codebook", "simplex"]


def simplex(classes: int) -> Tensor:
    """Corners of a regular simplex about the origin.

    Args:
        classes: K >= 2.

    Returns:
        Float64, shape (K, K - 1), all distances between rows 2; (-1, 1) for K = 2.
    """
    if classes < 2:
        raise ValueError(f"a code needs at least 2 classes, got {classes}")
    corners = torch.zeros(classes, classes - 1, dtype=torch.float64)
    for k in range(1, classes):
        # corner k leaves the plane of the first k corners, whose mean then moves back to the origin
        height = (2 * (k + 1) / k) ** 0.5
        corners[:k, k - 1] = -height / (k + 1)
        corners[k, k - 1] = height * k / (k + 1)
    return corners


class Codebook(nn.Module):
    """K classes with their frequencies.

    Args:
        counts: how often each class occurs in the data, shape (K,).
    """

    corners: Tensor
    log_frequency: Tensor

    def __init__(self, counts: Tensor) -> None:
        super().__init__()
        # one pseudo-count: a class that is absent from the data stays possible
        frequency = (counts.double() + 1) / (counts.double() + 1).sum()
        self.register_buffer("corners", simplex(len(counts)).float(), persistent=False)
        self.register_buffer("log_frequency", frequency.log().float(), persistent=False)

    @property
    def classes(self) -> int:
        """K."""
        return len(self.corners)

    @property
    def channels(self) -> int:
        """K - 1, the length of a code."""
        return self.corners.shape[1]

    def encode(self, index: Tensor) -> Tensor:
        """Codes of class indices: (*) -> (*, K - 1)."""
        return self.corners[index]

    def decode(self, x: Tensor) -> Tensor:
        """Nearest class of each entry: (*, K - 1) -> (*)."""
        return (x @ self.corners.to(x).T).argmax(-1)

    def logits(self, x_t: Tensor, t: Tensor, schedule: Schedule, output: Tensor | None = None) -> Tensor:
        """Log-posterior of the classes, not normalised.

        Args:
            x_t: noisy codes, (B, *, K - 1).
            t: times, (B,).
            schedule: of the path of x_t.
            output: F, (B, *, K); None is 0, the posterior of independent entries.
        """
        t64 = t.double()
        shape = (-1, *(1,) * (x_t.ndim - 1))
        pull = torch.exp(schedule.logsnr(t64) - schedule.sigma(t64).log()).to(x_t).reshape(shape)
        # all |c_k| are equal: the second term of the likelihood cancels
        logits = pull * (x_t @ self.corners.to(x_t).T) + self.log_frequency.to(x_t)
        return logits if output is None else logits + output

    def mean(self, logits: Tensor) -> Tensor:
        """:math:`E[x_0|x_t]`: (B, *, K) -> (B, *, K - 1)."""
        return logits.softmax(-1) @ self.corners.to(logits)
