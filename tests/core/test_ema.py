"""Law 30: averages of weights in closed form."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from fourfold.core import EMA, PowerEMA


class Scalar(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        self.register_buffer("running", torch.zeros((), dtype=torch.float32))


def run(rule: EMA | PowerEMA, values: list[float]) -> tuple[float, Scalar]:
    model = Scalar()
    averaged = AveragedModel(model, multi_avg_fn=rule, use_buffers=True)
    for i, value in enumerate(values):
        with torch.no_grad():
            model.weight.fill_(value)
            model.get_buffer("count").fill_(i)
            model.get_buffer("running").fill_(value)
        averaged.update_parameters(model)
    assert isinstance(averaged.module, Scalar)
    weight = averaged.module.weight
    assert weight[0] == weight[1]
    return float(weight[0].detach()), averaged.module


def test_30_ema_is_the_weighted_sum_of_its_history() -> None:
    values = [3.0, -1.0, 4.0, 1.0, -5.0, 9.0]
    decay = 0.8
    result, module = run(EMA(decay, warmup=False), values)
    expected = decay**5 * values[0] + sum((1 - decay) * decay ** (5 - i) * values[i] for i in range(1, 6))
    assert result == pytest.approx(expected, abs=1e-12)
    assert float(module.get_buffer("running")) == pytest.approx(expected, abs=1e-5)
    assert int(module.get_buffer("count")) == 5  # integers are copied


def test_30_warm_up_follows_its_formula() -> None:
    rule = EMA(0.5)
    assert [rule.at(n) for n in range(12)] == pytest.approx([min(0.5, (1 + n) / (10 + n)) for n in range(12)])
    assert EMA(0.5, warmup=False).at(0) == 0.5
    assert EMA(0.998).at(10**6) == 0.998
    values = [1.0, 2.0, 0.0]
    result, _ = run(rule, values)
    first = 2 / 11 * values[0] + 9 / 11 * values[1]
    assert result == pytest.approx(3 / 12 * first + 9 / 12 * values[2], abs=1e-12)


@pytest.mark.parametrize("gamma", [1.0, 6.94, 16.97])
def test_30_power_average_weighs_step_n_by_n_to_the_gamma(gamma: float) -> None:
    """d_n = (1 - 1/n)^(gamma + 1) gives step i the weight (i/n)^(gamma+1) - ((i-1)/n)^(gamma+1)."""
    values = [float((7 * i) % 5) for i in range(30)]
    n = len(values)
    weights = [(i / n) ** (gamma + 1) - ((i - 1) / n) ** (gamma + 1) for i in range(1, n + 1)]
    result, _ = run(PowerEMA(gamma), values)
    assert sum(weights) == pytest.approx(1)
    assert result == pytest.approx(sum(w * v for w, v in zip(weights, values, strict=True)), abs=1e-10)
