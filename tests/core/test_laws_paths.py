"""Laws 5, 6, 11 and 26: forward processes, their posteriors, and the oracles everything else is tested against."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fourfold.core import VP, Centered, GaussianPath, JointPath, NoiseSource, Rectified, Schedule, Symmetric
from fourfold.core.testing import GaussianMixtureOracle, GaussianOracle, LinearGaussianPosterior


def double(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def times_inside(schedule: Schedule, n: int = 5) -> list[float]:
    return np.linspace(schedule.t_min, schedule.t_max, n + 2)[1:-1].tolist()


def test_5_perturbed_data_have_the_moments_of_the_schedule(schedule: Schedule) -> None:
    n, t = 20_000, double(times_inside(schedule, 3)[1])
    source = NoiseSource(5, range(n))
    x_0 = 1.3 + 0.6 * source.normal(torch.empty(n, 2, dtype=torch.float64), key=1)
    path = GaussianPath(schedule)
    x_t = path.perturb(x_0, t, path.noise(x_0, source, key=2))
    alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
    std = math.hypot(0.6 * alpha, sigma)
    assert x_t.mean(0).tolist() == pytest.approx([1.3 * alpha] * 2, abs=5 * std / math.sqrt(n))
    assert x_t.std(0).tolist() == pytest.approx([std] * 2, rel=5 / math.sqrt(2 * n))


def test_5_perturb_takes_one_time_per_sample(schedule: Schedule) -> None:
    path, t = GaussianPath(schedule), double(times_inside(schedule, 3))
    x_0, noise = torch.randn(2, 3, 4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    together = path.perturb(x_0, t, noise)
    for b in range(3):
        torch.testing.assert_close(together[b], schedule.alpha(t[b]) * x_0[b] + schedule.sigma(t[b]) * noise[b])
    assert path.perturb(x_0.float(), t, noise.float()).dtype == torch.float32


def test_5_prior_has_the_noise_level_at_t_max(schedule: Schedule) -> None:
    source = NoiseSource(1, range(4))
    like = torch.empty(4, 3, dtype=torch.float64)
    prior = GaussianPath(schedule).prior(like, source)
    torch.testing.assert_close(prior, schedule.sigma(double(schedule.t_max)) * source.normal(like, key=0))


def test_6_posterior_is_a_semigroup(schedule: Schedule) -> None:
    """Drawing x_t from x_0 and x_s from the posterior is drawing x_s from x_0."""
    path, one, zero = GaussianPath(schedule), torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1).double()
    moments = times_inside(schedule, 6)
    for low in range(len(moments)):
        for high in range(low + 1, len(moments)):
            s, t = double(moments[low]), double(moments[high])
            of_clean, std = path.posterior(zero, one, t, s)
            of_noisy, _ = path.posterior(one, zero, t, s)
            a, b = float(of_noisy), float(of_clean)
            assert a * float(schedule.alpha(t)) + b == pytest.approx(float(schedule.alpha(s)), rel=1e-9)
            variance = a**2 * float(schedule.sigma(t)) ** 2 + float(std) ** 2
            assert variance == pytest.approx(float(schedule.sigma(s)) ** 2, rel=1e-9)


def test_6_posterior_of_consecutive_steps_is_bayes_rule(schedule: Schedule) -> None:
    """q(x_s | x_t, x_0) from the joint Gaussian of (x_s, x_t) given x_0."""
    s, t = (double(v) for v in times_inside(schedule, 2))
    alpha_s, sigma_s, alpha_t, sigma_t = (
        float(v) for v in (schedule.alpha(s), schedule.sigma(s), schedule.alpha(t), schedule.sigma(t))
    )
    covariance = alpha_t / alpha_s * sigma_s**2
    x_0, x_t = 0.4, -1.1
    mean = alpha_s * x_0 + covariance / sigma_t**2 * (x_t - alpha_t * x_0)
    variance = sigma_s**2 - covariance**2 / sigma_t**2
    result = GaussianPath(schedule).posterior(double([[x_t]]), double([[x_0]]), t, s)
    assert float(result.mean) == pytest.approx(mean, rel=1e-9)
    assert float(result.std) ** 2 == pytest.approx(variance, rel=1e-8, abs=1e-14)


def test_6_posterior_takes_one_time_per_sample() -> None:
    path, t, s = GaussianPath(VP()), double([0.3, 0.8]), double([0.1, 0.75])
    x_t, x_0 = torch.randn(2, 2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    together = path.posterior(x_t, x_0, t, s)
    for b in range(2):
        alone = path.posterior(x_t[b : b + 1], x_0[b : b + 1], t[b], s[b])
        torch.testing.assert_close(together.mean[b : b + 1], alone.mean)
        assert float(together.std[b].flatten()[0]) == pytest.approx(float(alone.std))


def test_centered_paths_are_plain_paths_around_the_center(schedule: Schedule) -> None:
    """x_t = alpha x_0 + (1 - alpha) y + sigma eps: with x_0 - y as data it is the plain path plus y."""
    y = double([[0.3, -2.0]])
    plain, centered = GaussianPath(schedule), Centered(GaussianPath(schedule), y)
    t, s = (double(v) for v in reversed(times_inside(schedule, 2)))
    x_0, noise = torch.randn(2, 4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x_t = centered.perturb(x_0, t, noise)
    torch.testing.assert_close(x_t, plain.perturb(x_0 - y, t, noise) + y)
    ours, theirs = centered.posterior(x_t, x_0, t, s), plain.posterior(x_t - y, x_0 - y, t, s)
    torch.testing.assert_close(ours.mean, theirs.mean + y)
    torch.testing.assert_close(ours.std, theirs.std)
    source = NoiseSource(0, range(4))
    torch.testing.assert_close(centered.prior(x_0, source), plain.prior(x_0, source) + y)


def test_centered_paths_take_any_weight_of_the_center() -> None:
    y = double([[0.3, -2.0], [1.0, 0.0]])
    path = Centered(GaussianPath(Rectified(), Symmetric()), y, weight=lambda t: t**2)
    assert path.support == Symmetric()
    t = double([0.5, 0.2])
    expected = (1 - t)[:, None] * 1.0 + t[:, None] ** 2 * y + t[:, None] * 0.1
    torch.testing.assert_close(path.perturb(torch.ones_like(y), t, torch.full_like(y, 0.1)), expected)


def test_centers_do_not_nest() -> None:
    path = Centered(GaussianPath(VP()), torch.zeros(()))
    with pytest.raises(TypeError, match="already centered"):
        Centered(path, torch.zeros(()))


def test_joint_paths_need_components() -> None:
    with pytest.raises(ValueError, match="at least one component"):
        JointPath({})


def test_vector_valued_paths_are_one_path_per_channel(vector: VP) -> None:
    path, t, s = GaussianPath(vector), double([0.4, 0.9]), double([0.1, 0.2])
    x_0, noise, x_t = torch.randn(3, 2, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    perturbed, posterior = path.perturb(x_0, t, noise), path.posterior(x_t, x_0, t, s)
    plain = GaussianPath(VP())
    torch.testing.assert_close(perturbed[..., 1], plain.perturb(x_0[..., 1], t, noise[..., 1]))
    torch.testing.assert_close(posterior.mean[..., 1], plain.posterior(x_t[..., 1], x_0[..., 1], t, s).mean)
    assert perturbed.shape == x_0.shape
    assert path.prior(x_0, NoiseSource(0, range(2))).shape == x_0.shape


# oracles


def test_11_denoisers_obey_tweedie(schedule: Schedule, targets: SimpleNamespace) -> None:
    """E[x_0 | x_t] = (x_t + sigma^2 grad log p_t)/alpha, with the gradient by autograd."""
    path = GaussianPath(schedule)
    for oracle in (targets.m2(path), targets.small(path)):
        for t in times_inside(schedule, 3):
            moment = double(t)
            x = torch.randn(6, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
            (score,) = torch.autograd.grad(oracle.log_prob(x, moment).sum(), x)
            clean = (x + schedule.sigma(moment) ** 2 * score) / schedule.alpha(moment)
            torch.testing.assert_close(oracle.denoise(x, moment), clean, rtol=1e-7, atol=1e-7)
            torch.testing.assert_close(oracle.score(x, moment), score, rtol=1e-9, atol=1e-9)


def test_oracles_take_one_time_per_sample_and_keep_the_dtype(targets: SimpleNamespace) -> None:
    path = GaussianPath(VP())
    x, t = torch.randn(3, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64), double([0.1, 0.5, 0.9])
    for oracle in (targets.m2(path), targets.small(path)):
        for function in (oracle.denoise, oracle.score, oracle.log_prob):
            alone = torch.cat([function(x[b : b + 1], t[b]) for b in range(3)])
            torch.testing.assert_close(function(x, t), alone)
            assert function(x.float(), t.float()).dtype == torch.float32


def test_mixture_density_is_normalised_and_noisy_density_is_its_convolution() -> None:
    path = GaussianPath(VP())
    oracle = GaussianMixtureOracle(double([0.3, 0.7]), double([[-1.0], [0.8]]), double([0.2, 0.5]), path)
    x = torch.linspace(-8, 8, 4001, dtype=torch.float64)[:, None]
    t = double(0.2)
    assert float(torch.trapezoid(oracle.log_prob(x, t).exp(), x[:, 0])) == pytest.approx(1, abs=1e-10)
    clean, alpha, sigma = oracle.log_prob(x, double(0.0)).exp(), path.schedule.alpha(t), path.schedule.sigma(t)
    kernel = torch.exp(-((x - alpha * x.T) ** 2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi))
    convolved = torch.trapezoid(kernel * clean, x[:, 0])
    torch.testing.assert_close(oracle.log_prob(x, t).exp(), convolved, rtol=1e-6, atol=1e-9)


def test_mixture_with_one_component_is_the_gaussian() -> None:
    path = GaussianPath(VP())
    mean, std = double([0.4, -1.0]), double([0.3, 0.8])
    one = GaussianMixtureOracle(double([1.0]), mean[None], std[None], path)
    other = GaussianOracle(mean, std**2, path)
    x, t = torch.randn(5, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64), double(0.3)
    torch.testing.assert_close(one.denoise(x, t), other.denoise(x, t))
    torch.testing.assert_close(one.log_prob(x, t), other.log_prob(x, t))
    torch.testing.assert_close(one.responsibilities(x, t), torch.ones(5, 1, dtype=torch.float64))


def test_oracle_samples_have_the_promised_moments(targets: SimpleNamespace) -> None:
    n, path = 20_000, GaussianPath(VP())
    x = targets.small(path).sample(n, 0)
    assert x.mean(0).tolist() == pytest.approx([0.7, -0.4], abs=5 * 0.78 / math.sqrt(n))
    assert torch.cov(x.T).flatten().tolist() == pytest.approx([0.6, 0.2, 0.2, 0.3], abs=0.03)
    x = targets.m2(path).sample(n, 0)
    shares = [float(((x[:, 0] * a > 0) & (x[:, 1] * b > 0)).double().mean()) for a, b in ((1, 1), (-1, 1), (-1, -1))]
    assert shares == pytest.approx([0.1, 0.2, 0.3], abs=0.015)
    assert torch.equal(x[:7], targets.m2(path).sample(7, 0))


def test_gaussian_flow_solves_the_probability_flow_ode(schedule: Schedule, targets: SimpleNamespace) -> None:
    """d flow / ds equals f x - g^2 score / 2."""
    oracle = targets.small(GaussianPath(schedule))
    t, s = (double(v) for v in reversed(times_inside(schedule, 2)))
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    moving = s.clone().requires_grad_()
    moved = oracle.flow(x, t, moving)
    velocity = torch.stack(
        [torch.autograd.grad(moved[i, j], moving, retain_graph=True)[0] for i in range(4) for j in range(2)]
    ).reshape(4, 2)
    here = moved.detach()
    expected = schedule.drift(s) * here - schedule.diffusion(s) ** 2 / 2 * oracle.score(here, s)
    torch.testing.assert_close(velocity, expected, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(oracle.flow(x, t, t), x)


@pytest.mark.parametrize("name", ["m2", "small"])
def test_26_probability_flow_gives_the_log_density(name: str, targets: SimpleNamespace) -> None:
    """log p_0(x) = log p_1(x_1) + integral of the divergence, by Heun's rule on 200 steps even in log-SNR."""
    schedule = VP()
    oracle = getattr(targets, name)(GaussianPath(schedule))
    x = oracle.sample(60, 3)
    low, high = (schedule.logsnr(double(t)) for t in (1e-5, 1.0))
    times = schedule.time(torch.linspace(float(low), float(high), 201, dtype=torch.float64))

    def rate(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        leaf = x.detach().requires_grad_()
        f, g = schedule.drift(t), schedule.diffusion(t)
        velocity = f * leaf - g**2 / 2 * oracle.score(leaf, t)
        divergence = sum(
            torch.autograd.grad(velocity[:, d].sum(), leaf, retain_graph=True)[0][:, d] for d in range(x.shape[1])
        )
        assert isinstance(divergence, Tensor)
        return velocity.detach(), divergence

    expected, change, y = oracle.log_prob(x, double(0.0)), torch.zeros(60, dtype=torch.float64), x
    for t, s in itertools.pairwise(times):
        v, d = rate(y, t)
        v_next, d_next = rate(y + (s - t) * v, s)
        y, change = y + (s - t) * (v + v_next) / 2, change + (s - t) * (d + d_next) / 2
    error = oracle.log_prob(y, double(1.0)) + change - expected
    assert float(error.abs().mean()) <= 0.005


def test_linear_gaussian_posterior_is_the_conditional_of_the_joint() -> None:
    generator = torch.Generator().manual_seed(0)
    root, operator = torch.randn(4, 4, generator=generator).double(), torch.randn(2, 4, generator=generator).double()
    mean, y, noise = double([0.1, 0.2, -0.3, 1.0]), double([0.5, -0.7]), 0.3
    prior = root @ root.T
    precision = torch.linalg.inv(prior) + operator.T @ operator / noise**2
    covariance = torch.linalg.inv(precision)
    expected = covariance @ (torch.linalg.solve(prior, mean) + operator.T @ y / noise**2)
    posterior = LinearGaussianPosterior(mean, prior, operator, noise)
    torch.testing.assert_close(posterior.cov, covariance, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(posterior.mean(y), expected, rtol=1e-8, atol=1e-8)
