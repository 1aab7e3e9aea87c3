"""Published checkpoints of other projects, turned once into a model folder of ours."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from .adapter import Adapter

# kind -> "module:function"; the function takes the path of the published file and returns an adapter.
CONVERTERS: dict[str, str] = {
    "gdss": "fourfold.modalities.graphs.reference_checkpoints:convert_gdss",
    "geotdm": "fourfold.modalities.trajectories.reference_geotdm:read_reference",
    "tsdiff": "fourfold.modalities.timeseries.reference_checkpoints:read_reference",
    "tsdiff-solar": "fourfold.modalities.timeseries.reference_checkpoints:solar",
    "tsdiff-electricity": "fourfold.modalities.timeseries.reference_checkpoints:electricity",
    "tsdiff-traffic": "fourfold.modalities.timeseries.reference_checkpoints:traffic",
    "tsdiff-exchange_rate": "fourfold.modalities.timeseries.reference_checkpoints:exchange_rate",
    "tsdiff-m4_hourly": "fourfold.modalities.timeseries.reference_checkpoints:m4_hourly",
    "tsdiff-uber_tlc": "fourfold.modalities.timeseries.reference_checkpoints:uber_tlc",
    "tsdiff-kdd_cup": "fourfold.modalities.timeseries.reference_checkpoints:kdd_cup",
    "tsdiff-wiki2000": "fourfold.modalities.timeseries.reference_checkpoints:wiki2000",
}


class UnknownKind(LookupError):
    """No converter of that kind exists."""


def convert(kind: str, path: str | Path, out: str | Path) -> Path:
    """Read a published checkpoint and save it as a model folder.

    Args:
        kind: The published format, e.g. a system's name; the error for an unknown one lists what exists.
        path: The published file. Read with `weights_only`: nothing in it is executed.
        out: Folder to write.

    Returns:
        The model folder, ready for `fourfold.load`.

    Raises:
        UnknownKind: No converter of that kind.
        FileNotFoundError: No file at `path`.
    """
    if kind not in CONVERTERS:
        known = ", ".join(sorted(CONVERTERS)) or "none in this version"
        raise UnknownKind(f"cannot convert {kind!r}; known kinds: {known}")
    if not Path(path).exists():
        raise FileNotFoundError(f"no file to convert at {path}")
    module, _, function = CONVERTERS[kind].partition(":")
    reader: Callable[[Path], Adapter] = getattr(import_module(module), function)
    adapter = reader(Path(path))
    card: dict[str, Any] = {"converted from": f"{kind}: {Path(path).name}"}
    if (origin := adapter.config().get("origin")) is not None:
        card["origin"] = origin
    return adapter.save(out, card=card)
