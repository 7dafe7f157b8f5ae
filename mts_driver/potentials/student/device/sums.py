"""Sums over the neighbours of an atom, which a few threads share.

Nothing is added to by two threads: an atom gathers what it pulls and what its neighbours
pull at it, so that forces have the same bits every time. What they are told:

a, t, threads : the atom, which of its threads this is, and how many there are.
near : its neighbours, and where they are.
table : (E·E, G, 4, C), the cubics of the radial functions of every ordered pair of elements in
    every grid cell; ``pairs`` (E·E, G, 4, 1), those of half the repulsion, or of size 0.
message : (M, C), what atoms tell their neighbours; of size 0 in the first sum.
"""

from functools import cache
from typing import Any, NamedTuple

from integrators.device.launches import warp


class Sums(NamedTuple):
    """Functions for one precision, and the structure of neighbours."""

    Near: Any
    place: Any
    moments: Any
    gather: Any
    pull: Any
    add_up: Any


@cache
def sums(double: bool) -> Sums:
    """Return the functions in float64 or float32."""
    wp = warp()
    number = wp.float64 if double else wp.float32
    four, three = wp.types.vector(4, number), wp.types.vector(3, number)
    numbers_2d, numbers_3d, numbers_4d = (wp.array(dtype=number, ndim=n) for n in (2, 3, 4))
    doubles_2d, doubles_3d = (wp.array(dtype=wp.float64, ndim=axes) for axes in (2, 3))
    integers, integers_2d = (wp.array(dtype=int, ndim=axes) for axes in (1, 2))

    @wp.struct
    class Near:
        """Neighbours (M, K) and how many there are (M,); what `place` finds of each: ``unit``, the
        unit vector to it and the inverse of its distance, ``cell``, the grid cell of the distance,
        -1 beyond the cutoff, and ``within``, the place in that."""

        neighbors: integers_2d
        count: integers
        images: wp.array2d(dtype=wp.vec3i)
        kind: integers
        kinds: int
        start: wp.float64
        per_length: wp.float64
        cutoff: wp.float64
        unit: wp.array2d(dtype=four)
        cell: integers_2d
        within: numbers_2d

    @wp.func
    def there(near: Near, a: int):
        return wp.min(near.count[a], near.neighbors.shape[1])

    @wp.func
    def place(
        a: int, t: int, threads: int, x: wp.array(dtype=wp.vec3d), h: wp.mat33d, grid: int, near: Near
    ):
        for k in range(t, there(near, a), threads):
            s = near.images[a, k]
            d = x[near.neighbors[a, k]] - x[a]
            d += wp.float64(s[0]) * h[0] + wp.float64(s[1]) * h[1] + wp.float64(s[2]) * h[2]
            r, g = wp.length(d), wp.int32(-1)
            if r < near.cutoff:
                u = (r - near.start) * near.per_length
                g = wp.clamp(int(u), 0, grid - 1)
                d = d / r
                w = wp.float64(1.0) / r
                near.unit[a, k] = four(number(d[0]), number(d[1]), number(d[2]), number(w))
                near.within[a, k] = number(u - wp.float64(g))
            near.cell[a, k] = g

    @wp.func
    def value(table: numbers_4d, p: int, g: int, c: int, s: number):
        cubic = table[p, g, 2, c] + s * table[p, g, 3, c]
        return table[p, g, 0, c] + s * (table[p, g, 1, c] + s * cubic)

    @wp.func
    def slope_of(table: numbers_4d, p: int, g: int, c: int, s: number):
        return table[p, g, 1, c] + s * (
            number(2.0) * table[p, g, 2, c] + number(3.0) * s * table[p, g, 3, c]
        )

    # parts (M, S, 10 C): moments of every S-th neighbour; and the repulsion of those (M, S)
    @wp.func
    def moments(
        a: int,
        t: int,
        threads: int,
        near: Near,
        table: numbers_4d,
        pairs: numbers_4d,
        message: numbers_2d,
        parts: numbers_3d,
        energy: numbers_2d,
    ):
        channels, third = table.shape[3], number(1.0) / number(3.0)
        for i in range(t, parts.shape[1] * channels, threads):
            part, c = i // channels, i % channels
            repulsion = number(0.0)
            # each a number of its own: Warp takes two names of one value for one variable
            m0, m1, m2, m3, m4 = number(0.0), number(0.0), number(0.0), number(0.0), number(0.0)
            m5, m6, m7, m8, m9 = number(0.0), number(0.0), number(0.0), number(0.0), number(0.0)
            for k in range(part, there(near, a), parts.shape[1]):
                g = near.cell[a, k]
                if g >= 0:
                    b, s, u = near.neighbors[a, k], near.within[a, k], near.unit[a, k]
                    p = near.kind[a] * near.kinds + near.kind[b]
                    f = value(table, p, g, c, s)
                    if message.shape[0] > 0:
                        f *= message[b, c]
                    elif c == 0 and pairs.shape[0] > 0:
                        repulsion += value(pairs, p, g, 0, s)
                    x, y, z = u[0], u[1], u[2]
                    m0 += f
                    m1 += x * f
                    m2 += y * f
                    m3 += z * f
                    m4 += (x * x - third) * f
                    m5 += (y * y - third) * f
                    m6 += (z * z - third) * f
                    m7 += x * y * f
                    m8 += x * z * f
                    m9 += y * z * f
            parts[a, part, c] = m0
            parts[a, part, channels + c] = m1
            parts[a, part, 2 * channels + c] = m2
            parts[a, part, 3 * channels + c] = m3
            parts[a, part, 4 * channels + c] = m4
            parts[a, part, 5 * channels + c] = m5
            parts[a, part, 6 * channels + c] = m6
            parts[a, part, 7 * channels + c] = m7
            parts[a, part, 8 * channels + c] = m8
            parts[a, part, 9 * channels + c] = m9
            if c == 0 and message.shape[0] == 0:
                energy[a, part] = repulsion

    # (M, W): parts (M, S, W) of an atom's threads, together
    @wp.func
    def gather(a: int, t: int, threads: int, parts: numbers_3d, out: numbers_2d):
        for w in range(t, out.shape[1], threads):
            total = number(0.0)
            for k in range(parts.shape[1]):
                total += parts[a, k, w]
            out[a, w] = total

    @wp.func
    def along_radial(g: numbers_2d, a: int, c: int, n: int, x: number, y: number, z: number):
        third = number(1.0) / number(3.0)
        s = g[a, c] + x * g[a, n + c] + y * g[a, 2 * n + c] + z * g[a, 3 * n + c]
        s += (x * x - third) * g[a, 4 * n + c] + (y * y - third) * g[a, 5 * n + c]
        s += (z * z - third) * g[a, 6 * n + c]
        return s + x * y * g[a, 7 * n + c] + x * z * g[a, 8 * n + c] + y * z * g[a, 9 * n + c]

    @wp.func
    def force(
        g: numbers_2d,
        a: int,
        c: int,
        n: int,
        u: four,
        f: number,
        slope: number,
        more: number,
    ):
        """Gradient by the vector from ``a`` of what one neighbour gives to the moments of a."""
        x, y, z, w, two = u[0], u[1], u[2], u[3], number(2.0)
        along = along_radial(g, a, c, n, x, y, z) * slope + more
        xy, xz, yz = g[a, 7 * n + c], g[a, 8 * n + c], g[a, 9 * n + c]
        gx = f * (g[a, n + c] + two * x * g[a, 4 * n + c] + y * xy + z * xz)
        gy = f * (g[a, 2 * n + c] + two * y * g[a, 5 * n + c] + x * xy + z * yz)
        gz = f * (g[a, 3 * n + c] + two * z * g[a, 6 * n + c] + x * xz + y * yz)
        along = along - (gx * x + gy * y + gz * z) * w
        return three(along * x + gx * w, along * y + gy * w, along * z + gz * w)

    # g (M, 10 C) is the gradient by the moments. parts (M, S C, 12): what pulls at atom a, and minus
    # its part of the virial where ``virial`` is 1; told (M, S, C): the gradient by what a tells
    @wp.func
    def pull(
        a: int,
        t: int,
        threads: int,
        near: Near,
        table: numbers_4d,
        pairs: numbers_4d,
        message: numbers_2d,
        g: numbers_2d,
        virial: int,
        parts: numbers_3d,
        told: numbers_3d,
    ):
        channels = table.shape[3]
        per_length = number(near.per_length)
        for j in range(t, parts.shape[1], threads):
            part, c = j // channels, j % channels
            total, by_message = three(), number(0.0)
            sx, sy, sz = three(), three(), three()
            for k in range(part, there(near, a), parts.shape[1] // channels):
                i = near.cell[a, k]
                if i >= 0:
                    b, s, u = near.neighbors[a, k], near.within[a, k], near.unit[a, k]
                    p = near.kind[a] * near.kinds + near.kind[b]
                    q = near.kind[b] * near.kinds + near.kind[a]
                    f, f_back = value(table, p, i, c, s), value(table, q, i, c, s)
                    slope = slope_of(table, p, i, c, s) * per_length
                    slope_back = slope_of(table, q, i, c, s) * per_length
                    more, more_back = number(0.0), number(0.0)
                    if message.shape[0] > 0:
                        told_here = along_radial(g, b, c, channels, -u[0], -u[1], -u[2])
                        by_message += told_here * f_back
                        f *= message[b, c]
                        slope *= message[b, c]
                        f_back *= message[a, c]
                        slope_back *= message[a, c]
                    elif c == 0 and pairs.shape[0] > 0:
                        more = slope_of(pairs, p, i, 0, s) * per_length
                        more_back = slope_of(pairs, q, i, 0, s) * per_length
                    back = four(-u[0], -u[1], -u[2], u[3])
                    forth = force(g, a, c, channels, u, f, slope, more)
                    total += forth - force(g, b, c, channels, back, f_back, slope_back, more_back)
                    if virial == 1:
                        sx += u[0] / u[3] * forth
                        sy += u[1] / u[3] * forth
                        sz += u[2] / u[3] * forth
            for axis in range(3):
                parts[a, j, axis] = total[axis]
                if virial == 1:
                    parts[a, j, 3 + axis] = sx[axis]
                    parts[a, j, 6 + axis] = sy[axis]
                    parts[a, j, 9 + axis] = sz[axis]
            if message.shape[0] > 0:
                told[a, part, c] = by_message

    # halves (M, H, 12): parts (M, S, 12) in float64, in H sums
    @wp.func
    def add_up(
        a: int, t: int, threads: int, width: int, parts: numbers_3d, halves: doubles_3d
    ):
        for i in range(t, width * halves.shape[1], threads):
            w, half = i % width, i // width
            total = wp.float64(0.0)
            for k in range(half, parts.shape[1], halves.shape[1]):
                total += wp.float64(parts[a, k, w])
            halves[a, half, w] = total

    return Sums(Near, place, moments, gather, pull, add_up)
