"""PARD: the diffusion's golden numbers, exact normalisation, likelihood, sampling, completion, storage, bad input."""

from __future__ import annotations

import itertools
import re
import sys
from collections import Counter
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from pard_models import random_graphs, random_model

from fourfold.core import CategoricalPath, Cosine, NoiseSource
from fourfold.modalities.adapter import load
from fourfold.modalities.graphs.block_batch import canonical_order, in_blocks
from fourfold.modalities.graphs.block_order import block_order
from fourfold.modalities.graphs.metrics import is_connected, isomorphic
from fourfold.modalities.graphs.pard import PARD
from fourfold.modalities.graphs.pard_network import Limits
from fourfold.modalities.graphs.pard_sampling import times_of
from fourfold.modalities.graphs.pard_terms import denoising_terms, real_to_all
from fourfold.modalities.graphs.prefix_cache import Block, Grown
from fourfold.modalities.graphs.records import GraphRecord, collate, from_networkx

TIMES = (1.0, 0.5, 0.0)

_NO_EDGES = np.zeros((0, 2), np.int64)

# Few enough graphs to list everything that a model of them can do: larger ones of one type, smaller ones of two.
TINY = {
    "one type": [
        GraphRecord(3, np.array([(0, 1), (1, 2)])),
        GraphRecord(3, np.array([(0, 1), (1, 2), (0, 2)])),
        GraphRecord(2, np.array([(0, 1)])),
        GraphRecord(2, _NO_EDGES),
        GraphRecord(1, _NO_EDGES),
    ],
    "two types": [
        GraphRecord(2, np.array([(0, 1)]), np.array([0, 1])),
        GraphRecord(2, _NO_EDGES, np.array([1, 1])),
        GraphRecord(1, _NO_EDGES, np.array([0])),
        GraphRecord(1, _NO_EDGES, np.array([1])),
    ],
}

GOLDEN = {
    "uniform": ([1 / 3] * 3, "uniform 2"),
    "marginal": ([0.7, 0.25, 0.05], "marg 2"),
    "absorbing": ([0.0, 0.0, 1.0], "absorb 2"),
}


@pytest.fixture(scope="module")
def records() -> list[GraphRecord]:
    return random_graphs(12)


@pytest.fixture(scope="module")
def model(records: list[GraphRecord]) -> PARD:
    return random_model(records, max_hops=2)


def _types(record: GraphRecord) -> np.ndarray:
    return np.zeros(record.num_nodes, np.int64) if record.node_types is None else record.node_types


def _limit_path(limit: list[float]) -> CategoricalPath:
    return CategoricalPath(Cosine(), torch.tensor(limit, dtype=torch.float64), power=1.0)


@pytest.mark.parametrize("noise", GOLDEN)
def test_golden_posterior(shared: Path, noise: str) -> None:
    limit, start = GOLDEN[noise]
    lines = (shared / "golden" / "pard" / "diffusion.txt").read_text().splitlines()
    first = next(k for k, line in enumerate(lines) if line.startswith(start))
    golden = [line for line in lines[first:] if "golden" in line][:3]
    path = _limit_path(limit)
    x_t, p_0 = torch.arange(3), torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64).expand(3, -1)
    t, s = (torch.full((3,), k / 20, dtype=torch.float64) for k in (7, 6))
    found = path.posterior(x_t, p_0, t, s)
    # the published formula also answers for types that no other type can turn into; the exact posterior rules them out
    possible = [x for x in range(3) if limit[x] > 0]
    for row, line in ((found[x], golden[x]) for x in possible):
        numbers = [float(v) for v in re.findall(r"\[([^\]]*)\]", line)[-1].split(",")]
        assert row.tolist() == pytest.approx(numbers, abs=1e-6)


def test_golden_survival(shared: Path) -> None:
    line = (shared / "golden" / "pard" / "diffusion.txt").read_text().splitlines()[-1]
    golden = [float(v) for v in line.split("[")[1].rstrip("]").split(",")]
    t = torch.arange(1, 21, dtype=torch.float64) / 20
    assert _limit_path([0.5, 0.5]).survival(t).tolist() == pytest.approx(golden, abs=1e-5)


@pytest.mark.parametrize("noise", GOLDEN)
def test_posterior_is_bayes_and_skipped_steps_compose(noise: str) -> None:
    path = _limit_path(GOLDEN[noise][0])
    one = torch.eye(3, dtype=torch.float64)

    def kernel(t: float, s: float) -> torch.Tensor:
        """q(x_t | x_s), rows x_s."""
        a_t, a_s = (float(path.survival(torch.tensor(v, dtype=torch.float64))) for v in (t, s))
        return a_t / a_s * one + (1 - a_t / a_s) * path.limit

    t, s = 0.45, 0.2
    marginal_s = path.marginal(torch.arange(3), torch.full((3,), s, dtype=torch.float64))
    for x_0, x_t in itertools.product(range(3), range(3)):
        joint = marginal_s[x_0] * kernel(t, s)[:, x_t]
        if joint.sum() == 0:
            continue
        found = path.posterior(torch.tensor([x_t]), one[x_0][None], torch.tensor([t]), torch.tensor([s]))[0]
        torch.testing.assert_close(found, joint / joint.sum(), rtol=1e-7, atol=1e-10)
        # going back in two steps is going back in one
        middle = path.posterior(torch.tensor([x_t]), one[x_0][None], torch.tensor([t]), torch.tensor([0.3]))[0]
        via = sum(
            middle[m] * path.posterior(torch.tensor([m]), one[x_0][None], torch.tensor([0.3]), torch.tensor([s]))[0]
            for m in range(3)
            if middle[m] > 0
        )
        torch.testing.assert_close(found, via, rtol=1e-6, atol=1e-9)


def _outcomes(network_paths: dict[str, CategoricalPath], new: int, have: int) -> torch.Tensor:
    """Every content of a block of real types: (M, new nodes + pairs), the nodes first."""
    nodes, edges = network_paths["nodes"].classes - 1, network_paths["edges"].classes - 1
    pairs = new * have + new * (new - 1) // 2
    return torch.tensor(list(itertools.product(*[range(nodes)] * new, *[range(edges)] * pairs)))


def _block_of(content: torch.Tensor, new: int, have: int, degree: torch.Tensor) -> Block:
    batch = len(content)
    pairs = torch.zeros(batch, new, have + new, dtype=torch.int64)
    pairs[:, :, :have] = content[:, new : new + new * have].reshape(batch, new, have)
    i, j = torch.tril_indices(new, new, -1)
    pairs[:, i, have + j] = pairs[:, j, have + i] = content[:, new + new * have :]
    mask = torch.ones(batch, new, dtype=torch.bool)
    return Block(mask, torch.full((batch,), new), degree.expand(batch), content[:, :new], pairs)


def _content_of(nodes: torch.Tensor, pairs: torch.Tensor, new: int, have: int) -> torch.Tensor:
    """Probabilities of each element's classes, in the order of :func:`_outcomes`, padded to equal length."""
    i, j = torch.tril_indices(new, new, -1)
    parts = [nodes, pairs[:, :, :have].flatten(1, 2), pairs[:, i, have + j]]
    width = max(p.shape[-1] for p in parts)
    return torch.cat([torch.nn.functional.pad(p, (0, width - p.shape[-1])) for p in parts], 1)


@torch.no_grad()
def _block_probabilities(grown: Grown, new: int, degree: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Every block content (M, E) and its probability, summed over all noise and all steps in between."""
    network, have = grown.network, grown.types.shape[1]
    contents = _outcomes(network.paths, new, have)
    nodes, edges = network.paths["nodes"], network.paths["edges"]
    elements = contents.shape[1]
    noise = torch.tensor(
        list(itertools.product(*[range(nodes.classes)] * new, *[range(edges.classes)] * (elements - new)))
    )
    chance = torch.cat([nodes.limit[noise[:, :new]], edges.limit[noise[:, new:]]], 1).prod(1)
    many = grown.chosen(torch.zeros(len(noise), dtype=torch.int64))
    block = _block_of(noise, new, have, torch.tensor(degree))
    for t, s in itertools.pairwise(torch.tensor(TIMES, dtype=torch.float64)):
        p_nodes, p_edges = (real_to_all(x.softmax(-1)) for x in many.denoise(block, t, many.view(block)))
        p = _content_of(
            nodes.posterior(block.types, p_nodes, t, s), edges.posterior(block.pairs, p_edges, t, s), new, have
        )
        after = noise if s > 0 else contents
        chance = torch.stack(
            [p.gather(-1, c.expand(len(p), -1).unsqueeze(-1)).squeeze(-1).prod(1) @ chance for c in after]
        )
    return contents, chance


@torch.no_grad()
def _paths(grown: Grown, chance: float = 1.0) -> list[tuple[float, tuple[int, ...], Grown]]:
    """Every way to generate a graph, with its probability."""
    network = grown.network
    logits, r = grown.size_logits()
    allowed = network.allowed_sizes(grown.count, grown.blocks)
    sizes = logits.double().masked_fill(~allowed, -torch.inf).softmax(-1)[0]
    found: list[tuple[float, tuple[int, ...], Grown]] = []
    if float(sizes[0]) > 0:
        found.append((chance * float(sizes[0]), tuple(grown.block[0].tolist()), grown))
    for size in range(1, len(sizes)):
        if float(sizes[size]) == 0:
            continue
        degrees = network.degrees_after(r, torch.tensor([size])).double().softmax(-1)[0]
        for degree, p_degree in enumerate(degrees.tolist()):
            contents, p_block = _block_probabilities(grown, size, degree)
            for content, p in zip(contents, p_block.tolist(), strict=True):
                block = _block_of(content[None], size, grown.types.shape[1], torch.tensor(degree))
                found += _paths(grown.with_block(block), chance * float(sizes[size]) * p_degree * p)
    return found


@pytest.fixture(scope="module", params=TINY)
def tiny(request: pytest.FixtureRequest) -> tuple[PARD, list[GraphRecord]]:
    """A model of two steps that has learnt tiny graphs, and the graphs."""
    records = TINY[request.param]
    model = random_model(records, steps=2, max_hops=1, spare=0.0)
    assert model.network.limits.nodes == max(r.num_nodes for r in records)
    if request.param == "one type":
        assert model.network.limits == Limits(blocks=2, size=3, degree=2, nodes=3)
    return model, records


@pytest.fixture(scope="module")
def enumerated(tiny: tuple[PARD, list[GraphRecord]]) -> list[tuple[float, tuple[int, ...], Grown]]:
    return _paths(Grown.nothing(tiny[0].network, 1))


def test_probabilities_of_all_graphs_sum_to_one(enumerated: list[tuple[float, tuple[int, ...], Grown]]) -> None:
    assert sum(p for p, _, _ in enumerated) == pytest.approx(1, abs=1e-10)
    # listing the nodes of a block in another order is as likely
    kinds: dict[tuple[object, ...], list[float]] = {}
    for p, block, grown in enumerated:
        degrees = tuple(grown.degrees[0].tolist())
        labels = 2 * np.array(block) + grown.types[0].numpy()
        graph = GraphRecord(len(block), np.argwhere(np.triu(grown.adj[0].numpy()) > 0), labels)
        key = next((k for k in kinds if k[:2] == (block, degrees) and isomorphic(k[2], graph)), (block, degrees, graph))  # pyright: ignore[reportArgumentType]
        kinds.setdefault(key, []).append(p)
    assert any(len(found) > 1 for found in kinds.values())
    for found in kinds.values():
        assert found == pytest.approx([found[0]] * len(found), rel=1e-9)


def test_the_bound_lies_below_the_exact_probability(
    tiny: tuple[PARD, list[GraphRecord]], enumerated: list[tuple[float, tuple[int, ...], Grown]]
) -> None:
    for record in tiny[1]:
        graph = in_blocks(collate([record]), 1, "lexicographic")
        exact = sum(
            p
            for p, block, grown in enumerated
            if block == tuple(graph.block[0].tolist())
            and grown.degrees[0].tolist() == graph.degrees[0].tolist()
            and torch.equal(grown.adj[0], graph.adj[0])
            and torch.equal(grown.types[0], graph.types[0])
        )
        bounds = [tiny[0].log_likelihood_bound([record], seed)[0] for seed in range(40)]
        error = np.std(bounds) / len(bounds) ** 0.5
        assert np.mean(bounds) < np.log(exact) + 4 * error + 1e-9
        assert np.mean(bounds) > np.log(exact) - 3


def test_samples_follow_the_exact_probabilities(
    tiny: tuple[PARD, list[GraphRecord]], enumerated: list[tuple[float, tuple[int, ...], Grown]]
) -> None:
    expected: Counter[bytes] = Counter()
    for p, _, grown in enumerated:
        expected[grown.adj[0].numpy().tobytes() + grown.types[0].numpy().tobytes()] += p  # pyright: ignore[reportArgumentType]
    count = 4000
    drawn = tiny[0].sample_records(count, seed=3, batch_size=2000)
    found = Counter(r.adjacency().tobytes() + _types(r).tobytes() for r in drawn)
    assert set(found) <= set(expected)
    chi2 = sum((found[k] - count * p) ** 2 / (count * p) for k, p in expected.items())
    assert chi2 < len(expected) + 4 * (2 * len(expected)) ** 0.5


def test_loss_with_noise_that_moves_along(model: PARD, records: list[GraphRecord]) -> None:
    rng = np.random.default_rng(2)
    for record in records:
        order = rng.permutation(record.num_nodes)
        values = []
        graphs = in_blocks(collate([record]), 2, "lexicographic")
        n = record.num_nodes
        u_nodes = torch.rand(1, n, dtype=torch.float64)
        u_pairs = torch.rand(1, n, n, dtype=torch.float64).tril(-1)
        u_pairs = u_pairs + u_pairs.mT
        moved = in_blocks(collate([record.permuted(order)]), 2, "lexicographic")
        # place of each sorted node of the renumbered graph in the sorted graph
        back = torch.argsort(graphs.order[0])[torch.from_numpy(order)[moved.order[0]]]
        for g, un, up in (
            (graphs, u_nodes, u_pairs),
            (moved, u_nodes[:, back], u_pairs[:, back][:, :, back]),
        ):
            t = torch.full(g.block.shape, 0.75, dtype=torch.float64)
            terms = denoising_terms(model.network, g, t, t - 0.25, un, up)
            values.append(torch.stack([terms.divergence, terms.cross_entropy]).detach())
        torch.testing.assert_close(values[0], values[1], rtol=1e-10, atol=1e-10)


def test_bound_does_not_depend_on_the_numbering(model: PARD, records: list[GraphRecord]) -> None:
    rng = np.random.default_rng(4)
    first = model.log_likelihood_bound(records, seed=1)
    moved = [r.permuted(rng.permutation(r.num_nodes)) for r in records][::-1]
    again = model.log_likelihood_bound(moved, seed=1, batch_size=5)[::-1]
    np.testing.assert_allclose(first, again, rtol=1e-10)
    assert (first < 0).all()
    assert not np.allclose(first, model.log_likelihood_bound(records, seed=2))
    # the steps that training draws from are the summands of the bound
    with torch.no_grad():
        draws = [model.loss(collate(records), NoiseSource(k, range(len(records)))) for k in range(40)]
    assert torch.isfinite(torch.stack(draws)).all()


def test_canonical_order_makes_numberings_equal() -> None:
    rng = np.random.default_rng(6)
    for graph in (nx.petersen_graph(), nx.disjoint_union(nx.cycle_graph(3), nx.cycle_graph(3)), nx.grid_2d_graph(3, 4)):
        record = from_networkx(nx.convert_node_labels_to_integers(graph))
        found = set()
        for _ in range(5):
            other = record.permuted(rng.permutation(record.num_nodes))
            block = block_order(other.edges, other.num_nodes, 2)
            found.add(other.permuted(canonical_order(other, block)).edges.tobytes())
        assert len(found) == 1


def test_samples_depend_on_seed_and_number_alone(model: PARD) -> None:
    first = model.sample_records(9, seed=5, steps=2)
    for again in (model.sample_records(9, seed=5, steps=2, batch_size=2), model.sample_records(9, seed=5, steps=2)):
        for a, b in zip(first, again, strict=True):
            assert np.array_equal(a.adjacency(), b.adjacency())
            assert a.node_types is not None
            assert np.array_equal(a.node_types, b.node_types)
    other = model.sample_records(9, seed=6, steps=2)
    assert any(not np.array_equal(a.adjacency(), b.adjacency()) for a, b in zip(first, other, strict=True))


def test_numbers_of_nodes_are_met(model: PARD, tiny: tuple[PARD, list[GraphRecord]]) -> None:
    # the last of at most two blocks must hold all that is missing
    most = tiny[0].network.limits.nodes
    assert {r.num_nodes for r in tiny[0].sample_records(60, num_nodes=most, steps=1)} == {most}
    wanted = [1, 2, 5, 7, 7, 3]
    assert [r.num_nodes for r in model.sample_records(6, num_nodes=wanted, steps=1)] == wanted
    part = GraphRecord(2, np.array([(0, 1)]), np.array([0, 2]), np.array([2]))
    assert [r.num_nodes for r in model.complete_records(part, 3, num_nodes=[2, 4, 8], steps=1)] == [2, 4, 8]


def test_completion_keeps_the_part(model: PARD, records: list[GraphRecord]) -> None:
    part = max(records, key=lambda r: r.num_edges)
    part = part.permuted(np.random.default_rng(0).permutation(part.num_nodes))
    found = model.complete_records(part, 6, 1, steps=2)
    again = model.complete_records(part, 6, 1, steps=2, batch_size=4)
    assert any(r.num_nodes > part.num_nodes for r in found)
    for a, b in zip(found, again, strict=True):
        n = part.num_nodes
        assert np.array_equal(a.adjacency()[:n, :n], part.adjacency())
        assert a.node_types is not None
        assert part.node_types is not None
        assert np.array_equal(a.node_types[:n], part.node_types)
        assert np.array_equal(a.adjacency(), b.adjacency())


def test_draws_out_of_order_are_replaced_and_others_stay(model: PARD) -> None:
    """Conditioned on the order: every kept draw is its own first one that is in order, whatever its batch."""
    plain = model.sample_records(30, seed=2, steps=2, redraws=0)
    again = model.sample_records(30, seed=2, steps=2, redraws=6)
    other = model.sample_records(30, seed=2, steps=2, redraws=6, batch_size=7)
    assert all(np.array_equal(a.adjacency(), b.adjacency()) for a, b in zip(again, other, strict=True))

    def kept(redraws: int) -> np.ndarray:
        drawn = model._drawn(30, 2, model._plan(2, None, None), redraws=redraws)
        wrong = model._out_of_order(drawn)
        own = [block_order(g.record(False).edges, len(g.types), 2) for g in drawn]
        assert wrong == [k for k in range(30) if own[k].tolist() != drawn[k].block.tolist()]
        return ~np.isin(np.arange(30), wrong)

    first, later = kept(0), kept(6)
    assert first.mean() == model.order_rate(30, steps=2, seed=2)
    assert 0 < first.sum() < later.sum()
    same = np.array([np.array_equal(a.adjacency(), b.adjacency()) for a, b in zip(plain, again, strict=True)])
    assert same[first].all()
    assert not same[~first].all()
    assert [r.num_nodes for r in again] == [r.num_nodes for r in plain]
    part = GraphRecord(2, np.array([(0, 1)]), np.array([0, 2]), np.array([2]))
    assert all(r.num_nodes == 5 for r in model.complete_records(part, 4, num_nodes=5, steps=1, redraws=2))
    with pytest.raises(ValueError, match="redraws must be at least 0"):
        model.sample(1, redraws=-1)


def test_fewer_steps_are_a_choice_of_the_trained_times() -> None:
    assert times_of(4, 20) == (1.0, 0.75, 0.5, 0.25, 0.0)
    assert set(times_of(7, 20)) <= {k / 20 for k in range(21)}
    assert len(times_of(40, 20)) == 41
    for steps in (1, 3, 19, 20, 33):
        times = times_of(steps, 20)
        assert times[0] == 1
        assert times[-1] == 0
        assert all(a > b for a, b in itertools.pairwise(times))
    with pytest.raises(ValueError, match="at least 1"):
        times_of(0, 20)


@pytest.mark.parametrize("noise", ["uniform", "marginal", "absorbing"])
@pytest.mark.parametrize("hops", [0, 2])
def test_every_noise_and_one_block(noise: str, hops: int, records: list[GraphRecord]) -> None:
    model = random_model(records, noise=noise, max_hops=hops, absolute_blocks=False)
    loss = model.loss(collate(records), NoiseSource(0, range(len(records))))
    assert loss.shape == (len(records),)
    assert bool(torch.isfinite(loss).all())
    loss.sum().backward()
    assert all(p.grad is None or bool(torch.isfinite(p.grad).all()) for p in model.parameters())
    assert np.isfinite(model.log_likelihood_bound(records[:3])).all()
    drawn = model.sample_records(3, steps=2, pull=0.2)
    assert all(r.node_types is not None and r.node_types.max() < 3 for r in drawn)
    if hops == 0:
        assert model.network.limits.blocks == 1
        assert model.network.limits.degree == 0


def test_conditioning_on_a_target(records: list[GraphRecord]) -> None:
    told = [r.with_targets({"size": float(r.num_nodes)}) for r in records]
    model = random_model(told, target="size", max_hops=2)
    loss = model.loss(collate(told), NoiseSource(0, range(len(told))))
    other = model.loss(
        collate([r.with_targets({"size": r.targets["size"] + 3}) for r in told]), NoiseSource(0, range(len(told)))
    )
    assert not torch.allclose(loss, other)
    low, high = (model.sample_records(6, target=v, steps=2, guidance=3.0) for v in (-9.0, 30.0))
    assert any(not np.array_equal(a.adjacency(), b.adjacency()) for a, b in zip(low, high, strict=True))
    # guidance 1 is the conditional model, guidance 0 the unconditional one
    plain = model.sample_records(6, steps=2)
    unguided = model.sample_records(6, target=30.0, steps=2, guidance=0.0)
    assert all(np.array_equal(a.adjacency(), b.adjacency()) for a, b in zip(plain, unguided, strict=True))
    assert np.isfinite(model.log_likelihood_bound(told[:2])).all()
    assert model.complete_records(told[0], 2, target=5.0, steps=1)
    with pytest.raises(ValueError, match="no target 'size'"):
        model.loss(collate(records), NoiseSource(0, range(len(records))))


def test_saving_and_loading(model: PARD, records: list[GraphRecord], tmp_path: Path) -> None:
    small = random_model(records, max_hops=2).float()
    small.save(tmp_path / "model")
    again = load(tmp_path / "model")
    assert isinstance(again, PARD)
    assert again.config() == small.config()
    for a, b in zip(small.sample_records(4, steps=2), again.sample_records(4, steps=2), strict=True):
        assert np.array_equal(a.adjacency(), b.adjacency())
    fresh = PARD(max_hops=2, width=12, pair_width=6, layers=2, heads=2, steps=4)
    fresh.load_state_dict(small.state_dict())
    assert fresh.ready
    assert fresh.block_statistics == small.block_statistics
    np.testing.assert_allclose(fresh.log_likelihood_bound(records), small.log_likelihood_bound(records), rtol=1e-5)


def test_bad_input(model: PARD, records: list[GraphRecord]) -> None:
    long_path = GraphRecord(9, np.array([(k, k + 1) for k in range(8)]), np.zeros(9, int), np.ones(8, int))
    clique = from_networkx(nx.complete_graph(9))
    clique = GraphRecord(9, clique.edges, np.zeros(9, int), np.ones(36, int))
    few_blocks = random_model([r for r in records if r.num_nodes <= 5], max_hops=2, spare=0.0)
    with pytest.raises(ValueError, match="tables have room"):
        few_blocks.loss(collate([long_path]), NoiseSource(0, range(1)))
    with pytest.raises(ValueError, match=r"edges at a new node|nodes in a block"):
        model.log_likelihood_bound([clique])
    with pytest.raises(ValueError, match=r"room for graphs of at most"):
        model.sample_records(1, num_nodes=500)
    with pytest.raises(ValueError, match="no order with max_hops=2"):
        model.complete_records(records[1], blocks=[5] * records[1].num_nodes)
    with pytest.raises(ValueError, match="node classes"):
        model.complete_records(GraphRecord(2, np.array([(0, 1)]), np.array([0, 9]), np.array([1])))
    with pytest.raises(ValueError, match="num_nodes must be at least 2"):
        model.complete_records(GraphRecord(2, np.array([(0, 1)])), num_nodes=1)
    with pytest.raises(ValueError, match="not seen data"):
        PARD().sample(1)
    with pytest.raises(ValueError, match="without a target"):
        model.sample_records(1, target=1.0)
    with pytest.raises(ValueError, match="n must be"):
        model.sample(0)
    with pytest.raises(ValueError, match="pull"):
        model.sample(1, pull=2.0)
    with pytest.raises(ValueError, match="num_nodes has 2 values"):
        model.sample(1, num_nodes=[3, 4])
    featured = GraphRecord(2, np.array([(0, 1)]), node_features=np.ones((2, 1)))
    with pytest.raises(ValueError, match="not real features"):
        PARD().learn([featured])
    for wrong, said in (
        ({"noise": "pink"}, "noise must be"),
        ({"rule": "x"}, "rule must be"),
        ({"steps": 0}, "steps and layers"),
        ({"heads": 5}, "multiple of heads"),
        ({"pull": 3.0}, "pull must be in"),
    ):
        with pytest.raises(ValueError, match=said):
            PARD(**wrong)  # pyright: ignore[reportArgumentType]


@pytest.mark.slow
def test_learns_paths() -> None:
    """Loss below half, nearly all samples connected paths that would have been generated the same way."""
    records = [from_networkx(nx.path_graph(n)) for n in (6, 7, 8)] * 8
    torch.manual_seed(0)
    model = PARD(max_hops=2, width=32, pair_width=8, layers=2, heads=4, steps=10, spare=0.0)
    model.learn(records)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, 300)
    batch, losses = collate(records), []
    for step in range(300):
        loss = model.loss(batch, NoiseSource(step, range(len(records)))).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-20:]) < np.mean(losses[:5]) / 2
    drawn = model.eval().sample_records(40, seed=1)
    paths = [
        is_connected(r) and r.num_edges == r.num_nodes - 1 and np.bincount(r.edges.ravel()).max() <= 2 for r in drawn
    ]
    assert np.mean(paths) >= 0.9
    assert model.order_rate(40, seed=1) >= 0.9
