"""Known covariates, other horizons and contexts, and masks of a conditional network."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from oracles import draw, exact_model  # pyright: ignore[reportMissingImports]

from fourfold.core import NoiseSource
from fourfold.modalities.timeseries import (
    ContextMasks,
    LineSearchGuidance,
    MomentMatchingGuidance,
    QuantileGuidance,
    RandomMasks,
    TSDiff,
    TSDiffEstimator,
)

H, C = 4, 12


def small(**kwargs: Any) -> TSDiff:
    torch.manual_seed(0)
    model = TSDiff(H, C, hidden=8, blocks=1, modes=2, sampling_steps=4, **kwargs)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def test_longer_horizons_go_on_from_each_sample_as_the_process_does() -> None:
    model = exact_model(H, C)
    past = draw(1, C, seed=6)
    made = np.asarray(
        model.forecast(
            past, 1500, prediction_length=10, guidance=MomentMatchingGuidance(noise=0.02, iterations=8), steps=60
        )
    )[0]
    assert made.shape == (1500, 10)
    ahead = np.arange(1, 11)
    assert np.abs(made.mean(0) - past[0, -1] * 0.9**ahead).max() < 0.12
    assert np.abs(made.std(0) - np.sqrt(1 - 0.81**ahead)).max() < 0.12
    # across the seam of two blocks samples go on from where they are
    assert np.corrcoef(made[:, 3], made[:, 4])[0, 1] > 0.75


def test_shorter_horizons_and_contexts() -> None:
    model, past = small(), [10 + draw(1, 40)[0]]
    whole = np.asarray(model.forecast(past, 6))
    assert np.array_equal(model.forecast(past, 6, prediction_length=2), whole[:, :, :2])
    assert np.array_equal(model.forecast(past, 6, prediction_length=9)[:, :, :4], whole)
    near = np.asarray(model.forecast(past, 6, context_length=5))
    hidden = past[0].copy()
    hidden[-C:-5] = np.nan
    level = np.abs(past[0]).mean()
    assert level > 0
    np.testing.assert_allclose(near, model.forecast([hidden], 6), rtol=1e-5)
    assert not np.allclose(near, whole)
    (forecast,) = model.forecast(
        [{"target": past[0], "start": pd.Period("2024-01-01", "h"), "item_id": "a"}], 3, prediction_length=11
    )
    assert forecast.samples.shape == (3, 11)
    for bad in ({"prediction_length": 0}, {"context_length": 13}, {"context_length": 0}):
        with pytest.raises(ValueError, match="between 1 and 12"):
            model.forecast(past, 3, **bad)


def entry(values: np.ndarray, dynamic: np.ndarray, static: float = 0.0, name: str = "a") -> dict[str, Any]:
    return {
        "target": values,
        "start": pd.Period("2024-01-01", freq="h"),
        "item_id": name,
        "feat_dynamic_real": dynamic,
        "feat_static_real": [static],
    }


def test_covariates_reach_the_network_at_the_right_steps(tmp_path: Path) -> None:
    model = small(dynamic_features=1, static_features=1, calendar=("hour_of_day",))
    seen: list[torch.Tensor] = []
    model.denoiser.network.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["condition"]["covariates"]), with_kwargs=True
    )
    values, dynamic = 10 + draw(1, 30)[0], np.arange(40.0)
    model.forecast([entry(values, dynamic, static=7.0)], 2)
    assert seen[-1].shape == (2, C + H, 6 + 1 + 1)
    assert seen[-1][0, :, 6].tolist() == list(range(18, 34))
    assert (seen[-1][..., 7] == 7).all()
    model.forecast([entry(values[:5], dynamic)], 2)
    assert seen[-1][0, :, 6].tolist() == [0.0] * 7 + list(range(9))  # before the series began, its first value
    model.forecast([entry(values, dynamic, static=7.0)], 2, prediction_length=9)
    # the last of three blocks, of which a single step is wanted: covariates beyond it are not asked for
    assert seen[-1][0, :, 6].tolist() == [*range(26, 40), 39.0, 39.0]
    model.save(tmp_path / "m")
    again = TSDiff.load(tmp_path / "m")
    for ours, theirs in zip(
        model.forecast([entry(values, dynamic)], 2), again.forecast([entry(values, dynamic)], 2), strict=True
    ):
        assert np.array_equal(ours.samples, theirs.samples)
    with pytest.raises(ValueError, match=r"known covariates .* for 34 steps, the future included, got 33"):
        model.forecast([entry(values, dynamic[:33])], 2)
    with pytest.raises(ValueError, match="not finite"):
        model.forecast([entry(values, np.full(40, np.nan))], 2)
    with pytest.raises(ValueError, match="static covariates"):
        model.forecast([{k: v for k, v in entry(values, dynamic).items() if k != "feat_static_real"}], 2)


@pytest.mark.filterwarnings("ignore")
def test_a_trained_model_uses_a_known_covariate(tmp_path: Path) -> None:
    """The horizon is a multiple of a covariate that is fresh noise: nothing else can tell it."""
    rng = np.random.default_rng(0)
    dynamic = rng.normal(size=(4, 400))
    data = [entry(5 + 2 * d[:390] + 0.1 * rng.normal(size=390), d, name=f"s{i}") for i, d in enumerate(dynamic)]
    model = {"hidden": 16, "modes": 4, "blocks": 1, "dynamic_features": 1, "patch": 1, "scaler": {"name": "zscore"}}
    estimator = TSDiffEstimator(
        freq="h",
        prediction_length=8,
        context_length=16,
        model=model,
        batch_size=32,
        lr=5e-3,
        num_batches_per_epoch=120,
        trainer_kwargs={
            "max_epochs": 2,
            "accelerator": "cpu",
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "logger": False,
            "default_root_dir": str(tmp_path),
        },
    )
    made = list(estimator.train(data).predict(data, num_samples=20))
    truth = 5 + 2 * dynamic[:, 390:398]
    error = np.abs(np.stack([np.median(f.samples, axis=0) for f in made]) - truth).mean()
    assert error < 0.6 * np.abs(truth - 5).mean()


def test_masks_show_a_part_of_what_is_observed() -> None:
    observed = torch.rand(4000, 16, generator=torch.Generator().manual_seed(0)) < 0.9
    context = ContextMasks().draw(observed, 12, NoiseSource(0, range(4000)))
    assert torch.equal(context, observed & (torch.arange(16) < 12))
    seen = RandomMasks().draw(observed, 12, NoiseSource(0, range(4000)))
    assert not (seen & ~observed).any()
    share = seen.float().mean(0)
    assert share[0] < share[6]  # beginnings are hidden by backcasts, ends by forecasts
    assert share[15] < share[6]
    full = RandomMasks().draw(torch.ones(4000, 16, dtype=torch.bool), 12, NoiseSource(0, range(4000)))
    forecasts = (full == (torch.arange(16) < 12)).all(1).float().mean()
    assert 0.22 < forecasts < 0.32
    assert torch.equal(full[5:7], RandomMasks().draw(torch.ones(2, 16, dtype=torch.bool), 12, NoiseSource(0, [5, 6])))
    with pytest.raises(ValueError, match="fraction"):
        RandomMasks(1.0)


def test_one_network_with_random_masks_forecasts_imputes_and_backcasts() -> None:
    """Waves of random phase: whatever part is missing, the rest tells it."""
    rng = np.random.default_rng(0)

    def waves(count: int) -> np.ndarray:
        phase = rng.uniform(0, 2 * np.pi, (count, 1))
        return 10 + 3 * np.sin(2 * np.pi * np.arange(24) / 8 + phase) + 0.2 * rng.normal(size=(count, 24))

    torch.manual_seed(0)
    model = TSDiff(8, 16, hidden=24, modes=4, blocks=2, patch=1, context_dropout=0.1, masks=RandomMasks())
    assert TSDiff(**model.config()).config() == model.config()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(300):
        optimizer.param_groups[0]["lr"] = 1e-2 * min(1, (step + 1) / 20) * (1 - step / 300)
        target = torch.from_numpy(waves(48))
        loss = model.loss({"target": target, "level": target.abs().mean(1)}, NoiseSource(step, range(48))).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval()
    test = waves(12)
    for gap in (range(16, 24), range(8), range(9, 15)):
        hidden = test.copy()
        hidden[:, list(gap)] = np.nan
        for guidance in (QuantileGuidance(0.0), LineSearchGuidance()):
            made = model.impute(list(hidden), 10, guidance=guidance)
            error = np.abs(np.stack([one.filled() for one in made]) - test)[:, list(gap)].mean()
            assert error < 0.3 * np.abs(test - 10).mean()


def test_synthetic_entries_keep_the_covariates_they_were_drawn_for() -> None:
    model = small(dynamic_features=2, static_features=1, calendar=("hour_of_day",))
    dynamic = np.stack((np.arange(60.0), -np.arange(60.0)))
    drawn = model.synthesize(5, like=[entry(10 + draw(1, 50)[0], dynamic, static=7.0)], steps=2)
    for made in drawn.entries():
        begin = int((made["start"] - pd.Period("2024-01-01", freq="h")).n)
        assert made["feat_dynamic_real"].tolist() == dynamic[:, begin : begin + C + H].tolist()
        assert made["feat_static_real"].tolist() == [7.0]
    assert "feat_dynamic_real" not in small().synthesize(2, steps=2).entries()[0]
