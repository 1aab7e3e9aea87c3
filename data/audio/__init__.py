"""Labelled sounds: synthetic events, the user's folders, ESC-50, captions; mixtures of them; the data module."""

from .bank import AudioData, SoundBank
from .catalog import dataset_names, load_dataset
from .clips import Clip, ClipBank
from .events import EVENTS, SyntheticEvents
from .folders import load_captions, load_folder, load_table
from .mixing import MixingSettings, Mixture, Mixtures, SeparationBatch, collate, mix
from .module import SeparationDataModule

__all__ = [
    "EVENTS",
    "AudioData",
    "Clip",
    "ClipBank",
    "MixingSettings",
    "Mixture",
    "Mixtures",
    "SeparationBatch",
    "SeparationDataModule",
    "SoundBank",
    "SyntheticEvents",
    "collate",
    "dataset_names",
    "load_captions",
    "load_dataset",
    "load_folder",
    "load_table",
    "mix",
]
