"""Atoms that a structure holds in place, in ASE's terms a ``FixAtoms`` constraint."""

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms, FixCartesian, FixScaled

from mts_driver.errors import UserError


def held_atoms(atoms: Atoms) -> np.ndarray:
    """Return the indices of the atoms that do not move, sorted, shape (M,).

    `mts_driver.structures.files.read_structure` refuses all constraints but these.
    """
    held = [c.index for c in atoms.constraints if isinstance(c, FixAtoms)]
    return np.unique(np.concatenate(held)).astype(int) if held else np.zeros(0, int)


def moving_atoms(atoms: Atoms) -> np.ndarray:
    """Return which atoms move, bool, shape (N,)."""
    moves = np.ones(len(atoms), bool)
    moves[held_atoms(atoms)] = False
    return moves


def read_constraints(atoms: Atoms, name: str) -> None:
    """Turn what the file holds in place into one ``FixAtoms``, and refuse other constraints.

    Raises
    ------
    UserError
        For a constraint that the integrators cannot keep, or if no atom is free to move.
    """
    held: set[int] = set(held_atoms(atoms).tolist())
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            continue
        atoms_of = np.atleast_1d(getattr(constraint, "index", ()))
        per_axis = isinstance(constraint, FixCartesian | FixScaled)
        if not (per_axis and constraint.get_removed_dof(atoms) == 3 * len(atoms_of)):
            raise UserError(
                f"structure {name!r} has the constraint {type(constraint).__name__}, which these "
                "integrators cannot keep: they hold whole atoms (FixAtoms, move_mask). Remove it "
                "from the file, or hold the atoms entirely."
            )
        held |= {int(k) for k in atoms_of}
    if len(held) == len(atoms):
        raise UserError(f"structure {name!r} holds all of its atoms: leave some free to move.")
    atoms.set_constraint(FixAtoms(sorted(held)) if held else None)
