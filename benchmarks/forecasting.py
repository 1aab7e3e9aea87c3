"""Cost and quality of forecasting: training step, guided forecast, and CRPS beside the baselines.

    python benchmarks/forecasting.py                              # cost only, a minute
    python benchmarks/forecasting.py --quality pedestrian         # trains by the shipped configuration, then evaluates
    python benchmarks/forecasting.py --quality exchange_rate --root DATA --write docs/benchmarks-forecasting.md

CPU-seconds are process time of one thread; they do not depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import yaml

from fourfold.core import NoiseSource
from fourfold.modalities.timeseries import TSDiff
from fourfold.modalities.timeseries.components import GUIDANCES, SCALERS
from fourfold.tasks.names import find

CONFIGS = {"pedestrian": "forecasting/tsdiff-pedestrian-cpu", "exchange_rate": "forecasting/tsdiff-exchange_rate-cpu"}


def cpu_seconds(function: Callable[[], object], repeats: int) -> float:
    """Process time of one call, after a warm-up call."""
    function()
    begin = time.process_time()
    for _ in range(repeats):
        function()
    return (time.process_time() - begin) / repeats


def cost(name: str) -> dict[str, str]:
    """Cost of the model of a shipped configuration."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    arguments = yaml.safe_load(find(CONFIGS[name]).read_text(encoding="utf-8"))["model"]["adapter"]["init_args"]
    scaler, guidance = (arguments.pop(part)["class_path"].rpartition(".")[2] for part in ("scaler", "guidance"))
    scalers, guidances = ({kind.__name__: kind for kind in table.values()} for table in (SCALERS, GUIDANCES))
    arguments = {
        key: value for key, value in arguments.items() if not (isinstance(value, dict) and "class_path" in value)
    }
    model = TSDiff(**arguments, scaler=scalers[scaler](), guidance=guidances[guidance](1.0))
    optimizer = torch.optim.AdamW(model.parameters())
    target = torch.randn(64, model.length, dtype=torch.float64).cumsum(1)
    batch = {"target": target, "level": target.abs().mean(1)}
    if model.calendar:
        batch["covariates"] = torch.randn(64, model.length, 6 * len(model.calendar))

    def step() -> None:
        optimizer.zero_grad()
        model.loss(batch, NoiseSource(0, range(64))).mean().backward()
        optimizer.step()

    import pandas as pd

    entry = {"target": target[0].numpy(), "start": pd.Period("2024-01-01", freq="h"), "item_id": "a"}
    row = {"configuration": CONFIGS[name], "parameters": f"{sum(p.numel() for p in model.parameters()):,}"}
    row["training step, batch 64 (CPU-s)"] = f"{cpu_seconds(step, 10):.3f}"
    steps = model.sampling_steps
    row[f"guided forecast, 16 samples, {steps} steps (CPU-s)"] = (
        f"{cpu_seconds(lambda: model.forecast([entry], 16), 3):.2f}"
    )
    row["guided forecast, 16 samples, 100 steps (CPU-s)"] = (
        f"{cpu_seconds(lambda: model.forecast([entry], 16, steps=100), 2):.2f}"
    )
    return row


def quality(name: str, root: str | None, folder: Path) -> tuple[dict[str, dict[str, float]], dict[str, object]]:
    """Trains and evaluates by the command line, in processes of their own; returns the table and the facts around
    it."""
    run = folder / name
    data = ["--data.root", root] if root else []
    seconds = []
    for words in (["fit", "--config", CONFIGS[name], "--overwrite"], ["evaluate"]):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "fourfold", "forecasting", *words, "--run", str(run), *data]
        subprocess.run(command, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    stored = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["evaluate"]
    facts = {key: stored[key] for key in ("protocol", "num_samples", "seed")}
    return stored["metrics"], {**facts, "training CPU-s": round(seconds[0]), "evaluation CPU-s": round(seconds[1])}


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
    """Prints the tables, and writes them where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quality", nargs="*", choices=sorted(CONFIGS), default=[], help="train and evaluate these")
    parser.add_argument("--root", help="folder of data sets")
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmark"), help="where the runs go")
    parser.add_argument("--write", type=Path, help="markdown file to write")
    options = parser.parse_args()
    parts = [
        "# Forecasting: cost and quality",
        f"Machine: {machine()}.",
        "## Cost",
        markdown([cost(name) for name in CONFIGS]),
    ]
    for name in options.quality:
        table, facts = quality(name, options.root, options.folder)
        rows = [{"method": method, **{k: f"{v:.4g}" for k, v in row.items()}} for method, row in table.items()]
        told = "; ".join(f"{key}: {value}" for key, value in facts.items())
        parts += [f"## {name}", told + ".", markdown(rows)]
    text = "\n\n".join(parts) + "\n"
    print(text)
    if options.write:
        options.write.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
