"""Tables of a molecular force field, and which of its molecules a set of atoms is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from mts_driver.errors import UserError
from mts_driver.structures.neighbors import Ints

NEUTRAL = "neutral"
"""In place of a charge: what makes the type's molecule neutral."""


@dataclass(frozen=True)
class AtomType:
    """A type of atoms.

    Attributes
    ----------
    element : str
        Its symbol.
    charge_e : float, None or ``neutral``
        None: no charge, now and ever.
    """

    element: str
    charge_e: float | str | None = None


@dataclass(frozen=True)
class Molecule:
    """A molecule, or a single atom.

    Attributes
    ----------
    types : tuple of str
        Of its atoms, in their order.
    bonds : tuple of pairs of int
        Which of them are bonded; angles are between all pairs of bonds that share an atom.
    """

    types: tuple[str, ...]
    bonds: tuple[tuple[int, int], ...] = ()

    @property
    def angles(self) -> tuple[tuple[int, int, int], ...]:
        """Triples of atoms, the middle one second."""
        found = []
        for (a, b), (c, d) in combinations(self.bonds, 2):
            for middle in {a, b} & {c, d}:
                first, last = (p + q - middle for p, q in ((a, b), (c, d)))
                found.append((first, middle, last))
        return tuple(found)


@dataclass(frozen=True)
class ForceField:
    """All numbers of a molecular force field.

    Attributes
    ----------
    types : mapping of str to AtomType
        Types of atoms by their names.
    molecules : mapping of str to Molecule
        What systems may be made of.
    form : str
        The van der Waals function, a name in `FORMS`.
    van_der_waals : mapping of str to mapping
        Its parameters for those types that have such an interaction.
    bonds, angles : mapping of str to mapping
        ``bond_k_eV_A2`` and ``bond_length_A``, ``angle_k_eV_rad2`` and ``angle_rad`` of types
        such as ``OW-HW`` and ``HW-OW-HW``: ½ k (q − q₀)².
    cutoff_A, switch_A : float
        Of van der Waals and electrostatic interactions, and where they begin to be switched off.
    damping_per_A : float
        α of the damped electrostatics.
    shared : mapping of str to float
        Parameters and constants of the form that all types have in common.
    """

    types: Mapping[str, AtomType]
    molecules: Mapping[str, Molecule]
    form: str
    van_der_waals: Mapping[str, Mapping[str, float]]
    cutoff_A: float
    switch_A: float
    damping_per_A: float = 0.2
    bonds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    angles: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    shared: Mapping[str, float] = field(default_factory=dict)


class Assigned(NamedTuple):
    """Atoms with their types, bonds and angles.

    Attributes
    ----------
    types : list of str, length N
        Names of types.
    bonds, angles : int arrays, shapes (B, 2) and (A, 3)
        Atoms.
    bond_names, angle_names : list of str
        Keys of their parameters.
    excluded : int array, shape (X, 2)
        Pairs of atoms one or two bonds apart.
    """

    types: list[str]
    bonds: Ints
    angles: Ints
    bond_names: list[str]
    angle_names: list[str]
    excluded: Ints


def assign(force_field: ForceField, numbers: Sequence[int]) -> Assigned:
    """Divide atoms, which come molecule by molecule, into the molecules of a force field.

    Parameters
    ----------
    numbers : sequence of int, length N
        Atomic numbers. Where two molecules begin alike, the longer one is tried first.

    Raises
    ------
    UserError
        If they are not such molecules one after the other, two molecules look the same, or a bond
        or angle has no parameters.
    """
    kinds = {}
    for name, molecule in force_field.molecules.items():
        elements = [force_field.types[kind].element for kind in molecule.types]
        kinds[name] = tuple(atomic_numbers[element] for element in elements)
    if len(set(kinds.values())) < len(kinds):
        raise UserError(
            f"molecules {', '.join(kinds)}: two have the same elements in the same order, so that "
            "atoms cannot be told apart: leave one out."
        )
    by_length = sorted(kinds, key=lambda name: -len(kinds[name]))
    numbers, start = tuple(int(z) for z in numbers), 0
    types: list[str] = []
    bonds: list[tuple[int, ...]] = []
    angles: list[tuple[int, ...]] = []
    while start < len(numbers):
        fits = [n for n in by_length if numbers[start : start + len(kinds[n])] == kinds[n]]
        if not fits:
            raise UserError(_no_molecule(numbers, start, kinds))
        molecule = force_field.molecules[fits[0]]
        types += molecule.types
        bonds += [(start + a, start + b) for a, b in molecule.bonds]
        angles += [(start + a, start + b, start + c) for a, b, c in molecule.angles]
        start += len(molecule.types)
    ends = {tuple(sorted((a, c))) for a, _, c in angles} | {tuple(sorted(b)) for b in bonds}
    return Assigned(
        types,
        np.array(bonds, np.int64).reshape(-1, 2),
        np.array(angles, np.int64).reshape(-1, 3),
        [_key(force_field.bonds, [types[a] for a in bond], "bonds") for bond in bonds],
        [_key(force_field.angles, [types[a] for a in angle], "angles") for angle in angles],
        np.array(sorted(ends), np.int64).reshape(-1, 2),
    )


def _key(known: Mapping[str, Any], types: list[str], what: str) -> str:
    """Find the key of a bond or an angle, which may be written from either end."""
    for names in (types, types[::-1]):
        if (key := "-".join(names)) in known:
            return key
    raise UserError(
        f"{what} has nothing for {'-'.join(types)}: it knows {', '.join(known) or 'none'}."
    )


def _no_molecule(numbers: tuple[int, ...], start: int, kinds: Mapping[str, tuple[int, ...]]) -> str:
    def formula(some: tuple[int, ...]) -> str:
        return " ".join(
            chemical_symbols[z] if 0 < z < len(chemical_symbols) else str(z) for z in some
        )

    known = "; ".join(f"{name}: {formula(one)}" for name, one in kinds.items())
    return (
        f"the atoms from number {start} (counted from 0), {formula(numbers[start : start + 6])}, "
        f"begin no molecule of the force field ({known}): atoms must come molecule by molecule, "
        "in this order."
    )


def charge_matrix(force_field: ForceField) -> tuple[list[str], list[str], np.ndarray]:
    """Types with charges, those whose charge is a parameter, and the matrix from these to those.

    Raises
    ------
    UserError
        If a molecule has several types that make it neutral, or one that makes two molecules
        neutral does so with different charges.
    """
    charged = [name for name, kind in force_field.types.items() if kind.charge_e is not None]
    free = [name for name in charged if force_field.types[name].charge_e != NEUTRAL]
    matrix = np.zeros((len(charged), len(free)))
    for column, name in enumerate(free):
        matrix[charged.index(name), column] = 1.0
    seen: dict[str, np.ndarray] = {}
    for title, molecule in force_field.molecules.items():
        balancing = {t for t in molecule.types if t in charged and t not in free}
        if not balancing:
            continue
        (name, *others) = sorted(balancing)
        counts = np.array([molecule.types.count(one) for one in free], float)
        row = -counts / molecule.types.count(name)
        if others or not np.array_equal(seen.setdefault(name, row), row):
            raise UserError(
                f"molecules.{title}: a molecule can have one type with charge_e='{NEUTRAL}', and "
                f"{name!r} must get the same charge in all molecules: give it a type of its own."
            )
        matrix[charged.index(name)] = row
    return charged, free, matrix
