"""How good guided forecasts are after how many network evaluations, and with how much of the context missing.

    python benchmarks/forecasting_sampling.py runs/exported pedestrian    # a folder that `forecasting export` wrote
    python benchmarks/forecasting_sampling.py runs/exported exchange_rate_nips --root DATA --entries 8 --missing

An evaluation is one forward and one backward pass. The published sampler makes 100 steps of two forward passes and one
backward pass: 300 passes against two per step here.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

import fourfold
from fourfold.core import Ancestral, Multistep
from fourfold.data.timeseries import load_dataset
from fourfold.modalities.timeseries import TSDiff
from fourfold.modalities.timeseries.masks import MISSING, hide
from fourfold.modalities.timeseries.metrics import crps

STEPPERS = {
    "stochastic, order 1 (default)": Multistep(order=1, eta=1.0, corrector=False, ddim_eta=True),
    "ancestral": Ancestral(),
    "deterministic, order 1": Multistep(order=1, coordinate="data", corrector=False),
    "deterministic, order 2": Multistep(),
}


def steps_table(
    model: TSDiff, entries: Sequence[Any], truth: Any, steps: Sequence[int], samples: int, names: Sequence[str]
) -> str:
    """CRPS by stepper and number of steps."""
    lines = ["| stepper | " + " | ".join(f"{n} steps" for n in steps) + " |", "|---|" + "---|" * len(steps)]
    for name in names:
        cells = []
        for count in steps:
            begin = time.process_time()
            made = np.stack([f.samples for f in model.forecast(entries, samples, steps=count, stepper=STEPPERS[name])])  # pyright: ignore
            seconds = (time.process_time() - begin) / len(entries)
            cells.append(f"{crps(made, truth):.4g} ({seconds:.2f} CPU-s)")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def missing_table(model: TSDiff, entries: Sequence[Any], truth: Any, samples: int) -> str:
    """CRPS of forecasts with half of the context missing, by pattern."""
    lines = ["| missing | CRPS |", "|---|---|"]
    for pattern in MISSING:
        rng = np.random.default_rng(0)
        context = model.context_length
        hidden = [{**e, "target": hide(e["target"], pattern, context // 2, context, rng)} for e in entries]
        made = np.stack([f.samples for f in model.forecast(hidden, samples)])  # pyright: ignore
        lines.append(f"| {pattern} | {crps(made, truth):.4g} |")
    return "\n".join(lines)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder or name of a trained model")
    parser.add_argument("data", help="name of its data set")
    parser.add_argument("--root", help="folder of data sets")
    parser.add_argument("--steps", nargs="+", type=int, default=[5, 10, 15, 25, 50, 100])
    parser.add_argument("--steppers", nargs="+", choices=list(STEPPERS), default=list(STEPPERS))
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--entries", type=int, help="only so many test entries, evenly spaced")
    parser.add_argument("--missing", action="store_true", help="also with missing values")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = fourfold.load(options.model)
    if not isinstance(model, TSDiff):
        raise SystemExit(f"{options.model} holds a {type(model).__name__}, not a TSDiff")
    data = load_dataset(options.data, options.root)
    entries, truth = data.inputs(), data.truth()
    if options.entries:
        chosen = np.linspace(0, len(entries) - 1, options.entries).round().astype(int)
        entries, truth = [entries[i] for i in chosen], truth[chosen]
    print(f"{data.protocol}; {len(entries)} forecasts of {options.samples} samples\n")
    print(steps_table(model, entries, truth, options.steps, options.samples, options.steppers))
    if options.missing:
        print("\n" + missing_table(model, entries, truth, options.samples))


if __name__ == "__main__":
    main()
