import pytest
import torch

from fourfold.core import VP, BaseDenoiser, EnergyGuidance, GaussianPath, NoiseSource
from fourfold.modalities.timeseries import (
    LineSearchGuidance,
    QuantileGuidance,
    SelfGuidance,
    SquaredErrorGuidance,
    TSDiff,
)
from fourfold.modalities.timeseries.guidance import ObservationEnergy, quantile_levels


@pytest.fixture
def energy_parts() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    target = torch.randn(3, 6, 1, generator=generator, dtype=torch.float64)
    observed = torch.rand(3, 6, 1, generator=generator) < 0.6
    return target, observed, torch.tensor([0.1, 0.5, 0.8], dtype=torch.float64)


@pytest.mark.parametrize("guidance", [QuantileGuidance(), SquaredErrorGuidance()], ids=lambda g: g.name)
def test_gradient_through_the_network_equals_finite_differences(
    guidance: SelfGuidance, energy_parts: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> None:
    torch.manual_seed(0)
    model = TSDiff(2, 4, hidden=8, modes=2, patch=1).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    target, observed, level = energy_parts
    energy = ObservationEnergy(guidance, target, observed, level)
    x, t, scale = torch.randn(3, 6, 1, dtype=torch.float64), torch.tensor(0.4, dtype=torch.float64), 3.0
    guided = EnergyGuidance(model.denoiser, energy, scale)
    with torch.no_grad():
        plain, steered = model.denoiser(x, t), guided(x, t)
        numeric = torch.zeros_like(x)
        for index in range(6):
            shift = torch.zeros_like(x)
            shift[:, index] = 1e-6
            up, down = (energy(model.denoiser(x + s * shift, t), t) for s in (1, -1))
            numeric[:, index, 0] = (up - down) / 2e-6
    schedule = model.denoiser.path.schedule
    expected = plain - scale * schedule.sigma(t) ** 2 / schedule.alpha(t) * numeric
    torch.testing.assert_close(steered, expected, rtol=1e-5, atol=1e-7)
    assert (steered - plain).abs().max() > 1e-3


def test_energies_by_hand(energy_parts: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    target, observed, level = energy_parts
    x = target + torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64).reshape(3, 1, 1)
    count = observed.sum((1, 2))
    t = torch.tensor(0.5)
    pinball = ObservationEnergy(QuantileGuidance(), target, observed, level)(x, t)
    # estimates above the observation cost 1 - q each, estimates below q
    torch.testing.assert_close(pinball, count * torch.tensor([0.9 * 1.0, 0.5 * 2.0, 0.2 * 0.5], dtype=torch.float64))
    squared = ObservationEnergy(SquaredErrorGuidance(), target, observed, level)(x, t)
    torch.testing.assert_close(squared, count * torch.tensor([1.0, 4.0, 0.25], dtype=torch.float64))


def test_what_is_not_observed_is_ignored_bit_exactly(
    energy_parts: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    target, observed, level = energy_parts
    for guidance in (QuantileGuidance(), SquaredErrorGuidance()):
        results = []
        for garbage in (0.0, 1e20, float("nan")):
            x = torch.zeros_like(target, requires_grad=True)
            filled = torch.where(observed, target, garbage)
            value = ObservationEnergy(guidance, filled, observed, level)(x, torch.tensor(0.5))
            (gradient,) = torch.autograd.grad(value.sum(), x)
            assert (gradient[~observed] == 0).all()
            results.append((value.detach(), gradient))
        for value, gradient in results[1:]:
            assert torch.equal(value, results[0][0])
            assert torch.equal(gradient, results[0][1])


def test_levels_are_the_same_set_shuffled_per_series() -> None:
    levels = quantile_levels(NoiseSource(3, range(50)), 20, key=0)
    expected = torch.arange(1, 21) / 21
    assert torch.equal(levels.sort(dim=1).values, expected.expand(50, 20))
    assert abs(levels[:, :5].mean() - 0.5) < 0.05  # the first few are no biased choice
    alone = quantile_levels(NoiseSource(3, [7]), 20, key=0)
    assert torch.equal(alone[0], levels[7])


def test_line_search_never_overshoots_and_is_exact_for_linear_denoisers() -> None:
    # D(x) = G x with a rank-one G: one exact step along the gradient meets the observation.
    generator = torch.Generator().manual_seed(0)
    gain = torch.randn(5, generator=generator, dtype=torch.float64)

    class Linear(BaseDenoiser):
        path = GaussianPath(VP())

        def forward(self, x_t, t, *, mask=None, condition=None):
            return (x_t * gain.reshape(1, 5, 1)).sum(1, keepdim=True) * gain.reshape(1, 5, 1)

    target = 3.0 * gain.reshape(1, 5, 1).expand(4, 5, 1)
    observed = torch.zeros(4, 5, 1, dtype=torch.bool)
    observed[:, :2] = True
    x = torch.randn(4, 5, 1, generator=generator, dtype=torch.float64)
    t, level = torch.tensor(0.3, dtype=torch.float64), torch.full((4,), 0.5, dtype=torch.float64)
    exact = LineSearchGuidance(1.0).guide(Linear(), target, observed, level)(x, t)
    torch.testing.assert_close(exact, target)
    half = LineSearchGuidance(0.5).guide(Linear(), target, observed, level)(x, t)
    torch.testing.assert_close(half, (target + Linear()(x, t)) / 2)


def test_scale_is_checked() -> None:
    with pytest.raises(ValueError, match="negative"):
        QuantileGuidance(-1.0)
    with pytest.raises(ValueError, match="overshoots"):
        LineSearchGuidance(2.0)
