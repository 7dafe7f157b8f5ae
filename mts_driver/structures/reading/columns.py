"""Columns of numbers, one or three an atom, as files have them."""

import numpy as np
from ase import Atoms

from mts_driver.errors import UserError


def numbers_of(atoms: Atoms, column: str, name: str, *, each: int = 1) -> np.ndarray:
    """Return a column (N,), or (N, 3) with ``each=3``, as finite numbers.

    Raises
    ------
    UserError
        Naming the first atom where it has something else.
    """
    values = atoms.arrays[column]
    wanted = (len(atoms),) if each == 1 else (len(atoms), each)
    if values.shape != wanted:
        raise UserError(
            f"structure {name!r}: the column {column!r} has {values[0].size} values for each atom, "
            f"where {each} should be: correct it, or leave it out."
        )
    try:
        found = np.asarray(values, float)
    except ValueError as error:
        raise UserError(
            f"structure {name!r}: the column {column!r} is not of numbers ({error}): correct it, "
            "or leave it out."
        ) from error
    bad = np.flatnonzero(~np.isfinite(found).reshape(len(atoms), -1).all(axis=1))
    if len(bad):
        raise UserError(
            f"structure {name!r}: {column} of atom {bad[0]} is {values[bad[0]]}, not finite: "
            "repair the file, or leave the column out."
        )
    return found
