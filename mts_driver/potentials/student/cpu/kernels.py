"""Fused CPU kernels of the student: from neighbours to energies and forces in three loops.

The same equations as `mts_driver.potentials.student.model`, with the radial functions read from
cubic splines. Atoms are taken in blocks of one element (`Blocks`); what a block needs of moments,
network inputs and their gradients stays in the processor's cache, and nothing of the size of the
pair list times the channels is ever stored. Derivatives are written out by hand.

    read      first sum, first layer of the network, what atoms tell their neighbours
    decide    second sum, second layer, energies; back to forces through the second sum
    pull_back through the first layer and the first sum
"""

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numba import njit, prange

from mts_driver.potentials.student.cpu import neighbor_sums, networks
from mts_driver.potentials.student.cpu.neighbor_sums import (
    contracted,
    load_ten,
    moments,
    pull,
    put_inputs,
    store_ten,
    take_gradient,
)
from mts_driver.potentials.student.cpu.networks import (
    ROWS,
    add_product,
    clear,
    dot,
    fill,
    silu,
    times_silu_slope,
)
from mts_driver.potentials.student.cpu.simd import (
    inverse,
    load,
    root,
    size,
    stamp,
    store,
    total,
    zeros,
)

CHUNKS = 8
"""Ranges of blocks that threads share; fixed, so that sums don't depend on the thread count."""


class Kernels(NamedTuple):
    """The three loops, compiled for one architecture."""

    read: Any
    decide: Any
    pull_back: Any


@njit(parallel=True, cache=True, fastmath=True)
def neighborhoods(x, first, neighbors, images, shifts, cutoff):
    """Pairs closer than ``cutoff`` now: ends of rows (M,), atoms (P,), vectors and lengths (P, 4).

    Row a of the result starts at ``first[a]``, as in the list with the skin. The last of the four
    results has the distance of every atom's nearest neighbour (M,).
    """
    atoms = first.size - 1
    last, closest = np.empty(atoms, np.int64), np.empty(atoms)
    near = np.empty(neighbors.size, np.int64)
    vectors = np.empty((neighbors.size, 4))
    for chunk in prange(CHUNKS):
        for a in range(atoms * chunk // CHUNKS, atoms * (chunk + 1) // CHUNKS):
            n = first[a]
            for p in range(first[a], first[a + 1]):
                b, s = neighbors[p], images[p]
                dx = x[b, 0] + shifts[s, 0] - x[a, 0]
                dy = x[b, 1] + shifts[s, 1] - x[a, 1]
                dz = x[b, 2] + shifts[s, 2] - x[a, 2]
                r2 = dx * dx + dy * dy + dz * dz
                # always written and sometimes kept: a branch would be guessed wrong half the time
                near[n], vectors[n, 3] = b, r2
                vectors[n, 0], vectors[n, 1], vectors[n, 2] = dx, dy, dz
                n += r2 < cutoff * cutoff
            last[a], least = n, cutoff
            for p in range(first[a], n):
                vectors[p, 3] = math.sqrt(vectors[p, 3])
                least = min(least, vectors[p, 3])
            closest[a] = least
    return last, near, vectors, closest


@lru_cache
def kernels(channels: int, messages: int, direct: bool) -> Kernels:
    """Return the loops, compiled for these numbers of channels.

    Parameters are tuples of arrays: ``near`` is `evaluator.Near`; ``blocks`` is ``order``
    (B, ROWS), the atoms, −1 for none, and ``element`` (B,); ``radial`` see `neighbor_sums`;
    ``scaling`` is ``shift`` and ``scale`` (E, 10, C), and 1/bound²; ``weights`` is
    `evaluator.Weights`, ``work`` `evaluator.Workspace`.
    """
    called = stamp(networks, neighbor_sums)
    two_sums = messages > 0
    second = max(messages, 1)

    @njit(parallel=True, cache=True, fastmath=True)
    def read(near, blocks, radial, scaling, weights, work, message_bound):
        _ = called
        first, last, neighbors, vectors, kind = near
        table, pairs, r0, inverse_h = radial
        (order, element), (shift, scale, input_bound) = blocks, scaling
        w1, b1, w2, b2, wq = weights.w1, weights.b1, weights.w2, weights.b2, weights.wq
        energy, kept, inputs, a1, a2 = work.energy, work.moments, work.inputs, work.a1, work.a2
        message_raw, message = work.message_raw, work.message
        (stride, hidden), width = w1.shape[1:], wq.shape[2]
        for chunk in prange(CHUNKS):
            one, nothing = w1.dtype.type(1), np.empty((0, 0), w1.dtype)
            like = zeros(w1, channels)
            quiet = zeros(w1, second)
            h, q = np.empty(ROWS * hidden, w1.dtype), np.empty(ROWS * width, w1.dtype)
            for block in range(*share(element.size, chunk)):
                e, row = element[block], block * ROWS
                for j in range(ROWS):
                    a = order[block, j]
                    if a >= 0:
                        m, energy[a] = moments(
                            a,
                            (first, last, neighbors, vectors, kind),
                            (table, pairs, r0, inverse_h),
                            nothing,
                            like,
                        )
                        store_ten(kept, (row + j) * 10 * channels, m)
                        at, of_kind = (row + j) * stride, e * 10 * channels
                        put_inputs(m, inputs, at, shift, scale, of_kind, input_bound)
                at = row * hidden
                fill(a1, at, hidden, b1, e * hidden)
                add_product(inputs, row * stride, stride, w1, e * stride * hidden, hidden, a1, at)
                silu(a1, at, h, 0, ROWS * hidden)
                fill(a2, at, hidden, b2, e * hidden)
                add_product(h, 0, hidden, w2, e * hidden * hidden, hidden, a2, at)
                if two_sums:
                    clear(q, 0, ROWS * width)
                    add_product(h, 0, hidden, wq, e * hidden * width, width, q, 0)
                    for j in range(ROWS):
                        a = order[block, j]
                        if a >= 0:
                            x = load(q, j * width, quiet)
                            store(message_raw, a * messages, x)
                            x = x * inverse(root(one + message_bound * (x * x)))
                            store(message, a * messages, one + x)

    @njit(parallel=True, cache=True, fastmath=True)
    def decide(near, blocks, radial, scaling, weights, work, atoms_per_replica):
        _ = called
        first, last, neighbors, vectors, kind = near
        table, pairs, r0, inverse_h = radial
        (order, element), (shift, scale, input_bound) = blocks, scaling
        w2b, w3, w2t, w2bt = weights.w2b, weights.w3, weights.w2t, weights.w2bt
        energy, a2, g1, message, kept = work.energy, work.a2, work.g1, work.message, work.moments
        forces, virials, grad_message = work.forces, work.virials, work.grad_message
        (stride, hidden), width = w2b.shape[1:], w3.shape[-1]
        for chunk in prange(CHUNKS):
            like = zeros(w3, channels)
            quiet = zeros(w3, second)
            m2 = np.zeros(ROWS * 10 * second, w3.dtype)
            inputs, grad = np.zeros(ROWS * stride, w3.dtype), np.zeros(ROWS * stride, w3.dtype)
            h, g2 = np.empty(ROWS * hidden, w3.dtype), np.empty(ROWS * hidden, w3.dtype)
            own_forces, own_grad_message = forces[chunk], grad_message[chunk]
            for block in range(*share(element.size, chunk)):
                e, at = element[block], block * ROWS * hidden
                if two_sums:
                    for j in range(ROWS):
                        a = order[block, j]
                        if a >= 0:
                            m, _ = moments(
                                a,
                                (first, last, neighbors, vectors, kind),
                                (table, pairs, r0, inverse_h),
                                message,
                                quiet,
                            )
                            store_ten(m2, j * 10 * second, m)
                            of_kind = e * 10 * second
                            put_inputs(m, inputs, j * stride, shift, scale, of_kind, input_bound)
                    add_product(inputs, 0, stride, w2b, e * stride * hidden, hidden, a2, at)
                silu(a2, at, h, 0, ROWS * hidden)
                if direct:
                    out = np.zeros(ROWS * width, w3.dtype)
                    add_product(h, 0, hidden, w3, e * hidden * width, width, out, 0)
                    for j in range(ROWS):
                        a = order[block, j]
                        if a >= 0:
                            m = load_ten(kept, (block * ROWS + j) * 10 * channels, like)
                            _push(m, out, j * width, own_forces, a)
                            if two_sums:
                                m = load_ten(m2, j * 10 * second, quiet)
                                _push(m, out, j * width + 2 * channels, own_forces, a)
                else:
                    for j in range(ROWS):
                        a = order[block, j]
                        if a >= 0:
                            energy[a] += dot(h, j * hidden, w3, e * hidden, hidden)
                    fill(g2, 0, hidden, w3, e * hidden)
                    times_silu_slope(a2, at, g2, 0, ROWS * hidden)
                    clear(g1, at, ROWS * hidden)
                    add_product(g2, 0, hidden, w2t, e * hidden * hidden, hidden, g1, at)
                    if two_sums:
                        clear(grad, 0, ROWS * stride)
                        add_product(g2, 0, hidden, w2bt, e * hidden * stride, stride, grad, 0)
                        for j in range(ROWS):
                            a = order[block, j]
                            if a >= 0:
                                m = load_ten(m2, j * 10 * second, quiet)
                                of_kind = e * 10 * second
                                at2 = j * stride
                                g = take_gradient(
                                    m, grad, at2, inputs, at2, scale, of_kind, input_bound
                                )
                                pull(
                                    a,
                                    (first, last, neighbors, vectors, kind),
                                    (table, pairs, r0, inverse_h),
                                    message,
                                    g,
                                    own_forces,
                                    virials[chunk, a // atoms_per_replica],
                                    own_grad_message,
                                )

    @njit(parallel=True, cache=True, fastmath=True)
    def pull_back(near, blocks, radial, scaling, weights, work, message_bound, atoms_per_replica):
        _ = called
        first, last, neighbors, vectors, kind = near
        table, pairs, r0, inverse_h = radial
        (order, element), (_, scale, input_bound) = blocks, scaling
        w1t, wqt = weights.w1t, weights.wqt
        inputs, kept, a1, g1 = work.inputs, work.moments, work.a1, work.g1
        forces, virials, grad_message, message_raw = (
            work.forces,
            work.virials,
            work.grad_message,
            work.message_raw,
        )
        (hidden, stride), width = w1t.shape[1:], wqt.shape[1]
        for chunk in prange(CHUNKS):
            one, nothing = w1t.dtype.type(1), np.empty((0, 0), w1t.dtype)
            like = zeros(w1t, channels)
            quiet = zeros(w1t, second)
            grad_raw, grad = np.zeros(ROWS * width, w1t.dtype), np.empty(ROWS * stride, w1t.dtype)
            own_forces, atoms = forces[chunk], kind.size
            for block in range(*share(element.size, chunk)):
                e, row = element[block], block * ROWS
                if two_sums:
                    for j in range(ROWS):
                        a = order[block, j]
                        if a >= 0:
                            s = quiet
                            for c in range(CHUNKS):
                                s += load(grad_message, (c * atoms + a) * messages, quiet)
                            x = load(message_raw, a * messages, quiet)
                            x = inverse(root(one + message_bound * (x * x)))
                            store(grad_raw, j * width, s * x * x * x)
                    at = row * hidden
                    add_product(grad_raw, 0, width, wqt, e * width * hidden, hidden, g1, at)
                times_silu_slope(a1, row * hidden, g1, row * hidden, ROWS * hidden)
                clear(grad, 0, ROWS * stride)
                add_product(g1, row * hidden, hidden, w1t, e * hidden * stride, stride, grad, 0)
                for j in range(ROWS):
                    a = order[block, j]
                    if a >= 0:
                        m = load_ten(kept, (row + j) * 10 * channels, like)
                        at, of_kind = (row + j) * stride, e * 10 * channels
                        g = take_gradient(
                            m, grad, j * stride, inputs, at, scale, of_kind, input_bound
                        )
                        pull(
                            a,
                            (first, last, neighbors, vectors, kind),
                            (table, pairs, r0, inverse_h),
                            nothing,
                            g,
                            own_forces,
                            virials[chunk, a // atoms_per_replica],
                            nothing,
                        )

    return Kernels(read, decide, pull_back)


@njit
def share(blocks, chunk):
    """First and last block of a chunk."""
    return blocks * chunk // CHUNKS, blocks * (chunk + 1) // CHUNKS


@njit(fastmath=True)
def _push(m, weights, at, forces, a):
    """Add the force of a direct student: weights times A1, and times A2·A1."""
    n = at + size(m[0])
    one, two = load(weights, at, m[0]), load(weights, n, m[0])
    x, y, z = contracted(m)
    forces[a, 0] += total(one * m[1] + two * x)
    forces[a, 1] += total(one * m[2] + two * y)
    forces[a, 2] += total(one * m[3] + two * z)
