"""Laws of the adapter on small networks that were moved away from their zero start."""

from __future__ import annotations

from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import torch
from torch import Tensor

from fourfold.core import (
    Ancestral,
    BaseDenoiser,
    Cosine,
    GaussianPath,
    JointPath,
    Langevin,
    Multistep,
    NoiseSource,
    PredictorCorrector,
    Sampler,
    Stepper,
    Symmetric,
    UniformGrid,
)
from fourfold.core.testing import GaussianOracle
from fourfold.modalities.graphs import GDSS, GraphRecord, collate
from fourfold.modalities.graphs.attention_network import AttentionBackbone
from fourfold.modalities.graphs.backbone import Backbone
from fourfold.modalities.graphs.graph_transformer import TransformerBackbone
from fourfold.modalities.graphs.splitting import Splitting
from fourfold.modalities.graphs.statistics import GraphStatistics

SMALL = TransformerBackbone(node_width=8, pair_width=6, heads=2, products=3, layers=2)
STEPPERS = [
    Multistep(order=2, coordinate="data", eta=1.0),
    Multistep(),
    Ancestral(),
    Splitting(),
    Splitting(snr=0.05),
    PredictorCorrector(Ancestral(), Langevin(0.05)),
]


def graphs(count: int = 12, typed: bool = True, seed: int = 0) -> list[GraphRecord]:
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        n = int(rng.integers(3, 8))
        pairs = np.argwhere(np.triu(rng.random((n, n)) < 0.4, 1))
        made.append(
            GraphRecord(
                n,
                pairs,
                rng.integers(0, 3, n) if typed else None,
                rng.integers(1, 3, len(pairs)) if typed else None,
                rng.normal(3.0, 2.0, (n, 2)).astype(np.float32) if typed else None,
                rng.normal(-1.0, 0.5, (len(pairs), 1)).astype(np.float32) if typed else None,
                {"size": float(n)},
            )
        )
    return made


def model_of(records: list[GraphRecord], **options: object) -> GDSS:
    torch.manual_seed(1)
    model = GDSS(**{"backbone": SMALL, "sampling_steps": 5, **options})  # pyright: ignore[reportArgumentType]
    model.learn(records)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def same(a: GraphRecord, b: GraphRecord) -> bool:
    keys = ("edges", "node_types", "edge_types")
    return a.num_nodes == b.num_nodes and all(np.array_equal(getattr(a, k), getattr(b, k)) for k in keys)


class Finite(BaseDenoiser):
    """Exact denoiser of labelled graphs that all have the same probability."""

    def __init__(self, path: JointPath, data: dict[str, Tensor]) -> None:
        super().__init__()
        self.path, self.data = path, data

    @property
    def rows(self) -> int:
        return 0

    def forward(self, x_t, t, *, mask=None, condition=None):
        schedule = self.path.schedule
        alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
        logits = 0
        for name, x in x_t.items():
            # a symmetric matrix holds each of its numbers twice
            twice = 2 if x.ndim == 4 else 1
            distance = (x[:, None] - alpha * self.data[name][None]).flatten(2).square().sum(-1)
            logits = logits - distance / (2 * sigma**2 * twice)
        weight = logits.softmax(-1)
        return {k: torch.tensordot(weight, v, dims=1) for k, v in self.data.items()}


@pytest.mark.parametrize("stepper", STEPPERS, ids=str)
def test_with_the_exact_denoiser_every_sampler_returns_the_data_as_often_as_they_occur(stepper: Stepper) -> None:
    model = model_of(graphs(3))
    records = [GraphRecord(4, np.array([[0, 1], [1, 2]]), np.array([0, 1, 2, 0]), np.array([1, 2]))]
    records += [GraphRecord(4, np.array([[0, 1]]), np.array([0, 0, 2, 0]), np.array([1]))]
    records += [GraphRecord(4, np.array([[0, 3], [1, 2], [2, 3]]), np.array([1, 1, 2, 2]), np.array([1, 1, 2]))]
    schedule = Cosine()
    path = JointPath({"x": GaussianPath(schedule), "adj": GaussianPath(schedule, Symmetric())})
    batch = collate(records)
    data = {
        "x": model.encoding.book("x").encode(batch.node_types).double(),
        "adj": model.encoding.book("adj").encode(batch.adj).double(),
    }
    data["adj"] = Symmetric().project(data["adj"], batch.mask)
    count = 240
    start = {k: torch.zeros(count, *v.shape[1:], dtype=torch.float64) for k, v in data.items()}
    source = NoiseSource(5, range(count))
    start = {k: path[k].prior(v, source.spawn(i)) for i, (k, v) in enumerate(start.items())}
    drawn = Sampler(stepper, UniformGrid(end=0.0), 80)(Finite(path, data), start, generator=source.spawn(9)).x
    distance = sum((drawn[k][:, None] - v[None]).flatten(2).abs().amax(-1) for k, v in data.items())
    assert distance.amin(1).max() < 1e-3
    share = torch.bincount(distance.argmin(1), minlength=3) / count
    # the Langevin move has a bias of its own
    assert (share - 1 / 3).abs().max() < 0.12


def test_splitting_has_the_right_moments_on_gaussian_data() -> None:
    path = GaussianPath(Cosine(t_max=0.98))
    oracle = GaussianOracle(torch.tensor([1.0, -2.0]), torch.tensor([0.3, 2.0]), path)
    for steps, tolerance in ((25, 0.12), (200, 0.05)):
        x = Sampler(Splitting(), UniformGrid(end=0.0), steps)(oracle, (4000, 2), generator=3).x
        assert (x.mean(0) - oracle.mean).abs().max() < tolerance
        assert (x.var(0) / torch.tensor([0.3, 2.0]) - 1).abs().max() < 2 * tolerance


def test_splitting_half_steps_are_exact_for_the_linear_process() -> None:
    """Two half-steps from t to s without a score have the variance of one whole step."""
    from fourfold.modalities.graphs.splitting import _linear

    schedule = Cosine()
    alpha, sigma = (
        f(torch.tensor([0.8, 0.7, 0.6], dtype=torch.float64)).tolist() for f in (schedule.alpha, schedule.sigma)
    )
    one, zero = torch.ones(()).double(), torch.zeros(()).double()
    whole = _linear(zero, [alpha[0], alpha[2]], [sigma[0], sigma[2]], one)
    first, second = _linear(zero, alpha[:2], sigma[:2], one), _linear(zero, alpha[1:], sigma[1:], one)
    carried = _linear(first, alpha[1:], sigma[1:], zero)
    torch.testing.assert_close(whole**2, carried**2 + second**2)


@pytest.mark.parametrize("typed", [True, False], ids=["typed", "plain"])
@pytest.mark.parametrize(
    "backbone", [SMALL, AttentionBackbone(width=8, channels=3, heads=2, layers=2)], ids=lambda b: type(b).__name__
)
def test_folder_and_weights_rebuild_the_model(typed: bool, backbone: Backbone, tmp_path: Path) -> None:
    model = model_of(graphs(typed=typed), backbone=backbone, target="size", stepper=Splitting(snr=0.1))
    assert GDSS(**model.config()).config() == model.config()
    model.save(tmp_path / "m")
    unlearned = GDSS(backbone=backbone, target="size", stepper=Splitting(snr=0.1), sampling_steps=5)
    assert not unlearned.ready
    unlearned.load_state_dict(model.state_dict())
    for other in (GDSS.load(tmp_path / "m"), unlearned.eval()):
        for a, b in zip(model.sample_records(4, seed=3), other.sample_records(4, seed=3), strict=True):
            assert same(a, b)
    assert any(
        not same(a, b) for a, b in zip(model.sample_records(4, seed=3), model.sample_records(4, seed=4), strict=True)
    )


def test_samples_do_not_depend_on_batch_mates_or_padding() -> None:
    model = model_of(graphs())
    together = model.sample_records(9, seed=2)
    for batch_pairs in (1, 60):
        for a, b in zip(together, model.sample_records(9, seed=2, batch_pairs=batch_pairs), strict=True):
            assert same(a, b)
            np.testing.assert_allclose(a.node_features, b.node_features, atol=1e-3)
    assert same(together[0], model.sample_records(1, seed=2)[0])
    assert len({(r.num_nodes, r.edges.tobytes()) for r in together}) > 3


def test_sizes_are_drawn_as_in_the_data_or_as_asked_for() -> None:
    facts = GraphStatistics((0, 0, 3, 0, 1), (1,), (1, 1))
    drawn = facts.draw_sizes(NoiseSource(0, range(4000)))
    assert set(drawn.tolist()) == {2, 4}
    assert abs((drawn == 2).double().mean() - 0.75) < 0.03
    model = model_of(graphs(typed=False))
    assert [r.num_nodes for r in model.sample_records(3, num_nodes=5)] == [5] * 3
    assert [r.num_nodes for r in model.sample_records(3, num_nodes=[7, 1, 3])] == [7, 1, 3]
    assert {len(g) for g in model.sample(40)} <= {r.num_nodes for r in graphs()}


def test_isolated_nodes_stay_and_types_decode_to_themselves() -> None:
    records = [
        *graphs(),
        GraphRecord(
            3, np.zeros((0, 2)), np.array([2, 0, 1]), np.zeros(0, int), np.ones((3, 2)), np.zeros((0, 1)), {"size": 3.0}
        ),
    ]
    model = model_of(records)
    batch = collate(records)
    state, _ = model.encoding.encode(batch)
    for before, after in zip(records, model.encoding.decode(state, batch.mask), strict=True):
        assert same(before, after)
        np.testing.assert_allclose(before.node_features, after.node_features, atol=1e-5)
        np.testing.assert_allclose(before.edge_features, after.edge_features, atol=1e-5)


def test_loss_is_per_graph_and_ignores_padding() -> None:
    model = model_of(graphs(), target="size", node_weight=0.5)
    records = graphs(5, seed=4)
    noise = NoiseSource(7, range(5))
    loss = model.loss(collate(records), noise)
    assert loss.shape == (5,)
    assert torch.isfinite(loss).all()
    torch.testing.assert_close(model.loss(collate(records, max_nodes=11), noise), loss, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.loss(collate(records[2:3]), noise[2:3]), loss[2:3], rtol=1e-4, atol=1e-5)
    torch.manual_seed(99)
    torch.testing.assert_close(model.loss(collate(records), noise), loss, rtol=0, atol=0)


def test_untrained_model_has_the_loss_of_independent_entries() -> None:
    """With no network output at t = t_max the cross-entropy is the entropy of the frequencies."""
    records = graphs(40, typed=False)
    torch.manual_seed(0)
    model = GDSS(backbone=SMALL)
    model.learn(records)
    counts = torch.tensor(model.statistics.edge_counts).double()
    entropy = -(counts / counts.sum() * (counts / counts.sum()).log()).sum()
    values = torch.cat([model.loss(collate(records), NoiseSource(s, range(40))) for s in range(20)])
    assert 0.2 * entropy < values.mean() < 0.8 * entropy
    batch = collate(records)
    state, _ = model.encoding.encode(batch)
    noise = torch.randn_like(state["adj"])
    output = model._network.outputs({"adj": noise}, torch.full((40,), 0.9946), batch.mask)["adj"]
    assert (output.softmax(-1).mean((0, 1)) - counts / counts.sum()).abs().max() < 0.02


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "wanted"),
    [(TransformerBackbone(32, 16, 4, 8, 2), 0.5), (AttentionBackbone(32, 8, 2, 4, 2), 0.25)],
    ids=["transformer", "attention"],
)
def test_trained_on_one_graph_the_sampler_returns_it(backbone: Backbone, wanted: float) -> None:
    """Three hundred steps on one typed graph of five nodes; before them it comes up once in a hundred samples."""
    graph, types = nx.bull_graph(), np.array([0, 1, 1, 0, 2])
    record = GraphRecord(5, np.array(graph.edges), types)
    nx.set_node_attributes(graph, dict(enumerate(types.tolist())), "node_type")

    def hits(model: GDSS) -> float:
        made = model.eval().sample(100, seed=1)
        return float(np.mean([nx.is_isomorphic(g, graph, lambda a, b: a["node_type"] == b["node_type"]) for g in made]))

    torch.manual_seed(0)
    model = GDSS(backbone=backbone, sampling_steps=40)
    model.learn([record])
    assert hits(model) < 0.1
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 300)
    batch = collate([record] * 32)
    for step in range(300):
        loss = model.loss(batch, NoiseSource(step, range(32))).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rate.step()
    assert hits(model) > wanted


def test_completion_keeps_the_given_part_exactly() -> None:
    model = model_of(graphs())
    part = GraphRecord(4, np.array([[0, 1], [2, 3]]), np.array([2, 1, 0, 1]), np.array([2, 1]))
    for record in model.complete_records(part, 6, num_nodes=7, seed=1):
        assert record.num_nodes == 7
        assert record.node_types is not None
        assert record.node_types[:4].tolist() == [2, 1, 0, 1]
        inside = record.adjacency()[:4, :4]
        assert np.array_equal(inside, part.adjacency())
    free = np.ones((4, 4), bool)
    free[0, 2] = free[2, 0] = False
    nodes = np.array([True, True, False, True])
    made = model.complete_records(part, 40, node_mask=nodes, edge_mask=free, seed=1)
    assert len({int(r.adjacency()[0, 2]) for r in made}) > 1
    assert len({int(r.node_types[2]) for r in made if r.node_types is not None}) > 1
    assert all(r.num_nodes >= 4 and r.adjacency()[0, 1] == 2 and r.adjacency()[0, 3] == 0 for r in made)
    assert len({r.num_nodes for r in made}) > 1


def test_guidance_asks_for_the_scaled_target_and_for_nothing() -> None:
    records = graphs(200, typed=False)
    model = model_of(records, target="size", guidance=1.5, target_dropout=0.3)
    seen: list[dict[str, Tensor]] = []
    model._network.embedding.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[2]))
    model.sample_records(2, target=7.0, num_nodes=4)
    facts = model.statistics
    value = (7.0 - facts.target_mean) / facts.target_std
    assert seen[-1]["known"].tolist() == [0, 0, 1, 1]
    assert seen[-1]["target"][2:].tolist() == pytest.approx([value, value])
    model.loss(collate(records), NoiseSource(0, range(200)))
    assert 0.15 < 1 - float(seen[-1]["known"].mean()) < 0.45
    model.sample_records(2)
    assert seen[-1] is None
    a, b = (model.sample_records(6, target=t, seed=1, num_nodes=7) for t in (3.0, 7.0))
    assert any(not same(x, y) for x, y in zip(a, b, strict=True))


def test_degree_states_are_thrown_away() -> None:
    model = model_of(graphs(typed=False), node_state="degree")
    assert "x" in model.denoiser.path
    assert all(r.node_types is None for r in model.sample_records(3))
    assert "x" not in model_of(graphs(typed=False)).denoiser.path


def test_molecules_come_back_as_molecules() -> None:
    from fourfold.modalities.graphs.molecules import Alphabet

    alphabet = Alphabet((("C", 0), ("N", 0), ("O", -1), ("N", 1)))
    records = [alphabet.encode(s) for s in ("CCN", "C[N+](C)(C)C", "CC#N", "C")]
    torch.manual_seed(0)
    model = GDSS(backbone=SMALL, sampling_steps=3)
    model.learn(records, atoms=alphabet.atoms)
    made = model.sample(12, seed=0)
    assert model.kind == "molecules"
    assert any(m is not None and m.GetNumAtoms() > 0 for m in made)
    assert model.statistics.edge_counts[3] == 1
    kept = model.complete("CN", 3, num_nodes=4)
    assert len(kept) == 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.sample(0), "n must be at least 1"),
        (lambda m: m.sample(2, num_nodes=99), "at most 7 nodes, asked for 99"),
        (lambda m: m.sample(2, num_nodes=[3]), "1 values for 2 graphs"),
        (lambda m: m.sample(1, target=1.0), "trained without a target"),
        (lambda m: m.complete(nx.path_graph(9), 1), "the part has 9 nodes"),
        (lambda m: m.complete(nx.path_graph(4), 1, num_nodes=3), "at least 4"),
        (lambda m: m.complete(nx.path_graph(4), 1, edge_mask=np.triu(np.ones((4, 4)))), "symmetric"),
        (lambda m: m.complete(nx.path_graph(4), 1, node_mask=np.ones(3)), r"node_mask must have shape \(4,\)"),
        (lambda m: m.complete(nx.DiGraph([(0, 1)]), 1), "directed"),
        (
            lambda m: m.complete(GraphRecord(2, np.array([[0, 1]]), np.array([0, 7])), 1),
            "3 node classes, the data have class 7",
        ),
        (lambda m: GDSS().sample(1), "has not seen data"),
        (lambda m: GDSS().learn([]), "training set is empty"),
        (lambda m: GDSS(target="logp").learn(graphs(3)), "no target 'logp'; known targets: size"),
        (lambda m: GDSS(node_state="colour"), "node_state"),
        (lambda m: GDSS(backbone={"name": "lstm"}), "unknown component 'lstm'"),
        (lambda m: GDSS(backbone=TransformerBackbone(node_width=9)).learn(graphs(3)), "must divide node_width"),
    ],
)
def test_mistakes_are_named(call, message: str) -> None:
    model = model_of(graphs())
    with pytest.raises(ValueError, match=message):
        call(model)
