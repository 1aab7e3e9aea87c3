"""`fourfold demo`: train on real data in front of the user, measure beside baselines, write one HTML report.

Each part trains one small model through the same command line a user would type, and returns a section of the report.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from .errors import UserError
from .report import Figure, Section, Table, write_report

__all__ = ["main"]


def main(args: Sequence[str]) -> int:
    """Run the demo; returns the exit status."""
    parser = argparse.ArgumentParser(prog="fourfold demo", description=__doc__, allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder of the report (default: runs/demo)")
    parser.add_argument(
        "--short", action="store_true", help="a much shorter training: checks the machinery, not the quality"
    )
    options = parser.parse_args(list(args))
    begin = time.perf_counter()
    try:
        sections = [part(options.out, options.short) for part in PARTS.values()]
    except UserError as error:
        print(f"error: {error}")
        return 1
    minutes = (time.perf_counter() - begin) / 60
    report = write_report(
        options.out / "report.html",
        "fourfold: what was just trained",
        f"Trained, sampled and measured on this machine in {minutes:.1f} minutes."
        + (" Short mode: far too short a training for good numbers." if options.short else ""),
        sections,
    )
    print(f"\nreport: {report} ({minutes:.1f} minutes)")
    return 0


def forecasting(out: Path, short: bool) -> Section:
    """Probabilistic forecasts of hourly pedestrian counts."""
    from . import forecasting as task

    config, run = "forecasting/tsdiff-pedestrian-cpu", out / "forecasting"
    print(f"forecasting: training {config} on real hourly counts", flush=True)
    brief = ["--trainer.max_steps=40", "--trainer.limit_val_batches=1"] if short else []
    _command(task.main, ["fit", "--config", config, "--run", str(run), "--overwrite", *brief])
    print("forecasting: guided forecasts of the test windows, beside the baselines", flush=True)
    few = ["--num_samples=8"] if short else []
    _command(task.main, ["evaluate", "--run", str(run), *few])
    result = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["evaluate"]
    metrics: dict[str, dict[str, float]] = result["metrics"]
    names = list(dict.fromkeys(name for row in metrics.values() for name in row))
    methods = list(metrics)
    model, reference = methods[0], min(methods[1:], key=lambda m: metrics[m]["crps"])
    ratio = metrics[model]["crps"] / metrics[reference]["crps"]
    best = min(range(len(methods)), key=lambda i: metrics[methods[i]]["crps"])
    verdict = (
        f"CRPS {metrics[model]['crps']:.4f}, {abs(1 - ratio):.0%} {'below' if ratio < 1 else 'above'} the best "
        f"baseline ({reference}, {metrics[reference]['crps']:.4f})."
    )
    print(f"forecasting: {verdict}", flush=True)
    return Section(
        title="Forecasting: hourly pedestrian counts in Melbourne",
        paragraphs=[
            "A diffusion model learnt what windows of the series look like, without being told what to forecast. "
            "Forecasts come from self-guidance: sampling is steered, by the gradient of a quantile loss, towards "
            "windows that agree with the observed past.",
            f"Protocol: {result['protocol']}; {result['num_samples']} samples per forecast, seed {result['seed']}.",
        ],
        verdict=verdict,
        tables=[
            Table(
                ["method", *names],
                [[method, *(metrics[method].get(name, "") for name in names)] for method in methods],
                "CRPS is the mean weighted quantile loss over the levels 0.1 to 0.9; smaller is better.",
                best,
            )
        ],
        figures=[
            Figure(path, "Forecasts of test windows: median, 50 % and 90 % bands, and what happened.")
            for path in sorted(run.glob("forecasts*.png"))
        ],
        code=f"fourfold forecasting fit --config {config}\n"
        f"fourfold forecasting evaluate --run {config.partition('/')[2]}",
    )


PARTS: dict[str, Callable[[Path, bool], Section]] = {"forecasting": forecasting}


def _command(entry: Callable[[Sequence[str]], int], args: list[str]) -> None:
    status = entry(args)
    if status:
        raise UserError(f"`fourfold forecasting {' '.join(args)}` ended with status {status}")
