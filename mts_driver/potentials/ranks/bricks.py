"""Space in bricks with equally many atoms, by recursive bisection, and what lies around a brick.

Lengths are measured along the normals of the faces of the cell: two atoms are never nearer to each
other than the difference of these coordinates, whatever the angles of the cell.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mts_driver.structures.neighbors import heights

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Bricks(NamedTuple):
    """All atoms, shared out.

    Attributes
    ----------
    atoms : list of int array
        The atoms of every brick, in ascending order.
    along : array, shape (N, 3)
        Coordinates along the normals, Å: within the cell, or where atoms have moved from there.
    period : array, shape (3,)
        After which they come again, Å; infinite without a cell.
    """

    atoms: list[Ints]
    along: Floats
    period: Floats

    def within_reach(self, brick: int, reach_A: float) -> Ints:
        """Atoms of a brick and all that are, along every normal, within ``reach_A`` of it."""
        own = self.along[self.atoms[brick]]
        if not len(own):
            return self.atoms[brick]
        near = np.ones(len(self.along), bool)
        for x, low, high, period in zip(
            self.along.T, own.min(0), own.max(0), self.period, strict=True
        ):
            # from the low end on, round the cell; without one, what is below it is infinitely far
            near &= (x - (low - reach_A)) % period <= high - low + 2 * reach_A
        return np.flatnonzero(near)

    def follow(self, positions_A: Floats, cell_A: Floats) -> "Bricks":
        """Return the same bricks of atoms, where these are now."""
        along, period = _along(positions_A, cell_A)
        if cell_A.any():
            along -= np.round((along - self.along) / period) * period
        return Bricks(self.atoms, along, period)


def bricks(positions_A: Floats, cell_A: Floats, count: int, leads: Ints | None = None) -> Bricks:
    """Share atoms (N, 3) in a cell (3, 3; zeros: isolated) out among ``count`` bricks.

    Atoms with the same one of ``leads`` (N,), which is one of them, are in the same brick.
    """
    along, period = _along(positions_A, cell_A)
    atoms = np.arange(len(positions_A))
    leads = atoms if leads is None else leads
    if cell_A.any():  # the image of an atom that is next to its lead
        along = along - np.round((along - along[leads]) / period) * period
    return Bricks(_halved(atoms, along, leads, count), along, period)


def _along(positions_A: Floats, cell_A: Floats) -> tuple[Floats, Floats]:
    """Coordinates along the normals, and after which they come again."""
    if not cell_A.any():
        return positions_A, np.full(3, np.inf)
    period = heights(cell_A)
    return (positions_A @ np.linalg.inv(cell_A)) % 1.0 * period, period


def _halved(atoms: Ints, along: Floats, leads: Ints, count: int) -> list[Ints]:
    """Cut across the longest side until there are so many bricks, of equal numbers of atoms."""
    if count == 1:
        return [np.sort(atoms)]
    lead = leads[atoms]
    here = along[lead]
    longest = int(np.ptp(here, axis=0).argmax()) if len(atoms) else 0
    # equal coordinates are told apart by the number of the atom, so that all ranks agree
    order = np.lexsort((atoms, lead, here[:, longest]))
    atoms, lead = atoms[order], lead[order]
    first = count // 2
    # those that stay together lie side by side; each brick has some, if there are so many
    ends = np.flatnonzero(np.diff(lead, prepend=-1, append=-1))
    ends = ends[first : max(len(ends) - count + first, first + 1)]
    cut = int(ends[np.abs(ends - len(atoms) * first // count).argmin()]) if len(ends) else 0
    first_half, second_half = np.split(atoms, [cut])
    return [
        *_halved(first_half, along, leads, first),
        *_halved(second_half, along, leads, count - first),
    ]
