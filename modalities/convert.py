"""Published checkpoints of other projects, turned once into a model folder of ours."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

from .adapter import Adapter

# kind -> "module:function"; the function takes the path of the published file and returns an adapter.
CONVERTERS: dict[str, str] = {
    "flowsep": "fourfold.modalities.audio.reference_flowsep:convert_flowsep",
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


def convert(kind: str, path: str | Path, out: str | Path, *, companion: str | Path | None = None) -> Path:
    """Read a published checkpoint and save it as a model folder.

    Args:
        kind: The published format, e.g. a system's name; the error for an unknown one lists what exists.
        path: The published file. Read with `weights_only`: nothing in it is executed.
        out: Folder to write.
        companion: A second published file, for kinds that have one (flowsep: the vocoder g_01000000).

    Returns:
        The model folder, ready for `fourfold.load`.

    Raises:
        UnknownKind: No converter of that kind.
        FileNotFoundError: No file at `path` or `companion`.
        ValueError: The file is of another layout, or there is a companion where none belongs.
    """
    if kind not in CONVERTERS:
        known = ", ".join(sorted(CONVERTERS)) or "none in this version"
        raise UnknownKind(f"cannot convert {kind!r}; known kinds: {known}")
    for given in (path, companion):
        if given is not None and not Path(given).exists():
            raise FileNotFoundError(f"no file to convert at {given}")
    module, _, function = CONVERTERS[kind].partition(":")
    reader: Callable[..., Adapter] = getattr(import_module(module), function)
    more: dict[str, Any] = {} if companion is None else {"companion": Path(companion)}
    if more and "companion" not in signature(reader).parameters:
        raise ValueError(f"{kind} checkpoints are one file; {companion} cannot be used")
    adapter = reader(Path(path), **more)
    card: dict[str, Any] = {"converted from": f"{kind}: {Path(path).name}"}
    if (origin := adapter.config().get("origin")) is not None:
        card["origin"] = origin
    if report := getattr(adapter, "report", ()):
        card["read"] = list(report)
    return adapter.save(out, card=card)
