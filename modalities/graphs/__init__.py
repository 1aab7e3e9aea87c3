"""Graphs and molecules: records, encodings, networks, adapters, metrics and pictures."""

from .block_order import block_order
from .gdss import GDSS
from .intake import OnBad, Unreadable
from .molecules import Alphabet
from .packed import PackedGraphs
from .pard import PARD
from .records import (
    GraphBatch,
    GraphRecord,
    collate,
    degree,
    from_adjacency,
    from_networkx,
    from_pyg,
    to_networkx,
    to_pyg,
    to_records,
)
from .reference_gdss import ReferenceGDSS

__all__ = [
    "GDSS",
    "PARD",
    "Alphabet",
    "GraphBatch",
    "GraphRecord",
    "OnBad",
    "PackedGraphs",
    "ReferenceGDSS",
    "Unreadable",
    "block_order",
    "collate",
    "degree",
    "from_adjacency",
    "from_networkx",
    "from_pyg",
    "to_networkx",
    "to_pyg",
    "to_records",
]
