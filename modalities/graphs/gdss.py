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

import torch
from torch import Tensor

from ...core import (
    Condition,
    Cosine,
    Data,
    GaussianPath,
    JointDenoiser,
    Multistep,
    NoiseSource,
    Schedule,
    Stepper,
    UniformTime,
)
from ...core.losses import draw_times
from ..components import build, describe
from ..registry import register
from .backbone import Backbone
from .components import BACKBONES, SCHEDULES, STEPPERS
from .encoding import NODE_STATES, PAIR_COMPONENTS, GraphEncoding
from .gdss_generation import JointGenerator
from .graph_transformer import TransformerBackbone
from .network import GraphNetwork
from .pairs import packed_pairs, pair_indices
from .records import GraphBatch, GraphRecord
from .statistics import GraphStatistics

if TYPE_CHECKING:
    pass

__all__ = ["GDSS"]

# Numbers of draws; 0 and 2 are those of generation.
_LOSS, _DROPOUT = 1, 3

_BACKBONE = TransformerBackbone()
_STEPPER = Multistep(order=2, coordinate="data", eta=1.0)
_SCHEDULE = Cosine()


@register
class GDSS(JointGenerator):
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
