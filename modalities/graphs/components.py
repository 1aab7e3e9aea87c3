"""The parts a stored graph model may name; see `fourfold.modalities.components`."""

from __future__ import annotations

from ...core import VP, Ancestral, Cosine, EulerMaruyama, Multistep, Schedule, Stepper
from .attention_network import AttentionBackbone
from .backbone import Backbone
from .graph_transformer import TransformerBackbone
from .splitting import Splitting

__all__ = ["BACKBONES", "SCHEDULES", "STEPPERS"]

BACKBONES: dict[str, type[Backbone]] = {"transformer": TransformerBackbone, "attention": AttentionBackbone}
SCHEDULES: dict[str, type[Schedule]] = {"cosine": Cosine, "vp": VP}
STEPPERS: dict[str, type[Stepper]] = {
    "ancestral": Ancestral,
    "euler_maruyama": EulerMaruyama,
    "multistep": Multistep,
    "splitting": Splitting,
}
