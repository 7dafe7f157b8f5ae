"""What a driver can tell from the first structure of a server that names no elements."""

from collections import Counter
from collections.abc import Callable

import numpy as np
from ase import Atoms
from scipy.spatial import cKDTree

from mts_driver.errors import UserError
from mts_driver.structures.bonds import bonded_pairs

SAME_PLACE_A = 1e-3
ABSURD_EV_A = 100.0
"""Of the largest force: what atoms on top of one another feel."""
OTHER_BONDS = 0.2
"""Share of bonds, by their two elements, that another order of atoms changes and heat does not."""


class FirstLook:
    """Compares the first structure that is asked for with the one that the model was built for.

    Parameters
    ----------
    structure : ase.Atoms
        Of ``--structure``.
    forces_eV_A : ndarray, shape (N, 3)
        The model's on it, eV/Å.
    tell : callable
        Takes a sentence for the user.
    """

    def __init__(
        self, structure: Atoms, forces_eV_A: np.ndarray, *, tell: Callable[[str], None]
    ) -> None:
        self._structure, self._tell = structure, tell
        self._largest_eV_A = _largest(forces_eV_A)

    def check_order(self, positions_A: np.ndarray) -> None:
        """Refuse atoms (N, 3) that are in the same places, but in another order of elements.

        Raises
        ------
        UserError
            Naming the first of them.
        """
        atoms = self._structure
        distances, there = cKDTree(atoms.positions).query(positions_A)
        if distances.max() > SAME_PLACE_A or len(set(there)) < len(there):
            return  # another structure, of which nothing is known
        moved = np.flatnonzero(atoms.numbers[there] != atoms.numbers)
        if len(moved):
            k = int(moved[0])
            raise UserError(
                f"the server's atom {k} is where --structure has its atom {there[k]}, "
                f"{atoms.symbols[there[k]]}, but atom {k} of --structure is {atoms.symbols[k]}: "
                "write --structure in the server's order of atoms."
            )

    def doubt(self, positions_A: np.ndarray, cell_A: np.ndarray, forces_eV_A: np.ndarray) -> None:
        """Say so where the first structure looks as if its atoms had been mixed up.

        Parameters
        ----------
        positions_A, cell_A : ndarray, shape (N, 3) and (3, 3)
            Å; the cell is zero for an isolated molecule.
        forces_eV_A : ndarray, shape (N, 3)
            The model's, eV/Å.
        """
        atoms = self._structure
        seen = Atoms(atoms.numbers, positions_A, cell=cell_A, pbc=bool(cell_A.any()))
        bonds, found = _bonds(atoms), _bonds(seen)
        differ = sum((bonds - found).values()) + sum((found - bonds).values())
        largest = _largest(forces_eV_A)
        reasons = []
        if differ > OTHER_BONDS * (bonds.total() + found.total()):
            reasons.append(f"has the bonds {_named(found)}, where --structure has {_named(bonds)}")
        if largest > max(ABSURD_EV_A, 10 * self._largest_eV_A):
            reasons.append(
                f"has a force of {largest:.0f} eV/Å, where the largest of --structure is "
                f"{self._largest_eV_A:.2g} eV/Å"
            )
        if reasons:
            self._tell(
                f"the server's first structure {' and '.join(reasons)}: the order of atoms in "
                "--structure may not be the server's."
            )


def _bonds(atoms: Atoms) -> Counter[str]:
    """Count bonds by their two elements."""
    symbols, found = np.array(atoms.get_chemical_symbols()), bonded_pairs(atoms)
    pairs = zip(symbols[found.i].tolist(), symbols[found.j].tolist(), strict=True)
    return Counter("-".join(sorted(pair)) for pair in pairs)


def _named(bonds: Counter[str]) -> str:
    return ", ".join(f"{n} {pair}" for pair, n in bonds.most_common()) or "none"


def _largest(forces: np.ndarray) -> float:
    return float(np.linalg.norm(forces.reshape(-1, 3), axis=1).max())
