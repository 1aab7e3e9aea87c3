"""Molecules as graphs and back, without losing what makes them molecules.

A heavy atom is a node, its type is an entry (element, formal charge) of an *alphabet*; a bond is an edge, its type is
its order 1, 2 or 3 after kekulisation. Hydrogens are implied: the valence model gives them back from element, charge
and bond orders. What this keeps is the canonical SMILES without stereochemistry and isotopes,

    decode(encode(m)) = m   up to stereo marks,

for every molecule the encoder accepts. Without charges a third of drug-like molecules would come back changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .intake import Intake, OnBad
from .records import GraphRecord

if TYPE_CHECKING:
    from rdkit.Chem import Mol

__all__ = [
    "Alphabet",
    "canonical_smiles",
    "is_connected",
    "largest_fragment",
    "learn_alphabet",
    "read_smiles",
    "repair",
    "sanitized",
]

MAX_BOND_ORDER = 3


@dataclass(frozen=True)
class Alphabet:
    """What node types of molecular graphs mean.

    Args:
        atoms: (element symbol, formal charge) of each node type.

    Raises:
        ValueError: Empty, repeated entries, or an unknown element.
    """

    atoms: tuple[tuple[str, int], ...]

    def __post_init__(self) -> None:
        from rdkit.Chem import GetPeriodicTable

        atoms = tuple((str(symbol), int(charge)) for symbol, charge in self.atoms)
        if not atoms or len(set(atoms)) != len(atoms):
            raise ValueError(f"an alphabet needs distinct atoms, at least one, got {atoms}")
        for symbol, _ in atoms:
            try:
                GetPeriodicTable().GetAtomicNumber(symbol)
            except RuntimeError as error:
                raise ValueError(f"{symbol!r} is not a chemical element") from error
        object.__setattr__(self, "atoms", atoms)

    @classmethod
    def charge_aware(cls, molecules: Iterable[Mol | str], smallest_count: int = 1) -> Alphabet:
        """The alphabet of all (element, charge) pairs that occur; see :func:`learn_alphabet`."""
        return learn_alphabet(molecules, smallest_count)

    @classmethod
    def from_names(cls, names: Sequence[str]) -> Alphabet:
        """The alphabet with these `names` (such as "C", "N+1", "O-1")."""
        atoms = []
        for name in names:
            symbol = name.rstrip("+-0123456789")
            charge = name[len(symbol) :]
            try:
                atoms.append((symbol, int(charge) if charge else 0))
            except ValueError:
                raise ValueError(f"{name!r} is not an atom such as C, N+1 or O-1") from None
        return cls(tuple(atoms))

    @property
    def names(self) -> tuple[str, ...]:
        """Readable node types: "C", "N+1", "O-1"."""
        return tuple(symbol if not charge else f"{symbol}{charge:+d}" for symbol, charge in self.atoms)

    @property
    def num_bond_types(self) -> int:
        """Edge types above 0: single, double, triple."""
        return MAX_BOND_ORDER

    def __len__(self) -> int:
        return len(self.atoms)

    def encode(self, molecule: Mol | str, *, name: str | None = None) -> GraphRecord:
        """The graph of a molecule.

        Args:
            molecule: RDKit molecule or SMILES.
            name: Kept in the record.

        Raises:
            ValueError: Unreadable SMILES, an atom outside the alphabet, a bond that is not single, double or triple
                after kekulisation, a radical, or hydrogens that the valence model would not give back.
        """
        from rdkit import Chem

        mol = read_smiles(molecule) if isinstance(molecule, str) else molecule
        kekulised = Chem.Mol(mol)
        try:
            Chem.Kekulize(kekulised, clearAromaticFlags=True)
        except (Chem.KekulizeException, Chem.AtomKekulizeException) as error:
            raise ValueError(f"cannot be kekulised: {error}") from error
        place = {atom: k for k, atom in enumerate(self.atoms)}
        types, bracketed = [], False
        for atom in kekulised.GetAtoms():
            key = (atom.GetSymbol(), atom.GetFormalCharge())
            if key not in place:
                raise ValueError(
                    f"atom {key[0]} with charge {key[1]:+d} is not in the alphabet ({', '.join(self.names)})"
                )
            if atom.GetNumRadicalElectrons():
                raise ValueError(f"atom {key[0]} is a radical")
            bracketed |= atom.GetNoImplicit()
            types.append(place[key])
        if not types:
            raise ValueError("a molecule without atoms")
        edges, orders = [], []
        for bond in kekulised.GetBonds():
            order = bond.GetBondTypeAsDouble()
            if order not in (1.0, 2.0, 3.0) or bond.GetBondType() == Chem.BondType.DATIVE:
                raise ValueError(f"a bond of type {bond.GetBondType().name.lower()}; known are single, double, triple")
            edges.append((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()))
            orders.append(int(order))
        record = GraphRecord(
            len(types),
            np.array(edges, np.int64).reshape(-1, 2),
            np.array(types),
            np.array(orders, np.int64),
            name=name,
        )
        if bracketed:
            # Only atoms written in brackets can carry other hydrogens than the valence model implies.
            back = self.decode(record)
            if back is None or canonical_smiles(back) != canonical_smiles(mol):
                raise ValueError("its hydrogens do not follow from element, charge and bonds")
        return record

    def build(self, record: GraphRecord) -> Mol:
        """The molecule of a graph as it is, chemically sensible or not (RDKit has not looked at it).

        Raises:
            ValueError: A graph without node types, or types outside the alphabet or above a triple bond.
        """
        from rdkit import Chem

        if record.node_types is None:
            raise ValueError("the graph has no node types, so it is not a molecule")
        if record.node_types.max() >= len(self.atoms):
            raise ValueError(f"node type {int(record.node_types.max())}; the alphabet has {len(self.atoms)}")
        orders = np.ones(record.num_edges, np.int64) if record.edge_types is None else record.edge_types
        if orders.size and orders.max() > MAX_BOND_ORDER:
            raise ValueError(f"edge type {int(orders.max())}; bonds are 1, 2 or 3")
        kinds = (Chem.BondType.SINGLE, Chem.BondType.DOUBLE, Chem.BondType.TRIPLE)
        mol = Chem.RWMol()
        for kind in record.node_types.tolist():
            symbol, charge = self.atoms[kind]
            atom = Chem.Atom(symbol)
            atom.SetFormalCharge(charge)
            mol.AddAtom(atom)
        for (i, j), order in zip(record.edges.tolist(), orders.tolist(), strict=True):
            mol.AddBond(i, j, kinds[order - 1])
        return mol.GetMol()

    def decode(self, record: GraphRecord) -> Mol | None:
        """The molecule of a graph, or None if valences or rings make no sense (RDKit cannot sanitise it)."""
        return sanitized(self.build(record))

    def encode_all(
        self, molecules: Iterable[Mol | str], on_bad: OnBad = OnBad.SKIP, names: Iterable[str] | None = None
    ) -> Intake[GraphRecord]:
        """Graphs of many molecules, with the list of those that could not be used.

        Args:
            molecules: RDKit molecules or SMILES.
            on_bad: Stop at the first unusable one, or leave it out and list it.
            names: Where each comes from; default: its SMILES.

        Raises:
            ValueError: An unusable molecule and `on_bad` is RAISE.
        """
        intake: Intake[GraphRecord] = Intake(on_bad)
        if names is None:
            named = ((m if isinstance(m, str) else canonical_smiles(m), m) for m in molecules)
        else:
            named = zip(names, molecules, strict=True)
        with quiet():
            return intake.take_all(named, self.encode)

    def config(self) -> list[list[Any]]:
        """Plain values from which `Alphabet(tuple(map(tuple, values)))` rebuilds it."""
        return [[symbol, charge] for symbol, charge in self.atoms]


def learn_alphabet(molecules: Iterable[Mol | str], smallest_count: int = 1) -> Alphabet:
    """The alphabet of all (element, charge) pairs of a set, most frequent first.

    Args:
        molecules: RDKit molecules or SMILES; unreadable SMILES are passed over (the encoder lists them).
        smallest_count: Pairs that occur in fewer molecules are left out; their molecules become unreadable.

    Raises:
        ValueError: No molecule could be read.
    """
    from rdkit import Chem

    found: Counter[tuple[str, int]] = Counter()
    with quiet():
        for molecule in molecules:
            mol = Chem.MolFromSmiles(molecule) if isinstance(molecule, str) else molecule
            if mol is not None:
                found.update({(a.GetSymbol(), a.GetFormalCharge()) for a in mol.GetAtoms() if a.GetAtomicNum() > 0})
    kept = [(atom, count) for atom, count in found.items() if count >= smallest_count]
    if not kept:
        raise ValueError("no readable molecule to learn the alphabet from")
    return Alphabet(tuple(atom for atom, _ in sorted(kept, key=lambda item: (-item[1], item[0]))))


def read_smiles(smiles: str) -> Mol:
    """The molecule of a SMILES.

    Raises:
        ValueError: RDKit cannot read it, or it names no atom.
    """
    from rdkit import Chem

    with quiet():
        mol = Chem.MolFromSmiles(smiles.strip())
    if mol is None:
        raise ValueError("not a valid SMILES")
    if mol.GetNumAtoms() == 0:
        raise ValueError("an empty SMILES")
    return mol


def canonical_smiles(molecule: Mol) -> str:
    """Canonical SMILES without stereochemistry and isotopes: the identity of molecules in all metrics here."""
    from rdkit import Chem

    return Chem.MolToSmiles(molecule, isomericSmiles=False)


def sanitized(molecule: Mol) -> Mol | None:
    """A sanitised copy, or None if RDKit finds a valence, aromaticity or other problem."""
    from rdkit import Chem

    copy = Chem.Mol(molecule)
    with quiet():
        failed = Chem.SanitizeMol(copy, catchErrors=True)
    return None if failed else copy


def repair(molecule: Mol) -> Mol:
    """A copy in which every valence fits: while an atom has too many bonds, its highest bond loses one order.

    A bond of order one is removed. Ends always: every step lowers the total bond order.

    Source: Jo et al. 2022, "validity with correction", without its reading of RDKit's error messages.
    """
    from rdkit import Chem

    mol = Chem.RWMol(molecule)
    lower = {Chem.BondType.TRIPLE: Chem.BondType.DOUBLE, Chem.BondType.DOUBLE: Chem.BondType.SINGLE}
    with quiet():
        while True:
            atoms = [p.GetAtomIdx() for p in Chem.DetectChemistryProblems(mol) if p.GetType() == "AtomValenceException"]
            bonds = mol.GetAtomWithIdx(atoms[0]).GetBonds() if atoms else ()
            if not bonds:
                return mol.GetMol()
            worst = max(bonds, key=lambda b: (b.GetBondTypeAsDouble(), -b.GetIdx()))
            if worst.GetBondType() in lower:
                worst.SetBondType(lower[worst.GetBondType()])
            else:
                mol.RemoveBond(worst.GetBeginAtomIdx(), worst.GetEndAtomIdx())


def largest_fragment(molecule: Mol) -> Mol:
    """The connected part with most heavy atoms (of equals the one with the larger SMILES, so that it is unique)."""
    from rdkit import Chem

    parts = Chem.GetMolFrags(molecule, asMols=True, sanitizeFrags=False)
    return max(parts, key=lambda m: (m.GetNumHeavyAtoms(), Chem.MolToSmiles(m)))


def is_connected(molecule: Mol) -> bool:
    """Whether the molecule is one piece."""
    from rdkit import Chem

    return len(Chem.GetMolFrags(molecule)) == 1


def quiet() -> Any:
    """A context in which RDKit prints nothing: what it finds is counted and reported instead."""
    from rdkit import rdBase

    return rdBase.BlockLogs()
