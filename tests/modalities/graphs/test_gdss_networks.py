"""Laws of the networks of GDSS: permutation, padding, symmetry and the exact share of each entry."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fourfold.core import Cosine, GaussianPath, NoiseSource, Symmetric
from fourfold.modalities.graphs.attention_network import AttentionBackbone
from fourfold.modalities.graphs.backbone import Backbone
from fourfold.modalities.graphs.codes import Codebook, simplex
from fourfold.modalities.graphs.encoding import GraphEncoding
from fourfold.modalities.graphs.graph_transformer import TransformerBackbone
from fourfold.modalities.graphs.network import GraphNetwork
from fourfold.modalities.graphs.pairs import dense_pairs, packed_pairs, pair_indices
from fourfold.modalities.graphs.statistics import GraphStatistics

BACKBONES = [
    TransformerBackbone(node_width=8, pair_width=6, heads=2, products=3, layers=2),
    AttentionBackbone(width=8, channels=4, powers=3, heads=2, layers=2),
]
SCHEDULE = Cosine()


def network_of(backbone: Backbone) -> GraphNetwork:
    torch.manual_seed(3)
    facts = GraphStatistics(
        (0, 1),
        (3, 1, 9),
        (20, 5, 2, 1),
        feature_mean=(0.0, 0.0),
        feature_std=(1.0, 1.0),
        edge_feature_mean=(0.0,),
        edge_feature_std=(1.0,),
    )
    network = GraphNetwork(GraphEncoding(facts, SCHEDULE), backbone, 16, target=True).double()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network


def states_of(mask: Tensor) -> dict[str, Tensor]:
    batch, size = mask.shape
    noise = NoiseSource(1, range(batch))
    shapes = {"x": (batch, size, 2), "features": (batch, size, 2)}
    pairs = {"adj": (batch, size, size, 3), "edge_features": (batch, size, size, 1)}
    drawn = {
        k: GaussianPath(SCHEDULE).noise(torch.empty(s, dtype=torch.float64), noise.spawn(len(k)), mask)
        for k, s in shapes.items()
    }
    return drawn | {
        k: GaussianPath(SCHEDULE, Symmetric()).noise(torch.empty(s, dtype=torch.float64), noise.spawn(len(k)), mask)
        for k, s in pairs.items()
    }


def call(network: GraphNetwork, states: dict[str, Tensor], t: Tensor, mask: Tensor) -> dict[str, Tensor]:
    condition = {"target": torch.linspace(-1, 1, len(t)).double(), "known": torch.ones(len(t)).double()}
    clean = network(states, t, mask=dict.fromkeys(states, mask), condition=condition)
    supports = {name: network.path[name].support for name in clean}
    return {name: supports[name].project(value, mask) for name, value in clean.items()}


@pytest.mark.parametrize("backbone", BACKBONES, ids=lambda b: type(b).__name__)
def test_permuting_nodes_permutes_the_output(backbone: Backbone) -> None:
    network = network_of(backbone)
    mask = torch.arange(7) < torch.tensor([7, 5, 3])[:, None]
    states, t = states_of(mask), torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    order = torch.tensor([4, 0, 6, 2, 5, 1, 3])
    permuted = {k: v[:, order] if v.ndim == 3 else v[:, order][:, :, order] for k, v in states.items()}
    plain, moved = call(network, states, t, mask), call(network, permuted, t, mask[:, order])
    for name, value in plain.items():
        expected = value[:, order] if value.ndim == 3 else value[:, order][:, :, order]
        torch.testing.assert_close(moved[name], expected, atol=1e-10, rtol=0)
        assert value.std() > 0.1
        if value.ndim == 4:
            torch.testing.assert_close(value, value.transpose(1, 2), atol=0, rtol=0)


@pytest.mark.parametrize("backbone", BACKBONES, ids=lambda b: type(b).__name__)
def test_neither_padding_nor_what_it_holds_nor_batch_mates_change_the_output(backbone: Backbone) -> None:
    network = network_of(backbone)
    mask = torch.arange(7) < torch.tensor([7, 4, 3])[:, None]
    states, t = states_of(mask), torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    together = call(network, states, t, mask)
    condition = {"target": torch.zeros(1).double(), "known": torch.ones(1).double()}
    narrow = {k: v[1:2, :4] if v.ndim == 3 else v[1:2, :4, :4] for k, v in states.items()}
    alone = network(narrow, t[1:2], mask=dict.fromkeys(states, mask[1:2, :4]), condition=condition)
    for name, value in together.items():
        expected = value[1:2, :4] if value.ndim == 3 else value[1:2, :4, :4]
        own = network.path[name].support.project(alone[name], mask[1:2, :4])
        torch.testing.assert_close(own, expected, atol=1e-10, rtol=0)
    dirty = {k: torch.where(network.path[k].support.real(v, mask), v, 7.0) for k, v in states.items()}
    for name, value in call(network, dirty, t, mask).items():
        torch.testing.assert_close(value, together[name], atol=1e-10, rtol=0)


@pytest.mark.parametrize("backbone", BACKBONES, ids=lambda b: type(b).__name__)
def test_time_size_and_target_reach_the_output(backbone: Backbone) -> None:
    network = network_of(backbone)
    mask = torch.ones(1, 5, dtype=torch.bool)
    states, t = states_of(mask), torch.tensor([0.4], dtype=torch.float64)

    def adj(t: Tensor, target: float, known: float) -> Tensor:
        condition = {"target": torch.tensor([target]).double(), "known": torch.tensor([known]).double()}
        return network.outputs(states, t, mask, condition)["adj"] - network.encoding.book("adj").logits(
            packed_pairs(states["adj"], pair_indices(5)), t, SCHEDULE
        )

    base = adj(t, 0.5, 1.0)
    assert (adj(t + 0.1, 0.5, 1.0) - base).abs().max() > 1e-3
    assert (adj(t, 1.5, 1.0) - base).abs().max() > 1e-3
    assert (adj(t, 0.5, 0.0) - base).abs().max() > 1e-3
    torch.testing.assert_close(adj(t, 9.0, 0.0), adj(t, 0.5, 0.0), atol=1e-12, rtol=0)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_codes_are_a_simplex(classes: int) -> None:
    corners = simplex(classes)
    assert corners.shape == (classes, classes - 1)
    distances = torch.cdist(corners, corners)
    torch.testing.assert_close(distances, 2 * (1 - torch.eye(classes, dtype=torch.float64)), atol=1e-6, rtol=0)
    torch.testing.assert_close(corners.mean(0), torch.zeros(classes - 1, dtype=torch.float64), atol=1e-12, rtol=0)
    book = Codebook(torch.ones(classes))
    index = torch.arange(classes)
    assert torch.equal(book.decode(book.encode(index)), index)


def test_without_a_network_the_posterior_is_that_of_independent_entries() -> None:
    counts = torch.tensor([5, 2, 8])
    book = Codebook(counts).double()
    t = torch.tensor([0.3, 0.7], dtype=torch.float64)
    x_t = torch.randn(2, 4, 2, dtype=torch.float64)
    alpha, sigma = SCHEDULE.alpha(t).reshape(2, 1, 1), SCHEDULE.sigma(t).reshape(2, 1, 1)
    prior = (counts + 1).double() / (counts + 1).sum()
    likelihood = torch.stack(
        [torch.exp(-((x_t - alpha * corner) ** 2).sum(-1) / (2 * sigma[..., 0] ** 2)) for corner in simplex(3)], dim=-1
    )
    posterior = likelihood * prior / (likelihood * prior).sum(-1, keepdim=True)
    mine = book.logits(x_t, t, SCHEDULE)
    torch.testing.assert_close(mine.softmax(-1), posterior, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(book.mean(mine), posterior @ simplex(3), atol=1e-6, rtol=1e-6)


def test_pairs_and_matrices_are_each_others_inverse() -> None:
    index = pair_indices(5)
    pairs = torch.randn(2, 10, 3)
    matrix = dense_pairs(pairs, index, 5)
    assert torch.equal(packed_pairs(matrix, index), pairs)
    assert torch.equal(matrix, matrix.transpose(1, 2))
    assert not matrix.diagonal(dim1=1, dim2=2).any()
