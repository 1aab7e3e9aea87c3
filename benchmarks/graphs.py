"""The published GDSS networks: cost of an evaluation, and quality against the number of evaluations.

    python benchmarks/graphs.py                                  # cost per graph, seconds
    python benchmarks/graphs.py --quality community_small qm9    # quality of both samplers, minutes
    python benchmarks/graphs.py --quality qm9 --evaluations 200 20 --samples 64 --write docs/benchmarks-graphs.md

Needs the published files in FOURFOLD_SHARED/checkpoints/gdss (default ../shared) and the data in FOURFOLD_SHARED/data.
CPU-seconds are process time of one thread. Graph MMDs are means over random subsets of the size of the test set, with
their standard deviation over subsets; a set evaluated at once has a lower MMD.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import sys
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from fourfold.data.graphs.catalog import load_dataset
from fourfold.modalities.graphs import GraphRecord
from fourfold.modalities.graphs.metrics import (
    describe,
    fcd_available,
    is_connected,
    judge,
    kernels,
    molecules_of,
    nspdk_mmd,
)
from fourfold.modalities.graphs.metrics.fcd import chemnet_activations, frechet_distance
from fourfold.modalities.graphs.molecules import Alphabet
from fourfold.modalities.graphs.reference_checkpoints import convert_gdss
from fourfold.modalities.graphs.reference_fewsteps import FewSteps
from fourfold.modalities.graphs.reference_gdss import ReferenceGDSS

SHARED = Path(os.environ.get("FOURFOLD_SHARED", Path(__file__).resolve().parents[1].parent / "shared"))
MODELS = ("community_small", "ego_small", "qm9", "zinc250k_v2")
STATISTICS = ("degree", "clustering", "orbit")
# CPU-seconds per graph of the authors' code at 2000 evaluations of both networks (ego: 1000), one thread, where known
OFFICIAL = {"community_small": 4.9, "ego_small": 2.1, "qm9": 0.59}


def load(name: str) -> ReferenceGDSS:
    """A published model."""
    return convert_gdss(SHARED / "checkpoints" / "gdss" / f"gdss_{name}.pth")


def cost(name: str, samples: int, steps: int) -> dict[str, str]:
    """CPU-seconds per graph, extrapolated from a short run of the published sampler."""
    model = load(name)
    sizes = None if model.node_counts else 23  # the mean of ZINC250k
    model.sample_states(samples, steps=2, num_nodes=sizes)
    begin = time.process_time()
    model.sample_states(samples, steps=steps, num_nodes=sizes)
    seconds = (time.process_time() - begin) / samples / steps * model.steps
    evaluations = model.sampler().evaluations(model.steps)
    official = OFFICIAL.get(name)
    return {
        "model": name,
        "evaluations": str(evaluations),
        "CPU-s per graph": f"{seconds:.3f}",
        "ms per evaluation": f"{1000 * seconds / evaluations:.3f}",
        "authors' code": "" if official is None else f"{official}",
        "factor": "" if official is None else f"{official / seconds:.1f}",
    }


def graph_quality(records: Sequence[GraphRecord], test: Sequence[GraphRecord]) -> dict[str, str]:
    """Degree, clustering and orbit MMD (EMD kernels) of random subsets of the size of the test set."""
    rng = np.random.default_rng(0)
    size = min(len(test), len(records))
    subsets = [rng.choice(len(records), size, replace=False) for _ in range(200)]
    values = {}
    for statistic in STATISTICS:
        k = kernels(describe(records, statistic), describe(test, statistic), statistic, "emd")
        reference = k.reference.mean()
        values[statistic] = np.array(
            [k.generated[np.ix_(i, i)].mean() + reference - 2 * k.cross[i].mean() for i in subsets]
        )
    values["average"] = np.mean([values[statistic] for statistic in STATISTICS], axis=0)
    row = {name: f"{v.mean():.3f} ± {v.std():.3f}" for name, v in values.items()}
    row["connected"] = f"{np.mean([is_connected(record) for record in records]):.0%}"
    return row


def molecule_quality(records: Sequence[GraphRecord], atoms: Sequence[str], test: Sequence[str]) -> dict[str, str]:
    """Validity without correction, uniqueness, and where there are test molecules FCD and NSPDK, of corrected ones."""
    judged = judge(records, Alphabet(tuple((symbol, 0) for symbol in atoms)))
    shares = judged.shares(())
    row = {name: f"{100 * shares[name].value:.1f} %" for name in ("validity", "strict validity", "uniqueness")}
    if not test:
        return row
    if fcd_available():
        reference = chemnet_activations_of(tuple(test))
        row["FCD"] = f"{frechet_distance(chemnet_activations(judged.smiles), reference):.2f}"
    row["NSPDK"] = f"{nspdk_mmd(judged.molecules[:400], molecules_of(list(test[:400]))):.4f}"
    return row


@cache
def chemnet_activations_of(smiles: tuple[str, ...]) -> np.ndarray:
    """Activations of the test set, computed once."""
    return chemnet_activations(smiles)


@cache
def qm9_test(count: int = 2000) -> list[str]:
    """Random test molecules of the published split."""
    folder = SHARED / "data" / "graphs"
    ids = {int(i) for i in json.loads((folder / "valid_idx_qm9.json").read_text())["valid_idxs"]}
    with gzip.open(folder / "qm9_smiles.csv.gz", "rt") as file:
        smiles = [row["smiles"] for row in csv.DictReader(file) if int(row["index"]) - 1 in ids]
    return [smiles[i] for i in np.random.default_rng(1).choice(len(smiles), count, replace=False)]


def quality(name: str, samples: int, evaluations: Sequence[int], seed: int) -> list[dict[str, str]]:
    """One row per sampler and number of evaluations of both networks."""
    model = load(name)
    per_step = model.sampler().evaluations(1)
    sizes = None if model.node_counts else 23
    rows = []
    for count in evaluations:
        few = FewSteps.like(
            float(model._sampler["snr"]) if per_step > 1 else 0.0,
            float(model._sampler["scale_eps"]),
            (count - 1) // per_step,
            model.steps,
        )
        choices = {"published": "published", "few-steps": few}
        for solver in choices if count < per_step * model.steps else ["published"]:
            begin = time.process_time()
            records = model.sample_records(
                samples, steps=count // per_step, seed=seed, solver=choices[solver], batch_size=256, num_nodes=sizes
            )
            seconds = (time.process_time() - begin) / samples
            row = {"model": name, "sampler": solver, "evaluations": str(count), "CPU-s per graph": f"{seconds:.4f}"}
            if model.atoms is None:
                row |= graph_quality(records, load_dataset(name, root=SHARED / "data").test)
            else:
                row |= molecule_quality(records, model.atoms, qm9_test() if name == "qm9" else ())
            print(row, file=sys.stderr, flush=True)
            rows.append(row)
    return rows


def markdown(rows: Sequence[dict[str, str]]) -> str:
    """A markdown table; the columns are the keys of all rows."""
    names = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(row.get(name, "") for name in names) + " |" for row in rows]
    return "\n".join(lines)


def main() -> None:
    """Prints the tables, and writes them where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quality", nargs="*", choices=MODELS, default=[], help="sample and evaluate these")
    parser.add_argument("--evaluations", nargs="+", type=int, default=[200, 100, 50, 20], help="of both networks")
    parser.add_argument("--samples", type=int, default=256, help="graphs per row")
    parser.add_argument("--seed", type=int, default=0, help="of the samples")
    parser.add_argument("--no-cost", action="store_true", help="leave out the table of costs")
    parser.add_argument("--write", type=Path, help="file for the tables")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tables = []
    if not arguments.no_cost:
        tables.append(markdown([cost(name, 64 if "zinc" in name else 256, 10) for name in MODELS]))
    for name in arguments.quality:
        tables.append(markdown(quality(name, arguments.samples, arguments.evaluations, arguments.seed)))
    text = "\n\n".join(tables) + "\n"
    print(text)
    if arguments.write:
        arguments.write.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
