"""Laws 19 and 21: subspaces, their noise, and padding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fourfold.core import CenterFree, Full, NoiseSource, Support, Symmetric

MASKS = [False, True]


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("masked", MASKS)
def test_19_projection_is_an_orthogonal_projection(case: Any, masked: bool) -> None:
    mask = case.mask() if masked else None
    x, y = case.state(0), case.state(1)
    p = case.support.project(x, mask)
    torch.testing.assert_close(case.support.project(p, mask), p, rtol=0, atol=1e-14)
    inner = (p * (y - case.support.project(y, mask))).flatten(1).sum(1)
    torch.testing.assert_close(inner, torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(case.support.project(2 * x + y, mask), 2 * p + case.support.project(y, mask))


@pytest.mark.parametrize("masked", MASKS)
def test_19_ndim_is_the_trace_of_the_projection(case: Any, masked: bool) -> None:
    mask = case.mask() if masked else None
    shape = case.shape(5)
    size = torch.zeros(shape).numel()
    basis = torch.eye(size, dtype=torch.float64).reshape(size, *shape)
    for b in range(3):
        one = None if mask is None else mask[b : b + 1].expand(size, *mask.shape[1:])
        trace = torch.diagonal(case.support.project(basis, one).reshape(size, size)).sum()
        assert float(case.support.ndim(case.state(0), mask)[b]) == pytest.approx(float(trace))


@pytest.mark.parametrize("masked", MASKS)
def test_19_noise_is_standard_on_the_subspace(case: Any, masked: bool) -> None:
    n, rows = 4000, torch.arange(4000) % 3
    mask = case.mask()[rows] if masked else None
    like, source = torch.empty(n, *case.shape(5), dtype=torch.float64), NoiseSource(0, range(n))
    noise = case.support.noise(like, mask, source, key=1)
    torch.testing.assert_close(case.support.project(noise, mask), noise, rtol=0, atol=1e-14)
    ndim = case.support.ndim(like, mask).double()
    expected = ndim if not isinstance(case.support, Symmetric) else None
    if expected is None:  # a pair counts twice in the norm, the diagonal once
        diagonal = torch.diagonal(case.support.real(like, mask).expand(like.shape), dim1=1, dim2=2)
        expected = 2 * ndim - diagonal.flatten(1).sum(1)
    squared = (noise**2).flatten(1).sum(1)
    assert float((squared / expected).mean()) == pytest.approx(1, abs=5 * float((2 / expected).mean() / n**0.5) ** 0.5)
    assert abs(float(noise.sum()) / float(real_count(case.support, like, mask))) < 5 / (n**0.5)
    per_entry = noise[rows == 0].flatten(1)  # sample 0 has no padding
    variance = per_entry.var(0)
    wanted = 1.0 if not isinstance(case.support, CenterFree) else float(ndim[0]) / per_entry.shape[1]
    kept = variance > 0
    torch.testing.assert_close(variance[kept], torch.full_like(variance[kept], wanted), rtol=0.2, atol=0)


def real_count(support: Support, like: Tensor, mask: Tensor | None) -> Tensor:
    return support.real(like, mask).expand(like.shape).sum()


def test_19_noise_does_not_depend_on_padding(case: Any) -> None:
    source, x = NoiseSource(3, range(3)), case.state(0)
    short = case.support.noise(x, case.mask(), source, 1)
    long = case.support.noise(case.pad(x, 3), case.mask(size=8), source, 1)
    torch.testing.assert_close(case.crop(long), short)
    torch.testing.assert_close(case.pad(case.crop(long), 3), long)


def test_21_garbage_in_padding_is_ignored(case: Any) -> None:
    x, mask = case.pad(case.state(0), 3, float("nan")), case.mask(size=8)
    projected = case.support.project(x, mask)
    clean = case.support.project(case.pad(case.state(0), 3), mask)
    assert torch.isfinite(projected).all()
    torch.testing.assert_close(projected, clean)
    assert (projected[~case.support.real(x, mask).expand(x.shape)] == 0).all()


def test_21_symmetric_states_are_exactly_symmetric_and_hollow(case: Any) -> None:
    if not isinstance(case.support, Symmetric):
        return
    source, x = NoiseSource(3, range(3)), case.state(0)
    for value in (case.support.project(x, case.mask()), case.support.noise(x, case.mask(), source, 0)):
        assert torch.equal(value, value.transpose(1, 2))
        diagonal = torch.diagonal(value, dim1=1, dim2=2)
        assert (diagonal == 0).all() == case.support.hollow
    uniform = case.support.uniform(x, case.mask(), source, 0)
    assert torch.equal(uniform, uniform.transpose(1, 2))
    real = case.support.real(x, case.mask()).expand(x.shape)
    assert (uniform[real] > 0).all()
    assert (uniform[~real] == 0).all()


def test_center_free_removes_the_mean_of_the_real_entries() -> None:
    x, mask = normal(2, 5, 3), torch.tensor([[True] * 5, [True, True, True, False, False]])
    projected = CenterFree().project(x, mask)
    torch.testing.assert_close(projected[1, :3], x[1, :3] - x[1, :3].mean(0))
    assert (projected[1, 3:] == 0).all()
    torch.testing.assert_close(CenterFree().project(x)[0], x[0] - x[0].mean(0))
    nothing = CenterFree().project(x, torch.zeros(2, 5, dtype=torch.bool))
    assert (nothing == 0).all()


def test_center_free_over_particles_and_frames_has_one_common_center() -> None:
    x = normal(2, 4, 6, 3)
    torch.testing.assert_close(
        CenterFree((1, 2)).project(x)[0], x[0] - x[0].mean((0, 1)), msg="one centre per sample and coordinate"
    )
    assert CenterFree((1, 2)).ndim(x).tolist() == [4 * 6 * 3 - 3] * 2
    mask = torch.ones(2, 4, 6, dtype=torch.bool)
    mask[1, 2:, 3:] = False
    kept = CenterFree((1, 2)).project(x, mask)[1]
    torch.testing.assert_close(kept[mask[1]], x[1][mask[1]] - x[1][mask[1]].mean(0))


@pytest.mark.parametrize(
    ("support", "shape", "mask", "message"),
    [
        (Full(), (2, 5, 3), (2, 4), "mask of shape .2, 4. does not match"),
        (Full(), (2, 5, 3), (3, 5), "mask of shape"),
        (CenterFree(), (2, 5, 3), (2, 4), "mask of shape"),
        (Symmetric(), (2, 5, 5), (2, 4), "node mask must have shape .2, 5."),
        (Symmetric(), (2, 5, 5), (2, 5, 5), "node mask must have shape"),
        (Symmetric(), (2, 5, 4), (2, 5), "Symmetric needs states of shape"),
        (Symmetric(), (2, 5), (2, 5), "Symmetric needs states of shape"),
    ],
)
def test_wrong_shapes_are_named(support: Support, shape: tuple[int, ...], mask: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        support.project(torch.zeros(shape), torch.ones(mask, dtype=torch.bool))
    with pytest.raises(ValueError, match=message):
        support.noise(torch.zeros(shape), torch.ones(mask, dtype=torch.bool), NoiseSource(0, range(shape[0])), 0)
