"""Masses of atoms, and their repartitioning from heavy atoms to hydrogens."""

import numpy as np
from ase import Atoms
from ase.data import atomic_masses
from ase.neighborlist import neighbor_list

from mts_driver.errors import UserError
from mts_driver.structures.reading.columns import numbers_of

LONGEST_XH_A = 1.9
"""Å; a hydrogen further than this from every heavy atom is not bonded to any of them."""
PHYSICAL = "physical_masses"
"""Column of a start whose hydrogens are heavier than their isotopes, for the next reader."""
SAME_MASS_DA = 1e-3
"""Files round masses."""
ISOTOPE_DA = 0.1
"""Less is another table of natural masses."""


def with_masses(velocities: np.ndarray, before_Da: np.ndarray, after_Da: np.ndarray) -> np.ndarray:
    """Return velocities (N, 3) with which atoms of other masses have the same kinetic energy."""
    scaled: np.ndarray = velocities * np.sqrt(before_Da / after_Da)[:, None]
    return scaled


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
            "repartitioning (hydrogen_mass_Da=0)."
        )
    return np.column_stack([hydrogens, owner[hydrogens]])


def read_masses(atoms: Atoms, name: str) -> list[str]:
    """Keep the masses of the physics, with isotopes, in ``atoms``; natural ones need no column.

    A start of ``mts prepare`` has the masses of the run in ``masses``, and those of the physics in
    ``physical_masses`` where hydrogens have been made heavier. Starts without the second column,
    of older versions or other programs, are known by molecules of natural mass in which hydrogens
    are too heavy.

    Returns
    -------
    list of str
        Sentences for the user.

    Raises
    ------
    UserError
        If a mass is not finite or not positive.
    """
    given = _column(atoms, name)
    if given is None:
        return []
    natural = atomic_masses[atoms.numbers]
    notes = []
    if PHYSICAL in atoms.arrays:
        given = _positive(atoms, PHYSICAL, name)
        del atoms.arrays[PHYSICAL]
    elif _looks_repartitioned(atoms, given, natural):
        given = natural
        notes.append(
            f"hydrogens of {_heaviest_hydrogen(atoms):.4g} Da come from an earlier repartitioning: "
            "natural masses are used"
        )
    del atoms.arrays["masses"]
    if np.abs(given - natural).max() > SAME_MASS_DA:
        atoms.set_masses(given)
        changed = np.flatnonzero(np.abs(given - natural) > ISOTOPE_DA)
        kinds = sorted({(atoms.symbols[k], float(round(given[k], 3))) for k in changed})
        if kinds:
            shown = ", ".join(f"{symbol} of {mass:g} Da" for symbol, mass in kinds[:5])
            notes.append(f"masses of the file are kept: {shown}")
    return notes


def _column(atoms: Atoms, name: str) -> np.ndarray | None:
    """Masses of the file, Da, under ASE's name; None where it has none."""
    if "mass" in atoms.arrays:  # ASE keeps a column of this name, and does not use it
        atoms.arrays.setdefault("masses", atoms.arrays["mass"])
        del atoms.arrays["mass"]
    if "masses" not in atoms.arrays:
        atoms.arrays.pop(PHYSICAL, None)
        return None
    return _positive(atoms, "masses", name)


def _positive(atoms: Atoms, column: str, name: str) -> np.ndarray:
    masses = numbers_of(atoms, column, name)
    bad = np.flatnonzero(masses <= 0)
    if len(bad):
        raise UserError(
            f"structure {name!r}: {column} of atom {bad[0]} is {masses[bad[0]]}: give masses above "
            "0 in Da, or leave the column out for natural ones."
        )
    return masses


def _looks_repartitioned(atoms: Atoms, given: np.ndarray, natural: np.ndarray) -> bool:
    heavier = (atoms.numbers == 1) & (given > natural + ISOTOPE_DA)
    if not heavier.any() or abs(given.sum() - natural.sum()) > SAME_MASS_DA * len(atoms):
        return False
    try:
        bonds = hydrogen_bonds_to_heavy(atoms)
    except UserError:
        return False
    excess = given - natural
    np.add.at(excess, bonds[:, 1], excess[bonds[:, 0]])
    return bool(np.abs(excess[atoms.numbers != 1]).max(initial=0.0) < 10 * SAME_MASS_DA)


def _heaviest_hydrogen(atoms: Atoms) -> float:
    return float(atoms.arrays["masses"][atoms.numbers == 1].max())


def repartitioned_masses(atoms: Atoms, hydrogen_mass_Da: float) -> np.ndarray:
    """Masses after moving mass from heavy atoms to their hydrogens.

    Parameters
    ----------
    atoms : ase.Atoms
        With its own masses, isotopes included, as `read_structure` leaves them.
    hydrogen_mass_Da : float
        0 leaves the masses as they are.

    Returns
    -------
    ndarray, shape (N,)
        Da.

    Raises
    ------
    UserError
        If a hydrogen is not bonded or heavier already, or a heavy atom would become too light.
    """
    masses = atoms.get_masses()
    if hydrogen_mass_Da == 0:
        return masses
    from integrators.hmr import repartition_hydrogen_mass

    bonds = hydrogen_bonds_to_heavy(atoms)
    try:
        return repartition_hydrogen_mass(
            atoms.numbers, masses, bonds, hydrogen_mass=hydrogen_mass_Da
        )
    except ValueError as error:
        raise UserError(f"hydrogen_mass_Da={hydrogen_mass_Da:g}: {error}") from error
