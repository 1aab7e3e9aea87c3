r"""Diagonal state space layers (S4D): long convolutions whose kernel is a sum of damped oscillations.

Each channel runs the linear system h' = A h + B u, y = Re(C h), with A diagonal, sampled at a step dt by zero-order
hold:

    dA = exp(dt A),   dB = (dA - 1) / A,   K[l] = 2 Re sum_n C_n dB_n dA_n^l,   l = 0 ... L-1

and started at A_n = -1/2 + i pi n (S4D-Lin, `Gu et al. 2022 <https://arxiv.org/abs/2206.11893>`_), dt log-uniform.
Only one of each conjugate pair of modes is stored, hence the factor 2. Two kernels, one per direction, make the layer
non-causal:

    y[l] = sum_{j <= l} K_0[l - j] u[j] + sum_{j > l} K_1[j - l - 1] u[j] + D u[l]

A kernel depends on parameters and length only, never on the input: inside :func:`cached_kernels` it is built once.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["S4D", "cached_kernels"]


class S4D(nn.Module):
    """Bidirectional diagonal state space layer, one independent system per channel.

    Args:
        channels: number of channels H.
        modes: number of stored complex modes N per channel (2N real states).
        step_min: smallest step dt at the start of training, in positions.
        step_max: largest step dt at the start of training, in positions.
    """

    def __init__(self, channels: int, modes: int = 32, step_min: float = 1e-3, step_max: float = 0.1) -> None:
        super().__init__()
        if not 0 < step_min <= step_max:
            raise ValueError(f"S4D needs 0 < step_min <= step_max, got step_min={step_min}, step_max={step_max}")
        self.channels, self.modes = channels, modes
        low, high = math.log(step_min), math.log(step_max)
        self.log_step = nn.Parameter(low + (high - low) * torch.rand(channels))
        self.log_decay = nn.Parameter(torch.full((channels, modes), math.log(0.5)))
        self.frequency = nn.Parameter(
            math.pi * torch.arange(modes, dtype=torch.get_default_dtype()).repeat(channels, 1)
        )
        self.output = nn.Parameter(torch.randn(2, channels, modes, 2) * math.sqrt(0.5))
        self.skip = nn.Parameter(torch.randn(channels))
        self._spectra: dict[int, Tensor] | None = None

    def kernel(self, length: int) -> Tensor:
        """Sampled kernels K_0 (forward in time) and K_1 (backward).

        Args:
            length: number of positions L.

        Returns:
            Real kernels, shape `(2, H, L)`.
        """
        a = torch.complex(-self.log_decay.exp(), self.frequency)  # (H, N)
        log_transition = self.log_step.exp().unsqueeze(-1) * a
        drive = torch.view_as_complex(self.output) * ((log_transition.exp() - 1) / a)  # (2, H, N)
        positions = torch.arange(length, device=a.device, dtype=self.log_step.dtype)
        powers = torch.exp(log_transition.unsqueeze(-1) * positions)  # (H, N, L)
        # 2 Re(drive . powers) as two real products: complex batched matmul is several times slower on a CPU.
        real = drive.real.transpose(0, 1) @ powers.real - drive.imag.transpose(0, 1) @ powers.imag  # (H, 2, L)
        return 2 * real.transpose(0, 1)

    def spectrum(self, length: int) -> Tensor:
        """Transfer function of both directions together over a circle of 2L positions, shape `(H, L + 1)`, complex."""
        if self._spectra is not None and length in self._spectra:
            return self._spectra[length]
        forward, backward = self.kernel(length)
        circular = torch.cat((forward, backward.flip(-1)), dim=-1)
        spectrum = torch.fft.rfft(circular)
        if self._spectra is not None:
            spectrum = self._spectra[length] = spectrum.detach()
        return spectrum

    def forward(self, u: Tensor) -> Tensor:
        """Filters a batch of sequences.

        Args:
            u: sequences, shape `(B, H, L)`.

        Returns:
            Filtered sequences, shape `(B, H, L)`.
        """
        length = u.shape[-1]
        transformed = torch.fft.rfft(u, n=2 * length)
        y = torch.fft.irfft(transformed * self.spectrum(length), n=2 * length)[..., :length]
        return y + self.skip.unsqueeze(-1) * u


@contextmanager
def cached_kernels(module: nn.Module) -> Iterator[None]:
    """Builds the kernel of every S4D layer inside `module` at most once per length while the context is open.

    For sampling, where the parameters stand still for hundreds of calls. Cached kernels carry no gradient to the
    parameters (gradients with respect to the input, as guidance needs them, are exact) and are dropped on leaving, so
    that training or loading weights afterwards never meets a stale one.
    """
    layers = [m for m in module.modules() if isinstance(m, S4D) and m._spectra is None]
    for layer in layers:
        layer._spectra = {}
    try:
        yield
    finally:
        for layer in layers:
            layer._spectra = None
