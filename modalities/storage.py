"""Model folders: safetensors weights, readable JSON, a card, and a manifest that makes silent damage impossible.

    model.safetensors   weights (no pickle)
    config.json         {"format": 1, "adapter": "tsdiff", "config": {...}, "fourfold": "0.1.0"}
    README.md           the model card
    manifest.json       {"format": 1, "files": {name: {"sha256": ..., "bytes": ...}}}

A flipped bit in a weight file loads without complaint in both torch and safetensors, hence the sha256 of every file.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from .._version import __version__
from .adapter import Adapter
from .registry import UnknownAdapter, find
from .rounding import rounded

FORMAT = 1
WEIGHTS, CONFIG, CARD, MANIFEST = "model.safetensors", "config.json", "README.md", "manifest.json"
# Names, shapes and places of the tensors take this much of a weight file at most.
_HEADER, _PER_TENSOR = 1000, 200


class ModelFolderError(RuntimeError):
    """A model folder is missing, damaged, of another format, or of an unknown class."""


def save_adapter(
    adapter: Adapter, folder: str | Path, *, card: dict[str, Any] | None = None, max_megabytes: float | None = None
) -> Path:
    """Write `adapter` into `folder`, all or nothing; see `Adapter.save`."""
    folder, card = Path(folder), dict(card or {})
    weights: nn.Module = adapter
    if max_megabytes is not None:
        limit = int(max_megabytes * 1e6) - _HEADER - _PER_TENSOR * len(adapter.state_dict())
        weights, coarse = rounded(adapter, limit)
        card["weights"] = "rounded to 16 bits" + (f", the {coarse:,} of the largest matrices to 8" if coarse else "")
    if folder.exists() and not is_model_folder(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise ModelFolderError(f"{folder} exists and is not a saved model: choose another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _write_files(adapter, weights, new, card)
        _put_in_place(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return folder


def load_adapter(folder: str | Path) -> Adapter:
    """Check the manifest of a model folder, then build the registered class and load its weights (on the CPU)."""
    folder = Path(folder)
    check_manifest(folder)
    described = _read_json(folder / CONFIG)
    try:
        cls = find(str(described.get("adapter")))
    except UnknownAdapter as error:
        raise ModelFolderError(f"{folder / CONFIG}: {error.args[0]}") from error
    try:
        adapter = cls(**described["config"])
        load_model(adapter, folder / WEIGHTS)
    except (TypeError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelFolderError(
            f"{folder}: cannot rebuild {cls.__name__} from its files: {_first_line(error)}"
        ) from error
    return adapter.eval()


def is_model_folder(folder: str | Path) -> bool:
    """Whether the folder looks like one that `save_adapter` wrote."""
    return (Path(folder) / MANIFEST).is_file()


def check_manifest(folder: str | Path) -> dict[str, Any]:
    """Compare every file of a model folder with its manifest.

    Returns:
        The manifest.

    Raises:
        ModelFolderError: Missing folder or file, wrong size or sha256, or a newer format.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ModelFolderError(f"no model folder at {folder}")
    if not is_model_folder(folder):
        run = (folder / "checkpoints").is_dir()
        hint = f"; it is a run: `fourfold TASK export --run {folder} --out FOLDER` saves its model" if run else ""
        raise ModelFolderError(f"{folder} is not a saved model: it has no {MANIFEST}{hint}")
    manifest = _read_json(folder / MANIFEST)
    version, files = manifest.get("format"), manifest.get("files")
    if not isinstance(version, int) or version > FORMAT:
        raise ModelFolderError(f"{folder} has format {version!r}, this fourfold reads up to {FORMAT}: upgrade fourfold")
    if not isinstance(files, dict) or not {WEIGHTS, CONFIG} <= files.keys():
        raise ModelFolderError(f"{folder / MANIFEST} is damaged: it must list {WEIGHTS} and {CONFIG}")
    for name, expected in files.items():
        _check_file(folder, name, expected)
    return manifest


def sha256(path: str | Path) -> str:
    """Hexadecimal sha256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_files(adapter: Adapter, weights: nn.Module, folder: Path, card: dict[str, Any]) -> None:
    save_model(weights, str(folder / WEIGHTS))
    described = {"format": FORMAT, "adapter": adapter.name, "fourfold": __version__, "config": adapter.config()}
    (folder / CONFIG).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    (folder / CARD).write_text(_card(adapter, card), encoding="utf-8")
    files = {
        name: {"sha256": sha256(folder / name), "bytes": (folder / name).stat().st_size}
        for name in (WEIGHTS, CONFIG, CARD)
    }
    manifest = {"format": FORMAT, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    folder.chmod(0o777 & ~_umask())
    # safetensors makes files that only their owner can read.
    (folder / WEIGHTS).chmod(0o666 & ~_umask())


def _put_in_place(new: Path, folder: Path) -> None:
    old = folder.with_name(f".{folder.name}-old-{os.getpid()}")
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _check_file(folder: Path, name: str, expected: dict[str, Any]) -> None:
    if Path(name).name != name:
        raise ModelFolderError(f"{folder / MANIFEST} names a file outside the folder: {name!r}")
    path = folder / name
    if not path.is_file():
        raise ModelFolderError(f"{path} is missing: copy the model folder again")
    size, digest = path.stat().st_size, sha256(path)
    if size != expected.get("bytes") or digest != expected.get("sha256"):
        raise ModelFolderError(
            f"{path} is damaged (sha256 {digest[:12]}..., {size} bytes; the manifest says "
            f"{str(expected.get('sha256'))[:12]}..., {expected.get('bytes')} bytes): copy or export the model again"
        )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelFolderError(f"{path} cannot be read: {_first_line(error)}") from error
    if not isinstance(value, dict):
        raise ModelFolderError(f"{path} is damaged: expected a JSON object")
    return value


def _card(adapter: Adapter, facts: dict[str, Any]) -> str:
    parameters = sum(p.numel() for p in adapter.parameters())
    lines = [
        f"# {facts.get('title', adapter.name)}",
        "",
        f"A `{adapter.name}` model saved by fourfold {__version__}.",
        "",
    ]
    lines += ["```python", "import fourfold", 'model = fourfold.load("path/to/this/folder")', "```", ""]
    rows = {"parameters": f"{parameters:,}", **{k: v for k, v in facts.items() if k != "title"}}
    for key, value in rows.items():
        text = json.dumps(value) if isinstance(value, dict | list) else str(value)
        lines.append(f"- **{key}**: {text}")
    return "\n".join(lines) + "\n"


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _umask() -> int:
    # The mode of a mkdtemp folder is 0700; the umask can only be read by setting it.
    mask = os.umask(0)
    os.umask(mask)
    return mask
