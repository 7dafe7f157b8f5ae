"""The kernels of SO3LR's attention as C++ for Warp, which compiles them for the CPU and for CUDA.

A block of T threads has an atom ``n``; on the CPU T is 1. Of its pairs, those whose first it is lie
one behind the other, so that what belongs to a pair is worked out once, with the row of the atom at
hand; then every atom gathers from all its pairs.
"""

from string import Template

from mts_driver.potentials.so3lr.attention import FEATURES, HEADS, KEY, VALUE, WIDTH


def source(body: str, *, double: bool, threads: int) -> str:
    """Return the C++ of one kernel."""
    sizes = {"F": FEATURES, "H": HEADS, "K": KEY, "V": VALUE, "W": WIDTH}
    kind = "double" if double else "float"
    return Template(_HEAD).substitute(sizes, number=kind, threads=threads) + body


_HEAD = """
using number = $number;
constexpr int T = $threads, LANES = T < 32 ? 1 : 32, TEAMS = T / LANES;
constexpr int F = $F, HEADS = $H, KEY = $K, VALUE = $V, ROW = VALUE + F, WIDTH = $W;
"""

# pairs of the first atom ``n``, of whose heads a team of lanes has one
PAIRS = """
constexpr int EACH = WIDTH / LANES;
const int team = t / LANES, lane = t % LANES;
const int pairs = r.shape[0], all = ends.data[ends.shape[0] - 1];
const int last = wp::min(ends.data[n], pairs), start = ends.data[n] - mine.data[n];
const auto over_lanes = [](number s) {
#if defined(__CUDA_ARCH__)
    for (int o = LANES / 2; o > 0; o /= 2) s += __shfl_xor_sync(0xffffffff, s, o);
#endif
    return s;
};
const number* a = atoms.data + ROW * n;
const auto cell_of = [&](int p, number& s) {
    const double u = (double(r.data[p]) - r0) * per_A;
    const int cell = wp::min(wp::max((int)u, 0), table.shape[0] - 2);
    s = number(u - cell);
    return table.data + 2 * KEY * cell;
};
"""

SCORE = """
for (int h = team; h < HEADS; h += TEAMS) {
    const int d0 = WIDTH * h + lane;
    number q[EACH], k[EACH];
    for (int e = 0; e < EACH; ++e) {
        q[e] = a[d0 + LANES * e];
        k[e] = a[KEY + d0 + LANES * e];
    }
    for (int p = start; p < last; ++p) {
        const number* b = atoms.data + ROW * j.data[p];
        const number* more = extra.data + (extras > 1 ? KEY * p : 0);
        number s, x = 0, y = 0;
        const number *low = cell_of(p, s), *high = low + 2 * KEY;
        const number v = 1 - s, a0 = (1 + 2 * s) * v * v, a1 = (1 + 2 * v) * s * s;
        const number b0 = s * v * v, b1 = -v * s * s;
        for (int e = 0; e < EACH; ++e) {
            const int d = d0 + LANES * e;
            const number w = a0 * low[d] + b0 * low[KEY + d] + a1 * high[d] + b1 * high[KEY + d]
                + more[d];
            filters.data[KEY * p + d] = w;
            x += q[e] * w * b[KEY + d];
            y += b[d] * w * k[e];
        }
        const number factor = scale.data[h] * cutoff.data[p];
        x = over_lanes(x) * factor;
        y = over_lanes(y) * factor;
        if (lane == 0) {
            scores.data[2 * HEADS * p + h] = x;
            scores.data[2 * HEADS * p + HEADS + h] = y;
        }
    }
}
"""

GATHER = """
const int E = to_i.shape[1], length = entries.shape[1];
const int *row = entries.data + length * n, *other = others.data + length * n;
for (int o = t; o < F + E; o += T) {
    int head = o / WIDTH;
    const int m = o - F;
    if (m >= 0)
        for (head = HEADS / 2; m >= degrees.data[head - HEADS / 2]; ++head) {}
    number sum = 0;
    for (int k = 0; k < count.data[n]; ++k) {
        const int p = row[k] / 2, back = row[k] % 2;
        const number score = scores.data[2 * HEADS * p + HEADS * back + head];
        if (m < 0) sum += score * atoms.data[ROW * other[k] + VALUE + o];
        else sum += score * to_i.data[E * p + m] * (back ? parity.data[m] : number(1));
    }
    if (m < 0) inv.data[F * n + o] = sum;
    else ev.data[E * n + m] = sum;
}
"""

SLOPES = """
const int E = to_i.shape[1];
const number *of_i = by_inv.data + F * n, *ev_i = by_ev.data + E * n;
for (int h = team; h < HEADS; h += TEAMS) {
    const bool inv = h < HEADS / 2;
    const int d0 = WIDTH * h + lane, degree = h - HEADS / 2;
    const int m0 = degree > 0 ? degrees.data[degree - 1] : 0, m1 = inv ? 0 : degrees.data[degree];
    number q[EACH], k[EACH], v[EACH], g[EACH];
    for (int e = 0; e < EACH; ++e) {
        const int d = d0 + LANES * e;
        q[e] = a[d];
        k[e] = a[KEY + d];
        v[e] = inv ? a[VALUE + d] : 0;
        g[e] = inv ? of_i[d] : 0;
    }
    for (int p = start; p < last; ++p) {
        // scores, and the gradient by them, from the values and from the harmonics
        const number *b = atoms.data + ROW * j.data[p], *of_j = by_inv.data + F * j.data[p];
        const number *filter = filters.data + KEY * p, *ev_j = by_ev.data + E * j.data[p];
        number x = 0, y = 0, by_x = 0, by_y = 0, z = 0, s;
        for (int e = 0; e < EACH; ++e) {
            const int d = d0 + LANES * e;
            x += q[e] * filter[d] * b[KEY + d];
            y += b[d] * filter[d] * k[e];
            if (inv) {
                by_x += g[e] * b[VALUE + d];
                by_y += of_j[d] * v[e];
            }
        }
        for (int m = m0 + lane; m < m1; m += LANES) {
            by_x += ev_i[m] * to_i.data[E * p + m];
            by_y += ev_j[m] * to_i.data[E * p + m] * parity.data[m];
        }
        x = over_lanes(x);
        y = over_lanes(y);
        by_x = over_lanes(by_x);
        by_y = over_lanes(by_y);
        const number factor = scale.data[h] * cutoff.data[p];
        if (lane == 0) of_heads.data[2 * HEADS * p + h] = (by_x * x + by_y * y) * scale.data[h];
        x *= factor;
        y *= factor;
        by_x *= factor;
        by_y *= factor;
        if (lane == 0) {
            number* to = factors.data + 4 * HEADS * p + h;
            to[0] = x;
            to[HEADS] = y;
            to[2 * HEADS] = by_x;
            to[3 * HEADS] = by_y;
        }
        for (int m = m0 + lane; m < m1; m += LANES)
            by_to_i.data[E * p + m] = x * ev_i[m] + y * ev_j[m] * parity.data[m];
        const number *low = cell_of(p, s), *high = low + 2 * KEY;
        const number rise = 6 * s * (1 - s), rise0 = (1 - s) * (1 - 3 * s), rise1 = s * (3 * s - 2);
        for (int e = 0; e < EACH; ++e) {
            const int d = d0 + LANES * e;
            const number by_w = by_x * q[e] * b[KEY + d] + by_y * b[d] * k[e];
            if (filtered) by_filter.data[KEY * p + d] = by_w;
            const number slope = rise * (high[d] - low[d]) + rise0 * low[KEY + d];
            z += by_w * (slope + rise1 * high[KEY + d]);
        }
        z = over_lanes(z);
        if (lane == 0) of_heads.data[2 * HEADS * p + HEADS + h] = z * number(per_A);
    }
}
// room that no pair has
for (int p = all + n; p < pairs; p += ends.shape[0]) {
    for (int d = t; d < KEY && filtered; d += T) by_filter.data[KEY * p + d] = 0;
    for (int m = t; m < E; m += T) by_to_i.data[E * p + m] = 0;
    for (int h = t; h < 2 * HEADS; h += T) of_heads.data[2 * HEADS * p + h] = 0;
}
"""

GATHER_BACK = """
const int length = entries.shape[1], pairs = of_heads.shape[0], all = ends.data[ends.shape[0] - 1];
const int *row = entries.data + length * n, *others_of = others.data + length * n;
for (int o = t; o < F; o += T) {
    // of what the atom asks, of its keys, and of its value; for invariant and Euclidean heads
    number asks[2] = {}, keys[2] = {}, value = 0;
    for (int k = 0; k < count.data[n]; ++k) {
        const int p = row[k] / 2, back = row[k] % 2, head = o / WIDTH;
        const number* other = atoms.data + ROW * others_of[k];
        const number* of = factors.data + 4 * HEADS * p + head;
        value += of[back ? 0 : HEADS] * by_inv.data[F * others_of[k] + o];
        for (int e = 0; e < 2; ++e) {
            const int d = F * e + o, h = HEADS / 2 * e;
            const number w = filters.data[KEY * p + d];
            asks[e] += of[(back ? 3 : 2) * HEADS + h] * w * other[KEY + d];
            keys[e] += of[(back ? 2 : 3) * HEADS + h] * w * other[d];
        }
    }
    number* to = by_atoms.data + ROW * n;
    for (int e = 0; e < 2; ++e) {
        to[F * e + o] = asks[e];
        to[KEY + F * e + o] = keys[e];
    }
    to[VALUE + o] = value;
}
// what all heads of a pair have found; and of room that no pair has
const auto put = [&](int p) {
    number by_c = 0, by = 0;
    for (int h = 0; h < HEADS; ++h) {
        by_c += of_heads.data[2 * HEADS * p + h];
        by += of_heads.data[2 * HEADS * p + HEADS + h];
    }
    by_cutoff.data[p] = by_c;
    by_r.data[p] = by;
};
for (int p = ends.data[n] - mine.data[n] + t; p < wp::min(ends.data[n], pairs); p += T) put(p);
for (int p = all + n + ends.shape[0] * t; p < pairs; p += ends.shape[0] * T) put(p);
"""
