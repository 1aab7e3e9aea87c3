"""Block orders of large sets, made once and kept on disk.

The file's name carries a hash of the graphs and of the settings, so that nothing old is ever mistaken for something
new; it appears complete or not at all, and one that is damaged is made again. It holds plain arrays (npz, no pickles).
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .block_order import block_orders
from .records import GraphRecord

__all__ = ["cached_block_orders", "graphs_hash"]

# Counts up when the same graphs and settings would give other blocks.
_VERSION = 1


def graphs_hash(records: Sequence[GraphRecord], max_hops: int, rule: str) -> str:
    """16 hexadecimal characters of the sha256 of graphs (without types) and settings."""
    digest = hashlib.sha256(f"{_VERSION} {max_hops} {rule} {len(records)}".encode())
    for record in records:
        digest.update(np.array([record.num_nodes, record.num_edges], np.int64).tobytes())
        digest.update(np.ascontiguousarray(record.edges).tobytes())
    return digest.hexdigest()[:16]


def cached_block_orders(
    records: Sequence[GraphRecord], max_hops: int, rule: str = "lexicographic", folder: str | Path | None = None
) -> list[np.ndarray]:
    """Blocks of many graphs, from `folder/blocks-HASH.npz` if they were found before.

    Args:
        records: the graphs.
        max_hops: K.
        rule: as in :func:`fourfold.modalities.graphs.block_order.block_order`.
        folder: where files are kept; None keeps nothing.

    Returns:
        Block ids of every graph, int64 arrays (n,).
    """
    if folder is None:
        return block_orders(records, max_hops, rule)
    path = Path(folder) / f"blocks-{graphs_hash(records, max_hops, rule)}.npz"
    ends = np.cumsum([r.num_nodes for r in records])
    if path.is_file():
        try:
            with np.load(path, allow_pickle=False) as file:
                stored = file["blocks"]
            if stored.shape != (ends[-1] if len(ends) else 0,):
                raise ValueError(f"{len(stored)} nodes instead of {ends[-1]}")
        except (zipfile.BadZipFile, OSError, ValueError, EOFError, KeyError) as error:
            warnings.warn(f"{path} is damaged ({error}) and is made again", UserWarning, stacklevel=2)
        else:
            return [block.astype(np.int64) for block in np.split(stored, ends[:-1])]
    found = block_orders(records, max_hops, rule)
    _store(path, np.concatenate(found) if found else np.empty(0, np.int64))
    return found


def _store(path: Path, blocks: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}-", suffix=".npz", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez_compressed(file, blocks=blocks.astype(np.int32))
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)
