"""The student's kernels as C++ for Warp, which compiles them for the CPU and for CUDA.

A block of T threads has an atom, ``a``, of element ``e``; on the CPU T is 1. C channels, P messages
and H hidden numbers are known when it is compiled. What the threads of a block share lies in
``m`` (moments), ``w`` (A2·A1), ``x`` (inputs of a layer) and ``parts``; behind ``WAIT()`` they see
what the others have written. Nothing is added to by two threads, so that forces have the same bits
every time.

Moments, inputs and gradients by them are ten rows of channels: a scalar, a vector, and a symmetric
tensor as xx, yy, zz, xy, xz, yz. Radial functions are cubics, ``table[row][channel]``, whose row
is that of a pair of elements and a grid cell of the distance.
"""

from string import Template
from typing import NamedTuple

from integrators.device.launches import IN_BLOCKS

HALVES = 16
"""Sums in which an atom's forces are added up."""


class Sizes(NamedTuple):
    """What the source is made for."""

    threads: int
    channels: int
    messages: int
    hidden: int
    double: bool

    @property
    def widest(self) -> int:
        """Numbers that the threads of an atom share at most."""
        outputs = self.hidden + 10 * max(self.channels, self.messages)
        return 12 * max(self.threads, self.channels, self.messages, -(-outputs // 12))

    def shares(self, outputs: int, inputs: int = 0) -> int:
        """How many threads share each of ``outputs`` sums, of as many terms for each of them."""
        most = max(1, self.threads // max(outputs, 1))
        return next(n for n in range(most, 0, -1) if inputs % n == 0)


def head(sizes: Sizes) -> str:
    """Return what every kernel starts with."""
    return IN_BLOCKS + Template(_HEAD).substitute(
        T=sizes.threads,
        C=sizes.channels,
        P=sizes.messages,
        H=sizes.hidden,
        widest=sizes.widest,
        most=max(sizes.channels, sizes.messages, 1),
        number="double" if sizes.double else "float",
    )


_HEAD = """
using number = $number;
constexpr int T = $T, C = $C, P = $P, H = $H;
struct alignas(4 * sizeof(number)) Four { number x, y, z, w; };
alignas(16) SHARED number m[10 * $most], w[3 * $most], x[10 * $most + H], parts[$widest];
const int e = near.kind.data[a], row = a * near.neighbors.shape[1];
const Four* unit = (const Four*)near.unit.data + row;
const number* within = near.within.data + row;
const int *other = near.other.data + row, *at = near.at.data + row, *back = near.back.data + row;
const auto value = [](const Four& y, number s) { return y.x + s * (y.y + s * (y.z + s * y.w)); };
const auto slope = [](const Four& y, number s) {
    return y.y + s * (number(2) * y.z + number(3) * s * y.w);
};
const auto sigmoid = [](number s) { return number(1) / (number(1) + wp::exp(-s)); };
const auto silu_slope = [&](number s) {
    const number g = sigmoid(s);
    return g * (number(1) + s * (number(1) - g));
};
// by which x / √(1 + x²/b²) is less than x; its cube is the slope; bound is 1/b²
const auto shrinks = [](number s, number bound) {
    return number(1) / wp::sqrt(number(1) + bound * s * s);
};
// which rows of the moments are the row of an axis of the tensor
const auto tensor = [](int i, int j) { return i == j ? 4 + i : 6 + i + j; };
"""

PLACE = """
// which neighbours are within the cutoff, packed; an atom that has left the skin is told of
const auto length = [](const double* d) {
    return wp::sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2]);
};
const double *places = (const double*)positions.data, *here = places + 3 * a;
const double* cell = (const double*)cells.data + 9 * (a / atoms);
if (t == 0) {
    const double* was = (const double*)reference.data + 3 * a;
    const double way[3] = {here[0] - was[0], here[1] - was[1], here[2] - was[2]};
    // written so that what is not a number counts
    if (!(2.0 * length(way) < skin)) told.data[0] = 1;
}
int found = 0;
const int there = wp::min(near.count.data[a], near.neighbors.shape[1]), kinds = near.kinds;
for (int first = 0; first < there; first += T) {
    const int k = first + t;
    double d[3] = {0.0, 0.0, 0.0}, r = near.cutoff;
    int b = 0;
    if (k < there) {
        b = near.neighbors.data[row + k];
        const int* image = (const int*)near.images.data + 3 * (row + k);
        for (int i = 0; i < 3; ++i) {
            d[i] = places[3 * b + i] - here[i];
            for (int j = 0; j < 3; ++j) d[i] += image[j] * cell[3 * j + i];
        }
        r = length(d);
    }
    const bool near_enough = r < near.cutoff;
    const int place = rank(near_enough, there - first, found);
    if (near_enough) {
        const double u = (r - near.start) * near.per_length;
        const int g = wp::min(wp::max((int)u, 0), near.grid - 1), f = near.kind.data[b];
        const double w = 1.0 / r;
        ((Four*)near.unit.data)[row + place] =
            Four{number(d[0] * w), number(d[1] * w), number(d[2] * w), number(w)};
        near.within.data[row + place] = number(u - g);
        near.other.data[row + place] = b;
        near.at.data[row + place] = (e * kinds + f) * near.grid + g;
        near.back.data[row + place] = (f * kinds + e) * near.grid + g;
    }
}
WAIT();
if (t == 0) near.found.data[a] = found;
"""

FOUND = """
const int found = near.found.data[a];
"""

_MOMENTS = """
{
    constexpr int S = $shares;
    const Four* table = (const Four*)net.$table.data;
    for (int i = t; i < S * $Q; i += T) {
        const int c = i % $Q, part = i / $Q;
        number sums[10] = {}, repulsion = 0;
        for (int k = part; k < found; k += S) {
            const Four u = unit[k];
            number f = value(table[at[k] * $Q + c], within[k]);
            $weigh
            sums[0] += f;
            sums[1] += u.x * f;
            sums[2] += u.y * f;
            sums[3] += u.z * f;
            sums[4] += (u.x * u.x - number(1) / number(3)) * f;
            sums[5] += (u.y * u.y - number(1) / number(3)) * f;
            sums[6] += (u.z * u.z - number(1) / number(3)) * f;
            sums[7] += u.x * u.y * f;
            sums[8] += u.x * u.z * f;
            sums[9] += u.y * u.z * f;
        }
        for (int n = 0; n < 10; ++n) parts[(10 * part + n) * $Q + c] = sums[n];
        $keep
    }
    WAIT();
    for (int i = t; i < 10 * $Q; i += T) {
        number total = 0;
        for (int part = 0; part < S; ++part) total += parts[10 * $Q * part + i];
        m[i] = total;
        work.$m.data[10 * $Q * a + i] = total;
    }
    WAIT();
}
"""


def moments(sizes: Sizes, *, second: bool) -> str:
    """Return the sums over neighbours; of the second sum weighted by what these tell.

    Beside the first the repulsion is added up, for each of an atom's threads.
    """
    q = sizes.messages if second else sizes.channels
    if second:
        weigh, keep = "f *= work.message.data[other[k] * P + c];", ""
    else:
        weigh = "if (c == 0) repulsion += value(((const Four*)net.pairs.data)[at[k]], within[k]);"
        keep = "if (c == 0) work.repulsion.data[S * a + part] = repulsion;"
    return Template(_MOMENTS).substitute(
        Q=q,
        shares=sizes.shares(q),
        table="table2" if second else "table1",
        m="m2" if second else "m1",
        weigh=weigh,
        keep=keep,
    )


_CONTRACT = """
for (int i = t; i < 3 * $Q; i += T) {
    const int c = i % $Q, axis = i / $Q;
    number s = 0;
    for (int j = 0; j < 3; ++j) s += m[tensor(axis, j) * $Q + c] * m[(1 + j) * $Q + c];
    w[i] = s;
}
WAIT();
"""

_INPUTS = """
for (int i = t; i < 10 * $Q; i += T) {
    const int c = i % $Q, k = i / $Q;
    const int d = (c + (k == 2 || k == 5 || k == 8 ? 1 : k == 3 || k == 6 ? 2 : 0)) % $Q;
    const number *of_d = m + d, *of_c = k < 7 ? m + c : w + c - $Q;
    number y = m[c];
    if (k == 9) of_d = of_c;
    if (k > 0 && (k < 4 || k > 6)) {
        y = 0;
        for (int n = 1; n < 4; ++n) y += of_c[n * $Q] * of_d[n * $Q];
    } else if (k > 3) {
        y = 0;
        for (int n = 4; n < 10; ++n) y += (n < 7 ? 1 : 2) * of_c[n * $Q] * of_d[n * $Q];
    }
    const number z = (y - net.shift$n.data[10 * $Q * e + i]) * net.scale$n.data[10 * $Q * e + i];
    x[i] = z * shrinks(z, net.input_bound);
    work.x$n.data[10 * $Q * a + i] = x[i];
}
WAIT();
"""


def contract(sizes: Sizes, *, second: bool) -> str:
    """Return A2·A1 of every channel, into ``w``."""
    return Template(_CONTRACT).substitute(Q=sizes.messages if second else sizes.channels)


def inputs(sizes: Sizes, *, second: bool) -> str:
    """Return the invariants, shifted, scaled and bounded, into ``x``."""
    q = sizes.messages if second else sizes.channels
    return Template(_INPUTS).substitute(Q=q, n=2 if second else 1)


_LAYER = """
{
    constexpr int S = $shares, EACH = $inputs / S;
    for (int i = t; i < S * $outputs; i += T) {
        const int h = i % $outputs, part = i / $outputs;
        const number* of = net.$weights.data + (e * $inputs + part * EACH) * $outputs + h;
        const number* from = x + part * EACH;
        number sums[2] = {};
#if defined(__CUDA_ARCH__)
#pragma unroll 16
#endif
        for (int k = 0; k < EACH; ++k) sums[k % 2] += from[k] * of[k * $outputs];
        parts[part * $outputs + h] = sums[0] + sums[1];
    }
    WAIT();
    for (int h = t; h < $outputs; h += T) {
        number s = 0;
        for (int part = 0; part < S; ++part) s += parts[part * $outputs + h];
        $end
    }
    WAIT();
}
"""


def layer(sizes: Sizes, weights: str, inputs: int, outputs: int, end: str) -> str:
    """Return a layer from ``x``, and what is done with output ``h``, the number ``s``."""
    return Template(_LAYER).substitute(
        shares=sizes.shares(outputs, inputs),
        inputs=inputs,
        outputs=outputs,
        weights=weights,
        end=end.strip(),
    )
