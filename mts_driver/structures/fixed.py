"""Atoms that a structure holds in place, in ASE's terms a ``FixAtoms`` constraint."""

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms


def held_atoms(atoms: Atoms) -> np.ndarray:
    """Return the indices of the atoms that do not move, sorted, shape (M,).

    `mts_driver.structures.files.read_structure` refuses all constraints but these.
    """
    held = [c.index for c in atoms.constraints if isinstance(c, FixAtoms)]
    return np.unique(np.concatenate(held)) if held else np.zeros(0, int)


def moving_atoms(atoms: Atoms) -> np.ndarray:
    """Return which atoms move, bool, shape (N,)."""
    moves = np.ones(len(atoms), bool)
    moves[held_atoms(atoms)] = False
    return moves
