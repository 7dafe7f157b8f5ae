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
        Coordinates along the normals, within the cell, Å.
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
            # how far outside, to either side; round the cell where there is one
            outside = np.minimum((low - x) % period, (x - high) % period)
            near &= (outside <= reach_A) | ((low <= x) & (x <= high))
        return np.flatnonzero(near)


def bricks(positions_A: Floats, cell_A: Floats, count: int) -> Bricks:
    """Share atoms (N, 3) in a cell (3, 3; zeros: isolated) out among ``count`` bricks."""
    if cell_A.any():
        period = heights(cell_A)
        along = (positions_A @ np.linalg.inv(cell_A)) % 1.0 * period
    else:
        period = np.full(3, np.inf)
        along = positions_A
    return Bricks(_halved(np.arange(len(positions_A)), along, count), along, period)


def _halved(atoms: Ints, along: Floats, count: int) -> list[Ints]:
    """Cut across the longest side until there are so many bricks, of equal numbers of atoms."""
    if count == 1:
        return [np.sort(atoms)]
    here = along[atoms]
    longest = int(np.ptp(here, axis=0).argmax()) if len(atoms) else 0
    # equal coordinates are told apart by the number of the atom, so that all ranks agree
    sorted_ = atoms[np.lexsort((atoms, here[:, longest]))]
    first = count // 2
    cut = len(atoms) * first // count
    return _halved(sorted_[:cut], along, first) + _halved(sorted_[cut:], along, count - first)
