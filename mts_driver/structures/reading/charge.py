"""Total charge and spin of a structure, in the spellings that people use."""

import re
from typing import Any

import numpy as np
from ase import Atoms

from mts_driver.errors import UserError
from mts_driver.structures.reading.columns import numbers_of

CHARGE_KEYS = (
    *("charge", "total_charge", "net_charge", "molecular_charge", "charge_total"),
    *("formal_charge", "system_charge", "q", "qtot"),
)
MULTIPLICITY_KEYS = ("multiplicity", "spin_multiplicity", "mult", "total_multiplicity")
UNPAIRED_KEYS = (
    *("total_spin", "uhf", "unpaired", "unpaired_electrons", "num_unpaired_electrons"),
    "n_unpaired",
)
"""So3krates' ``total_spin`` is a number of unpaired electrons, as is xtb's ``uhf``."""
ATOM_CHARGES = ("initial_charges", "formal_charges", "charges")
ROUNDING_E = 0.05
"""Charges of atoms are printed with few digits: their sum may be off by so much."""


def read_charge(atoms: Atoms, name: str) -> list[str]:
    """Put the total charge and the multiplicity into ``info``, under one name each.

    Parameters
    ----------
    atoms : ase.Atoms
        ``info['charge']`` (int, e) is left out where it is 0, ``info['multiplicity']`` where it
        is 1; all other spellings are removed.
    name : str
        Of the file, for messages.

    Returns
    -------
    list of str
        Sentences for the user, where the charge was found in the charges of atoms.

    Raises
    ------
    UserError
        If spellings disagree, a value is no whole number, or electrons do not fit the spin.
    """
    notes: list[str] = []
    said = _take(atoms, CHARGE_KEYS)
    charges = {_whole(value, name, key) for key, value in said.items()}
    if len(charges) > 1:
        _disagree(said, name)
    summed = _sum_over_atoms(atoms, name, silent=not charges)
    if charges:
        charge = charges.pop()
        if summed is not None and round(summed) != charge:
            raise UserError(
                f"structure {name!r}: its header says a charge of {charge:+d} e, but the charges "
                f"of its atoms sum to {summed:+.2f} e: correct one of them."
            )
    else:
        charge = round(summed or 0.0)
        if charge:
            notes.append(f"total charge {charge:+d} e, the sum over its atoms")
    electrons = int(atoms.numbers.sum()) - charge
    if electrons < 0:
        raise UserError(
            f"structure {name!r} has a charge of {charge:+d} e, more than its {electrons + charge} "
            "electrons: correct it."
        )
    multiplicity, notes_of_spin = _multiplicity(atoms, electrons, name)
    if charge:
        atoms.info["charge"] = charge
    if multiplicity != 1:
        atoms.info["multiplicity"] = multiplicity
    return notes + notes_of_spin


def _multiplicity(atoms: Atoms, electrons: int, name: str) -> tuple[int, list[str]]:
    """2S + 1, as the file says it; a singlet where it says nothing."""
    said = _take(atoms, MULTIPLICITY_KEYS)
    found = {_whole(value, name, key) for key, value in said.items()}
    unpaired = _take(atoms, UNPAIRED_KEYS)
    found |= {_whole(value, name, key) + 1 for key, value in unpaired.items()}
    ambiguous = _take(atoms, ("spin",))
    for value in ambiguous.values():
        if _number(value, name, "spin") != 0 and found != {_whole(value, name, "spin")}:
            raise UserError(
                f"structure {name!r}: spin={value} may be 2S + 1, a number of unpaired electrons "
                "or S itself: write multiplicity=2S+1 instead, such as multiplicity=1 for a "
                "singlet."
            )
    if len(found) > 1:
        _disagree({**said, **unpaired}, name)
    moments = np.zeros(0)
    if "initial_magmoms" in atoms.arrays:
        moments = numbers_of(atoms, "initial_magmoms", name)
        del atoms.arrays["initial_magmoms"]
    cancel = [
        "its initial_magmoms sum to zero, and models are told a singlet: their pattern is not used"
    ] * bool(moments.any() and abs(moments.sum()) <= ROUNDING_E)
    if abs(moments.sum()) > ROUNDING_E:
        from_moments = round(float(abs(moments.sum()))) + 1
        if found and found != {from_moments}:
            _disagree({**said, **unpaired, "the sum of initial_magmoms": moments.sum()}, name)
        found = {from_moments}
    odd = electrons % 2 == 1
    if not found:
        return 1, cancel + (
            [
                f"an odd number of electrons ({electrons}): if this is an ion or a radical, write "
                "charge=... or multiplicity=... into its header"
            ]
            if odd
            else []
        )
    multiplicity = found.pop()
    if multiplicity < 1 or (multiplicity % 2 == 0) != odd or multiplicity > electrons + 1:
        raise UserError(
            f"structure {name!r}: {electrons} electrons cannot have the multiplicity "
            f"{multiplicity}: correct the charge or the multiplicity in its header."
        )
    return multiplicity, cancel


def _sum_over_atoms(atoms: Atoms, name: str, *, silent: bool) -> float | None:
    """Sum of the charges of atoms, None where the file has none (or only zeros)."""
    for key in ATOM_CHARGES:
        values = numbers_of(atoms, key, name) if key in atoms.arrays else np.zeros(0)
        if not values.any():
            continue
        total = float(values.sum())
        if not np.isfinite(total) or abs(total - round(total)) > ROUNDING_E:
            if not silent:
                continue  # the header has said it, partial charges are another matter
            raise UserError(
                f"structure {name!r}: the charges of its atoms ({key}) sum to {total:.3f} e, which "
                "is no whole charge: write charge=... into its header."
            )
        return total
    return None


def _take(atoms: Atoms, keys: tuple[str, ...]) -> dict[str, Any]:
    """Remove entries of ``info`` whose name is one of ``keys``, whatever its case."""
    plain = {re.sub("[^a-z]", "", key) for key in keys}
    mine = [key for key in atoms.info if re.sub("[^a-z]", "", str(key).lower()) in plain]
    return {str(key): atoms.info.pop(key) for key in mine}


def _number(value: Any, name: str, key: str) -> float:
    try:
        if isinstance(value, bool | np.bool_):
            raise ValueError
        number = float(np.asarray(value).item())
        if not np.isfinite(number):
            raise ValueError
    except (ValueError, TypeError):
        raise UserError(
            f"structure {name!r}: {key}={value!r} is no number: write it as {key}=-1."
        ) from None
    return number


def _whole(value: Any, name: str, key: str) -> int:
    number = _number(value, name, key)
    if abs(number - round(number)) > 1e-6:
        raise UserError(f"structure {name!r}: {key}={value} is no whole number: correct it.")
    return round(number)


def _disagree(said: dict[str, Any], name: str) -> None:
    shown = ", ".join(f"{key}={value}" for key, value in said.items())
    raise UserError(f"structure {name!r} says {shown}, which disagree: leave the right one.")
