"""Frames bent away from equilibrium: where a student would otherwise be left to guess."""

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list

from mts_driver.structures.bonds import Bond, Molecules, by_kind, find_bonds, molecules

STIFF_STEP_A = 0.02
"""Half of the difference in length of a bond between the two frames of a stiff pair."""
XH_LENGTHS_A = (0.72, 2.0)
HEAVY_STRETCH = (0.8, 1.5)
"""Shortest and longest, of what a bond between heavy atoms is in the frame."""
SHARE_STRETCHED = 0.125
LONGEST_HYDROGEN_BOND_A = 2.4
LARGEST_SHAKEN_A = 0.12


@dataclass(frozen=True)
class Skeleton:
    """What is bonded in a structure, found in its starting frame.

    Attributes
    ----------
    to_hydrogen, heavy : list of Bond
        The bonds.
    rigid : Molecules
        What moves along when a bond is stretched.
    molecule : int array, shape (N,)
        The number of the molecule of every atom.
    """

    to_hydrogen: list[Bond]
    heavy: list[Bond]
    rigid: Molecules
    molecule: np.ndarray

    @classmethod
    def of(cls, atoms: Atoms) -> "Skeleton":
        """Find bonds from covalent radii."""
        bonds = find_bonds(atoms)
        return cls(
            [b for b in bonds if b.to_hydrogen],
            [b for b in bonds if not b.to_hydrogen],
            Molecules(bonds, len(atoms)),
            molecules(atoms),
        )


def shake(atoms: Atoms, rng: np.random.Generator) -> None:
    """Displace all atoms at random by 0.03 to 0.12 Å, in place."""
    atoms.positions += rng.normal(size=(len(atoms), 3)) * rng.uniform(0.03, LARGEST_SHAKEN_A)


def stretch(atoms: Atoms, skeleton: Skeleton, rng: np.random.Generator) -> None:
    """Give one X-H bond in eight a length between 0.72 and 2 Å, and stretch heavy bonds, in place.

    Of the heavy bonds outside rings one in eight changes, at most one a molecule; the smaller side
    of the molecule moves along. Rare kinds of bonds get their turn in every frame, and so do rare
    kinds of hydrogen bonds: the proton between the two is where a student of both may fail.
    """
    for bond in _some(_by_acceptor(atoms, skeleton.to_hydrogen), rng):
        vector = bond.vector(atoms)
        atoms.positions[bond.moving] += vector * (
            rng.uniform(*XH_LENGTHS_A) / np.linalg.norm(vector) - 1.0
        )
    done = set()
    for bond in _some(by_kind(skeleton.heavy), rng):
        cut = skeleton.rigid.smaller_side(bond)
        if cut is None or skeleton.molecule[bond.moving] in done:
            continue
        done.add(skeleton.molecule[bond.moving])
        outward, side = cut
        atoms.positions[side] += outward.vector(atoms) * (rng.uniform(*HEAVY_STRETCH) - 1.0)


def stiff_steps(
    atoms: Atoms, skeleton: Skeleton, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Displacements along disjoint bonds for a pair of frames that carries force constants.

    A third of the heavy bonds are chosen, of which both ends move, and half of the X-H bonds, of
    which the hydrogen moves; none shares a moving atom with another.

    Returns
    -------
    steps : array, shape (N, 3)
        To be added in one frame and subtracted in the other, Å.
    bond : int array, shape (N,)
        Number of the bond that an atom moves along, −1 where it stays.
    """
    steps, bond_of = np.zeros((len(atoms), 3)), np.full(len(atoms), -1)
    heavy = [b for b in skeleton.heavy if rng.random() < 1 / 3]
    hydrogen = [b for b in skeleton.to_hydrogen if rng.random() < 1 / 2]
    for number, bond in enumerate([*heavy, *hydrogen]):
        ends = [bond.moving, bond.fixed]
        if (bond_of[ends] >= 0).any():
            continue
        vector = bond.vector(atoms)
        unit = STIFF_STEP_A * vector / np.linalg.norm(vector)
        if bond.to_hydrogen:
            steps[bond.moving], bond_of[bond.moving] = unit, number
        else:
            steps[ends], bond_of[ends] = [0.5 * unit, -0.5 * unit], number
    return steps, bond_of


def _by_acceptor(atoms: Atoms, bonds: list[Bond]) -> dict[str, list[Bond]]:
    """Bonds to hydrogen by kind, and by the heavy element that the hydrogen is next nearest to."""
    hydrogen, other, distance = neighbor_list("ijd", atoms, LONGEST_HYDROGEN_BOND_A)
    acceptor: dict[int, str] = {}
    fixed = {bond.moving: bond.fixed for bond in bonds}
    for k in np.argsort(distance, kind="stable").tolist():
        h, heavy = int(hydrogen[k]), int(other[k])
        if h in fixed and heavy != fixed[h] and atoms.numbers[heavy] != 1:
            acceptor.setdefault(h, atoms.symbols[heavy])
    kinds: dict[str, list[Bond]] = {}
    for bond in bonds:
        kinds.setdefault(f"{bond.kind} {acceptor.get(bond.moving, '')}", []).append(bond)
    return kinds


def _some(kinds: dict[str, list[Bond]], rng: np.random.Generator) -> list[Bond]:
    """Each with one chance in eight, at least one of every kind, and in random order."""
    chosen = []
    for alike in kinds.values():
        lucky = [b for b in alike if rng.random() < SHARE_STRETCHED]
        chosen += lucky or [alike[rng.integers(len(alike))]]
    return [chosen[k] for k in rng.permutation(len(chosen))]
