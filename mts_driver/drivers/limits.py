"""What a server may ask a model about: refused here, before a model sees it."""

import numpy as np

from mts_driver.errors import UserError
from mts_driver.units import BOHR_A

FURTHEST_BOHR = 1e9
"""Of an atom from the origin, and of the ends of a cell; models lose all digits beyond."""
THINNEST_A = 1.5
"""Between two faces of a cell, as in `mts_driver.structures.reading.checks`, whose libraries i-PI's
process need not load."""
SMALLEST_A3 = 0.5
"""Volume of an atom in a cell; of hydrogen at 500 GPa it is 1.2 Å³."""


def check_positions(positions: np.ndarray) -> None:
    """Refuse positions (B, N, 3), Bohr, of a trajectory that has blown up.

    Raises
    ------
    UserError
        If one is not finite, or further away than anything can be.
    """
    if not (positions.max() < FURTHEST_BOHR and positions.min() > -FURTHEST_BOHR):
        raise UserError(
            "the server sent positions that are not finite, or further away than "
            f"{FURTHEST_BOHR:g} Bohr: the trajectory has blown up. Use a shorter time step, or "
            "relax the structure first (mts prepare --minimise)."
        )


def check_cells(cells: np.ndarray, natoms: int) -> None:
    """Refuse cells (B, 3, 3), rows are lattice vectors, Bohr, which are neither zeros nor a box.

    Raises
    ------
    UserError
        If one is not finite, too large, too flat, or too small for its atoms.
    """
    for cell in cells:
        if not cell.any():
            continue  # an isolated molecule
        wrong = "is not finite"
        if np.abs(cell).max() < FURTHEST_BOHR:
            volume = abs(float(np.linalg.det(cell))) * BOHR_A**3
            faces = np.linalg.norm(np.cross(cell[[1, 2, 0]], cell[[2, 0, 1]]), axis=1) * BOHR_A**2
            thin = volume / faces.max() if faces.max() > 0 else 0.0
            if thin >= THINNEST_A and volume >= SMALLEST_A3 * natoms:
                continue
            wrong = f"has {volume:.3g} Å³ for {natoms} atoms and is {thin:.3g} Å thin"
        raise UserError(
            f"the server sent a cell that {wrong} (lattice vectors {cell.tolist()} Bohr): give the "
            "system a full three-dimensional cell, or none; if the cell changes, the barostat has "
            "blown up."
        )
