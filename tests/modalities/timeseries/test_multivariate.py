"""Vectors of series: a vector autoregression whose second channel is the first one, a step later."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))

from oracles import Exact, Units  # pyright: ignore[reportMissingImports]

import fourfold
from fourfold.core import NoiseSource
from fourfold.core.testing import GaussianOracle
from fourfold.modalities.timeseries import MultivariateTSDiff
from fourfold.modalities.timeseries.multivariate_backbone import MultivariateBackbone

H, C = 4, 8


def leading(count: int, seed: int, context: int = C) -> NDArray[np.float64]:
    """a_t = 0.5 a_{t-1} + e_t,  b_t = a_{t-1} + 0.1 u_t: the best forecast of b_{t+1} is a_t, with error 0.1."""
    rng = np.random.default_rng(seed)
    a = np.zeros((count, H + context + 20))
    for t in range(1, a.shape[1]):
        a[:, t] = 0.5 * a[:, t - 1] + rng.normal(size=count)
    b = np.roll(a, 1, axis=1) + 0.1 * rng.normal(size=a.shape)
    return 5 + np.stack((a, b), axis=-1)[:, -(H + context) :]


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


def test_series_do_not_depend_on_batches_and_horizons_may_be_any() -> None:
    model, past = small().eval(), list(leading(3, 0)[:, :C])
    whole = np.asarray(model.forecast(past, 5, steps=3, prediction_length=2 * H + 1))
    assert whole.shape == (3, 5, 2 * H + 1, 2)
    assert np.isfinite(whole).all()
    for rows in (1, 7, 10):
        made = model.forecast(past, 5, steps=3, prediction_length=2 * H + 1, batch_rows=rows)
        np.testing.assert_allclose(made, whole, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(model.forecast(past, 5, steps=3), whole[:, :, :H])
    np.testing.assert_array_equal(model.forecast(past, 5, steps=3, prediction_length=2), whole[:, :, :2])
    # the second block goes on from the first as if that had been seen
    longer = [np.concatenate((series, drawn[0, :H])) for series, drawn in zip(past, whole, strict=True)]
    assert np.abs(np.asarray(model.forecast(longer, 5, steps=3)).mean() - whole[:, :, H : 2 * H].mean()) < 1
    window = leading(2, 1)
    window[:, 3:, 1] = np.nan
    filled = model.complete(window, 4, steps=3)
    np.testing.assert_allclose(model.complete(window, 4, steps=3, batch_rows=3), filled, rtol=1e-4, atol=1e-4)
    for call in (lambda: model.forecast(past, 0), lambda: model.complete(window, 0), lambda: model.sample(0)):
        with pytest.raises(ValueError, match="num_samples must be at least 1, got 0"):
            call()
    with pytest.raises(ValueError, match="prediction_length must be at least 1, got 0"):
        model.forecast(past, 5, prediction_length=0)


def test_gluonts_entries_hold_channels_first() -> None:
    model, past = small().eval(), leading(2, 0)[:, :C]
    start = pd.Period("2024-01-01", freq="h")
    entries = [{"target": p.T, "start": start, "item_id": f"v{i}"} for i, p in enumerate(past)]
    made = model.forecast(entries, 5, steps=3)
    assert [f.samples.shape for f in made] == [(5, H, 2)] * 2  # pyright: ignore
    assert [(f.item_id, f.start_date) for f in made] == [("v0", start + C), ("v1", start + C)]  # pyright: ignore
    alone = model.forecast(entries[1:], 5, steps=3)[0]
    np.testing.assert_allclose(alone.samples, made[1].samples, rtol=1e-4, atol=1e-4)  # pyright: ignore
    with pytest.raises(ValueError, match=r"the target of item v0 must have shape \(2, T\), got \(8, 2\)"):
        model.forecast([{**entries[0], "target": past[0]}])
    with pytest.raises(ValueError, match="a model has one frequency"):
        model.forecast([entries[0], {**entries[1], "start": pd.Period("2024-01-01", freq="D")}])


def law(length: int) -> NDArray[np.float64]:
    """Covariance of `leading` windows, flattened `(a_0, b_0, a_1, ...)`."""
    time = np.arange(length)
    apart = time[:, None] - time
    made = np.zeros((length, 2, length, 2))
    made[:, 0, :, 0] = 4 / 3 * 0.5 ** np.abs(apart)
    made[:, 1, :, 1] = 4 / 3 * 0.5 ** np.abs(apart) + 0.01 * np.eye(length)
    made[:, 0, :, 1] = 4 / 3 * 0.5 ** np.abs(apart + 1)
    made[:, 1, :, 0] = made[:, 0, :, 1].T
    return made.reshape(2 * length, -1)


class ExactVector(Exact):
    def forward(self, x_t: Tensor, t: Tensor, *, mask: Tensor | None = None, condition: Any = None) -> Tensor:
        return self.oracle(x_t.flatten(1), t).reshape(x_t.shape)


def known_answer(past: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean `(N, H, D)` and standard deviation `(H, D)` of the horizon given contexts `(N, c, D)` of mean 0."""
    whole, c = law(past.shape[1] + H), 2 * past.shape[1]
    gain = whole[c:, :c] @ np.linalg.inv(whole[:c, :c])
    spread = np.sqrt(np.diag(whole[c:, c:] - gain @ whole[:c, c:]))
    return (past.reshape(len(past), -1) @ gain.T).reshape(len(past), H, 2), spread.reshape(H, 2)


def test_sampling_with_the_exact_model_gives_the_known_answer() -> None:
    model = MultivariateTSDiff(H, C, 2, scaler=Units(), hidden=4, blocks=1, modes=2, patch=1).eval()
    oracle = GaussianOracle(torch.zeros(2 * (H + C)), torch.from_numpy(law(H + C)), model.denoiser.path)  # pyright: ignore
    model.denoiser = ExactVector(oracle)  # pyright: ignore
    past = leading(8, 3)[:, :C] - 5
    mean, spread = known_answer(past)
    assert spread[0] == pytest.approx([1, 0.1], rel=1e-3)
    assert mean[:, 0, 1] == pytest.approx(past[:, -1, 0], abs=0.02)
    made = np.asarray(model.forecast(list(past), 100, steps=50))
    # The error of a mean of 100 samples is a tenth of their spread, and guidance makes spreads slightly too narrow.
    assert (np.sqrt(np.mean((made.mean(axis=1) - mean) ** 2, axis=0)) < 0.25 * spread).all()
    ratio = made.std(axis=1).mean(axis=0) / spread
    assert ((ratio > 0.65) & (ratio < 1.1)).all()


@pytest.mark.slow
def test_a_trained_model_comes_close_to_the_known_answer() -> None:
    """Contexts of 24 steps: each channel is scaled by its own, and 8 steps hardly tell how the two scales relate."""
    context, steps = 24, 400
    torch.manual_seed(0)
    model = MultivariateTSDiff(H, context, 2, hidden=24, blocks=2, modes=4, patch=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 5e-3 * min(1, (step + 1) / 20) * (1 + np.cos(np.pi * step / steps))
        batch = {"target": torch.from_numpy(leading(64, step, context))}
        loss = model.loss(batch, NoiseSource(step, range(64))).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval()
    past = leading(60, 10_000, context)[:, :context]
    mean, spread = known_answer(past - 5)
    made = np.asarray(model.forecast(list(past), 30))
    error = np.sqrt(np.mean((np.median(made, axis=1) - 5 - mean) ** 2, axis=0))
    # The second channel's first step is the first channel's last value, to 0.1. On its own it could not be known: the
    # error would be 1.
    assert error[0, 1] < 0.35
    assert made[:, :, 0, 1].std(axis=1).mean() < 0.4
    # The error of a median of 30 samples is 0.23 of their spread.
    assert (error[:, 0] < 0.6 * spread[:, 0]).all()
    assert (error[1:, 1] < 0.6 * spread[1:, 1]).all()
