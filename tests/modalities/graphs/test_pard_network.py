"""The network of PARD: equivariance, causality, and rows computed alone equal to rows computed together."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from pard_models import random_graphs, random_model, rows_of

from fourfold.core import NoiseSource
from fourfold.modalities.graphs.block_batch import BlockBatch, in_blocks
from fourfold.modalities.graphs.pard import PARD
from fourfold.modalities.graphs.pard_network import evidence
from fourfold.modalities.graphs.pard_sampling import continued
from fourfold.modalities.graphs.pard_terms import order_terms
from fourfold.modalities.graphs.ppgn import PPGNTransformer
from fourfold.modalities.graphs.prefix_cache import Block, Grown
from fourfold.modalities.graphs.records import GraphRecord, collate

Outputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@pytest.fixture(scope="module")
def records() -> list[GraphRecord]:
    return random_graphs(12)


@pytest.fixture(scope="module")
def model(records: list[GraphRecord]) -> PARD:
    return random_model(records, max_hops=2)


def _noisy(graphs: BlockBatch, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = graphs.block.shape
    types = torch.randint(4, shape, generator=generator)
    pairs = torch.randint(4, (*shape, shape[1]), generator=generator).tril(-1)
    t = torch.rand(graphs.sizes.shape, generator=generator, dtype=torch.float64)
    return types, pairs + pairs.mT, graphs.of_node(t)


@torch.no_grad()
def _outputs(model: PARD, graphs: BlockBatch, noisy: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> Outputs:
    """Logits and gathered features, 0 where there is nothing."""
    types, adj, t = noisy
    clean = rows_of(graphs, graphs.types, graphs.adj, torch.zeros_like(t))
    nodes, edges, gathered = model.network.parallel(clean, rows_of(graphs, types, adj, t), graphs.block, None)
    both = graphs.mask[:, :, None] & graphs.mask[:, None, :]
    seen = both & (graphs.block[:, None, :] <= graphs.block[:, :, None])
    mask = graphs.mask.unsqueeze(-1)
    return nodes * mask, edges * seen.unsqueeze(-1), gathered * mask


def _permuted(graphs: BlockBatch, order: torch.Tensor) -> BlockBatch:
    return replace(
        graphs,
        types=graphs.types[:, order],
        adj=graphs.adj[:, order][:, :, order],
        block=graphs.block[:, order],
    )


def _beginning(graphs: BlockBatch, row: int, blocks: int) -> BlockBatch:
    """The first blocks of one graph."""
    n = int(graphs.sizes[row, :blocks].sum())
    one = slice(row, row + 1)
    return BlockBatch(
        graphs.types[one, :n],
        graphs.adj[one, :n, :n],
        graphs.block[one, :n],
        graphs.sizes[one, :blocks],
        graphs.degrees[one, :blocks],
        graphs.order[one, :n],
    )


def test_any_permutation_of_the_dense_index_permutes_the_outputs(model: PARD, records: list[GraphRecord]) -> None:
    graphs = in_blocks(collate(records), 2, "lexicographic")
    noisy = _noisy(graphs)
    nodes, edges, gathered = _outputs(model, graphs, noisy)
    order = torch.randperm(graphs.block.shape[1], generator=torch.Generator().manual_seed(3))
    moved = (noisy[0][:, order], noisy[1][:, order][:, :, order], noisy[2][:, order])
    other = _outputs(model, _permuted(graphs, order), moved)
    expected = (nodes[:, order], edges[:, order][:, :, order], gathered[:, order])
    for a, b in zip(other, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    # within a block the pair is the same from both sides
    own = (graphs.block[:, :, None] == graphs.block[:, None, :]) & graphs.mask[:, :, None]
    torch.testing.assert_close((edges - edges.transpose(1, 2))[own], torch.zeros_like(edges[own]), rtol=0, atol=1e-12)


def test_nothing_looks_ahead(model: PARD, records: list[GraphRecord]) -> None:
    record = max(records, key=lambda r: len(set(in_blocks(collate([r]), 2, "lexicographic").block[0].tolist())))
    graphs = in_blocks(collate([record]), 2, "lexicographic")
    noisy = _noisy(graphs)
    before = _outputs(model, graphs, noisy)
    last = int(graphs.block.max())
    assert last >= 2
    for k in range(last + 1):
        touched = graphs.block == k
        pairs = touched[:, :, None] | touched[:, None, :]
        pairs &= (graphs.block[:, :, None] <= k) & (graphs.block[:, None, :] <= k)
        pairs &= ~torch.eye(pairs.shape[1], dtype=torch.bool)
        changed = replace(
            graphs,
            types=torch.where(touched, (graphs.types + 1) % 3, graphs.types),
            adj=torch.where(pairs, (graphs.adj + 1) % 3, graphs.adj),
        )
        after = _outputs(model, changed, noisy)
        upto, beyond = graphs.block <= k, graphs.block > k
        for a, b in zip(before[:2], after[:2], strict=True):
            assert torch.equal(a[upto], b[upto])
            assert k == last or bool((a[beyond] - b[beyond]).abs().max() > 1e-6)
        assert torch.equal(before[2][graphs.block < k], after[2][graphs.block < k])
        assert not torch.equal(before[2][touched], after[2][touched])
        # finished nodes never see noise, and noisy blocks never see each other
        wilder = (
            torch.where(touched, (noisy[0] + 1) % 4, noisy[0]),
            torch.where(pairs & touched[:, :, None], (noisy[1] + 1) % 4, noisy[1]),
            torch.where(touched, noisy[2] / 2, noisy[2]),
        )
        after = _outputs(model, graphs, wilder)
        assert torch.equal(before[2], after[2])
        assert torch.equal(before[0][~touched], after[0][~touched])
        assert not torch.equal(before[0][touched], after[0][touched])


@torch.no_grad()
def test_a_block_alone_on_its_cached_prefix_equals_all_blocks_together(model: PARD, records: list[GraphRecord]) -> None:
    """Parallel training is sequential training, and the prefix cache is exact."""
    graphs = in_blocks(collate(records), 2, "lexicographic")
    noisy = _noisy(graphs)
    nodes, edges, gathered = _outputs(model, graphs, noisy)
    for b, blocks in enumerate(graphs.blocks.tolist()):
        for k in range(blocks):
            n = int(graphs.sizes[b, :k].sum())
            new = slice(n, n + int(graphs.sizes[b, k]))
            grown = continued(Grown.nothing(model.network, 1), _beginning(graphs, b, k))
            block = Block(
                torch.ones(1, new.stop - n, dtype=torch.bool),
                graphs.sizes[b : b + 1, k],
                graphs.degrees[b : b + 1, k],
                noisy[0][b : b + 1, new],
                noisy[1][b : b + 1, new, : new.stop],
            )
            alone = grown.denoise(block, noisy[2][b, n], grown.view(block))
            torch.testing.assert_close(alone[0], nodes[b : b + 1, new], rtol=0, atol=1e-12)
            torch.testing.assert_close(alone[1], edges[b : b + 1, new, : new.stop], rtol=0, atol=1e-12)
            torch.testing.assert_close(grown.total, gathered[b : b + 1, :n].sum(1), rtol=0, atol=1e-12)


@torch.no_grad()
def test_sizes_and_degrees_one_by_one_equal_all_together(model: PARD, records: list[GraphRecord]) -> None:
    graphs = in_blocks(collate(records), 2, "lexicographic")
    gathered = _outputs(model, graphs, _noisy(graphs))[2]
    together = order_terms(model.network, graphs, gathered)
    for b, blocks in enumerate(graphs.blocks.tolist()):
        total = torch.zeros((), dtype=torch.float64)
        for k in range(blocks + 1):
            grown = continued(Grown.nothing(model.network, 1), _beginning(graphs, b, k))
            logits, r = grown.size_logits()
            allowed = model.network.allowed_sizes(grown.count, grown.blocks)
            size = int(graphs.sizes[b, k]) if k < blocks else 0
            total -= logits.masked_fill(~allowed, -torch.inf).log_softmax(-1)[0, size]
            if k < blocks:
                degrees = model.network.degrees_after(r, torch.tensor([size])).log_softmax(-1)
                total -= degrees[0, graphs.degrees[b, k]]
        torch.testing.assert_close(total, together[b], rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_grown_batches_do_not_depend_on_batch_mates(model: PARD, records: list[GraphRecord]) -> None:
    graphs = in_blocks(collate(records), 2, "lexicographic")
    same = (graphs.blocks == 3).nonzero()[:, 0]
    assert len(same) >= 2

    def part(rows: torch.Tensor) -> BlockBatch:
        return BlockBatch(*(getattr(graphs, k)[rows] for k in BlockBatch.__dataclass_fields__))

    together = continued(Grown.nothing(model.network, len(same)), part(same))
    together = together.chosen(torch.arange(len(same)).flip(0))
    for k, row in enumerate(same.flip(0)):
        alone = continued(Grown.nothing(model.network, 1), part(row[None]))
        kept = alone.types.shape[1]
        assert torch.equal(alone.adj[0], together.adj[k, :kept, :kept])
        assert torch.equal(alone.block[0], together.block[k, :kept])
        torch.testing.assert_close(alone.total[0], together.total[k], rtol=0, atol=1e-12)
        for a, b in zip(alone.prefix, together.prefix, strict=True):
            torch.testing.assert_close(a.key[0], b.key[k, :kept], rtol=0, atol=1e-12)
            torch.testing.assert_close(a.factor[0], b.factor[k, :, :kept, :kept], rtol=0, atol=1e-12)
        torch.testing.assert_close(alone.size_logits()[0][0], together.size_logits()[0][k], rtol=0, atol=1e-12)


def test_padding_and_batch_mates_do_not_matter(model: PARD, records: list[GraphRecord]) -> None:
    batch = collate(records, max_nodes=13)
    noise = NoiseSource(5, range(len(records)))
    together = model.loss(batch, noise)
    for k, record in enumerate(records):
        alone = model.loss(collate([record]), noise[torch.tensor([k])])
        torch.testing.assert_close(alone[0], together[k], rtol=1e-12, atol=1e-12)


def test_evidence_is_the_posterior_of_an_entry_by_itself(model: PARD) -> None:
    path = model.network.paths["nodes"]
    t = torch.tensor([[0.25, 0.9]], dtype=torch.float64)
    for x in range(path.classes):
        x_t = torch.full((1, 2), x)
        found = evidence(path, x_t, t).softmax(-1)
        for column in range(2):
            rows = torch.stack(
                [path.marginal(torch.tensor([k]), t[0, column : column + 1])[0, x] for k in range(path.classes - 1)]
            )
            torch.testing.assert_close(found[0, column], rows / rows.sum(), rtol=1e-9, atol=1e-12)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="multiple of heads"):
        PPGNTransformer(10, 4, 1, 3)
    with pytest.raises(ValueError, match="at least 1"):
        PPGNTransformer(8, 4, 0, 2)
