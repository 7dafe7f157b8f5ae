"""What a splitting does to one atom of one bead, or mode of beads, on a device: P of N atoms.

All numbers are float64.
"""

from functools import cache
from typing import Any, NamedTuple

from integrators.device.launches import warp


class FreeMoves(NamedTuple):
    """Functions of mode and atom."""

    kick: Any
    drift: Any
    white: Any
    coloured: Any


@cache
def free_moves(extra: int) -> FreeMoves:
    """Return the functions, of coloured noise with so many extra momenta."""
    wp = warp()
    size = extra + 1
    local = wp.types.matrix((size, 3), wp.float64)
    numbers, numbers_2d = (wp.array(dtype=wp.float64, ndim=axes) for axes in (1, 2))
    vectors_2d, vectors_3d = (wp.array(dtype=wp.vec3d, ndim=axes) for axes in (2, 3))

    # v += time F / m
    @wp.func
    def kick(
        p: int, a: int, v: vectors_2d, force: vectors_2d, inverse: numbers, time: wp.float64
    ):
        v[p, a] += time * inverse[a] * force[p, a]

    # free, or around the centre of a harmonic ring; turns (3, P): cos ωt, sin ωt / ω, ω sin ωt
    @wp.func
    def drift(p: int, a: int, q: vectors_2d, v: vectors_2d, turns: numbers_2d):
        still, ahead, back = turns[0, p], turns[1, p], turns[2, p]
        # both before either is written: Warp reads an element of an array where it is used
        x = still * q[p, a] + ahead * v[p, a]
        u = still * v[p, a] - back * q[p, a]
        q[p, a] = x
        v[p, a] = u

    @wp.func
    def gained(m: wp.float64, before: wp.vec3d, after: wp.vec3d):
        return wp.float64(0.5) * m * (wp.dot(after, after) - wp.dot(before, before))

    # an Ornstein-Uhlenbeck step; returns the energy that it brings in
    @wp.func
    def white(
        p: int,
        a: int,
        v: vectors_2d,
        more: vectors_3d,
        decay: numbers_2d,
        width: numbers_2d,
        noise: vectors_3d,
        m: numbers,
        inverse: numbers,
    ):
        before = v[p, a]
        after = decay[p, a] * before + width[p, a] * noise[0, p, a]
        heat = gained(m[a], before, after)
        v[p, a] = after
        return heat

    # the same with extra momenta over √m
    @wp.func
    def coloured(
        p: int,
        a: int,
        v: vectors_2d,
        more: vectors_3d,
        decay: numbers_2d,
        spread: numbers_2d,
        noise: vectors_3d,
        m: numbers,
        inverse: numbers,
    ):
        before, after = v[p, a], wp.vec3d()
        old = local()
        for i in range(wp.static(size)):
            s = wp.sqrt(m[a]) * before
            if i > 0:
                s = more[i - 1, p, a]
            for x in range(3):
                old[i, x] = s[x]
        for i in range(wp.static(size)):
            s = wp.vec3d()
            for j in range(wp.static(size)):
                for x in range(3):
                    s[x] += decay[i, j] * old[j, x]
            for j in range(spread.shape[1]):
                s += spread[i, j] * noise[j, p, a]
            if i > 0:
                more[i - 1, p, a] = s
            else:
                after = wp.sqrt(inverse[a]) * s
        heat = gained(m[a], before, after)
        v[p, a] = after
        return heat

    return FreeMoves(kick, drift, white, coloured)
