"""Loading a model by what the user has: a name from the zoo that is shipped with fourfold, a folder, or a hub id."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from .adapter import Adapter
from .storage import CARD, CONFIG, MANIFEST, WEIGHTS, ModelFolderError, is_model_folder, load_adapter

ZOO = Path(__file__).resolve().parents[1] / "data" / "zoo"


def zoo() -> list[str]:
    """Names of the models shipped with this installation."""
    return sorted(path.parent.name for path in ZOO.glob(f"*/{MANIFEST}"))


def load(name_or_folder: str | Path) -> Adapter:
    """Load a model on the CPU, in evaluation mode.

    Args:
        name_or_folder: A name listed by `fourfold zoo`, a folder written by `Adapter.save`, or a hub id `owner/name`
            (needs the extra `fourfold[hub]`). Looked up in this order.

    Returns:
        The adapter, an `nn.Module` with `.sample` and its modality's verbs.

    Raises:
        ModelFolderError: Nothing of that name, or a damaged folder.
    """
    name = str(name_or_folder)
    if is_model_folder(ZOO / name) and Path(name).name == name:
        return load_adapter(ZOO / name)
    if Path(name_or_folder).exists():
        return load_adapter(name_or_folder)
    owner, _, repository = name.partition("/")
    if owner and repository and "/" not in repository and not name.startswith((".", "~")):
        return load_adapter(_hub_folder(name))
    raise ModelFolderError(
        f"no model named {name!r}: the zoo has {', '.join(zoo()) or 'no models yet'}; no such folder"
    )


def _hub_folder(repo_id: str) -> Path:
    if importlib.util.find_spec("huggingface_hub") is None:
        raise ModelFolderError(
            f"no folder {repo_id!r}; to look it up on the model hub, install it: pip install 'fourfold[hub]'"
        )
    from huggingface_hub import snapshot_download  # pyright: ignore[reportMissingImports]
    from huggingface_hub.errors import (  # pyright: ignore[reportMissingImports]
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
    )

    try:
        return Path(snapshot_download(repo_id, allow_patterns=[WEIGHTS, CONFIG, CARD, MANIFEST]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelFolderError(
            f"no folder {repo_id!r}, and the model hub has not answered with one: {reason}"
        ) from error
