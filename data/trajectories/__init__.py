"""Trajectory data: simulated particles, pedestrians, molecular dynamics, users' files, and the data module."""

from .catalog import dataset_names, load_dataset
from .collection import TrajectoryData
from .files import load_file
from .module import TrajectoryDataModule

__all__ = ["TrajectoryData", "TrajectoryDataModule", "dataset_names", "load_dataset", "load_file"]
