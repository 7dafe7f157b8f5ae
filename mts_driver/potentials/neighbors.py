"""Verlet neighbour lists: built with vesin, kept until an atom has moved half a skin."""

from typing import NamedTuple

import numpy as np
import vesin
from numba import njit, prange
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
CHUNKS = 16
"""Blocks of pairs that threads share."""


class Pairs(NamedTuple):
    """Pairs of atoms closer than the cutoff, each once (i ≤ j), in lexical order.

    Attributes
    ----------
    i, j : int64 array, shape (P,)
        The two atoms.
    vectors : float64 array, shape (P, 3)
        x_j + shift − x_i, Å.
    distances : float64 array, shape (P,)
        Their lengths, Å.
    """

    i: Ints
    j: Ints
    vectors: Floats
    distances: Floats


class VerletList:
    """All pairs of atoms within ``cutoff_A`` of each other, from a list with a skin.

    vesin's own skin gives the same pairs, but in an order that depends on when the list was last
    rebuilt, so that float32 sums of a restarted run would differ from the uninterrupted one. Here
    the list is sorted when it is built, and dropping the pairs beyond the cutoff keeps the order.

    Parameters
    ----------
    cutoff_A : float
        Largest distance of a pair, Å.
    skin_A : float
        How much further the stored list reaches, Å.
    """

    def __init__(self, *, cutoff_A: float, skin_A: float) -> None:
        self.cutoff_A = cutoff_A
        self.skin_A = skin_A
        self.builds = 0
        self._search = vesin.NeighborList(cutoff=cutoff_A + skin_A, full_list=False)
        self._reference: tuple[Floats, Floats] | None = None
        self._i = self._j = np.zeros(0, np.int64)
        self._shifts = np.zeros((0, 3))

    def pairs(self, positions_A: Floats, cell_A: Floats) -> Pairs:
        """Pairs of the atoms at ``positions_A`` (N, 3) in ``cell_A`` (3, 3; zeros: isolated)."""
        positions_A = np.ascontiguousarray(positions_A, np.float64)
        return Pairs(*_within(positions_A, *self.stored(positions_A, cell_A), self.cutoff_A))

    def stored(self, positions_A: Floats, cell_A: Floats) -> tuple[Ints, Ints, Floats]:
        """Atoms i, j and shifts (P, 3), Å, of all pairs within the cutoff, and of some beyond."""
        if not self._is_valid(positions_A, cell_A):
            self._build(np.ascontiguousarray(positions_A, np.float64), np.array(cell_A, np.float64))
        return self._i, self._j, self._shifts

    def _is_valid(self, positions_A: Floats, cell_A: Floats) -> bool:
        if self._reference is None or not np.array_equal(cell_A, self._reference[1]):
            return False
        moved = positions_A - self._reference[0]
        return bool(4.0 * np.einsum("na,na->n", moved, moved).max() < self.skin_A**2)

    def _build(self, positions_A: Floats, cell_A: Floats) -> None:
        i, j, shifts = self._search.compute(positions_A, cell_A, bool(cell_A.any()), "ijS")
        keys = _canonical(i, j, shifts, len(positions_A))
        # vesin's order is nearly this one, which makes the stable sort the fast one
        order = np.argsort(keys, kind="stable")
        self._i, self._j, self._shifts = _ordered(i, j, shifts, order, cell_A)
        self._reference = (positions_A.copy(), cell_A)
        self.builds += 1


@njit(cache=True)
def _canonical(i, j, shifts, atoms):
    """Turn pairs round to i ≤ j, with a fixed sign of the shift where i = j; return sort keys."""
    keys = np.empty(i.size, np.int64)
    for p in range(i.size):
        lead = 4 * np.sign(shifts[p, 0]) + 2 * np.sign(shifts[p, 1]) + np.sign(shifts[p, 2])
        if i[p] > j[p] or (i[p] == j[p] and lead < 0):
            i[p], j[p] = j[p], i[p]
            shifts[p] = -shifts[p]
        # shifts lie within ±2⁶ cells
        image = ((shifts[p, 0] + 64) * 128 + shifts[p, 1] + 64) * 128 + shifts[p, 2] + 64
        keys[p] = (np.int64(i[p]) * atoms + np.int64(j[p])) * 128**3 + image
    return keys


@njit(cache=True)
def _ordered(i, j, shifts, order, cell):
    """Take the pairs in ``order``, the shifts in Å."""
    a, b = np.empty(i.size, np.int64), np.empty(i.size, np.int64)
    vectors = np.empty((i.size, 3))
    for n in range(i.size):
        p = order[n]
        a[n], b[n] = i[p], j[p]
        for k in range(3):
            vectors[n, k] = (
                shifts[p, 0] * cell[0, k] + shifts[p, 1] * cell[1, k] + shifts[p, 2] * cell[2, k]
            )
    return a, b, vectors


@njit(parallel=True, cache=True)
def _within(x, i, j, shifts, cutoff):
    """Pairs of the stored list that are closer than ``cutoff`` now, in the list's order."""
    near = np.empty(i.size, np.bool_)
    starts = np.zeros(CHUNKS + 1, np.int64)
    for chunk in prange(CHUNKS):
        n = 0
        for p in range(i.size * chunk // CHUNKS, i.size * (chunk + 1) // CHUNKS):
            dx = x[j[p], 0] + shifts[p, 0] - x[i[p], 0]
            dy = x[j[p], 1] + shifts[p, 1] - x[i[p], 1]
            dz = x[j[p], 2] + shifts[p, 2] - x[i[p], 2]
            near[p] = dx * dx + dy * dy + dz * dz < cutoff * cutoff
            n += near[p]
        starts[chunk + 1] = n
    starts = np.cumsum(starts)
    vectors, distances = np.empty((starts[-1], 3)), np.empty(starts[-1])
    a, b = np.empty(starts[-1], np.int64), np.empty(starts[-1], np.int64)
    for chunk in prange(CHUNKS):
        n = starts[chunk]
        for p in range(i.size * chunk // CHUNKS, i.size * (chunk + 1) // CHUNKS):
            if near[p]:
                a[n], b[n] = i[p], j[p]
                dx = x[j[p], 0] + shifts[p, 0] - x[i[p], 0]
                dy = x[j[p], 1] + shifts[p, 1] - x[i[p], 1]
                dz = x[j[p], 2] + shifts[p, 2] - x[i[p], 2]
                vectors[n, 0], vectors[n, 1], vectors[n, 2] = dx, dy, dz
                distances[n] = np.sqrt(dx * dx + dy * dy + dz * dz)
                n += 1
    return a, b, vectors, distances
