"""The neighbourhood subgraph pairwise distance kernel (NSPDK), and the MMD of two sets of molecules by it.

A molecule becomes a graph whose vertices are its atoms and its bonds. Around every atom v, N_r(v) is a hash of what
lies within r bonds: the multisets of (label, degree) shell by shell. For radius r = 0..R and distance d = 0..D the
features of a molecule are counts of

    pairs   { N_r(v), N_r(u) }, (r, d)      over ordered pairs of atoms at distance d
    halves  N_r(v), (r, d)                  the same pairs, one side only

scaled to length one within each (r, d), then as a whole. The kernel is the product of the feature vectors, so that

    MMD^2 = mean K(R, R) + mean K(G, G) - 2 mean K(R, G) = |mean feature of R - mean feature of G|^2 .

Features are hashed into 2^16 bins, as in the published setting (EDeN with complexity 4, 16 bits). EDeN hashes with
Python's hash(), which changes from process to process; here the hash is fixed, so values are reproducible, and agree
with any one run of EDeN to a few 1e-4. Labels are element symbols and whole bond orders, aromatic ones counting 1.

Source: Costa and De Grave 2010, "Fast neighborhood subgraph pairwise distance kernel".
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .intervals import Interval, centred_percentiles
from .isomorphism import mix

if TYPE_CHECKING:
    from rdkit.Chem import Mol

RADIUS = 4
DISTANCE = 4
BITS = 16


def nspdk_features(molecules: Sequence[Mol]) -> Any:
    """Feature vectors, one sparse row of length one per molecule: a scipy `csr_array` of shape `(M, 65536)`."""
    from scipy.sparse import csr_array

    rows = [_features(molecule) for molecule in molecules]
    pointer = np.cumsum([0, *(len(bins) for bins, _ in rows)])
    bins = np.concatenate([bins for bins, _ in rows]) if rows else np.zeros(0, np.int64)
    values = np.concatenate([values for _, values in rows]) if rows else np.zeros(0)
    return csr_array((values, bins, pointer), shape=(len(rows), 2**BITS))


def nspdk_mmd(generated: Sequence[Mol], reference: Sequence[Mol]) -> float:
    """MMD^2 of two sets of molecules.

    Args:
        generated: RDKit molecules, sanitised.
        reference: The same; the test set. Published numbers use equally many on both sides.

    Raises:
        ValueError: An empty set.
    """
    return mmd_of_features(nspdk_features(generated), nspdk_features(reference))


def mmd_of_features(generated: Any, reference: Any) -> float:
    """MMD^2 from feature vectors.

    Raises:
        ValueError: An empty set.
    """
    if not generated.shape[0] or not reference.shape[0]:
        raise ValueError(f"an MMD needs molecules on both sides, got {generated.shape[0]} and {reference.shape[0]}")
    return float(((generated.mean(0) - reference.mean(0)) ** 2).sum())


def nspdk_interval(generated: Any, reference: Any, repeats: int = 100, seed: int = 0, level: float = 0.95) -> Interval:
    """Bootstrap over both sets; percentiles moved so that their mean is the value."""
    rng = np.random.default_rng(seed)
    weights = [
        rng.multinomial(f.shape[0], np.full(f.shape[0], 1 / f.shape[0]), repeats) for f in (generated, reference)
    ]
    g, r = (w @ f / f.shape[0] for w, f in zip(weights, (generated, reference), strict=True))
    return centred_percentiles(mmd_of_features(generated, reference), ((g - r) ** 2).sum(1), level)


def _features(molecule: Mol) -> tuple[np.ndarray, np.ndarray]:
    from rdkit.Chem import GetDistanceMatrix

    labels = [zlib.crc32(atom.GetSymbol().encode()) for atom in molecule.GetAtoms()]
    bonds = [(b.GetBeginAtomIdx(), b.GetEndAtomIdx(), int(b.GetBondTypeAsDouble())) for b in molecule.GetBonds()]
    n, ends = len(labels), np.array(bonds, np.int64).reshape(-1, 3)
    atom_distance = GetDistanceMatrix(molecule)
    # In the graph of atoms and bonds everything is twice as far; a bond is one step beyond its nearer end.
    bond_distance = 2 * np.minimum(atom_distance[:, ends[:, 0]], atom_distance[:, ends[:, 1]]) + 1
    distance = np.concatenate([2 * atom_distance, bond_distance], 1)
    degrees = np.concatenate([np.bincount(ends[:, :2].ravel(), minlength=n), np.full(len(bonds), 2)])
    names = np.array(labels + [zlib.crc32(str(order).encode()) for order in ends[:, 2]], np.uint64)
    with np.errstate(over="ignore"):
        marks = mix(mix(names) ^ degrees.astype(np.uint64))
        shells = np.stack(
            [np.where(distance == step, marks, np.uint64(0)).sum(1, dtype=np.uint64) for step in range(2 * RADIUS + 1)]
        )
        around = np.empty((RADIUS + 1, n), np.uint64)
        state = np.zeros(n, np.uint64)
        for step, shell in enumerate(shells):
            state = mix(state ^ mix(shell))
            if step % 2 == 0:
                around[step // 2] = state
        # A neighbourhood that has stopped growing is no new feature.
        reach = np.where(np.isfinite(distance) & (distance < 1e6), distance, 0).max(1)
        exists = 2 * np.arange(RADIUS + 1)[:, None] <= reach
        return _collect(around, exists, atom_distance)


def _collect(around: np.ndarray, exists: np.ndarray, distance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    v, u = np.nonzero(distance <= DISTANCE)
    far = distance[v, u].astype(np.int64)
    radius = np.arange(RADIUS + 1)[:, None]
    first, second = np.minimum(around[:, v], around[:, u]), np.maximum(around[:, v], around[:, u])
    block = np.broadcast_to(radius * (DISTANCE + 1) + far, first.shape)
    tag = mix(block.astype(np.uint64))
    pairs = mix(mix(mix(first) ^ second) ^ tag)
    halves = mix(mix(around[:, v]) ^ mix(tag))
    kept = exists[:, v] & exists[:, u]
    mask = np.uint64(2**BITS - 1)
    bins = np.concatenate([pairs[kept], halves[kept]]) & mask
    keys = np.tile(block[kept], 2).astype(np.int64) * 2**BITS + bins.astype(np.int64)
    keys, counts = np.unique(keys, return_counts=True)
    blocks = keys >> BITS
    norm = np.sqrt(np.bincount(blocks, counts.astype(np.float64) ** 2))
    where, place = np.unique(keys & (2**BITS - 1), return_inverse=True)
    values = np.bincount(place, counts / norm[blocks])
    return where, values / np.linalg.norm(values)
