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
from ..adapter import Adapter
from ..registry import register
from .block_batch import in_blocks, of_records, sort_by_blocks
from .block_order import RULES, block_order
from .block_statistics import BlockStatistics
from .pard_network import PARDNetwork
from .pard_sampling import Drawn, Plan, continued, sample_blocks, times_of
from .pard_tables import NOISES, check_blocks, check_types, limits_of, path_of, sizes_wanted
from .pard_target import hidden, hidden_condition, sampling_condition, training_condition, wanted_values
from .pard_terms import bound, denoising_terms, order_terms, uniforms
from .prefix_cache import Grown
from .records import GraphBatch, GraphRecord, as_record, collate, to_networkx
from .statistics import GraphStatistics

if TYPE_CHECKING:
    import networkx as nx
    from rdkit.Chem import Mol

__all__ = ["PARD"]

_LOSS, _DROPOUT, _SAMPLER, _BOUND = 1, 2, 3, 4

# Times of a graph's blocks are spread evenly: multiples of the golden ratio never come close to each other.
_GOLDEN = (5**0.5 - 1) / 2


@register
class PARD(Adapter):
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
    ) -> None:
        super().__init__()
        if rule not in RULES:
            raise ValueError(f"rule must be one of {', '.join(RULES)}, got {rule!r}")
        if noise not in NOISES:
            raise ValueError(f"noise must be one of {', '.join(NOISES)}, got {noise!r}")
        if steps < 1 or max_hops < 0 or layers < 1:
            raise ValueError(
                f"steps and layers must be at least 1, max_hops at least 0, got {steps}, {layers}, {max_hops}"
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

    @property
    def kind(self) -> str:
        """ "molecules" or "graphs"."""
        return "molecules" if self.statistics.atoms else "graphs"

    @property
    def alphabet(self) -> Any:
        """The atoms of the node types, for molecules."""
        from .molecules import Alphabet

        return Alphabet(self.statistics.atoms)

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

    def sample(self, n: int, **options: Any) -> list[nx.Graph] | list[Mol | None]:
        """Draw graphs or molecules.

        Args:
            n: how many.
            options: as for :meth:`sample_records`.

        Returns:
            NetworkX graphs, or RDKit molecules (None where the graph is no molecule), by the data the model has seen.
        """
        return self._user_objects(self.sample_records(n, **options))

    def sample_records(
        self,
        n: int,
        *,
        steps: int | None = None,
        seed: int = 0,
        num_nodes: int | Sequence[int] | None = None,
        target: float | Sequence[float] | None = None,
        guidance: float | None = None,
        pull: float | None = None,
        batch_size: int = 256,
    ) -> list[GraphRecord]:
        """Draw graphs.

        Args:
            n: how many, at least 1.
            steps: diffusion steps per block; default ``sampling_steps``. Fewer than trained skips times, exactly.
            seed: graph i depends on the seed and on i alone.
            num_nodes: size of all graphs, or of each: block sizes that would miss it are ruled out. Default: the model
                decides when a graph is finished.
            target: wanted value of the target, for all or for each.
            guidance: scale of classifier-free guidance; default ``guidance``.
            pull: pull towards the estimate; default ``pull``.
            batch_size: most graphs per network call.

        Raises:
            ValueError: for sizes the model has no room for, or a target it was not trained for.
        """
        _check_count(n)
        wanted = sizes_wanted(n, num_nodes, self.network.limits)
        values = wanted_values(n, target, self.target, self.statistics)
        drawn = self._drawn(n, seed, self._plan(steps, guidance, pull), wanted, values, batch_size)
        return [graph.record(self._typed) for graph in drawn]

    def order_rate(self, n: int, *, steps: int | None = None, seed: int = 0, pull: float | None = None) -> float:
        """Share of samples whose own block order is the one they were generated by.

        The model's likelihood of a graph counts this one way to generate it, so the rate says how much of what the
        model draws it also expects: a measure of calibration, 1 for a perfect model.

        Args:
            n: number of samples.
            steps, seed, pull: as in :meth:`sample_records`.
        """
        _check_count(n)
        kept = 0
        for graph in self._drawn(n, seed, self._plan(steps, None, pull)):
            record = graph.record(self._typed)
            own = block_order(record.edges, record.num_nodes, self.max_hops, self.rule)
            kept += np.array_equal(own, graph.block.numpy())
        return kept / n

    def complete(self, partial: Any, n: int = 1, seed: int = 0, **options: Any) -> list[nx.Graph] | list[Mol | None]:
        """Draw graphs that begin with a given part. The part's nodes come first, in their order.

        Args:
            partial: a graph of any kind; for molecules also an RDKit molecule or SMILES.
            n: how many.
            seed: of the samples.
            options: as for :meth:`complete_records`.

        Raises:
            ValueError: see :meth:`complete_records`.
        """
        return self._user_objects(self.complete_records(partial, n, seed, **options))

    def complete_records(
        self,
        partial: Any,
        n: int = 1,
        seed: int = 0,
        *,
        blocks: Sequence[int] | np.ndarray | None = None,
        num_nodes: int | Sequence[int] | None = None,
        steps: int | None = None,
        target: float | Sequence[float] | None = None,
        guidance: float | None = None,
        pull: float | None = None,
    ) -> list[GraphRecord]:
        """As :meth:`complete`, but returns records.

        The part is the finished beginning and the model draws the rest from p(rest | part), without any guidance: no
        edge is added within the part. Its blocks are those it would have been generated by.

        Args:
            partial: the part.
            n: how many.
            seed: of the samples.
            blocks: the part's block ids, if they are known; they must be those of the model's order.
            num_nodes: size of the results; default: the model decides.
            steps, target, guidance, pull: as in :meth:`sample_records`.

        Raises:
            ValueError: if the part is larger, or has more or larger blocks, than the model has room for, holds unknown
                types, or is given with blocks that the model's order does not produce.
        """
        _check_count(n)
        record = self._as_record(partial)
        own = block_order(record.edges, record.num_nodes, self.max_hops, self.rule)
        if blocks is not None and not np.array_equal(np.asarray(blocks), own):
            raise ValueError(
                f"no order with max_hops={self.max_hops} and the {self.rule} rule gives the blocks "
                f"{np.asarray(blocks).tolist()}; those of this part are {own.tolist()}"
            )
        batch = collate([record]).to(self._device)
        part = sort_by_blocks(batch, torch.from_numpy(own)[None].to(self._device), self.max_hops > 0)
        check_types(part.types, part.adj, self.statistics)
        check_blocks(part, self.network.limits)
        noise = NoiseSource(seed, range(n)).spawn(_SAMPLER)
        values = wanted_values(n, target, self.target, self.statistics)
        wanted = sizes_wanted(n, num_nodes, self.network.limits, record.num_nodes, int(part.blocks[0]))
        grown = continued(self.network, part.repeated(n), *sampling_condition(self.network, n, values))
        drawn = sample_blocks(grown, noise, self._plan(steps, guidance, pull), wanted)
        back = torch.argsort(part.order[0].cpu())
        return [graph.record(self._typed, back) for graph in drawn]

    def _drawn(
        self,
        n: int,
        seed: int,
        plan: Plan,
        wanted: Tensor | None = None,
        values: Tensor | None = None,
        batch_size: int = 256,
    ) -> list[Drawn]:
        noise = NoiseSource(seed, range(n)).spawn(_SAMPLER)
        found = []
        for start in range(0, n, batch_size):
            ids = torch.arange(start, min(start + batch_size, n))
            told = sampling_condition(self.network, len(ids), None if values is None else values[ids])
            grown = Grown.nothing(self.network, len(ids), *told)
            found += sample_blocks(grown, noise[ids], plan, None if wanted is None else wanted[ids])
        return found

    @property
    def _typed(self) -> bool:
        """Whether there is more than one type of node or of edge."""
        return len(self.statistics.node_counts) > 1 or len(self.statistics.edge_counts) > 2

    def _known(self) -> tuple[GraphStatistics, BlockStatistics]:
        if self._facts is None:
            raise ValueError("this model has not seen data yet: call learn(records), or load trained weights")
        return self._facts

    @property
    def _device(self) -> torch.device:
        return self.network.start.device

    @property
    def _dtype(self) -> torch.dtype:
        return self.network.start.dtype

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

    def _plan(self, steps: int | None, guidance: float | None, pull: float | None) -> Plan:
        chosen = steps if steps is not None else (self.sampling_steps or self.steps)
        strength = self.pull if pull is None else pull
        if not 0 <= strength <= 1:
            raise ValueError(f"pull must be in [0, 1], got {strength}")
        return Plan(times_of(chosen, self.steps), strength, self.guidance if guidance is None else guidance)

    def _user_objects(self, records: list[GraphRecord]) -> list[nx.Graph] | list[Mol | None]:
        if self.kind == "graphs":
            return [to_networkx(record) for record in records]
        return [self.alphabet.decode(record) for record in records]

    def _as_record(self, graph: Any) -> GraphRecord:
        if self.kind == "molecules" and not isinstance(graph, GraphRecord):
            return self.alphabet.encode(graph)
        return as_record(graph)


def _check_count(n: int) -> None:
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
