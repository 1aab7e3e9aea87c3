"""Guidance: denoisers made of denoisers. They nest, and every sampler takes any of them."""

from .adaptive import AdaptiveGuidance
from .classifier import ClassifierGuidance
from .classifier_free import ClassifierFree
from .energy import Energy, EnergyGuidance
from .replacement import Replacement
from .wrapper import GuidedDenoiser

__all__ = [
    "AdaptiveGuidance",
    "ClassifierFree",
    "ClassifierGuidance",
    "Energy",
    "EnergyGuidance",
    "GuidedDenoiser",
    "Replacement",
]
