r"""How far forecasts are off, and how much generated trajectories look like real ones.

With $e_{nt} = \lVert \hat x_{nt} - x_{nt} \rVert$ over judged agents n at known frames t:

    ADE = mean over n, t of e             FDE = mean over n of e at the last frame

Of K samples per system there are several summaries; all are given, none is called "the" error:

    average    mean over samples of each sample's error              (GeoTDM's N-body and molecule tables)
    min        least error over samples, per system, all agents of it from the same sample ("joint")
    min/agent  least error over samples, per agent ("marginal"), as most pedestrian tables have it
    mean       error of the mean of the samples

The least ADE and the least FDE are taken independently, as the publications do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .baselines import BASELINES
from .records import TrajectoryBatch

__all__ = [
    "Errors",
    "ade",
    "baseline_scores",
    "bond_angles",
    "bond_lengths",
    "bond_marginal_score",
    "bond_statistics",
    "collision_rate",
    "displacement_errors",
    "fde",
    "final_position_clusters",
    "marginal_score",
    "motion_statistics",
    "sample_scores",
    "table",
]

_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Errors:
    """Errors per agent; NaN for an agent that is not judged or not known at any judged frame.

    Args:
        ade: mean over known frames, shape `(..., N)`.
        fde: at the last frame, shape `(..., N)`.
    """

    ade: _Floats
    fde: _Floats


def displacement_errors(pred: Any, truth: Any, known: Any = None, ego: Any = None) -> Errors:
    """Errors of each agent.

    Args:
        pred: forecasts, shape `(..., N, T, D)`, array or tensor.
        truth: shape `(N, T, D)` or anything that broadcasts against `pred`.
        known: where the truth is known, `(..., N, T)`; default everywhere.
        ego: agents that are judged, `(..., N)`; default all.

    Raises:
        ValueError: shapes that do not go together, or NaN in a forecast that is to be judged.
    """
    p, x = _numbers("pred", pred), _numbers("truth", truth)
    for what, array in (("pred", p), ("truth", x)):
        if array.ndim < 3:
            raise ValueError(f"{what} must have shape (..., agents, frames, coordinates), got {array.shape}")
    try:
        shape = np.broadcast_shapes(p.shape, x.shape)
    except ValueError as error:
        raise ValueError(f"pred {p.shape} and truth {x.shape} do not go together") from error
    if p.shape[-3:] != x.shape[-3:]:
        raise ValueError(
            f"pred {p.shape} and truth {x.shape} must agree in their last three axes: agents, frames, coordinates"
        )
    judged = np.ones(shape[:-1], bool)
    if known is not None:
        judged &= np.broadcast_to(np.asarray(known).astype(bool), shape[:-1])
    if ego is not None:
        judged &= np.broadcast_to(np.asarray(ego).astype(bool), shape[:-2])[..., None]
    distance = np.linalg.norm(p - x, axis=-1)
    if np.isnan(distance[judged]).any():
        raise ValueError("pred or truth holds NaN at places that are judged")
    distance = np.where(judged, distance, 0)
    count = judged.sum(-1)
    return Errors(
        ade=np.where(count > 0, distance.sum(-1) / np.maximum(count, 1), np.nan),
        fde=np.where(judged[..., -1], distance[..., -1], np.nan),
    )


def ade(pred: Any, truth: Any, known: Any = None, ego: Any = None) -> np.float64:
    """Average displacement error: the mean distance over everything in front, agents and frames.

    Args:
        pred: forecasts, shape `(..., N, T, D)`, array or tensor.
        truth: shape `(N, T, D)` or anything that broadcasts against `pred`.
        known: where the truth is known, `(..., N, T)`; default everywhere.
        ego: agents that are judged, `(..., N)`; default all.

    Returns:
        One number, in the unit of the places: the mean over agents of each agent's mean over its frames.
    """
    return _mean(displacement_errors(pred, truth, known, ego).ade)


def fde(pred: Any, truth: Any, known: Any = None, ego: Any = None) -> np.float64:
    """Final displacement error: the mean distance at the last frame; arguments as in :func:`ade`."""
    return _mean(displacement_errors(pred, truth, known, ego).fde)


def sample_scores(samples: Any, truth: Any, known: Any = None, ego: Any = None, scale: float = 1.0) -> dict[str, float]:
    """All summaries of K samples per system (see the head of this module).

    Args:
        samples: `(B, K, N, T, D)`.
        truth: `(B, N, T, D)`.
        known: where the truth is known, `(B, N, T)`.
        ego: agents that are judged, `(B, N)`.
        scale: errors are multiplied by it, e.g. by the division of the test places that some protocols make.

    Returns:
        `average_ade`, `average_fde`, `min_ade`, `min_fde` (joint), `min_ade_per_agent`, `min_fde_per_agent`,
        `mean_prediction_ade`, `mean_prediction_fde`, `num_samples`.
    """
    x, y = _numbers("samples", samples), _numbers("truth", truth)
    if x.ndim != 5 or y.ndim != 4 or x.shape[:1] + x.shape[2:] != y.shape:
        raise ValueError(f"expected samples (B, K, N, T, D) and truth (B, N, T, D), got {x.shape} and {y.shape}")
    known = None if known is None else np.asarray(known)[:, None]
    ego = None if ego is None else np.asarray(ego)[:, None]
    errors = displacement_errors(x, y[:, None], known, ego)
    middle = displacement_errors(x.mean(1, keepdims=True), y[:, None], known, ego)
    scores: dict[str, float] = {}
    for name, per_agent, of_mean in (("ade", errors.ade, middle.ade), ("fde", errors.fde, middle.fde)):
        joint = _nanmean(per_agent, -1)
        scores[f"average_{name}"] = scale * _mean(joint.mean(1))
        scores[f"min_{name}"] = scale * _mean(joint.min(1))
        scores[f"min_{name}_per_agent"] = scale * _mean(per_agent.min(1))
        scores[f"mean_prediction_{name}"] = scale * _mean(_nanmean(of_mean, -1))
    return {name: float(value) for name, value in scores.items()} | {"num_samples": float(x.shape[1])}


def baseline_scores(batch: TrajectoryBatch, scale: float = 1.0) -> dict[str, dict[str, float]]:
    """ADE and FDE of every baseline over the frames of a batch after the last observed one.

    Args:
        batch: with `observed`; agents that were never observed are not judged.
        scale: errors are multiplied by it.

    Returns:
        `{"constant velocity": {"average_ade": ..., "average_fde": ...}, ...}`.
    """
    if batch.observed is None:
        raise ValueError("the batch does not say what is observed: collate(records, observed_frames)")
    batch = batch.to("cpu")
    assert batch.observed is not None
    observed = batch.observed.numpy()
    start = int(np.flatnonzero(observed.any((0, 1))).max()) + 1
    if start >= observed.shape[2]:
        raise ValueError("nothing is left to forecast: the last frame is observed")
    truth, known = batch.positions.numpy()[:, :, start:], batch.present.numpy()[:, :, start:]
    ego = batch.ego.numpy() & observed.any(-1)
    rows = {}
    for name, forecast in BASELINES.items():
        pred = np.nan_to_num(forecast(batch.positions, batch.times, observed)[:, :, start:])
        errors = displacement_errors(pred, truth, known, ego)
        rows[name] = {
            "average_ade": float(scale * _mean(_nanmean(errors.ade, -1))),
            "average_fde": float(scale * _mean(_nanmean(errors.fde, -1))),
        }
    return rows


def final_position_clusters(samples: Any, count: int, seed: int = 0) -> _Floats:
    """K samples thinned to `count` that spread over their end points: for each centre of k-means the sample that ends
    nearest.

    Args:
        samples: `(B, K, N, T, D)`; the end point of the first agent decides.
        count: samples to keep, at most K.
        seed: of k-means.

    Returns:
        `(B, count, N, T, D)`.

    Source: "final position clustering" of the pedestrian literature; GeoTDM keeps 20 of 60.
    """
    from scipy.cluster.vq import kmeans2

    x = _numbers("samples", samples)
    if not 1 <= count <= x.shape[1]:
        raise ValueError(f"count={count} must be between 1 and the {x.shape[1]} samples")
    kept = []
    for system in x:
        ends = system[:, 0, -1]
        centres, _ = kmeans2(ends, count, minit="++", rng=np.random.default_rng(seed), missing="warn")
        kept.append(system[np.linalg.norm(ends[None] - centres[:, None], axis=-1).argmin(1)])
    return np.stack(kept)


def marginal_score(real: Any, generated: Any, bins: int = 50) -> np.float64:
    """Mean distance between the densities of the coordinates, lower is better.

    Each coordinate is pooled over systems, agents and frames; the bins span the real data's range, generated values
    outside fall into no bin; the score is the mean over bins, then over coordinates, of the absolute difference of
    densities.

    Args:
        real: `(..., D)`.
        generated: `(..., D)`.
        bins: number of bins per coordinate.

    Source: GeoTDM (https://arxiv.org/abs/2410.13027), section 5.2.
    """
    a, b = _numbers("real", real), _numbers("generated", generated)
    if a.shape[-1] != b.shape[-1]:
        raise ValueError(f"real has {a.shape[-1]} coordinates, generated {b.shape[-1]}")
    a, b = a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1])
    return np.float64(np.mean([_density_gap(a[:, d], b[:, d], bins) for d in range(a.shape[1])]))


def bond_marginal_score(real: Any, generated: Any, bonds: Any, bins: int = 50) -> np.float64:
    """The :func:`marginal_score` of each bond's length, averaged over bonds.

    Args:
        real: `(..., N, T, D)`.
        generated: `(..., N, T, D)`.
        bonds: pairs of atoms, `(M, 2)`.
        bins: number of bins.
    """
    a, b = bond_lengths(real, bonds), bond_lengths(generated, bonds)
    return np.float64(
        np.mean([_density_gap(a[..., m, :].ravel(), b[..., m, :].ravel(), bins) for m in range(a.shape[-2])])
    )


def bond_lengths(positions: Any, bonds: Any) -> _Floats:
    """Lengths of bonds.

    Args:
        positions: `(..., N, T, D)`.
        bonds: `(M, 2)`.

    Returns:
        `(..., M, T)`.
    """
    x, pairs = _numbers("positions", positions), _pairs(bonds)
    return np.linalg.norm(x[..., pairs[:, 0], :, :] - x[..., pairs[:, 1], :, :], axis=-1)


def bond_angles(positions: Any, bonds: Any) -> _Floats:
    """Angles i-j-k between every two bonds that share the atom j, in degrees.

    Args:
        positions: `(..., N, T, D)`.
        bonds: `(M, 2)`.

    Returns:
        `(..., A, T)`, in the order of j, then of the pairs (i, k).
    """
    x, pairs = _numbers("positions", positions), _pairs(bonds)
    partners: dict[int, list[int]] = {}
    for i, j in pairs.tolist():
        partners.setdefault(i, []).append(j)
        partners.setdefault(j, []).append(i)
    triples = [
        (i, j, k)
        for j in sorted(partners)
        for n, i in enumerate(sorted(partners[j]))
        for k in sorted(partners[j])[n + 1 :]
    ]
    i, j, k = np.array(triples, int).reshape(-1, 3).T
    left, right = x[..., i, :, :] - x[..., j, :, :], x[..., k, :, :] - x[..., j, :, :]
    norms = np.linalg.norm(left, axis=-1) * np.linalg.norm(right, axis=-1)
    return np.degrees(np.arccos(np.clip((left * right).sum(-1) / np.maximum(norms, 1e-12), -1, 1)))


def bond_statistics(real: Any, generated: Any, bonds: Any) -> dict[str, float]:
    """How well generated molecules keep the geometry of real ones.

    Args:
        real: `(..., N, T, D)`.
        generated: `(..., N, T, D)`.
        bonds: `(M, 2)`.

    Returns:
        For bond lengths (units of the places) and angles (degrees): the mean over bonds of the difference of means
        (`*_mean_gap`), of standard deviations (`*_std_gap`) and of the Wasserstein distance (`*_wasserstein`).
    """
    from scipy.stats import wasserstein_distance

    scores = {}
    for name, measure in (("bond", bond_lengths), ("angle", bond_angles)):
        a, b = (np.moveaxis(measure(x, bonds), -2, 0) for x in (real, generated))
        a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
        if not len(a):
            continue
        scores[f"{name}_mean_gap"] = float(np.abs(a.mean(1) - b.mean(1)).mean())
        scores[f"{name}_std_gap"] = float(np.abs(a.std(1) - b.std(1)).mean())
        distances = [wasserstein_distance(u, v) for u, v in zip(a, b, strict=True)]
        scores[f"{name}_wasserstein"] = float(np.mean(distances))
    return scores


def motion_statistics(positions: Any) -> dict[str, float]:
    """Mean speed per frame, mean norm of the second difference, standard deviation of the coordinates.

    Args:
        positions: `(..., N, T, D)` with at least 3 frames.
    """
    x = _numbers("positions", positions)
    speed, bend = (np.linalg.norm(np.diff(x, n, axis=-2), axis=-1).mean() for n in (1, 2))
    return {"speed": float(speed), "second_difference": float(bend), "std": float(x.std())}


def collision_rate(positions: Any, radius: float, known: Any = None) -> np.float64:
    """Share of agents that come closer than `radius` to another agent at some frame.

    Args:
        positions: `(..., N, T, D)`.
        radius: distance below which two agents collide, in the unit of the places (0.1 to 0.2 m for pedestrians).
        known: places that exist, `(..., N, T)`.
    """
    x = _numbers("positions", positions)
    there = np.ones(x.shape[:-1], bool) if known is None else np.asarray(known).astype(bool)
    frames, exist = np.moveaxis(x, -2, -3), np.moveaxis(there, -1, -2)  # (..., T, N, D), (..., T, N)
    distance = np.linalg.norm(frames[..., :, None, :] - frames[..., None, :, :], axis=-1)
    close = (distance < radius) & exist[..., :, None] & exist[..., None, :] & ~np.eye(x.shape[-3], dtype=bool)
    return np.float64(close.any((-1, -3))[there.any(-1)].mean())


def table(rows: Mapping[str, Mapping[str, float]], protocol: str | None = None) -> str:
    """Scores side by side, in Markdown; the protocol stands below.

    Args:
        rows: scores per method; a score that a method lacks stays empty.
        protocol: what the numbers belong to.
    """
    columns = list(dict.fromkeys(name for scores in rows.values() for name in scores))
    lines = [["", *columns]]
    for method, scores in rows.items():
        lines.append([method, *(f"{scores[c]:.4g}" if c in scores else "" for c in columns)])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = ["| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines]
    text.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(text) + ("" if protocol is None else f"\n\n{protocol}")


def _density_gap(real: _Floats, generated: _Floats, bins: int) -> float:
    low, high = float(real.min()), float(real.max())
    if low == high:
        raise ValueError("the real values are all equal: their density has no bins")
    width = (high - low) / bins
    densities = [np.histogram(v, bins, (low, high))[0] / (len(v) * width) for v in (real, generated)]
    return float(np.abs(densities[0] - densities[1]).mean())


def _pairs(bonds: Any) -> NDArray[np.int64]:
    pairs = np.asarray(bonds, np.int64)
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise ValueError(f"bonds must have shape (M, 2), got {pairs.shape}")
    return pairs


def _numbers(what: str, values: Any) -> _Floats:
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    array = np.asarray(values)
    if not np.issubdtype(array.dtype, np.number):
        raise ValueError(f"{what} must be numbers, got {array.dtype}")
    return array.astype(np.float64)


def _nanmean(values: _Floats, axis: int) -> _Floats:
    known = ~np.isnan(values)
    count = known.sum(axis)
    return np.where(count > 0, np.where(known, values, 0).sum(axis) / np.maximum(count, 1), np.nan)


def _mean(values: _Floats) -> np.float64:
    known = values[~np.isnan(values)]
    if not known.size:
        raise ValueError("nothing to judge: no judged agent is known at the judged frames")
    return np.float64(known.mean())
