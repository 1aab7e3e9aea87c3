"""Laws 27 and 37: counter-based noise, its statistics, and that it depends on (seed, id, key, element) only."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from fourfold.core import NoiseSource, hash_seed
from fourfold.core.noise import as_noise_source


def normal(seed: int = 0, ids: int = 200, size: int = 500, key: int = 3) -> np.ndarray:
    return NoiseSource(seed, range(ids)).normal(torch.empty(ids, size, dtype=torch.float64), key).numpy()


def test_normal_numbers_are_normal() -> None:
    z = normal().ravel()
    n = len(z)
    assert abs(z.mean()) < 5 / math.sqrt(n)
    assert abs(z.var() - 1) < 5 * math.sqrt(2 / n)
    assert abs((z**3).mean()) < 5 * math.sqrt(15 / n)
    assert abs((z**4).mean() - 3) < 5 * math.sqrt(96 / n)
    assert stats.kstest(z, "norm").pvalue > 1e-3
    assert 4 < np.abs(z).max() < 6


def test_uniform_numbers_are_uniform_and_open() -> None:
    source = NoiseSource(1, range(200))
    u = source.uniform(torch.empty(200, 500, dtype=torch.float64), 3).numpy().ravel()
    assert stats.kstest(u, "uniform").pvalue > 1e-3
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        values = source.uniform(torch.empty(200, 500, dtype=dtype), 3)
        assert values.dtype == dtype
        assert values.min() > 0
        assert values.max() < 1


@pytest.mark.parametrize("axis", ["ids", "elements", "keys", "seeds", "spawned"])
def test_streams_are_uncorrelated(axis: str) -> None:
    if axis == "ids":
        a, b = normal()[:-1], normal()[1:]
    elif axis == "elements":
        a, b = normal()[:, :-1], normal()[:, 1:]
    elif axis == "keys":
        a, b = normal(key=0), normal(key=1)
    elif axis == "seeds":
        a, b = normal(seed=0), normal(seed=1)
    else:
        source = NoiseSource(0, range(200))
        like = torch.empty(200, 500, dtype=torch.float64)
        a, b = source.normal(like, 3).numpy(), source.spawn(1).normal(like, 3).numpy()
    for f in (lambda v: v, np.abs, np.sign):
        assert abs(np.corrcoef(f(a).ravel(), f(b).ravel())[0, 1]) < 5 / math.sqrt(a.size)
    if axis != "elements":
        assert not np.intersect1d(a[0], b[0]).size


def test_nearby_ids_keys_and_seeds_never_share_a_stream() -> None:
    """Counters must not add up: (id + 1, key) is not (id, key + 1)."""
    like = torch.empty(64, 2, dtype=torch.float64)
    first = torch.cat(
        [
            NoiseSource(seed, range(start, start + 64)).normal(like, key)[:, 0]
            for seed in range(-3, 4)
            for key in (0, 1, 2, 1 << 20)
            for start in (0, 64)
        ]
    )
    assert len(first.unique()) == len(first)


def test_a_draw_depends_on_seed_id_and_key_only() -> None:
    like = torch.empty(4, 5, dtype=torch.float64)
    source = NoiseSource(7, [10, 3, 99, 4])
    z = source.normal(like, 2)
    assert torch.equal(NoiseSource(7, [3]).normal(like[:1], 2), z[1:2])
    assert torch.equal(NoiseSource(7, torch.tensor([4, 99])).normal(like[:2], 2), z[[3, 2]])
    assert torch.equal(source[1:3].normal(like[:2], 2), z[1:3])
    assert torch.equal(source[torch.tensor([2, 0])].normal(like[:2], 2), z[[2, 0]])
    source.normal(like, 5)
    assert torch.equal(source.normal(like, 2), z)
    assert torch.equal(source.normal(torch.empty(4, 9, dtype=torch.float64), 2)[:, :5], z)
    assert torch.equal(source.normal(torch.empty(4, 5, 1, dtype=torch.float64), 2)[..., 0], z)
    torch.testing.assert_close(source.normal(like.float(), 2), z.float())
    assert not torch.equal(source.normal(like, 3), z)
    assert torch.equal(NoiseSource(7, [5, 5]).normal(like[:2], 0)[0], NoiseSource(7, [5, 5]).normal(like[:2], 0)[1])


def test_masked_elements_are_zero_and_do_not_shift_the_others() -> None:
    source, like = NoiseSource(7, range(2)), torch.empty(2, 6, dtype=torch.float64)
    mask = torch.tensor([[True, False, True, True, False, False], [True] * 6])
    for draw in (source.normal, source.uniform):
        value = draw(like, 1, mask)
        assert (value[0, [1, 4, 5]] == 0).all()
        assert torch.equal(value[0, [0, 2, 3]], draw(like[:, :3], 1)[0])
        assert torch.equal(value[1], draw(like, 1)[1])


def test_shapes_without_a_tensor_use_the_default_dtype() -> None:
    value = NoiseSource(0, range(3)).normal((3, 2), 0)
    assert value.shape == (3, 2)
    assert value.dtype == torch.get_default_dtype()
    assert NoiseSource(0, range(2)).uniform(torch.zeros(2, 3, dtype=torch.long), 0).dtype == torch.float32
    assert NoiseSource(0, range(3)).normal((3, 0), 0).shape == (3, 0)


def test_ids_must_fit_the_batch() -> None:
    with pytest.raises(ValueError, match="3 sample ids"):
        NoiseSource(0, range(3)).normal((4, 2), 0)
    with pytest.raises(ValueError, match="has 3 sample ids, the batch has 4"):
        as_noise_source(NoiseSource(0, range(3)), 4)


def test_generators_of_every_kind_become_sources() -> None:
    like = torch.empty(2, 3)
    assert torch.equal(as_noise_source(5, 2).normal(like, 0), NoiseSource(5, range(2)).normal(like, 0))
    a, b = (as_noise_source(torch.Generator().manual_seed(3), 2).normal(like, 0) for _ in range(2))
    assert torch.equal(a, b)
    generator = torch.Generator().manual_seed(3)
    first, second = (as_noise_source(generator, 2).normal(like, 0) for _ in range(2))
    assert torch.equal(first, a)
    assert not torch.equal(first, second)


def test_hashed_seeds_are_spread_and_ordered() -> None:
    values = {hash_seed(a, b, c) for a in range(10) for b in range(10) for c in range(10)}
    assert len(values) == 1000
    assert all(0 <= v < 2**63 for v in values)
    assert abs(np.mean([v / 2**63 for v in values]) - 0.5) < 5 / math.sqrt(12 * 1000)
    assert hash_seed(1, 2) != hash_seed(2, 1)
    assert hash_seed(-1) != hash_seed(1)
    assert hash_seed(1, 2) == hash_seed(1, 2)


def test_noise_stays_the_same_forever() -> None:
    """A changed generator would silently change every published sample: these numbers are part of the interface."""
    z = NoiseSource(2024, [0, 5]).normal(torch.empty(2, 2, dtype=torch.float64), 1)
    u = NoiseSource(2024, [0, 5]).uniform(torch.empty(2, 2, dtype=torch.float64), 1)
    assert hash_seed(1, 2, 3) == GOLDEN_SEED
    assert z.flatten().tolist() == pytest.approx(GOLDEN_NORMAL, abs=1e-14)
    assert u.flatten().tolist() == pytest.approx(GOLDEN_UNIFORM, abs=1e-15)


GOLDEN_SEED = 3851293329796251419
GOLDEN_NORMAL = [0.8499982784228826, -1.3141629118349707, 2.053985855145795, -0.13829705990923388]
GOLDEN_UNIFORM = [0.6965525618276917, 0.31293167136968936, 0.0791035359568596, 0.7541429071502138]
