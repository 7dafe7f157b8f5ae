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
    return Template(_HEAD).substitute(
        T=sizes.threads,
        C=sizes.channels,
        P=sizes.messages,
        H=sizes.hidden,
        widest=sizes.widest,
        most=max(sizes.channels, sizes.messages, 1),
        number="double" if sizes.double else "float",
    )


_HEAD = """
#if defined(__CUDA_ARCH__)
#define SHARED __shared__
#define WAIT() __syncthreads()
#else
#define SHARED
#define WAIT()
#endif
using number = $number;
constexpr int T = $T, C = $C, P = $P, H = $H;
struct alignas(4 * sizeof(number)) Four { number x, y, z, w; };
SHARED alignas(16) number m[10 * $most], w[3 * $most], x[10 * $most + H], parts[$widest];
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
const auto length = [](const double* d) { return wp::sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2]); };
const double *places = (const double*)positions.data, *here = places + 3 * a;
const double* cell = (const double*)cells.data + 9 * (a / atoms);
if (t == 0) {
    const double* was = (const double*)reference.data + 3 * a;
    const double way[3] = {here[0] - was[0], here[1] - was[1], here[2] - was[2]};
    // written so that what is not a number counts
    if (!(2.0 * length(way) < skin)) left.data[0] = 1;
}
SHARED int flags[T];
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
    flags[t] = near_enough;
    WAIT();
    int place = found;
    for (int o = 0; o < T && first + o < there; ++o) {
        place += o < t ? flags[o] : 0;
        found += flags[o];
    }
    if (near_enough) {
        const double u = (r - near.start) * near.per_length;
        const int g = wp::min(wp::max((int)u, 0), near.grid - 1), f = near.kind.data[b];
        const double inverse = 1.0 / r;
        ((Four*)near.unit.data)[row + place] = Four{
            number(d[0] * inverse), number(d[1] * inverse), number(d[2] * inverse), number(inverse)};
        near.within.data[row + place] = number(u - g);
        near.other.data[row + place] = b;
        near.at.data[row + place] = (e * kinds + f) * near.grid + g;
        near.back.data[row + place] = (f * kinds + e) * near.grid + g;
    }
    WAIT();
}
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
    if (k > 6) {
        if (k == 9) of_d = of_c;
    }
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


_GRADIENT = """
{
    number* h = parts;
    const number *v = m + $Q, *by = $by;
    for (int i = t; i < 10 * $Q; i += T) {
        // rounding may take an input a little beyond its bound
        const number x_i = work.x$n.data[10 * $Q * a + i];
        const number rest = wp::max(number(1) - net.input_bound * x_i * x_i, number(0));
        h[i] = by[i] * net.scale$n.data[10 * $Q * e + i] * rest * wp::sqrt(rest);
    }
    WAIT();
    for (int i = t; i < 10 * $Q; i += T) {
        // beside channel c: those whose invariants have it, and those that its own have
        const int c = i % $Q, k = i / $Q, d = (c + 1) % $Q, f = (c + 2) % $Q;
        const int b = (c + $Q - 1) % $Q, o = (c + 2 * $Q - 2) % $Q;
        number by_w[3], g = h[c];
        for (int j = 0; j < 3; ++j) {
            by_w[j] = h[7 * $Q + c] * v[j * $Q + c] + h[8 * $Q + c] * v[j * $Q + d];
            by_w[j] += number(2) * h[9 * $Q + c] * w[j * $Q + c];
        }
        if (k > 0) {
            const number *of = m + k * $Q, *mine = h + (k < 4 ? 1 : 4) * $Q;
            g = number(2) * mine[c] * of[c] + mine[$Q + c] * of[d] + mine[$Q + b] * of[b];
            g += mine[2 * $Q + c] * of[f] + mine[2 * $Q + o] * of[o];
        }
        if (k > 0 && k < 4) {
            g += h[7 * $Q + c] * w[(k - 1) * $Q + c] + h[8 * $Q + b] * w[(k - 1) * $Q + b];
            for (int j = 0; j < 3; ++j) g += m[tensor(k - 1, j) * $Q + c] * by_w[j];
        } else if (k > 3) {
            const int i0 = k < 7 ? k - 4 : k == 9, i1 = k < 7 ? k - 4 : k == 7 ? 1 : 2;
            const number along = by_w[i0] * v[i1 * $Q + c];
            g = k < 7 ? g + along : number(2) * g + along + by_w[i1] * v[i0 * $Q + c];
        }
        work.by_m$n.data[10 * $Q * a + i] = g;
    }
}
"""


def gradient(sizes: Sizes, *, second: bool, by: str) -> str:
    """Return the way from the gradient ``by`` inputs to that by moments; ``parts`` is free."""
    q = sizes.messages if second else sizes.channels
    return Template(_GRADIENT).substitute(Q=q, n=2 if second else 1, by=by)


_PULL = """
{
    constexpr int S = $shares, N = 3 + 9 * $whole;
    // gradient by the vector to a neighbour of what that gives to the moments
    const auto force = [](const number* g, const Four& u, number f, number along, number* out) {
        const number x = u.x, y = u.y, z = u.z;
        const number gx = f * (g[1] + 2 * x * g[4] + y * g[7] + z * g[8]);
        const number gy = f * (g[2] + 2 * y * g[5] + x * g[7] + z * g[9]);
        const number gz = f * (g[3] + 2 * z * g[6] + x * g[8] + y * g[9]);
        along -= (gx * x + gy * y + gz * z) * u.w;
        out[0] = along * x + gx * u.w;
        out[1] = along * y + gy * u.w;
        out[2] = along * z + gz * u.w;
    };
    const auto radial = [](const number* g, const Four& u) {
        const number third = number(1) / number(3), x = u.x, y = u.y, z = u.z;
        return g[0] + x * g[1] + y * g[2] + z * g[3] + (x * x - third) * g[4]
            + (y * y - third) * g[5] + (z * z - third) * g[6] + x * y * g[7] + x * z * g[8]
            + y * z * g[9];
    };
    const Four *table = (const Four*)net.$table.data, *pairs = (const Four*)net.pairs.data;
    const number per_length = number(near.per_length);
    for (int i = t; i < S * $Q; i += T) {
        const int c = i % $Q, part = i / $Q;
        number mine[10], theirs[10], sums[N] = {}, told = 0;
        for (int n = 0; n < 10; ++n) mine[n] = work.$by_m.data[(10 * a + n) * $Q + c];
        for (int k = part; k < found; k += S) {
            const int b = other[k];
            for (int n = 0; n < 10; ++n) theirs[n] = work.$by_m.data[(10 * b + n) * $Q + c];
            const Four u = unit[k], back_u = {-u.x, -u.y, -u.z, u.w};
            const Four y = table[at[k] * $Q + c], z = table[back[k] * $Q + c];
            const number s = within[k], back_along = radial(theirs, back_u);
            number f = value(y, s), rise = slope(y, s) * per_length * radial(mine, u);
            number f_back = value(z, s), rise_back = slope(z, s) * per_length * back_along;
            $weigh
            number forth[3], against[3];
            force(mine, u, f, rise, forth);
            force(theirs, back_u, f_back, rise_back, against);
            for (int j = 0; j < 3; ++j) sums[j] += forth[j] - against[j];
            $strain
        }
        for (int n = 0; n < N; ++n) parts[N * i + n] = sums[n];
        $tell
    }
    WAIT();
    SHARED double halves[$halves * N];
    for (int i = t; i < $halves * N; i += T) {
        double s = 0.0;
        for (int k = i / N; k < S * $Q; k += $halves) s += parts[N * k + i % N];
        halves[i] = s;
    }
    WAIT();
    for (int n = t; n < N; n += T) {
        double s = 0.0;
        for (int half = 0; half < $halves; ++half) s += halves[N * half + n];
        double* out = n < 3 ? forces.data + 3 * a + n : virials.data + 9 * a + n - 3;
        *out = (n < 3 ? s : -s) + ($more ? *out : 0.0);
    }
}
"""

_PULL_MESSAGE = """
const number sent = work.message.data[b * P + c], mine_sent = work.message.data[a * P + c];
told += back_along * f_back;
f *= sent;
rise *= sent;
f_back *= mine_sent;
rise_back *= mine_sent;
"""

_PULL_REPULSION = """
if (c == 0) {
    rise += slope(pairs[at[k]], s) * per_length;
    rise_back += slope(pairs[back[k]], s) * per_length;
}
"""

_STRAIN = """
const number r = number(1) / u.w;
for (int j = 0; j < 3; ++j) {
    sums[3 + j] += u.x * r * forth[j];
    sums[6 + j] += u.y * r * forth[j];
    sums[9 + j] += u.z * r * forth[j];
}
"""


def pull(sizes: Sizes, *, second: bool, whole: bool, more: bool) -> str:
    """Return what an atom gathers of forces, and of the virial if ``whole``.

    ``more`` adds to those that there are. From the second sum, what neighbours make of what an atom
    tells them goes to ``told``, for each of its threads.
    """
    q = sizes.messages if second else sizes.channels
    return Template(_PULL).substitute(
        Q=q,
        shares=sizes.shares(q),
        whole=int(whole),
        more=int(more),
        halves=HALVES,
        table="table2" if second else "table1",
        by_m="by_m2" if second else "by_m1",
        weigh=(_PULL_MESSAGE if second else _PULL_REPULSION).strip(),
        strain=_STRAIN.strip() if whole else "",
        tell="tells[i] = told;" if second else "",
    )


FIRST_LAYER = """
s += net.b1.data[H * e + h];
work.a1.data[H * a + h] = s;
x[h] = s * sigmoid(s);
"""

TELL = """
if (h < H) {
    work.a2.data[H * a + h] = s + net.b2.data[H * e + h];
} else {
    work.raw.data[P * a + h - H] = s;
    work.message.data[P * a + h - H] = number(1) + s * shrinks(s, net.message_bound);
}
"""

_SECOND_LAYER = """
SHARED number above[H];
for (int h = t; h < H; h += T) above[h] = work.a2.data[H * a + h];
WAIT();
"""


def second_sum(sizes: Sizes) -> str:
    """Return the second sum, and what both layers make of it into ``above``."""
    if not sizes.messages:
        return _SECOND_LAYER
    parts = moments(sizes, second=True), contract(sizes, second=True), inputs(sizes, second=True)
    ten = 10 * sizes.messages
    return "".join(parts) + _SECOND_LAYER + layer(sizes, "w2b", ten, sizes.hidden, "above[h] += s;")


_ENERGY = """
SHARED number parts_of_energy[H];
for (int h = t; h < H; h += T) {
    const number w3 = net.w3.data[H * e + h];
    parts_of_energy[h] = above[h] * sigmoid(above[h]) * w3;
    x[h] = w3 * silu_slope(above[h]);
}
WAIT();
if ($whole && t == 0) {
    number s = 0;
    for (int part = 0; part < $shares; ++part) s += work.repulsion.data[$shares * a + part];
    for (int h = 0; h < H; ++h) s += parts_of_energy[h];
    energy.data[a] = s;
}
"""


def energy(sizes: Sizes, *, whole: bool) -> str:
    """Return the energy, and the way back to the gradient by the second sum and first layer."""
    p, hidden = sizes.messages, sizes.hidden
    end = "if (h < H) work.g1.data[H * a + h] = s; else x[h - H] = s;"
    text = Template(_ENERGY).substitute(whole=int(whole), shares=sizes.shares(sizes.channels))
    text += layer(sizes, "back2", hidden, hidden + 10 * p, end)
    return text + (gradient(sizes, second=True, by="x") if p else "")


_READ = """
for (int i = t; i < 10 * C; i += T) m[i] = work.m1.data[10 * C * a + i];
WAIT();
"""

_SENT = """
SHARED number told[P];
for (int c = t; c < P; c += T) {
    number s = 0;
    for (int part = 0; part < $shares; ++part) s += tells[P * part + c];
    const number by = shrinks(work.raw.data[P * a + c], net.message_bound);
    told[c] = s * by * by * by;
}
WAIT();
"""

_FIRST_BACK = """
for (int h = t; h < H; h += T) {
    number s = work.g1.data[H * a + h];
    $told
    x[h] = s * silu_slope(work.a1.data[H * a + h]);
}
WAIT();
"""


def first_gradient(sizes: Sizes, *, whole: bool) -> str:
    """Return what the second sums pull, and the way back to the gradient by the first."""
    p, hidden, text, told = sizes.messages, sizes.hidden, "", ""
    if p:
        shares = sizes.shares(p)
        text = f"SHARED number tells[{shares} * P];"
        text += pull(sizes, second=True, whole=whole, more=False)
        text += Template(_SENT).substitute(shares=shares)
        weights = "net.message.data[(H * e + h) * P + c]"
        told = f"for (int c = 0; c < P; ++c) s += told[c] * {weights};"
    text += Template(_FIRST_BACK).substitute(told=told) + _READ + contract(sizes, second=False)
    text += layer(sizes, "back1", hidden, 10 * sizes.channels, "x[h] = s;")
    return text + gradient(sizes, second=False, by="x")


_PUSH = """
for (int c = t; c < $Q; c += T) {
    for (int j = 0; j < 3; ++j) {
        const number along = x[$at + c] * m[(1 + j) * $Q + c];
        parts[3 * ($at / 2 + c) + j] = along + x[$at + $Q + c] * w[j * $Q + c];
    }
}
WAIT();
"""

_PUSHED = """
for (int j = t; j < 3; j += T) {
    double s = 0.0;
    for (int c = 0; c < C + P; ++c) s += parts[3 * c + j];
    forces.data[3 * a + j] = s;
}
"""


def push(sizes: Sizes, outputs: int) -> str:
    """Return the forces of a direct student: vectors of both sums, weighted by the network."""
    c, p = sizes.channels, sizes.messages
    text = "for (int h = t; h < H; h += T) x[h] = above[h] * sigmoid(above[h]);\nWAIT();"
    text += layer(sizes, "w3", sizes.hidden, outputs, "x[h] = s;")
    if p:
        text += Template(_PUSH).substitute(Q=p, at=2 * c)
    text += _READ + contract(sizes, second=False)
    return text + Template(_PUSH).substitute(Q=c, at=0) + _PUSHED
