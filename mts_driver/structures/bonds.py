"""Covalent bonds of a frame: which atoms they join, and what moves when one is stretched."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

BOND_FACTOR = 1.15
"""A pair is bonded if it is closer than this many times the sum of its covalent radii."""
LARGEST_MOLECULE = 40
"""Atoms; what is larger, such as a protein, is cut into pieces, and not turned round as a whole."""


class BondedPairs(NamedTuple):
    """Pairs of atoms with a bond.

    Attributes
    ----------
    i, j : array of int, shape (P,)
        The two atoms.
    vectors : array, shape (P, 3)
        From i to the image of j that is bonded to it, Å.
    """

    i: np.ndarray
    j: np.ndarray
    vectors: np.ndarray


@dataclass(frozen=True)
class Bond:
    """A bond between two atoms.

    Attributes
    ----------
    kind : str
        The two elements, hydrogen last and otherwise by letter, such as ``O–H`` or ``C–N``.
    moving, fixed : int
        The atoms; a hydrogen is the one that moves.
    """

    kind: str
    moving: int
    fixed: int

    @property
    def to_hydrogen(self) -> bool:
        """Whether it is an X-H bond."""
        return self.kind.endswith("–H")

    def vector(self, atoms: Atoms) -> np.ndarray:
        """From the fixed to the moving atom, Å, shape (3,), nearest image."""
        periodic = bool(atoms.pbc.any())
        return atoms.get_distance(self.fixed, self.moving, mic=periodic, vector=True)


def bonded_pairs(atoms: Atoms, *, ions: Sequence[int] = ()) -> BondedPairs:
    """Return the pairs of atoms with a bond, each once (i < j), in lexical order.

    Parameters
    ----------
    ions : sequence of int
        Atomic numbers of elements that bond to nothing, however near.
    """
    radii_A, alone = covalent_radii[atoms.numbers], np.isin(atoms.numbers, ions)
    i, j, vectors = neighbor_list("ijD", atoms, BOND_FACTOR * radii_A)
    kept = np.flatnonzero((i < j) & ~alone[i] & ~alone[j])
    kept = kept[np.lexsort((j[kept], i[kept]))]
    return BondedPairs(i[kept], j[kept], vectors[kept])


def are_bonded(i: np.ndarray, j: np.ndarray, distances_A: np.ndarray, radii_A: np.ndarray) -> Any:
    """Tell which pairs (P,) are as near as in a bond, by covalent radii (N,), Å."""
    return (distances_A < BOND_FACTOR * (radii_A[i] + radii_A[j])) & (i < j)


def molecules(atoms: Atoms) -> np.ndarray:
    """Return the number of the molecule of every atom, shape (N,)."""
    pairs = bonded_pairs(atoms)
    return connected(pairs.i, pairs.j, len(atoms))


def connected(i: np.ndarray, j: np.ndarray, atoms: int) -> np.ndarray:
    """Return the number of the part that every atom is in, shape (N,), where pairs join parts."""
    graph = coo_matrix((np.ones(len(i)), (i, j)), shape=(atoms, atoms))
    return np.asarray(connected_components(graph, directed=False)[1])


def find_bonds(atoms: Atoms) -> list[Bond]:
    """Return all bonds, once each."""
    pairs, symbols = bonded_pairs(atoms), atoms.get_chemical_symbols()
    bonds = []
    for a, b in zip(pairs.i.tolist(), pairs.j.tolist(), strict=True):
        fixed, moving = sorted((a, b), key=lambda k: (symbols[k] == "H", symbols[k], k))
        bonds.append(Bond(kind_of(symbols[fixed], symbols[moving]), moving, fixed))
    return bonds


def kind_of(first: str, second: str) -> str:
    """Name of a bond between two elements: hydrogen last, otherwise by letter."""
    return "–".join(sorted((first, second), key=lambda symbol: (symbol == "H", symbol)))


def by_kind(bonds: list[Bond]) -> dict[str, list[Bond]]:
    """Return the bonds sorted by their kind, those to hydrogen first."""
    kinds = sorted({b.kind for b in bonds}, key=lambda kind: (not kind.endswith("–H"), kind))
    return {kind: [b for b in bonds if b.kind == kind] for kind in kinds}


class Molecules:
    """The bonds of a frame as a graph, to cut one of them and see what hangs on it."""

    def __init__(self, bonds: list[Bond], atoms: int) -> None:
        self._partners: list[list[int]] = [[] for _ in range(atoms)]
        for bond in bonds:
            self._partners[bond.moving].append(bond.fixed)
            self._partners[bond.fixed].append(bond.moving)

    def smaller_side(self, bond: Bond) -> tuple[Bond, np.ndarray] | None:
        """Cut a bond; return it with the end of the smaller part as moving, and that part's atoms.

        ``None`` for a bond in a ring, which cannot be stretched by moving two rigid parts.
        """
        here = self._reached(bond.moving, bond.fixed)
        if bond.fixed in here:
            return None
        there = self._reached(bond.fixed, bond.moving)
        if len(here) <= len(there):
            return bond, np.array(sorted(here))
        return Bond(bond.kind, bond.fixed, bond.moving), np.array(sorted(there))

    def _reached(self, start: int, other: int) -> set[int]:
        """Atoms reached from one end without taking the bond itself."""
        reached, queue = {start}, deque([start])
        while queue:
            atom = queue.popleft()
            for partner in self._partners[atom]:
                if partner not in reached and (atom, partner) != (start, other):
                    reached.add(partner)
                    queue.append(partner)
        return reached
