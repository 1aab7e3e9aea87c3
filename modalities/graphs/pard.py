r"""PARD: graphs block by block, every block by diffusion.

A graph is peeled into blocks of structurally equal nodes (:mod:`.block_order`); the last one peeled comes first:

.. math::
    p(G) = \prod_b p(|B_b| \,|\, G_{b-1})\, p(d_b \,|\, |B_b|, G_{b-1})\,
        p_\theta(G_b \setminus G_{b-1} | G_{b-1}, |B_b|, d_b)

with :math:`d_b` the degree of the new nodes in :math:`G_b`, and size 0 as the end. The last factor is a categorical
diffusion of the new nodes and of all their pairs, given the clean rest. The blocks of a graph do not depend on the
numbering of its nodes and the network is equivariant, so that the likelihood of a graph is that of any renumbering.

Source: `Zhao et al. 2024, Pard: Permutation-Invariant Autoregressive Diffusion for Graph Generation
<https://arxiv.org/abs/2402.03687>`_. Different here: an order whose blocks always share their degree, real times
instead of integers, LayerNorm, one network for sizes, degrees and types, finished blocks computed once while sampling,
a bound on the likelihood, completion of given parts, and a target to generate for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ...core import NoiseSource
from ..registry import register
from .block_batch import in_blocks, of_records
from .block_order import RULES
from .block_statistics import BlockStatistics
from .pard_generation import BlockGenerator
from .pard_network import PARDNetwork
from .pard_tables import NOISES, check_blocks, check_types, limits_of, path_of
from .pard_target import hidden, hidden_condition, training_condition
from .pard_terms import bound, denoising_terms, order_terms, uniforms
from .records import GraphBatch, GraphRecord
from .statistics import GraphStatistics

if TYPE_CHECKING:
    import networkx as nx

__all__ = ["PARD"]

_LOSS, _DROPOUT, _BOUND = 1, 2, 4

# Times of a graph's blocks are spread evenly: multiples of the golden ratio never come close to each other.
_GOLDEN = (5**0.5 - 1) / 2


@register
class PARD(BlockGenerator):
    """Generates graphs or molecules block by block.

    A new model knows nothing of its data until :meth:`learn` (a task calls it); a loaded one has learnt.

    Args:
        statistics: types and scales of the data; None until :meth:`learn`.
        block_statistics: its blocks; None until :meth:`learn`.
        max_hops: K of the block order; 0 generates all nodes at once, larger K makes more and smaller blocks.
        rule: of the block order, "lexicographic" or (as published) "reference".
        steps: diffusion steps T of each block.
        noise: what entries decay to: "uniform" over types and one extra state, "marginal" (frequencies in the data),
            or "absorbing" (the extra state).
        width: features of a node.
        pair_width: features of a pair.
        layers: layers of the network.
        heads: attention heads.
        absolute_blocks: whether nodes are told the number of their block.
        cross_entropy: weight of the cross-entropy beside the divergence of a step.
        spare: how far generated graphs may exceed the training graphs, as a share, in nodes, blocks, sizes and degrees.
        sampling_steps: default steps per block when sampling; None is T.
        pull: default pull towards the estimate when sampling, in [0, 1].
        target: name of the graph property that graphs can be generated for.
        target_dropout: how often it is hidden in training.
        guidance: default scale of classifier-free guidance; 1 is plain conditional sampling.
        redraws: default for how often a draw is replaced that its own block order would not produce.
    """

    name: ClassVar[str] = "pard"
    statistics_text: Tensor

    def __init__(
        self,
        statistics: GraphStatistics | Mapping[str, Any] | None = None,
        block_statistics: BlockStatistics | Mapping[str, Any] | None = None,
        max_hops: int = 3,
        rule: str = "lexicographic",
        steps: int = 20,
        noise: str = "uniform",
        width: int = 64,
        pair_width: int = 16,
        layers: int = 4,
        heads: int = 4,
        absolute_blocks: bool = True,
        cross_entropy: float = 0.1,
        spare: float = 0.1,
        sampling_steps: int | None = None,
        pull: float = 0.0,
        target: str | None = None,
        target_dropout: float = 0.15,
        guidance: float = 2.0,
        redraws: int = 0,
    ) -> None:
        super().__init__()
        if rule not in RULES:
            raise ValueError(f"rule must be one of {', '.join(RULES)}, got {rule!r}")
        if noise not in NOISES:
            raise ValueError(f"noise must be one of {', '.join(NOISES)}, got {noise!r}")
        if min(steps, layers) < 1 or min(max_hops, redraws) < 0:
            raise ValueError(
                "steps and layers must be at least 1, max_hops and redraws at least 0, got "
                f"{steps}, {layers}, {max_hops}, {redraws}"
            )
        if not (0 <= target_dropout <= 1 and 0 <= pull <= 1 and spare >= 0 and cross_entropy >= 0):
            raise ValueError(
                "target_dropout and pull must be in [0, 1], spare and cross_entropy not negative, got "
                f"{target_dropout}, {pull}, {spare}, {cross_entropy}"
            )
        if width % heads:
            raise ValueError(f"width ({width}) must be a multiple of heads ({heads})")
        self.max_hops, self.rule, self.steps, self.noise = max_hops, rule, steps, noise
        self._sizes_of = {
            "width": width,
            "pair_width": pair_width,
            "layers": layers,
            "heads": heads,
            "absolute_blocks": absolute_blocks,
        }
        self.cross_entropy, self.spare = cross_entropy, spare
        self.sampling_steps, self.pull = sampling_steps, pull
        self.target, self.target_dropout, self.guidance = target, target_dropout, guidance
        self.redraws = redraws
        self._facts: tuple[GraphStatistics, BlockStatistics] | None = None
        # the facts about the data travel with the weights, so that any way of loading them rebuilds the network
        self.register_buffer("statistics_text", torch.empty(0, dtype=torch.uint8))
        if (statistics is None) != (block_statistics is None):
            raise ValueError("statistics and block_statistics belong together: give both or none")
        if statistics is not None and block_statistics is not None:
            self._set_facts(
                statistics if isinstance(statistics, GraphStatistics) else GraphStatistics.from_plain(statistics),
                block_statistics
                if isinstance(block_statistics, BlockStatistics)
                else BlockStatistics.from_plain(block_statistics),
            )

    @property
    def ready(self) -> bool:
        """Whether the network exists, that is, whether data have been seen."""
        return self._facts is not None

    @property
    def statistics(self) -> GraphStatistics:
        """What was learnt from the data.

        Raises:
            ValueError: before :meth:`learn`.
        """
        return self._known()[0]

    @property
    def block_statistics(self) -> BlockStatistics:
        """What was learnt of blocks.

        Raises:
            ValueError: before :meth:`learn`.
        """
        return self._known()[1]

    @property
    def network(self) -> PARDNetwork:
        """The network.

        Raises:
            ValueError: before :meth:`learn`.
        """
        self._known()
        assert isinstance(self._network, PARDNetwork)
        return self._network

    def learn(
        self,
        records: Sequence[GraphRecord],
        *,
        atoms: Sequence[tuple[str, int]] = (),
        cache: str | Path | None = None,
    ) -> None:
        """Learn types and blocks, and build the network for them. Weights are drawn anew.

        Args:
            records: the training graphs.
            atoms: (symbol, formal charge) of each node type, for molecules.
            cache: folder that keeps the block orders of large sets.

        Raises:
            ValueError: if the graphs cannot be learnt from, have real features, or lack the target.
        """
        facts = GraphStatistics.of(records, target=self.target, atoms=atoms)
        if facts.feature_mean or facts.edge_feature_mean:
            raise ValueError("PARD generates types of nodes and edges, not real features: use GDSS, or drop them")
        self._set_facts(facts, BlockStatistics.of(records, self.max_hops, self.rule, cache))

    def config(self) -> dict[str, Any]:
        return {
            "statistics": None if self._facts is None else self._facts[0].plain(),
            "block_statistics": None if self._facts is None else self._facts[1].plain(),
            "max_hops": self.max_hops,
            "rule": self.rule,
            "steps": self.steps,
            "noise": self.noise,
            **self._sizes_of,
            "cross_entropy": self.cross_entropy,
            "spare": self.spare,
            "sampling_steps": self.sampling_steps,
            "pull": self.pull,
            "target": self.target,
            "target_dropout": self.target_dropout,
            "guidance": self.guidance,
            "redraws": self.redraws,
        }

    def loss(self, batch: GraphBatch, noise: NoiseSource) -> Tensor:
        """Divergence of one reverse step per block plus cross-entropy, and the surprise of sizes and degrees, in nats.

        Args:
            batch: B graphs.
            noise: B ids.

        Returns:
            Shape (B,).
        """
        check_types(batch.node_types, batch.adj, self.statistics)
        graphs = in_blocks(batch, self.max_hops, self.rule)
        check_blocks(graphs, self.network.limits)
        source = noise.spawn(_LOSS)
        device = batch.mask.device
        u = source.uniform(torch.empty(len(batch), 1, dtype=torch.float64, device=device), 0)
        spread = (u + torch.arange(graphs.sizes.shape[1], device=device) * _GOLDEN) % 1
        step = graphs.of_node((spread * self.steps).floor().clamp(max=self.steps - 1))
        hide = hidden(len(batch), self.target_dropout, noise.spawn(_DROPOUT))
        condition = training_condition(self.network, batch, self.target, self.statistics, hide)
        terms = denoising_terms(
            self.network, graphs, (step + 1) / self.steps, step / self.steps, *uniforms(graphs, source, 1), condition
        )
        value = terms.divergence + self.cross_entropy * terms.cross_entropy
        return (value + order_terms(self.network, graphs, terms.gathered, condition)).to(self._dtype)

    @torch.no_grad()
    def log_likelihood_bound(
        self, graphs: Sequence[GraphRecord | nx.Graph | Any], seed: int = 0, *, draws: int = 1, batch_size: int = 64
    ) -> np.ndarray:
        """A lower bound on the log-likelihood of each graph, in nats.

        The bound is on the probability of the graph with its nodes in the order of generation; it is the same for every
        numbering of the nodes. All T steps are summed, with `draws` noisy states each; equal seeds use equal noise, so
        that two models or two numberings can be compared. Nodes of a block can be listed in many orders: for the
        probability of the graph up to numbering add the logarithm of (product of the factorials of the block sizes) /
        (number of automorphisms).

        Args:
            graphs: records, NetworkX graphs, PyG data; for molecules also RDKit molecules or SMILES.
            seed: of the noise.
            draws: noisy states per step.
            batch_size: graphs per network call.

        Returns:
            Float64, (number of graphs,).

        Raises:
            ValueError: for graphs that the model's tables have no room for, or types it does not know.
        """
        if draws < 1:
            raise ValueError(f"draws must be at least 1, got {draws}")
        records = [self._as_record(graph) for graph in graphs]
        found = [np.zeros(0)]
        for start in range(0, len(records), batch_size):
            part = of_records(records[start : start + batch_size], self.max_hops, self.rule)
            part = part.to(self._device)
            check_types(part.types, part.adj, self.statistics)
            check_blocks(part, self.network.limits)
            # equal graphs get equal noise, wherever they stand in the list
            noise = NoiseSource(seed, [0] * len(part)).spawn(_BOUND)
            condition = hidden_condition(self.network, len(part))
            found.append(-bound(self.network, part, noise, self.steps, draws, condition).cpu().numpy())
        return np.concatenate(found)

    def _known(self) -> tuple[GraphStatistics, BlockStatistics]:
        if self._facts is None:
            raise ValueError("this model has not seen data yet: call learn(records), or load trained weights")
        return self._facts

    def _set_facts(self, statistics: GraphStatistics, blocks: BlockStatistics) -> None:
        self._facts = (statistics, blocks)
        text = json.dumps([statistics.plain(), blocks.plain()]).encode()
        device = self.statistics_text.device
        self.statistics_text = torch.frombuffer(bytearray(text), dtype=torch.uint8).to(device)

        limits = limits_of(statistics, blocks, self.max_hops, self.spare)
        first = np.zeros(limits.size + 1)
        first[: len(blocks.first_sizes)] = blocks.first_sizes
        network = PARDNetwork(
            path_of(statistics.node_counts, self.noise),
            path_of(statistics.edge_counts, self.noise),
            limits,
            first.tolist(),
            conditional=self.target is not None,
            **self._sizes_of,
        )
        self._network = network.to(device)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        text = state_dict.get(f"{prefix}statistics_text")
        if text is not None and len(text) and not torch.equal(text.cpu(), self.statistics_text.cpu()):
            graphs, blocks = json.loads(bytes(text.cpu().tolist()).decode())
            self._set_facts(GraphStatistics.from_plain(graphs), BlockStatistics.from_plain(blocks))
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
