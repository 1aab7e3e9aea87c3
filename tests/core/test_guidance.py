"""Laws 16-18 and bars Q1, Q2, Q9: guidance against exact conditional denoisers."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fourfold.core import (
    DDIM,
    VP,
    AdaptiveGuidance,
    Ancestral,
    BaseDenoiser,
    CategoricalPath,
    ClassifierFree,
    ClassifierGuidance,
    Condition,
    Data,
    Denoiser,
    DPMSolverPP,
    EnergyGuidance,
    GaussianPath,
    JointPath,
    LogSNRGrid,
    Multistep,
    Replacement,
    Sampler,
    Schedule,
    UniformGrid,
)
from fourfold.core.testing import GaussianMixtureOracle, GaussianOracle, LinearGaussianPosterior


def double(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Labelled(BaseDenoiser):
    """A mixture whose component is the condition "label"; -1 means any."""

    def __init__(self, mixture: GaussianMixtureOracle) -> None:
        super().__init__()
        self.path = mixture.path
        self.parts = [
            GaussianMixtureOracle(torch.ones(1), m[None], s[None], mixture.path)
            for m, s in zip(mixture.means, mixture.stds, strict=True)
        ]
        self.mixture = mixture
        self.batches: list[int] = []
        self._rows = 0

    @property
    def rows(self) -> int:
        return self._rows

    def forward(self, x_t: Tensor, t: Tensor, *, mask: Any = None, condition: Condition | None = None) -> Tensor:
        assert condition is not None
        label = condition["label"]
        assert label.shape == (len(x_t),)
        self._rows += len(x_t)
        self.batches.append(len(x_t))
        every = torch.stack([*(part.denoise(x_t, t) for part in self.parts), self.mixture.denoise(x_t, t)])
        return every[label, torch.arange(len(x_t))]


FREE = {"label": torch.tensor([-1])}


@pytest.fixture
def labelled(targets: SimpleNamespace) -> Labelled:
    return Labelled(targets.m2(GaussianPath(VP())))


# 18: classifier-free guidance


def test_18_classifier_free_guidance_is_linear_in_the_scale(labelled: Labelled) -> None:
    x, t, label = normal(4, 2), double(0.3), {"label": torch.tensor([0, 1, 2, 3])}
    conditional = labelled(x, t, condition=label)
    free = labelled(x, t, condition={"label": torch.full((4,), -1)})
    for scale in (0.0, 1.0, 2.5, -1.0):
        guided = ClassifierFree(labelled, scale, FREE)(x, t, condition=label)
        torch.testing.assert_close(guided, free + scale * (conditional - free))
    scales = double([0.0, 1.0, 2.0, 7.5])
    guided = ClassifierFree(labelled, scales, FREE)(x, t, condition=label)
    torch.testing.assert_close(guided, free + scales[:, None] * (conditional - free))
    assert not torch.allclose(free, conditional)


def test_18_one_batch_holds_both_passes(labelled: Labelled) -> None:
    guided, label = ClassifierFree(labelled, 2.0, FREE), {"label": torch.tensor([0, 1, 2])}
    sample = Sampler(Multistep(), LogSNRGrid(), 5)(guided, normal(3, 2), condition=label)
    assert labelled.batches == [6] * 5
    assert sample.evaluations == 10


def test_18_several_conditions_have_their_own_scales(labelled: Labelled) -> None:
    x, t = normal(3, 2), double([0.3, 0.5, 0.2])
    first, second = {"label": torch.tensor([0, 1, 2])}, {"label": torch.tensor([3])}
    free, a, b = (labelled(x, t, condition={"label": c["label"].expand(3)}) for c in (FREE, first, second))
    scales = double([0.5, 1.0, 2.0])
    guided = ClassifierFree(labelled, 1.5, FREE, others=[(second, scales)])(x, t, condition=first)
    torch.testing.assert_close(guided, free + 1.5 * (a - free) + scales[:, None] * (b - free))


def test_18_guidance_acts_inside_its_interval_only(labelled: Labelled, schedule: Schedule) -> None:
    logsnr = VP().logsnr(double(0.3))
    x, label = normal(3, 2), {"label": torch.tensor([0, 1, 2])}
    inside = ClassifierFree(labelled, 3.0, FREE, interval=(float(logsnr) - 0.1, float(logsnr) + 0.1))
    everywhere = ClassifierFree(labelled, 3.0, FREE)
    t = double(0.3)
    torch.testing.assert_close(inside(x, t, condition=label), everywhere(x, t, condition=label))
    labelled.batches.clear()
    for outside in (0.2, 0.5):
        t = double(outside)
        torch.testing.assert_close(inside(x, t, condition=label), labelled(x, t, condition=label))
    assert labelled.batches == [3] * 4
    t = double([0.2, 0.3, 0.5])
    mixed = inside(x, t, condition=label)
    expected = labelled(x, t, condition=label)
    expected[1] = everywhere(x, t, condition=label)[1]
    torch.testing.assert_close(mixed, expected)


def test_18_rescaling_restores_the_spread_of_the_conditional_prediction(labelled: Labelled) -> None:
    x, t, label = normal(4, 2), double(0.4), {"label": torch.tensor([0, 1, 2, 3])}
    conditional = labelled(x, t, condition=label)
    plain = ClassifierFree(labelled, 4.0, FREE)(x, t, condition=label)
    whole = ClassifierFree(labelled, 4.0, FREE, rescale=1.0)(x, t, condition=label)
    torch.testing.assert_close(whole.std(1), conditional.std(1))
    torch.testing.assert_close(whole / whole.norm(dim=1, keepdim=True), plain / plain.norm(dim=1, keepdim=True))
    half = ClassifierFree(labelled, 4.0, FREE, rescale=0.5)(x, t, condition=label)
    torch.testing.assert_close(half, (whole + plain) / 2)


@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_20_guided_samples_do_not_depend_on_padding(
    rescale: float, case: Any, make_mixer: Callable[..., nn.Module]
) -> None:
    denoiser = Denoiser(make_mixer(), GaussianPath(VP(), case.support), Data())
    guided = ClassifierFree(denoiser, 2.0, {"label": double([0.0])}, rescale=rescale)
    condition, sampler = {"label": double([0.5, -1.0, 2.0])}, Sampler(Multistep(), LogSNRGrid(), 3)
    x = case.support.project(case.state(0), case.mask())
    short = sampler(guided, x, mask=case.mask(), condition=condition).x
    long = sampler(guided, case.pad(x, 3), mask=case.mask(size=8), condition=condition).x
    torch.testing.assert_close(case.crop(long), short, rtol=1e-8, atol=1e-9)
    alone = sampler(guided, x[1:2], mask=case.mask()[1:2], condition={"label": condition["label"][1:2]}).x
    torch.testing.assert_close(alone, short[1:2], rtol=1e-8, atol=1e-9)


def test_18_guidance_rules_nest(labelled: Labelled) -> None:
    """An energy around classifier-free guidance is the sum of both shifts."""
    x, t, label = normal(3, 2), double(0.3), {"label": torch.tensor([0, 1, 2])}
    inner = ClassifierFree(labelled, 2.0, FREE)
    outer = EnergyGuidance(inner, lambda clean, t, condition: (clean**2).sum(1), 0.1)
    leaf = x.clone().requires_grad_()
    clean = inner(leaf, t, condition=label)
    (gradient,) = torch.autograd.grad((clean**2).sum(), leaf)
    shift = VP().sigma(t) ** 2 / VP().alpha(t) * gradient
    torch.testing.assert_close(outer(x, t, condition=label), clean.detach() - 0.1 * shift)
    before = labelled.rows
    outer(x, t, condition=label)
    assert labelled.rows - before == outer.rows - before == 6


def test_18_joint_states_are_guided_component_by_component(make_mixer: Callable[..., nn.Module]) -> None:
    path = JointPath({"x": GaussianPath(VP()), "c": CategoricalPath.uniform(VP(), 3)})

    class Both(BaseDenoiser):
        def __init__(self) -> None:
            super().__init__()
            self.path = path

        def forward(self, x_t: Any, t: Tensor, *, mask: Any = None, condition: Any = None) -> dict[str, Tensor]:
            label = condition["label"]
            logits = torch.stack([label, -label, 0 * label], -1)[:, None].expand(*x_t["c"].shape, 3)
            return {"x": x_t["x"] + label[:, None], "c": logits.softmax(-1)}

    state = {"x": normal(2, 3), "c": torch.zeros(2, 4, dtype=torch.long)}
    guided = ClassifierFree(Both(), 3.0, {"label": double([0.0])})
    result = guided(state, double(0.5), condition={"label": double([1.0, -0.5])})
    torch.testing.assert_close(result["x"], state["x"] + 3 * double([[1.0], [-0.5]]))
    # powers of probabilities: logits are guided, and the result is a distribution even far outside
    logits = 3 * torch.stack([double([1.0, -0.5]), double([-1.0, 0.5]), double([0.0, 0.0])], -1)
    torch.testing.assert_close(result["c"], logits.softmax(-1)[:, None].expand(2, 4, 3))


def test_18_vector_valued_schedules_can_be_guided(vector: VP, make_mixer: Callable[..., nn.Module]) -> None:
    denoiser = Denoiser(make_mixer(), GaussianPath(vector), Data())
    x, label = normal(2, 5, 3), {"label": double([1.0, 2.0])}
    for t in (double(0.3), double([0.3, 0.6])):
        free, own = (denoiser(x, t, condition=c) for c in ({"label": double([0.0, 0.0])}, label))
        guided = ClassifierFree(denoiser, 2.0, {"label": double([0.0])})(x, t, condition=label)
        torch.testing.assert_close(guided, 2 * own - free)
        never = ClassifierFree(denoiser, 2.0, {"label": double([0.0])}, interval=(50, 60))(x, t, condition=label)
        torch.testing.assert_close(never, own)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: ClassifierFree(d, 1.0, FREE, rescale=1.5), "rescale must be in"),
        (lambda d: ClassifierFree(d, 1.0, FREE, interval=(1.0, 0.0)), "interval must be .low, high."),
        (lambda d: ClassifierFree(d, 1.0, FREE)(normal(2, 2), double(0.5)), "needs the condition"),
        (lambda d: AdaptiveGuidance(d, 1.0, FREE)(normal(2, 2), double(0.5)), "needs the condition"),
        (
            lambda d: ClassifierFree(d, 1.0, {"lable": FREE["label"]})(
                normal(2, 2), double(0.5), condition={"label": torch.tensor([0, 1])}
            ),
            "name different things.*lable",
        ),
        (
            lambda d: AdaptiveGuidance(d, 1.0, {"lable": FREE["label"]})(
                normal(2, 2), double(0.5), condition={"label": torch.tensor([0, 1])}
            ),
            "name different things.*lable",
        ),
        (
            lambda d: EnergyGuidance(d.mixture, lambda clean, t, condition: clean.sum())(normal(2, 2), double(0.5)),
            r"energy must return one value per sample, shape \(2,\), got \(\)",
        ),
        (
            lambda d: ClassifierGuidance(d.mixture, lambda x, t: x)(normal(2, 2), double(0.5)),
            r"log_likelihood must return one value per sample, shape \(2,\), got \(2, 2\)",
        ),
        (
            lambda d: ClassifierFree(d, 1.0, {"label": "none"})(
                normal(2, 2), double(0.5), condition={"label": torch.tensor([0, 1])}
            ),
            "is not a tensor and differs",
        ),
    ],
)
def test_guidance_explains_what_is_wrong(make: Callable[[Labelled], Any], message: str, labelled: Labelled) -> None:
    with pytest.raises(ValueError, match=message):
        make(labelled)


def test_gradient_guidance_needs_a_gaussian_path() -> None:
    class Categorical(BaseDenoiser):
        def __init__(self) -> None:
            super().__init__()
            self.path = CategoricalPath.uniform(VP(), 3)

        def forward(self, x_t: Any, t: Tensor, *, mask: Any = None, condition: Any = None) -> Any:
            return x_t

    with pytest.raises(TypeError, match="EnergyGuidance needs a Gaussian path"):
        EnergyGuidance(Categorical(), lambda clean, t, condition: clean.sum(1))
    with pytest.raises(TypeError, match="ClassifierGuidance needs a Gaussian path"):
        ClassifierGuidance(Categorical(), lambda x, t: x.sum(1))


# 16, 17: a linear-Gaussian inverse problem

MEAN = double([0.3, -0.2, 0.5])
COV = double([[1.0, 0.3, 0.0], [0.3, 0.5, -0.2], [0.0, -0.2, 0.8]])
OPERATOR, NOISE, OBSERVED = double([[1.0, 0.5, 0.0], [0.0, 1.0, -1.0]]), 0.3, double([1.2, -0.4])


def exact_energy(schedule: Schedule) -> Callable[..., Tensor]:
    """-log p(y | x_t) for Gaussian data: the clean state has covariance C - a^2 C (a^2 C + s^2)^{-1} C given x_t."""

    def energy(clean: Tensor, t: Tensor, condition: Any) -> Tensor:
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        noisy = alpha**2 * COV + sigma**2 * torch.eye(3, dtype=torch.float64)
        spread = COV - alpha**2 * COV @ torch.linalg.solve(noisy, COV)
        gram = OPERATOR @ spread @ OPERATOR.T + NOISE**2 * torch.eye(2, dtype=torch.float64)
        residual = OBSERVED - clean @ OPERATOR.T
        return (residual * torch.linalg.solve(gram, residual.T).T).sum(1) / 2

    return energy


def test_17_guided_denoiser_is_the_posterior_mean(schedule: Schedule) -> None:
    """E[x_0 | x_t, y] point by point: the oracle of the posterior, which is again Gaussian."""
    path = GaussianPath(schedule)
    prior = GaussianOracle(MEAN, COV, path)
    posterior = LinearGaussianPosterior(MEAN, COV, OPERATOR, NOISE)
    exact = GaussianOracle(posterior.mean(OBSERVED), posterior.cov, path)
    guided = EnergyGuidance(prior, exact_energy(schedule))
    low, high = schedule.t_min, schedule.t_max
    with torch.no_grad():
        for t in (0.9 * low + 0.1 * high, 0.5 * low + 0.5 * high, 0.1 * low + 0.9 * high):
            x = normal(7, 3) * float(schedule.sigma(double(t)) + schedule.alpha(double(t)))
            ours = guided(x, double(t))
            torch.testing.assert_close(ours, exact.denoise(x, double(t)), rtol=1e-6, atol=1e-6)
            assert not ours.requires_grad


def test_16_guided_samples_have_the_posterior_law() -> None:
    n, path = 4000, GaussianPath(VP())
    posterior = LinearGaussianPosterior(MEAN, COV, OPERATOR, NOISE)
    guided = EnergyGuidance(GaussianOracle(MEAN, COV, path), exact_energy(VP()))
    for stepper in (Multistep(), DPMSolverPP(2, eta=1.0)):
        x = Sampler(stepper, LogSNRGrid(), 30)(guided, normal(n, 3), generator=0).x
        error = x.mean(0) - posterior.mean(OBSERVED)
        assert float(error.norm()) < 5 * math.sqrt(float(posterior.cov.trace()) / n) + 0.005
        torch.testing.assert_close(torch.cov(x.T), posterior.cov, rtol=0, atol=0.04)


def test_17_scales_may_differ_by_sample_and_energies_never_couple_them() -> None:
    path = GaussianPath(VP())
    prior, energy, t = GaussianOracle(MEAN, COV, path), exact_energy(VP()), double(0.4)
    x, scales = normal(3, 3), double([0.0, 0.5, 2.0])
    plain, full = prior(x, t), EnergyGuidance(prior, energy)(x, t)
    guided = EnergyGuidance(prior, energy, scales)(x, t)
    torch.testing.assert_close(guided, plain + scales[:, None] * (full - plain))
    torch.testing.assert_close(EnergyGuidance(prior, energy)(x[1:2], t), full[1:2])


def test_17_one_forward_pass_per_step_under_no_grad() -> None:
    oracle = GaussianOracle(MEAN, COV, GaussianPath(VP()))
    sample = Sampler(Multistep(), LogSNRGrid(), 6)(EnergyGuidance(oracle, exact_energy(VP())), normal(5, 3))
    assert sample.evaluations == 6
    assert oracle.rows == 30
    assert not sample.x.requires_grad


def test_17_gradients_are_projected_on_the_support(case: Any, make_mixer: Callable[..., nn.Module]) -> None:
    """An energy that pulls off the subspace and sees the padding must not move the sample there."""
    denoiser = Denoiser(make_mixer(), GaussianPath(VP(), case.support), Data())
    mask, x = case.mask(), case.support.project(case.state(0), case.mask())
    energy = lambda clean, t, condition: (clean * case.state(5)).flatten(1).sum(1)  # noqa: E731
    classifier = lambda x_t, t: -(x_t * case.state(5)).flatten(1).sum(1)  # noqa: E731
    for guided in (EnergyGuidance(denoiser, energy), ClassifierGuidance(denoiser, classifier)):
        clean = guided(x, double(0.5), mask=mask)
        torch.testing.assert_close(case.support.project(clean, mask), clean, rtol=0, atol=1e-12)
        assert not torch.allclose(clean, denoiser(x, double(0.5), mask=mask))


def test_q1_an_exact_classifier_selects_its_component(targets: SimpleNamespace) -> None:
    n, mixture = 2000, targets.m2(GaussianPath(VP()))

    def log_likelihood(x: Tensor, t: Tensor) -> Tensor:
        return mixture.responsibilities(x, t)[:, 0].clamp(min=1e-300).log()

    shares = {}
    for scale in (0.0, 1.0):
        guided = ClassifierGuidance(mixture, log_likelihood, scale)
        x = Sampler(DPMSolverPP(2, eta=1.0), LogSNRGrid(), 50)(guided, normal(n, 2), generator=0).x
        shares[scale] = float((mixture.responsibilities(x, double(1e-3)).argmax(1) == 0).double().mean())
        if scale == 1:
            assert x.mean(0).tolist() == pytest.approx([1.5, 1.5], abs=0.03)
    assert shares[0.0] == pytest.approx(0.1, abs=5 * 0.3 / math.sqrt(n))
    assert shares[1.0] >= 0.99


def test_17_classifier_guidance_is_the_conditional_denoiser(targets: SimpleNamespace, schedule: Schedule) -> None:
    mixture = targets.m2(GaussianPath(schedule))
    t = double((schedule.t_min + schedule.t_max) / 2)
    x = normal(6, 2) * float(schedule.sigma(t)) + float(schedule.alpha(t)) * double([1.0, 1.0])
    guided = ClassifierGuidance(mixture, lambda x, t: mixture.responsibilities(x, t)[:, 0].log())
    expected = GaussianMixtureOracle(torch.ones(1), mixture.means[:1], mixture.stds[:1], mixture.path).denoise(x, t)
    torch.testing.assert_close(guided(x, t), expected, rtol=1e-6, atol=1e-6)


# Q2: adaptive guidance


@pytest.mark.parametrize("scale", [2.0, 7.5])
def test_q2_adaptive_guidance_saves_evaluations_and_changes_little(scale: float, labelled: Labelled) -> None:
    n = 200
    x, label = normal(n, 2), {"label": torch.arange(n) % 4}
    sampler = Sampler(DPMSolverPP(2), LogSNRGrid(), 20)
    full = sampler(ClassifierFree(labelled, scale, FREE), x, condition=label)
    adaptive = AdaptiveGuidance(labelled, scale, FREE)
    saved = sampler(adaptive, x, condition=label)
    assert full.evaluations == 40
    assert saved.evaluations <= 0.88 * 40
    assert saved.evaluations > 24  # the noise-prediction rule would stop at once
    assert float(((saved.x - full.x) ** 2).mean().sqrt()) <= 2e-3
    again = sampler(adaptive, x, condition=label)  # its memory is cleared by every run
    assert torch.equal(again.x, saved.x)
    part = sampler(adaptive, x[7:9], condition={"label": label["label"][7:9]})
    torch.testing.assert_close(part.x, saved.x[7:9], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("gap", "ends"), [(0.9, False), (1.1, True)])
def test_q2_guidance_ends_when_the_gap_is_small_beside_the_prediction(gap: float, ends: bool) -> None:
    class Two(BaseDenoiser):
        """100 with the condition, 0 without: a gap of exactly one, relative to the prediction."""

        path = GaussianPath(VP())

        def forward(self, x_t: Tensor, t: Tensor, *, mask: Any = None, condition: Condition | None = None) -> Tensor:
            assert condition is not None
            return torch.zeros_like(x_t) + 100 * condition["on"].to(x_t)[:, None]

    guided = AdaptiveGuidance(Two(), 2.0, {"on": torch.tensor(0.0)}, gap=gap)
    guided.reset()
    x, on = normal(1, 2), {"on": torch.ones(1)}
    assert float(guided(x, double(0.5), condition=on)[0, 0]) == 200
    assert float(guided(x, double(0.4), condition=on)[0, 0]) == (100 if ends else 200)


def test_q2_samples_end_their_guidance_one_by_one(labelled: Labelled) -> None:
    x, label = normal(3, 2), {"label": torch.tensor([0, 1, 2])}
    guided = AdaptiveGuidance(labelled, double([1.5, 2.0, 3.0]), FREE, gap=0.03)
    guided.reset()
    reference = ClassifierFree(labelled, double([1.5, 2.0, 3.0]), FREE)
    t = double([0.9, 0.5, 0.5])
    torch.testing.assert_close(guided(x, t, condition=label), reference(x, t, condition=label))
    far = double([[1.5, 1.5], [-1.5, 1.5], [0.0, 0.0]])  # the first two have found their component
    late = double([0.01, 0.01, 0.3])
    torch.testing.assert_close(guided(far, late, condition=label), reference(far, late, condition=label))
    labelled.batches.clear()
    result = guided(x, t, condition=label)
    assert labelled.batches == [4]
    expected = labelled(x, t, condition=label)
    expected[2] = reference(x, t, condition=label)[2]
    torch.testing.assert_close(result, expected)


def test_q9_ddim_with_noise_keeps_the_total_variance(targets: SimpleNamespace) -> None:
    """eta = 0.5 on the ten-dimensional mixture; the true total variance is 9.81."""
    mixture = targets.m10(GaussianPath(VP()))
    truth = float((mixture.weights[:, None] * (mixture.stds**2 + mixture.means**2)).sum())
    truth -= float(((mixture.weights[:, None] * mixture.means).sum(0) ** 2).sum())
    assert truth == pytest.approx(9.81, abs=0.01)
    x = Sampler(DDIM(0.5), LogSNRGrid(), 50)(mixture, normal(3000, 10), generator=0).x
    assert float(x.var(0).sum()) == pytest.approx(truth, rel=0.05)


@pytest.mark.parametrize("stepper", [Multistep(), DPMSolverPP(2, eta=1.0), Ancestral()], ids=str)
def test_known_entries_stay_known_and_do_not_touch_independent_ones(stepper: Any) -> None:
    path = GaussianPath(VP())
    oracle = GaussianOracle(double([1.0, -2.0]), torch.diag(double([0.5, 2.0])), path)
    known, fixed = double([[0.7, 0.0]]).expand(50, 2), torch.tensor([True, False])
    sampler, x = Sampler(stepper, UniformGrid(end=0.0), 12), normal(50, 2)
    free = sampler(oracle, x, generator=3).x
    filled = sampler(Replacement(oracle, known, fixed), x, generator=3).x
    torch.testing.assert_close(filled[:, 0], known[:, 0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(filled[:, 1], free[:, 1], rtol=1e-9, atol=1e-9)


def test_replacement_explains_what_is_wrong() -> None:
    oracle = GaussianOracle(MEAN, COV, GaussianPath(VP()))
    with pytest.raises(ValueError, match="both be tensors, or both be dicts"):
        Replacement(oracle, normal(2, 3), {"x": torch.ones(3, dtype=torch.bool)})
