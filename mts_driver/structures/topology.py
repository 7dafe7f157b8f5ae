"""Bonds of a big system: where it may be cut, and which groups of it are charged."""

from dataclasses import dataclass

import numpy as np
from ase import Atoms

from mts_driver.errors import UserError
from mts_driver.structures.bonds import LARGEST_MOLECULE, bonded_pairs, connected
from mts_driver.structures.files import check_structure

LARGEST_RING = 8
"""Atoms; the loop that a disulfide bridge closes is longer, and may be cut."""
H, C, N, O, P, S = 1, 6, 7, 8, 15, 16  # noqa: E741
HALIDES, METALS = (9, 17, 35, 53), {3: 1, 11: 1, 12: 2, 19: 1, 20: 2, 30: 2}
"""Ions; Li, Na, Mg, K, Ca, Zn have no bonds, since their radii reach into the hydration shell."""


@dataclass(frozen=True)
class Topology:
    """Bonds of the whole system, the same in every snapshot of a run.

    Attributes
    ----------
    bonds : int array, shape (B, 2)
        Each bond once.
    cuttable : bool array, shape (B,)
        Bonds of molecules of more than 40 atoms where a link hydrogen may end a piece.
    molecule, charges : int arrays, shape (N,)
        Number of every atom's molecule; formal charges, e, of groups on their central atoms.
    """

    bonds: np.ndarray
    cuttable: np.ndarray
    molecule: np.ndarray
    charges: np.ndarray


def topology(atoms: Atoms) -> Topology:
    """Find bonds, molecules, cuttable bonds and formal charges of N atoms near equilibrium, Å.

    Raises
    ------
    UserError
        If the structure is not finite or its cell has no volume.
    """
    check_structure(atoms, "to be cut into fragments")
    z, pairs = atoms.numbers, bonded_pairs(atoms, ions=list(METALS))
    bonds = np.column_stack([pairs.i, pairs.j])
    molecule = connected(pairs.i, pairs.j, len(atoms))
    return Topology(bonds, _cuttable(z, bonds, molecule), molecule, _charges(z, bonds))


def formal_charge(atoms: Atoms, topology: Topology) -> int:
    """Net charge of a fragment, or of the whole system, e.

    From valence rules for the usual ions of proteins in water: bare ions, carboxylate, ammonium,
    guanidinium, amidinium and imidazolium, thiolate, phosphate, sulfonate, hydronium, hydroxide.
    Phenolate and pyridinium are taken for neutral. No cuttable bond divides one of these groups.

    Raises
    ------
    UserError
        If the atoms are neither a fragment nor the system of the topology.
    """
    if not atoms.has("source"):
        check_size(atoms, topology)
        return int(topology.charges.sum())
    source = atoms.get_array("source")
    if source.max() >= len(topology.charges):
        raise UserError("the fragment is not of the topology's system: give that of its system.")
    return int(topology.charges[source[source >= 0]].sum())


def _cuttable(z: np.ndarray, bonds: np.ndarray, molecule: np.ndarray) -> np.ndarray:
    """Mark C(4)-C(3 or 4) and C(4)-N(amide) bonds of large molecules outside rings, (B,)."""
    degree = np.bincount(bonds.ravel(), minlength=len(z))
    carbonyl = (z == C) & (degree == 3) & (_count(bonds, (z == O) & (degree == 1)) > 0)
    amide = (z == N) & (degree == 3) & (_count(bonds, carbonyl) > 0)
    tetrahedral = (z == C) & (degree == 4)
    other = tetrahedral | ((z == C) & (degree == 3)) | amide
    a, b = bonds.T
    single = (tetrahedral[a] & other[b]) | (tetrahedral[b] & other[a])
    single &= (np.bincount(molecule) > LARGEST_MOLECULE)[molecule[a]]
    adjacent: dict[int, set[int]] = {}
    for p, q in np.concatenate([bonds, bonds[:, ::-1]]).tolist():
        adjacent.setdefault(p, set()).add(q)
    for k in np.flatnonzero(single):
        single[k] = not _in_ring(adjacent, int(a[k]), int(b[k]))
    return single


def _in_ring(adjacent: dict[int, set[int]], start: int, end: int) -> bool:
    """Whether the atoms of a bond are joined by a second way of at most 7 bonds."""
    seen, edge = {start}, adjacent[start] - {end}
    for _ in range(LARGEST_RING - 2):
        seen |= edge
        edge = set().union(*(adjacent[atom] for atom in edge)) - seen
        if end in edge:
            return True
    return False


def _charges(z: np.ndarray, bonds: np.ndarray) -> np.ndarray:
    """Formal charges (N,), e, from elements and coordination; see `formal_charge`."""
    degree = np.bincount(bonds.ravel(), minlength=len(z))
    hydrogens = _count(bonds, z == H)
    terminal = _count(bonds, (z == O) & (degree == 1))
    amines = _count(bonds, (z == N) & (degree == 3))
    plain = _count(bonds, (z == C) | (z == H))
    charges = np.zeros(len(z), int)
    charges[(z == C) & (degree == 3) & (terminal == 2)] = -1
    charges[(z == N) & (degree == 4)] = 1
    # guanidinium, amidinium, imidazolium: a nitrogen of the neutral base has two neighbours only
    charges[(z == C) & (degree == 3) & (amines >= 2) & (amines + plain == 3)] = 1
    charges[(z == O) & (hydrogens == 3)] = 1
    charges[(z == O) & (degree == 1) & (hydrogens == 1)] = -1
    charges[(z == S) & (degree == 1) & (_count(bonds, (z == C) & (degree == 4)) == 1)] = -1
    charges -= np.where((z == P) & (terminal > 1), terminal - 1, 0)
    charges -= np.where((z == S) & (terminal > 2), terminal - 2, 0)
    charges[np.isin(z, HALIDES) & (degree == 0)] = -1
    for metal, charge in METALS.items():
        charges[z == metal] = charge
    return charges


def _count(bonds: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Count the bonded atoms of every atom that are among ``which``, (N,)."""
    a, b = np.concatenate([bonds, bonds[:, ::-1]]).T
    return np.bincount(a[which[b]], minlength=len(which))


def check_size(atoms: Atoms, topology: Topology) -> None:
    """Raise a `UserError` if the topology is not that of a system of so many atoms."""
    if len(atoms) != len(topology.molecule):
        sizes = f"{len(topology.molecule)} atoms, the system {len(atoms)}"
        raise UserError(f"the topology has {sizes}: give the topology of this system.")
