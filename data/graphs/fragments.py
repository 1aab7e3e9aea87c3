"""Fragments of molecules: the pieces that the BRICS rules cut molecules into, a small set of real chemistry.

    molecules -> cut every bond a BRICS rule names -> hydrogens at cut ends -> pieces of 4..12 heavy atoms, each once

From the first 60,000 training molecules of MOSES (the wheel of molsets, read as data) come about 3,000 fragments, in
the order in which they are first met. Where that wheel is missing, the first 60,000 molecules of QM9 are cut in the
same way; molecules without a bond to cut are left out, since they would be listed as they are.

Source of the rules: `Degen et al. 2008, On the Art of Compiling and Using 'Drug-Like' Chemical Fragment Spaces
<https://doi.org/10.1002/cmdc.200800178>`_, as in RDKit.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from ...modalities.graphs.intake import OnBad
from ...modalities.graphs.molecules import canonical_smiles, quiet
from ..errors import DataError
from .molecule_sets import MoleculeSet, Row, Source, encoded, moses_source, qm9_source, random_tenth

if TYPE_CHECKING:
    from rdkit.Chem import Mol

__all__ = ["SIZES", "fragments_of", "load_fragments"]

SIZES = (4, 12)
_MOLECULES = 60_000


def load_fragments(
    root: str | Path | None = None, *, source: str = "moses", on_bad: OnBad = OnBad.SKIP, seed: int = 0
) -> MoleculeSet:
    """Fragments of MOSES or of QM9; a random tenth is tested on.

    Args:
        root: Folder of the data.
        source: "moses" (QM9, with a warning and a note in the protocol, where MOSES is missing) or "qm9".
        on_bad: What to do with fragments that cannot be encoded.
        seed: Of the test part.

    Raises:
        DataError: The molecules are nowhere to be found.
    """
    if source not in ("moses", "qm9"):
        raise DataError(f"fragments are cut from moses or qm9, not from {source!r}")
    note = ""
    if source == "qm9":
        molecules, whole = qm9_source(root), False
    else:
        try:
            molecules, whole = moses_source(root, "train"), True
        except DataError as missing:
            molecules, whole = qm9_source(root), False
            note = "of QM9 because MOSES is not there; "
            warnings.warn(f"{missing}: fragments of QM9 are taken instead", UserWarning, stacklevel=2)

    @cache
    def cut() -> list[str]:
        smiles = (row[1] for row in islice(molecules.rows(), _MOLECULES))
        return list(fragments_of(smiles, whole=whole))

    def rows() -> Iterator[Row]:
        if not cut():
            raise DataError(f"{molecules.name} holds no molecule with a fragment of {SIZES[0]} to {SIZES[1]} atoms")
        for number, fragment in enumerate(cut()):
            yield f"fragment {number}", fragment, {}

    name = f"{molecules.name} fragments {_MOLECULES} {SIZES[0]}-{SIZES[1]}"
    graphs, alphabet, skipped, about = encoded("fragments", Source(name, molecules.size, rows), root, on_bad)
    test = random_tenth(len(graphs), seed)
    about = f"{note}{about} (BRICS, unique, heavy atoms {SIZES[0]}..{SIZES[1]}); test = a random tenth (seed {seed})"
    return MoleculeSet(graphs, test, alphabet, about, skipped)


def fragments_of(smiles: Iterable[str], *, whole: bool = True) -> Iterator[str]:
    """Canonical SMILES of the fragments of molecules, each once, in the order in which they are first met.

    Args:
        smiles: Molecules; unreadable ones are passed over.
        whole: Whether a molecule without any BRICS bond counts as its own fragment.
    """
    from rdkit import Chem
    from rdkit.Chem import BRICS

    met: set[str] = set()
    with quiet():
        for text in smiles:
            molecule = Chem.MolFromSmiles(text)
            if molecule is None:
                continue
            pieces = Chem.GetMolFrags(BRICS.BreakBRICSBonds(molecule), asMols=True)
            if len(pieces) == 1 and not whole:
                continue
            for piece in pieces:
                found = _closed(piece)
                if found is not None and found not in met:
                    met.add(found)
                    yield found


def _closed(piece: Mol) -> str | None:
    """The SMILES of a piece with hydrogens at its cut ends; None if it is too small, too large or no molecule."""
    from rdkit import Chem

    if not SIZES[0] <= sum(atom.GetAtomicNum() > 0 for atom in piece.GetAtoms()) <= SIZES[1]:
        return None
    closed = Chem.RWMol(piece)
    ends = [atom.GetIdx() for atom in closed.GetAtoms() if atom.GetAtomicNum() == 0]
    for end in reversed(ends):
        (neighbour,) = closed.GetAtomWithIdx(end).GetNeighbors()
        if neighbour.GetIsAromatic() and neighbour.GetAtomicNum() != 6:
            # an aromatic nitrogen does not say whether it carries a hydrogen unless it is told
            neighbour.SetNumExplicitHs(neighbour.GetNumExplicitHs() + 1)
        closed.RemoveAtom(end)
    if Chem.SanitizeMol(closed, catchErrors=True):
        return None
    return canonical_smiles(closed.GetMol())
