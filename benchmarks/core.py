r"""Error and overhead of our samplers beside azula's and diffusers' own, in one run (about four minutes on one core).

    pip install --no-deps -r benchmarks/requirements.txt
    OMP_NUM_THREADS=1 python benchmarks/core.py [--quick] [--write]

Protocol. Three targets with exact denoisers (core_targets.py): gauss16, ring2 and gmm16. Every sampler starts from
sigma_start times the same noise, 2000 trajectories, float32 states (denoisers compute in float64), on its own schedule
and from its own start: ours and azula's from sigma/alpha = 80 (azula's "own ends": 1000), diffusers' from 157 for VP
schedulers, 80 for EDM and (almost) infinity for flow ones. It stops at its own end: sigma/alpha = 0.002 for ours and
azula's, 0 (a last data prediction) for most of diffusers'. The error is the strong RMSE per coordinate of x/alpha
against the exact solution of the same probability-flow ODE from the same start to the same end: a float64 Runge-Kutta
reference of 1800 evaluations. A cell is a target and a budget of evaluations (5, 10, 20, 50, 100); a sampler with
several evaluations per step makes as many steps as fit. A configuration is judged by the geometric mean of its 15
cells. Errors on the mixtures are dominated by the few trajectories that end in another mode.

Overhead is the slope of process time between 10 and 50 evaluations with a denoiser of one multiplication, states of 64
and of [64, 64] floats, order 2, one thread, minimum of many repeats; setting up the sampler belongs to it. Stochastic
solvers are shown for information: our noise is a function of seed, sample and step, the peers' is one `randn`.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import torch

PEERS = ("azula", "diffusers")
BUDGETS = (5, 10, 20, 50, 100)


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare our samplers with azula's and diffusers'.")
    parser.add_argument("--quick", action="store_true", help="200 trajectories, 5 to 20 evaluations: a smoke test")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks-core.md and its picture")
    return parser.parse_args(arguments)


def _require_peers() -> None:
    for name in PEERS:
        try:
            import_module(name)
            import_module({"azula": "azula.sample", "diffusers": "diffusers.schedulers"}[name])
        except ImportError as error:
            raise SystemExit(
                f"benchmarks/core.py compares with {' and '.join(PEERS)}, and {name} cannot be imported ({error}).\n"
                "Install them with: pip install --no-deps -r benchmarks/requirements.txt"
            ) from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; the exit code is 1 if a bar is missed (never with --quick)."""
    options = _arguments(arguments)
    _require_peers()
    torch.set_num_threads(1)
    # peers warn about settings that are theirs
    warnings.filterwarnings("ignore", module="diffusers")

    import core_peers
    from core_overhead import overheads
    from core_report import Row, Study, print_report, write_page
    from core_targets import Reference, targets

    budgets = BUDGETS[:3] if options.quick else BUDGETS
    begin = time.perf_counter()
    references = []
    for target in targets():
        if target.check() > 1e-10:
            raise SystemExit(f"the fast denoiser of {target.name} differs from its oracle")
        references.append(Reference(target, target.noise(200 if options.quick else 2000)))

    rows: list[Row] = []
    with torch.no_grad():
        for configurations in (core_peers.ours, core_peers.azula, core_peers.diffusers):
            for configuration in configurations():
                errors = []
                for reference in references:
                    for budget in budgets:
                        run = configuration.run(reference.target.denoise, reference.noise, budget)
                        if run.evaluations > budget:
                            raise SystemExit(f"{configuration.name} made {run.evaluations} evaluations, not {budget}")
                        errors.append(reference.rmse(run.x, run.start, run.end))
                rows.append(Row(configuration.library, configuration.name, tuple(errors)))
                mean = rows[-1].mean if math.isfinite(rows[-1].mean) else math.inf
                print(f"{mean:9.5f}  {configuration.library:10} {configuration.name}", file=sys.stderr)
        precision = max(reference.self_error() for reference in references)
    study = Study(
        names=tuple(reference.target.name for reference in references),
        budgets=budgets,
        trajectories=len(references[0].noise),
        rows=tuple(sorted(rows, key=lambda row: row.mean if math.isfinite(row.mean) else math.inf)),
        overheads=tuple(overheads(10 if options.quick else 60)),
        precision=precision,
        default=core_peers.DEFAULT,
        best=core_peers.BEST,
        seconds=time.perf_counter() - begin,
    )
    met = print_report(study)
    if options.write:
        protocol = (__doc__ or "").partition("Protocol. ")[2].strip()
        write_page(study, protocol, Path(__file__).resolve().parents[1] / "docs")
    return 0 if met or options.quick else 1


if __name__ == "__main__":
    sys.exit(main())
