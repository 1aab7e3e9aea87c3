"""A configuration over several seeds, beside its baselines, as a table.

    python benchmarks/forecasting_table.py forecasting/tsdiff-vic_elec-cpu --seeds 0 1 2 --classical --deepar
    python benchmarks/forecasting_table.py forecasting/tsdiff-exchange_rate-cpu --root DATA --write table.md

Every seed trains and evaluates by the command line in processes of their own. `--classical` adds exponential smoothing
and the theta method (extra `classical`), `--deepar` GluonTS' DeepAR with its defaults, stopped once it has used as much
CPU time as the model of the same seed took to train, the start of that program included. What is finished is kept in a
JSON file in the folder of the runs: a second call only adds what is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

METRICS = ("crps", "nd", "mase", "coverage_0.1", "coverage_0.5", "coverage_0.9")


Row = dict[str, float]


def trained(
    config: str, seed: int, folder: Path, root: str | None, samples: int, extra: Sequence[str]
) -> dict[str, Any]:
    """Trains and evaluates one seed by the command line: metrics by method, protocol, CPU seconds of training."""
    run = folder / f"{Path(config).stem}-seed{seed}"
    data = ["--data.root", root] if root else []
    seconds = []
    for words in (
        ["fit", "--config", config, "--overwrite", "--seed_everything", str(seed), *extra],
        ["evaluate", "--num_samples", str(samples)],
    ):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "fourfold", "forecasting", *words, "--run", str(run), *data]
        subprocess.run(command, check=True, stdout=sys.stderr)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    stored = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["evaluate"]
    return {"metrics": stored["metrics"], "protocol": stored["protocol"], "seconds": seconds}


def dataset_of(config: str, root: str | None) -> Any:
    """The data set a shipped configuration names."""
    import yaml

    from fourfold.data.timeseries import load_dataset
    from fourfold.tasks.names import find

    name = yaml.safe_load(find(config).read_text(encoding="utf-8"))["data"]["name"]
    if name is None:
        raise SystemExit(f"{config} names no data set: a table needs one with a fixed split")
    return load_dataset(name, root)


def classical(data: Any, samples: int) -> dict[str, Row]:
    """Exponential smoothing and the theta method; a season longer than a week of hours is cut to its day."""
    from fourfold.modalities.timeseries.classical import exponential_smoothing, theta
    from fourfold.tasks.forecasting import score

    past, truth = [e["target"] for e in data.inputs()], data.truth()
    season = data.season if data.season <= 48 else data.season // 7
    return {
        f"{name} (statsmodels, season {season})": score(
            method(past, data.prediction_length, season, samples), truth, past, data.season
        )
        for name, method in (("ETS", exponential_smoothing), ("theta", theta))
    }


def train_deepar(data: Any, seconds: float, seed: int, **options: Any) -> Any:
    """GluonTS' DeepAR, trained on `data.train` for a given CPU time; returns its predictor."""
    import lightning.pytorch as pl
    import torch
    from gluonts.torch.model.deepar import DeepAREstimator

    begin = time.process_time()

    class Budget(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
            trainer.should_stop = time.process_time() - begin > seconds

    torch.set_num_threads(1)
    pl.seed_everything(seed, verbose=False)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}
    with tempfile.TemporaryDirectory() as folder:
        trainer = {"max_epochs": 10_000, "callbacks": [Budget()], "default_root_dir": folder, **quiet}
        horizon = data.prediction_length
        estimator = DeepAREstimator(freq=data.freq, prediction_length=horizon, trainer_kwargs=trainer, **options)
        return estimator.train(data.train)


def deepar(data: Any, seconds: float, seed: int, samples: int) -> Row:
    """Metrics of DeepAR with GluonTS' defaults."""
    from fourfold.tasks.forecasting import score

    predictor = train_deepar(data, seconds, seed)
    made = np.stack([f.samples for f in predictor.predict(data.inputs(), num_samples=samples)])
    return score(made, data.truth(), [e["target"] for e in data.inputs()], data.season)


def table(rows: dict[str, list[Row]]) -> str:
    """Means over seeds, with the standard deviation of the CRPS where there are several."""
    lines = ["| method | " + " | ".join(METRICS) + " |", "|---|" + "---|" * len(METRICS)]
    for method, seeds in rows.items():
        cells = []
        for metric in METRICS:
            values = [row[metric] for row in seeds if metric in row]
            cell = f"{np.mean(values):.4g}" if values else "-"
            cells.append(cell + (f" ± {np.std(values):.2g}" if metric == "crps" and len(values) > 1 else ""))
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


class Kept:
    """Results by key in a JSON file, written as soon as they are there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def get(self, key: str, make: Callable[[], Any]) -> Any:
        """The result under `key`, made if it is not there."""
        if key not in self.known:
            self.known[key] = make()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps(self.known, indent=1), encoding="utf-8")
        return self.known[key]


def main() -> None:
    """Prints the table, and writes it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="a shipped configuration; further options go to `forecasting fit`")
    parser.add_argument("--seeds", nargs="+", type=int, default=[42])
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--root", help="folder of data sets")
    parser.add_argument("--folder", type=Path, default=Path("runs/table"), help="where the runs go")
    parser.add_argument("--classical", action="store_true", help="add ETS and theta")
    parser.add_argument("--deepar", action="store_true", help="add DeepAR at equal CPU time")
    parser.add_argument("--write", type=Path, help="markdown file to write")
    options, extra = parser.parse_known_args()
    root, samples, seeds = options.root, options.samples, options.seeds
    kept = Kept(options.folder / f"{Path(options.config).stem}-{samples}.json")
    rows: dict[str, list[Row]] = {}
    runs = [
        kept.get(
            " ".join(("seed", str(seed), *extra)),
            lambda seed=seed: trained(options.config, seed, options.folder, root, samples, extra),
        )
        for seed in seeds
    ]
    for run in runs:
        for method, row in run["metrics"].items():
            rows.setdefault(method, []).append(row)
    seconds = float(np.mean([run["seconds"][0] for run in runs]))
    if options.classical or options.deepar:
        data = dataset_of(options.config, root)
        if options.classical:
            rows.update({k: [row] for k, row in kept.get("classical", lambda: classical(data, samples)).items()})
        if options.deepar:
            rows[f"DeepAR (GluonTS, {seconds:.0f} CPU-s)"] = [
                kept.get(
                    " ".join(("DeepAR", str(seed), *extra)),
                    lambda seed=seed, run=run: deepar(data, run["seconds"][0], seed, samples),
                )
                for seed, run in zip(seeds, runs, strict=True)
            ]
    told = (
        f"{runs[0]['protocol']}. Seeds {', '.join(map(str, seeds))}, {samples} samples; training {seconds:.0f} CPU-s, "
        "one thread."
    )
    text = f"## {options.config}\n\n{told}\n\n{table(rows)}\n"
    print(text)
    if options.write:
        options.write.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
