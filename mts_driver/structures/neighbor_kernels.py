"""What a `NeighborMatrix` decides and keeps on a device, in one launch each."""

from functools import cache
from typing import Any, NamedTuple

from integrators.device.launches import warp


class ListKernels(NamedTuple):
    """See their comments for the shape of a launch: M atoms of all replicas, rows of K."""

    look: Any
    spent: Any
    clear: Any
    search: Any
    empty: Any
    sift: Any
    take: Any
    taken: Any


@cache
def list_kernels() -> ListKernels:
    """Return the kernels."""
    wp = warp()
    kernel = wp.kernel(enable_backward=False, module="unique")
    vectors, integers, flags = (wp.array(dtype=kind) for kind in (wp.vec3d, int, wp.bool))
    matrices = wp.array(dtype=wp.mat33d)
    integers_2d, images_2d = wp.array2d(dtype=int), wp.array2d(dtype=wp.vec3i)

    # (M,): whether pairs may be missing here; what is not a number counts
    @kernel
    def look(x: vectors, reference: vectors, skin: wp.float64, told: integers):
        a = wp.tid()
        if not (wp.float64(2.0) * wp.length(x[a] - reference[a]) < skin):
            told[0] = 1

    # (M,): whose way so far and ``margin`` times that of the last step are too much for the skin
    @kernel
    def spent(
        x: vectors,
        reference: vectors,
        before: vectors,
        atoms: int,
        skin: wp.float64,
        margin: wp.float64,
        anew: flags,
        told: integers,
    ):
        a = wp.tid()
        if a == 0:
            told[1] = 0
        way = wp.length(x[a] - reference[a]) + margin * wp.length(x[a] - before[a])
        # written so that what is not a number counts
        if not (wp.float64(2.0) * way < skin):
            anew[a // atoms] = True

    # (M,): no neighbours yet; fractional coordinates in the cell along periodic axes, and the image
    # that an atom is in
    @kernel
    def clear(
        x: vectors,
        inverses: matrices,
        periodic: wp.vec3i,
        anew: flags,
        atoms: int,
        count: integers,
        fractions: vectors,
        cells_of: wp.array(dtype=wp.vec3i),
    ):
        a = wp.tid()
        if not anew[a // atoms]:
            return
        count[a] = 0
        f, image = x[a] * inverses[a // atoms], wp.vec3i()
        for k in range(3):
            if periodic[k] != 0:
                image[k] = int(wp.floor(f[k]))
                f[k] = f[k] - wp.float64(image[k])
        fractions[a] = f
        cells_of[a] = image

    # (M, S): all pairs within ``reach`` of lists that are to be new; S threads share the others.
    # ``widths`` is the reach over the heights of a cell.
    @kernel
    def search(
        x: vectors,
        fractions: vectors,
        cells_of: wp.array(dtype=wp.vec3i),
        cells: matrices,
        widths: vectors,
        periodic: wp.vec3i,
        anew: flags,
        atoms: int,
        threads: int,
        reach: wp.float64,
        count: integers,
        found: integers_2d,
        images: images_2d,
    ):
        a, part = wp.tid()
        r = a // atoms
        if not anew[r]:
            return
        cell, width = cells[r], widths[r]
        xa, fa, ia = x[a], fractions[a], cells_of[a]
        for other in range(part, atoms, threads):
            b = r * atoms + other
            apart, from_a = x[b] - xa, fractions[b] - fa
            low, high = wp.vec3i(), wp.vec3i()
            for k in range(3):
                if periodic[k] != 0:
                    low[k] = int(wp.ceil(-width[k] - from_a[k]))
                    high[k] = int(wp.floor(width[k] - from_a[k]))
            for i in range(low[0], high[0] + 1):
                for j in range(low[1], high[1] + 1):
                    for k in range(low[2], high[2] + 1):
                        s = wp.vec3i(i, j, k) - cells_of[b] + ia
                        d = apart + wp.float64(s[0]) * cell[0] + wp.float64(s[1]) * cell[1]
                        d += wp.float64(s[2]) * cell[2]
                        itself = b == a and s[0] == 0 and s[1] == 0 and s[2] == 0
                        if not itself and wp.length_sq(d) < reach * reach:
                            place = wp.atomic_add(count, a, 1)
                            if place < found.shape[1]:
                                found[a, place] = b
                                images[a, place] = s

    # (M,): no neighbours yet
    @kernel
    def empty(anew: flags, atoms: int, count: integers):
        a = wp.tid()
        if anew[a // atoms]:
            count[a] = 0

    # (M, S): the same from lists that reach further, whose entries S threads share
    @kernel
    def sift(
        x: vectors,
        cells: matrices,
        anew: flags,
        atoms: int,
        threads: int,
        reach: wp.float64,
        count_further: integers,
        further: integers_2d,
        images_further: images_2d,
        count: integers,
        found: integers_2d,
        images: images_2d,
    ):
        a, part = wp.tid()
        if not anew[a // atoms]:
            return
        cell, xa = cells[a // atoms], x[a]
        for k in range(part, wp.min(count_further[a], further.shape[1]), threads):
            b, s = further[a, k], images_further[a, k]
            d = x[b] - xa + wp.float64(s[0]) * cell[0] + wp.float64(s[1]) * cell[1]
            d += wp.float64(s[2]) * cell[2]
            if wp.length_sq(d) < reach * reach:
                place = wp.atomic_add(count, a, 1)
                if place < found.shape[1]:
                    found[a, place] = b
                    images[a, place] = s

    @wp.func
    def comes_before(j: int, s: wp.vec3i, i: int, t: wp.vec3i):
        if j != i:
            return j < i
        for axis in range(2):
            if s[axis] != t[axis]:
                return s[axis] < t[axis]
        return s[2] < t[2]

    # (M, K): entries of lists that are new, in order of atoms and images where ``sort`` is 1
    @kernel
    def take(
        found: integers_2d,
        found_images: images_2d,
        anew: flags,
        atoms: int,
        sort: int,
        count: integers,
        neighbors: integers_2d,
        images: images_2d,
    ):
        a, k = wp.tid()
        if not anew[a // atoms] or k >= count[a]:
            return
        j, s, place = found[a, k], found_images[a, k], k
        if sort == 1:
            place = wp.int32(0)
            for other in range(wp.min(count[a], found.shape[1])):
                if comes_before(found[a, other], found_images[a, other], j, s):
                    place += 1
        neighbors[a, place] = j
        images[a, place] = s

    # (M,): how many there are, whether these are more than there is room for, and where atoms were
    @kernel
    def taken(
        x: vectors,
        atoms: int,
        found: integers,
        length: int,
        anew: flags,
        count: integers,
        reference: vectors,
        before: vectors,
        told: integers,
        forced: flags,
    ):
        a = wp.tid()
        count[a] = found[a]
        if found[a] > length:
            told[1] = 1
        before[a] = x[a]
        if anew[a // atoms]:
            reference[a] = x[a]
        if a == 0:
            told[0] = 0
            forced[0] = False

    return ListKernels(look, spent, clear, search, empty, sift, take, taken)
