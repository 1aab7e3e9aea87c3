"""Trajectories of particles, atoms and people: records, the diffusion models, baselines, metrics and pictures."""

from .anchors import Center, ConstantVelocity, LastFrame, Learnt
from .egtn import EGTN
from .geotdm import GeoTDM
from .metrics import ade, baseline_scores, fde, sample_scores, table
from .records import TrajectoryBatch, TrajectoryRecord, collate
from .reference_egtn import ReferenceEGTN
from .reference_geotdm import ReferenceGeoTDM

__all__ = [
    "EGTN",
    "Center",
    "ConstantVelocity",
    "GeoTDM",
    "LastFrame",
    "Learnt",
    "ReferenceEGTN",
    "ReferenceGeoTDM",
    "TrajectoryBatch",
    "TrajectoryRecord",
    "ade",
    "baseline_scores",
    "collate",
    "fde",
    "sample_scores",
    "table",
]
