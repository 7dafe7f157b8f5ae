"""What no simulation can start from, refused by name."""

import numpy as np
from ase import Atoms
from ase.data import atomic_masses
from scipy.spatial import cKDTree

from mts_driver.errors import UserError

COINCIDE_A = 0.4
"""Closer atoms are one atom twice, or a cell that is too small: H2 has 0.74 Å."""
THINNEST_A = 1.5
"""Between two faces of a cell; the thinnest primitive cells of solids have 2 Å."""
DENSEST_G_CM3 = 30.0
"""Osmium has 22.6."""
FURTHEST_A = 1e6
"""From the origin: positions beyond lose the digits that forces need."""

_G_CM3 = 1.66053907
"""g/cm³ of 1 Da/Å³."""


def check_structure(atoms: Atoms, name: str) -> None:
    """Require finite numbers, known elements, a cell that can be one, and atoms apart.

    Raises
    ------
    UserError
        Naming the first atom that is wrong.
    """
    _check_numbers(atoms, name)
    _check_cell(atoms, name)
    _check_apart(atoms, name)


def _check_numbers(atoms: Atoms, name: str) -> None:
    bad = np.flatnonzero(~np.isfinite(atoms.positions).all(axis=1))
    if len(bad):
        raise UserError(
            f"structure {name!r}: the position of atom {bad[0]} is not finite (NaN or infinite; "
            f"{len(bad)} such atoms): repair the file."
        )
    far = np.flatnonzero(np.abs(atoms.positions).max(axis=1) > FURTHEST_A)
    if len(far):
        raise UserError(
            f"structure {name!r}: atom {far[0]} is {np.abs(atoms.positions).max():.3g} Å from the "
            "origin: repair the file, or move the atoms into the cell."
        )
    if not np.isfinite(atoms.cell.array).all():
        raise UserError(f"structure {name!r}: the cell is not finite: repair the file.")
    if (atoms.numbers < 1).any():
        first = int(np.flatnonzero(atoms.numbers < 1)[0])
        raise UserError(f"structure {name!r}: atom {first} is of no known element: name it.")


def _check_cell(atoms: Atoms, name: str) -> None:
    if not atoms.pbc.any():
        return
    if not (atoms.pbc.all() and abs(atoms.cell.volume) > 0):
        raise UserError(
            f"structure {name!r} is periodic along {atoms.pbc.tolist()} with the cell lengths "
            f"{atoms.cell.lengths().tolist()} Å: give a full three-dimensional cell (of a slab or "
            "wire with vacuum, wider than the model's cutoff, along the others), or none."
        )
    areas = np.linalg.norm(
        np.cross(atoms.cell.array[[1, 2, 0]], atoms.cell.array[[2, 0, 1]]), axis=1
    )
    thin = abs(atoms.cell.volume) / areas.max()
    if not thin >= THINNEST_A:
        raise UserError(
            f"structure {name!r}: its cell is {thin:.3g} Å thin (lengths "
            f"{np.round(atoms.cell.lengths(), 3).tolist()} Å), a placeholder or in other units: "
            "give the true cell, or none (pbc='F F F') for an isolated molecule."
        )
    density = atomic_masses[atoms.numbers].sum() / abs(atoms.cell.volume) * _G_CM3
    if density > DENSEST_G_CM3:
        raise UserError(
            f"structure {name!r} has {density:.3g} g/cm³ in its cell, denser than any solid: is "
            "the cell that of these atoms, and in Å?"
        )


def _check_apart(atoms: Atoms, name: str) -> None:
    x, number = _with_images(atoms)
    pairs = cKDTree(x).query_pairs(COINCIDE_A, output_type="ndarray")
    if len(pairs) == 0:
        return
    distances = np.linalg.norm(x[pairs[:, 0]] - x[pairs[:, 1]], axis=1)
    k = int(np.argmin(distances))
    first, second = sorted(number[pairs[k]].tolist())
    directly = np.linalg.norm(atoms.positions[first] - atoms.positions[second])
    image = "" if directly <= COINCIDE_A else " (a periodic image)"
    raise UserError(
        f"structure {name!r}: atoms {first} and {second}{image} are {distances[k]:.2g} Å apart "
        f"({len(pairs)} such pairs): remove atoms that are there twice, or give the true cell."
    )


def _with_images(atoms: Atoms) -> tuple[np.ndarray, np.ndarray]:
    """Positions (M, 3) with those images that may be too close, and whose they are (M,).

    A cell has been checked before: it is thicker than that.
    """
    x, number = atoms.positions, np.arange(len(atoms))
    if not atoms.pbc.all():
        return x, number
    inverse = np.linalg.inv(atoms.cell.array)
    x = x - np.floor(x @ inverse) @ atoms.cell.array
    margins = COINCIDE_A * np.linalg.norm(inverse, axis=0)
    for vector, column, margin in zip(atoms.cell.array, inverse.T, margins, strict=True):
        low = x @ column < margin
        x, number = np.concatenate([x, x[low] + vector]), np.concatenate([number, number[low]])
    return x, number
