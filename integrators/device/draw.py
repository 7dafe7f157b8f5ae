"""The numbers of `integrators.noise` on a device."""

import math
from functools import cache
from typing import Any

from integrators import noise as philox
from integrators.device.launches import warp


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
