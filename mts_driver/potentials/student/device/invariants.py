"""From the moments of an atom (M, 10 C) to the inputs of its network, and back.

A thread for each channel. Moments, and inputs, are ten rows of C: a scalar, a vector, and a
symmetric tensor as xx, yy, zz, xy, xz, yz.
"""

from functools import cache
from typing import Any, NamedTuple

from integrators.device.launches import warp


class Invariants(NamedTuple):
    """Functions for one precision."""

    inputs: Any
    gradient: Any
    push: Any


@cache
def invariants(double: bool) -> Invariants:
    """Return the functions in float64 or float32."""
    wp = warp()
    number = wp.float64 if double else wp.float32
    three, matrix = wp.types.vector(3, number), wp.types.matrix((3, 3), number)
    numbers_2d = wp.array2d(dtype=number)

    @wp.func
    def first_order(m: numbers_2d, a: int, c: int, n: int):
        return three(m[a, n + c], m[a, 2 * n + c], m[a, 3 * n + c])

    @wp.func
    def second_order(m: numbers_2d, a: int, c: int, n: int):
        xy, xz, yz = m[a, 7 * n + c], m[a, 8 * n + c], m[a, 9 * n + c]
        return matrix(
            m[a, 4 * n + c], xy, xz,
            xy, m[a, 5 * n + c], yz,
            xz, yz, m[a, 6 * n + c],
        )  # fmt: skip

    @wp.func
    def put(
        y: number,
        k: int,
        a: int,
        e: int,
        shift: numbers_2d,
        scale: numbers_2d,
        bound: number,
        out: numbers_2d,
    ):
        t = (y - shift[e, k]) * scale[e, k]
        out[a, k] = t / wp.sqrt(number(1.0) + bound * t * t)

    # the invariants shifted, scaled and bounded; bound is 1/b²
    @wp.func
    def inputs(
        a: int,
        t: int,
        threads: int,
        e: int,
        m: numbers_2d,
        shift: numbers_2d,
        scale: numbers_2d,
        bound: number,
        out: numbers_2d,
    ):
        n = m.shape[1] // 10
        for c in range(t, n, threads):
            d, f = (c + 1) % n, (c + 2) % n
            v, q = first_order(m, a, c, n), second_order(m, a, c, n)
            v1, q1 = first_order(m, a, d, n), second_order(m, a, d, n)
            v2, q2 = first_order(m, a, f, n), second_order(m, a, f, n)
            w = q * v
            put(m[a, c], c, a, e, shift, scale, bound, out)
            put(wp.dot(v, v), n + c, a, e, shift, scale, bound, out)
            put(wp.dot(v, v1), 2 * n + c, a, e, shift, scale, bound, out)
            put(wp.dot(v, v2), 3 * n + c, a, e, shift, scale, bound, out)
            put(wp.ddot(q, q), 4 * n + c, a, e, shift, scale, bound, out)
            put(wp.ddot(q, q1), 5 * n + c, a, e, shift, scale, bound, out)
            put(wp.ddot(q, q2), 6 * n + c, a, e, shift, scale, bound, out)
            put(wp.dot(v, w), 7 * n + c, a, e, shift, scale, bound, out)
            put(wp.dot(v1, w), 8 * n + c, a, e, shift, scale, bound, out)
            put(wp.dot(w, w), 9 * n + c, a, e, shift, scale, bound, out)

    @wp.func
    def unbound(
        k: int,
        a: int,
        e: int,
        scale: numbers_2d,
        bound: number,
        x: numbers_2d,
        by_inputs: numbers_2d,
    ):
        # rounding may take x a little beyond b
        rest = wp.max(number(1.0) - bound * x[a, k] * x[a, k], number(0.0))
        return by_inputs[a, k] * scale[e, k] * rest * wp.sqrt(rest)

    # from the gradient by the inputs to that by the moments
    @wp.func
    def gradient(
        a: int,
        t: int,
        threads: int,
        e: int,
        m: numbers_2d,
        scale: numbers_2d,
        bound: number,
        x: numbers_2d,
        by_inputs: numbers_2d,
        out: numbers_2d,
    ):
        n, two = m.shape[1] // 10, number(2.0)
        for c in range(t, n, threads):
            d, f, b, o = (c + 1) % n, (c + 2) % n, (c + n - 1) % n, (c + n - 2) % n
            v, q = first_order(m, a, c, n), second_order(m, a, c, n)
            v1, q1 = first_order(m, a, d, n), second_order(m, a, d, n)
            vb, qb = first_order(m, a, b, n), second_order(m, a, b, n)
            w = q * v
            h1 = unbound(n + c, a, e, scale, bound, x, by_inputs)
            h2 = unbound(2 * n + c, a, e, scale, bound, x, by_inputs)
            h3 = unbound(3 * n + c, a, e, scale, bound, x, by_inputs)
            h4 = unbound(4 * n + c, a, e, scale, bound, x, by_inputs)
            h5 = unbound(5 * n + c, a, e, scale, bound, x, by_inputs)
            h6 = unbound(6 * n + c, a, e, scale, bound, x, by_inputs)
            h7 = unbound(7 * n + c, a, e, scale, bound, x, by_inputs)
            h8 = unbound(8 * n + c, a, e, scale, bound, x, by_inputs)
            h9 = unbound(9 * n + c, a, e, scale, bound, x, by_inputs)
            # what channels below make of this one
            h2b = unbound(2 * n + b, a, e, scale, bound, x, by_inputs)
            h3o = unbound(3 * n + o, a, e, scale, bound, x, by_inputs)
            h5b = unbound(5 * n + b, a, e, scale, bound, x, by_inputs)
            h6o = unbound(6 * n + o, a, e, scale, bound, x, by_inputs)
            h8b = unbound(8 * n + b, a, e, scale, bound, x, by_inputs)
            by_w = h7 * v + h8 * v1 + two * h9 * w
            gv = two * h1 * v + h2 * v1 + h2b * vb
            gv += h3 * first_order(m, a, f, n) + h3o * first_order(m, a, o, n)
            gv += h7 * w + h8b * (qb * vb) + q * by_w
            gq = two * h4 * q + h5 * q1 + h5b * qb
            gq += h6 * second_order(m, a, f, n) + h6o * second_order(m, a, o, n)
            out[a, c] = unbound(c, a, e, scale, bound, x, by_inputs)
            out[a, n + c] = gv[0]
            out[a, 2 * n + c] = gv[1]
            out[a, 3 * n + c] = gv[2]
            out[a, 4 * n + c] = gq[0, 0] + by_w[0] * v[0]
            out[a, 5 * n + c] = gq[1, 1] + by_w[1] * v[1]
            out[a, 6 * n + c] = gq[2, 2] + by_w[2] * v[2]
            out[a, 7 * n + c] = two * gq[0, 1] + by_w[0] * v[1] + by_w[1] * v[0]
            out[a, 8 * n + c] = two * gq[0, 2] + by_w[0] * v[2] + by_w[2] * v[0]
            out[a, 9 * n + c] = two * gq[1, 2] + by_w[1] * v[2] + by_w[2] * v[1]

    # forces of a direct student from one sum, with weights of A1 and A2·A1 from column ``at`` on
    @wp.func
    def push(m: numbers_2d, weights: numbers_2d, at: int, a: int):
        total, n = three(), m.shape[1] // 10
        for c in range(n):
            v = first_order(m, a, c, n)
            w = second_order(m, a, c, n) * v
            total += weights[a, at + c] * v + weights[a, at + n + c] * w
        return total

    return Invariants(inputs, gradient, push)
