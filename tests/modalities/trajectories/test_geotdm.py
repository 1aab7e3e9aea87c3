"""The recommended model: exact on Gaussian motions, and what a user can ask of it."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fourfold
from fourfold.core import NoiseSource
from fourfold.modalities.trajectories import GeoTDM, TrajectoryBatch, TrajectoryRecord, collate

WALK, SEEN = 0.1, 3


class _Oracle(nn.Module):
    """The perfect network for Gaussian residuals with a known correlation over the frames asked for."""

    def __init__(self, correlation: torch.Tensor, frames: slice) -> None:
        super().__init__()
        self.correlation, self.frames = correlation, frames
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor, t: torch.Tensor, *, mask: Any = None, condition: Any = None) -> torch.Tensor:
        half = t.double()[0]
        alpha, sigma = torch.sigmoid(half), torch.sigmoid(-half)
        size = torch.hypot(alpha, sigma)
        cos, sin = alpha / size, sigma / size
        noisy = x[:, :, self.frames].double() * size
        eye = torch.eye(len(self.correlation), dtype=torch.float64)
        gain = alpha * self.correlation @ torch.linalg.inv(alpha**2 * self.correlation + sigma**2 * eye)
        clean = torch.einsum("st,bntd->bnsd", gain, noisy)
        out = torch.zeros_like(x)
        out[:, :, self.frames] = ((clean - cos * x[:, :, self.frames]) / sin).to(x)
        return out


def _walks(count: int, frames: int) -> TrajectoryBatch:
    steps = np.random.default_rng(0).normal(size=(count, 2, frames, 3)).cumsum(2) * WALK
    return TrajectoryBatch(
        positions=torch.from_numpy((steps + 4.0).astype(np.float32)),
        features=torch.zeros(count, 2, 0),
        present=torch.ones(count, 2, frames, dtype=torch.bool),
        times=torch.arange(frames).float().expand(count, -1),
        ego=torch.ones(count, 2, dtype=torch.bool),
    )


def test_forecasts_of_random_walks_have_the_exact_posterior() -> None:
    """Mean: last frame; covariance after k and l frames: WALK^2 min(k, l). Anchor, units, path, solver at once."""
    model = GeoTDM(0, observed_frames=SEEN, target_frames=4, anchor="last", hidden=8, channels=4, layers=1)
    model.measure_units([_walks(3000, SEEN + 4)])
    k = torch.arange(1.0, 5.0, dtype=torch.float64)
    minimum = torch.minimum(k[:, None], k[None])
    model.network = _Oracle(minimum / (k[:, None] * k[None]).sqrt(), slice(SEEN, None))  # pyright: ignore[reportAttributeAccessIssue]
    observed = np.random.default_rng(1).normal(size=(2, SEEN, 3))
    drawn = model.forecast(observed, 4000, steps=12, seed=1, batch_rows=4000)
    moved = (drawn - observed[:, -1:].astype(np.float32)).transpose(0, 1, 3, 2).reshape(-1, 4)
    assert np.abs(moved.mean(0)).max() < 0.006
    covariance = np.cov(moved.T)
    assert np.allclose(covariance, WALK**2 * minimum.numpy(), atol=0.05 * WALK**2 * 4)
    # A Gaussian's flow is linear in the noise: temperature scales the spread, exactly.
    cooler = model.forecast(observed, 4000, steps=12, seed=1, batch_rows=4000, temperature=0.5)
    last = observed[:, -1:].astype(np.float32)
    assert np.allclose(cooler - last, 0.5 * (drawn - last), atol=2e-5)
    still = model.forecast(observed, 2, steps=12, temperature=0.0)
    assert np.allclose(still - last, 0, atol=2e-6)


def test_gaps_of_random_walks_are_filled_with_bridges() -> None:
    """Between two observed frames L apart: linear interpolation, covariance WALK^2 k (L - l) / L for k <= l."""
    model = GeoTDM(
        0, observed_frames=2, target_frames=4, anchor="last", conditioning={"interpolate": 1.0}, hidden=8, channels=4
    )
    model.measure_units([_walks(3000, 6)])
    k = np.arange(1.0, 5.0)
    covariance = WALK**2 * np.minimum(k[:, None], k[None]) * (5 - np.maximum(k[:, None], k[None])) / 5
    spread = np.sqrt(np.diag(covariance))
    correlation = torch.from_numpy(covariance / spread[:, None] / spread[None])
    model.network = _Oracle(correlation, slice(1, 5))  # pyright: ignore[reportAttributeAccessIssue]
    # Two equal leads at different ends: the measured scale is that of both.
    assert float(model.units.residual[1, 1]) == pytest.approx(spread[0], rel=0.04)
    assert float(model.units.residual[1, 2]) == pytest.approx(spread[1], rel=0.04)
    positions = np.random.default_rng(1).normal(size=(2, 6, 3))
    known = np.array([True, False, False, False, False, True])
    drawn = model.interpolate(positions, known, 4000, steps=12, batch_rows=4000)
    assert np.array_equal(drawn[:, :, known], np.broadcast_to(positions[:, known].astype(np.float32), (4000, 2, 2, 3)))
    line = positions[:, :1] + (positions[:, 5:] - positions[:, :1]) * np.arange(6)[:, None] / 5
    moved = (drawn - line).transpose(0, 1, 3, 2).reshape(-1, 6)[:, 1:5]
    assert np.abs(moved.mean(0)).max() < 0.006
    assert np.allclose(np.cov(moved.T), covariance, atol=0.06 * covariance.max())


def _model(**changes: Any) -> GeoTDM:
    torch.manual_seed(0)
    sizes = {"hidden": 16, "channels": 4, "layers": 2, "messages": 8, "heads": 2, "sampling_steps": 4}
    model = GeoTDM(1, **{"observed_frames": 4, "target_frames": 3, **sizes, **changes})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.measure_units([collate(_records(40))], repeats=4)
    return model.eval()


def _records(count: int, agents: int = 3, frames: int = 7, seed: int = 0) -> list[TrajectoryRecord]:
    rng = np.random.default_rng(seed)
    return [
        TrajectoryRecord(rng.normal(size=(agents, frames, 3)).cumsum(1), features=rng.choice([-1.0, 1.0], (agents, 1)))
        for _ in range(count)
    ]


def _turn(seed: int = 0) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]


def test_the_model_turns_and_moves_with_its_observations() -> None:
    model, batch = _model(), collate(_records(2), 4)
    turn = torch.from_numpy(_turn()).float()
    moved = TrajectoryBatch(batch.positions @ turn + 3.0, batch.features, batch.present, batch.times, batch.ego)
    assert batch.observed is not None
    u = torch.where(batch.observed.unsqueeze(-1), 0, torch.randn(2, 3, 7, 3))
    t = torch.tensor(0.6)
    here, anchor, scale = model.condition(batch, batch.observed)
    there, moved_anchor, same = model.condition(moved, batch.observed)
    assert torch.allclose(moved_anchor, anchor @ turn + 3.0, atol=1e-4)
    assert torch.equal(scale, same)
    clean = model.denoiser()(u, t, mask=~batch.observed, condition=here)
    turned = model.denoiser()(u @ turn, t, mask=~batch.observed, condition=there)
    assert torch.allclose(turned, clean @ turn, atol=1e-4)


def test_forecasts_are_shaped_seeded_and_ignore_their_neighbours() -> None:
    model, records = _model(), _records(2, frames=4)
    drawn = model.forecast(records, 5, seed=3)
    assert drawn.shape == (2, 5, 3, 3, 3)
    assert drawn.dtype == np.float32
    assert np.array_equal(drawn, model.forecast(records, 5, seed=3))
    assert not np.allclose(drawn, model.forecast(records, 5, seed=4))
    alone = model.forecast(records[0], 5, seed=3)
    assert np.allclose(alone, drawn[0], atol=1e-5)
    larger = _records(1, agents=5, frames=4, seed=8)[0]
    mixed = model.forecast([records[0], larger], 5, seed=3, batch_rows=3)
    assert mixed.shape == (2, 5, 5, 3, 3)
    assert np.allclose(mixed[0, :, :3], alone, atol=1e-4)
    assert np.array_equal(mixed[0, :, 3:], np.zeros((5, 2, 3, 3), np.float32))
    array = np.stack([r.positions for r in records])
    features = np.stack([r.features for r in records])
    assert np.allclose(model.forecast(array, 5, seed=3, features=features), drawn, atol=1e-6)
    assert model.forecast(array, 2, frames=9, features=features).shape == (2, 2, 3, 9, 3)


def test_agents_that_come_late_and_true_times() -> None:
    model, record = _model(), _records(1, frames=4)[0]
    present = np.ones((3, 4), bool)
    present[2, :2] = False
    hidden = record.positions.copy()
    hidden[2, :2] = 1e6
    late = TrajectoryRecord(hidden, record.features, present=present)
    also = TrajectoryRecord(np.where(present[..., None], record.positions, 0), record.features, present=present)
    drawn = model.forecast(late, 3)
    assert np.isfinite(drawn).all()
    assert np.allclose(drawn, model.forecast(also, 3))
    assert not np.allclose(drawn, model.forecast(record, 3))
    slow = model.forecast(record, 3, future_times=[4.0, 5.0, 6.0])
    assert np.allclose(slow, model.forecast(record, 3))
    assert not np.allclose(slow, model.forecast(record, 3, future_times=[4.5, 5.0, 6.0]))


def test_interpolation_keeps_what_is_observed_and_takes_any_mask() -> None:
    model = _model(conditioning={"forecast": 1.0, "interpolate": 1.0, "places": 1.0, "agents": 1.0})
    record = _records(1)[0]
    mask = np.random.default_rng(0).random((3, 7)) < 0.5
    drawn = model.interpolate(record, mask, 4, seed=1)
    assert drawn.shape == (4, 3, 7, 3)
    assert np.array_equal(drawn[:, mask], np.broadcast_to(record.positions[mask], (4, int(mask.sum()), 3)))
    garbage = np.where(mask[..., None], record.positions, np.nan)
    assert np.allclose(model.interpolate(garbage, mask, 4, seed=1, features=record.features), drawn, atol=1e-5)
    whole = np.zeros((3, 7), bool)
    whole[:2] = True
    assert np.isfinite(model.interpolate(record, whole, 2)).all()
    frames = np.array([True, True, False, False, False, True, True])
    assert np.isfinite(model.interpolate(record, frames, 2)).all()


def test_samples_out_of_nothing_are_centred() -> None:
    model = _model(conditioning={"none": 1.0, "forecast": 1.0})
    drawn = model.sample(5, like=_records(2), seed=2)
    assert drawn.shape == (5, 3, 7, 3)
    assert np.abs(drawn.mean((1, 2))).max() < 1e-5
    batch = collate(_records(8))
    losses = model.loss(batch, NoiseSource(0, range(8)))
    assert losses.shape == (8,)
    assert torch.isfinite(losses).all()
    assert torch.allclose(losses[2:5], model.loss(batch[2:5], NoiseSource(0, range(2, 5))), rtol=1e-4)
    with pytest.raises(ValueError, match="trained with observations only"):
        _model().sample(1, like=_records(1))
    with pytest.raises(ValueError, match="give `like`"):
        model.sample(1)


def test_long_forecasts_are_blocks_after_one_another() -> None:
    model, record = _model(), _records(1, frames=4)[0]
    drawn = model.extend(record, 8, 2, seed=5)
    assert drawn.shape == (2, 3, 8, 3)
    assert np.isfinite(drawn).all()
    assert np.allclose(drawn, model.extend(record, 8, 2, seed=5))
    # every block follows the one before
    second = TrajectoryRecord(np.concatenate((record.positions, drawn[0, :, :3]), 1)[:, -4:], record.features)
    jumps = np.linalg.norm(drawn[:, :, 3] - drawn[:, :, 2], axis=-1).mean()
    ahead = np.linalg.norm(model.forecast(second, 4)[:, :, 0] - second.positions[:, -1], axis=-1).mean()
    assert jumps < 5 * ahead


def test_blocks_of_a_long_forecast_do_not_repeat_each_other_s_noise() -> None:
    model = GeoTDM(1, observed_frames=1, target_frames=3, anchor="last", hidden=8, channels=4, layers=1)
    model.measure_units([collate(_records(40, frames=4))])  # untrained, it only shapes the noise
    drawn = model.extend(_records(1, frames=1)[0], 6)
    first, second = drawn[:, :, :3] - _records(1, frames=1)[0].positions, drawn[:, :, 3:] - drawn[:, :, 2:3]
    assert np.abs(first - second).max() > 0.1 * np.abs(first).max()


def test_observations_are_blurred_in_training_only() -> None:
    sharp, blurred = _model(), _model(observation_noise=0.5)
    blurred.load_state_dict(sharp.state_dict())
    batch, source = collate(_records(6), 4), NoiseSource(0, range(6))
    assert torch.equal(blurred.loss(batch, source), sharp.loss(batch, source))
    trained = blurred.train().loss(batch, source)
    assert not torch.allclose(trained, sharp.train().loss(batch, source))
    assert torch.allclose(trained[2:4], blurred.loss(batch[2:4], source[2:4]), rtol=1e-4)
    with pytest.raises(ValueError, match="observation_noise must not be negative"):
        _model(observation_noise=-0.1)


def test_records_in_another_unit_are_refused() -> None:
    model, record = _model(units="m"), _records(1, frames=4)[0]
    assert model.config()["units"] == "m"
    assert model.forecast(replace(record, units="m"), 1).shape == (1, 3, 3, 3)
    with pytest.raises(ValueError, match="trained on places in 'm', walk 7 is in 'cm'"):
        model.forecast([replace(record, units="cm", name="walk 7")], 1)
    with pytest.raises(ValueError, match="unknown unit of length 'metre'"):
        _model(units="metre")


def test_refinement_starts_from_the_proposal() -> None:
    model, record = _model(), _records(1)[0]
    known = np.arange(7) < 4
    near, far = (model.refine(record, known, start, 8, seed=1) for start in (0.02, 0.9))
    assert np.array_equal(near[:, :, :4], np.broadcast_to(record.positions[:, :4], (8, 3, 4, 3)))
    gap = [float(np.abs(drawn[:, :, 4:] - record.positions[:, 4:]).mean()) for drawn in (near, far)]
    assert 0 < gap[0] < 0.3 * gap[1]
    with pytest.raises(ValueError, match="start must be in"):
        model.refine(record, known, 1.0)


@pytest.mark.parametrize("anchor", ["last", "velocity", "center", {"name": "learnt", "layers": 1}])
def test_a_saved_model_forecasts_the_same(anchor: Any, tmp_path: Path) -> None:
    model, record = _model(anchor=anchor), _records(1, frames=4)[0]
    again = fourfold.load(model.save(tmp_path / "model"))
    assert isinstance(again, GeoTDM)
    assert again.config() == model.config()
    assert np.array_equal(again.forecast(record, 2), model.forecast(record, 2))


@pytest.mark.parametrize(
    ("parameterization", "anchor"),
    [("data", "velocity"), ("v", {"name": "learnt", "layers": 1, "base": {"name": "last"}}), ("flow", "center")],
)
def test_a_short_training_lowers_the_loss(parameterization: Any, anchor: Any) -> None:
    torch.manual_seed(0)
    model = GeoTDM(
        1,
        observed_frames=4,
        target_frames=3,
        anchor=anchor,
        parameterization=parameterization,
        hidden=16,
        channels=8,
        layers=2,
        messages=8,
    )
    grid = np.arange(7)[None, :, None]
    rng = np.random.default_rng(0)
    records = [
        TrajectoryRecord(
            rng.normal(size=(2, 1, 3)) + rng.normal(size=(2, 1, 3)) * grid**2 * 0.05, features=np.ones((2, 1))
        )
        for _ in range(64)
    ]
    batch = collate(records, 4)
    model.measure_units([batch])
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    before = model.loss(batch, NoiseSource(99, range(64))).mean().item()
    for step in range(50):
        loss = model.loss(batch, NoiseSource(step, range(64))).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert model.loss(batch, NoiseSource(99, range(64))).mean().item() < 0.4 * before
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.forecast(np.zeros((3, 4))), r"must have shape \(agents, frames, coordinates\)"),
        (lambda m: m.forecast(np.zeros((3, 4, 5))), "2 or 3 coordinates"),
        (lambda m: m.forecast(np.zeros((3, 0, 3))), "zero observed frames"),
        (lambda m: m.forecast(np.full((3, 4, 3), np.nan)), "NaN or infinite"),
        (lambda m: m.forecast([np.zeros((3, 4, 3)), np.zeros((2, 4, 3))]), "list of TrajectoryRecord"),
        (lambda m: m.forecast(np.zeros((3, 4, 3)), times=[0, 2, 1, 3], features=np.ones((3, 1))), "strictly increase"),
        (lambda m: m.forecast(np.zeros((3, 4, 3))), "1 features per agent and 0 per pair, got 0"),
        (lambda m: m.forecast(_records(1)[0], 0), "num_samples must be at least 1"),
        (lambda m: m.forecast(_records(1)[0], 1, frames=0), "at least one frame"),
        (lambda m: m.forecast(_records(1)[0], 1, future_times=[3.0, 9.0]), "come after the observed"),
        (lambda m: m.forecast(_records(1)[0], 1, future_times=[8.0, 7.5]), "strictly increase"),
        (lambda m: m.forecast(_records(1)[0], 1, steps=0), "at least 1 step"),
        (lambda m: m.interpolate(_records(1)[0], np.ones(5, bool)), "does not go with"),
        (lambda m: m.interpolate(_records(1)[0], np.zeros(7, bool)), "nothing is observed"),
        (lambda m: m.interpolate(_records(1)[0], np.ones(7)), "must be boolean"),
        (lambda m: m.interpolate(np.full((3, 7, 3), np.nan), np.ones(7, bool)), "observed positions are NaN"),
        (lambda m: m.extend(_records(1)[0], 0), "at least 1"),
        (lambda m: m.forecast(_records(1)[0], 1, temperature=-1.0), "temperature must be 0 or more"),
    ],
)
def test_bad_input_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(_model())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conditioning": {"past": 1.0}}, "conditioning must give weights"),
        ({"conditioning": {"forecast": 0.0}}, "conditioning must give weights"),
        ({"parameterization": "noise"}, "parameterization must be one of data, v, flow"),
        ({"target_frames": 0}, "do not make sense"),
        ({"anchor": "first"}, "unknown anchor"),
        ({"sampling_temperature": float("inf")}, "sampling_temperature must be 0 or more"),
    ],
)
def test_bad_settings_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GeoTDM(1, **changes)


def test_the_level_of_noise_is_seen_as_an_angle() -> None:
    """The network's own estimate e = cos u + sin G is the denoiser's."""
    model, batch = _model(), collate(_records(2), 4)
    assert batch.observed is not None
    condition, _, _ = model.condition(batch, batch.observed)
    denoiser, t = model.denoiser(), torch.tensor(0.3)
    u = torch.where(batch.observed.unsqueeze(-1), 0, torch.randn(2, 3, 7, 3))
    size = math.hypot(0.7, 0.3)
    shown = u / size
    out = model.network(shown, torch.full((2,), math.log(0.7 / 0.3)), condition=condition)
    estimate = 0.7 / size * shown + 0.3 / size * out
    assert torch.allclose(denoiser(u, t, condition=condition), estimate, atol=1e-5)
