"""Anchors: exact on the motions they describe, equivariant, finite for every mask; units measured on data."""

import numpy as np
import pytest
import torch

from fourfold.core import Centered, GaussianPath, NoiseSource, Rectified
from fourfold.modalities.trajectories import Center, ConstantVelocity, LastFrame, Learnt, TrajectoryBatch
from fourfold.modalities.trajectories.anchors import Anchor, build_anchor, describe_anchor, spans
from fourfold.modalities.trajectories.conditioning import PATTERNS, draw_observed
from fourfold.modalities.trajectories.scaling import Units

RULES = [LastFrame(), ConstantVelocity(), ConstantVelocity(3), Center()]
TIMES = torch.tensor([[0.0, 1.0, 1.5, 3.0, 4.0, 6.0, 7.0, 9.0]])


def _mask(*frames: int) -> torch.Tensor:
    mask = torch.zeros(1, 2, 8, dtype=torch.bool)
    mask[0, 0, list(frames)] = True
    mask[0, 1, [0, 1]] = True
    return mask


@pytest.mark.parametrize("frames", [(0, 1, 2), (5, 6, 7), (0, 1, 6, 7), (2, 3), (0, 2, 5, 6)])
@pytest.mark.parametrize("window", [1, 2])
def test_constant_velocity_is_exact_on_straight_motion_at_true_times(frames: tuple[int, ...], window: int) -> None:
    start, velocity = torch.randn(1, 2, 1, 3), torch.randn(1, 2, 1, 3)
    x = start + velocity * TIMES[:, None, :, None]
    assert torch.allclose(ConstantVelocity(window)(x, _mask(*frames), TIMES), x, atol=1e-5)


def test_last_frame_stays_and_interpolates() -> None:
    x = torch.randn(1, 2, 8, 3)
    anchor = LastFrame()(x, _mask(2, 5), TIMES)[0, 0]
    assert torch.equal(anchor[0], x[0, 0, 2])
    assert torch.equal(anchor[7], x[0, 0, 5])
    assert torch.allclose(anchor[3], x[0, 0, 2] + (3.0 - 1.5) / (6.0 - 1.5) * (x[0, 0, 5] - x[0, 0, 2]))


def test_constant_velocity_between_observations_follows_a_cubic() -> None:
    times = torch.arange(9.0)[None]
    x = (times**3 / 100 - times**2 / 10)[:, None, :, None].repeat(1, 1, 1, 3)
    seen = torch.ones(1, 1, 9, dtype=torch.bool)
    seen[..., 3:6] = False
    cubic, line = ConstantVelocity()(x, seen, times), LastFrame()(x, seen, times)
    assert (cubic - x).abs().max() < 0.5 * (line - x).abs().max()


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_observed_places_stay_and_everything_turns_with_the_data(rule: Anchor) -> None:
    x, seen = torch.randn(1, 2, 8, 3, dtype=torch.float64), _mask(0, 1, 4)
    x[~seen] = torch.nan  # unknown places are never looked at
    times = TIMES.double()
    anchor = rule(x, seen, times)
    assert torch.isfinite(anchor).all()
    assert torch.equal(anchor[seen], x[seen])
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    assert torch.allclose(rule(x @ turn + 3.0, seen, times), anchor @ turn + 3.0, atol=1e-12)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_agents_without_observations_are_expected_among_the_others(rule: Anchor) -> None:
    x, seen = torch.randn(1, 2, 8, 3) + 5.0, _mask(0, 1, 4)
    seen[0, 0] = False
    anchor = rule(x, seen, TIMES)
    assert torch.allclose(anchor[0, 0], anchor[0, 1])
    assert torch.equal(rule(x, torch.zeros_like(seen), TIMES), torch.zeros_like(x))


def test_spans_name_kinds_and_leads() -> None:
    where = spans(_mask(2, 5), TIMES)
    assert where.kind[0, 0].tolist() == [0, 0, 1, 1, 1, 1, 0, 0]
    assert where.lead[0, 0].tolist() == [1.5, 0.5, 0.0, 1.5, 2.0, 0.0, 1.0, 3.0]
    seen = _mask()
    assert spans(seen, TIMES).kind[0, 0].unique().tolist() == [2]
    assert spans(torch.zeros_like(seen), TIMES).kind.unique().tolist() == [3]


def test_residuals_are_the_core_s_centered_path() -> None:
    """x_t = a + s (alpha u + sigma eps) is the path centered at the anchor, for any t."""
    path = GaussianPath(Rectified())
    x, anchor, eps = (torch.randn(4, 3, 5, 3, dtype=torch.float64) for _ in range(3))
    t, scale = torch.rand(4, dtype=torch.float64), 0.37
    ours = anchor + scale * path.perturb((x - anchor) / scale, t, eps)
    theirs = Centered(path, anchor).perturb(x, t, scale * eps)
    assert torch.allclose(ours, theirs, atol=1e-12)


def test_descriptions_make_the_same_anchor_again() -> None:
    for rule in (*RULES, Learnt(3, {"name": "last"})):
        assert build_anchor(describe_anchor(rule)) == rule
    assert build_anchor("last") == LastFrame()
    for wrong, message in (("nothing", "unknown anchor"), ({"name": "velocity", "window": 0}, "at least 1")):
        with pytest.raises(ValueError, match=message):
            build_anchor(wrong)
    with pytest.raises(ValueError, match="velocity"):
        build_anchor({"name": "velocity", "windows": 1})


def test_units_of_a_random_walk_grow_with_the_square_root_of_the_lead() -> None:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(400, 3, 16, 3)).cumsum(2).astype(np.float32) * 0.1)
    present, times = torch.ones(400, 3, 16, dtype=torch.bool), torch.arange(16.0).expand(400, -1)
    seen = present & (torch.arange(16) < 4)
    units = Units(12)
    units.measure([(x, LastFrame()(x, seen, times), present, seen, times)])
    expected = 0.1 * torch.arange(1, 13).sqrt()
    assert torch.allclose(units.residual[0, 1:], expected, rtol=0.06)
    assert bool(units.measured)
    assert float(units.speed) == pytest.approx(0.1, rel=0.05)
    with pytest.raises(ValueError, match="units cannot be measured"):
        units.measure([])


def test_masks_follow_the_mixture_and_the_sample_s_own_stream() -> None:
    batch = TrajectoryBatch(
        positions=torch.zeros(600, 3, 10, 2),
        features=torch.zeros(600, 3, 0),
        present=torch.ones(600, 3, 10, dtype=torch.bool),
        times=torch.arange(10.0).expand(600, -1),
        ego=torch.ones(600, 3, dtype=torch.bool),
    )
    source = NoiseSource(3, range(600))
    first = draw_observed(batch, {"forecast": 1.0}, 4, source)
    assert torch.equal(first, (torch.arange(10) < 4).expand(600, 3, -1))
    batch.present[:, 2, :6] = False
    for pattern in PATTERNS:
        assert not (draw_observed(batch, {pattern: 1.0}, 4, source) & ~batch.present).any()
    batch.present[:] = True
    half = draw_observed(batch, {"forecast": 3.0, "none": 1.0}, 4, source)
    assert float(half.flatten(1).any(1).float().mean()) == pytest.approx(0.75, abs=0.06)
    ends = draw_observed(batch, {"interpolate": 1.0}, 4, source)[0, 0]
    assert ends.tolist() == [True, True] + [False] * 6 + [True, True]
    every = draw_observed(batch, dict.fromkeys(PATTERNS, 1.0), 4, source)
    part = draw_observed(batch[5:9], dict.fromkeys(PATTERNS, 1.0), 4, source[5:9])
    assert torch.equal(every[5:9], part)
    assert len({tuple(row.flatten().tolist()) for row in every}) > 120
