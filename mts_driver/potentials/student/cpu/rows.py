"""Neighbours of every atom in a row, from pairs listed once."""

from typing import NamedTuple

import numpy as np
from numba import njit

from mts_driver.errors import UserError
from mts_driver.potentials.student.cpu import kernels
from mts_driver.potentials.student.cpu.evaluator import ByElement, Near

COINCIDE_A = 1e-6
"""Closer atoms have no direction from one to the other, which the kernels divide by."""


class Rows(NamedTuple):
    """Neighbours within the cutoff and the skin, every pair in both directions.

    Attributes
    ----------
    first : int64 array, shape (M + 1,)
        Row a holds the entries from ``first[a]`` to before ``first[a + 1]``.
    neighbors, images : int64 arrays, shape (P,)
        Which atom, and which of its images.
    kind : int64 array, shape (M,)
        Index of every atom's element.
    by_element : ByElement
        Atoms with rows that count, sorted.
    names : int64 array, shape (M,)
        What the user calls the atoms.
    """

    first: np.ndarray
    neighbors: np.ndarray
    images: np.ndarray
    kind: np.ndarray
    by_element: ByElement
    names: np.ndarray

    def near(self, positions_A: np.ndarray, shifts_A: np.ndarray, cutoff_A: float) -> Near:
        """Those now within the cutoff, for positions (M, 3) and shifts (K, 3) of all images.

        Raises
        ------
        UserError
            If two atoms lie in the same place.
        """
        found = kernels.neighborhoods(
            positions_A, self.first, self.neighbors, self.images, shifts_A, cutoff_A
        )
        last, near, vectors, closest = found
        if closest.min(initial=np.inf) < COINCIDE_A:
            raise UserError(
                f"atom {int(self.names[closest.argmin()])} lies where another one does, within "
                f"{COINCIDE_A} Å: the trajectory has blown up, or the structure has atoms twice. "
                "Use a shorter time step, or relax the structure first (mts prepare --minimise)."
            )
        return Near(self.first, last, near, vectors, self.kind)


@njit(cache=True)
def compress(i, j, forth, back, atoms):
    """From pairs listed once to rows of neighbours, (atoms + 1,), (2P,) and (2P, ...).

    Every pair appears in both directions, with what is its own ``forth`` and ``back`` (P, ...).
    """
    first = np.zeros(atoms + 1, np.int64)
    for p in range(i.size):
        first[i[p] + 1] += 1
        first[j[p] + 1] += 1
    first = np.cumsum(first)
    place = first[:-1].copy()
    neighbors = np.empty(2 * i.size, np.int64)
    both = np.empty((2 * i.size, *forth.shape[1:]), forth.dtype)
    for p in range(i.size):
        k = place[i[p]]
        place[i[p]] += 1
        n = place[j[p]]  # after that: an atom may be next to its own image
        place[j[p]] += 1
        neighbors[k], both[k] = j[p], forth[p]
        neighbors[n], both[n] = i[p], back[p]
    return first, neighbors, both
