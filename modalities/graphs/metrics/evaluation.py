"""All measures of a set of graphs or molecules at once, beside what they must be compared with.

Every number stands next to two others: the *floor*, what training data score in the model's place (no model can be
expected to do better, and on small test sets it is far from zero), and a *baseline* that knows nothing but sizes and
counts. The protocol says how it was measured; numbers of different protocols cannot be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..molecules import Alphabet, canonical_smiles, learn_alphabet
from ..records import GraphRecord, as_record
from .baselines import erdos_renyi_like, shuffled_like
from .descriptors import DESCRIPTORS, describe
from .fcd import chemnet_activations, fcd_available, frechet_distance, frechet_interval
from .intervals import Interval
from .mmd import Kernels, average, kernels
from .molecules import judge, molecules_of, smiles_set
from .nspdk import mmd_of_features, nspdk_features, nspdk_interval
from .vun import VALIDITY, is_connected, vun

if TYPE_CHECKING:
    import networkx as nx
    from rdkit.Chem import Mol

    Graphs = Sequence[GraphRecord | nx.Graph]
    Molecules = Sequence[Mol | str | GraphRecord | None]
else:
    Graphs = Molecules = Sequence[Any]

FLOOR = "train sample (floor)"
ERDOS_RENYI = "Erdos-Renyi"
SHUFFLED = "shuffled atoms and bonds"
_FCD_RESAMPLES = 20


@dataclass(frozen=True)
class Evaluation:
    """Measures of one or more sets.

    Args:
        table: method -> metric -> value, in the order of a report.
        protocol: How it was measured.
        intervals: method -> metric -> interval, where one is known.
    """

    table: dict[str, dict[str, float]]
    protocol: str
    intervals: dict[str, dict[str, Interval]] = field(default_factory=dict)

    def __str__(self) -> str:
        metrics = list(next(iter(self.table.values())))
        width = max(len(method) for method in self.table)
        lines = [" " * width + "".join(f"{metric:>17}" for metric in metrics)]
        for method, row in self.table.items():
            lines.append(f"{method:<{width}}" + "".join(f"{row.get(metric, np.nan):17.4f}" for metric in metrics))
        return "\n".join([*lines, self.protocol])


def evaluate_graphs(
    generated: Graphs | Mapping[str, Graphs],
    train: Graphs,
    test: Graphs,
    *,
    kernel: str | Sequence[str] = ("emd", "tv"),
    validity: str | Callable[[GraphRecord], bool] | None = None,
    floor_repeats: int = 20,
    bootstrap: int = 200,
    seed: int = 0,
) -> Evaluation:
    """MMDs, connectedness, uniqueness and novelty of generated graphs, with floor and Erdos-Renyi baseline.

    As published, the first |test| generated graphs are compared with the test set; if more were generated, a second
    row uses them all. Metrics are named "degree emd", "clustering emd", "orbit emd", "average emd", "spectral emd" and
    the same with "tv", then "connected", "unique", "novel" and, with `validity`, "valid" and "vun", and the mean
    numbers of "nodes" and "edges".

    Args:
        generated: Graphs, or several methods' graphs by name.
        train: Training graphs (floor, baseline and novelty).
        test: Test graphs.
        kernel: "emd", "tv" or both.
        validity: "planar", "tree", "lobster", "sbm", "connected" or a function of a record.
        floor_repeats: Random samples of |test| training graphs; the floor is their mean, its interval their spread.
            So many Erdos-Renyi sets are averaged, too.
        bootstrap: Resamples behind the intervals of the MMDs; 0 for none.
        seed: Of samples, baseline and resamples.

    Raises:
        ValueError: An empty set, unknown names, graphs that are not simple and undirected.
    """
    methods = generated if isinstance(generated, Mapping) else {"generated": generated}
    names = (kernel,) if isinstance(kernel, str) else tuple(kernel)
    learnt, judged_on = [as_record(g) for g in train], [as_record(g) for g in test]
    if not learnt or not judged_on or not methods or not all(len(graphs) for graphs in methods.values()):
        raise ValueError("an evaluation needs generated, training and test graphs")
    count = len(judged_on)
    judge_of = _GraphJudge(judged_on, learnt, names, validity)

    table: dict[str, dict[str, float]] = {}
    intervals: dict[str, dict[str, Interval]] = {}
    for method, graphs in methods.items():
        records = [as_record(g) for g in graphs]
        parts = {method: records[:count]}
        if len(records) > count:
            parts[f"{method} (all {len(records)})"] = records
        for part, chosen in parts.items():
            matrices = judge_of.kernels(chosen)
            table[part] = {**judge_of.mmds(matrices), **judge_of.structure(chosen)}
            if bootstrap:
                intervals[part] = {k: m.interval(bootstrap, seed) for k, m in matrices.items()}

    rng = np.random.default_rng(seed)
    whole = judge_of.kernels(learnt)
    draws = []
    for _ in range(floor_repeats):
        chosen = rng.permutation(len(learnt))[:count]
        draws.append(judge_of.mmds({k: _rows(m, chosen) for k, m in whole.items()}))
    floor = {k: float(np.mean([d[k] for d in draws])) for k in draws[0]}
    intervals[FLOOR] = {
        k: Interval(floor[k], *(float(q) for q in np.quantile([d[k] for d in draws], [0.025, 0.975]))) for k in floor
    }
    table[FLOOR] = {**floor, **judge_of.structure([learnt[k] for k in rng.permutation(len(learnt))[:count]])}
    sets = np.array_split(np.arange(count * floor_repeats), floor_repeats)
    random_graphs = erdos_renyi_like(learnt, count * floor_repeats, seed)
    rows = [judge_of.mmds(judge_of.kernels([random_graphs[k] for k in those])) for those in sets]
    table[ERDOS_RENYI] = {
        **{k: float(np.mean([row[k] for row in rows])) for k in rows[0]},
        **judge_of.structure(random_graphs[:count]),
    }

    protocol = (
        f"MMD^2 (biased, not rooted; {' and '.join(names)} kernels; average of degree, clustering, orbit) of the first "
        f"{count} generated graphs against {count} test graphs; floor: mean of {floor_repeats} random samples of "
        f"{count} of {len(learnt)} training graphs; Erdos-Renyi: sizes and densities of training graphs, mean of "
        f"{floor_repeats} sets; unique, novel: by isomorphism, novel against the training graphs; "
        f"intervals: 95 %, {bootstrap} bootstrap resamples; seed {seed}"
    )
    if (fewest := min(len(graphs) for graphs in methods.values())) < count:
        protocol += f"; only {fewest} graphs were generated"
    if validity is not None:
        protocol += f"; valid: {validity if isinstance(validity, str) else getattr(validity, '__name__', 'given test')}"
    return Evaluation(table, protocol, intervals)


def evaluate_molecules(
    generated: Molecules | Mapping[str, Molecules],
    train: Molecules,
    test: Molecules,
    *,
    alphabet: Alphabet | None = None,
    train_smiles: Collection[str] | None = None,
    correct: bool = True,
    reference_limit: int = 2000,
    fcd: bool | None = None,
    bootstrap: int = 100,
    seed: int = 0,
) -> Evaluation:
    """Validity, strict validity, uniqueness, novelty, NSPDK and FCD of generated molecules, with floor and baseline.

    Args:
        generated: Molecules (RDKit, SMILES, graphs, None for what is no molecule), or several methods' by name.
        train: Training molecules.
        test: Test molecules.
        alphabet: What node types of graphs mean; needed if any are given.
        train_smiles: Canonical SMILES of the training set, if at hand (saves reading a large set again).
        correct: Judge all molecules after correction, as published; otherwise the valid ones alone.
        reference_limit: Largest number of test molecules for NSPDK and FCD, drawn at random.
        fcd: Compute the Frechet ChemNet distance; None: if `fcd_torch` is installed.
        bootstrap: Resamples behind the intervals of NSPDK and (at most 20) FCD; 0 for none.
        seed: Of samples, baseline and resamples.

    Raises:
        ValueError: An empty set, or graphs without an alphabet.
        MissingPackage: `fcd` is True and `fcd_torch` is not installed.
    """
    methods = generated if isinstance(generated, Mapping) else {"generated": generated}
    if not len(train) or not len(test) or not methods:
        raise ValueError("an evaluation needs generated, training and test molecules")
    with_fcd = fcd_available() if fcd is None else fcd
    rng = np.random.default_rng(seed)
    reference = molecules_of(_sample(test, reference_limit, rng), alphabet)
    if not reference:
        raise ValueError("no test molecule could be read")
    known = smiles_set(train, alphabet) if train_smiles is None else set(train_smiles)
    count = max(len(molecules) for molecules in methods.values())
    sample = [m for m in _sample(train, count, rng) if m is not None]
    judged = {name: judge(molecules, alphabet, correct=correct) for name, molecules in methods.items()}
    judged[FLOOR] = judge(sample, alphabet, correct=correct)
    graphs, letters = _as_graphs(sample, alphabet)
    judged[SHUFFLED] = judge(shuffled_like(graphs, count, seed), letters, correct=correct)

    features = nspdk_features(reference)
    activations = chemnet_activations([canonical_smiles(m) for m in reference]) if with_fcd else None
    table: dict[str, dict[str, float]] = {}
    intervals: dict[str, dict[str, Interval]] = {}
    for name, those in judged.items():
        intervals[name] = those.shares(known)
        table[name] = {metric: interval.value for metric, interval in intervals[name].items()}
        table[name]["nspdk"] = np.nan
        if those.molecules:
            own = nspdk_features(those.molecules)
            table[name]["nspdk"] = mmd_of_features(own, features)
            if bootstrap:
                intervals[name]["nspdk"] = nspdk_interval(own, features, bootstrap, seed)
        if activations is not None:
            table[name]["fcd"] = np.nan
            if min(len(those.smiles), len(activations)) >= 2:
                active = chemnet_activations(those.smiles)
                table[name]["fcd"] = frechet_distance(active, activations)
                if resamples := min(bootstrap, _FCD_RESAMPLES):
                    intervals[name]["fcd"] = frechet_interval(active, activations, resamples, seed)
    protocol = (
        f"{count} generated molecules; validity: RDKit's valence check before correction, charges and several pieces "
        "allowed; strict validity: sanitised and one piece; vun: distinct and new ones of these; the rest on "
        + ("all molecules after correction, largest piece kept" if correct else "the completely sanitised molecules")
        + f"; identity by canonical SMILES without stereochemistry; novelty against {len(known)} training molecules; "
        f"NSPDK (radius and distance 4, fixed hash){' and FCD (fcd_torch)' if with_fcd else ''} against "
        f"{len(reference)} test molecules; floor: {len(sample)} random training molecules; baseline: their atoms and "
        f"bonds in random places; intervals: 95 %, Wilson for shares, {bootstrap} bootstrap resamples (FCD: at most "
        f"{_FCD_RESAMPLES}); seed {seed}"
    )
    return Evaluation(table, protocol, intervals)


class _GraphJudge:
    """Compares sets of graphs with one test set."""

    def __init__(
        self,
        test: Sequence[GraphRecord],
        train: Sequence[GraphRecord],
        names: Sequence[str],
        validity: str | Callable[[GraphRecord], bool] | None,
    ) -> None:
        if isinstance(validity, str) and validity not in VALIDITY:
            raise ValueError(f"unknown validity {validity!r}; known are {', '.join(VALIDITY)}, or give a function")
        self.names, self.train, self.validity = names, train, validity
        self.reference = {statistic: describe(test, statistic) for statistic in DESCRIPTORS}

    def kernels(self, graphs: Sequence[GraphRecord]) -> dict[str, Kernels]:
        tables = {statistic: describe(graphs, statistic) for statistic in DESCRIPTORS}
        return {
            f"{statistic} {name}": kernels(tables[statistic], self.reference[statistic], statistic, name)
            for name in self.names
            for statistic in DESCRIPTORS
        }

    def mmds(self, matrices: Mapping[str, Kernels]) -> dict[str, float]:
        row: dict[str, float] = {}
        for name in self.names:
            values = {statistic: matrices[f"{statistic} {name}"].mmd() for statistic in DESCRIPTORS}
            spectral = values.pop("spectral")
            row.update({f"{statistic} {name}": value for statistic, value in values.items()})
            row[f"average {name}"] = average(values)
            row[f"spectral {name}"] = spectral
        return row

    def structure(self, graphs: Sequence[GraphRecord]) -> dict[str, float]:
        shares = vun(graphs, self.train, "connected" if self.validity is None else self.validity)
        row = {
            "connected": float(np.mean([is_connected(g) for g in graphs])),
            "unique": shares.unique,
            "novel": shares.novel,
        }
        if self.validity is not None:
            row |= {"valid": shares.valid, "vun": shares.vun}
        sizes = {"nodes": [g.num_nodes for g in graphs], "edges": [g.num_edges for g in graphs]}
        return row | {k: float(np.mean(v)) for k, v in sizes.items()}


def _rows(matrices: Kernels, chosen: np.ndarray) -> Kernels:
    return Kernels(matrices.generated[np.ix_(chosen, chosen)], matrices.reference, matrices.cross[chosen])


def _sample(items: Sequence[Any], count: int, rng: np.random.Generator) -> list[Any]:
    if len(items) <= count:
        return list(items)
    return [items[k] for k in np.sort(rng.permutation(len(items))[:count]).tolist()]


def _as_graphs(sample: Molecules, alphabet: Alphabet | None) -> tuple[list[GraphRecord], Alphabet]:
    records = [item for item in sample if isinstance(item, GraphRecord)]
    if alphabet is not None and len(records) == len(sample):
        return records, alphabet
    molecules = molecules_of(sample, alphabet)
    letters = learn_alphabet(molecules)
    return letters.encode_all(molecules).items, letters
