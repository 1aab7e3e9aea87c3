"""The Frechet ChemNet distance between two sets of molecules.

    FCD = |m_1 - m_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^{1/2})

with m, S mean and covariance of ChemNet's activations on canonical SMILES. ChemNet's weights come in the wheel of the
package `fcd_torch` (the extra `molecules`); nothing is downloaded. The trace of the root is the sum of the roots of the
eigenvalues of S_1^{1/2} S_2 S_1^{1/2}, which is symmetric: no general matrix root, no imaginary rest.

The distance depends strongly on the number of molecules: compare only values of the same sizes, and with the floor.

Source: Preuer et al. 2018.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from .intervals import Interval, centred_percentiles


class MissingPackage(ImportError):
    """An optional package is needed."""


def fcd_available() -> bool:
    """Whether `fcd_torch` is installed."""
    return find_spec("fcd_torch") is not None


def chemnet_activations(smiles: Sequence[str], batch_size: int = 256, device: str = "cpu") -> np.ndarray:
    """ChemNet's activations, float64 `(M, 512)`; about 9 CPU-milliseconds a molecule.

    Args:
        smiles: Canonical SMILES (the network is not invariant to how a molecule is written).
        batch_size: Molecules at a time.
        device: Where to compute.

    Raises:
        MissingPackage: `fcd_torch` is not installed.
        ValueError: RDKit cannot read one of them.
    """
    import torch

    model, dataset_of = _chemnet()
    rows = []
    dataset = dataset_of(list(smiles))
    model.to(device)
    for start in range(0, len(dataset), batch_size):
        batch = np.stack([dataset[k] for k in range(start, min(start + batch_size, len(dataset)))])
        with torch.no_grad():
            inputs = torch.from_numpy(batch).transpose(1, 2).float().to(device)
            rows.append(model(inputs).cpu().double().numpy())
    return np.concatenate(rows) if rows else np.zeros((0, 512))


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """The distance of the Gaussians fitted to two sets of activations, `(M, D)` and `(M', D)`.

    Raises:
        ValueError: Fewer than two rows on a side.
    """
    if min(len(first), len(second)) < 2:
        raise ValueError(f"a Frechet distance needs two molecules on both sides, got {len(first)} and {len(second)}")
    mean = first.mean(0) - second.mean(0)
    a, b = np.cov(first.T), np.cov(second.T)
    values, vectors = np.linalg.eigh(a)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    overlap = np.sqrt(np.clip(np.linalg.eigvalsh(root @ b @ root), 0, None)).sum()
    return float(mean @ mean + np.trace(a) + np.trace(b) - 2 * overlap)


def frechet_interval(
    first: np.ndarray, second: np.ndarray, repeats: int = 20, seed: int = 0, level: float = 0.95
) -> Interval:
    """Bootstrap over both sets; percentiles moved so that their mean is the value (resampled rows repeat, which raises
    the distance itself). A resample takes about 0.2 CPU-seconds.

    Raises:
        ValueError: Fewer than two rows on a side.
    """
    rng = np.random.default_rng(seed)
    resampled = [
        frechet_distance(*(rows[rng.integers(0, len(rows), len(rows))] for rows in (first, second)))
        for _ in range(repeats)
    ]
    return centred_percentiles(frechet_distance(first, second), np.array(resampled), level)


def fcd(generated: Sequence[str], reference: Sequence[str]) -> float:
    """Frechet ChemNet distance of two lists of SMILES.

    Raises:
        MissingPackage: `fcd_torch` is not installed.
        ValueError: Too few molecules, or unreadable ones.
    """
    return frechet_distance(chemnet_activations(generated), chemnet_activations(reference))


@lru_cache(maxsize=1)
def _chemnet() -> tuple[Any, Any]:
    try:
        from fcd_torch import FCD
        from fcd_torch.utils import SmilesDataset
    except ImportError as error:
        raise MissingPackage(
            "the Frechet ChemNet distance needs the package fcd_torch: pip install 'fourfold[molecules]'"
        ) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return FCD(device="cpu", n_jobs=1).model, SmilesDataset
