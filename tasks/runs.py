"""Where a run lives.

runs/TASK/NAME/
    config.yaml  config.resume-1.yaml ...   environment.json
    metrics.csv  metrics.json  events.*
    checkpoints/last.ckpt  checkpoints/best.ckpt
    samples/*.png
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class RunFolder:
    """The names of the files of a run; nothing is created by asking for them."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def last(self) -> Path:
        return self.checkpoints / "last.ckpt"

    @property
    def best(self) -> Path:
        return self.checkpoints / "best.ckpt"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def metrics_csv(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def metrics_json(self) -> Path:
        return self.path / "metrics.json"

    def beginning(self) -> list[Path]:
        """Files that a training writes before its first step, as far as they are there."""
        described = (self.config, self.path / "hparams.yaml", self.environment, self.metrics_csv, self.metrics_json)
        found = [path for path in (*described, self.path / ".lock") if path.exists()]
        return [*found, *self.path.glob("events.out.*")]

    def used(self) -> bool:
        """Whether a training has already been started here."""
        return self.config.exists() or self.last.exists() or self.best.exists()

    def record(self, section: str, values: dict[str, Any]) -> None:
        """Set one section ("fit", "evaluate", ...) of metrics.json, leaving the others."""
        known: dict[str, Any] = {}
        if self.metrics_json.exists():
            try:
                known = json.loads(self.metrics_json.read_text(encoding="utf-8"))
            except ValueError:
                known = {}
        write_json(self.metrics_json, {**known, section: values})


def run_folder(task: str, name_or_path: str) -> RunFolder:
    """A bare name means runs/TASK/NAME, anything with a separator is a path."""
    path = Path(name_or_path)
    bare = path.name == name_or_path and name_or_path not in (".", "..")
    return RunFolder(Path("runs") / task / name_or_path if bare and not path.is_dir() else path)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file all or nothing; numbers that are not finite, which JSON does not have, become null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{os.getpid()}.part")
    try:
        temporary.write_text(json.dumps(_finite(value), indent=2, allow_nan=False) + "\n", encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
