"""Checkpoints of the published TSDiff code: `fourfold convert tsdiff best_checkpoint.ckpt FOLDER`.

A published checkpoint is a bare state dict (or one inside a Lightning checkpoint). The lengths of context and horizon,
the lags, the guidance scale and whether the input is added to the output are not stored: they follow from the data
set. The kind `tsdiff` reads the data set off the shapes, which is possible for exchange rates, Wikipedia and M4; the
kinds `tsdiff-solar`, `tsdiff-electricity`, `tsdiff-traffic`, `tsdiff-uber_tlc`, `tsdiff-kdd_cup` (and the other three)
say it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from ..foreign_checkpoints import read_plain
from .guidance import QuantileGuidance
from .lags import DAILY_LAGS, HOURLY_LAGS
from .reference_s4 import NPLRKernel
from .reference_tsdiff import ReferenceTSDiff

__all__ = ["PUBLISHED", "Published", "official_state", "read_reference"]


@dataclass(frozen=True)
class Published:
    """Configuration of a data set in the publication.

    Args:
        context_length: c.
        prediction_length: H.
        lags: lags in steps.
        add_input: whether the network adds its input to its output.
        guidance_scale: scale of the quantile guidance.
        features: feature channels of the dead weights.
    """

    context_length: int
    prediction_length: int
    lags: tuple[int, ...]
    add_input: bool
    guidance_scale: float
    features: int

    def model(self) -> ReferenceTSDiff:
        """The model, with fresh weights."""
        return ReferenceTSDiff(
            self.prediction_length,
            self.context_length,
            self.lags,
            QuantileGuidance(self.guidance_scale),
            add_input=self.add_input,
            features=self.features,
        )


PUBLISHED: dict[str, Published] = {
    "solar": Published(336, 24, HOURLY_LAGS, False, 8.0, 8),
    "electricity": Published(336, 24, HOURLY_LAGS, False, 4.0, 8),
    "traffic": Published(336, 24, HOURLY_LAGS, True, 4.0, 8),
    "exchange_rate": Published(360, 30, DAILY_LAGS, True, 8.0, 7),
    "m4_hourly": Published(312, 48, (), False, 2.0, 8),
    "uber_tlc": Published(336, 24, HOURLY_LAGS, False, 2.0, 8),
    "kdd_cup": Published(312, 48, HOURLY_LAGS, True, 1.0, 8),
    "wiki2000": Published(360, 30, (), False, 2.0, 7),
}

_BLOCK = "backbone.residual_blocks."
_OUTSIDE = {
    "category": "embedder._embedders.0.weight",
    "denoiser.network.embed": "backbone.input_init.0",
    "denoiser.network.step": "backbone.time_init",
    "denoiser.network.head": "backbone.out_linear",
}
_INSIDE = {
    "filter.skip": "s4block.layer.D",
    "filter.kernel.output": "s4block.layer.kernel.kernel.C",
    "filter.kernel.log_step": "s4block.layer.kernel.kernel.log_dt",
    "filter.kernel.input": "s4block.layer.kernel.kernel.B",
    "filter.kernel.low_rank": "s4block.layer.kernel.kernel.P",
    "filter.kernel.log_decay": "s4block.layer.kernel.kernel.inv_w_real",
    "filter.kernel.frequency": "s4block.layer.kernel.kernel.w_imag",
    "filter.kernel.length": "s4block.layer.kernel.kernel.L",
    "mix": "s4block.layer.output_linear",
    "norm": "s4block.norm",
    "step": "time_linear",
    "residual": "out_linear1",
    "skip": "out_linear2",
    "features": "feature_encoder",
}


def official_state(model: ReferenceTSDiff) -> dict[str, Tensor]:
    """Weights of a model under the names of the published code, which can load them."""
    return {_official(name): value for name, value in model.state_dict().items()}


def read_reference(path: str | Path, data_set: str | None = None) -> ReferenceTSDiff:
    """The model of a published checkpoint.

    Args:
        path: the checkpoint; read with `weights_only`.
        data_set: a name out of :data:`PUBLISHED`; default: read off the shapes.

    Raises:
        ValueError: for a file that is no such checkpoint, or one whose data set cannot be told.
    """
    state = _read(Path(path))
    if data_set is None:
        data_set = _recognise(state, Path(path))
    model = PUBLISHED[data_set].model()
    names = {_official(name): name for name in model.state_dict()}
    _check(state, {official: model.state_dict()[name].shape for official, name in names.items()}, Path(path), data_set)
    model.load_state_dict({names[official]: value for official, value in state.items()}, strict=True)
    for kernel in model.modules():
        if isinstance(kernel, NPLRKernel):
            kernel.prepare(model.length)
    return model.eval()


def _official(name: str) -> str:
    block = re.match(r"denoiser\.network\.blocks\.(\d+)\.(.*)", name)
    prefix, rest = (f"{_BLOCK}{block[1]}.", block[2]) if block else ("", name)
    for ours, theirs in (_INSIDE if block else _OUTSIDE).items():
        if rest == ours or rest.startswith(ours + "."):
            return prefix + theirs + rest[len(ours) :]
    raise KeyError(name)


def _read(path: Path) -> dict[str, Tensor]:
    content = read_plain(path, hint="a published run keeps its plain weights in best_checkpoint.ckpt")
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path} holds no state dict")
    return dict(content)


def _recognise(state: Mapping[str, Tensor], path: Path) -> str:
    entry, features = state.get("backbone.input_init.0.weight"), state.get(f"{_BLOCK}0.feature_encoder.weight")
    length = state.get(f"{_BLOCK}0.s4block.layer.kernel.kernel.L")
    if entry is None or features is None or length is None:
        raise ValueError(f"{path} is not a checkpoint of the published TSDiff: it lacks backbone weights")
    shape = (entry.shape[1], features.shape[1])
    fits = [name for name, known in PUBLISHED.items() if (1 + len(known.lags), known.features) == shape]
    kinds = ", ".join(f"tsdiff-{name}" for name in fits or PUBLISHED)
    if not fits:
        raise ValueError(
            f"{path} has {shape[0]} channels and {shape[1]} features, which no published unconditional configuration "
            f"has (a checkpoint of TSDiff-Cond?); known kinds: {kinds}"
        )
    if len(fits) > 1:
        raise ValueError(f"{path} fits several data sets, which differ in what is not stored: convert it as {kinds}")
    return fits[0]


def _check(state: Mapping[str, Tensor], expected: Mapping[str, Any], path: Path, data_set: str) -> None:
    missing, unexpected = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    if missing or unexpected:
        told = [f"lacks {name}" for name in missing[:1]] + [f"has the unknown {name}" for name in unexpected[:1]]
        raise ValueError(f"{path} is not a checkpoint of the published TSDiff: it {' and '.join(told)}")
    for name, shape in expected.items():
        if state[name].shape != shape:
            raise ValueError(
                f"{path} does not fit {data_set}: {name} has shape {tuple(state[name].shape)}, expected {tuple(shape)}"
            )


def _named(name: str) -> Any:
    return partial(read_reference, data_set=name)


solar, electricity, traffic = _named("solar"), _named("electricity"), _named("traffic")
exchange_rate, m4_hourly, uber_tlc = _named("exchange_rate"), _named("m4_hourly"), _named("uber_tlc")
kdd_cup, wiki2000 = _named("kdd_cup"), _named("wiki2000")
