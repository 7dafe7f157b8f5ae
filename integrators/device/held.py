"""SHAKE and RATTLE on a device, for one cluster of distances that share atoms.

What :mod:`integrators.constraints` does; no atom is in two clusters.
"""

from functools import cache
from typing import Any, NamedTuple

from integrators.constraints import MOST_ITERATIONS, TOLERANCE
from integrators.device.launches import warp


class HeldMoves(NamedTuple):
    """A structure, and functions of bead and cluster."""

    Bonds: Any
    lead: Any
    grows_by: Any
    grows_by_noise: Any
    project: Any


@cache
def held_moves(most: int) -> HeldMoves:
    """Return the functions for clusters of up to ``most`` distances."""
    wp = warp()
    numbers, numbers_2d, numbers_3d = (wp.array(dtype=wp.float64, ndim=n) for n in (1, 2, 3))
    vectors_2d, integers = wp.array2d(dtype=wp.vec3d), wp.array(dtype=int)
    integers_3d = wp.array3d(dtype=int)

    @wp.struct
    class Bonds:
        """`Constraints`, and width (N,), that of a thermal velocity of an atom."""

        pairs: integers_3d
        images: vectors_2d
        coupling: numbers_3d
        counts: integers
        squares: numbers_2d
        width: numbers

    row, square = wp.types.vector(most, wp.float64), wp.types.matrix((most, most), wp.float64)
    rows = wp.types.matrix((most, 3), wp.float64)

    @wp.func
    def solved(given: square, right: row, n: int):
        """Solve a small system; matrices are nearly symmetric and positive definite."""
        a, b = square(), row()
        for i in range(n):
            b[i] = right[i]
            for j in range(n):
                a[i, j] = given[i, j]
        for i in range(n):
            for j in range(i + 1, n):
                factor = a[j, i] / a[i, i]
                for k in range(i, n):
                    a[j, k] -= factor * a[i, k]
                b[j] -= factor * b[i]
        for back in range(n):
            last = n - 1 - back
            for k in range(last + 1, n):
                b[last] -= a[last, k] * b[k]
            b[last] = b[last] / a[last, last]
        return b

    @wp.func
    def along(a: rows, i: int, b: rows, j: int):
        return a[i, 0] * b[j, 0] + a[i, 1] * b[j, 1] + a[i, 2] * b[j, 2]

    # velocities with which a drift of this time ends on the manifold: Newton's method along the
    # bonds before it
    @wp.func
    def lead(
        p: int,
        c: int,
        q: vectors_2d,
        v: vectors_2d,
        bonds: Bonds,
        inverse: numbers,
        time: wp.float64,
        lost: integers,
    ):
        n = bonds.counts[c]
        before, now, pushes = rows(), rows(), row()
        for k in range(n):
            i, j = bonds.pairs[c, k, 0], bonds.pairs[c, k, 1]
            bond = q[p, i] - q[p, j] - bonds.images[c, k]
            free = bond + time * (v[p, i] - v[p, j])
            for x in range(3):
                before[k, x] = bond[x]
                now[k, x] = free[x]
        missing = wp.int32(1)
        for _ in range(wp.static(MOST_ITERATIONS + 1)):
            off, slope = row(), square()
            missing = wp.int32(0)
            for k in range(n):
                off[k] = wp.float64(0.5) * (along(now, k, now, k) - bonds.squares[c, k])
                # written so that what is not a number is not found
                most_off = wp.float64(wp.static(TOLERANCE)) * bonds.squares[c, k]
                if not (wp.abs(off[k]) <= most_off):
                    missing += 1
                for o in range(n):
                    slope[k, o] = bonds.coupling[c, k, o] * along(now, k, before, o)
            if missing == 0:
                break
            more = solved(slope, off, n)
            for o in range(n):
                pushes[o] += more[o]
                for k in range(n):
                    for x in range(3):
                        now[k, x] -= bonds.coupling[c, k, o] * more[o] * before[o, x]
        if missing > 0:
            lost[0] = 1
        for k in range(n):
            one, other = bonds.pairs[c, k, 0], bonds.pairs[c, k, 1]
            push = pushes[k] / time * wp.vec3d(before[k, 0], before[k, 1], before[k, 2])
            v[p, one] -= inverse[one] * push
            v[p, other] += inverse[other] * push

    # v += sign times the part across the manifold that bonds (grows) have; returns its energy
    @wp.func
    def project(
        p: int,
        c: int,
        q: vectors_2d,
        grows: row,
        v: vectors_2d,
        bonds: Bonds,
        inverse: numbers,
        sign: wp.float64,
    ):
        n = bonds.counts[c]
        here, slope = rows(), square()
        for k in range(n):
            bond = q[p, bonds.pairs[c, k, 0]] - q[p, bonds.pairs[c, k, 1]] - bonds.images[c, k]
            for x in range(3):
                here[k, x] = bond[x]
        for k in range(n):
            for o in range(n):
                slope[k, o] = bonds.coupling[c, k, o] * along(here, k, here, o)
        amounts = solved(slope, grows, n)
        energy = wp.float64(0.0)
        for k in range(n):
            one, other = bonds.pairs[c, k, 0], bonds.pairs[c, k, 1]
            push = sign * amounts[k] * wp.vec3d(here[k, 0], here[k, 1], here[k, 2])
            v[p, one] += inverse[one] * push
            v[p, other] -= inverse[other] * push
            energy += wp.float64(0.5) * grows[k] * amounts[k]
        return energy

    # how fast bonds grow
    @wp.func
    def grows_by(p: int, c: int, q: vectors_2d, v: vectors_2d, bonds: Bonds):
        grows = row()
        for k in range(bonds.counts[c]):
            i, j = bonds.pairs[c, k, 0], bonds.pairs[c, k, 1]
            grows[k] = wp.dot(q[p, i] - q[p, j] - bonds.images[c, k], v[p, i] - v[p, j])
        return grows

    # the same of thermal velocities
    @wp.func
    def grows_by_noise(p: int, c: int, q: vectors_2d, noise: vectors_2d, bonds: Bonds):
        grows = row()
        for k in range(bonds.counts[c]):
            i, j = bonds.pairs[c, k, 0], bonds.pairs[c, k, 1]
            thermal = bonds.width[i] * noise[p, i] - bonds.width[j] * noise[p, j]
            grows[k] = wp.dot(q[p, i] - q[p, j] - bonds.images[c, k], thermal)
        return grows

    return HeldMoves(Bonds, lead, grows_by, grows_by_noise, project)
