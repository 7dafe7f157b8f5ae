"""Pairs within the short cutoff, each once, in arrays of a fixed length on the device."""

from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from integrators.device.launches import IN_BLOCKS, RANK, launch, shared, warp
from mts_driver.potentials.so3lr.device.attention import Rows
from mts_driver.structures.neighbor_matrix import NeighborMatrix

SPARE = 1.2
"""How many more pairs there is room for than there are in the structure as it is."""
THREADS = 128
"""Of an atom, on a GPU."""


class Owned(NamedTuple):
    """Atoms of a process, which are its first ones; pairs with one of them are its own, or half.

    Attributes
    ----------
    count : int
        How many of them there are.
    names : int32 Tensor, shape (M,)
        What numbers all atoms have for all processes: a pair of two of them is that of the atom
        with the larger one if they add up to an odd number, and else that of the other.
    """

    count: int
    names: Tensor


class ShortPairs:
    """Those of a `NeighborMatrix` that are nearer than its cutoff now.

    What is left over of the arrays holds atoms beside themselves, twice the cutoff away, where
    nothing acts.

    Parameters
    ----------
    near : NeighborMatrix
        Within the cutoff and a skin; up to date.
    positions, cells : float64 Tensors, shapes (R, N, 3) and (R, 3, 3)
        From which the length of the arrays is found; this waits for the device.
    least : int
        Length that they have at least.
    owned : Owned, optional
        Whose pairs they are, where other processes have those of other atoms.

    Attributes
    ----------
    rows : Rows
        Pairs of every atom, of the last call.
    told : int32 Tensor, shape (2,)
        The second is above zero if that had more pairs than there is room for.
    """

    def __init__(
        self,
        near: NeighborMatrix,
        positions: Tensor,
        cells: Tensor,
        *,
        least: int = 0,
        owned: Owned | None = None,
    ) -> None:
        self._near = near
        self._atoms, length = near.neighbors.shape
        device = near.neighbors.device
        whole_of_them = torch.zeros(self._atoms, dtype=torch.int32, device=device)
        self._owned = owned or Owned(self._atoms, whole_of_them)
        self._kernels = pair_kernels(device.type)

        def whole(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.int32, device=device)

        self._place, self._mine = whole(self._atoms, length), whole(self._atoms)
        self.told = whole(2)
        rows = (whole(self._atoms, length) for _ in range(2))
        self.rows = Rows(*rows, *(whole(self._atoms) for _ in range(2)), self._mine)
        self._count(positions, cells)
        self.length = max(int(SPARE * int(self._mine.sum())) + 64, least)
        self._alone = torch.arange(self.length, device=device) % self._owned.count
        self._apart = torch.zeros(self.length, 3, dtype=torch.float64, device=device)
        self._apart[:, 0] = 2.0 * near.cutoff_A

    def __call__(self, positions: Tensor, cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Atoms i and j (P,) and the vectors (P, 3) from i to j, Å, float64; waits for nothing."""
        near, wp, kernels = self._near, warp(), self._kernels
        self._count(positions, cells)
        torch.cumsum(self._mine, 0, dtype=torch.int32, out=self.rows.ends)
        i, j, apart = (a[: self.length].clone() for a in (self._alone, self._alone, self._apart))
        launch(
            *(kernels.put, (self._atoms, kernels.threads), near.neighbors, near.count),
            *(shared(near.images, wp.vec3i), shared(positions.reshape(-1, 3), wp.vec3d)),
            *(shared(cells, wp.mat33d), positions.shape[1], self._place, self._mine),
            *(self.rows.ends, self.length, i, j, shared(apart, wp.vec3d), *self.rows[:3]),
            self.told,
            block=kernels.threads,
        )
        return i, j, apart

    def gather(self, apart: Tensor, pull: Tensor, forces: Tensor, virials: Tensor) -> None:
        """Add to forces (M, 3) and virials (M, 3, 3) of atoms, from gradients by vectors (P, 3)."""
        entries, _, count, *_ = self.rows
        launch(
            *(self._kernels.gather, (self._atoms,), entries, count, apart, pull, forces),
            virials.view(-1, 9),
            block=THREADS,
        )

    def _count(self, positions: Tensor, cells: Tensor) -> None:
        near, wp, kernels = self._near, warp(), self._kernels
        launch(
            *(kernels.count, (self._atoms, kernels.threads), near.neighbors, near.count),
            *(shared(near.images, wp.vec3i), shared(positions.reshape(-1, 3), wp.vec3d)),
            *(shared(cells, wp.mat33d), positions.shape[1], near.cutoff_A, *self._owned),
            *(self._place, self._mine, self.told),
            block=kernels.threads,
        )


class PairKernels(NamedTuple):
    """Kernels with a block for each atom, and how many threads it has."""

    threads: int
    count: Any
    put: Any
    gather: Any


NEIGHBORS = """
const int length = neighbors.shape[1], there = wp::min(count.data[a], length);
const int *row = neighbors.data + length * a, *image = (const int*)images.data + 3 * length * a;
const double *places = (const double*)x.data, *cell = (const double*)cells.data + 9 * (a / atoms);
const auto vector = [&](int k, double* d) {
    for (int n = 0; n < 3; ++n) {
        d[n] = places[3 * row[k] + n] - places[3 * a + n];
        for (int m = 0; m < 3; ++m) d[n] += image[3 * k + m] * cell[3 * m + n];
    }
};
"""
"""For kernels in C++ with a block for an atom ``a``: its row, and the vector to a neighbour."""

_COUNT = """
int found = 0;
for (int first = 0; first < there; first += T) {
    const int k = first + t;
    bool kept = false;
    if (k < there) {
        // of the images of an atom itself, those of the upper half
        const int *s = image + 3 * k;
        const bool upper = s[0] > 0 || (s[0] == 0 && (s[1] > 0 || (s[1] == 0 && s[2] > 0)));
        double d[3];
        vector(k, d);
        kept = (row[k] > a || (row[k] == a && upper)) && a < own
            && d[0] * d[0] + d[1] * d[1] + d[2] * d[2] < cutoff * cutoff;
        // of a pair with another process's atom each process has every other one
        const int me = names.data[a], it = names.data[row[k]];
        if (row[k] >= own) kept = kept && ((me + it) % 2 == 1) == (me > it);
    }
    const int n = rank(kept, there - first, found);
    if (k < there) place.data[length * a + k] = kept ? n : -1;
}
if (t == 0) mine.data[a] = found;
if (t == 0 && a == 0) told.data[1] = 0;
"""

_PUT = """
int found = 0;
for (int first = 0; first < there; first += T) {
    const int k = first + t;
    int entry = -1;
    if (k < there && place.data[length * a + k] >= 0) {
        const int p = ends.data[a] - mine.data[a] + place.data[length * a + k];
        if (p >= most) {
            told.data[1] = 1;
        } else {
            entry = 2 * p;
            i.data[p] = a;
            j.data[p] = row[k];
            vector(k, (double*)apart.data + 3 * p);
        }
    } else if (k < there && row[k] <= a) {
        // the pair as the other atom has it
        const int b = row[k], *other = neighbors.data + length * b, *s = image + 3 * k;
        const int* shift = (const int*)images.data + 3 * length * b;
        for (int n = 0; n < wp::min(count.data[b], length); ++n)
            if (other[n] == a && place.data[length * b + n] >= 0 && shift[3 * n] == -s[0]
                && shift[3 * n + 1] == -s[1] && shift[3 * n + 2] == -s[2]) {
                const int p = ends.data[b] - mine.data[b] + place.data[length * b + n];
                if (p < most) entry = 2 * p + 1;
            }
    }
    const int n = rank(entry >= 0, there - first, found);
    if (entry >= 0) {
        entries.data[length * a + n] = entry;
        others.data[length * a + n] = row[k];
    }
}
if (t == 0) many.data[a] = found;
"""


@cache
def pair_kernels(device: str) -> PairKernels:
    """Return the kernels for ``cpu`` or ``cuda``."""
    wp = warp()
    threads = 1 if device == "cpu" else THREADS
    whole, whole_2d, long = wp.array(dtype=int), wp.array2d(dtype=int), wp.array(dtype=wp.int64)
    images_2d, doubles_2d = wp.array2d(dtype=wp.vec3i), wp.array2d(dtype=wp.float64)
    vectors, matrices = wp.array(dtype=wp.vec3d), wp.array(dtype=wp.mat33d)
    kernel = wp.kernel(enable_backward=False, module="unique", grid_stride=False)
    head = f"{IN_BLOCKS}constexpr int T = {threads};" + RANK + NEIGHBORS

    @wp.func_native(head + _COUNT)
    def count_atom(
        a: int, t: int, neighbors: whole_2d, count: whole, images: images_2d, x: vectors,
        cells: matrices, atoms: int, cutoff: wp.float64, own: int, names: whole, place: whole_2d,
        mine: whole, told: whole,
    ): ...  # fmt: skip

    # which neighbours make pairs of an atom, and how many
    @kernel
    def count_pairs(
        neighbors: whole_2d, count: whole, images: images_2d, x: vectors, cells: matrices,
        atoms: int, cutoff: wp.float64, own: int, names: whole, place: whole_2d, mine: whole,
        told: whole,
    ):  # fmt: skip
        a, t = wp.tid()
        count_atom(
            a, t, neighbors, count, images, x, cells, atoms, cutoff, own, names, place, mine, told
        )  # fmt: skip

    @wp.func_native(head + _PUT)
    def put_atom(
        a: int, t: int, neighbors: whole_2d, count: whole, images: images_2d, x: vectors,
        cells: matrices, atoms: int, place: whole_2d, mine: whole, ends: whole, most: int, i: long,
        j: long, apart: vectors, entries: whole_2d, others: whole_2d, many: whole, told: whole,
    ): ...  # fmt: skip

    # those pairs, and the rows of both atoms
    @kernel
    def put(
        neighbors: whole_2d, count: whole, images: images_2d, x: vectors, cells: matrices,
        atoms: int, place: whole_2d, mine: whole, ends: whole, most: int, i: long, j: long,
        apart: vectors, entries: whole_2d, others: whole_2d, many: whole, told: whole,
    ):  # fmt: skip
        a, t = wp.tid()
        put_atom(
            a, t, neighbors, count, images, x, cells, atoms, place, mine, ends, most, i, j, apart,
            entries, others, many, told,
        )  # fmt: skip

    # (M,): what the pairs of an atom pull at it, and their virial if it is the first of both
    @wp.kernel(enable_backward=False, module="unique")
    def gather(
        entries: whole_2d, count: whole, apart: doubles_2d, pull: doubles_2d, forces: doubles_2d,
        virials: doubles_2d,
    ):  # fmt: skip
        a = wp.tid()
        force, strain = wp.vec3d(), wp.mat33d()
        for k in range(count[a]):
            p = entries[a, k] // 2
            f = wp.vec3d(pull[p, 0], pull[p, 1], pull[p, 2])
            if entries[a, k] % 2 == 1:
                force -= f
            else:
                force += f
                strain -= wp.outer(wp.vec3d(apart[p, 0], apart[p, 1], apart[p, 2]), f)
        for axis in range(3):
            forces[a, axis] = forces[a, axis] + force[axis]
            for other in range(3):
                at = 3 * axis + other
                virials[a, at] = virials[a, at] + strain[axis, other]

    return PairKernels(threads, count_pairs, put, gather)
