"""Vectors of series: a vector autoregression whose second channel is the first one, a step later."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import fourfold
from fourfold.core import NoiseSource
from fourfold.modalities.timeseries import LineSearchGuidance, MultivariateTSDiff
from fourfold.modalities.timeseries.multivariate_backbone import MultivariateBackbone

H, C = 4, 8


def leading(count: int, seed: int) -> NDArray[np.float64]:
    """a_t = 0.5 a_{t-1} + e_t,  b_t = a_{t-1} + 0.1 u_t: the best forecast of b_{t+1} is a_t, with error 0.1."""
    rng = np.random.default_rng(seed)
    a = np.zeros((count, H + C + 20))
    for t in range(1, a.shape[1]):
        a[:, t] = 0.5 * a[:, t - 1] + rng.normal(size=count)
    b = np.roll(a, 1, axis=1) + 0.1 * rng.normal(size=a.shape)
    return 5 + np.stack((a, b), axis=-1)[:, -(H + C) :]


def small(**kwargs: int) -> MultivariateTSDiff:
    torch.manual_seed(0)
    return MultivariateTSDiff(H, C, 2, **{"hidden": 24, "blocks": 2, "modes": 4, "patch": 1, **kwargs})  # pyright: ignore


def test_mixing_starts_at_nothing_and_couples_channels_once_trained() -> None:
    network = MultivariateBackbone(H + C, 3, hidden=8, blocks=2, modes=2)
    torch.nn.init.normal_(network.shared.head[-1].weight)  # pyright: ignore
    x, t = torch.randn(2, H + C, 3), torch.tensor([0.2, 0.8])
    changed = x.clone()
    changed[..., 0] += 1
    before = (network(changed, t) - network(x, t)).abs().amax((0, 1))
    assert before[0] > 0
    assert (before[1:] == 0).all()
    torch.nn.init.normal_(network.mixing)
    after = (network(changed, t) - network(x, t)).abs().amax((0, 1))
    assert (after > 0).all()


def test_folder_round_trip_shapes_and_seeds(tmp_path: Path) -> None:
    model = small().eval()
    assert type(model)(**model.config()).config() == model.config()
    model.save(tmp_path / "m")
    loaded = fourfold.load(tmp_path / "m")
    assert isinstance(loaded, MultivariateTSDiff)
    past = leading(3, 0)[:, :C]
    made = model.forecast(list(past), 5, steps=3)
    assert made.shape == (3, 5, H, 2)
    assert np.array_equal(made, loaded.forecast(list(past), 5, steps=3))
    assert not np.array_equal(made, model.forecast(list(past), 5, steps=3, seed=1))
    np.testing.assert_allclose(model.forecast(list(past[:1]), 5, steps=3), made[:1], rtol=1e-4, atol=1e-4)
    assert model.sample(2, steps=3).shape == (2, H + C, 2)
    target = torch.from_numpy(leading(6, 0))
    target[1, 2:5, 0], target[2] = torch.nan, torch.nan
    loss = model.loss({"target": target}, NoiseSource(0, range(6)))
    assert torch.isfinite(loss).all()
    assert loss[2] == 0
    with pytest.raises(ValueError, match=r"must have shape \(T, 2\)"):
        model.forecast([np.zeros((9, 3))])
    with pytest.raises(ValueError, match="channel 1 of series 0 has no observed value"):
        model.forecast([np.stack((np.ones(9), np.full(9, np.nan)), 1)])


@pytest.mark.slow
def test_one_channel_tells_the_other() -> None:
    model = small()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(300):
        optimizer.param_groups[0]["lr"] = 1e-2 * min(1, (step + 1) / 20) * (1 - step / 300)
        loss = model.loss({"target": torch.from_numpy(leading(64, step))}, NoiseSource(step, range(64))).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval()
    test = leading(60, 10_000)
    made = model.forecast(list(test[:, :C]), 30, guidance=LineSearchGuidance())
    median = np.median(made, axis=1)
    # the second channel's first step is the first channel's last value; on its own it could not be known
    first = np.abs(median[:, 0, 1] - test[:, C, 1]).mean()
    alone = np.abs(0.5 * (test[:, C - 1, 1] - 5) - (test[:, C, 1] - 5)).mean()
    assert first < 0.85 * alone
    # the first channel is known to itself alone: its best forecast is 0.5 of its last deviation
    best = np.abs(0.5 * (test[:, C - 1, 0] - 5) - (test[:, C, 0] - 5)).mean()
    assert np.abs(median[:, 0, 0] - test[:, C, 0]).mean() < 1.35 * best
