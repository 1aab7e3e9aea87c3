"""Helpers to start toy runs and to compare what they leave."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch

CONFIG = """\
trainer:
  max_steps: 60
  accelerator: cpu
model:
  adapter:
    class_path: ToyAdapter
    init_args:
      width: 8
"""


def write_config(folder: Path, text: str = CONFIG, name: str = "toy.yaml") -> str:
    """A configuration file; returns its path."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def digest(checkpoint: Path) -> dict[str, str]:
    """sha256 of weights, averaged weights, averaging state, optimiser and schedule in a training checkpoint."""
    content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    parts = ("state_dict", "current_model_state", "averaging_state", "optimizer_states", "lr_schedulers")
    return {part: _sha256(content[part]) for part in parts} | {"step": str(content["global_step"])}


def _sha256(value: Any) -> str:
    state = hashlib.sha256()

    def walk(item: Any, name: str) -> None:
        if isinstance(item, torch.Tensor):
            state.update(name.encode() + item.contiguous().numpy().tobytes())
        elif isinstance(item, dict):
            for key in sorted(item, key=str):
                walk(item[key], f"{name}.{key}")
        elif isinstance(item, list | tuple):
            for index, part in enumerate(item):
                walk(part, f"{name}.{index}")
        else:
            state.update(f"{name}={item!r}".encode())

    walk(value, "")
    return state.hexdigest()
