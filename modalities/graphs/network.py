r"""The joint denoising network of a graph: from noisy codes of nodes and pairs to the expected clean codes.

A backbone sees each entry twice, scaled to variance 1 and as the clean code expected from the entry alone (codes.py),
and an embedding of log-SNR, number of nodes and target. It returns log-odds for codes and v for real numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ...core import Condition, JointPath
from .backbone import Backbone
from .encoding import NODE_COMPONENTS, PAIR_COMPONENTS, GraphEncoding
from .pairs import dense_pairs, packed_pairs, pair_indices

__all__ = ["Embedding", "GraphNetwork"]


class Embedding(nn.Module):
    """Embedding of log-SNR, number of nodes and (optional) target: (B, width).

    Args:
        width: length of the embedding.
        target: whether graphs are generated for a target.
    """

    frequencies: Tensor

    def __init__(self, width: int, target: bool) -> None:
        super().__init__()
        self.register_buffer("frequencies", 2.0 ** torch.arange(-2, 4) * math.pi / 2, persistent=False)
        inputs = 1 + 2 * 6 + 2 + 2 * target
        self.layers = nn.Sequential(nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.target = target

    def forward(self, logsnr: Tensor, sizes: Tensor, condition: Condition | None) -> Tensor:
        level = logsnr.clamp(-6, 6) / 4
        phase = level.unsqueeze(-1) * self.frequencies.to(level)
        inputs = [level.unsqueeze(-1), phase.sin(), phase.cos()]
        count = sizes.to(level).clamp(min=1)
        inputs.append(torch.stack([count.log() - 2.5, 4 / count], dim=-1))
        if self.target:
            shown = condition or {}
            value = shown.get("target", torch.zeros_like(level)).to(level)
            known = shown.get("known", torch.zeros_like(level)).to(level)
            inputs.append(torch.stack([torch.where(known > 0, value, 0), known], dim=-1))
        return self.layers(torch.cat(inputs, dim=-1))


class GraphNetwork(nn.Module):
    """Called by :class:`fourfold.core.JointDenoiser`; returns E[x_0 | x_t] by component.

    Args:
        encoding: the components.
        backbone: makes the network on nodes and pairs.
        embedding: width of the embedding.
        target: whether graphs are generated for a target.
    """

    def __init__(self, encoding: GraphEncoding, backbone: Backbone, embedding: int = 64, target: bool = False) -> None:
        super().__init__()
        self.encoding = encoding
        self.path = encoding.path
        self._names = [[k for k in kind if k in self.path] for kind in (NODE_COMPONENTS, PAIR_COMPONENTS)]
        inputs = [sum(encoding.channels(k) * (1 + (k in encoding.codebooks)) for k in names) for names in self._names]
        outputs = [sum(map(encoding.outputs, names)) for names in self._names]
        # nodes also see how many edges of each kind they may expect
        self.backbone = backbone(inputs[0] + encoding.channels("adj"), inputs[1], outputs[0], outputs[1], embedding)
        self.embedding = Embedding(embedding, target)

    def outputs(
        self, states: Mapping[str, Tensor], t: Tensor, mask: Tensor, condition: Condition | None = None
    ) -> dict[str, Tensor]:
        """Log-posteriors of codes and v of real numbers, pairs packed as (B, P, *).

        Args:
            states: noisy components.
            t: (B,).
            mask: nodes, (B, N).
            condition: ``target`` (B,), standardised, and ``known`` (B,), 0 where it is dropped.
        """
        schedule = self.path.schedule
        t64 = t.double()
        scale = (schedule.alpha(t64) ** 2 + schedule.sigma(t64) ** 2).rsqrt()
        index = pair_indices(mask.shape[1], mask.device)
        flat = {k: packed_pairs(v, index) if k in PAIR_COMPONENTS else v for k, v in states.items()}
        logits = {k: self.encoding.book(k).logits(flat[k], t, schedule) for k in flat if k in self.encoding.codebooks}
        inputs: dict[str, list[Tensor]] = {"node": [], "pair": []}
        for name, x in flat.items():
            seen = inputs["pair" if name in PAIR_COMPONENTS else "node"]
            seen.append(x * scale.to(x).reshape(-1, 1, 1))
            if name in logits:
                seen.append(self.encoding.book(name).mean(logits[name]))
        real = (mask[:, index[0]] & mask[:, index[1]]).unsqueeze(-1)
        present = mask.unsqueeze(-1)
        expected = dense_pairs(
            torch.where(real, self.encoding.book("adj").mean(logits["adj"]), 0), index, mask.shape[1]
        )
        count = mask.sum(1).clamp(min=1).to(expected)
        inputs["node"].append(expected.sum(2) / count.reshape(-1, 1, 1).sqrt())
        embedding = self.embedding(schedule.logsnr(t64).to(expected), count, condition)
        nodes = torch.where(present, torch.cat(inputs["node"], dim=-1), 0)
        pairs = torch.where(real, torch.cat(inputs["pair"], dim=-1), 0)
        at_nodes, at_pairs = self.backbone(nodes, pairs, mask, embedding)
        result: dict[str, Tensor] = {}
        for names, output in zip(self._names, (at_nodes, at_pairs), strict=True):
            if names:
                parts = output.split([self.encoding.outputs(k) for k in names], dim=-1)
                result |= dict(zip(names, parts, strict=True))
        return {k: logits[k] + result[k] if k in logits else result[k] for k in flat}

    def forward(
        self,
        states: dict[str, Tensor],
        t: Tensor,
        *,
        mask: dict[str, Tensor] | None = None,
        condition: Condition | None = None,
    ) -> dict[str, Tensor]:
        adj = states["adj"]
        nodes = torch.ones(adj.shape[:2], dtype=torch.bool, device=adj.device) if mask is None else mask["adj"]
        index = pair_indices(nodes.shape[1], nodes.device)
        clean = {}
        for name, output in self.outputs(states, t, nodes, condition).items():
            if name in self.encoding.codebooks:
                value = self.encoding.book(name).mean(output)
            else:
                x = packed_pairs(states[name], index) if name in PAIR_COMPONENTS else states[name]
                value = velocity_to_clean(x, output, t, self.path)
            clean[name] = dense_pairs(value, index, nodes.shape[1]) if name in PAIR_COMPONENTS else value
        return clean


def velocity_to_clean(x: Tensor, v: Tensor, t: Tensor, path: JointPath) -> Tensor:
    """x_0 from v on a variance-preserving path, alpha x - sigma v."""
    t64, shape = t.double(), (-1, *(1,) * (x.ndim - 1))
    alpha, sigma = (f(t64).to(x).reshape(shape) for f in (path.schedule.alpha, path.schedule.sigma))
    return alpha * x - sigma * v
