"""Arrays made once and kept: the file's name carries a hash of everything they depend on.

Another parameter is another file, so that nothing old is ever mistaken for something new; the file appears complete or
not at all; it holds plain arrays only (npz, no pickles).
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..fetch import data_root, locked

__all__ = ["cached_arrays", "content_hash"]


def content_hash(parameters: Mapping[str, Any]) -> str:
    """12 hexadecimal characters of the sha256 of the parameters, written as sorted JSON."""
    text = json.dumps(parameters, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def cached_arrays(
    name: str,
    parameters: Mapping[str, Any],
    build: Callable[[], Mapping[str, NDArray[Any]]],
    root: str | Path | None = None,
) -> dict[str, NDArray[Any]]:
    """The arrays of `build()`, from `ROOT/trajectories/NAME-HASH.npz` if they were made before.

    Args:
        name: beginning of the file's name.
        parameters: everything the arrays depend on, as plain values; a version number of the code among them.
        build: makes the arrays; called at most once, by one process.
        root: data root, default `fourfold.data.fetch.data_root()`.
    """
    path = data_root(root) / "trajectories" / f"{name}-{content_hash(parameters)}.npz"
    with locked(path):
        if path.is_file():
            try:
                with np.load(path, allow_pickle=False) as file:
                    return {key: file[key] for key in file.files if key != "parameters"}
            except (zipfile.BadZipFile, OSError, ValueError, EOFError, KeyError) as error:
                warnings.warn(f"{path} is damaged ({error}) and is made again", UserWarning, stacklevel=2)
        arrays = dict(build())
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}-", suffix=".npz", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                text: Any = np.array(json.dumps(parameters, sort_keys=True))
                np.savez_compressed(file, allow_pickle=False, parameters=text, **arrays)
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        finally:
            Path(temporary).unlink(missing_ok=True)
    return arrays
