"""The recommended network: equivariance, masks, coincident agents, the radius path, time."""

from typing import Any

import pytest
import torch

from fourfold.modalities.trajectories import EGTN
from fourfold.modalities.trajectories.attention import Clock, TemporalMixing
from fourfold.modalities.trajectories.neighbours import within


def _network(dtype: torch.dtype = torch.float32, **sizes: Any) -> EGTN:
    torch.manual_seed(0)
    network = EGTN(2, 1, **{"hidden": 16, "channels": 8, "layers": 2, "messages": 8, "heads": 2, **sizes})
    with torch.no_grad():  # layers are born silent
        for parameter in network.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))
    return network.to(dtype)


def _inputs(
    dtype: torch.dtype = torch.float32, agents: int = 4, frames: int = 7, dim: int = 3
) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
    g = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)

    present = torch.ones(2, agents, frames, dtype=torch.bool)
    observed = present & (torch.arange(frames) < 3)
    anchor, times = draw(2, agents, frames, dim), torch.arange(frames).to(dtype).expand(2, -1)
    scale = 0.3 * torch.ones(2, agents, frames, 1, dtype=dtype)
    lead = (torch.arange(frames) - 2).clamp(min=0).to(dtype).expand(2, agents, -1)
    one = torch.tensor(1.0, dtype=dtype)
    condition = {
        "anchor": anchor,
        "scale": torch.where(observed.unsqueeze(-1), 0, scale),
        "vectors": EGTN.start_vectors(anchor, observed, present, times, one, one),
        "tokens": EGTN.token_features(draw(2, agents, 2), observed, torch.zeros_like(lead).long(), lead, scale),
        "edges": draw(2, agents, agents, 1),
        "present": present,
        "times": times,
        "observed": observed,
    }
    x = torch.where(observed.unsqueeze(-1), 0, draw(2, agents, frames, dim))
    return x, torch.tensor([-1.0, 2.0], dtype=dtype), condition


def _moved(condition: dict[str, Any], turn: torch.Tensor, shift: torch.Tensor) -> dict[str, Any]:
    anchor = condition["anchor"] @ turn + shift
    one = torch.ones((), dtype=anchor.dtype)
    vectors = EGTN.start_vectors(anchor, condition["observed"], condition["present"], condition["times"], one, one)
    return {**condition, "anchor": anchor, "vectors": vectors}


@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.float32, 2e-5), (torch.float64, 1e-12)], ids=["float32", "float64"]
)
@pytest.mark.parametrize("dim", [2, 3])
def test_equivariance(dtype: torch.dtype, bound: float, dim: int) -> None:
    network, (x, t, condition) = _network(dtype), _inputs(dtype, dim=dim)
    out = network(x, t, condition=condition)
    assert out.abs().mean() > 0.1
    for trial in range(4):
        turn = torch.linalg.qr(torch.randn(dim, dim, dtype=torch.float64)).Q
        turn = turn * (1 if trial % 2 else -1)
        shift = 5 * torch.randn(dim, dtype=torch.float64)
        moved = network(x @ turn.to(dtype), t, condition=_moved(condition, turn.to(dtype), shift.to(dtype)))
        assert (moved - out @ turn.to(dtype)).abs().max() < bound * max(1.0, float(out.abs().max()))


def test_agents_may_be_renumbered() -> None:
    network, (x, t, condition) = _network(), _inputs()
    order = torch.tensor([2, 0, 3, 1])
    changed = {k: v if k in ("times", "edges") else v[:, order] for k, v in condition.items()}
    changed["edges"] = condition["edges"][:, order][:, :, order]
    out = network(x, t, condition=condition)
    assert torch.allclose(network(x[:, order], t, condition=changed), out[:, order], atol=1e-5)


def test_absent_agents_and_frames_are_never_looked_at() -> None:
    network, (x, t, condition) = _network(), _inputs()
    condition["present"][:, 3] = False
    condition["present"][:, 1, 2] = False
    out = network(x, t, condition=condition)
    assert torch.equal(out[:, 3], torch.zeros_like(out[:, 3]))
    other = {k: v.clone() for k, v in condition.items()}
    absent = ~condition["present"]
    for key in ("anchor", "vectors", "tokens"):
        other[key][absent] = 17.0
    x = torch.where(absent.unsqueeze(-1), 9.0, x)
    assert torch.allclose(network(x, t, condition=other), out, atol=1e-5)
    fewer = {k: v if k == "times" else v[:, :3] for k, v in condition.items()}
    fewer["edges"] = condition["edges"][:, :3, :3]
    assert torch.allclose(network(x[:, :3], t, condition=fewer), out[:, :3], atol=1e-5)


def test_coincident_agents_give_finite_values_and_gradients() -> None:
    network, (x, t, condition) = _network(), _inputs()
    condition["anchor"] = torch.zeros_like(condition["anchor"]).requires_grad_()
    condition["vectors"] = torch.zeros_like(condition["vectors"])
    x = torch.zeros_like(x).requires_grad_()
    out = network(x, t, condition=condition)
    assert torch.isfinite(out).all()
    (out**2).sum().backward()
    assert torch.isfinite(x.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)
    network, (x, t, condition) = _network(), _inputs()
    condition["anchor"][:, 1] = condition["anchor"][:, 0]
    network(x, t, condition=condition).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


def test_listed_pairs_are_the_dense_sum_when_the_radius_covers_all() -> None:
    dense, listed = _network(), _network(radius=1e3)
    x, t, condition = _inputs(agents=6)
    condition["present"][0, 4:, :3] = False
    assert torch.allclose(listed(x, t, condition=condition), dense(x, t, condition=condition), atol=2e-5)
    near = _network(radius=1.0)(x, t, condition=condition)
    assert (near - dense(x, t, condition=condition)).abs().max() > 1e-3


def test_pairs_within_a_radius_are_those_of_a_plain_loop() -> None:
    g = torch.Generator().manual_seed(0)
    x, present = torch.randn(2, 9, 3, 3, generator=g), torch.rand(2, 9, 3, generator=g) > 0.2
    found = {tuple(int(v) for v in row) for row in zip(*within(x, present, 1.2, chunk=4), strict=True)}
    expected = {
        (b, i, j, t)
        for b in range(2)
        for i in range(9)
        for j in range(9)
        for t in range(3)
        if i != j and present[b, i, t] and present[b, j, t] and (x[b, i, t] - x[b, j, t]).norm() <= 1.2
    }
    assert found == expected


def test_relative_scores_are_the_unfactorised_sum() -> None:
    """a cos(t - s) + b sin(t - s) from vectors of t and of s alone, at irregular times."""
    times = torch.tensor([[0.0, 0.7, 1.0, 4.0, 9.5]], dtype=torch.float64)
    rates = torch.tensor([1.0, 0.1, 0.01], dtype=torch.float64)
    clock = Clock(times, rates, heads=2)
    a, b = torch.randn(2, 1, 1, 5, 2, 3, dtype=torch.float64)
    scores = clock.scores(a.flatten(3), b.flatten(3))
    assert scores.shape == (1, 1, 2, 5, 5)
    delta = (times[0][:, None] - times[0][None])[..., None] * rates
    for head in range(2):
        expected = (a[0, 0, :, head][:, None] * delta.cos() + b[0, 0, :, head][:, None] * delta.sin()).sum(-1)
        assert torch.allclose(scores[0, 0, head], expected, atol=1e-12)


def test_unmasked_and_masked_ways_agree_where_everyone_is_there() -> None:
    network, (x, t, condition) = _network(), _inputs()
    masked, unmasked = (network(x, t, condition={**condition, "complete": c}) for c in (False, True))
    assert torch.allclose(masked, unmasked, atol=1e-6)


def test_only_differences_of_times_matter_and_they_do_matter() -> None:
    network, (x, t, condition) = _network(), _inputs()
    out = network(x, t, condition=condition)
    later = {**condition, "times": condition["times"] + 64.0}
    assert torch.allclose(network(x, t, condition=later), out, atol=1e-5)
    slower = {**condition, "times": condition["times"] * 2}
    assert (network(x, t, condition=slower) - out).abs().max() > 1e-3


def test_sizes_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="divisible by heads=3"):
        TemporalMixing(16, 8, 3, 2)
    with pytest.raises(ValueError, match="radius must be positive"):
        EGTN(1, 0, radius=-1.0)
    with pytest.raises(ValueError, match="must be positive"):
        EGTN(1, 0, layers=0)
