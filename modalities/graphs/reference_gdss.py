r"""GDSS exactly as published: two score networks without time, a system of two SDEs, predictor-corrector or S4.

A graph is X (N, F) and A (N, N). For graphs X is the one-hot degree and A is 0 or 1; for molecules X is the one-hot
element and A the bond order 0..3, raw. Nodes without an edge count as padding. The loss of a graph is

.. math:: \tfrac12 \sum_{ik} (s^X_{ik} \sigma_t + z_{ik})^2 + \tfrac12 \sum_{ij} (s^A_{ij} \sigma_t + z_{ij})^2, \quad t
    \sim U(\epsilon, 1)

with one t per graph; its first half trains only the node network, its second only the other.

This face reproduces published weights and numbers; for new models use ``GDSS``. Source: `Jo, Lee and Hwang 2022
<https://arxiv.org/abs/2202.02514>`_.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ...core import NoiseSource
from ..adapter import Adapter
from ..registry import register
from .records import GraphBatch, GraphRecord
from .reference_decoding import build_molecule, graph_record, molecule_record, published_graph
from .reference_fewsteps import FewSteps
from .reference_networks import NETWORKS, AdjacencyNetwork, NodeNetwork, from_pairs, pair_mask, to_pairs
from .reference_packing import Packing
from .reference_sampler import (
    COMPONENTS,
    S4,
    Callback,
    Euler,
    Langevin,
    PredictorCorrector,
    ReferenceSampler,
    ReverseDiffusion,
    State,
)
from .reference_sde import ReferenceSDE, build_sde

if TYPE_CHECKING:
    import networkx as nx
    from rdkit.Chem import Mol

__all__ = ["ReferenceGDSS"]

# Draws that are not the sampler's own come from spawned sources.
_SIZES, _NODES, _PAIRS, _TIMES, _FEW_STEPS = 0, 1, 2, 3, 4

_DEFAULT_SAMPLER = {
    "predictor": "Reverse",
    "corrector": "Langevin",
    "snr": 0.1,
    "scale_eps": 0.7,
    "n_steps": 1,
    "use_ema": False,
    "probability_flow": False,
    "batch_norms": False,
}


@register
class ReferenceGDSS(Adapter):
    """The published model of graphs or molecules.

    Args:
        networks: "x" and "adj": ``kind`` ("ScoreNetworkX", "ScoreNetworkX_GMH"; "ScoreNetworkA") and its arguments, by
            their published names.
        sdes: "x" and "adj": ``type`` ("VP", "VE", "subVP"), ``beta_min``, ``beta_max``.
        sampler: ``predictor`` ("Euler", "Reverse", "S4"), ``corrector`` ("Langevin" or None), ``snr``, ``scale_eps``,
            ``n_steps``, ``use_ema``, ``probability_flow``, ``batch_norms``. The last is the one published setting that
            is off by default: with it Langevin steps are sized by means over the batch, and graphs depend on their
            batch mates; without it each graph has its own, at the same quality.
        max_nodes: N of the data; larger graphs are refused.
        atoms: element symbols for molecules; None for graphs.
        node_counts: [number of nodes, how often] of the training graphs; None if unknown, then sampling needs
            ``num_nodes``.
        averaged: whether a second set of weights is stored, the exponential moving averages.
        steps: default number of sampling steps.
        origin: where the weights come from, for people.
    """

    name: ClassVar[str] = "gdss-reference"

    def __init__(
        self,
        networks: Mapping[str, Mapping[str, Any]],
        sdes: Mapping[str, Mapping[str, Any]],
        sampler: Mapping[str, Any] = _DEFAULT_SAMPLER,
        max_nodes: int = 38,
        atoms: Sequence[str] | None = None,
        node_counts: Iterable[Sequence[int]] | None = None,
        averaged: bool = False,
        steps: int = 1000,
        origin: str | None = None,
    ) -> None:
        super().__init__()
        for part, given in (("networks", networks), ("sdes", sdes)):
            if set(given) != set(COMPONENTS):
                raise ValueError(f"{part} must have the keys 'x' and 'adj', got {sorted(given)}")
        self._networks = {name: dict(networks[name]) for name in COMPONENTS}
        self._sdes = {name: dict(sdes[name]) for name in COMPONENTS}
        unknown = sorted(set(sampler) - set(_DEFAULT_SAMPLER))
        if unknown:
            raise ValueError(f"unknown sampler setting(s) {unknown}; known: {', '.join(_DEFAULT_SAMPLER)}")
        self._sampler = {**_DEFAULT_SAMPLER, **sampler}
        self.max_nodes, self.steps, self.origin = int(max_nodes), int(steps), origin
        self.atoms = None if atoms is None else list(atoms)
        self.node_counts = None if node_counts is None else _checked_counts(node_counts, self.max_nodes)
        self.sdes: dict[str, ReferenceSDE] = {name: build_sde(self._sdes[name]) for name in COMPONENTS}
        self.weights = _build_networks(self._networks)
        self.averages = _build_networks(self._networks).requires_grad_(False) if averaged else None
        self.features = int(self._networks["x"]["max_feat_num"])
        if self.atoms is not None and len(self.atoms) != self.features:
            raise ValueError(f"{len(self.atoms)} atoms for {self.features} node features")
        self.sampler()

    def config(self) -> dict[str, Any]:
        counts = self.node_counts
        return {
            "networks": self._networks,
            "sdes": self._sdes,
            "sampler": self._sampler,
            "max_nodes": self.max_nodes,
            "atoms": self.atoms,
            "node_counts": None if counts is None else [[size, count] for size, count in counts.items()],
            "averaged": self.averages is not None,
            "steps": self.steps,
            "origin": self.origin,
        }

    def networks(self, ema: bool = False) -> nn.ModuleDict:
        """The node network "x" and the adjacency network "adj"; ``ema`` for their averages.

        Raises:
            ValueError: the model has no averages.
        """
        if not ema:
            return self.weights
        if self.averages is None:
            raise ValueError("this model has no averaged weights: use ema=False")
        return self.averages

    def sampler(self, *, batch_norms: bool | None = None) -> ReferenceSampler:
        """The sampler of the settings.

        Args:
            batch_norms: overrides the setting: True for Langevin steps sized by the batch, as published.

        Raises:
            ValueError: unknown predictor or corrector.
        """
        chosen = self._sampler
        predictor, corrector = chosen["predictor"], chosen["corrector"]
        if corrector not in ("Langevin", None):
            raise ValueError(f"unknown corrector {corrector!r}; known: 'Langevin', None")
        norms = bool(chosen["batch_norms"]) if batch_norms is None else batch_norms
        langevin = Langevin(float(chosen["snr"]), float(chosen["scale_eps"]), int(chosen["n_steps"]), batch_norms=norms)
        if predictor == "S4":
            return S4(langevin)
        predictors = {"Euler": Euler, "Reverse": ReverseDiffusion}
        if predictor not in predictors:
            raise ValueError(f"unknown predictor {predictor!r}; known: 'Euler', 'Reverse', 'S4'")
        flow = bool(chosen["probability_flow"])
        return PredictorCorrector(predictors[predictor](flow), None if corrector is None else langevin)

    def scores(
        self, state: Mapping[str, Tensor], t: Tensor | float, *, mask: Tensor | None = None, ema: bool = False
    ) -> dict[str, Tensor]:
        """The two published scores.

        Args:
            state: "x" (B, N, F) and "adj" (B, N, N), symmetric; what lies outside the mask is ignored.
            t: times in (0, 1], () or (B,).
            mask: real nodes, bool (B, N); default: all.
            ema: whether to use the averaged weights.

        Returns:
            Scores "x" (B, N, F) and "adj" (B, N, N) after the SDE's scaling, 0 outside the mask.
        """
        x, adj = state["x"], state["adj"]
        if x.ndim != 3 or x.shape[2] != self.features or adj.shape != (x.shape[0], x.shape[1], x.shape[1]):
            raise ValueError(
                f"expected x (B, N, {self.features}) and adj (B, N, N), got {tuple(x.shape)} and {tuple(adj.shape)}"
            )
        mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask.bool()
        t = torch.as_tensor(t, dtype=torch.float64, device=x.device).expand(len(x))
        x, pairs = x * mask[..., None], to_pairs(adj) * pair_mask(mask)
        scores = self._scores(self.networks(ema), x, pairs, mask, t)
        return {"x": scores["x"], "adj": from_pairs(scores["adj"], x.shape[1])}

    def _scores(self, networks: nn.ModuleDict, x: Tensor, pairs: Tensor, mask: Tensor, t: Tensor) -> State:
        factors = {name: self.sdes[name].score_factor(t).to(x) for name in COMPONENTS}
        return {
            "x": networks["x"](x, pairs, mask) * factors["x"][:, None, None],
            "adj": networks["adj"](x, pairs, mask) * factors["adj"][:, None],
        }

    def encode(self, batch: GraphBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Clean x (B, N, F), pairs (B, P) and mask (B, N) of graphs; nodes without an edge are masked out.

        Raises:
            ValueError: a degree, element or number of nodes that the model does not know.
        """
        if batch.adj.shape[1] > self.max_nodes and int(batch.num_nodes.max()) > self.max_nodes:
            raise ValueError(f"a graph has {int(batch.num_nodes.max())} nodes; the model knows up to {self.max_nodes}")
        degree = (batch.adj > 0).sum(-1)
        mask = degree > 0
        classes = degree if self.atoms is None else batch.node_types
        if int((classes * mask).max()) >= self.features:
            what = "degree" if self.atoms is None else "node type"
            raise ValueError(f"{what} {int(classes.max())} is unknown to a model of {self.features} node features")
        adj = (batch.adj > 0) if self.atoms is None else batch.adj
        x = nn.functional.one_hot(classes * mask, self.features).float() * mask[..., None]
        return x, to_pairs(adj.float()), mask

    def loss(self, batch: GraphBatch, noise: NoiseSource) -> Tensor:
        x, pairs, mask = self.encode(batch)
        eps = 1e-5
        t = eps + noise.uniform(torch.empty(len(x), 1, dtype=torch.float64, device=x.device), _TIMES)[:, 0] * (1 - eps)
        z = {
            "x": noise.spawn(_NODES).normal(x, 0, mask[..., None]),
            "adj": noise.spawn(_PAIRS).normal(pairs, 0, pair_mask(mask)),
        }
        losses = self.losses(x, pairs, mask, t, z)
        return losses["x"] + losses["adj"]

    def losses(self, x: Tensor, pairs: Tensor, mask: Tensor, t: Tensor, z: State) -> State:
        """The published losses of both networks at given noise.

        Args:
            x: clean node features, (B, N, F).
            pairs: clean adjacency, (B, P).
            mask: real nodes, (B, N).
            t: times, (B,).
            z: noise "x" (B, N, F) and "adj" (B, P), 0 outside the mask.

        Returns:
            Half the summed squared errors "x" and "adj", (B,); each pair counts twice, as both of its entries do.
        """
        schedules = {name: self.sdes[name].schedule for name in COMPONENTS}
        level = {name: (s.alpha(t).to(x), s.sigma(t).to(x)) for name, s in schedules.items()}
        x_t = level["x"][0][:, None, None] * x + level["x"][1][:, None, None] * z["x"]
        pairs_t = level["adj"][0][:, None] * pairs + level["adj"][1][:, None] * z["adj"]
        scores = self._scores(self.weights, x_t, pairs_t, mask, t)
        x_error = scores["x"] * level["x"][1][:, None, None] + z["x"]
        pair_error = scores["adj"] * level["adj"][1][:, None] + z["adj"]
        return {"x": 0.5 * x_error.square().sum((1, 2)), "adj": pair_error.square().sum(1)}

    def fit_node_counts(self, sizes: Iterable[int]) -> None:
        """Learn how many nodes graphs have from the sizes of a training set (nodes with edges)."""
        values, counts = np.unique(np.fromiter(sizes, np.int64), return_counts=True)
        self.node_counts = _checked_counts(np.stack([values, counts], 1).tolist(), self.max_nodes)

    def sample(
        self,
        n: int,
        *,
        steps: int | None = None,
        seed: int = 0,
        num_nodes: int | Sequence[int] | None = None,
        ema: bool | None = None,
        correct: bool = True,
        batch_norms: bool | None = None,
        batch_size: int = 1024,
        callback: Callback | None = None,
        solver: ReferenceSampler | FewSteps | str = "published",
    ) -> list[nx.Graph] | list[Mol | None]:
        """Draw graphs, or molecules if the model has atoms.

        Args:
            n: how many.
            steps: sampling steps; default the published 1000, or 99 for "few-steps".
            seed: seed of all draws.
            num_nodes: of all, or of each; default: drawn as in the training set.
            ema: whether to use the averaged weights; default: the published choice.
            correct: molecules: the published valency correction and the largest fragment; without it, molecules that
                fail the valence check are None.
            batch_norms: see :meth:`sampler`.
            batch_size: graphs sampled together.
            callback: called as ``callback(step, steps, t, state)`` before each step.
            solver: "published"; "few-steps" for the same quality at a tenth of the evaluations, see
                :mod:`.reference_fewsteps`; or one of these samplers.

        Returns:
            NetworkX graphs, or RDKit molecules (None where there is none).

        Raises:
            ValueError: no known node counts, or impossible arguments.
        """
        records = self._records(
            self.sample_states(
                n,
                steps=steps,
                seed=seed,
                num_nodes=num_nodes,
                ema=ema,
                batch_norms=batch_norms,
                batch_size=batch_size,
                callback=callback,
                solver=solver,
            )
        )
        if self.atoms is None:
            return [published_graph(record) for record in records if record is not None]
        built = [None if record is None else build_molecule(record, self.atoms) for record in records]
        if correct:
            return [None if molecule is None else molecule.corrected for molecule in built]
        return [molecule.built if molecule is not None and molecule.valid else None for molecule in built]

    def sample_records(self, n: int, **settings: Any) -> list[GraphRecord]:
        """As :meth:`sample`, before any correction of molecules; those without a single atom are left out.

        Node types index ``atoms``, edge types are bond orders.
        """
        return [record for record in self._records(self.sample_states(n, **settings)) if record is not None]

    def _records(self, states: list[tuple[Tensor, Tensor]]) -> list[GraphRecord | None]:
        pairs = [pair for x, adj in states for pair in zip(x.cpu().numpy(), adj.cpu().numpy(), strict=True)]
        return [graph_record(adj) if self.atoms is None else molecule_record(x, adj) for x, adj in pairs]

    @torch.no_grad()
    def sample_states(
        self,
        n: int,
        *,
        steps: int | None = None,
        seed: int = 0,
        num_nodes: int | Sequence[int] | None = None,
        ema: bool | None = None,
        batch_norms: bool | None = None,
        batch_size: int = 1024,
        callback: Callback | None = None,
        solver: ReferenceSampler | FewSteps | str = "published",
    ) -> list[tuple[Tensor, Tensor]]:
        """Real-valued final states x (b, N, F) and adj (b, N, N) in batches, arguments as in :meth:`sample`."""
        if n < 1 or batch_size < 1:
            raise ValueError(f"n and batch_size must be at least 1, got {n} and {batch_size}")
        ids = NoiseSource(seed, range(n))
        sizes = self._sizes(n, ids, num_nodes)
        chosen = self._solver(solver, steps, batch_norms)
        networks = self.networks(bool(self._sampler["use_ema"]) if ema is None else ema)
        states = []
        for start in range(0, n, batch_size):
            part = slice(start, start + batch_size)
            states.append(self._sample_batch(chosen, networks, sizes[part], ids[part], steps or self.steps, callback))
        return states

    def _solver(
        self, solver: ReferenceSampler | FewSteps | str, steps: int | None, batch_norms: bool | None
    ) -> ReferenceSampler | FewSteps:
        if not isinstance(solver, str):
            return solver
        if solver == "published":
            return self.sampler(batch_norms=batch_norms)
        if solver != "few-steps":
            raise ValueError(f"unknown solver {solver!r}; known: 'published', 'few-steps'")
        chosen = self._sampler
        snr = 0.0 if chosen["corrector"] is None else float(chosen["snr"])
        return FewSteps.like(snr, float(chosen["scale_eps"]), FewSteps.steps if steps is None else steps, self.steps)

    def _sample_batch(
        self,
        solver: ReferenceSampler | FewSteps,
        networks: nn.ModuleDict,
        sizes: list[int],
        ids: NoiseSource,
        steps: int,
        callback: Callback | None,
    ) -> tuple[Tensor, Tensor]:
        packing = Packing(sizes, self.features, next(self.parameters()).device)
        if isinstance(solver, FewSteps):
            end = solver(self.sdes, networks, packing, ids.spawn(_FEW_STEPS), callback)
            return packing.unpack(end["x"], "x"), packing.unpack(end["adj"], "adj")
        sources = {"x": ids.spawn(_NODES), "adj": ids.spawn(_PAIRS)}
        drawn = dict.fromkeys(COMPONENTS, 0)

        def draw(name: str) -> Tensor:
            drawn[name] += 1
            return packing.noise(sources[name], drawn[name], name)

        def outputs(name: str, x: Tensor, adj: Tensor) -> Tensor:
            return packing.evaluate(networks[name], x, adj)

        # the published prior is standard normal, whatever the SDE's marginal at t = 1
        start = {name: packing.noise(sources[name], 0, name) for name in COMPONENTS}
        end = solver(self.sdes, packing, outputs, start, draw, steps, callback=callback)
        return packing.unpack(end["x"], "x"), packing.unpack(end["adj"], "adj")

    def _sizes(self, n: int, ids: NoiseSource, num_nodes: int | Sequence[int] | None) -> list[int]:
        if num_nodes is None:
            if self.node_counts is None:
                raise ValueError(
                    "the sizes of this model's graphs are not known: pass num_nodes= (one number, or one per graph)"
                )
            share = torch.tensor(list(self.node_counts.values()), dtype=torch.float64).cumsum(0)
            uniform = ids.spawn(_SIZES).uniform(torch.empty(n, 1, dtype=torch.float64), 0)[:, 0]
            index = torch.searchsorted(share / share[-1], uniform).tolist()
            known = list(self.node_counts)
            return [known[i] for i in index]
        sizes = [int(num_nodes)] * n if isinstance(num_nodes, int) else [int(size) for size in num_nodes]
        if len(sizes) != n:
            raise ValueError(f"num_nodes has {len(sizes)} entries for {n} graphs")
        if min(sizes) < 2 or max(sizes) > self.max_nodes:
            raise ValueError(f"num_nodes must lie in 2..{self.max_nodes}, got {min(sizes)}..{max(sizes)}")
        return sizes


def _build_networks(described: Mapping[str, Mapping[str, Any]]) -> nn.ModuleDict:
    built: dict[str, nn.Module] = {}
    for name, family in (("x", NodeNetwork), ("adj", AdjacencyNetwork)):
        arguments = dict(described[name])
        kind = arguments.pop("kind", None)
        cls = NETWORKS.get(str(kind))
        if cls is None or not issubclass(cls, family):
            known = ", ".join(k for k, c in NETWORKS.items() if issubclass(c, family))
            raise ValueError(f"unknown network {kind!r} for {name!r}; known: {known}")
        built[name] = cls(**arguments)
    return nn.ModuleDict(built)


def _checked_counts(node_counts: Iterable[Sequence[int]], max_nodes: int) -> dict[int, int]:
    counts = {int(size): int(count) for size, count in node_counts if int(size) > 1}
    if not counts or min(counts.values()) < 0 or sum(counts.values()) == 0 or max(counts) > max_nodes:
        raise ValueError(f"node_counts must be [nodes, how often] pairs with 2 <= nodes <= {max_nodes}, got {counts}")
    return dict(sorted(counts.items()))
