"""The student's kernels as C++, continued: the way back to forces."""

from string import Template

from mts_driver.potentials.student.device.source import HALVES, Sizes

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
