"""The published state space layer against the recurrence it stands for."""

import pytest
import torch
from torch import Tensor

from fourfold.modalities.timeseries.reference_s4 import (
    NPLRKernel,
    ReferenceS4,
    cached_reference_kernels,
    hippo_legs,
)


def with_plain_output(kernel: NPLRKernel, length: int) -> Tensor:
    """Gives a kernel a random plain output, as a checkpoint that was never run has, prepares it, and returns it."""
    plain = torch.randn(kernel.output.shape[:3], dtype=torch.complex64)
    with torch.no_grad():
        kernel.output.copy_(torch.view_as_real(plain))
    kernel.length.fill_(0)
    kernel._stored = 0
    kernel.prepare(length)
    return plain


def recurrence(kernel: NPLRKernel, plain: Tensor, length: int) -> Tensor:
    """C dA^l dB by multiplying with the dense transition again and again, in double precision."""
    step = kernel.log_step.double().exp().reshape(-1, 1, 1)
    w = torch.complex(-kernel.log_decay.double().exp(), kernel.frequency.double())
    p, b = (torch.view_as_complex(x.double())[0] for x in (kernel.low_rank, kernel.input))
    w, p, b, c = (torch.cat((x, x.conj()), -1).to(torch.complex128) for x in (w, p, b, plain))
    a = torch.diag_embed(w) - p.unsqueeze(-1) * p.conj().unsqueeze(-2)
    one = torch.eye(a.shape[-1], dtype=a.dtype)
    transition = torch.linalg.solve(one - step / 2 * a, one + step / 2 * a)
    state = torch.linalg.solve(one - step / 2 * a, step * b.unsqueeze(-1))
    values = []
    for _ in range(length):
        values.append(torch.einsum("dhn,hnk->dh", c, state).real)
        state = transition @ state
    return torch.stack(values, dim=-1)


def test_hippo_is_recovered_from_its_parts() -> None:
    w, p, b = hippo_legs(8)
    n = torch.arange(16, dtype=torch.float64)
    root = (2 * n + 1).sqrt()
    dense = -(torch.tril(root.unsqueeze(1) * root, -1) + torch.diag(n + 1))
    w, p, b = (torch.cat((x, x.conj())) for x in (w, p, b))
    parts = torch.diag(w) - p.unsqueeze(1) * p.conj()
    # Invariants that no change of basis touches: B^* A^k B.
    state, expected = b, root
    for _ in range(4):
        state, expected = parts @ state, dense @ expected
        torch.testing.assert_close((b.conj() @ state).real, root @ expected, rtol=1e-8, atol=0)


@pytest.mark.parametrize(("modes", "length"), [(64, 390), (64, 360), (8, 33)])
def test_kernel_equals_the_dense_recurrence(modes: int, length: int) -> None:
    kernel = NPLRKernel(6, modes, length)
    plain = with_plain_output(kernel, length)
    with torch.no_grad():
        for asked in (length, length // 2, 2 * length + 5):
            made, dense = kernel(asked), recurrence(kernel, plain, asked)
            assert (made - dense).norm() / dense.norm() < 1e-3


def test_a_longer_call_leaves_the_parameters_alone() -> None:
    kernel = NPLRKernel(3, 4, 16)
    before = {name: value.clone() for name, value in kernel.state_dict().items()}
    kernel(40)
    assert all(torch.equal(value, before[name]) for name, value in kernel.state_dict().items())
    assert int(kernel.length) == 16


def test_layer_is_a_two_sided_convolution_with_exact_gradients() -> None:
    layer = ReferenceS4(3, 4, 11).double()
    u = torch.randn(2, 3, 11, dtype=torch.float64, requires_grad=True)
    forward, backward = layer.kernel(11)
    positions = torch.arange(11)
    distance = positions.unsqueeze(1) - positions
    toeplitz = torch.where(distance >= 0, forward[:, distance.clamp(min=0)], backward[:, (-distance - 1).clamp(min=0)])
    expected = torch.einsum("hij,bhj->bhi", toeplitz, u) + layer.skip.reshape(-1, 1) * u
    made = layer(u)
    torch.testing.assert_close(made, expected)
    weight, inputs = torch.randn_like(made), [u, *layer.parameters()]
    for ours, theirs in zip(
        torch.autograd.grad((made * weight).sum(), inputs),
        torch.autograd.grad((expected * weight).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)
    with cached_reference_kernels(layer):
        for _ in range(2):
            again = layer(u)
            torch.testing.assert_close(again, made)
        (of_u,) = torch.autograd.grad((again * weight).sum(), u)
    (expected_of_u,) = torch.autograd.grad((layer(u) * weight).sum(), u)
    torch.testing.assert_close(of_u, expected_of_u)
    assert layer._spectra is None


def test_an_unprepared_kernel_says_so() -> None:
    kernel = NPLRKernel(2, 2, 8)
    kernel.load_state_dict({**kernel.state_dict(), "length": torch.tensor(0)})
    with pytest.raises(RuntimeError, match="prepare"):
        kernel(8)
