"""The published model as a user holds it: losses, training, sampling, saving."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import fourfold
from fourfold.core import NoiseSource
from fourfold.modalities.graphs.records import GraphRecord, collate
from fourfold.modalities.graphs.reference_checkpoints import convert_gdss
from fourfold.modalities.graphs.reference_gdss import ReferenceGDSS
from fourfold.modalities.graphs.reference_networks import to_pairs

ATTENTION = {"num_linears": 2, "c_init": 2, "c_hid": 2, "c_final": 2, "adim": 8, "num_heads": 2}


def model(**changes: object) -> ReferenceGDSS:
    torch.manual_seed(0)
    networks = {
        "x": {"kind": "ScoreNetworkX", "max_feat_num": 4, "depth": 2, "nhid": 8},
        "adj": {"kind": "ScoreNetworkA", "max_feat_num": 4, "nhid": 8, "num_layers": 2, **ATTENTION},
    }
    sdes = {
        "x": {"type": "VP", "beta_min": 0.1, "beta_max": 1.0},
        "adj": {"type": "VE", "beta_min": 0.2, "beta_max": 1.0},
    }
    settings = {"max_nodes": 6, "node_counts": [[3, 1], [5, 3]], **changes}
    return ReferenceGDSS(networks, sdes, **settings)


def cycle(n: int, **kwargs: object) -> GraphRecord:
    return GraphRecord(n, np.array([[i, (i + 1) % n] for i in range(n)]), **kwargs)


@pytest.mark.parametrize("file", ["community_small", "qm9"])
def test_published_losses_and_gradients(file: str, shared: Path) -> None:
    golden = np.load(shared / "golden" / "gdss" / f"golden_loss_{file.replace('qm9', 'QM9')}.npz")
    published = convert_gdss(shared / "checkpoints" / "gdss" / f"gdss_{file}.pth")
    data = {key: torch.from_numpy(golden[key]) for key in golden.files}
    mask, t = data["flags"].bool(), data["t"].double()
    z = {"x": data["z_x"] * mask[..., None], "adj": to_pairs(data["z_adj"] * mask[:, None] * mask[..., None])}
    losses = published.losses(data["x0"], to_pairs(data["adj0"]), mask, t, z)
    (losses["x"].mean() + losses["adj"].mean()).backward()
    for name in ("x", "adj"):
        torch.testing.assert_close(losses[name].mean().detach(), data[f"loss_{name}"], atol=1e-3, rtol=1e-4)
        squares = [p.grad.square().sum() for p in published.networks()[name].parameters() if p.grad is not None]
        # each loss trains its own network only
        norm = torch.stack(squares).sum().sqrt()
        torch.testing.assert_close(norm, data[f"gradnorm_{name}"].to(norm), atol=1e-3, rtol=1e-3)


def test_encoding() -> None:
    graphs = model()
    lonely = GraphRecord(4, np.array([[0, 1], [1, 3]]))
    x, pairs, mask = graphs.encode(collate([lonely]))
    assert mask.tolist() == [[True, True, False, True]]
    assert x[0].argmax(-1).tolist() == [1, 2, 0, 1]
    assert x[0].sum(-1).tolist() == [1, 1, 0, 1]
    assert pairs.tolist() == [[1, 0, 0, 0, 1, 0]]
    molecules = model(atoms=["C", "N", "O", "F"])
    x, pairs, _ = molecules.encode(collate([cycle(3, node_types=[0, 3, 1], edge_types=[1, 2, 3])]))
    assert x[0].argmax(-1).tolist() == [0, 3, 1]
    assert sorted(pairs[0].tolist()) == [1, 2, 3]


def test_unknown_graphs_are_refused() -> None:
    graphs = model()
    with pytest.raises(ValueError, match="a graph has 7 nodes; the model knows up to 6"):
        graphs.encode(collate([cycle(7)]))
    star = GraphRecord(5, np.array([[0, i] for i in range(1, 5)]))
    with pytest.raises(ValueError, match="degree 4 is unknown to a model of 4 node features"):
        graphs.encode(collate([star]))
    with pytest.raises(ValueError, match="node type 5 is unknown"):
        model(atoms=["C", "N", "O", "F"]).encode(collate([cycle(3, node_types=[0, 5, 1])]))


def test_loss_is_per_sample_and_its_own_randomness() -> None:
    graphs = model()
    records = [cycle(3), cycle(5), cycle(4)]
    losses = graphs.loss(collate(records), NoiseSource(0, [7, 8, 9]))
    assert losses.shape == (3,)
    alone = graphs.loss(collate([records[1]], max_nodes=6), NoiseSource(0, [8]))
    torch.testing.assert_close(alone[0], losses[1], atol=1e-4, rtol=1e-4)
    assert not torch.isclose(graphs.loss(collate(records), NoiseSource(1, [7, 8, 9])), losses).any()


def test_training_lowers_the_loss() -> None:
    graphs = model()
    batch = collate([cycle(5), cycle(6), cycle(4), cycle(3)] * 4)
    optimizer = torch.optim.Adam(graphs.parameters(), 1e-2)

    def validation() -> float:
        with torch.no_grad():
            return float(graphs.loss(batch, NoiseSource(99, range(16))).mean())

    before = validation()
    for step in range(60):
        optimizer.zero_grad()
        graphs.loss(batch, NoiseSource(step, range(16))).mean().backward()
        optimizer.step()
    assert validation() < 0.7 * before


def test_samples_follow_the_seed_and_the_sizes() -> None:
    graphs = model()
    first, second, other = (graphs.sample_states(6, steps=4, seed=seed)[0] for seed in (1, 1, 2))
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], other[0])
    sizes = torch.tensor(graphs._sizes(4000, NoiseSource(0, range(4000)), None))
    assert set(sizes.tolist()) == {3, 5}
    assert abs(float((sizes == 5).double().mean()) - 0.75) < 0.03
    ((x, adj),) = graphs.sample_states(3, steps=4, num_nodes=[2, 4, 6])
    assert [(row != 0).any(-1).sum().item() for row in x] == [2, 4, 6]
    assert torch.equal(adj, adj.transpose(1, 2))
    drawn = graphs.sample(5, steps=3, num_nodes=4)
    assert len(drawn) == 5
    assert {type(graph).__name__ for graph in drawn} == {"Graph"}
    assert len(graphs.sample_records(5, steps=3, num_nodes=4)) == 5


def test_progress_is_reported() -> None:
    seen: list[tuple[int, int, float]] = []
    model().sample(2, steps=3, num_nodes=4, callback=lambda i, steps, t, state: seen.append((i, steps, t)))
    assert [(i, steps) for i, steps, _ in seen] == [(0, 3), (1, 3), (2, 3)]
    assert seen[0][2] == 1.0


def test_batches_only_matter_to_batch_norms() -> None:
    graphs = model()
    settings = {"steps": 4, "seed": 3, "num_nodes": 5, "batch_norms": False}
    whole = graphs.sample_states(6, **settings)[0][1]
    parts = torch.cat([adj for _, adj in graphs.sample_states(6, batch_size=4, **settings)])
    torch.testing.assert_close(parts, whole, atol=1e-4, rtol=1e-4)


def test_sizes_must_be_known_and_possible() -> None:
    graphs = model(node_counts=None)
    with pytest.raises(ValueError, match="pass num_nodes="):
        graphs.sample(1, steps=3)
    graphs.fit_node_counts([3, 3, 4, 1])
    assert graphs.node_counts == {3: 2, 4: 1}
    assert graphs.config()["node_counts"] == [[3, 2], [4, 1]]
    for sizes, message in (([7], "2..6, got 7..7"), ([1], "2..6"), ([3, 3], "2 entries for 1 graphs")):
        with pytest.raises(ValueError, match=message):
            graphs.sample(1, steps=3, num_nodes=sizes)
    with pytest.raises(ValueError, match="n and batch_size"):
        graphs.sample(0)
    with pytest.raises(ValueError, match="2 <= nodes <= 6"):
        model(node_counts=[[9, 1]])
    with pytest.raises(ValueError, match="5 atoms for 4 node features"):
        model(atoms=["C", "N", "O", "F", "S"])


@pytest.mark.parametrize("averaged", [False, True])
def test_saved_models_come_back(averaged: bool, tmp_path: Path) -> None:
    graphs = model(averaged=averaged, atoms=["C", "N", "O", "F"])
    assert json.loads(json.dumps(graphs.config())) == graphs.config()
    loaded = fourfold.load(graphs.save(tmp_path / "model"))
    assert isinstance(loaded, ReferenceGDSS)
    assert loaded.config() == graphs.config()
    state, t = {"x": torch.randn(2, 5, 4), "adj": torch.ones(2, 5, 5)}, torch.tensor([0.3, 0.9])
    for ema in (False, True)[: 1 + averaged]:
        for name, score in loaded.scores(state, t, ema=ema).items():
            assert torch.equal(score, graphs.scores(state, t, ema=ema)[name])
    assert all(not p.requires_grad for p in (graphs.averages or torch.nn.Module()).parameters())


def test_scores_ignore_what_lies_outside_the_mask() -> None:
    graphs = model()
    x, adj, mask = torch.randn(1, 5, 4), torch.randn(1, 5, 5), torch.tensor([[True, True, True, False, False]])
    adj = adj + adj.transpose(1, 2)
    other_x, other_adj = x.clone(), adj.clone()
    other_x[:, 3:], other_adj[:, 3:], other_adj[:, :, 3:] = 9, 9, 9
    first, second = (graphs.scores({"x": a, "adj": b}, 0.5, mask=mask) for a, b in ((x, adj), (other_x, other_adj)))
    for name in first:
        assert torch.equal(first[name], second[name])
    assert (first["adj"][:, 3:] == 0).all()
    assert (first["x"][:, 3:] == 0).all()
    with pytest.raises(ValueError, match=r"expected x \(B, N, 4\)"):
        graphs.scores({"x": x[..., :3], "adj": adj}, 0.5)


def test_published_molecules(shared: Path) -> None:
    published = convert_gdss(shared / "checkpoints" / "gdss" / "gdss_qm9.pth")
    settings = {"seed": 0, "solver": "few-steps", "steps": 40}
    molecules = published.sample(40, **settings)
    uncorrected = published.sample(40, correct=False, **settings)
    assert all(molecule is not None for molecule in molecules)
    # 94 % in the long run; an untrained or wrongly sampled model has next to none
    assert sum(molecule is not None for molecule in uncorrected) >= 32


@pytest.mark.slow
def test_published_communities(shared: Path) -> None:
    import networkx as nx

    published = convert_gdss(shared / "checkpoints" / "gdss" / "gdss_community_small.pth")
    graphs = published.sample(24, seed=0, solver="few-steps", steps=50)
    # two dense halves with few edges in between: clustering far above a random graph of the same density
    clustering = np.mean([nx.average_clustering(g) for g in graphs])
    density = np.mean([nx.density(g) for g in graphs])
    assert clustering > 1.5 * density
    assert 0.25 < density < 0.37
