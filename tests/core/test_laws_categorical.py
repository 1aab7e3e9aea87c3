"""Laws 23 and 24: categorical diffusion against transition matrices, exact enumeration and golden numbers."""

from __future__ import annotations

import ast
import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fourfold.core import (
    VP,
    Ancestral,
    BaseDenoiser,
    CategoricalPath,
    Discrete,
    Full,
    NoiseSource,
    Rectified,
    Sampler,
    Symmetric,
    UniformGrid,
)
from fourfold.core.categorical import draw_categories
from fourfold.core.grids import TimesGrid

K = 4


def double(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def make(limit: str, schedule: Any = None, **options: Any) -> CategoricalPath:
    schedule = schedule or VP()
    if limit == "uniform":
        return CategoricalPath.uniform(schedule, K, **options)
    if limit == "absorbing":
        return CategoricalPath.absorbing(schedule, K, **options)
    return CategoricalPath(schedule, double([0.1, 0.2, 0.3, 0.4]), **options)


LIMITS = ["uniform", "absorbing", "marginal"]


def matrix(path: CategoricalPath, t: float, s: float = 0.0) -> Tensor:
    """Q with Q[i, j] = q(x_t = j | x_s = i), (K, K)."""
    a = float(path.schedule.alpha(double(t))) ** path.power
    if s:
        a = a / float(path.schedule.alpha(double(s))) ** path.power
    return a * torch.eye(K, dtype=torch.float64) + (1 - a) * path.limit.expand(K, K)


def bayes(path: CategoricalPath, x_t: int, p_0: Tensor, t: float, s: float) -> Tensor:
    """sum_k q(x_s | x_t, x_0 = k) p_0(k) from matrices; classes that cannot have led to x_t are left out."""
    to_s, s_to_t, to_t = matrix(path, s), matrix(path, t, s), matrix(path, t)
    total = torch.zeros(K, dtype=torch.float64)
    for k in range(K):
        if to_t[k, x_t] > 0:
            total += p_0[k] * to_s[k] * s_to_t[:, x_t] / to_t[k, x_t]
    return total / total.sum()


@pytest.mark.parametrize("power", [1.0, 2.0])
@pytest.mark.parametrize("limit", LIMITS)
def test_23_posterior_is_bayes_rule_for_any_two_times(limit: str, power: float) -> None:
    path = make(limit, power=power)
    p_0 = torch.rand(K, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    if limit == "absorbing":
        p_0[-1] = 0  # data are never the mask
    p_0 = p_0 / p_0.sum()
    for s, t in ((0.001, 0.002), (0.1, 0.5), (0.0, 0.4), (0.3, 1.0), (0.69, 0.7), (0.0, 1.0)):
        for x_t in range(K):
            ours = path.posterior(torch.tensor([[x_t]]), p_0.expand(1, 1, K), double(t), double(s))[0, 0]
            torch.testing.assert_close(ours, bayes(path, x_t, p_0, t, s), rtol=1e-9, atol=1e-12)
            assert float(ours.sum()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("limit", LIMITS)
def test_23_one_hot_clean_classes_give_the_forward_posterior(limit: str) -> None:
    path, s, t = make(limit), 0.2, 0.35
    for k in range(K - 1):
        joint = matrix(path, s)[k][:, None] * matrix(path, t, s)  # q(x_s, x_t | x_0 = k)
        for x_t in range(K):
            if joint[:, x_t].sum() == 0:
                continue
            p_0 = torch.nn.functional.one_hot(torch.tensor([[k]]), K).double()
            ours = path.posterior(torch.tensor([[x_t]]), p_0, double(t), double(s))[0, 0]
            torch.testing.assert_close(ours, joint[:, x_t] / joint[:, x_t].sum(), rtol=1e-9, atol=1e-13)


def test_23_times_may_differ_by_sample() -> None:
    path, t, s = make("marginal"), double([0.4, 0.9]), double([0.1, 0.85])
    x_t = torch.tensor([[0, 1, 2], [3, 3, 1]])
    p_0 = torch.rand(2, 3, K, generator=torch.Generator().manual_seed(0)).softmax(-1)
    together = path.posterior(x_t, p_0, t, s)
    for b in range(2):
        torch.testing.assert_close(
            together[b : b + 1], path.posterior(x_t[b : b + 1], p_0[b : b + 1], t[b], s[b]), rtol=1e-12, atol=1e-12
        )
    marginal = path.marginal(x_t, t)
    assert marginal.shape == (2, 3, K)
    torch.testing.assert_close(marginal[1, 2], matrix(path, 0.9)[1])


class Exact(BaseDenoiser):
    """p(x_0 | x_t) for independent entries with a known law of x_0."""

    def __init__(self, path: CategoricalPath, law: Tensor) -> None:
        super().__init__()
        self.path = path
        self.law = law

    def table(self, t: Tensor) -> Tensor:
        """(K, K): row x_t."""
        joint = self.law[:, None] * matrix(self.path, float(t))
        return (joint / joint.sum(0)).T

    def forward(self, x_t: Tensor, t: Tensor, *, mask: Any = None, condition: Any = None) -> Tensor:
        return self.table(t)[x_t]


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("times", [(1.0, 0.0), (1.0, 0.3, 0.0), (0.8, 0.6, 0.35, 0.3, 0.02, 0.0)])
def test_24_exact_chains_reproduce_the_marginals_for_any_steps(limit: str, times: tuple[float, ...]) -> None:
    """Enumeration: one posterior step carries q(x_t) to q(x_s)."""
    path, law = make(limit), double([0.5, 0.3, 0.2, 0.0])
    exact = Exact(path, law)
    q = law @ matrix(path, times[0])
    states = torch.arange(K)[None]
    for t, s in itertools.pairwise(times):
        step = path.posterior(states, exact(states, double(t)), double(t), double(s))[0]
        q = q @ step
        torch.testing.assert_close(q, law @ matrix(path, s) if s else law, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("limit", LIMITS)
def test_24_ancestral_samples_have_the_law_of_the_data(limit: str) -> None:
    n, law = 4000, double([0.5, 0.3, 0.2, 0.0])
    path = make(limit, Rectified(), power=1.0)
    sample = Sampler(Ancestral(), UniformGrid(end=0.0), 6)(Exact(path, law), (n, 5), generator=0)
    assert sample.evaluations == 6
    counts = torch.bincount(sample.x.flatten(), minlength=K).double() / (5 * n)
    torch.testing.assert_close(counts, law, rtol=0, atol=5 * 0.5 / math.sqrt(5 * n))


@pytest.mark.parametrize("support", [Full(), Symmetric()])
def test_draws_have_the_marginal_law_and_respect_padding(support: Full | Symmetric) -> None:
    n, path = 6000, make("marginal", support=support)
    x_0 = torch.ones(n, 3, 3, dtype=torch.long)
    mask = torch.tensor([True, True, False]).expand(n, 3)
    source, t = NoiseSource(0, range(n)), double(0.3)
    law = matrix(path, 0.3)[1]
    for drawn, expected in (
        (path.perturb(x_0, t, source, mask, key=1), law),
        (path.prior(x_0, source, mask, key=2), path.limit),
        (
            path.sample_posterior(x_0, law.expand(n, 3, 3, K), t, double(0.1), source, mask, key=3),
            bayes(path, 1, law, 0.3, 0.1),
        ),
    ):
        real = support.real(x_0, mask).expand(x_0.shape)
        assert (drawn[~real] == 0).all()
        counts = torch.bincount(drawn[:, 0, 1], minlength=K).double() / n
        torch.testing.assert_close(counts, expected, rtol=0, atol=5 * 0.5 / math.sqrt(n))
        if isinstance(support, Symmetric):
            assert torch.equal(drawn, drawn.transpose(1, 2))
        else:
            assert not torch.equal(drawn, drawn.transpose(1, 2))


def test_padding_and_batch_mates_do_not_change_categorical_samples() -> None:
    path, law = make("marginal", support=Symmetric()), double([0.4, 0.3, 0.2, 0.1])
    sampler = Sampler(Ancestral(), UniformGrid(end=0.0), 5)
    source, mask = NoiseSource(3, range(2)), torch.tensor([[True] * 4, [True, True, True, False]])
    short = sampler(Exact(path, law), (2, 4, 4), generator=source, mask=mask).x
    padded = torch.nn.functional.pad(mask, (0, 3))
    long = sampler(Exact(path, law), (2, 7, 7), generator=source, mask=padded).x
    assert torch.equal(long[:, :4, :4], short)
    assert (long[:, 4:] == 0).all()
    assert torch.equal(short, short.transpose(1, 2))
    alone = sampler(Exact(path, law), (1, 4, 4), generator=source[1:], mask=mask[1:]).x
    assert torch.equal(alone, short[1:])


@pytest.mark.parametrize("support", [Full(), Symmetric()])
def test_padding_is_class_zero_even_where_class_zero_is_impossible(support: Full | Symmetric) -> None:
    path, law = make("absorbing", support=support), double([0.0, 0.5, 0.5, 0.0])
    x_0, mask = torch.ones(2, 4, 4, dtype=torch.long), torch.tensor([[True] * 4, [True, True, False, False]])
    source, t, s = NoiseSource(0, range(2)), double(0.9), double(0.5)
    real = support.real(x_0, mask).expand(x_0.shape)
    noisy = path.perturb(x_0, t, source, mask)
    sampled = Sampler(Ancestral(), UniformGrid(end=0.0), 4)(Exact(path, law), (2, 4, 4), generator=source, mask=mask).x
    posterior = path.sample_posterior(noisy, law.expand(2, 4, 4, K), t, s, source, mask)
    for x in (noisy, path.prior(x_0, source, mask), posterior, sampled):
        assert (x[~real] == 0).all()
        assert (x[real] > 0).all()


def test_absorbing_chains_never_change_what_is_revealed() -> None:
    path, law = make("absorbing"), double([0.5, 0.3, 0.2, 0.0])
    given = torch.tensor([[0, 3, 1, 3, 2]])
    x = Sampler(Ancestral(), TimesGrid(times=(0.5, 0.2, 0.0)), 2)(Exact(path, law), given, generator=0).x
    assert x[0, [0, 2, 4]].tolist() == [0, 1, 2]
    assert (x < 3).all()
    torch.testing.assert_close(given, torch.tensor([[0, 3, 1, 3, 2]]))


def test_inverse_cdf_draws() -> None:
    p = double([[0.2, 0.0, 0.5, 0.3]] * 5)
    u = double([0.1, 0.2, 0.69, 0.71, 1 - 1e-17])
    assert draw_categories(p, u).tolist() == [0, 2, 2, 3, 3]
    assert draw_categories(double([[0.0, 1.0, 0.0]]), double([1e-16])).tolist() == [1]


@pytest.mark.parametrize("limit", [[0.5, 0.6], [-0.1, 1.1], [[0.5, 0.5]]])
def test_limits_must_be_distributions(limit: list[Any]) -> None:
    with pytest.raises(ValueError, match="distribution over K classes"):
        CategoricalPath(VP(), double(limit))


def test_constructors_set_the_limit() -> None:
    assert make("uniform").limit.tolist() == [0.25] * 4
    assert make("absorbing").limit.tolist() == [0, 0, 0, 1]
    assert make("absorbing").classes == 4
    torch.testing.assert_close(CategoricalPath(VP(), torch.tensor([0.1] * 10)).limit.sum(), double(1.0))


PUBLISHED = {
    "uniform": ("uniform", [1 / 3, 1 / 3, 1 / 3]),
    "marginal": ("marg", [0.7, 0.25, 0.05]),
    # the published sum keeps classes that cannot have led to x_t: it is the limit of nearly absorbing diffusion
    "absorbing": ("absorb", [1e-9, 1e-9, 1 - 2e-9]),
}


@pytest.mark.parametrize("limit", LIMITS)
def test_golden_graph_chain(limit: str, golden_folder: Path) -> None:
    """Published numbers: three classes, p_0 = [.2, .5, .3], 20 steps of alpha-bar = cos (not cos^2), step 7 -> 6."""
    kind, weights = PUBLISHED[limit]
    lines = (golden_folder / "pard" / "diffusion.txt").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"{kind} 20"))
    rows = [line for line in lines[start + 1 :] if "golden" in line][:3]
    angle = (torch.arange(20, dtype=torch.float64) / 20 + 0.008) / 1.008 * math.pi / 2
    bar = angle.cos() / angle[0].cos()
    listed = ast.literal_eval(lines[-1][len("alphabar T=20 ") :])
    assert bar[1:].tolist() == pytest.approx(listed[:-1], abs=1e-5)
    path = CategoricalPath(Discrete(tuple((1 - bar[1:] / bar[:-1]).tolist())), double(weights))
    p_0, t, s = double([0.2, 0.5, 0.3]).expand(1, 1, 3), double(7 / 19), double(6 / 19)
    for x_t, row in enumerate(rows):
        expected = double(ast.literal_eval(row.split("cosine ")[1]))
        torch.testing.assert_close(path.posterior(torch.tensor([[x_t]]), p_0, t, s)[0, 0], expected, rtol=0, atol=1e-6)


def test_absorbing_posterior_keeps_what_is_revealed_whatever_the_network_says() -> None:
    path, p_0 = make("absorbing"), double([0.1, 0.2, 0.7, 0.0]).expand(1, 1, K)
    for x_t in range(3):
        p = path.posterior(torch.tensor([[x_t]]), p_0, double(0.6), double(0.3))[0, 0]
        torch.testing.assert_close(p, torch.nn.functional.one_hot(torch.tensor(x_t), K).double())
