"""How good generated molecules are.

    validity            share of all generated ones whose valences RDKit accepts as they came (charges allowed, several
                        pieces allowed): the published "validity without correction"
    strict validity     share that RDKit sanitises completely and that is one piece
    uniqueness          distinct canonical SMILES / molecules judged
    novelty             share of the distinct ones that are not in the training set
    vun                 distinct strictly valid ones that are not in the training set, before correction / all generated
    nspdk, fcd          distances to the test set

Validity is counted before anything is corrected. The molecules judged by the other measures are either the valid ones
or, as published, all after correction (bonds lowered until valences fit, largest piece kept); the protocol says which.
Identity is the canonical SMILES without stereochemistry.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..molecules import Alphabet, canonical_smiles, is_connected, largest_fragment, quiet, repair, sanitized
from ..records import GraphRecord
from .intervals import Interval, share_interval

if TYPE_CHECKING:
    from rdkit.Chem import Mol

    Molecules = Sequence[Mol | str | GraphRecord | None]
else:
    Molecules = Sequence[Any]


@dataclass(frozen=True)
class Judged:
    """A set of generated molecules after the counting of valid ones.

    Args:
        count: Generated in all.
        valid: With sensible valences, before correction.
        strict_smiles: Canonical SMILES of those completely sanitised and in one piece, before correction.
        molecules: Those that go on to the other measures, sanitised.
        smiles: Their canonical SMILES.
        corrected: Whether they were corrected.
    """

    count: int
    valid: int
    strict_smiles: list[str]
    molecules: list[Mol]
    smiles: list[str]
    corrected: bool

    @property
    def strict(self) -> int:
        """Number of strictly valid ones."""
        return len(self.strict_smiles)

    def shares(self, train_smiles: Iterable[str]) -> dict[str, Interval]:
        """Validity, strict validity, uniqueness, novelty and vun; shares of nothing are NaN."""
        distinct, known = set(self.smiles), set(train_smiles)
        new = distinct - known
        return {
            "validity": _share(self.valid, self.count),
            "strict validity": _share(self.strict, self.count),
            "uniqueness": _share(len(distinct), len(self.smiles)),
            "novelty": _share(len(new), len(distinct)),
            "vun": _share(len(set(self.strict_smiles) - known), self.count),
        }


def judge(generated: Molecules, alphabet: Alphabet | None = None, *, correct: bool = True) -> Judged:
    """Count the valid molecules and prepare the others.

    Args:
        generated: RDKit molecules (not necessarily sanitised), SMILES, graphs, or None for what is no molecule.
        alphabet: What node types of graphs mean.
        correct: Judge all molecules after correction, as published, instead of the valid ones alone.

    Raises:
        ValueError: Nothing generated, or graphs without an alphabet.
    """
    from rdkit import Chem

    if not len(generated):
        raise ValueError("no generated molecules to judge")
    valid = 0
    strict: list[Mol] = []
    kept: list[Mol] = []
    with quiet():
        for item in generated:
            mol = _raw(item, alphabet)
            if mol is None or not mol.GetNumAtoms():
                continue
            valences = not Chem.SanitizeMol(
                Chem.Mol(mol), sanitizeOps=Chem.SanitizeFlags.SANITIZE_PROPERTIES, catchErrors=True
            )
            clean = sanitized(mol)
            valid += valences
            if clean is not None and is_connected(clean):
                strict.append(clean)
            if correct:
                clean = sanitized(largest_fragment(repair(mol)))
            if clean is not None:
                kept.append(clean)
        smiles, strict_smiles = ([canonical_smiles(mol) for mol in mols] for mols in (kept, strict))
    return Judged(len(generated), int(valid), strict_smiles, kept, smiles, correct)


def molecules_of(items: Molecules, alphabet: Alphabet | None = None) -> list[Mol]:
    """Sanitised molecules of real data; those RDKit refuses are left out."""
    return list(_clean(items, alphabet))


def smiles_set(items: Iterable[Mol | str | GraphRecord | None], alphabet: Alphabet | None = None) -> set[str]:
    """Canonical SMILES of a set, without repetitions; unreadable entries are left out."""
    return {canonical_smiles(mol) for mol in _clean(items, alphabet)}


def _clean(items: Iterable[Mol | str | GraphRecord | None], alphabet: Alphabet | None) -> Iterator[Mol]:
    with quiet():
        for item in items:
            mol = _raw(item, alphabet)
            if mol is not None and (clean := sanitized(mol)) is not None:
                yield clean


def _raw(item: Mol | str | GraphRecord | None, alphabet: Alphabet | None) -> Mol | None:
    from rdkit import Chem

    if item is None:
        return None
    if isinstance(item, str):
        return Chem.MolFromSmiles(item, sanitize=False)
    if isinstance(item, GraphRecord):
        if alphabet is None:
            raise ValueError("graphs need an alphabet to be read as molecules")
        return alphabet.build(item)
    return item


def _share(part: int, whole: int) -> Interval:
    return share_interval(part, whole) if whole else Interval(np.nan, np.nan, np.nan)
