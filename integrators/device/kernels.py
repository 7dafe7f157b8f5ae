"""Kernels of what a step begins and ends with: the numbers of `integrators.noise`, and results."""

import math
from functools import cache
from string import Template
from typing import Any, NamedTuple

from integrators import noise as philox
from integrators.device.launches import ADDED_UP, IN_BLOCKS, warp

EACH = 128
"""Numbers that a block of `ending_kernel` copies."""
TOLD = 3
"""Flags of a model at most."""


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


class EndingKernel(NamedTuple):
    """The kernel, and how many threads a block has."""

    threads: int
    end: Any


_SOURCE = """
constexpr int T = $threads, EACH = $each, TOLD = $told, SUMS = 1;
$added_up
const int size = 3 * beads * atoms, more = extra.shape[0];
const int at_heat = 3 * models + 1, at_copies = at_heat + 1, at_seen = at_copies + 2 * size + more;
const int at_known = at_seen + rows - 1, last = joined.shape[0] - 1;
const auto put = [&](int at, double number) {
    joined.data[at] = number;
    if (!(wp::abs(number) <= 1.7976931348623157e308)) joined.data[last] = 1.0;
};
if (b < rows) {
    // the first row is the heat, the others are kinetic energies of groups
    double sum[1] = {0.0};
    if (b == 0) {
        for (int i = t; i < heat.shape[0]; i += T) sum[0] += heat.data[i];
        const int* of[2 * TOLD] = {told0.data, told1.data, told2.data,
                                   told3.data, told4.data, told5.data};
        for (int i = t; i < 3 * models; i += T) {
            int raised = i % 3 == 2 ? flags.data[i] : 0;
            for (int k = 0; i % 3 < 2 && k < TOLD; ++k)
                raised = raised || of[TOLD * (i / 3) + k][i % 3] > 0;
            joined.data[i] = raised;
        }
        if (t == 0) joined.data[3 * models] = lost.data[0];
    } else {
        const int n = (b - 1) / groups, g = (b - 1) % groups;
        for (int i = t; i < beads * atoms; i += T)
            sum[0] += twice.data[n * beads * atoms + i] * members.data[g * atoms + i % atoms];
    }
    added_up(sum);
    if (t == 0) put(b == 0 ? at_heat : at_seen + b - 1, sum[0]);
} else {
    const double* from[6] = {found0.data, found1.data, found2.data,
                             found3.data, found4.data, found5.data};
    double* to[6] = {known0.data, known1.data, known2.data,
                     known3.data, known4.data, known5.data};
    const int sizes[6] = {found0.shape[0], found1.shape[0], found2.shape[0],
                          found3.shape[0], found4.shape[0], found5.shape[0]};
    const int first = EACH * (b - rows);
    for (int k = first + t; k < wp::min(first + EACH, copied); k += T) {
        if (k < size) {
            put(at_copies + k, x.data[k]);
        } else if (k < 2 * size) {
            // velocities as they will be where momenta come back from a file
            const int i = k - size, a = i / 3 % atoms;
            p.data[i] = masses.data[a] * v.data[i];
            v.data[i] = inverse.data[a] * p.data[i];
            put(at_copies + k, p.data[i]);
        } else if (k < 2 * size + more) {
            put(at_copies + k, extra.data[k - 2 * size]);
        } else {
            int part = 0, i = k - 2 * size - more, at = at_known + i;
            while (i >= sizes[part]) i -= sizes[part++];
            to[part][i] = from[part][i];
            put(at, to[part][i]);
        }
    }
}
"""


@cache
def ending_kernel(device: str) -> EndingKernel:
    """Return the kernel for ``cpu`` or ``cuda``."""
    wp = warp()
    threads = 1 if device == "cpu" else EACH
    numbers, whole = wp.array(dtype=wp.float64), wp.array(dtype=int)
    source = IN_BLOCKS + Template(_SOURCE).substitute(
        threads=threads, each=EACH, told=TOLD, added_up=ADDED_UP
    )

    @wp.func_native(source)
    def end_block(
        b: int, t: int, rows: int, copied: int, beads: int, atoms: int, groups: int, models: int,
        x: numbers, v: numbers, p: numbers, extra: numbers, masses: numbers, inverse: numbers,
        members: numbers, heat: numbers, twice: numbers, flags: whole, lost: whole, told0: whole,
        told1: whole, told2: whole, told3: whole, told4: whole, told5: whole, found0: numbers,
        found1: numbers, found2: numbers, found3: numbers, found4: numbers, found5: numbers,
        known0: numbers, known1: numbers, known2: numbers, known3: numbers, known4: numbers,
        known5: numbers, joined: numbers,
    ): ...  # fmt: skip

    @wp.kernel(enable_backward=False, module="unique", grid_stride=False)
    def end_step(
        rows: int, copied: int, beads: int, atoms: int, groups: int, models: int, x: numbers,
        v: numbers, p: numbers, extra: numbers, masses: numbers, inverse: numbers,
        members: numbers, heat: numbers, twice: numbers, flags: whole, lost: whole, told0: whole,
        told1: whole, told2: whole, told3: whole, told4: whole, told5: whole, found0: numbers,
        found1: numbers, found2: numbers, found3: numbers, found4: numbers, found5: numbers,
        known0: numbers, known1: numbers, known2: numbers, known3: numbers, known4: numbers,
        known5: numbers, joined: numbers,
    ):  # fmt: skip
        b, t = wp.tid()
        end_block(
            b, t, rows, copied, beads, atoms, groups, models, x, v, p, extra, masses, inverse,
            members, heat, twice, flags, lost, told0, told1, told2, told3, told4, told5, found0,
            found1, found2, found3, found4, found5, known0, known1, known2, known3, known4, known5,
            joined,
        )  # fmt: skip

    return EndingKernel(threads, end_step)
