"""What happens to the bonds of a structure while it moves: some stretch, and new ones form."""

import numpy as np
from ase import Atoms
from ase.data import covalent_radii

from mts_driver.structures.bonds import BOND_FACTOR, are_bonded, bonded_pairs
from mts_driver.structures.neighbors import VerletList

SKIN_A = 1.0


class BondLengths:
    """Lengths of all bonds of a structure, relative to what they should be.

    Bonds to hydrogen are compared with the sum of their covalent radii, which are their lengths at
    rest to 0.03 Å; the others, single or double, with their own lengths in the structure.

    Attributes
    ----------
    to_hydrogen : array of bool, shape (B,)
        Which bonds are X-H.
    """

    def __init__(self, atoms: Atoms) -> None:
        self._i, self._j, vectors = bonded_pairs(atoms)
        # positions are not wrapped later, so a bond keeps the image that it starts in
        self._shifts = vectors - (atoms.positions[self._j] - atoms.positions[self._i])
        self.to_hydrogen = (atoms.numbers[self._i] == 1) | (atoms.numbers[self._j] == 1)
        radii = covalent_radii[atoms.numbers]
        at_rest, lengths = radii[self._i] + radii[self._j], self._lengths(atoms.positions)
        self._reference = np.where(self.to_hydrogen, at_rest, lengths)

    def __len__(self) -> int:
        return len(self._i)

    def ratios(self, positions: np.ndarray) -> np.ndarray:
        """Lengths at these positions (N, 3), Å, over those at rest, shape (B,)."""
        return self._lengths(positions) / self._reference

    def _lengths(self, positions: np.ndarray) -> np.ndarray:
        return np.linalg.norm(positions[self._j] - positions[self._i] + self._shifts, axis=1)


class NewBonds:
    """Pairs of atoms that were apart in a structure and come as near as in a bond.

    A student that lets a hydrogen fall onto another molecule does not stretch any bond, and without
    its teacher nothing else shows it. Strong hydrogen bonds stay apart: those to chloride come down
    to 1.2 times the sum of the covalent radii, those to oxygen to 1.5.
    """

    def __init__(self, atoms: Atoms) -> None:
        self._radii = covalent_radii[atoms.numbers]
        self._cell = atoms.cell.array * atoms.pbc[:, None]
        reach_A = 2.0 * BOND_FACTOR * float(self._radii.max())
        self._list = VerletList(cutoff_A=reach_A, skin_A=SKIN_A)
        self._old = self._bonded(atoms.positions)

    def new(self, positions: np.ndarray) -> np.ndarray:
        """Return pairs (P, 2) that are bonded at these positions (N, 3), Å, and were not before."""
        fresh = np.setdiff1d(self._bonded(positions), self._old)
        return np.stack(np.divmod(fresh, len(self._radii)), axis=1)

    def _bonded(self, positions: np.ndarray) -> np.ndarray:
        """All bonded pairs, each as one number."""
        i, j, _, distances = self._list.pairs(positions, self._cell)
        bonded = are_bonded(i, j, distances, self._radii)
        return i[bonded] * len(self._radii) + j[bonded]
