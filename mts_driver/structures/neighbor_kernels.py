"""What a `NeighborMatrix` decides and keeps on a device, in one launch each."""

from functools import cache
from typing import Any, NamedTuple

from integrators.device.launches import warp


class ListKernels(NamedTuple):
    """See their comments for the shape of a launch: M atoms of all replicas, rows of K."""

    spent: Any
    take: Any
    taken: Any


@cache
def list_kernels() -> ListKernels:
    """Return the kernels."""
    wp = warp()
    kernel = wp.kernel(enable_backward=False, module="unique")
    vectors, integers, flags = (wp.array(dtype=kind) for kind in (wp.vec3d, int, wp.bool))
    integers_2d, images_2d = wp.array2d(dtype=int), wp.array2d(dtype=wp.vec3i)

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
    ):
        a = wp.tid()
        way = wp.length(x[a] - reference[a]) + margin * wp.length(x[a] - before[a])
        # written so that what is not a number counts
        if not (wp.float64(2.0) * way < skin):
            anew[a // atoms] = True

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

    # (M,): where atoms were
    @kernel
    def taken(
        x: vectors,
        atoms: int,
        anew: flags,
        reference: vectors,
        before: vectors,
        left: integers,
        forced: flags,
    ):
        a = wp.tid()
        before[a] = x[a]
        if anew[a // atoms]:
            reference[a] = x[a]
        if a == 0:
            left[0] = 0
            forced[0] = False

    return ListKernels(spent, take, taken)
