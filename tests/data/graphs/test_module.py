"""The data module: buckets, exact continuation, targets, every source of graphs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from rdkit import Chem
from torch_geometric.data import Data

from fourfold.data.errors import DataError
from fourfold.data.graphs import BucketedSampler, GraphDataModule
from fourfold.modalities.graphs.records import GraphBatch, from_networkx

SIZES = np.random.default_rng(0).integers(4, 60, 500)


def trainer_at(epoch: int, processed: int, world_size: int = 1, rank: int = 0) -> Any:
    """What `resume` asks of a trainer whose progress has been restored."""
    progress = SimpleNamespace(is_last_batch=False, current=SimpleNamespace(processed=processed))
    return SimpleNamespace(
        world_size=world_size,
        global_rank=rank,
        current_epoch=epoch,
        fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress), epoch_progress=None),
    )


def test_an_epoch_holds_every_graph_once_in_batches_of_similar_size() -> None:
    sampler = BucketedSampler(500, sizes=SIZES, batch_size=16, pool=16)
    order = np.array(list(sampler))
    assert sorted(order) == list(range(500))
    spread = [np.ptp(SIZES[order[k : k + 16]]) for k in range(0, 496, 16)]
    plain = np.array(list(BucketedSampler(500, sizes=SIZES, batch_size=16, pool=1)))
    assert np.mean(spread) < 0.25 * np.mean([np.ptp(SIZES[plain[k : k + 16]]) for k in range(0, 496, 16)])
    # Batches come in random order, not from small to large.
    means = [SIZES[order[k : k + 16]].mean() for k in range(0, 496, 16)]
    assert abs(np.corrcoef(np.arange(len(means)), means)[0, 1]) < 0.5


def test_order_changes_with_epoch_and_seed_and_is_a_function_of_them() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        sampler = BucketedSampler(100, sizes=SIZES[:100], batch_size=8, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(0, 3) == order(0, 3)
    assert order(0, 3) != order(0, 4)
    assert order(0, 3) != order(1, 3)


@pytest.mark.parametrize("world_size", [1, 3])
def test_processes_share_an_epoch_with_batches_of_similar_size_on_each(world_size: int) -> None:
    ranks = [
        list(BucketedSampler(480, sizes=SIZES[:480], batch_size=8, world_size=world_size, rank=r))
        for r in range(world_size)
    ]
    assert sorted(k for rank in ranks for k in rank) == list(range(480))
    for rank in ranks:
        spread = [np.ptp(SIZES[rank[k : k + 8]]) for k in range(0, len(rank), 8)]
        assert np.mean(spread) < 20


def test_a_stopped_epoch_goes_on_with_the_same_batches() -> None:
    module = GraphDataModule("community_small_v2", batch_size=12, pool=3, seed=5, root="nowhere")

    def batches(epoch: int, processed: int) -> list[GraphBatch]:
        module.trainer = trainer_at(epoch, processed)
        loader = module.train_dataloader()
        loader.sampler.set_epoch(epoch)  # pyright: ignore[reportAttributeAccessIssue]
        return list(loader)

    whole, rest = batches(2, 0), batches(2, 3)
    assert len(whole) == 7
    assert len(rest) == 4
    assert all(torch.equal(a.adj, b.adj) for a, b in zip(whole[3:], rest, strict=True))
    other = batches(3, 0)
    assert any(a.adj.shape != b.adj.shape or not torch.equal(a.adj, b.adj) for a, b in zip(whole, other, strict=True))


def test_worker_processes_give_the_same_batches() -> None:
    def adj(workers: int) -> list[torch.Tensor]:
        module = GraphDataModule("ego_like", batch_size=40, num_workers=workers, root="nowhere")
        return [b.adj for b in module.train_dataloader()]

    assert all(torch.equal(a, b) for a, b in zip(adj(0), adj(2), strict=True))


def test_repeats_make_longer_epochs() -> None:
    module = GraphDataModule("community_small_v2", batch_size=32, repeats=4, drop_last=True, root="nowhere")
    batches = list(module.train_dataloader())
    assert [len(b) for b in batches] == [32] * 10


def test_validation_and_test_batches() -> None:
    module = GraphDataModule("planar", batch_size=16, root="nowhere")
    assert module.protocol is None
    module.setup()
    assert "planar" in str(module.protocol)
    assert [len(b) for b in module.val_dataloader()] == [16, 16]
    assert sum(len(b) for b in module.test_dataloader()) == 40
    assert GraphDataModule("grid", root="nowhere").val_dataloader() == []


def test_targets_are_computed_and_measured_on_train() -> None:
    module = GraphDataModule("community_small_v2", target="density", validation=0.1, batch_size=100, root="nowhere")
    batch = next(iter(module.train_dataloader()))
    n = batch.num_nodes
    expected = batch.adj.sum((1, 2)) / (n * (n - 1))
    assert torch.allclose(batch.targets["density"], expected)
    assert module.target_mean == pytest.approx(float(expected.mean()), abs=1e-6)
    assert module.target_std == pytest.approx(float(expected.std(correction=0)), abs=1e-6)
    assert "target density" in str(module.protocol)
    with pytest.raises(DataError, match=r"unknown property 'beauty'; known are .*density.*data.target"):
        GraphDataModule("grid", target="beauty", root="nowhere").setup()
    bare = GraphDataModule("grid", root="nowhere")
    assert (bare.target_mean, bare.target_std) == (0, 1)


def test_graphs_of_every_kind_at_hand() -> None:
    graphs = [nx.cycle_graph(3 + k) for k in range(10)]
    pyg = [Data(edge_index=torch.tensor([[0, 1], [1, 0]]), num_nodes=2 + k) for k in range(10)]
    for those in (graphs, pyg, [from_networkx(g) for g in graphs]):
        module = GraphDataModule(graphs=those, batch_size=4)
        assert module.data.kind == "graphs"
        assert sum(len(p) for p in (module.data.train, module.data.validation, module.data.test)) == 10
        assert len(next(iter(module.train_dataloader()))) == 4
    smiles = ["C" * (k + 1) for k in range(10)]
    for those in (smiles, [Chem.MolFromSmiles(s) for s in smiles]):
        module = GraphDataModule(graphs=those, target="num_atoms", batch_size=8)
        assert module.data.kind == "molecules"
        batch = next(iter(module.train_dataloader()))
        assert batch.targets["num_atoms"].tolist() == batch.num_nodes.tolist()


def test_what_was_left_out_is_said() -> None:
    bad = [nx.cycle_graph(4), nx.DiGraph([(0, 1)]), *(nx.path_graph(k) for k in (3, 4, 5))]
    with pytest.warns(UserWarning, match=r"1 left out \(1 x the graph is directed"):
        GraphDataModule(graphs=bad).setup()
    with pytest.raises(DataError, match="graph 1: the graph is directed"):
        GraphDataModule(graphs=bad, on_bad="raise").setup()  # pyright: ignore[reportArgumentType]
    with pytest.raises(DataError, match="no graphs were given"):
        GraphDataModule(graphs=[]).setup()
    with pytest.raises(DataError, match="none of the 1 graphs"):
        GraphDataModule(graphs=[nx.DiGraph([(0, 1)])]).setup()


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("smiles,melting\n" + "".join(f"{'C' * (k + 1)}O,{k * 10}\n" for k in range(20)))
    module = GraphDataModule(file=str(path), target="melting", batch_size=16)
    batch = next(iter(module.train_dataloader()))
    assert batch.targets["melting"].tolist() == [10.0 * (n - 2) for n in batch.num_nodes.tolist()]
    assert list(batch.targets) == ["melting"]
    assert module.data.name == str(path)


@pytest.mark.parametrize("settings", [{"name": None}, {"batch_size": 0}, {"repeats": 0}, {"pool": 0}])
def test_settings_are_checked_at_once(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"give a data set|at least 1"):
        GraphDataModule(**settings)
