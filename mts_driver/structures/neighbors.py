"""Verlet neighbour lists: built with vesin, kept until an atom has moved half a skin."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import vesin
from numba import njit, prange
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from mts_driver.errors import UserError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Short = NDArray[np.int32]
Search = Callable[[Floats, Floats, float], tuple[Short, Short, Short]]
CHUNKS = 16
"""Blocks of pairs that threads share."""
MOST_CELLS = 63
"""Between two neighbours, in coordinates that are not wrapped."""


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
        How much further the stored list reaches, Å.
    find : callable, optional
        Finds some of the pairs only, as `search` finds all; may number atoms anew.
    """

    def __init__(self, *, cutoff_A: float, skin_A: float, find: "Search | None" = None) -> None:
        self.cutoff_A = cutoff_A
        self.skin_A = skin_A
        self._search = find or search
        self.builds = 0
        self._reference: tuple[Floats, Floats, float] | None = None
        none = np.zeros(0, np.int32)
        self._stored = Stored(none, none, none, 0)
        self._images: Floats = np.zeros((1, 3))
        self._shifts: tuple[Floats, Floats] = np.zeros((3, 3)), np.zeros((1, 3))

    def pairs(self, positions_A: Floats, cell_A: Floats) -> Pairs:
        """Pairs of the atoms at ``positions_A`` (N, 3) in ``cell_A`` (3, 3; zeros: isolated)."""
        self.stored(positions_A, cell_A)
        return self.within(positions_A, cell_A)

    def within(self, positions_A: Floats, cell_A: Floats) -> Pairs:
        """Those of the list as it was last stored that are within the cutoff now."""
        x = np.ascontiguousarray(positions_A, np.float64)
        i, j, image, _ = self._stored
        return Pairs(*_within(x, i, j, image, self.shifts(cell_A), self.cutoff_A))

    def stored(self, positions_A: Floats, cell_A: Floats) -> Stored:
        """All pairs within the cutoff, and some beyond."""
        if not self.is_valid(positions_A, cell_A):
            self.build(positions_A, cell_A)
        return self._stored

    @property
    def last(self) -> Stored:
        """The list as it was last stored."""
        return self._stored

    def shifts(self, cell_A: Floats) -> Floats:
        """Shifts (K, 3), Å, of all images in this cell: a pair is x_j + shift − x_i apart."""
        if not np.array_equal(cell_A, self._shifts[0]):
            cell = np.array(cell_A, np.float64)
            # one by one: a matrix product rounds differently with the number of rows
            x, y, z = (self._images[:, k, None] * cell[k] for k in range(3))
            self._shifts = cell, x + y + z
        return self._shifts[1]

    def cells(self) -> Floats:
        """All images (K, 3) in numbers of cells, as `Stored.image` counts them."""
        return self._images

    def is_valid(
        self, positions_A: Floats, cell_A: Floats, atoms: "Ints | slice" = slice(None)
    ) -> bool:
        """Whether the list has all pairs still, as far as some of the atoms are concerned."""
        if self._reference is None:
            return False
        start, cell, reach = self._reference
        start = start[atoms]
        if not np.array_equal(cell_A, cell):
            if not cell.any() or not cell_A.any():
                return False
            # a pair that is not listed was further than the reach, and strain leaves it this far
            strain = np.linalg.solve(cell, cell_A)
            reach *= np.linalg.svd(strain, compute_uv=False)[-1]
            start = start @ strain
        moved = positions_A - start
        spare = max(reach - self.cutoff_A, 0.0)
        return bool(4.0 * np.einsum("na,na->n", moved, moved).max(initial=0.0) < spare**2)

    def build(self, positions_A: Floats, cell_A: Floats) -> None:
        """Make it anew."""
        positions_A = np.ascontiguousarray(positions_A, np.float64)
        cell_A = np.array(cell_A, np.float64)
        if not np.isfinite(positions_A).all():
            raise UserError("positions are not finite: the trajectory has blown up.")
        reach = self.cutoff_A + self.skin_A
        half = 0.5 * float(heights(cell_A).max()) if cell_A.any() else np.inf
        if self.cutoff_A + 0.5 * self.skin_A < half < reach:
            # a little less of a skin costs less than several images
            reach = (1.0 - 1e-9) * half
        i, j, s = self._search(positions_A, cell_A, reach)
        furthest = int(np.abs(s).max(initial=0))
        if furthest > MOST_CELLS:
            raise UserError(
                f"neighbours lie more than {MOST_CELLS} cells apart ({cell_A.tolist()} Å): wrap "
                "the positions into the cell; where a trajectory went there by itself it blew up: "
                "shorten the time step, or look at the model."
            )
        width = 2 * furthest + 1
        self._stored = Stored(i, j, _number(s, width), width**3 - 1)
        self._images = _images(np.full(3, width // 2))
        self._shifts = np.full((3, 3), np.nan), self._images
        self._reference = (positions_A.copy(), cell_A, reach)
        self.builds += 1


def heights(cell_A: Floats) -> Floats:
    """Distances between opposite faces of a cell."""
    return 1.0 / np.linalg.norm(np.linalg.inv(cell_A), axis=0)


def _images(most: NDArray[Any]) -> Floats:
    """Cells (K, 3) up to so many steps away, in lexical order."""
    steps = [np.arange(-n, n + 1, dtype=np.float64) for n in most]
    return np.stack(np.meshgrid(*steps, indexing="ij"), -1).reshape(-1, 3)


def search(positions_A: Floats, cell_A: Floats, reach_A: float) -> tuple[Short, Short, Short]:
    """Atoms and shifts, in cells, of all pairs within ``reach_A``, in the order of `Stored`."""
    if not cell_A.any():
        wide = _too_flat(np.ptp(positions_A, axis=0), reach_A)
        return (_in_a_tree if wide else _vesin)(positions_A, cell_A, reach_A)
    between = heights(cell_A)
    if reach_A > MOST_CELLS * between.min() or _too_flat(between, reach_A):
        raise UserError(
            f"a cell of the heights {between.tolist()} Å is too flat for neighbours within "
            f"{reach_A:g} Å: give the true cell, or none."
        )
    find = _in_small_cell if 0.5 * between.max() < reach_A else _vesin
    turns = np.floor(positions_A @ np.linalg.inv(cell_A))
    if np.abs(turns).max(initial=0.0) < 1e6:
        return find(positions_A, cell_A, reach_A)
    # so many cells would not fit into integers, here or in vesin
    i, j, s = find(positions_A - turns @ cell_A, cell_A, reach_A)
    apart = s + turns[i] - turns[j]
    return i, j, np.clip(apart, -MOST_CELLS - 1, MOST_CELLS + 1).astype(np.int32)


def _too_flat(extents_A: Floats, reach_A: float) -> bool:
    """Tell what vesin cannot divide into its cells, of which it takes 10⁵ at most.

    It shares them out in proportion, and divides by zero where less than one is left.
    """
    cells = np.maximum(np.floor(extents_A / reach_A), 1.0)
    shrink = np.cbrt(cells).prod() / np.cbrt(1e5)
    return bool(shrink > 1.0 and cells.min() < 2.0 * shrink)


def _in_a_tree(positions_A: Floats, cell_A: Floats, reach_A: float) -> tuple[Short, Short, Short]:
    """Find the same where a molecule's atoms are scattered over a wide space, without a cell."""
    found = cKDTree(positions_A).query_pairs(reach_A, output_type="ndarray")
    found = found[np.lexsort(found.T[::-1])].astype(np.int32)
    return found[:, 0].copy(), found[:, 1].copy(), np.zeros((len(found), 3), np.int32)


def _vesin(positions_A: Floats, cell_A: Floats, reach_A: float) -> tuple[Short, Short, Short]:
    """Atoms and shifts, in cells, of all pairs."""
    search = vesin.NeighborList(cutoff=reach_A, full_list=False)
    found = search.compute(positions_A, cell_A, bool(cell_A.any()), "ijS", copy=False)
    i, j, s = _canonical(*found)
    # vesin's order is nearly this one, which makes the stable sort the fast one
    width = 2 * MOST_CELLS + 1
    keys = _keys(i, j, _number(s, width), len(positions_A), width**3)
    order = np.argsort(keys, kind="stable")
    return i[order], j[order], s[order]


def _in_small_cell(
    positions_A: Floats, cell_A: Floats, reach_A: float
) -> tuple[Short, Short, Short]:
    """Find the same where pairs have several images, two to four times as fast as vesin does."""
    turns = np.floor(positions_A @ np.linalg.inv(cell_A))
    most = np.floor(reach_A / heights(cell_A)) + 1
    images = _images(most.astype(int))
    wrapped = positions_A - turns @ cell_A
    i, j, image = _among_images(wrapped, images @ cell_A, reach_A)
    return i, j, (images[image] - turns[j] + turns[i]).astype(np.int32)


@njit(parallel=True, cache=True)
def _canonical(i, j, shifts):
    """Turn pairs round to i ≤ j, with a fixed sign of the shift where i = j."""
    a, b = np.empty(i.size, np.int32), np.empty(i.size, np.int32)
    s = np.empty((i.size, 3), np.int32)
    for p in prange(i.size):
        x, y, z = shifts[p, 0], shifts[p, 1], shifts[p, 2]
        back = i[p] > j[p]
        if i[p] == j[p]:
            back = 4 * np.sign(x) + 2 * np.sign(y) + np.sign(z) < 0
        a[p], b[p] = (j[p], i[p]) if back else (i[p], j[p])
        s[p, 0], s[p, 1], s[p, 2] = (-x, -y, -z) if back else (x, y, z)
    return a, b, s


@njit(parallel=True, cache=True)
def _keys(i, j, image, atoms, images):
    keys = np.empty(i.size, np.int64)
    for p in prange(i.size):
        keys[p] = (np.int64(i[p]) * atoms + j[p]) * images + image[p]
    return keys


@njit(parallel=True, cache=True)
def _number(shifts, width):
    """Return the numbers of images in the order of `_images`."""
    image, half = np.empty(len(shifts), np.int32), width // 2
    for p in prange(len(shifts)):
        x, y, z = shifts[p, 0] + half, shifts[p, 1] + half, shifts[p, 2] + half
        image[p] = (x * width + y) * width + z
    return image


@njit(parallel=True, cache=True)
def _among_images(x, shifts, reach):
    """All pairs of atoms inside one cell and their images, in the order of `Stored`."""
    atoms, images = len(x), len(shifts)
    sx, sy, sz = shifts[:, 0].copy(), shifts[:, 1].copy(), shifts[:, 2].copy()
    starts = np.zeros(atoms + 1, np.int64)
    for k in prange(atoms):
        a = k // 2 if k % 2 else atoms - 1 - k // 2  # the first ones have more to do
        n = 0
        for b in range(a, atoms):
            dx, dy, dz = x[b, 0] - x[a, 0], x[b, 1] - x[a, 1], x[b, 2] - x[a, 2]
            # of an atom's own images one half, without itself
            for s in range(0 if b > a else images // 2 + 1, images):
                r2 = (dx + sx[s]) ** 2 + (dy + sy[s]) ** 2 + (dz + sz[s]) ** 2
                n += r2 < reach * reach
        starts[a + 1] = n
    starts = np.cumsum(starts)
    i, j = np.empty(starts[-1], np.int32), np.empty(starts[-1], np.int32)
    image = np.empty(starts[-1], np.int32)
    for k in prange(atoms):
        a = k // 2 if k % 2 else atoms - 1 - k // 2
        n = starts[a]
        for b in range(a, atoms):
            dx, dy, dz = x[b, 0] - x[a, 0], x[b, 1] - x[a, 1], x[b, 2] - x[a, 2]
            for s in range(0 if b > a else images // 2 + 1, images):
                r2 = (dx + sx[s]) ** 2 + (dy + sy[s]) ** 2 + (dz + sz[s]) ** 2
                if r2 < reach * reach:
                    i[n], j[n], image[n] = a, b, s
                    n += 1
    return i, j, image


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
