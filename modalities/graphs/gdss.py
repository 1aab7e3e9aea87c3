r"""GDSS: nodes and edges of a graph by one joint diffusion.

Node types, edge types ("none" being one of them) and real features of nodes and edges are components of a joint path
with one time. Types are corners of a simplex (:mod:`.codes`); adjacency lives on symmetric matrices without diagonal.
One network denoises all components; its loss is the cross-entropy of every node and every pair i < j,

.. math:: L = \frac{w}{n} \sum_i -\log p(x_i) + \frac{2}{n(n-1)} \sum_{i<j} -\log p(a_{ij})

(and the squared error of v for real numbers), so that graphs of all sizes count alike. The number of nodes is drawn as
it occurs in the data. With a target, its value is shown to the network and dropped now and then, and sampling uses
classifier-free guidance.

Source: `Jo et al. 2022, Score-based Generative Modeling of Graphs via the System of Stochastic Differential Equations
<https://arxiv.org/abs/2202.02514>`_. Different here: one network with time conditioning instead of two without, a
terminal signal-to-noise ratio of nearly 0 and a prior to match, types as codes with an exact posterior of each entry
instead of real numbers that are rounded, losses per pair, isolated nodes are nodes, and few sampling steps.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ...core import (
    BaseDenoiser,
    ClassifierFree,
    Condition,
    Cosine,
    Data,
    GaussianPath,
    JointDenoiser,
    Multistep,
    NoiseSource,
    Replacement,
    Sampler,
    Schedule,
    Stepper,
    UniformGrid,
    UniformTime,
)
from ...core.losses import draw_times
from ..adapter import Adapter
from ..components import build, describe
from ..registry import register
from .backbone import Backbone
from .components import BACKBONES, SCHEDULES, STEPPERS
from .encoding import NODE_STATES, PAIR_COMPONENTS, GraphEncoding
from .graph_transformer import TransformerBackbone
from .network import GraphNetwork
from .pairs import packed_pairs, pair_indices
from .records import GraphBatch, GraphRecord, as_record, collate, to_networkx
from .statistics import GraphStatistics

if TYPE_CHECKING:
    import networkx as nx
    from rdkit.Chem import Mol

__all__ = ["GDSS"]

_SIZES, _LOSS, _SAMPLER, _DROPOUT = 0, 1, 2, 3

_BACKBONE = TransformerBackbone()
_STEPPER = Multistep(order=2, coordinate="data", eta=1.0)
_SCHEDULE = Cosine()


@register
class GDSS(Adapter):
    """Generates graphs or molecules.

    A new model knows nothing of its data until :meth:`learn` (a task calls it); a loaded one has learnt.

    Args:
        statistics: sizes, types and scales of the data; None until :meth:`learn`.
        backbone: the network (a component or its description).
        stepper: default algorithm of sampling.
        sampling_steps: default number of steps, one network evaluation each.
        schedule: of all components.
        node_state: "types": nodes are described by their types, or not at all if all are alike; "degree": by their
            degree instead, as published for graphs without types (an auxiliary variable that is thrown away).
        node_weight: weight w of the nodes in the loss.
        target: name of the graph property that graphs can be generated for.
        target_dropout: how often it is hidden in training.
        guidance: default scale of classifier-free guidance; 1 is plain conditional sampling.
        embedding: width of the embedding of time, size and target.
    """

    name: ClassVar[str] = "gdss"
    statistics_text: Tensor

    def __init__(
        self,
        statistics: GraphStatistics | Mapping[str, Any] | None = None,
        backbone: Backbone | Mapping[str, Any] = _BACKBONE,
        stepper: Stepper | Mapping[str, Any] = _STEPPER,
        sampling_steps: int = 50,
        schedule: Schedule | Mapping[str, Any] = _SCHEDULE,
        node_state: str = "types",
        node_weight: float = 1.0,
        target: str | None = None,
        target_dropout: float = 0.15,
        guidance: float = 2.0,
        embedding: int = 64,
    ) -> None:
        super().__init__()
        if node_state not in NODE_STATES:
            raise ValueError(f"node_state must be 'types' or 'degree', got {node_state!r}")
        if sampling_steps < 1:
            raise ValueError(f"sampling_steps must be at least 1, got {sampling_steps}")
        if not 0 <= target_dropout <= 1:
            raise ValueError(f"target_dropout must be in [0, 1], got {target_dropout}")
        self.backbone: Backbone = build(backbone, BACKBONES)
        self.stepper: Stepper = build(stepper, STEPPERS)
        self.schedule: Schedule = build(schedule, SCHEDULES)
        self.sampling_steps = sampling_steps
        self.node_state, self.node_weight = node_state, node_weight
        self.target, self.target_dropout, self.guidance = target, target_dropout, guidance
        self._embedding = embedding
        self._statistics: GraphStatistics | None = None
        # the facts about the data travel with the weights, so that any way of loading them rebuilds the network
        self.register_buffer("statistics_text", torch.empty(0, dtype=torch.uint8))
        if statistics is not None:
            given = statistics if isinstance(statistics, GraphStatistics) else GraphStatistics.from_plain(statistics)
            self._set_statistics(given)

    @property
    def statistics(self) -> GraphStatistics:
        """What was learnt from the data.

        Raises:
            ValueError: before :meth:`learn`.
        """
        if self._statistics is None:
            raise ValueError("this model has not seen data yet: call learn(records), or load trained weights")
        return self._statistics

    @property
    def ready(self) -> bool:
        """Whether the network exists, that is, whether data have been seen."""
        return self._statistics is not None

    @property
    def kind(self) -> str:
        """ "molecules" or "graphs"."""
        return "molecules" if self.statistics.atoms else "graphs"

    def learn(self, records: Sequence[GraphRecord], *, atoms: Sequence[tuple[str, int]] = ()) -> None:
        """Learn sizes, types and scales, and build the network for them. Weights are drawn anew.

        Args:
            records: the training graphs.
            atoms: (symbol, formal charge) of each node type, for molecules.

        Raises:
            ValueError: if the graphs cannot be learnt from, or lack the target.
        """
        self._set_statistics(GraphStatistics.of(records, target=self.target, atoms=atoms))

    def config(self) -> dict[str, Any]:
        return {
            "statistics": None if self._statistics is None else self._statistics.plain(),
            "backbone": describe(self.backbone, BACKBONES),
            "stepper": describe(self.stepper, STEPPERS),
            "sampling_steps": self.sampling_steps,
            "schedule": describe(self.schedule, SCHEDULES),
            "node_state": self.node_state,
            "node_weight": self.node_weight,
            "target": self.target,
            "target_dropout": self.target_dropout,
            "guidance": self.guidance,
            "embedding": self._embedding,
        }

    def loss(self, batch: GraphBatch, noise: NoiseSource) -> Tensor:
        """Cross-entropy per node and per pair.

        Args:
            batch: B graphs.
            noise: B ids.

        Returns:
            Shape (B,).
        """
        network = self._network
        clean, labels = self.encoding.encode(batch)
        mask = batch.mask
        masks = dict.fromkeys(clean, mask)
        source = noise.spawn(_LOSS)
        t = draw_times(UniformTime(), self.schedule, source).to(mask.device)
        eps, noisy = {}, {}
        for k, (name, x_0) in enumerate(clean.items()):
            path = self.denoiser.path[name]
            assert isinstance(path, GaussianPath)
            eps[name] = path.noise(x_0, source.spawn(k), masks[name], key=2)
            noisy[name] = path.perturb(x_0, t, eps[name])
        output = network.outputs(noisy, t, mask, self._training_condition(batch, noise))
        index = pair_indices(mask.shape[1], mask.device)
        pairs = mask[:, index[0]] & mask[:, index[1]]
        connected = packed_pairs(labels["adj"].unsqueeze(-1), index)[..., 0] > 0
        value = torch.zeros(len(batch), device=mask.device)
        for name, predicted in output.items():
            packed = name in PAIR_COMPONENTS
            real = pairs if packed else mask
            if name in labels:
                label = packed_pairs(labels[name].unsqueeze(-1), index)[..., 0] if packed else labels[name]
                error = torch.nn.functional.cross_entropy(predicted.transpose(1, 2), label, reduction="none")
            else:
                v = self._velocity(clean[name], eps[name], t)
                error = ((predicted - (packed_pairs(v, index) if packed else v)) ** 2).mean(-1)
                real = pairs & connected if packed else mask
            weight = 1.0 if packed else self.node_weight
            value = value + weight * torch.where(real, error, 0).sum(1) / real.sum(1).clamp(min=1)
        return value

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
        stepper: Stepper | None = None,
        batch_pairs: int = 1 << 16,
    ) -> list[GraphRecord]:
        """Draw graphs.

        Args:
            n: how many, at least 1.
            steps: sampling steps; default ``sampling_steps``.
            seed: graph i depends on the seed and on i alone.
            num_nodes: size of all graphs, or of each; default: drawn as in the data.
            target: wanted value of the target, for all or for each.
            guidance: scale of classifier-free guidance; default ``guidance``.
            stepper: algorithm; default ``stepper``.
            batch_pairs: limit on graphs times squared size per network call.

        Raises:
            ValueError: for sizes the model does not know, or a target it was not trained for.
        """
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        noise = NoiseSource(seed, range(n))
        sizes = self._sizes(n, num_nodes, noise)
        values = self._targets(n, target)
        found: dict[int, GraphRecord] = {}
        for ids in _buckets(sizes, batch_pairs):
            width = int(sizes[ids].max())
            mask = torch.arange(width) < sizes[ids].unsqueeze(1)
            shown = None if values is None else values[ids]
            made = self._draw(mask, noise[ids], shown, guidance, steps, stepper)
            found |= dict(zip(ids.tolist(), made, strict=True))
        return [found[i] for i in range(n)]

    def complete(
        self,
        partial: GraphRecord | nx.Graph | Any,
        n: int = 1,
        *,
        num_nodes: int | Sequence[int] | None = None,
        node_mask: np.ndarray | Tensor | None = None,
        edge_mask: np.ndarray | Tensor | None = None,
        steps: int | None = None,
        seed: int = 0,
        target: float | None = None,
        guidance: float | None = None,
        stepper: Stepper | None = None,
    ) -> list[nx.Graph] | list[Mol | None]:
        """Draw graphs that contain a given part, by replacement guidance. The part's nodes come first.

        Args:
            partial: k nodes and the edges between them (a record, a NetworkX graph, PyG data or, for molecules, an
                RDKit molecule or SMILES).
            n: how many completions.
            num_nodes: size of the result; default: drawn from the sizes in the data that are at least k.
            node_mask: bool (k,), which node types are given; default all.
            edge_mask: bool (k, k), symmetric, which pairs are given ("no edge" included); default all.
            steps, seed, target, guidance, stepper: as in :meth:`sample_records`.

        Raises:
            ValueError: if the part is larger than the graphs the model knows, holds unknown types, or masks do not fit.
        """
        return self._user_objects(
            self.complete_records(
                partial,
                n,
                num_nodes=num_nodes,
                node_mask=node_mask,
                edge_mask=edge_mask,
                steps=steps,
                seed=seed,
                target=target,
                guidance=guidance,
                stepper=stepper,
            )
        )

    def complete_records(
        self,
        partial: GraphRecord | nx.Graph | Any,
        n: int = 1,
        *,
        num_nodes: int | Sequence[int] | None = None,
        node_mask: np.ndarray | Tensor | None = None,
        edge_mask: np.ndarray | Tensor | None = None,
        steps: int | None = None,
        seed: int = 0,
        target: float | None = None,
        guidance: float | None = None,
        stepper: Stepper | None = None,
    ) -> list[GraphRecord]:
        """As :meth:`complete`, but returns records."""
        record = self._as_part(partial)
        k = record.num_nodes
        noise = NoiseSource(seed, range(n))
        sizes = self._sizes(n, num_nodes, noise, at_least=k)
        values = self._targets(n, target)
        width = int(sizes.max())
        mask = torch.arange(width) < sizes.unsqueeze(1)
        known, _ = self.encoding.encode(collate([record], max_nodes=width).to(self._device), partial=True)
        nodes = torch.zeros(width, dtype=torch.bool)
        nodes[:k] = _as_mask("node_mask", node_mask, (k,))
        pairs = torch.zeros(width, width, dtype=torch.bool)
        pairs[:k, :k] = _as_mask("edge_mask", edge_mask, (k, k))
        if not bool((pairs == pairs.T).all()):
            raise ValueError("edge_mask must be symmetric: an undirected pair is given or it is not")
        if self.node_state == "degree":
            known.pop("x", None)  # the degree of a node of the part is not known yet
        fixed = {n: pairs[None, :, :, None] if n in PAIR_COMPONENTS else nodes[None, :, None] for n in known}
        fixed = {name: value.to(self._device) for name, value in fixed.items()}

        def keep(denoiser: BaseDenoiser) -> BaseDenoiser:
            return Replacement(denoiser, known, fixed)

        return self._draw(mask, noise, values, guidance, steps, stepper, keep)

    @property
    def denoiser(self) -> JointDenoiser:
        """The joint denoiser."""
        self.statistics  # noqa: B018  raises before learning
        assert isinstance(self._denoiser, JointDenoiser)
        return self._denoiser

    @property
    def _network(self) -> GraphNetwork:
        network = self.denoiser.network
        assert isinstance(network, GraphNetwork)
        return network

    @property
    def _device(self) -> torch.device:
        return next(self.parameters()).device

    def _set_statistics(self, statistics: GraphStatistics) -> None:
        self._statistics = statistics
        text = json.dumps(statistics.plain()).encode()
        device = self.statistics_text.device
        self.statistics_text = torch.frombuffer(bytearray(text), dtype=torch.uint8).to(device)
        self.encoding = GraphEncoding(statistics, self.schedule, self.node_state)
        network = GraphNetwork(self.encoding, self.backbone, self._embedding, self.target is not None)
        self._denoiser = JointDenoiser(network.to(device), self.encoding.path, Data())

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
            plain = json.loads(bytes(text.cpu().tolist()).decode())
            self._set_statistics(GraphStatistics.from_plain(plain))
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def _velocity(self, x_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        shape = (-1, *(1,) * (x_0.ndim - 1))
        alpha, sigma = (f(t).to(x_0).reshape(shape) for f in (self.schedule.alpha, self.schedule.sigma))
        return alpha * eps - sigma * x_0

    def _training_condition(self, batch: GraphBatch, noise: NoiseSource) -> Condition | None:
        if self.target is None:
            return None
        if self.target not in batch.targets:
            raise ValueError(f"the batch has no target {self.target!r}, only {sorted(batch.targets)}")
        value = batch.targets[self.target]
        shown = noise.spawn(_DROPOUT).uniform((len(batch),), 0).to(value.device) >= self.target_dropout
        known = shown & torch.isfinite(value)
        scaled = (value - self.statistics.target_mean) / self.statistics.target_std
        return {"target": torch.where(known, scaled, 0), "known": known.to(scaled)}

    def _sizes(self, n: int, num_nodes: int | Sequence[int] | None, noise: NoiseSource, at_least: int = 1) -> Tensor:
        facts = self.statistics
        if num_nodes is None:
            allowed = GraphStatistics((0,) * at_least + facts.sizes[at_least:], (), ())
            if not sum(allowed.sizes):
                raise ValueError(
                    f"the part has {at_least} nodes, the model knows graphs of at most {facts.max_nodes}: give "
                    "num_nodes to go beyond"
                )
            return allowed.draw_sizes(noise.spawn(_SIZES))
        given = [num_nodes] * n if isinstance(num_nodes, int) else [int(v) for v in num_nodes]
        if len(given) != n:
            raise ValueError(f"num_nodes has {len(given)} values for {n} graphs")
        if min(given) < at_least:
            raise ValueError(f"num_nodes must be at least {at_least}, got {min(given)}")
        if max(given) > facts.max_nodes:
            raise ValueError(f"the model knows graphs of at most {facts.max_nodes} nodes, asked for {max(given)}")
        return torch.tensor(given)

    def _targets(self, n: int, target: float | Sequence[float] | None) -> Tensor | None:
        if target is None:
            return None
        if self.target is None:
            raise ValueError("this model was trained without a target: train one with the option `target`")
        values = torch.as_tensor(target, dtype=torch.float64).reshape(-1)
        if len(values) not in (1, n):
            raise ValueError(f"target has {len(values)} values for {n} graphs")
        return ((values - self.statistics.target_mean) / self.statistics.target_std).float().expand(n)

    @torch.no_grad()
    def _draw(
        self,
        mask: Tensor,
        noise: NoiseSource,
        target: Tensor | None,
        guidance: float | None,
        steps: int | None,
        stepper: Stepper | None,
        keep: Any = None,
    ) -> list[GraphRecord]:
        batch, width = mask.shape
        mask = mask.to(self._device)
        denoiser: BaseDenoiser = self.denoiser
        condition: dict[str, Tensor] | None = None
        if target is not None:
            like = torch.ones(batch, device=self._device)
            condition = {"target": target.to(like), "known": like}
            nothing = {"target": torch.zeros_like(like[:1]), "known": torch.zeros_like(like[:1])}
            scale = self.guidance if guidance is None else guidance
            denoiser = ClassifierFree(denoiser, scale, nothing)
        if keep is not None:
            denoiser = keep(denoiser)
        shapes = self.encoding.shapes(batch, width)
        sampler = Sampler(
            stepper or self.stepper, UniformGrid(end=0.0), self.sampling_steps if steps is None else steps
        )
        masks = dict.fromkeys(shapes, mask)
        drawn = sampler(denoiser, shapes, generator=noise.spawn(_SAMPLER), mask=masks, condition=condition)
        return self.encoding.decode(drawn.x, mask)

    def _user_objects(self, records: list[GraphRecord]) -> list[nx.Graph] | list[Mol | None]:
        if self.kind == "graphs":
            return [to_networkx(record) for record in records]
        return [self.alphabet.decode(record) for record in records]

    @property
    def alphabet(self) -> Any:
        """The atoms of the node types, for molecules."""
        from .molecules import Alphabet

        return Alphabet(self.statistics.atoms)

    def _as_part(self, partial: Any) -> GraphRecord:
        if self.kind == "molecules" and not isinstance(partial, GraphRecord):
            return self.alphabet.encode(partial)
        return as_record(partial)


def _buckets(sizes: Tensor, batch_pairs: int) -> list[Tensor]:
    """Indices of graphs of similar size, each group within the limit on (graphs) x (largest size)^2."""
    order = sizes.argsort(stable=True, descending=True)
    groups, start = [], 0
    while start < len(order):
        count = max(1, batch_pairs // int(sizes[order[start]]) ** 2)
        groups.append(order[start : start + count])
        start += count
    return groups


def _as_mask(name: str, value: np.ndarray | Tensor | None, shape: tuple[int, ...]) -> Tensor:
    if value is None:
        return torch.ones(shape, dtype=torch.bool)
    mask = torch.as_tensor(value)
    if mask.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {tuple(mask.shape)}")
    return mask.bool()
