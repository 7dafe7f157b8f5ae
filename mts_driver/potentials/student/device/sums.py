"""The student's sums over neighbours and their way back, a thread for each atom and channel.

The equations of `mts_driver.potentials.student.model`, with the radial functions read from cubic
splines. Nothing is added to by two threads: an atom gathers what it pulls and what its neighbours
pull at it, so that forces have the same bits every time. What the kernels share:

near : neighbours (M, K) and how many there are (M,); ``unit`` (M, K, 4), the unit vector to each
    and the inverse of its distance; ``cell`` (M, K), the grid cell of the distance, −1 beyond the
    cutoff, and ``place`` (M, K) in it.
table : (E·E, G, 4, C), the cubics of the radial functions of every ordered pair of elements in
    every grid cell; ``pairs`` (E·E, G, 4, 1), those of half the repulsion, or of size 0.
message : (M, C), what atoms tell their neighbours; of size 0 in the first sum.
"""

from functools import cache
from typing import Any, NamedTuple

from integrators.device.launches import warp


class SumKernels(NamedTuple):
    """Kernels for one precision; see their comments for the shape of a launch."""

    pairs: Any
    moments: Any
    gather: Any
    inputs: Any
    gradient: Any
    pull: Any
    push: Any
    add_up: Any


@cache
def sum_kernels(double: bool) -> SumKernels:
    """Return the kernels in float64 or float32."""
    wp = warp()
    number = wp.float64 if double else wp.float32
    four, three = wp.types.vector(4, number), wp.types.vector(3, number)
    matrix = wp.types.matrix((3, 3), number)
    kernel = wp.kernel(enable_backward=False, module="unique")
    numbers_2d, numbers_3d, numbers_4d = (wp.array(dtype=number, ndim=n) for n in (2, 3, 4))
    integers, integers_2d = (wp.array(dtype=int, ndim=axes) for axes in (1, 2))
    vectors, matrices = wp.array(dtype=wp.vec3d), wp.array(dtype=wp.mat33d)
    units = wp.array2d(dtype=four)

    # (M, K)
    @kernel
    def pairs(
        x: vectors,
        cells: matrices,
        atoms: int,
        neighbors: integers_2d,
        count: integers,
        images: wp.array2d(dtype=wp.vec3i),
        reference: vectors,
        skin: wp.float64,
        left: integers,
        cutoff: wp.float64,
        start: wp.float64,
        per_length: wp.float64,
        grid: int,
        unit: units,
        cell: integers_2d,
        place: numbers_2d,
    ):
        a, k = wp.tid()
        cell[a, k] = -1
        # written so that what is not a number counts
        if k == 0 and not (wp.float64(2.0) * wp.length(x[a] - reference[a]) < skin):
            left[0] = 1
        if k >= count[a]:
            return
        h, s = cells[a // atoms], images[a, k]
        d = x[neighbors[a, k]] - x[a]
        d += wp.float64(s[0]) * h[0] + wp.float64(s[1]) * h[1] + wp.float64(s[2]) * h[2]
        r = wp.length(d)
        if r < cutoff:
            u = (r - start) * per_length
            g = wp.clamp(int(u), 0, grid - 1)
            d = d / r
            unit[a, k] = four(number(d[0]), number(d[1]), number(d[2]), number(wp.float64(1.0) / r))
            cell[a, k] = g
            place[a, k] = number(u - wp.float64(g))

    @wp.func
    def value(table: numbers_4d, p: int, g: int, c: int, s: number):
        cubic = table[p, g, 2, c] + s * table[p, g, 3, c]
        return table[p, g, 0, c] + s * (table[p, g, 1, c] + s * cubic)

    @wp.func
    def slope_of(table: numbers_4d, p: int, g: int, c: int, s: number):
        return table[p, g, 1, c] + s * (
            number(2.0) * table[p, g, 2, c] + number(3.0) * s * table[p, g, 3, c]
        )

    # (M, S, C)
    @kernel
    def moments(
        neighbors: integers_2d,
        count: integers,
        unit: units,
        cell: integers_2d,
        place: numbers_2d,
        kind: integers,
        kinds: int,
        table: numbers_4d,
        pairs: numbers_4d,
        message: numbers_2d,
        out: numbers_4d,
        energy: numbers_2d,
    ):
        a, part, c = wp.tid()
        third, repulsion = number(1.0) / number(3.0), number(0.0)
        # each a number of its own: Warp takes two names of one value for one variable
        m0, m1, m2, m3, m4 = number(0.0), number(0.0), number(0.0), number(0.0), number(0.0)
        m5, m6, m7, m8, m9 = number(0.0), number(0.0), number(0.0), number(0.0), number(0.0)
        for k in range(part, wp.min(count[a], neighbors.shape[1]), out.shape[1]):
            g = cell[a, k]
            if g >= 0:
                b, s, u = neighbors[a, k], place[a, k], unit[a, k]
                p = kind[a] * kinds + kind[b]
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
        out[a, part, 0, c] = m0
        out[a, part, 1, c] = m1
        out[a, part, 2, c] = m2
        out[a, part, 3, c] = m3
        out[a, part, 4, c] = m4
        out[a, part, 5, c] = m5
        out[a, part, 6, c] = m6
        out[a, part, 7, c] = m7
        out[a, part, 8, c] = m8
        out[a, part, 9, c] = m9
        if c == 0 and message.shape[0] == 0:
            energy[a, part] = repulsion

    # (M, W): what the threads of an atom have found, together
    @kernel
    def gather(parts: numbers_3d, out: numbers_2d):
        a, w = wp.tid()
        total = number(0.0)
        for k in range(parts.shape[1]):
            total += parts[a, k, w]
        out[a, w] = total

    @wp.func
    def first_order(m: numbers_3d, a: int, c: int):
        return three(m[a, 1, c], m[a, 2, c], m[a, 3, c])

    @wp.func
    def second_order(m: numbers_3d, a: int, c: int):
        return matrix(
            m[a, 4, c], m[a, 7, c], m[a, 8, c],
            m[a, 7, c], m[a, 5, c], m[a, 9, c],
            m[a, 8, c], m[a, 9, c], m[a, 6, c],
        )  # fmt: skip

    @wp.func
    def put(
        y: number,
        k: int,
        a: int,
        c: int,
        e: int,
        shift: numbers_3d,
        scale: numbers_3d,
        bound: number,
        out: numbers_3d,
    ):
        t = (y - shift[e, k, c]) * scale[e, k, c]
        out[a, k, c] = t / wp.sqrt(number(1.0) + bound * t * t)

    # (M, C): network inputs, the invariants shifted, scaled and bounded; bound is 1/b²
    @kernel
    def inputs(
        kind: integers,
        m: numbers_3d,
        shift: numbers_3d,
        scale: numbers_3d,
        bound: number,
        out: numbers_3d,
    ):
        a, c = wp.tid()
        e, n = kind[a], m.shape[2]
        d, f = (c + 1) % n, (c + 2) % n
        v, q = first_order(m, a, c), second_order(m, a, c)
        v1, q1 = first_order(m, a, d), second_order(m, a, d)
        w = q * v
        put(m[a, 0, c], 0, a, c, e, shift, scale, bound, out)
        put(wp.dot(v, v), 1, a, c, e, shift, scale, bound, out)
        put(wp.dot(v, v1), 2, a, c, e, shift, scale, bound, out)
        put(wp.dot(v, first_order(m, a, f)), 3, a, c, e, shift, scale, bound, out)
        put(wp.ddot(q, q), 4, a, c, e, shift, scale, bound, out)
        put(wp.ddot(q, q1), 5, a, c, e, shift, scale, bound, out)
        put(wp.ddot(q, second_order(m, a, f)), 6, a, c, e, shift, scale, bound, out)
        put(wp.dot(v, w), 7, a, c, e, shift, scale, bound, out)
        put(wp.dot(v1, w), 8, a, c, e, shift, scale, bound, out)
        put(wp.dot(w, w), 9, a, c, e, shift, scale, bound, out)

    @wp.func
    def unbound(
        k: int,
        a: int,
        c: int,
        e: int,
        scale: numbers_3d,
        bound: number,
        x: numbers_3d,
        by_inputs: numbers_3d,
    ):
        # rounding may take x a little beyond b
        rest = wp.max(number(1.0) - bound * x[a, k, c] * x[a, k, c], number(0.0))
        return by_inputs[a, k, c] * scale[e, k, c] * rest * wp.sqrt(rest)

    # (M, C): from the gradient by the inputs to that by the moments
    @kernel
    def gradient(
        kind: integers,
        m: numbers_3d,
        scale: numbers_3d,
        bound: number,
        x: numbers_3d,
        by_inputs: numbers_3d,
        out: numbers_3d,
    ):
        a, c = wp.tid()
        e, n = kind[a], m.shape[2]
        d, f, b, o = (c + 1) % n, (c + 2) % n, (c + n - 1) % n, (c + n - 2) % n
        v, q = first_order(m, a, c), second_order(m, a, c)
        v1, q1 = first_order(m, a, d), second_order(m, a, d)
        vb, qb = first_order(m, a, b), second_order(m, a, b)
        w, two = q * v, number(2.0)
        h1 = unbound(1, a, c, e, scale, bound, x, by_inputs)
        h2 = unbound(2, a, c, e, scale, bound, x, by_inputs)
        h3 = unbound(3, a, c, e, scale, bound, x, by_inputs)
        h4 = unbound(4, a, c, e, scale, bound, x, by_inputs)
        h5 = unbound(5, a, c, e, scale, bound, x, by_inputs)
        h6 = unbound(6, a, c, e, scale, bound, x, by_inputs)
        h7 = unbound(7, a, c, e, scale, bound, x, by_inputs)
        h8 = unbound(8, a, c, e, scale, bound, x, by_inputs)
        h9 = unbound(9, a, c, e, scale, bound, x, by_inputs)
        # what channels below make of this one
        h2b = unbound(2, a, b, e, scale, bound, x, by_inputs)
        h3o = unbound(3, a, o, e, scale, bound, x, by_inputs)
        h5b = unbound(5, a, b, e, scale, bound, x, by_inputs)
        h6o = unbound(6, a, o, e, scale, bound, x, by_inputs)
        h8b = unbound(8, a, b, e, scale, bound, x, by_inputs)
        by_w = h7 * v + h8 * v1 + two * h9 * w
        gv = two * h1 * v + h2 * v1 + h2b * vb
        gv += h3 * first_order(m, a, f) + h3o * first_order(m, a, o)
        gv += h7 * w + h8b * (qb * vb) + q * by_w
        gq = two * h4 * q + h5 * q1 + h5b * qb
        gq += h6 * second_order(m, a, f) + h6o * second_order(m, a, o)
        out[a, 0, c] = unbound(0, a, c, e, scale, bound, x, by_inputs)
        out[a, 1, c] = gv[0]
        out[a, 2, c] = gv[1]
        out[a, 3, c] = gv[2]
        out[a, 4, c] = gq[0, 0] + by_w[0] * v[0]
        out[a, 5, c] = gq[1, 1] + by_w[1] * v[1]
        out[a, 6, c] = gq[2, 2] + by_w[2] * v[2]
        out[a, 7, c] = two * gq[0, 1] + by_w[0] * v[1] + by_w[1] * v[0]
        out[a, 8, c] = two * gq[0, 2] + by_w[0] * v[2] + by_w[2] * v[0]
        out[a, 9, c] = two * gq[1, 2] + by_w[1] * v[2] + by_w[2] * v[1]

    @wp.func
    def along_radial(g: numbers_3d, a: int, c: int, x: number, y: number, z: number):
        third = number(1.0) / number(3.0)
        s = g[a, 0, c] + x * g[a, 1, c] + y * g[a, 2, c] + z * g[a, 3, c]
        s += (x * x - third) * g[a, 4, c] + (y * y - third) * g[a, 5, c]
        s += (z * z - third) * g[a, 6, c]
        return s + x * y * g[a, 7, c] + x * z * g[a, 8, c] + y * z * g[a, 9, c]

    @wp.func
    def force(
        g: numbers_3d,
        a: int,
        c: int,
        x: number,
        y: number,
        z: number,
        w: number,
        f: number,
        slope: number,
        more: number,
    ):
        """Gradient by the vector from ``a`` of what one neighbour gives to the moments of a."""
        along = along_radial(g, a, c, x, y, z) * slope + more
        two = number(2.0)
        gx = f * (g[a, 1, c] + two * x * g[a, 4, c] + y * g[a, 7, c] + z * g[a, 8, c])
        gy = f * (g[a, 2, c] + two * y * g[a, 5, c] + x * g[a, 7, c] + z * g[a, 9, c])
        gz = f * (g[a, 3, c] + two * z * g[a, 6, c] + x * g[a, 8, c] + y * g[a, 9, c])
        along = along - (gx * x + gy * y + gz * z) * w
        return three(along * x + gx * w, along * y + gy * w, along * z + gz * w)

    # (M, S, C): g is the gradient by the moments; what pulls at atom a, minus its part of the
    # virial where ``virial`` is 1, and the gradient by what a tells
    @kernel
    def pull(
        neighbors: integers_2d,
        count: integers,
        unit: units,
        cell: integers_2d,
        place: numbers_2d,
        kind: integers,
        kinds: int,
        table: numbers_4d,
        pairs: numbers_4d,
        message: numbers_2d,
        per_length: number,
        g: numbers_3d,
        forces: wp.array3d(dtype=three),
        virial: int,
        strains: wp.array3d(dtype=matrix),
        by_message: numbers_3d,
    ):
        a, part, c = wp.tid()
        total, strain, told = three(), matrix(), number(0.0)
        for k in range(part, wp.min(count[a], neighbors.shape[1]), forces.shape[1]):
            i = cell[a, k]
            if i >= 0:
                b, s, u = neighbors[a, k], place[a, k], unit[a, k]
                x, y, z, w = u[0], u[1], u[2], u[3]
                p, q = kind[a] * kinds + kind[b], kind[b] * kinds + kind[a]
                f, f_back = value(table, p, i, c, s), value(table, q, i, c, s)
                slope = slope_of(table, p, i, c, s) * per_length
                slope_back = slope_of(table, q, i, c, s) * per_length
                more, more_back = number(0.0), number(0.0)
                if message.shape[0] > 0:
                    told += along_radial(g, b, c, -x, -y, -z) * f_back
                    f *= message[b, c]
                    slope *= message[b, c]
                    f_back *= message[a, c]
                    slope_back *= message[a, c]
                elif c == 0 and pairs.shape[0] > 0:
                    more = slope_of(pairs, p, i, 0, s) * per_length
                    more_back = slope_of(pairs, q, i, 0, s) * per_length
                forth = force(g, a, c, x, y, z, w, f, slope, more)
                back = force(g, b, c, -x, -y, -z, w, f_back, slope_back, more_back)
                total += forth - back
                if virial == 1:
                    strain += wp.outer(three(x, y, z) / w, forth)
        forces[a, part, c] = total
        if virial == 1:
            strains[a, part, c] = strain
        if message.shape[0] > 0:
            by_message[a, part, c] = told

    # (M,): forces of a direct student, weights (M, 2C) of A1 and A2·A1 from column ``at`` on,
    # added from the second sum on
    @kernel
    def push(
        m: numbers_3d,
        weights: numbers_2d,
        at: int,
        forces: vectors,
    ):
        a = wp.tid()
        total, n = three(), m.shape[2]
        if at == 0:
            forces[a] = wp.vec3d()
        for c in range(n):
            v = first_order(m, a, c)
            total += weights[a, at + c] * v + weights[a, at + n + c] * (second_order(m, a, c) * v)
        forces[a] += wp.vec3d(wp.float64(total[0]), wp.float64(total[1]), wp.float64(total[2]))

    # (M, W): over channels in float64, beside what is there where ``add`` is 1
    @kernel
    def add_up(parts: numbers_3d, sign: wp.float64, add: int, out: wp.array2d(dtype=wp.float64)):
        a, w = wp.tid()
        total = wp.float64(0.0)
        if add == 1:
            total = out[a, w]
        for k in range(parts.shape[1]):
            total += sign * wp.float64(parts[a, k, w])
        out[a, w] = total

    return SumKernels(pairs, moments, gather, inputs, gradient, pull, push, add_up)
