"""Kernels of how forces change along a direction: a student's Hessian times a vector.

The three loops of `mts_driver.potentials.student.cpu.kernels` once more, every quantity followed by
its derivative along the direction, whose name has a d before it. They start from what those loops
have left behind. The change of the energy's gradient by the weights comes along, where it is asked
for: gradients by layers are products of what is kept here, those by radial functions are summed
while neighbours pass.
"""

from functools import lru_cache

import numpy as np
from numba import njit, prange

from mts_driver.potentials.student.cpu import kernels, neighbor_sums, networks, tangent_sums
from mts_driver.potentials.student.cpu.hessian import sums
from mts_driver.potentials.student.cpu.hessian.sums import (
    gradients_by_moments,
    pull_change,
    put_change,
)
from mts_driver.potentials.student.cpu.kernels import CHUNKS, Kernels, share
from mts_driver.potentials.student.cpu.neighbor_sums import load_ten, store_ten
from mts_driver.potentials.student.cpu.networks import (
    ROWS,
    add_product,
    change_times_silu_slope,
    clear,
    fill,
    put_silu_change,
    silu,
)
from mts_driver.potentials.student.cpu.simd import inverse, load, root, stamp, store, zeros
from mts_driver.potentials.student.cpu.tangent_sums import (
    change_of_moments,
    moments_and_change,
    put_inputs_and_change,
)


@lru_cache
def hessian_kernels(channels: int, messages: int) -> Kernels:
    """Return the loops, compiled for these numbers of channels.

    Parameters are those of `mts_driver.potentials.student.cpu.kernels.kernels`, and ``along``
    (M, 3), the direction; ``again`` and ``changes`` see
    `mts_driver.potentials.student.cpu.hessian.arrays`; ``basis`` (G, 4, K) and ``grad_radial``
    (CHUNKS, E, E, K, C) see `pull_change`.
    """
    called = stamp(kernels, networks, neighbor_sums, tangent_sums, sums)
    two_sums = messages > 0
    second = max(messages, 1)

    @njit(parallel=True, cache=True, fastmath=True)
    def read(near, blocks, along, radial, scaling, weights, work, again, changes, message_bound):
        _ = called
        first, last, neighbors, vectors, kind = near
        table, _, r0, inverse_h = radial
        (order, element), (_, scale, input_bound) = blocks, scaling
        w1, w2, wq = weights.w1, weights.w2, weights.wq
        kept, inputs, a1, message_raw = work.moments, work.inputs, work.a1, work.message_raw
        dkept, dinputs, da1, dh, da2 = (
            changes.moments,
            changes.inputs,
            changes.a1,
            changes.h1,
            changes.a2,
        )
        h, dmessage_raw, dmessage = again.h1, changes.message_raw, changes.message
        (stride, hidden), width = w1.shape[1:], wq.shape[2]
        for chunk in prange(CHUNKS):
            one, like = w1.dtype.type(1), zeros(w1, channels)
            quiet = zeros(w1, second)
            dq = np.empty(ROWS * width, w1.dtype)
            for block in range(*share(element.size, chunk)):
                e, row = element[block], block * ROWS
                for j in range(ROWS):
                    a = order[block, j]
                    if a >= 0:
                        d = change_of_moments(
                            a,
                            (first, last, neighbors, vectors, kind),
                            along,
                            (table, r0, inverse_h),
                            like,
                        )
                        m = load_ten(kept, (row + j) * 10 * channels, like)
                        store_ten(dkept, (row + j) * 10 * channels, d)
                        at, of_kind = (row + j) * stride, e * 10 * channels
                        put_change(m, d, inputs, dinputs, at, scale, of_kind, input_bound)
                at = row * hidden
                clear(da1, at, ROWS * hidden)
                add_product(dinputs, row * stride, stride, w1, e * stride * hidden, hidden, da1, at)
                silu(a1, at, h, at, ROWS * hidden)
                put_silu_change(a1, da1, at, dh, ROWS * hidden)
                clear(da2, at, ROWS * hidden)
                add_product(dh, at, hidden, w2, e * hidden * hidden, hidden, da2, at)
                if two_sums:
                    clear(dq, 0, ROWS * width)
                    add_product(dh, at, hidden, wq, e * hidden * width, width, dq, 0)
                    for j in range(ROWS):
                        a = order[block, j]
                        if a >= 0:
                            x, dx = (
                                load(message_raw, a * messages, quiet),
                                load(dq, j * width, quiet),
                            )
                            store(dmessage_raw, a * messages, dx)
                            s = inverse(root(one + message_bound * (x * x)))
                            store(dmessage, a * messages, dx * s * s * s)

    @njit(parallel=True, cache=True, fastmath=True)
    def decide(
        near, blocks, along, radial, scaling, weights, work, again, changes, basis, grad_radial
    ):
        _ = called
        first, last, neighbors, vectors, kind = near
        table, pairs, r0, inverse_h = radial
        (order, element), (shift, scale, input_bound) = blocks, scaling
        w2b, w3, w2t, w2bt = weights.w2b, weights.w3, weights.w2t, weights.w2bt
        a2, message = work.a2, work.message
        da2, dh2, dmessage = changes.a2, changes.h2, changes.message
        inputs, dinputs = again.inputs2, changes.inputs2
        g1, dg1, g2, dg2 = again.g1, changes.g1, again.g2, changes.g2
        forces, dgrad_message = changes.forces, changes.grad_message
        stride, hidden = w2b.shape[1:]
        for chunk in prange(CHUNKS):
            quiet = zeros(w3, second)
            m2 = np.zeros(ROWS * 10 * second, w3.dtype)
            dm2 = np.zeros(ROWS * 10 * second, w3.dtype)
            grad, dgrad = np.zeros(ROWS * stride, w3.dtype), np.zeros(ROWS * stride, w3.dtype)
            for block in range(*share(element.size, chunk)):
                e, row, at = element[block], block * ROWS, block * ROWS * hidden
                if two_sums:
                    for j in range(ROWS):
                        a = order[block, j]
                        if a >= 0:
                            m, d = moments_and_change(
                                a,
                                (first, last, neighbors, vectors, kind),
                                along,
                                (table, r0, inverse_h),
                                message,
                                dmessage,
                                quiet,
                            )
                            store_ten(m2, j * 10 * second, m)
                            store_ten(dm2, j * 10 * second, d)
                            here, of_kind = (row + j) * stride, e * 10 * second
                            put_inputs_and_change(
                                m, d, inputs, dinputs, here, shift, scale, of_kind, input_bound
                            )
                    here = row * stride
                    add_product(dinputs, here, stride, w2b, e * stride * hidden, hidden, da2, at)
                fill(g2, at, hidden, w3, e * hidden)
                clear(dg2, at, ROWS * hidden)
                change_times_silu_slope(a2, da2, at, g2, dg2, at, ROWS * hidden)
                put_silu_change(a2, da2, at, dh2, ROWS * hidden)
                clear(g1, at, ROWS * hidden)
                clear(dg1, at, ROWS * hidden)
                add_product(g2, at, hidden, w2t, e * hidden * hidden, hidden, g1, at)
                add_product(dg2, at, hidden, w2t, e * hidden * hidden, hidden, dg1, at)
                if two_sums:
                    clear(grad, 0, ROWS * stride)
                    clear(dgrad, 0, ROWS * stride)
                    add_product(g2, at, hidden, w2bt, e * hidden * stride, stride, grad, 0)
                    add_product(dg2, at, hidden, w2bt, e * hidden * stride, stride, dgrad, 0)
                    for j in range(ROWS):
                        a = order[block, j]
                        if a >= 0:
                            g, dg = gradients_by_moments(
                                load_ten(m2, j * 10 * second, quiet),
                                load_ten(dm2, j * 10 * second, quiet),
                                *(inputs, dinputs, (row + j) * stride),
                                *(grad, dgrad, j * stride),
                                *(scale, e * 10 * second, input_bound),
                            )
                            pull_change(
                                a,
                                (first, last, neighbors, vectors, kind),
                                along,
                                (table, pairs, r0, inverse_h),
                                (message, dmessage),
                                g,
                                dg,
                                forces[chunk],
                                dgrad_message[chunk],
                                basis,
                                grad_radial[chunk],
                            )

    @njit(parallel=True, cache=True, fastmath=True)
    def pull_back(
        near,
        blocks,
        along,
        radial,
        scaling,
        weights,
        work,
        again,
        changes,
        message_bound,
        basis,
        grad_radial,
    ):
        _ = called
        first, last, neighbors, vectors, kind = near
        table, pairs, r0, inverse_h = radial
        (order, element), (_, scale, input_bound) = blocks, scaling
        w1t, wqt = weights.w1t, weights.wqt
        inputs, kept, a1, grad_message = work.inputs, work.moments, work.a1, work.grad_message
        message_raw, dmessage_raw = work.message_raw, changes.message_raw
        dinputs, dkept, da1, dgrad_message = (
            changes.inputs,
            changes.moments,
            changes.a1,
            changes.grad_message,
        )
        g1, dg1, gq, dgq = again.g1, changes.g1, again.gq, changes.gq
        forces = changes.forces
        (hidden, stride), width = w1t.shape[1:], wqt.shape[1]
        for chunk in prange(CHUNKS):
            one, three, nothing = w1t.dtype.type(1), w1t.dtype.type(3), np.empty((0, 0), w1t.dtype)
            like = zeros(w1t, channels)
            quiet = zeros(w1t, second)
            grad, dgrad = np.empty(ROWS * stride, w1t.dtype), np.empty(ROWS * stride, w1t.dtype)
            atoms = kind.size
            for block in range(*share(element.size, chunk)):
                e, row, at = element[block], block * ROWS, block * ROWS * hidden
                if two_sums:
                    for j in range(ROWS):
                        a = order[block, j]
                        if a >= 0:
                            g = dg = quiet
                            for c in range(CHUNKS):
                                g += load(grad_message, (c * atoms + a) * messages, quiet)
                                dg += load(dgrad_message, (c * atoms + a) * messages, quiet)
                            x = load(message_raw, a * messages, quiet)
                            dx = load(dmessage_raw, a * messages, quiet)
                            s = inverse(root(one + message_bound * (x * x)))
                            slope = s * s * s
                            curved = (three * message_bound) * slope * s * s * x * dx
                            store(gq, (row + j) * width, g * slope)
                            store(dgq, (row + j) * width, dg * slope - g * curved)
                    add_product(gq, row * width, width, wqt, e * width * hidden, hidden, g1, at)
                    add_product(dgq, row * width, width, wqt, e * width * hidden, hidden, dg1, at)
                change_times_silu_slope(a1, da1, at, g1, dg1, at, ROWS * hidden)
                clear(grad, 0, ROWS * stride)
                clear(dgrad, 0, ROWS * stride)
                add_product(g1, at, hidden, w1t, e * hidden * stride, stride, grad, 0)
                add_product(dg1, at, hidden, w1t, e * hidden * stride, stride, dgrad, 0)
                for j in range(ROWS):
                    a = order[block, j]
                    if a >= 0:
                        g, dg = gradients_by_moments(
                            load_ten(kept, (row + j) * 10 * channels, like),
                            load_ten(dkept, (row + j) * 10 * channels, like),
                            *(inputs, dinputs, (row + j) * stride),
                            *(grad, dgrad, j * stride),
                            *(scale, e * 10 * channels, input_bound),
                        )
                        pull_change(
                            a,
                            (first, last, neighbors, vectors, kind),
                            along,
                            (table, pairs, r0, inverse_h),
                            (nothing, nothing),
                            g,
                            dg,
                            forces[chunk],
                            nothing,
                            basis,
                            grad_radial[chunk],
                        )

    return Kernels(read, decide, pull_back)
