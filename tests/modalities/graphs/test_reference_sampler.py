"""The published SDEs and samplers, step for step, and the solvers of the core on the published networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fourfold.core import NoiseSource
from fourfold.modalities.graphs.reference_checkpoints import convert_gdss
from fourfold.modalities.graphs.reference_fewsteps import FewSteps
from fourfold.modalities.graphs.reference_gdss import ReferenceGDSS
from fourfold.modalities.graphs.reference_packing import Packing
from fourfold.modalities.graphs.reference_sampler import (
    S4,
    Euler,
    Langevin,
    PredictorCorrector,
    ReferenceSampler,
    ReverseDiffusion,
)
from fourfold.modalities.graphs.reference_sde import build_sde, published_times

MODELS = {"community": "community_small", "ego": "ego_small", "qm9": "qm9", "zincv2": "zinc250k_v2"}
SAMPLERS = ["community_euler_langevin", "ego_euler_none", "qm9_reverse_probflow", "qm9_s4", "zincv2_reverse_langevin"]


@pytest.mark.parametrize("name", ["VP_0.1_1", "VP_0.2_0.8", "VE_0.1_1", "VE_0.2_1", "subVP_0.1_1"])
def test_published_sdes(name: str, shared: Path) -> None:
    golden = np.load(shared / "golden" / "gdss" / "golden_sde.npz")
    kind, low, high = name.split("_")
    sde = build_sde({"type": kind, "beta_min": float(low), "beta_max": float(high)})
    t, x = torch.from_numpy(golden["t"]).double(), torch.from_numpy(golden["x"])

    def check(ours: Tensor, key: str) -> None:
        expected = torch.from_numpy(golden[f"{name}/{key}"]).double()
        if expected.ndim == 3:
            ours = ours[:, None, None] * x
        torch.testing.assert_close(ours.double(), expected, atol=2e-5, rtol=1e-5)

    check(sde.schedule.alpha(t), "mean")
    check(sde.schedule.sigma(t), "std")
    check(sde.schedule.drift(t), "drift")
    check(sde.schedule.diffusion(t), "diffusion")
    factor, g = sde.discretized(t, 1000)
    check(factor - 1, "disc_f")
    check(g, "disc_G")
    dt = float(golden["dt"][0])
    if kind == "subVP":
        with pytest.raises(ValueError, match="subVP has no transition kernel"):
            sde.transition(t, dt)
    else:
        factor, std = sde.transition(t, dt)
        check(factor, "trans_mean")
        check(std, "trans_std")


def test_exact_transition_keeps_the_variance_of_the_reverse_process() -> None:
    sde, t = build_sde({"type": "VP", "beta_min": 0.1, "beta_max": 1.0}), torch.tensor([0.6], dtype=torch.float64)
    # without a score, dx = -f x d(-t) + g dW: 1000 small published steps add up to the exact large one
    steps, dt = 1000, -0.2
    factor, variance = torch.ones(1), torch.zeros(1)
    for i in range(steps):
        f, s = sde.transition(t + i * dt / steps, dt / steps)
        factor, variance = factor * f, variance * f**2 + s**2
    exact_factor, exact_std = sde.transition(t, dt, exact=True)
    torch.testing.assert_close(factor.double(), exact_factor, atol=1e-6, rtol=0)
    torch.testing.assert_close(variance.sqrt().double(), exact_std, atol=1e-4, rtol=0)
    assert abs(float(sde.transition(t, dt)[1] - exact_std)) > 0.01


@pytest.mark.parametrize("part", ["first", "last"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_published_samplers(name: str, part: str, shared: Path) -> None:
    golden = np.load(shared / "golden" / "gdss" / f"golden_sampler_{name}_{part}.npz")
    model = convert_gdss(shared / "checkpoints" / "gdss" / f"gdss_{MODELS[name.split('_')[0]]}.pth")
    count, snr, scale, n_steps, flow, _ = golden["meta"].tolist()
    langevin = Langevin(snr, scale, int(n_steps))
    sampler: ReferenceSampler
    if "s4" in name:
        sampler = S4(langevin)
    else:
        predictor = Euler() if "euler" in name else ReverseDiffusion(bool(flow))
        sampler = PredictorCorrector(predictor, langevin if "langevin" in name else None)
    flags = torch.from_numpy(golden["flags"]).bool()
    packing = Packing(flags.sum(1).tolist(), model.features)
    noises = iter([torch.from_numpy(golden[key]) for key in sorted(golden.files) if key.startswith("noise")])
    state = {key: packing.pack(torch.from_numpy(golden[f"{key}_start_unmasked"]), key) for key in ("x", "adj")}
    first = 0 if part == "first" else 1000 - int(count)
    end = sampler(
        model.sdes,
        packing,
        lambda key, x, adj: packing.evaluate(model.networks()[key], x, adj),
        state,
        lambda key: packing.pack(next(noises), key),
        1000,
        first=first,
        last=first + int(count),
    )
    assert next(noises, None) is None
    widest = int(flags.sum(1).max())
    for key in ("x", "adj"):
        expected = torch.from_numpy(golden[f"{key}_mean"])
        expected = expected[:, :widest] if key == "x" else expected[:, :widest, :widest]
        torch.testing.assert_close(packing.unpack(end[key], key), expected, atol=1e-4, rtol=1e-4)


def small(sde: str = "VP") -> ReferenceGDSS:
    torch.manual_seed(0)
    attention = {"num_linears": 2, "c_init": 2, "c_hid": 4, "c_final": 2, "adim": 8, "num_heads": 2}
    networks = {
        "x": {"kind": "ScoreNetworkX", "max_feat_num": 4, "depth": 2, "nhid": 8},
        "adj": {"kind": "ScoreNetworkA", "max_feat_num": 4, "nhid": 8, "num_layers": 2, **attention},
    }
    sdes = {name: {"type": sde, "beta_min": 0.1, "beta_max": 1.0} for name in ("x", "adj")}
    return ReferenceGDSS(networks, sdes, max_nodes=12, node_counts=[[3, 1], [5, 2], [6, 2], [9, 1]])


@pytest.mark.parametrize("solver", ["published", "few-steps"])
def test_graphs_do_not_depend_on_batch_mates_without_batch_norms(solver: str) -> None:
    model, sizes = small(), [4, 9, 6, 6, 5, 9, 8]
    for norms in (False, True):
        settings = {"steps": 5, "seed": 7, "batch_norms": norms, "solver": solver}
        ((x, adj),) = model.sample_states(7, num_nodes=sizes, **settings)
        ((fewer_x, fewer_adj),) = model.sample_states(3, num_nodes=sizes[:3], **settings)
        same = all(
            torch.allclose(a[2, :6], b[2, :6], atol=1e-4) for a, b in ((x, fewer_x), (adj[..., :6], fewer_adj[..., :6]))
        )
        assert same == (solver == "few-steps" or not norms)


def test_buckets_and_padding_change_nothing() -> None:
    sizes = [3, 9, 5, 8, 9, 5, 9, 2]
    packing = Packing(sizes, 4)
    assert any(bucket.mask is not None for bucket in packing.buckets)
    assert sorted(torch.cat([bucket.rows for bucket in packing.buckets]).tolist()) == list(range(8))
    source = NoiseSource(1, range(8))
    for name in ("x", "adj"):
        noise = packing.unpack(packing.noise(source, 5, name), name)
        for i, size in enumerate(sizes):
            alone = Packing([size], 4)
            own = alone.unpack(alone.noise(source[torch.tensor([i])], 5, name), name)[0]
            shown = noise[i, :size] if name == "x" else noise[i, :size, :size]
            assert torch.equal(shown, own)
            assert noise[i].count_nonzero() == own.count_nonzero()
        assert torch.equal(packing.unpack(packing.pack(noise, name), name), noise)
    norms = packing.norms(packing.noise(source, 5, "x"), "x")
    assert torch.equal(packing.spread(norms, "x").unique().sort().values, norms.unique().sort().values)


def test_many_graphs_of_one_size_are_not_padded() -> None:
    packing = Packing([9] * 8 + [8] * 8 + [7, 6], 4)
    assert [bucket.size for bucket in packing.buckets] == [9, 8, 7, 6] or [b.size for b in packing.buckets] == [9, 8, 7]
    assert packing.buckets[0].mask is None
    assert packing.buckets[1].mask is None


def test_evaluations_are_counted() -> None:
    langevin = Langevin(0.1, 0.7, 2)
    assert PredictorCorrector(Euler(), langevin).evaluations(1000) == 3000
    assert PredictorCorrector(Euler()).evaluations(1000) == 1000
    assert S4(langevin).evaluations(50) == 50
    assert FewSteps(99, 0.1).evaluations == 199
    assert FewSteps(99, 0.0).evaluations == 100
    model, calls = small(), {"x": 0, "adj": 0}
    for name in calls:
        model.networks()[name].register_forward_hook(lambda *_, name=name: calls.__setitem__(name, calls[name] + 1))
    model.sample_states(3, num_nodes=5, solver=FewSteps(6, 0.1))
    assert calls == {"x": 13, "adj": 13}


def test_few_steps_of_a_graph_by_itself() -> None:
    model, sizes, source = small(), [4, 9, 6, 6, 5, 9, 8], NoiseSource(5, range(10, 17))
    packing, solver = Packing(sizes, 4), FewSteps(5, 0.1)
    together = solver(model.sdes, model.networks(), packing, source)
    for i, size in enumerate(sizes):
        alone = Packing([size], 4)
        own = solver(model.sdes, model.networks(), alone, source[torch.tensor([i])])
        for name in ("x", "adj"):
            widest = packing.unpack(together[name], name)[i, :size]
            expected = alone.unpack(own[name], name)[0]
            torch.testing.assert_close(widest[..., : expected.shape[-1]], expected, atol=1e-4, rtol=1e-4)


def test_few_steps_keep_the_langevin_motion() -> None:
    solver = FewSteps.like(0.05, 0.7, 100)
    assert solver.snr == pytest.approx(0.05 * 10**0.5)
    assert FewSteps.like(0.2, 0.7, 50).snr == 0.3
    assert FewSteps.like(0.0, 0.7, 50).snr == 0.0


@pytest.mark.parametrize("sde", ["VP", "VE"])
def test_predictors_integrate_the_same_flow(sde: str) -> None:
    model = small(sde)
    packing = Packing([6] * 4, 4)
    source = NoiseSource(3, range(4))
    start = {name: packing.noise(source, 0, name) for name in ("x", "adj")}

    def outputs(name: str, x: Tensor, adj: Tensor) -> Tensor:
        return packing.evaluate(model.networks()[name], x, adj)

    ends = [
        PredictorCorrector(predictor(probability_flow=True))(
            model.sdes, packing, outputs, start, lambda name: torch.zeros_like(start[name]), steps, last=steps // 2
        )
        for predictor, steps in ((Euler, 2000), (ReverseDiffusion, 2000))
    ]
    for name in start:
        torch.testing.assert_close(ends[0][name], ends[1][name], atol=2e-3, rtol=0)


def test_times() -> None:
    times = published_times(1000)
    assert (float(times[0]), float(times[-1])) == (1.0, pytest.approx(1e-4))
    with pytest.raises(ValueError, match="at least 2 steps"):
        small().sample_states(1, num_nodes=4, steps=1)


def test_unknown_names() -> None:
    model = small()
    with pytest.raises(ValueError, match="unknown solver 'fast'"):
        model.sample(1, solver="fast")
    with pytest.raises(ValueError, match="unknown SDE 'XX'"):
        build_sde({"type": "XX"})
    with pytest.raises(ValueError, match="0 < beta_min <= beta_max"):
        build_sde({"type": "VP", "beta_min": 2.0, "beta_max": 1.0})
    arguments = model.config()
    with pytest.raises(ValueError, match="unknown predictor 'Heun'"):
        ReferenceGDSS(**{**arguments, "sampler": {"predictor": "Heun"}})
    with pytest.raises(ValueError, match="unknown corrector 'None'"):
        ReferenceGDSS(**{**arguments, "sampler": {"corrector": "None"}})
    with pytest.raises(ValueError, match="unknown sampler setting"):
        ReferenceGDSS(**{**arguments, "sampler": {"snrr": 0.1}})
