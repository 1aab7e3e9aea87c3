"""What a joint diffusion of nodes and edges draws: new graphs, and graphs that contain a given part.

Sizes are drawn first, as they occur in the data; graphs of similar size share a batch. A wanted property is asked for
by classifier-free guidance, a given part is kept by replacement.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...core import (
    BaseDenoiser,
    ClassifierFree,
    JointDenoiser,
    NoiseSource,
    Replacement,
    Sampler,
    Stepper,
    UniformGrid,
)
from ..adapter import Adapter
from .encoding import PAIR_COMPONENTS, GraphEncoding
from .records import GraphRecord, as_record, collate, to_networkx
from .statistics import GraphStatistics

if TYPE_CHECKING:
    import networkx as nx
    from rdkit.Chem import Mol

__all__ = ["JointGenerator"]

_SIZES, _SAMPLER = 0, 2


class JointGenerator(Adapter):
    """Draws with a joint denoiser; what has learnt one derives from it and sets the attributes.

    Attributes:
        encoding: how graphs become states.
        node_state: what the state of a node is.
        stepper: default algorithm.
        sampling_steps: default number of steps.
        target: name of the property that graphs can be generated for, or None.
        guidance: default scale of classifier-free guidance.
    """

    encoding: GraphEncoding
    node_state: str
    stepper: Stepper
    sampling_steps: int
    target: str | None
    guidance: float

    @property
    @abstractmethod
    def statistics(self) -> GraphStatistics:
        """What was learnt from the data."""

    @property
    @abstractmethod
    def denoiser(self) -> JointDenoiser:
        """The joint denoiser."""

    @property
    @abstractmethod
    def kind(self) -> str:
        """ "graphs" or "molecules"."""

    @property
    def _device(self) -> torch.device:
        return next(self.parameters()).device

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
