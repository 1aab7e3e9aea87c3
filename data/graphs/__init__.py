"""Graph data: named sets with their splits, generators, a user's own files, and the data module."""

from .buckets import BucketedSampler
from .catalog import GraphData, dataset_names, from_content, load_dataset
from .files import FileContent, read_files
from .generators import draw_graphs, ego_graphs
from .module import GraphDataModule

__all__ = [
    "BucketedSampler",
    "FileContent",
    "GraphData",
    "GraphDataModule",
    "dataset_names",
    "draw_graphs",
    "ego_graphs",
    "from_content",
    "load_dataset",
    "read_files",
]
