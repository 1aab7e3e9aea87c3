"""What forecasting costs: a training step and a guided forecast of the shipped configurations, on one thread.

    python benchmarks/forecasting.py                  # three minutes
    python benchmarks/forecasting.py --configs forecasting/tsdiff-vic_elec-cpu --write table.md

CPU seconds are process time of one thread; they depend little on what else the machine does. Accuracy beside baselines:
`forecasting_table.py`; accuracy by the number of evaluations: `forecasting_sampling.py`.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pandas as pd
import torch
import yaml
from jsonargparse import ArgumentParser

from fourfold.core import NoiseSource
from fourfold.modalities.timeseries import Forecaster
from fourfold.tasks.cli import allow_imports
from fourfold.tasks.forecasting import ForecastingTask
from fourfold.tasks.names import find

CONFIGS = (
    "forecasting/tsdiff-exchange_rate-cpu",
    "forecasting/tsdiff-m4_hourly-cpu",
    "forecasting/tsdiff-pedestrian-cpu",
    "forecasting/tsdiff-vic_elec-cpu",
    "forecasting/tsdiff-reference-exchange_rate",
)


def cpu_seconds(function: Callable[[], object], repeats: int) -> float:
    """Process time of one call, after a warm-up call."""
    function()
    begin = time.process_time()
    for _ in range(repeats):
        function()
    return (time.process_time() - begin) / repeats


def built(name: str) -> Forecaster:
    """The untrained model of a shipped configuration."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(ForecastingTask, "model")
    settings = yaml.safe_load(find(name).read_text(encoding="utf-8"))["model"]
    return parser.instantiate_classes(parser.parse_object({"model": settings})).model.model()


def cost(name: str) -> dict[str, str]:
    """Cost of the model of a shipped configuration."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = built(name)
    length = model.lookback + model.context_length + model.prediction_length
    optimizer = torch.optim.AdamW(model.parameters())
    target = 50 + torch.randn(64, length, dtype=torch.float64).cumsum(1)
    batch = {"target": target, "level": target.abs().mean(1)}
    if model.calendar:
        batch["covariates"] = torch.randn(64, length, 6 * len(model.calendar))

    def step() -> None:
        optimizer.zero_grad()
        model.loss(batch, NoiseSource(0, range(64))).mean().backward()
        optimizer.step()

    entry = {"target": target[0].numpy(), "start": pd.Period("2024-01-01", freq="h"), "item_id": "a"}
    row = {"configuration": name, "parameters": f"{sum(p.numel() for p in model.parameters()):,}"}
    row["training step, batch 64 (CPU-s)"] = f"{cpu_seconds(step, 8):.3f}"
    for steps in (25, 100):
        seconds = cpu_seconds(lambda steps=steps: model.forecast([entry], 16, steps=steps), 1)
        row[f"forecast, 16 samples, {steps} steps (CPU-s)"] = f"{seconds:.2f}"
    return row


def markdown(rows: Sequence[dict[str, str]]) -> str:
    """A markdown table; the columns are the keys of all rows."""
    names = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(row.get(name, "") for name in names) + " |" for row in rows]
    return "\n".join(lines)


def machine() -> str:
    """The machine in words."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}, one thread"


def main() -> None:
    """Prints the table, and writes it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", nargs="+", default=CONFIGS, help="shipped configurations")
    parser.add_argument("--write", type=Path, help="markdown file to write")
    options = parser.parse_args()
    allow_imports(classes={ForecastingTask})
    text = f"Machine: {machine()}.\n\n" + markdown([cost(name) for name in options.configs]) + "\n"
    print(text)
    if options.write:
        options.write.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
