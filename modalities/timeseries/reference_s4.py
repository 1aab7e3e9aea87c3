r"""State space layers as published with S4: normal plus low rank transition, bilinear discretisation.

Each channel runs h' = A h + B u, y = C h with A = diag(w) - P P^* on conjugate pairs of modes (one of each pair is
stored), started at HiPPO-LegS. With dA = (1 - dt A / 2)^-1 (1 + dt A / 2), dB = (1 - dt A / 2)^-1 dt B the kernel
K[l] = C dA^l dB, l = 0 ... L - 1, has the transfer function, at the roots of unity omega = exp(-2 pi i k / L),

    K(omega) = r_CB - (1 + omega)/2 r_CP r_PB / (1 + (1 + omega)/2 r_PP)
    r_ab     = dt sum_n 2 [ v / (D - E w dt) + conj(v) / (D - E conj(w) dt) ],  v = conj-free product of a and b

where D = 2 (1 - omega), E = 1 + omega, and the stored output is C~ = C (1 - dA^L) for the length L in the buffer
`length`. Multiplying numerator and denominator by E keeps every term finite at omega = -1. The sum over both conjugates
is one real matrix product: with Den = D^2 - 2 Re(w dt) D E + |w dt|^2 E^2 the bracket is
(2 Re(v) D - 2 Re(v conj(w dt)) E) / Den.

Source: `Gu et al. 2022 <https://arxiv.org/abs/2111.00396>`_, appendix C; `Goel et al. 2022
<https://arxiv.org/abs/2202.09729>`_ for the two directions.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["NPLRKernel", "ReferenceS4", "cached_reference_kernels", "hippo_legs"]


def hippo_legs(modes: int) -> tuple[Tensor, Tensor, Tensor]:
    """HiPPO-LegS in normal plus low rank form, one of each conjugate pair.

    Args:
        modes: number N of stored modes; the state has 2N entries.

    Returns:
        w, P and B, complex128, shape `(N,)` each: A = diag(w) - P P^*.
    """
    n = torch.arange(2 * modes, dtype=torch.float64)
    root = (2 * n + 1).sqrt()
    a = -(torch.tril(root.unsqueeze(1) * root, -1) + torch.diag(n + 1))
    p = (n + 0.5).sqrt()
    normal = a + p.unsqueeze(1) * p
    # The normal part is -1/2 plus a skew-symmetric matrix: i times that is Hermitian, whose eigenvectors are stable.
    skew = normal - torch.diag(normal.diagonal())
    frequency, basis = torch.linalg.eigh(1j * skew.to(torch.complex128))
    kept = frequency.argsort(descending=True)[:modes]
    inverse = basis[:, kept].conj().T
    w = torch.complex(torch.full((modes,), float(normal.diagonal().mean()), dtype=torch.float64), -frequency[kept])
    return w, inverse @ p.to(torch.complex128), inverse @ root.to(torch.complex128)


class NPLRKernel(nn.Module):
    """Kernels of independent systems, one per channel and direction.

    Args:
        channels: number of channels H.
        modes: stored modes N per channel.
        length: length L that the output is stored for.
        directions: kernels per channel.
        step_min: smallest dt at the start of training.
        step_max: largest dt at the start of training.
    """

    length: Tensor

    def __init__(
        self,
        channels: int,
        modes: int,
        length: int,
        directions: int = 2,
        step_min: float = 1e-3,
        step_max: float = 0.1,
    ) -> None:
        super().__init__()
        w, p, b = hippo_legs(modes)
        low, high = math.log(step_min), math.log(step_max)
        self.log_step = nn.Parameter(low + (high - low) * torch.rand(channels))
        self.input = nn.Parameter(_stored(b).repeat(1, channels, 1, 1))
        self.low_rank = nn.Parameter(_stored(p).repeat(1, channels, 1, 1))
        self.log_decay = nn.Parameter((-w.real).log().float().repeat(channels, 1))
        self.frequency = nn.Parameter(w.imag.float().repeat(channels, 1))
        # A complex normal number of unit variance has parts of variance one half.
        self.output = nn.Parameter(torch.randn(directions, channels, modes, 2) * math.sqrt(0.5))
        self.register_buffer("length", torch.tensor(0))
        self._stored = 0
        self.register_load_state_dict_post_hook(_read_length)
        self.prepare(length)

    @torch.no_grad()
    def prepare(self, length: int) -> None:
        """Turns a plain output C, stored with `length` 0, into C~ for a length. Does nothing where that is done."""
        if self._stored == 0:
            self.output.copy_(_stored(self._output() - self._moved(length)))
            self.length.fill_(length)
            self._stored = length

    def forward(self, length: int) -> Tensor:
        """Kernels K[0] ... K[length - 1], shape `(directions, H, length)`. Never changes a parameter.

        Lengths beyond the stored one double it as often as necessary: C (1 - dA^2L) = C~ (1 + dA^L).
        """
        stored = self._stored
        if stored == 0:
            raise RuntimeError("the output of this kernel is not prepared: call prepare(length) after loading")
        output = self._output()
        while stored < length:
            output, stored = output + self._moved(stored, output), 2 * stored
        return self._kernel(output, stored)[..., :length]

    def _output(self) -> Tensor:
        return torch.view_as_complex(self.output.contiguous())

    def _kernel(self, c: Tensor, length: int) -> Tensor:
        step = self.log_step.exp().unsqueeze(-1)
        w = torch.complex(-self.log_decay.exp() * step, self.frequency * step)  # (H, N)
        b, p = (torch.view_as_complex(x.contiguous())[0] for x in (self.input, self.low_rank))
        outputs = torch.cat((c, p.conj().unsqueeze(0)))  # (directions + 1, H, N)
        v = outputs.unsqueeze(1) * torch.stack((b, p))  # (directions + 1, 2, H, N)
        rows = torch.stack((v.real, (v * w.conj()).real)).permute(3, 0, 1, 2, 4)  # (H, 2, directions + 1, 2, N)
        angle = 2 * math.pi * torch.arange(length // 2 + 1, device=w.device, dtype=torch.float64) / length
        omega = torch.polar(torch.ones_like(angle), -angle)
        d, e = 2 * (1 - omega), 1 + omega
        # Denominator divided by E^2 where |E| is large would overflow at omega = -1; undivided it is finite everywhere.
        dd, de, ee = ((x * y).to(w.dtype) for x, y in ((d, d), (d, e), (e, e)))
        modulus = w.real.square() + w.imag.square()
        real = dd.real - 2 * w.real.unsqueeze(-1) * de.real + modulus.unsqueeze(-1) * ee.real
        imag = dd.imag - 2 * w.real.unsqueeze(-1) * de.imag + modulus.unsqueeze(-1) * ee.imag
        size = real.square() + imag.square()
        inverse = torch.cat((real / size, -imag / size), dim=-1)  # (H, N, 2 (L/2 + 1))
        sums = rows.flatten(1, 3) @ inverse  # (H, 2 * (directions + 1) * 2, 2 (L/2 + 1))
        half = sums.shape[-1] // 2
        first, second = torch.complex(sums[..., :half], sums[..., half:]).chunk(2, dim=1)
        r = 4 * step.unsqueeze(-1) * (d.to(w.dtype) * first - e.to(w.dtype) * second)
        r = r.reshape(len(r), len(outputs), 2, half).permute(1, 2, 0, 3)  # (output, input, H, L/2 + 1)
        correction = e.to(w.dtype) / 2
        transfer = r[:-1, 0] - correction * r[:-1, 1] * r[-1, 0] / (1 + correction * r[-1, 1])
        return torch.fft.irfft(transfer, n=length)

    def _moved(self, length: int, output: Tensor | None = None) -> Tensor:
        """C dA^length on the stored modes, computed in double precision."""
        step = self.log_step.double().exp().unsqueeze(-1)
        w = torch.complex(-self.log_decay.double().exp(), self.frequency.double())
        p = torch.view_as_complex(self.low_rank.double().contiguous())[0]
        w, p = torch.cat((w, w.conj()), -1), torch.cat((p, p.conj()), -1)
        a = torch.diag_embed(w) - p.unsqueeze(-1) * p.conj().unsqueeze(-2)
        one = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
        half = step.unsqueeze(-1) / 2 * a
        transition = torch.linalg.matrix_power(torch.linalg.solve(one - half, one + half), length)
        c = (self._output() if output is None else output).to(torch.complex128)
        moved = torch.einsum("dhn,hnm->dhm", torch.cat((c, c.conj()), -1), transition)
        return moved[..., : c.shape[-1]].to(torch.complex64 if self.output.dtype == torch.float32 else moved.dtype)


class ReferenceS4(nn.Module):
    """Non-causal filter of sequences: a kernel for each direction, and a skip.

    Args:
        channels: number of channels H.
        modes: stored modes per channel.
        length: sequence length the kernel is prepared for.
    """

    def __init__(self, channels: int, modes: int, length: int) -> None:
        super().__init__()
        self.kernel = NPLRKernel(channels, modes, length)
        self.skip = nn.Parameter(torch.randn(1, channels))
        self._spectra: dict[int, Tensor] | None = None

    def forward(self, u: Tensor) -> Tensor:
        """Filters sequences `(B, H, L)`: y[l] = sum_{j<=l} K_0[l-j] u[j] + sum_{j>l} K_1[j-l-1] u[j] + D u[l]."""
        length = u.shape[-1]
        if self._spectra is None or length not in self._spectra:
            forward, backward = self.kernel(length)
            kernel = torch.cat((forward, backward.flip(-1)), dim=-1)
            spectrum = torch.fft.rfft(kernel.detach())
            if self._spectra is not None:
                self._spectra[length] = spectrum
                kernel = kernel.detach()
        else:
            kernel, spectrum = None, self._spectra[length]
        y = _CircularConvolution.apply(u, kernel, spectrum)
        assert isinstance(y, Tensor)
        return torch.addcmul(y, u, self.skip.reshape(-1, 1))


class _CircularConvolution(torch.autograd.Function):
    """The first half of the circular convolution of u, padded to twice its length, with a real kernel.

    The gradients are real convolutions as well. The automatic ones go through complex transforms of twice the size,
    which is a third of the time of a training step.
    """

    @staticmethod
    def forward(ctx: Any, u: Tensor, kernel: Tensor | None, spectrum: Tensor) -> Tensor:
        length = u.shape[-1]
        transformed = torch.fft.rfft(u, n=2 * length)
        ctx.save_for_backward(transformed if ctx.needs_input_grad[1] else None, spectrum)
        return torch.fft.irfft(transformed * spectrum, n=2 * length)[..., :length]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (gradient,) = gradients
        transformed, spectrum = ctx.saved_tensors
        length = gradient.shape[-1]
        seen = torch.fft.rfft(gradient, n=2 * length)
        of_kernel = None
        if transformed is not None:
            of_kernel = torch.fft.irfft((transformed.conj() * seen).sum(0), n=2 * length)
        of_u = torch.fft.irfft(seen.mul_(spectrum.conj()), n=2 * length)[..., :length]
        return of_u, of_kernel, None


@contextmanager
def cached_reference_kernels(module: nn.Module) -> Iterator[None]:
    """As :func:`.s4d.cached_kernels`, for the layers of the published network."""
    layers = [m for m in module.modules() if isinstance(m, ReferenceS4) and m._spectra is None]
    for layer in layers:
        layer._spectra = {}
    try:
        yield
    finally:
        for layer in layers:
            layer._spectra = None


def _read_length(kernel: NPLRKernel, keys: Any) -> None:
    # A number of Python's: reading the buffer in every step would stall an accelerator.
    kernel._stored = int(kernel.length)


def _stored(x: Tensor) -> Tensor:
    return torch.view_as_real(x.resolve_conj()).float()
