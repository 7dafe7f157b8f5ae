"""Verlet neighbour lists: built with vesin, kept until an atom has moved half a skin."""

from typing import NamedTuple

import numpy as np
import vesin
from numba import njit, prange
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Short = NDArray[np.int32]
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


class Stored(NamedTuple):
    """Pairs of a list with its skin, each once (i ≤ j).

    Attributes
    ----------
    i, j : int32 array, shape (P,)
        The two atoms.
    image : int32 array, shape (P,)
        Which image of j, an index of `VerletList.shifts`; ``last - image`` is the one on the other
        side.
    last : int
        The largest possible image.
    """

    i: Short
    j: Short
    image: Short
    last: int


class VerletList:
    """All pairs of atoms within ``cutoff_A`` of each other, from a list with a skin.

    vesin's own skin gives the same pairs, but in an order that depends on when the list was last
    rebuilt, so that float32 sums of a restarted run would differ from the uninterrupted one. Here
    the list is sorted when it is built, and dropping the pairs beyond the cutoff keeps the order.
    It also outlasts small changes of the cell, so that a barostat does not rebuild it every step.

    Parameters
    ----------
    cutoff_A : float
        Largest distance of a pair, Å.
    skin_A : float
        How much further the stored list reaches, Å; half of it where that ends within half a cell.
    """

    def __init__(self, *, cutoff_A: float, skin_A: float) -> None:
        self.cutoff_A = cutoff_A
        self.skin_A = skin_A
        self.builds = 0
        self._reference: tuple[Floats, Floats, float] | None = None
        none = np.zeros(0, np.int32)
        self._stored = Stored(none, none, none, 0)
        self._images: Floats = np.zeros((1, 3))
        self._shifts: tuple[Floats, Floats] = np.zeros((3, 3)), np.zeros((1, 3))

    def pairs(self, positions_A: Floats, cell_A: Floats) -> Pairs:
        """Pairs of the atoms at ``positions_A`` (N, 3) in ``cell_A`` (3, 3; zeros: isolated)."""
        positions_A = np.ascontiguousarray(positions_A, np.float64)
        i, j, image, _ = self.stored(positions_A, cell_A)
        return Pairs(*_within(positions_A, i, j, image, self.shifts(cell_A), self.cutoff_A))

    def stored(self, positions_A: Floats, cell_A: Floats) -> Stored:
        """All pairs within the cutoff, and some beyond."""
        if not self._is_valid(positions_A, cell_A):
            self._build(np.ascontiguousarray(positions_A, np.float64), np.array(cell_A, np.float64))
        return self._stored

    def shifts(self, cell_A: Floats) -> Floats:
        """Shifts (K, 3), Å, of all images in this cell: a pair is x_j + shift − x_i apart."""
        if not np.array_equal(cell_A, self._shifts[0]):
            cell = np.array(cell_A, np.float64)
            # one by one: a matrix product rounds differently with the number of rows
            x, y, z = (self._images[:, k, None] * cell[k] for k in range(3))
            self._shifts = cell, x + y + z
        return self._shifts[1]

    def _is_valid(self, positions_A: Floats, cell_A: Floats) -> bool:
        if self._reference is None:
            return False
        start, cell, reach = self._reference
        if not np.array_equal(cell_A, cell):
            if not cell.any() or not cell_A.any():
                return False
            # a pair that is not listed was further than the reach, and strain leaves it this far
            strain = np.linalg.solve(cell, cell_A)
            reach *= np.linalg.svd(strain, compute_uv=False)[-1]
            start = start @ strain
        moved = positions_A - start
        spare = max(reach - self.cutoff_A, 0.0)
        return bool(4.0 * np.einsum("na,na->n", moved, moved).max() < spare**2)

    def _build(self, positions_A: Floats, cell_A: Floats) -> None:
        reach = self._reach(cell_A)
        search = vesin.NeighborList(cutoff=reach, full_list=False)
        i, j, s = search.compute(positions_A, cell_A, bool(cell_A.any()), "ijS", copy=False)
        width = 2 * int(np.abs(s).max(initial=0)) + 1
        listed = _canonical(i, j, s, width)
        n = len(positions_A)
        # vesin's order is nearly this one, which makes the stable sort the fast one
        order = np.argsort(_keys(*listed, n, width**3), kind="stable")
        i, j, image = _ordered(*listed, order)
        self._stored = Stored(i, j, image, width**3 - 1)
        steps = np.arange(width, dtype=np.float64) - width // 2
        self._images = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
        self._shifts = np.full((3, 3), np.nan), self._images
        self._reference = (positions_A.copy(), cell_A, reach)
        self.builds += 1

    def _reach(self, cell_A: Floats) -> float:
        """Cutoff and skin; a little less where vesin would no longer divide the cell.

        Beyond half a cell it compares all atoms with all images, which takes ten times as long.
        """
        reach = self.cutoff_A + self.skin_A
        if not cell_A.any():
            return reach
        half = 0.5 / float(np.linalg.norm(np.linalg.inv(cell_A), axis=0).max())
        return half if self.cutoff_A + 0.5 * self.skin_A < half < reach else reach


@njit(parallel=True, cache=True)
def _canonical(i, j, shifts, width):
    """Turn pairs round to i ≤ j, with a fixed sign of the shift where i = j; number the images."""
    a, b = np.empty(i.size, np.int32), np.empty(i.size, np.int32)
    image = np.empty(i.size, np.int32)
    for p in prange(i.size):
        x, y, z = shifts[p, 0], shifts[p, 1], shifts[p, 2]
        a[p], b[p] = i[p], j[p]
        if i[p] > j[p] or (i[p] == j[p] and 4 * np.sign(x) + 2 * np.sign(y) + np.sign(z) < 0):
            a[p], b[p] = j[p], i[p]
            x, y, z = -x, -y, -z
        half = width // 2
        image[p] = ((x + half) * width + y + half) * width + z + half
    return a, b, image


@njit(parallel=True, cache=True)
def _keys(i, j, image, atoms, images):
    keys = np.empty(i.size, np.int64)
    for p in prange(i.size):
        keys[p] = (np.int64(i[p]) * atoms + j[p]) * images + image[p]
    return keys


@njit(parallel=True, cache=True)
def _ordered(i, j, image, order):
    a, b, c = np.empty_like(i), np.empty_like(j), np.empty_like(image)
    for p in prange(i.size):
        a[p], b[p], c[p] = i[order[p]], j[order[p]], image[order[p]]
    return a, b, c


@njit(parallel=True, cache=True)
def _within(x, i, j, image, shifts, cutoff):
    """Pairs of the stored list that are closer than ``cutoff`` now, in the list's order."""
    near = np.empty(i.size, np.bool_)
    starts = np.zeros(CHUNKS + 1, np.int64)
    for chunk in prange(CHUNKS):
        n = 0
        for p in range(i.size * chunk // CHUNKS, i.size * (chunk + 1) // CHUNKS):
            a, b, s = i[p], j[p], image[p]
            dx = x[b, 0] + shifts[s, 0] - x[a, 0]
            dy = x[b, 1] + shifts[s, 1] - x[a, 1]
            dz = x[b, 2] + shifts[s, 2] - x[a, 2]
            near[p] = dx * dx + dy * dy + dz * dz < cutoff * cutoff
            n += near[p]
        starts[chunk + 1] = n
    starts = np.cumsum(starts)
    vectors, distances = np.empty((starts[-1], 3)), np.empty(starts[-1])
    first, second = np.empty(starts[-1], np.int64), np.empty(starts[-1], np.int64)
    for chunk in prange(CHUNKS):
        n = starts[chunk]
        for p in range(i.size * chunk // CHUNKS, i.size * (chunk + 1) // CHUNKS):
            if near[p]:
                a, b, s = i[p], j[p], image[p]
                first[n], second[n] = a, b
                dx = x[b, 0] + shifts[s, 0] - x[a, 0]
                dy = x[b, 1] + shifts[s, 1] - x[a, 1]
                dz = x[b, 2] + shifts[s, 2] - x[a, 2]
                vectors[n, 0], vectors[n, 1], vectors[n, 2] = dx, dy, dz
                distances[n] = np.sqrt(dx * dx + dy * dy + dz * dz)
                n += 1
    return first, second, vectors, distances
