r"""Units of a model, measured on its data: residuals of unit variance at every distance from what is observed.

A forecast one frame ahead is wrong by far less than one twenty frames ahead. Divided by one number the near residuals
would vanish below the noise at almost every noise level; divided by

    s(kind, lead)^2 = mean over data and masks of |x - anchor|^2 / D

all of them are diffused alike (kind: observed on one side, on both, other agents only, nothing; lead: time to the
nearest observed frame, in whole frames).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from .anchors import Spans, spans
from .conditioning import mean_over

__all__ = ["Units"]

_KINDS = 4


class Units(nn.Module):
    """Residual scales and typical length, speed and acceleration; buffers, 1 until measured.

    Args:
        max_lead: leads beyond are treated like this one.
    """

    residual: Tensor
    length: Tensor
    speed: Tensor
    bend: Tensor
    measured: Tensor

    def __init__(self, max_lead: int) -> None:
        super().__init__()
        self.register_buffer("residual", torch.ones(_KINDS, max_lead + 1))
        for name in ("length", "speed", "bend"):
            self.register_buffer(name, torch.ones(()))
        self.register_buffer("measured", torch.zeros((), dtype=torch.bool))

    def forward(self, where: Spans) -> Tensor:
        """Scales of the residuals, (B, N, T, 1)."""
        lead = where.lead.round().long().clamp(0, self.residual.shape[1] - 1)
        return self.residual[where.kind, lead].unsqueeze(-1)

    @torch.no_grad()
    def measure(self, samples: Iterable[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]) -> None:
        """Set all units from data.

        Args:
            samples: (positions (B, N, T, D), anchor, present (B, N, T), observed, times (B, T)).

        Raises:
            ValueError: without any data, or if nothing in them moves.
        """
        shape, device = self.residual.shape, self.residual.device
        squares, counts = (torch.zeros(shape, dtype=torch.float64, device=device) for _ in range(2))
        sums = torch.zeros(3, 2, dtype=torch.float64, device=device)
        for positions, anchor, present, observed, times in samples:
            x = torch.where(present.unsqueeze(-1), positions, 0).double()
            where = spans(observed, times)
            lead = where.lead.round().long().clamp(0, shape[1] - 1)
            asked = present & ~observed
            error = ((x - anchor.double()) ** 2).mean(-1)
            centred = ((x - mean_over(x, present, (1, 2))) ** 2).mean(-1)
            error = torch.where(where.kind == 3, centred, error)[asked]
            place = (where.kind * shape[1] + lead)[asked]
            squares.view(-1).index_add_(0, place, error)
            counts.view(-1).index_add_(0, place, torch.ones_like(error))
            self._add(sums, x, centred, present, times)
        total = float(counts.sum())
        rms = (sums[:, 0] / sums[:, 1].clamp(min=1)).sqrt()
        if total == 0 or not float(rms[0]) > 0:
            raise ValueError("the units cannot be measured: no data, or nothing in them that differs from its mean")
        overall = (squares.sum() / total).clamp(min=1e-24).sqrt()
        self.residual.copy_(_filled((squares / counts.clamp(min=1)).sqrt(), counts > 0, overall))
        self.length.copy_(rms[0])
        self.speed.copy_(rms[1] if rms[1] > 0 else rms[0])
        self.bend.copy_(rms[2] if rms[2] > 0 else rms[0])
        self.measured.fill_(True)

    @staticmethod
    def _add(sums: Tensor, x: Tensor, centred: Tensor, present: Tensor, times: Tensor) -> None:
        step = times.double().diff(dim=1)[:, None, :, None]
        moving = present[:, :, 1:] & present[:, :, :-1]
        velocity = x.diff(dim=2) / step
        bending = moving[:, :, 1:] & moving[:, :, :-1]
        acceleration = velocity.diff(dim=2) / step[:, :, 1:]
        parts = ((centred, present), ((velocity**2).mean(-1), moving), ((acceleration**2).mean(-1), bending))
        for row, (values, real) in enumerate(parts):
            sums[row, 0] += values[real].sum()
            sums[row, 1] += real.sum()


def _filled(scales: Tensor, found: Tensor, overall: Tensor) -> Tensor:
    """Scales of leads that were not met are those of the nearest lead met; of kinds, the overall scale."""
    filled = scales.clone()
    leads = torch.arange(scales.shape[1], device=scales.device)
    for kind in range(scales.shape[0]):
        met = leads[found[kind]]
        if len(met) == 0:
            filled[kind] = overall
            continue
        nearest = met[(leads[:, None] - met[None]).abs().argmin(1)]
        filled[kind] = scales[kind, nearest]
    return filled.clamp(min=1e-4 * float(overall))
