"""Other programs' checkpoints: tensors and plain values are read, anything else is refused, nothing is executed."""

from __future__ import annotations

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

__all__ = ["ForeignCheckpointError", "read_plain"]


class ForeignCheckpointError(ValueError):
    """The file is no checkpoint, is damaged, or holds more than tensors and plain values."""


def read_plain(path: str | Path, *, mmap: bool = False, hint: str = "") -> Any:
    """What `torch.save` wrote, if it is tensors, numbers, strings and containers of them.

    Args:
        path: The file.
        mmap: Leave tensors on disk until they are used, for large files.
        hint: What to do instead, appended to the refusal.

    Raises:
        FileNotFoundError: There is no such file.
        ForeignCheckpointError: It cannot be read, or must not be.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}")
    packed = zipfile.is_zipfile(path)
    with path.open("rb") as file:
        # Before PyTorch 1.6 checkpoints were bare pickles, which begin with their protocol.
        if not packed and file.read(1) != b"\x80":
            raise ForeignCheckpointError(f"{path} is not a PyTorch checkpoint, or is cut short{_and(hint)}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap and packed)
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"its pickle asks for {asked[1]}" if asked else "its pickle holds more than plain values"
        raise ForeignCheckpointError(
            f"{path} is refused: {reason}; only tensors and plain values are read, and nothing is executed{_and(hint)}"
        ) from error
    except (RuntimeError, EOFError, OSError, KeyError, ValueError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ForeignCheckpointError(f"{path} is not a PyTorch checkpoint, or damaged ({first}){_and(hint)}") from error


def _and(hint: str) -> str:
    return f"; {hint}" if hint else ""
