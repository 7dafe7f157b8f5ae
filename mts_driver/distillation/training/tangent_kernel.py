"""Kernels for training: network inputs, their change along a direction, the gradient of both.

Matching forces needs ∂θ Σ w·F for given weights w, and F = −∇E: it is −∂θ of the derivative of E
along w. These kernels carry that directional derivative through the sums over neighbours and the
invariants, so that no derivative by the positions is ever taken twice and nothing of the size of
the pair list times the channels is stored. A name with a d before it is the derivative along w.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numba import njit, prange

from mts_driver.potentials.student.cpu import neighbor_sums, tangent_sums
from mts_driver.potentials.student.cpu.neighbor_sums import (
    grid_cell,
    invariants_back,
    load_ten,
    spline,
    store_ten,
)
from mts_driver.potentials.student.cpu.simd import load, stamp, store, zeros
from mts_driver.potentials.student.cpu.tangent_sums import (
    dinvariants_back,
    moments_and_change,
    put_inputs_and_change,
    shapes,
    unbound,
    weighted,
)

CHUNKS = 4
"""Blocks of atoms that threads share; fixed, so that sums don't depend on the thread count."""


class Kernels(NamedTuple):
    """Both directions, compiled for a number of channels."""

    tangents: Any
    tangents_back: Any


@lru_cache
def kernels(channels: int) -> Kernels:
    """Return the kernels for this number of channels.

    Their arguments: ``near`` (`mts_driver.potentials.student.cpu.evaluator.Near`), the direction
    ``along`` (M, 3), ``row`` (M,), where the inputs of an atom go, ``radial`` (``table``
    (E, E, G, 4, C) and its grid ``r0``, ``inverse_h``), ``scaling`` (``shift`` and ``scale``
    (E, 10, C), 1/bound²) and what atoms tell their neighbours, ``message`` and ``dmessage`` (M, C),
    empty in the first sum.
    """
    called = stamp(neighbor_sums, tangent_sums)

    @njit(parallel=True, cache=True, fastmath=True)
    def tangents(near, along, row, radial, scaling, message, dmessage):
        """Moments and network inputs, each followed by its derivative, all (M, 10, C)."""
        _ = called
        first, last, neighbors, vectors, kind = near
        (table, r0, inverse_h), (shift, scale, input_bound) = radial, scaling
        atoms = kind.size
        moments = np.empty((atoms, 10, channels), table.dtype)
        dmoments = np.empty((atoms, 10, channels), table.dtype)
        inputs = np.empty((atoms, 10, channels), table.dtype)
        dinputs = np.empty((atoms, 10, channels), table.dtype)
        for chunk in prange(CHUNKS):
            like = zeros(table, channels)
            for a in range(atoms * chunk // CHUNKS, atoms * (chunk + 1) // CHUNKS):
                m, d = moments_and_change(
                    a,
                    (first, last, neighbors, vectors, kind),
                    along,
                    (table, r0, inverse_h),
                    message,
                    dmessage,
                    like,
                )
                here, there = a * 10 * channels, row[a] * 10 * channels
                store_ten(moments, here, m)
                store_ten(dmoments, here, d)
                of_kind = kind[a] * 10 * channels
                put_inputs_and_change(
                    m, d, inputs, dinputs, there, shift, scale, of_kind, input_bound
                )
        return moments, dmoments, inputs, dinputs

    @njit(parallel=True, cache=True, fastmath=True)
    def tangents_back(near, along, row, radial, scaling, message, dmessage, results, grad, dgrad):
        """Gradients by ``table``, ``message`` and ``dmessage`` from those by the inputs."""
        _ = called
        first, last, neighbors, vectors, kind = near
        (table, r0, inverse_h), (_, scale, input_bound) = radial, scaling
        moments, dmoments, inputs, dinputs = results
        atoms, kinds, cells = kind.size, table.shape[0], table.shape[2]
        to_table = np.zeros((CHUNKS, kinds, kinds, cells, 4, channels), table.dtype)
        to_message = np.zeros((CHUNKS, message.shape[0], channels), table.dtype)
        to_dmessage = np.zeros((CHUNKS, message.shape[0], channels), table.dtype)
        for chunk in prange(CHUNKS):
            number = table.dtype.type
            one = number(1)
            like = zeros(table, channels)
            for a in range(atoms * chunk // CHUNKS, atoms * (chunk + 1) // CHUNKS):
                here, there = a * 10 * channels, row[a] * 10 * channels
                m, d = load_ten(moments, here, like), load_ten(dmoments, here, like)
                of_kind = kind[a] * 10 * channels
                unbound(
                    *(inputs, dinputs, there, grad, dgrad, there),
                    *(scale, of_kind, input_bound, like),
                )
                h, dh = load_ten(grad, there, like), load_ten(dgrad, there, like)
                dg = invariants_back(m, dh)
                g = dinvariants_back(m, d, dh, invariants_back(m, h))
                for p in range(first[a], last[a]):
                    b = neighbors[p]
                    x, dx, dr = shapes(vectors[p], along[a], along[b], table)
                    f_bar = weighted(x, g) + weighted(dx, dg)
                    df_bar = weighted(x, dg)
                    k, s = grid_cell(vectors[p, 3], table, r0, inverse_h)
                    at = ((kind[a] * kinds + kind[b]) * cells + k) * 4 * channels
                    ds = number(dr * inverse_h)
                    if message.size:
                        f, slope = spline(table, at, s, like)
                        df = ds * slope
                        n = (chunk * atoms + b) * channels
                        q = load(to_message, n, like) + f_bar * f + df_bar * df
                        store(to_message, n, q)
                        store(to_dmessage, n, load(to_dmessage, n, like) + df_bar * f)
                        received, dreceived = (
                            load(message, b * channels, like),
                            load(dmessage, b * channels, like),
                        )
                        f_bar = f_bar * received + df_bar * dreceived
                        df_bar = df_bar * received
                    to = chunk * table.size + at
                    store(to_table, to, load(to_table, to, like) + f_bar)
                    to += channels
                    store(to_table, to, load(to_table, to, like) + s * f_bar + ds * df_bar)
                    to += channels
                    more = (s * s) * f_bar + ((s + s) * ds) * df_bar
                    store(to_table, to, load(to_table, to, like) + more)
                    to += channels
                    more = (s * s * s) * f_bar + ((one + one + one) * s * s * ds) * df_bar
                    store(to_table, to, load(to_table, to, like) + more)
        return to_table.sum(0), to_message.sum(0), to_dmessage.sum(0)

    return Kernels(tangents, tangents_back)
