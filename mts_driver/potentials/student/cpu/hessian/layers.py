"""How gradients by the weights of a student's layers change: sums over rows of blocks, on lanes.

The energy's gradient by the matrix of a layer is Σ x⊗g, with the layer's inputs x and the gradients
g by its outputs: it changes by Σ x⊗dg + dx⊗g, and that by biases by Σ dg. Rows without an atom do
not count, for dx and dg are zero there. Numbers don't depend on how many threads share the work.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numba import njit, prange

from mts_driver.potentials.student.cpu.networks import ROWS, WIDE
from mts_driver.potentials.student.cpu.simd import load, one, stamp, store, zeros

REGISTERS_BYTES = 64
"""Width of a sum: two registers of AVX2, of which four rows and their inputs leave some free."""
TALL = 4
DEEP = 32
"""Rows of blocks that are taken at a time, so that they stay in the nearest cache."""


class LayerKernels(NamedTuple):
    """Sums for matrices and for biases."""

    minus_products: Any
    minus_sums: Any


@lru_cache
def layer_kernels(number_bytes: int) -> LayerKernels:
    """Return the kernels for numbers of 4 or 8 bytes.

    Their arguments: inputs ``x`` and ``dx`` (R, I), gradients ``g`` and ``dg`` (R, O), with I and O
    multiples of `WIDE`; ``element`` (B,), that of every block, ascending; the result ``out``,
    (E, I, O) or (E, O).
    """
    called = stamp()
    lanes = REGISTERS_BYTES // number_bytes

    @njit(parallel=True, cache=True, fastmath=True)
    def minus_products(x, dx, g, dg, element, out):
        """Set ``out`` to −Σ x⊗dg + dx⊗g over the rows of every element."""
        _ = called
        ends = _ends(element, out.shape[0])
        width, columns = out.shape[1:]
        shares = width // WIDE
        out[:] = 0
        for share in prange(out.shape[0] * shares):
            e, top = share // shares, share % shares * WIDE
            for start in range(ends[e], ends[e + 1], DEEP):
                end = min(start + DEEP, ends[e + 1])
                for c in range(0, columns, lanes):
                    for k in range(top, top + WIDE, TALL):
                        to = (e * width + k) * columns + c
                        s0, s1 = load(out, to, lanes), load(out, to + columns, lanes)
                        s2 = load(out, to + 2 * columns, lanes)
                        s3 = load(out, to + 3 * columns, lanes)
                        for row in range(start, end):
                            at, here = row * width + k, row * columns + c
                            u, v = load(dg, here, lanes), load(g, here, lanes)
                            s0 -= one(x, at) * u + one(dx, at) * v
                            s1 -= one(x, at + 1) * u + one(dx, at + 1) * v
                            s2 -= one(x, at + 2) * u + one(dx, at + 2) * v
                            s3 -= one(x, at + 3) * u + one(dx, at + 3) * v
                        store(out, to, s0)
                        store(out, to + columns, s1)
                        store(out, to + 2 * columns, s2)
                        store(out, to + 3 * columns, s3)

    @njit(cache=True, fastmath=True)
    def minus_sums(dg, element, out):
        """Set ``out`` to −Σ dg over the rows of every element."""
        _ = called
        ends, columns = _ends(element, out.shape[0]), out.shape[1]
        for e in range(out.shape[0]):
            for c in range(0, columns, WIDE):
                s = zeros(out, WIDE)
                for row in range(ends[e], ends[e + 1]):
                    s -= load(dg, row * columns + c, WIDE)
                store(out, e * columns + c, s)

    return LayerKernels(minus_products, minus_sums)


@njit
def _ends(element, kinds):
    """Where the rows of every element end, behind a zero."""
    ends = np.zeros(kinds + 1, np.int64)
    for e in element:
        ends[e + 1] += ROWS
    return np.cumsum(ends)
