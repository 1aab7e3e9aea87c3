"""The names of shipped configurations: `TASK/SYSTEM-DATASET` for configs/TASK/SYSTEM-DATASET.yaml."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def shipped() -> list[str]:
    """Names of all shipped configurations."""
    return sorted(path.relative_to(CONFIGS).with_suffix("").as_posix() for path in CONFIGS.rglob("*.yaml"))


def describe(name: str) -> str:
    """The first comment line of a shipped configuration, which says what it is."""
    with open(CONFIGS / f"{name}.yaml", encoding="utf-8") as file:
        first = file.readline().strip()
    return first.lstrip("# ") if first.startswith("#") else ""


def find(name_or_path: str) -> Path:
    """The file of a path or of a shipped name (a file of the working folder comes first).

    Raises:
        FileNotFoundError: Neither; the message suggests the nearest names.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path.resolve()
    named = CONFIGS / f"{name_or_path.removesuffix('.yaml')}.yaml"
    if named.is_file() and named.resolve().is_relative_to(CONFIGS):
        return named
    near = get_close_matches(name_or_path, shipped(), n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(near)}? " if near else ""
    raise FileNotFoundError(f"no configuration {name_or_path!r}, neither file nor name; {hint}see: fourfold configs")
