"""Masses of atoms, and their repartitioning from heavy atoms to hydrogens."""

import numpy as np
from ase import Atoms
from ase.data import atomic_masses
from ase.neighborlist import neighbor_list

from mts_driver.errors import UserError

LONGEST_XH_A = 1.9
"""Å; a hydrogen further than this from every heavy atom is not bonded to any of them."""


def hydrogen_bonds_to_heavy(atoms: Atoms) -> np.ndarray:
    """Pair each hydrogen with its nearest heavy atom (minimum image).

    Returns
    -------
    ndarray of int, shape (M, 2)
        Hydrogen and heavy atom.

    Raises
    ------
    UserError
        If a hydrogen has no heavy atom within 1.9 Å.
    """
    i, j, d = neighbor_list("ijd", atoms, LONGEST_XH_A)
    is_hydrogen = atoms.numbers == 1
    keep = is_hydrogen[i] & ~is_hydrogen[j]
    i, j = i[keep], j[keep]
    nearest_last = np.argsort(-d[keep], kind="stable")
    owner = np.full(len(atoms), -1)
    owner[i[nearest_last]] = j[nearest_last]
    hydrogens = np.flatnonzero(is_hydrogen)
    lonely = hydrogens[owner[hydrogens] < 0]
    if len(lonely):
        raise UserError(
            f"hydrogen {lonely[0]} has no heavy atom within {LONGEST_XH_A} Å (nor have "
            f"{len(lonely) - 1} others): check the structure and its cell, or prepare it without "
            "repartitioning (--hydrogen-mass-Da 0)."
        )
    return np.column_stack([hydrogens, owner[hydrogens]])


def repartitioned_masses(atoms: Atoms, hydrogen_mass: float) -> np.ndarray:
    """Masses after moving mass from heavy atoms to their hydrogens.

    Parameters
    ----------
    hydrogen_mass : float
        Da; 0 leaves the natural masses. Masses stored in the file are not used: a start of
        ``mts prepare`` carries repartitioned ones.

    Returns
    -------
    ndarray, shape (N,)
        Da.

    Raises
    ------
    UserError
        If a hydrogen is not bonded, or a heavy atom would become too light.
    """
    masses = atomic_masses[atoms.numbers]
    if hydrogen_mass == 0:
        return masses
    from integrators.hmr import repartition_hydrogen_mass

    bonds = hydrogen_bonds_to_heavy(atoms)
    try:
        return repartition_hydrogen_mass(atoms.numbers, masses, bonds, hydrogen_mass=hydrogen_mass)
    except ValueError as error:
        raise UserError(f"--hydrogen-mass-Da {hydrogen_mass:g}: {error}") from error
