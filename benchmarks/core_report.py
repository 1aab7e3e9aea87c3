"""Tables, verdicts and the picture of the core benchmark."""

from __future__ import annotations

import datetime
import math
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from core_overhead import Overhead

__all__ = ["Row", "Study", "print_report", "write_page"]

FACTOR = 3.0
"""Our overhead has to be this many times smaller than that of each peer's cheapest solver of order 2."""

_SHOWN = 8  # rows per library in the short table
_MARKS = {True: "met", False: "MISSED", None: "note"}


@dataclass(frozen=True)
class Row:
    """Errors of a configuration, targets outside, budgets inside."""

    library: str
    name: str
    errors: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Geometric mean over all cells."""
        return _geometric_mean(self.errors)

    def at(self, budget: int, budgets: Sequence[int]) -> float:
        """Geometric mean over the targets at one budget."""
        return _geometric_mean(self.errors[budgets.index(budget) :: len(budgets)])


@dataclass(frozen=True)
class Study:
    """Everything that was measured; ``rows`` are ranked."""

    names: tuple[str, ...]
    budgets: tuple[int, ...]
    trajectories: int
    rows: tuple[Row, ...]
    overheads: tuple[Overhead, ...]
    precision: float
    default: str
    best: str
    seconds: float

    def row(self, name: str, library: str = "fourfold") -> Row:
        return next(row for row in self.rows if (row.library, row.name) == (library, name))

    def leader(self, library: str) -> Row:
        """The best configuration of a library."""
        return next(row for row in self.rows if row.library == library)

    @property
    def peer(self) -> Row:
        """The best configuration of all peers."""
        return next(row for row in self.rows if row.library != "fourfold")


def _geometric_mean(values: Iterable[float]) -> float:
    values = list(values)
    if not all(v > 0 for v in values):  # also false for nan
        return math.nan
    return math.exp(sum(map(math.log, values)) / len(values))


def _number(value: float) -> str:
    if value < 1e-3:
        return f"{value:.1e}"
    return f"{value:.4f}" if value < 10 else f"{value:.1f}"


# ------------------------------------------------------------------------------------------------------------- verdicts


def verdicts(study: Study) -> list[tuple[bool | None, str]]:
    """(met, sentence) for each bar; met is None for remarks."""
    best, default, peer = study.row(study.best), study.row(study.default), study.peer
    ahead = f"{peer.mean:.5f} of {peer.library}'s `{peer.name}`, the best of {_peer_count(study)} peer configurations"
    result: list[tuple[bool | None, str]] = [(best.mean < peer.mean, f"error: `{best.name}` {best.mean:.5f}, {ahead}")]
    result.append((None, f"the default `{default.name}`: {default.mean:.5f}"))
    measured = [o for o in study.overheads if not o.stochastic]
    ours = max((o for o in measured if o.library == "fourfold"), key=lambda o: sum(o.microseconds))
    for library in sorted({o.library for o in measured} - {"fourfold"}):
        cheapest = [min(v) for v in zip(*(o.microseconds for o in measured if o.library == library), strict=True)]
        ratios = [theirs / own for theirs, own in zip(cheapest, ours.microseconds, strict=True)]
        sizes = " and ".join(f"{ratio:.1f}" for ratio in ratios)
        sentence = f"overhead: `{ours.name}`, our dearest, {sizes} times below {library}'s cheapest"
        result.append((min(ratios) >= FACTOR, sentence))
    return result


def _peer_count(study: Study) -> int:
    return sum(row.library != "fourfold" for row in study.rows)


# --------------------------------------------------------------------------------------------------------------- tables


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join("---" if i < 2 else "---:" for i in range(len(head))) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def _short(study: Study) -> list[Row]:
    named = {("fourfold", study.default), ("fourfold", study.best)}
    usual = {("diffusers", "DPM++2M, karras"), ("diffusers", "DDIM"), ("azula", "Heun, Karras")}
    leaders = {
        (row.library, row.name)
        for library in ("fourfold", "azula", "diffusers")
        for row in [row for row in study.rows if row.library == library][:_SHOWN]
    }
    return [row for row in study.rows if (row.library, row.name) in named | usual | leaders]


def _label(row: Row, study: Study) -> str:
    return f"**`{row.name}`**" if row.name in (study.default, study.best) else f"`{row.name}`"


def ranking_table(study: Study, rows: Sequence[Row]) -> str:
    """Geometric mean over all cells, and per budget."""
    head = ["library", "configuration", "all cells", *(f"{budget}" for budget in study.budgets)]
    return _table(
        head,
        (
            [
                row.library,
                _label(row, study),
                f"{row.mean:.5f}",
                *(_number(row.at(b, study.budgets)) for b in study.budgets),
            ]
            for row in rows
        ),
    )


def cell_table(study: Study, rows: Sequence[Row]) -> str:
    """Every cell."""
    head = ["library", "configuration", *(f"{name} {budget}" for name in study.names for budget in study.budgets)]
    return _table(head, ([row.library, _label(row, study), *map(_number, row.errors)] for row in rows))


def overhead_table(study: Study) -> str:
    """Microseconds per evaluation."""
    head = ["library", "solver", "64 floats", "[64, 64] floats"]
    return _table(
        head,
        (
            [
                o.library,
                f"`{o.name}`" + (" (stochastic)" if o.stochastic else ""),
                *(f"{v:.0f}" for v in o.microseconds),
            ]
            for o in study.overheads
        ),
    )


def print_report(study: Study) -> bool:
    """Print everything; returns whether all bars are met."""
    print(f"\nStrong RMSE per coordinate, {study.trajectories} trajectories; columns: target and evaluations\n")
    print(cell_table(study, study.rows))
    print(
        f"\nGeometric mean over the {len(study.rows[0].errors)} cells, ranked; columns: per budget over the targets\n"
    )
    print(ranking_table(study, study.rows))
    print("\nOverhead in microseconds per evaluation, solvers of order 2\n")
    print(overhead_table(study))
    print(f"\n{_environment()}\nreference error {study.precision:.1e}, run time {study.seconds:.0f} s\n")
    checks = verdicts(study)
    for met, sentence in checks:
        print(f"{_MARKS[met]:8}{sentence}")
    return all(met is not False for met, _ in checks)


# ----------------------------------------------------------------------------------------------------------------- page


def _environment() -> str:
    model = platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "azula", "diffusers"))
    day = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    return f"{model} ({os.cpu_count()} cores, 1 thread used), Python {platform.python_version()}, {packages}, {day}"


def write_page(study: Study, protocol: str, docs: Path) -> None:
    """Write docs/benchmarks-core.md and docs/images/core-error.png."""
    picture = docs / "images" / "core-error.png"
    picture.parent.mkdir(exist_ok=True)
    draw(study, picture)
    checks = "\n".join(f"- {_MARKS[met]}: {sentence}" for met, sentence in verdicts(study))
    page = f"""# Benchmark of the core

Written by `benchmarks/core.py --write`; do not edit.
{_environment()}; {study.seconds:.0f} s.

![Error against evaluations](images/core-error.png)

{checks}

## Protocol

{protocol}

Changing the reference to twice as many steps moves it by {study.precision:.0e}.

## Ranking

Geometric mean of the strong RMSE: over all {len(study.rows[0].errors)} cells, and over the three targets at each
number of evaluations. The best {_SHOWN} configurations of each library and some well-known ones; bold: our default and
the configuration held against the peers.

{ranking_table(study, _short(study))}

## Overhead

Microseconds per evaluation, network excluded.

{overhead_table(study)}

## Every cell

<details>
<summary>All {len(study.rows)} configurations, ranked; columns: target and evaluations</summary>

{cell_table(study, study.rows)}

</details>
"""
    (docs / "benchmarks-core.md").write_text(page, encoding="utf-8")


def draw(study: Study, path: Path) -> None:
    """Error against evaluations for the leaders and the well-known."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter, NullLocator

    chosen = [
        (study.row(study.best), "#1a6f8a", 2.6, "-"),
        (study.row(study.default), "#57a6bd", 2.0, "-"),
        (study.leader("diffusers"), "#b5541c", 1.6, "-"),
        (study.leader("azula"), "#7a4fa3", 1.6, "-"),
        (study.row("DPM++2M, karras", "diffusers"), "#8a8a8a", 1.2, "-"),
        (study.row("DDIM", "diffusers"), "#8a8a8a", 1.2, "--"),
        (study.row("Heun, Karras", "azula"), "#8a8a8a", 1.2, ":"),
    ]
    figure, axes = plt.subplots(figsize=(7.6, 4.4), dpi=130, layout="constrained")
    for row, color, width, style in chosen:
        values = [row.at(budget, study.budgets) for budget in study.budgets]
        axes.plot(study.budgets, values, style, color=color, linewidth=width, marker="o", markersize=3 + width / 2)
    levels: list[float] = []
    for row, color, width, _ in sorted(chosen, key=lambda entry: entry[0].at(study.budgets[-1], study.budgets)):
        level = math.log10(row.at(study.budgets[-1], study.budgets))
        level = max(level, levels[-1] + 0.2) if levels else level  # keep the labels apart
        levels.append(level)
        axes.annotate(
            f"{row.library}  {row.name}",
            (study.budgets[-1], 10**level),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize=7.5,
            color=color,
            fontweight="bold" if width > 1.8 else "normal",
            annotation_clip=False,
        )
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="network evaluations",
        xlim=(study.budgets[0] * 0.93, study.budgets[-1] * 1.05),
    )
    axes.set_ylabel("end-point error")
    axes.set_title("Error against evaluations, geometric mean over three exact targets", loc="left", fontsize=10)
    axes.set_xticks(study.budgets, [str(budget) for budget in study.budgets])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, which="major", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    figure.savefig(path)
    plt.close(figure)
