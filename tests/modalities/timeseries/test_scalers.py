import math

import pytest
import torch

from fourfold.modalities.timeseries import Anchored, LongMean, Mean, Scaler, ZScore

ALL = [Mean(), Anchored(), ZScore(), LongMean()]
LEVEL = torch.tensor([3.0, 2.0], dtype=torch.float64)


@pytest.fixture
def context() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(2, 40, generator=generator, dtype=torch.float64).cumsum(1) + 5
    observed = torch.rand(2, 40, generator=generator) < 0.7
    return values, observed


@pytest.mark.parametrize("scaler", ALL, ids=lambda s: s.name)
def test_unobserved_values_are_ignored_bit_exactly(scaler: Scaler, context: tuple[torch.Tensor, torch.Tensor]) -> None:
    values, observed = context
    expected = scaler(values, observed, 10, LEVEL)
    for garbage in (math.nan, math.inf, 1e30):
        got = scaler(torch.where(observed, values, garbage), observed, 10, LEVEL)
        assert torch.equal(got[0], expected[0])
        assert torch.equal(got[1], expected[1])


@pytest.mark.parametrize("scaler", ALL, ids=lambda s: s.name)
def test_scales_follow_the_units(scaler: Scaler, context: tuple[torch.Tensor, torch.Tensor]) -> None:
    values, observed = context
    loc, scale = scaler(values, observed, 10, LEVEL)
    loc_k, scale_k = scaler(1000 * values, observed, 10, 1000 * LEVEL)
    torch.testing.assert_close(loc_k, 1000 * loc)
    torch.testing.assert_close(scale_k, 1000 * scale)


@pytest.mark.parametrize("scaler", ALL, ids=lambda s: s.name)
@pytest.mark.parametrize("value", [0.0, 1e-200, 7.0, -7.0, 1e12])
def test_constant_and_empty_contexts_have_a_finite_positive_scale(scaler: Scaler, value: float) -> None:
    values = torch.full((2, 20), value, dtype=torch.float64)
    for observed in (torch.ones(2, 20, dtype=torch.bool), torch.zeros(2, 20, dtype=torch.bool)):
        loc, scale = scaler(values, observed, 5, torch.zeros(2, dtype=torch.float64))
        assert torch.isfinite(loc).all()
        assert torch.isfinite(scale).all()
        assert (scale > 0).all()


def test_values_of_each_scaler() -> None:
    values = torch.tensor([[1.0, 2.0, 4.0, 100.0, 7.0, 100.0]], dtype=torch.float64)
    observed = torch.tensor([[True, True, True, False, True, False]])
    assert Mean()(values, observed, 4)[1].item() == pytest.approx(3.5)
    loc, scale = Anchored()(values, observed, 4)
    # differences 1 and 2; the jump over the missing value does not count
    assert loc.item() == 7.0
    assert scale.item() == pytest.approx(math.sqrt(4) * math.sqrt(2.5))
    loc, scale = ZScore()(values, observed, 4)
    assert loc.item() == pytest.approx(3.5)
    assert scale.item() == pytest.approx(math.sqrt(5.25))
    assert LongMean()(values, observed, 4, torch.tensor([9.0], dtype=torch.float64))[1].item() == 9.0


def test_floor_and_errors() -> None:
    flat = torch.full((1, 9), 10.0, dtype=torch.float64)
    seen = torch.ones(1, 9, dtype=torch.bool)
    assert Anchored(floor=0.01)(flat, seen, 3)[1].item() == pytest.approx(0.1)
    with pytest.raises(ValueError, match="floor"):
        Mean(floor=0.0)
    with pytest.raises(ValueError, match="level"):
        LongMean()(flat, seen, 3)
