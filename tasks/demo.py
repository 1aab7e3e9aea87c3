"""`fourfold demo`: train on real data in front of the user, measure beside baselines, write one HTML report.

Each part trains one small model through the same command line a user would type, in a process of its own, and leaves a
section of the report as `section.json`; as many parts as there are processors run at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .errors import UserError
from .report import Figure, Section, Table, write_report

__all__ = ["main"]

_SECTION = "section.json"


def main(args: Sequence[str]) -> int:
    """Run the demo; returns the exit status."""
    parser = argparse.ArgumentParser(prog="fourfold demo", description=__doc__, allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder of the report (default: runs/demo)")
    parser.add_argument(
        "--short", action="store_true", help="a much shorter training: checks the machinery, not the quality"
    )
    parser.add_argument("--only", choices=PARTS, help="one part alone, without the report")
    options = parser.parse_args(list(args))
    if options.only:
        return _run_part(options.only, options.out, options.short)
    begin = time.perf_counter()
    with ThreadPoolExecutor(max_workers=min(len(PARTS), os.cpu_count() or 1)) as pool:
        failed = [
            name for name, status in zip(PARTS, pool.map(lambda n: _start(n, options), PARTS), strict=True) if status
        ]
    if failed:
        print(f"error: {', '.join(failed)} did not finish, see above")
        return 1
    minutes = (time.perf_counter() - begin) / 60
    report = write_report(
        options.out / "report.html",
        "fourfold: what was just trained",
        f"Trained, sampled and measured on this machine in {minutes:.1f} minutes."
        + (" Short mode: far too short a training for good numbers." if options.short else ""),
        [_read_section(options.out / name / _SECTION) for name in PARTS],
    )
    print(f"\nreport: {report} ({minutes:.1f} minutes)")
    return 0


def _start(name: str, options: argparse.Namespace) -> int:
    """Run one part in a process of its own; its lines are printed with its name in front."""
    command = [sys.executable, "-m", "fourfold", "demo", "--only", name, "--out", str(options.out)]
    with subprocess.Popen(
        command + ["--short"] * options.short,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        env={"OMP_NUM_THREADS": "1", **os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(f"{name + ':':13} {line}" if line.strip() else line, end="", flush=True)
    return process.returncode


def _run_part(name: str, out: Path, short: bool) -> int:
    folder = out / name
    try:
        section = PARTS[name](folder, short)
    except UserError as error:
        print(f"error: {error}")
        return 1
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _SECTION).write_text(json.dumps(asdict(section), default=str, indent=1), encoding="utf-8")
    return 0


def _read_section(path: Path) -> Section:
    stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    stored["tables"] = [Table(**table) for table in stored["tables"]]
    stored["figures"] = [Figure(Path(figure["path"]), figure["caption"]) for figure in stored["figures"]]
    return Section(**stored)


def forecasting(out: Path, short: bool) -> Section:
    """Probabilistic forecasts of hourly pedestrian counts."""
    from . import forecasting as task

    config, run = "forecasting/tsdiff-pedestrian-cpu", out
    print(f"training {config} on real hourly counts", flush=True)
    brief = ["--trainer.max_steps=40", "--trainer.limit_val_batches=1"] if short else []
    _command(task.main, ["fit", "--config", config, "--run", str(run), "--overwrite", *brief])
    print("guided forecasts of the test windows, beside the baselines", flush=True)
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
    print(verdict, flush=True)
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


def graphs(out: Path, short: bool) -> Section:
    """Graphs drawn by a joint diffusion of nodes and edges."""
    from . import graphs as task

    config = "graphs/gdss-ego_small-cpu"
    print(f"training {config} on drawn ego graphs", flush=True)
    brief = ["--trainer.max_steps=20", "--trainer.limit_val_batches=1"] if short else []
    _command(task.main, ["fit", "--config", config, "--run", str(out), "--overwrite", *brief])
    print("drawing graphs, and measuring them beside training graphs and Erdos-Renyi", flush=True)
    few = ["--num_samples=40", "--steps=5"] if short else ["--num_samples=200"]
    _command(task.main, ["evaluate", "--run", str(out), *few])
    result = json.loads((out / "metrics.json").read_text(encoding="utf-8"))["evaluate"]
    metrics: dict[str, dict[str, float]] = result["metrics"]
    names = ["degree emd", "clustering emd", "orbit emd", "average emd", "connected", "unique", "novel"]
    methods = list(metrics)
    ours, random = metrics[methods[0]]["average emd"], metrics[methods[-1]]["average emd"]
    verdict = f"Average MMD {ours:.4f}; {methods[-1]} graphs of the same sizes and densities: {random:.4f}."
    print(verdict, flush=True)
    print("communities, by the shipped weights of GDSS and of PARD", flush=True)
    beside, pictures = _communities(out / "communities", 5 if short else None)
    return Section(
        title="Graphs: neighbourhoods in a citation-like network",
        paragraphs=[
            "A graph transformer learnt to draw nodes and edges together. The floor is what training graphs score in "
            "the model's place: no model can be expected to be better.",
            "Beside it PARD, which builds a graph block by block, each block by a diffusion given the finished rest. "
            "The second table compares shipped weights of both on the same communities, by the same measures.",
            f"Protocol: {result['protocol']}; seed {result['seed']}.",
        ],
        verdict=verdict,
        tables=[
            Table(
                ["method", *names],
                [[method, *(metrics[method].get(name, "") for name in names)] for method in methods],
                "Squared maximum mean discrepancies (emd kernel); smaller is better.",
                0,
            ),
            beside,
        ],
        figures=[Figure(out / "samples.png", "Drawn graphs beside test graphs."), pictures],
        code=f"fourfold graphs fit --config {config}\nfourfold graphs evaluate --run {config.partition('/')[2]}\n"
        "fourfold graphs fit --config graphs/pard-community-cpu",
    )


def _communities(out: Path, steps: int | None) -> tuple[Table, Figure]:
    """Shipped GDSS and PARD weights on the same data and measures, as many graphs of each as are tested on."""
    from ..data.graphs import load_dataset
    from ..modalities.graphs.metrics.evaluation import evaluate_graphs
    from ..modalities.graphs.pictures import graph_grid, save_figure
    from ..modalities.graphs.records import GraphRecord
    from ..modalities.zoo import load

    # an empty folder: the set as it was drawn for the training, whatever lies in the user's
    data = load_dataset("community_small", out / "data")
    count = len(data.test)
    drawn: dict[str, list[GraphRecord]] = {}
    seconds: dict[str, float] = {}
    for name in ("gdss", "pard"):
        model: Any = load(f"{name}-community_small")
        begin = time.process_time()
        drawn[name] = model.sample_records(count, steps=steps, seed=0)
        seconds[name] = (time.process_time() - begin) / count
    judged = evaluate_graphs(drawn, data.train, data.test, kernel="emd", bootstrap=0)
    names = ["degree emd", "clustering emd", "orbit emd", "average emd", "connected", "unique", "novel"]
    table = Table(
        ["method", *names, "CPU-s per graph"],
        [
            [method, *(row.get(name, "") for name in names), seconds.get(method, "")]
            for method, row in judged.table.items()
        ],
        f"Communities of 12 to 20 nodes, {count} graphs of each model. {data.protocol}. {judged.protocol}.",
        min(range(len(drawn)), key=lambda k: judged.table[list(drawn)[k]]["average emd"]),
    )
    picture = save_figure(
        graph_grid({**{k: v[:8] for k, v in drawn.items()}, "test": data.test[:8]}), out / "communities.png"
    )
    return table, Figure(picture, "Communities drawn by the shipped weights of GDSS and PARD, and test graphs.")


def trajectories(out: Path, short: bool) -> Section:
    """Forecasts of balls on springs, with an animation."""
    from . import trajectories as task

    config = "trajectories/geotdm-springs-cpu"
    print(f"training {config}, for half as long, on simulated springs", flush=True)
    steps = 10 if short else 450
    brief = [f"--trainer.max_steps={steps}", f"--model.decay_steps={max(steps, 60)}"]
    _command(task.main, ["fit", "--config", config, "--run", str(out), "--overwrite", *brief])
    print("forecasting the test systems, beside the baselines", flush=True)
    few = ["--num_samples=1", "--steps=2"] if short else []
    _command(task.main, ["evaluate", "--run", str(out), *few])
    moving = ["animate", "--run", str(out), "--systems=2", "--out", str(out / "moving")]
    _command(task.main, [*moving, *(["--num_samples=2", "--steps=2"] if short else [])])
    result = json.loads((out / "metrics.json").read_text(encoding="utf-8"))["evaluate"]
    metrics: dict[str, dict[str, float]] = result["metrics"]
    methods = list(metrics)
    reference = min(methods[1:], key=lambda m: metrics[m]["average_ade"])
    best = min(range(len(methods)), key=lambda i: metrics[methods[i]]["average_ade"])
    verdict = (
        f"Average displacement error {metrics[methods[0]]['average_ade']:.4f}; "
        f"the best baseline ({reference}): {metrics[reference]['average_ade']:.4f}."
    )
    print(verdict, flush=True)
    names = ["average_ade", "average_fde", "min_ade", "min_fde"]
    return Section(
        title="Trajectories: five balls on springs",
        paragraphs=[
            "An equivariant network forecasts 20 frames from 10, in eight evaluations; turn the system and every "
            "forecast turns with it.",
            f"Protocol: {result['protocol']}; {result['num_samples']} samples per system, seed {result['seed']}.",
        ],
        verdict=verdict,
        tables=[
            Table(
                ["method", *names],
                [[method, *(metrics[method].get(name, "") for name in names)] for method in methods],
                "Mean distance over all frames (ade) and in the last (fde), averaged over samples or of the best one.",
                best,
            )
        ],
        figures=[
            Figure(path, "A test system: forecasts and what happened.")
            for path in sorted((out / "moving").glob("*.gif"))[:2]
        ],
        links=[("The same with a time slider, to be turned by mouse", str(out / "moving" / "forecasts.html"))],
        code=f"fourfold trajectories fit --config {config}\n"
        f"fourfold trajectories animate --run {config.partition('/')[2]}",
    )


def separation(out: Path, short: bool) -> Section:
    """Sounds separated by description, with a page to listen to them."""
    import torch

    from ..data.audio import SeparationDataModule, collate
    from ..modalities.audio.files import write_audio
    from . import separation as task
    from .separate import load_separators
    from .trainer import format_table

    name = "flowsep-vae-synthetic"
    data = SeparationDataModule(test_size=4 if short else 30)
    data.setup()
    print(f"{name} from the zoo, on mixtures it has never heard, beside its baselines", flush=True)
    with torch.no_grad():
        judge = task.SeparationTask(load_separators(name)[name]).eval()
        table = judge.measure(data, out, num_samples=data.test_size, steps=1 if short else None, seed=0)
    print(format_table({method: dict(row) for method, row in table.items()}), flush=True)
    # A recording of several windows: pairs one after the other, and one of their sounds.
    pairs = collate([data.test_mixtures()[i] for i in range(4)])
    recording = write_audio(out / "recording.wav", pairs.mixture.flatten(), data.sample_rate, force=True)
    query, page = pairs.queries[0], out / "recording.html"
    words = [str(recording), query, "-o", str(out / "separated.wav"), "--page", str(page), "--model", name, "--force"]
    _command(task.main, ["separate", *words, *(["--steps=1"] if short else [])])
    methods = list(table)
    ours, wrong = table[methods[0]], table[next(m for m in methods if m.endswith("wrong query"))]
    verdict = (
        f"SI-SDR improves by {ours['si_sdri']:.1f} dB in the mean; when the other sound is asked for, it falls by "
        f"{-wrong['si_sdri']:.1f} dB."
    )
    print(verdict, flush=True)
    columns = ["si_sdri", "si_sdri_median", "improved", "lsd", "cpu_s"]
    return Section(
        title="Separation: keep the sound you describe",
        paragraphs=[
            "A flow draws the wanted sound out of a mixture of two, told by a few words. The weights are those shipped "
            "with this version; nothing was trained here.",
            f"Protocol: {data.protocol}; {data.test_size} test pairs, seed 0.",
        ],
        verdict=verdict,
        tables=[
            Table(
                ["method", *columns],
                [[method, *(table[method].get(column, "") for column in columns)] for method in methods],
                "Improvement of the SI-SDR in dB (mean, median), share of pairs improved, log-spectral distance, CPU "
                "seconds per 2.56 s.",
                0,
            )
        ],
        figures=[Figure(out / "spectrograms.png", "Mixture, estimate, target and what is left.")],
        links=[
            ("Listen to these pairs", str(out / "listening.html")),
            (f"A longer recording, asked for: {query}", str(page)),
        ],
        code='fourfold separation separate recording.wav "a bell ringing" -o bell.wav --page bell.html\n'
        "fourfold separation fit --config separation/flowsep-synthetic-cpu",
    )


PARTS: dict[str, Callable[[Path, bool], Section]] = {
    "forecasting": forecasting,
    "graphs": graphs,
    "separation": separation,
    "trajectories": trajectories,
}


def _command(entry: Callable[[Sequence[str]], int], args: list[str]) -> None:
    status = entry(args)
    if status:
        raise UserError(f"the command `{' '.join(args)}` ended with status {status}")
