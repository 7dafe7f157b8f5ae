"""The operations of a splitting on a device, a thread for each atom of each bead.

All numbers are float64. What heat the thermostat brings in is summed atom by atom, so that no two
threads add to one number and a run has the same bits every time.
"""

import math
from functools import cache
from typing import Any, NamedTuple

from integrators import noise as philox
from integrators.device.launches import warp


class MoveKernels(NamedTuple):
    """See their comments for the shape of a launch: P beads, or normal modes of beads; N atoms."""

    kick: Any
    drift: Any
    white: Any
    stop: Any
    measure: Any


@cache
def move_kernels() -> MoveKernels:
    """Return the kernels."""
    wp = warp()
    kernel = wp.kernel(enable_backward=False, module="unique")
    numbers, numbers_2d = (wp.array(dtype=wp.float64, ndim=axes) for axes in (1, 2))
    vectors, vectors_2d = (wp.array(dtype=wp.vec3d, ndim=axes) for axes in (1, 2))

    # (P, N): v += time F / m
    @kernel
    def kick(v: vectors_2d, force: vectors_2d, inverse: numbers, time: wp.float64):
        p, a = wp.tid()
        v[p, a] += time * inverse[a] * force[p, a]

    # (P, N): free, or around the centre of a harmonic ring: cos ωt, sin ωt / ω, ω sin ωt
    @kernel
    def drift(q: vectors_2d, v: vectors_2d, still: numbers, ahead: numbers, back: numbers):
        p, a = wp.tid()
        # both before either is written: Warp reads an element of an array where it is used
        x = still[p] * q[p, a] + ahead[p] * v[p, a]
        u = still[p] * v[p, a] - back[p] * q[p, a]
        q[p, a] = x
        v[p, a] = u

    # (P, N): an Ornstein-Uhlenbeck step
    @kernel
    def white(
        v: vectors_2d,
        decay: numbers_2d,
        width: numbers_2d,
        noise: vectors_2d,
        m: numbers,
        heat: numbers_2d,
    ):
        p, a = wp.tid()
        before = v[p, a]
        after = decay[p, a] * before + width[p, a] * noise[p, a]
        heat[p, a] += wp.float64(0.5) * m[a] * (wp.dot(after, after) - wp.dot(before, before))
        v[p, a] = after

    # (N,): the first mode loses the velocity of the centre; its energy leaves as heat
    @kernel
    def stop(v: vectors_2d, center: vectors, total: wp.float64, heat: numbers):
        a = wp.tid()
        c = center[0]
        v[0, a] -= c
        if a == 0:
            heat[0] -= wp.float64(0.5) * total * wp.dot(c, c)

    # (P, N): twice the kinetic energy
    @kernel
    def measure(v: vectors_2d, m: numbers, twice: numbers_2d):
        p, a = wp.tid()
        twice[p, a] = m[a] * wp.dot(v[p, a], v[p, a])

    return MoveKernels(kick, drift, white, stop, measure)


@cache
def coloured_kernel(extra: int) -> Any:
    """Return the kernel of coloured noise with so many extra momenta, (P, N)."""
    wp = warp()
    size = extra + 1
    local = wp.types.matrix((size, 3), wp.float64)
    numbers, numbers_2d = (wp.array(dtype=wp.float64, ndim=axes) for axes in (1, 2))
    vectors_2d, vectors_3d = (wp.array(dtype=wp.vec3d, ndim=axes) for axes in (2, 3))

    @wp.kernel(enable_backward=False, module="unique")
    def coloured(
        v: vectors_2d,
        more: vectors_3d,
        decay: numbers_2d,
        spread: numbers_2d,
        noise: vectors_3d,
        m: numbers,
        inverse: numbers,
        heat: numbers_2d,
    ):
        p, a = wp.tid()
        before = v[p, a]
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
                gained = wp.dot(after, after) - wp.dot(before, before)
                heat[p, a] += wp.float64(0.5) * m[a] * gained
                v[p, a] = after

    return coloured


@cache
def draw_kernel() -> Any:
    """Return the kernel of `integrators.noise`, (n, ⌈size / 2⌉): its numbers to the last digits.

    From ``words`` (4,), `Counter.words` of seed and step, and the numbers of the operations (n,).
    """
    wp = warp()
    word = wp.constant(wp.uint64(philox.WORD))
    first_factor = wp.constant(wp.uint64(philox.FIRST_FACTOR))
    second_factor = wp.constant(wp.uint64(philox.SECOND_FACTOR))
    first_key_step = wp.constant(wp.uint64(philox.FIRST_KEY_STEP))
    second_key_step = wp.constant(wp.uint64(philox.SECOND_KEY_STEP))
    unit, one, two = (wp.constant(wp.float64(x)) for x in (philox.UNIT, 1.0, 2.0))
    turn = wp.constant(wp.float64(2.0 * math.pi))

    @wp.func
    def joined(high: wp.uint64, low: wp.uint64):
        bits = ((high >> wp.uint64(5)) << wp.uint64(26)) + (low >> wp.uint64(6))
        return wp.float64(bits) * unit

    @wp.kernel(enable_backward=False, module="unique")
    def draw(
        words: wp.array(dtype=wp.int64),
        ops: wp.array(dtype=int),
        out: wp.array2d(dtype=wp.float64),
    ):
        n, block = wp.tid()
        half = wp.uint64(32)
        c0, c1 = wp.uint64(block), wp.uint64(ops[n])
        c2, c3 = wp.uint64(words[2]), wp.uint64(words[3])
        k0, k1 = wp.uint64(words[0]), wp.uint64(words[1])
        for _ in range(wp.static(philox.ROUNDS)):
            first, second = first_factor * c0, second_factor * c2
            d1, d3 = second & word, first & word
            c0 = (second >> half) ^ c1 ^ k0
            c2 = (first >> half) ^ c3 ^ k1
            c1 = d1
            c3 = d3
            k0 = (k0 + first_key_step) & word
            k1 = (k1 + second_key_step) & word
        radius = wp.sqrt(-two * wp.log(one - joined(c0, c1)))
        angle = turn * joined(c2, c3)
        out[n, 2 * block] = radius * wp.cos(angle)
        if 2 * block + 1 < out.shape[1]:
            out[n, 2 * block + 1] = radius * wp.sin(angle)

    return draw
