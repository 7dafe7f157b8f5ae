"""The student's networks for eight atoms of one element at a time, on lanes.

numba functions for `mts_driver.potentials.student.cpu.kernels`. All arrays are flat buffers with an
offset; a block of `ROWS` atoms has rows of equal length behind one another, and matrices have rows
of a multiple of `WIDE` columns.
"""

from numba import njit

from mts_driver.potentials.student.cpu.simd import (
    exponential,
    inverse,
    load,
    one,
    store,
    total,
    zeros,
)

ROWS = 8
WIDE = 16
"""Numbers of a row that are worked on at a time: a register of AVX-512, two of AVX2."""


@njit(fastmath=True)
def clear(out, at, count):
    """Set ``count`` numbers to zero."""
    nothing = zeros(out, WIDE)
    for c in range(0, count, WIDE):
        store(out, at + c, nothing)


@njit(fastmath=True)
def fill(out, at, columns, values, values_at):
    """Set all rows of a block to the same values, such as a bias."""
    for j in range(ROWS):
        for c in range(0, columns, WIDE):
            store(out, at + j * columns + c, load(values, values_at + c, WIDE))


@njit(fastmath=True)
def add_product(x, x_at, width, matrix, matrix_at, columns, out, at):
    """Add X·W to ``out``: X (ROWS, width), W (width, columns), the result (ROWS, columns)."""
    x1, x2, x3, x4 = x_at + width, x_at + 2 * width, x_at + 3 * width, x_at + 4 * width
    x5, x6, x7 = x_at + 5 * width, x_at + 6 * width, x_at + 7 * width
    for c in range(0, columns, WIDE):
        o = at + c
        s0, s1 = load(out, o, WIDE), load(out, o + columns, WIDE)
        s2, s3 = load(out, o + 2 * columns, WIDE), load(out, o + 3 * columns, WIDE)
        s4, s5 = load(out, o + 4 * columns, WIDE), load(out, o + 5 * columns, WIDE)
        s6, s7 = load(out, o + 6 * columns, WIDE), load(out, o + 7 * columns, WIDE)
        for k in range(width):
            w = load(matrix, matrix_at + k * columns + c, WIDE)
            s0 += one(x, x_at + k) * w
            s1 += one(x, x1 + k) * w
            s2 += one(x, x2 + k) * w
            s3 += one(x, x3 + k) * w
            s4 += one(x, x4 + k) * w
            s5 += one(x, x5 + k) * w
            s6 += one(x, x6 + k) * w
            s7 += one(x, x7 + k) * w
        store(out, o, s0)
        store(out, o + columns, s1)
        store(out, o + 2 * columns, s2)
        store(out, o + 3 * columns, s3)
        store(out, o + 4 * columns, s4)
        store(out, o + 5 * columns, s5)
        store(out, o + 6 * columns, s6)
        store(out, o + 7 * columns, s7)


@njit(fastmath=True)
def _sigmoid(x, unit):
    return inverse(unit + exponential(-unit * x))


@njit(fastmath=True)
def silu(x, x_at, out, at, count):
    """Set ``out`` to x·σ(x)."""
    unit = x.dtype.type(1)
    for c in range(0, count, WIDE):
        v = load(x, x_at + c, WIDE)
        store(out, at + c, v * _sigmoid(v, unit))


@njit(fastmath=True)
def times_silu_slope(x, x_at, grad, at, count):
    """Multiply ``grad`` by the derivative of x·σ(x)."""
    unit = x.dtype.type(1)
    for c in range(0, count, WIDE):
        v = load(x, x_at + c, WIDE)
        s = _sigmoid(v, unit)
        store(grad, at + c, load(grad, at + c, WIDE) * (s * (unit + v * (unit - s))))


@njit(fastmath=True)
def put_silu_change(x, dx, at, out, count):
    """Set ``out`` to the change of x·σ(x) as x changes by ``dx``."""
    unit = x.dtype.type(1)
    for c in range(0, count, WIDE):
        v = load(x, at + c, WIDE)
        s = _sigmoid(v, unit)
        store(out, at + c, load(dx, at + c, WIDE) * (s * (unit + v * (unit - s))))


@njit(fastmath=True)
def change_times_silu_slope(x, dx, x_at, grad, dgrad, at, count):
    """Do as `times_silu_slope`, and let ``dgrad`` become the change of the product.

    The second derivative is σ(1 − σ)(2 + x(1 − 2σ)).
    """
    unit, two = x.dtype.type(1), x.dtype.type(2)
    for c in range(0, count, WIDE):
        v, g = load(x, x_at + c, WIDE), load(grad, at + c, WIDE)
        s = _sigmoid(v, unit)
        slope = s * (unit + v * (unit - s))
        curved = s * (unit - s) * (two + v * (unit - two * s))
        dg = load(dgrad, at + c, WIDE) * slope + g * curved * load(dx, x_at + c, WIDE)
        store(grad, at + c, g * slope)
        store(dgrad, at + c, dg)


@njit(fastmath=True)
def dot(x, x_at, weights, weights_at, count):
    """Sum over the products of two rows."""
    s = load(x, x_at, WIDE) * load(weights, weights_at, WIDE)
    for c in range(WIDE, count, WIDE):
        s += load(x, x_at + c, WIDE) * load(weights, weights_at + c, WIDE)
    return total(s)
