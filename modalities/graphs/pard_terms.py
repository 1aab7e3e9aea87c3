r"""What PARD is trained on and judged by: the terms of a bound on the likelihood.

For a graph in blocks :math:`B_1..B_L`, with T diffusion steps, times t = 1/T, ..., 1 and s = t - 1/T,

.. math::
    -\log p(G) \le \sum_b \Big[ -\log p(|B_b|) - \log p(d_b) + KL(q(x_1|x_0) \| \pi)
        + \sum_t E_{x_t} KL(q(x_s | x_t, x_0) \| p_\theta(x_s | x_t)) \Big]

where sizes, degrees and the denoiser see all earlier blocks. All blocks are computed at once: finished nodes never look
at noise, and the noise of one block never at another's. The sums run over nodes and over pairs, every pair once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...core import CategoricalPath, NoiseSource
from ...core.categorical import draw_categories
from ...core.supports import Symmetric
from .block_batch import BlockBatch
from .pard_network import PARDNetwork, Rows

__all__ = ["DenoisingTerms", "bound", "denoising_terms", "order_terms", "prior_terms", "uniforms"]


@dataclass(frozen=True)
class DenoisingTerms:
    """Sums per graph, in nats, float64 (B,).

    Args:
        divergence: KL of one reverse step, over nodes and pairs.
        cross_entropy: of the clean types, over nodes and pairs.
        gathered: features of the finished nodes, for :func:`order_terms`, (B, N, Dn).
    """

    divergence: Tensor
    cross_entropy: Tensor
    gathered: Tensor


def denoising_terms(
    network: PARDNetwork,
    graphs: BlockBatch,
    t: Tensor,
    s: Tensor,
    noise_nodes: Tensor,
    noise_pairs: Tensor,
    condition: Tensor | None = None,
) -> DenoisingTerms:
    """Noise every block at its own time and compare one reverse step with the true one.

    Args:
        network: the model.
        graphs: B graphs.
        t: time of each node's block (B, N), float64.
        s: time of the step's end (B, N).
        noise_nodes: uniform numbers (B, N).
        noise_pairs: uniform numbers (B, N, N), symmetric.
        condition: see :meth:`.pard_network.PARDNetwork.rows`.
    """
    nodes, edges = network.paths["nodes"], network.paths["edges"]
    noisy_types = draw_categories(nodes.marginal(graphs.types, t), noise_nodes)
    noisy_adj = draw_categories(edges.marginal(graphs.adj, t), noise_pairs)
    same = torch.eye(t.shape[1], dtype=torch.bool, device=t.device)
    noisy_adj = torch.where(same, 0, noisy_adj)
    size, degree = graphs.of_node(graphs.sizes), graphs.of_node(graphs.degrees)

    def rows(types: Tensor, adj: Tensor, time: Tensor) -> Rows:
        return Rows(types[None], adj[None], time[None], graphs.block, graphs.block, size, degree, same)

    node_logits, edge_logits, gathered = network.parallel(
        rows(graphs.types, graphs.adj, torch.zeros_like(t)), rows(noisy_types, noisy_adj, t), graphs.block, condition
    )
    divergence = cross_entropy = torch.zeros(len(graphs), dtype=torch.float64, device=t.device)
    parts = (
        (nodes, graphs.types, noisy_types, node_logits, graphs.mask),
        (edges, graphs.adj, noisy_adj, edge_logits, graphs.pairs),
    )
    for path, clean, noisy, logits, counted in parts:
        # only what counts, as one long list: half of the pairs and all of the padding is left out
        graph = counted.nonzero()[:, 0]
        row_t, row_s = (x if counted.ndim == 2 else x.unsqueeze(-1).expand(counted.shape) for x in (t, s))
        kl, ce = _step(path, clean[counted], noisy[counted], logits[counted], row_t[counted], row_s[counted])
        divergence = divergence.index_add(0, graph, kl)
        cross_entropy = cross_entropy.index_add(0, graph, ce)
    return DenoisingTerms(divergence, cross_entropy, gathered)


def order_terms(network: PARDNetwork, graphs: BlockBatch, gathered: Tensor, condition: Tensor | None = None) -> Tensor:
    """-log p of all block sizes and degrees, float64 (B,).

    Args:
        network: the model.
        graphs: B graphs.
        gathered: features of finished nodes (B, N, Dn).
        condition: (B, Dn) or None.
    """
    length = graphs.sizes.shape[1]
    member = graphs.block[:, None, :] == torch.arange(length, device=graphs.block.device)[:, None]
    own = member.to(gathered) @ gathered
    count = graphs.sizes.cumsum(1)
    scale = graphs.sizes.clamp(min=1).to(gathered).rsqrt().unsqueeze(-1)
    later, r = network.sizes_after(own.cumsum(1), own * scale, count, condition)
    first, r_0 = network.first_sizes(len(graphs), condition)
    logits = torch.cat([first.unsqueeze(1), later], 1)
    before = torch.cat([torch.zeros_like(count[:, :1]), count], 1)
    done = torch.arange(length + 1, device=count.device).expand(len(graphs), -1)
    logits = logits.double().masked_fill(~network.allowed_sizes(before, done), -torch.inf)
    target = torch.cat([graphs.sizes, torch.zeros_like(graphs.sizes[:, :1])], 1)
    sizes = -logits.log_softmax(-1).gather(-1, target.unsqueeze(-1)).squeeze(-1)
    counted = done <= graphs.blocks.unsqueeze(1)
    degree_logits = network.degrees_after(torch.cat([r_0.unsqueeze(1), r[:, :-1]], 1), graphs.sizes)
    degrees = -degree_logits.double().log_softmax(-1).gather(-1, graphs.degrees.unsqueeze(-1)).squeeze(-1)
    return torch.where(counted, sizes, 0).sum(1) + torch.where(graphs.sizes > 0, degrees, 0).sum(1)


def prior_terms(network: PARDNetwork, graphs: BlockBatch) -> Tensor:
    """KL(q(x_1 | x_0) || pi) of all nodes and pairs, float64 (B,); all but 0 with the cosine schedule."""
    end = torch.ones((), dtype=torch.float64, device=graphs.types.device)
    total = torch.zeros(len(graphs), dtype=torch.float64, device=graphs.types.device)
    parts = ((network.paths["nodes"], graphs.types, graphs.mask), (network.paths["edges"], graphs.adj, graphs.pairs))
    for path, clean, counted in parts:
        q = path.marginal(clean, end.expand(len(graphs)))
        limit = path.limit.to(q.device)
        ratio = torch.where(q > 0, q * (q.clamp(min=1e-300).log() - limit.clamp(min=1e-10).log()), 0).sum(-1)
        total = total + torch.where(counted, ratio, 0).flatten(1).sum(1)
    return total


def uniforms(graphs: BlockBatch, source: NoiseSource, key: int) -> tuple[Tensor, Tensor]:
    """Uniform numbers of nodes (B, N) and pairs (B, N, N), symmetric, float64.

    Args:
        graphs: B graphs.
        source: B ids.
        key: number of the draw.
    """
    like = torch.empty(graphs.block.shape, dtype=torch.float64, device=graphs.block.device)
    pairs = like.unsqueeze(-1).expand(-1, -1, like.shape[1])
    return source.uniform(like, 2 * key, graphs.mask), Symmetric().uniform(pairs, graphs.mask, source, 2 * key + 1)


def bound(
    network: PARDNetwork,
    graphs: BlockBatch,
    source: NoiseSource,
    steps: int,
    draws: int = 1,
    condition: Tensor | None = None,
) -> Tensor:
    """An estimate of the upper bound on -log p, all steps summed, in nats, float64 (B,).

    Args:
        network: the model.
        graphs: B graphs.
        source: B ids.
        steps: T.
        draws: noisy states per step.
        condition: (B, Dn) or None.
    """
    total = prior_terms(network, graphs)
    gathered = None
    for step in range(steps):
        # not s + 1/T: beyond 1 by a rounding error the survival probability is negative
        t, s = (
            torch.full(graphs.block.shape, k / steps, dtype=torch.float64, device=graphs.block.device)
            for k in (step + 1, step)
        )
        for draw in range(draws):
            noise = uniforms(graphs, source, step * draws + draw)
            terms = denoising_terms(network, graphs, t, s, *noise, condition)
            total = total + terms.divergence / draws
            gathered = terms.gathered
    assert gathered is not None
    return total + order_terms(network, graphs, gathered, condition)


def _step(
    path: CategoricalPath, clean: Tensor, noisy: Tensor, logits: Tensor, t: Tensor, s: Tensor
) -> tuple[Tensor, Tensor]:
    """KL of the reverse step from t to s and cross-entropy of x_0, of M entries: (M,), (M,)."""
    log_p0 = logits.double().log_softmax(-1)
    cross_entropy = -log_p0.gather(-1, clean.unsqueeze(-1)).squeeze(-1)
    predicted = path.posterior(noisy, real_to_all(log_p0.exp()), t, s)
    true = path.posterior(noisy, torch.nn.functional.one_hot(clean, path.classes).double(), t, s)
    smallest = torch.finfo(torch.float64).tiny
    kl = torch.where(true > 0, true * (true.clamp(min=smallest).log() - predicted.clamp(min=smallest).log()), 0)
    # the last step's divergence is the cross-entropy, which does not underflow
    return torch.where(s > 0, kl.sum(-1), cross_entropy), cross_entropy


def real_to_all(probabilities: Tensor) -> Tensor:
    """Probabilities of real types, then 0 for the extra state: (*, K - 1) -> (*, K)."""
    return torch.nn.functional.pad(probabilities, (0, 1))
