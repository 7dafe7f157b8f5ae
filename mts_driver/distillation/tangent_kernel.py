"""Kernels for training: network inputs, their change along a direction, the gradient of both.

Matching forces needs ∂θ Σ w·F for given weights w, and F = −∇E: it is −∂θ of the derivative of E
along w. These kernels carry that directional derivative through the sums over neighbours and the
invariants, so that no derivative by the positions is ever taken twice and nothing of the size of
the pair list times the channels is stored. A name with a d before it is the derivative along w.
"""

import math

import numpy as np
from numba import njit, prange

from mts_driver.potentials.student_kernel import _invariants, _invariants_back

CHUNKS = 4
"""Blocks of atoms that threads share; fixed, so that sums don't depend on the thread count."""


@njit(parallel=True, cache=True, fastmath=True)
def tangents(
    first, near, vectors, kind, along, row, table, r0, inverse_h, shift, scale, bound, sent, dsent
):
    """Moments and network inputs, each followed by its derivative along ``along`` (M, 3).

    All (M, 10, C), the inputs in ``row``. ``sent``, ``dsent`` (M, C): what atoms tell their
    neighbours; empty in the first sum. The other arguments are those of
    `mts_driver.potentials.student_kernel.forward`.
    """
    atoms, channels = first.size - 1, table.shape[3] - 1
    kinds = int(math.sqrt(table.shape[0]) + 0.5)
    moments = np.zeros((atoms, 10, channels), table.dtype)
    dmoments = np.zeros((atoms, 10, channels), table.dtype)
    inputs = np.empty((atoms, 10, channels), table.dtype)
    dinputs = np.empty((atoms, 10, channels), table.dtype)
    for chunk in prange(CHUNKS):
        s = np.empty(channels, table.dtype)
        ds = np.empty(channels, table.dtype)
        w = np.empty((10, channels + 2), table.dtype)
        shape = np.empty(10, table.dtype)
        dshape = np.empty(10, table.dtype)
        for a in range(atoms * chunk // CHUNKS, atoms * (chunk + 1) // CHUNKS):
            m, dm = moments[a], dmoments[a]
            for p in range(first[a], first[a + 1]):
                b = near[p]
                dr = _shapes(vectors[p], along[a], along[b], shape, dshape)
                pair = table[kind[a] * kinds + kind[b]]
                _radial(pair, (vectors[p, 3] - r0) * inverse_h, dr * inverse_h, s, ds)
                if sent.size:
                    for c in range(channels):
                        ds[c] = ds[c] * sent[b, c] + s[c] * dsent[b, c]
                        s[c] *= sent[b, c]
                for k in range(10):
                    y, dy = shape[k], dshape[k]
                    for c in range(channels):
                        m[k, c] += y * s[c]
                        dm[k, c] += dy * s[c] + y * ds[c]
            x, dx = inputs[row[a]], dinputs[row[a]]
            _invariants(m, w, x)
            _dinvariants(m, dm, dx)
            _bound(x, dx, shift[kind[a]], scale[kind[a]], bound)
    return moments, dmoments, inputs, dinputs


@njit(parallel=True, cache=True, fastmath=True)
def tangents_back(
    first,
    near,
    vectors,
    kind,
    along,
    row,
    table,
    r0,
    inverse_h,
    shift,
    scale,
    bound,
    sent,
    dsent,
    moments,
    dmoments,
    inputs,
    dinputs,
    grad,
    dgrad,
):
    """Gradients by ``table``, ``sent`` and ``dsent`` from ``grad``, ``dgrad`` by the inputs."""
    atoms, channels = first.size - 1, table.shape[3] - 1
    kinds = int(math.sqrt(table.shape[0]) + 0.5)
    types, cells = table.shape[0], table.shape[1]
    to_table = np.zeros((CHUNKS, types, cells, 4, channels + 1), table.dtype)
    to_sent = np.zeros((CHUNKS, sent.shape[0], channels), table.dtype)
    to_dsent = np.zeros((CHUNKS, sent.shape[0], channels), table.dtype)
    one = table.dtype.type(1)
    for chunk in prange(CHUNKS):
        s = np.empty(channels, table.dtype)
        ds = np.empty(channels, table.dtype)
        shape = np.empty(10, table.dtype)
        dshape = np.empty(10, table.dtype)
        power = np.empty(4, table.dtype)
        dpower = np.empty(4, table.dtype)
        g = np.empty((10, channels + 2), table.dtype)
        dg = np.empty((10, channels + 2), table.dtype)
        w = np.empty((10, channels + 2), table.dtype)
        of_s = np.empty(channels, table.dtype)
        of_ds = np.empty(channels, table.dtype)
        for a in range(atoms * chunk // CHUNKS, atoms * (chunk + 1) // CHUNKS):
            x, dx, gx, gdx = inputs[row[a]], dinputs[row[a]], grad[row[a]], dgrad[row[a]]
            _bound_back(x, dx, scale[kind[a]], bound, gx, gdx)
            _invariants_back(moments[a], w, gx, g)
            _invariants_back(moments[a], w, gdx, dg)
            _dinvariants_back(moments[a], dmoments[a], gdx, g)
            for p in range(first[a], first[a + 1]):
                b = near[p]
                dr = _shapes(vectors[p], along[a], along[b], shape, dshape)
                t = kind[a] * kinds + kind[b]
                of_s[:] = 0
                of_ds[:] = 0
                for k in range(10):
                    y, dy = shape[k], dshape[k]
                    for c in range(channels):
                        of_s[c] += y * g[k, c] + dy * dg[k, c]
                        of_ds[c] += y * dg[k, c]
                u, du = (vectors[p, 3] - r0) * inverse_h, dr * inverse_h
                if sent.size:
                    _radial(table[t], u, du, s, ds)
                    q, dq = to_sent[chunk, b], to_dsent[chunk, b]
                    for c in range(channels):
                        q[c] += of_s[c] * s[c] + of_ds[c] * ds[c]
                        dq[c] += of_ds[c] * s[c]
                    for c in range(channels):
                        of_s[c] = of_s[c] * sent[b, c] + of_ds[c] * dsent[b, c]
                        of_ds[c] *= sent[b, c]
                cell = min(max(int(u), 0), cells - 1)
                v = table.dtype.type(u - cell)
                power[0], power[1], power[2], power[3] = one, v, v * v, v * v * v
                dpower[0], dpower[1] = one - one, du
                dpower[2], dpower[3] = (v + v) * du, (v * v + v * v + v * v) * du
                target = to_table[chunk, t, cell]
                for k in range(4):
                    y, dy = power[k], dpower[k]
                    for c in range(channels):
                        target[k, c] += y * of_s[c] + dy * of_ds[c]
    return to_table.sum(0), to_sent.sum(0), to_dsent.sum(0)


@njit(inline="always", fastmath=True)
def _shapes(vector, here, there, out, dout):
    """1, u and u⊗u − 1/3 of a pair, their change as its ends move, and that of its length."""
    r = vector[3]
    x, y, z = vector[0] / r, vector[1] / r, vector[2] / r
    dx, dy, dz = there[0] - here[0], there[1] - here[1], there[2] - here[2]
    dr = x * dx + y * dy + z * dz
    dx, dy, dz = (dx - x * dr) / r, (dy - y * dr) / r, (dz - z * dr) / r
    third = 1.0 / 3.0
    out[0], dout[0] = 1.0, 0.0
    out[1], out[2], out[3] = x, y, z
    dout[1], dout[2], dout[3] = dx, dy, dz
    out[4], out[5], out[6] = x * x - third, y * y - third, z * z - third
    dout[4], dout[5], dout[6] = 2 * x * dx, 2 * y * dy, 2 * z * dz
    out[7], out[8], out[9] = x * y, x * z, y * z
    dout[7], dout[8], dout[9] = x * dy + y * dx, x * dz + z * dx, y * dz + z * dy
    return dr


@njit(inline="always", fastmath=True)
def _radial(table, u, du, value, change):
    """Splines at ``u`` cells from the start of the table, and their change as u moves by du."""
    two, three = table.dtype.type(2), table.dtype.type(3)
    k = min(max(int(u), 0), table.shape[0] - 1)
    s, ds = table.dtype.type(u - k), table.dtype.type(du)
    a = table[k]
    for c in range(value.size):
        value[c] = a[0, c] + s * (a[1, c] + s * (a[2, c] + s * a[3, c]))
        change[c] = ds * (a[1, c] + s * (two * a[2, c] + three * s * a[3, c]))


@njit(fastmath=True)
def _dinvariants(m, dm, dout):
    """Change of the invariants of one atom as its moments move by ``dm``."""
    two, channels = m.dtype.type(2), m.shape[1]
    for c in range(channels):
        dout[0, c] = dm[0, c]
        for k in range(3):
            d = (c + k) % channels
            vector, tensor = m.dtype.type(0), m.dtype.type(0)
            for q in range(1, 4):
                vector += dm[q, c] * m[q, d] + m[q, c] * dm[q, d]
            for q in range(4, 7):
                tensor += dm[q, c] * m[q, d] + m[q, c] * dm[q, d]
            for q in range(7, 10):
                tensor += two * (dm[q, c] * m[q, d] + m[q, c] * dm[q, d])
            dout[1 + k, c], dout[4 + k, c] = vector, tensor
        d = (c + 1) % channels
        vx, vy, vz = _contract(m, m, c)
        ax, ay, az = _contract(dm, m, c)
        bx, by, bz = _contract(m, dm, c)
        dx, dy, dz = ax + bx, ay + by, az + bz
        dout[7, c] = dm[1, c] * vx + dm[2, c] * vy + dm[3, c] * vz
        dout[7, c] += m[1, c] * dx + m[2, c] * dy + m[3, c] * dz
        dout[8, c] = dm[1, d] * vx + dm[2, d] * vy + dm[3, d] * vz
        dout[8, c] += m[1, d] * dx + m[2, d] * dy + m[3, d] * dz
        dout[9, c] = two * (vx * dx + vy * dy + vz * dz)


@njit(fastmath=True)
def _dinvariants_back(m, dm, grad, g):
    """Add to ``g`` (10, C + 2) the gradient by ``m`` of Σ grad · `_dinvariants`."""
    two, channels = m.dtype.type(2), m.shape[1]
    for c in range(channels):
        for k in range(3):
            d = (c + k) % channels
            for q in range(1, 4):
                g[q, d] += grad[1 + k, c] * dm[q, c]
                g[q, c] += grad[1 + k, c] * dm[q, d]
            for q in range(4, 10):
                h = grad[4 + k, c] if q < 7 else two * grad[4 + k, c]
                g[q, d] += h * dm[q, c]
                g[q, c] += h * dm[q, d]
        d = (c + 1) % channels
        vx, vy, vz = _contract(m, m, c)
        ax, ay, az = _contract(dm, m, c)
        bx, by, bz = _contract(m, dm, c)
        dx, dy, dz = ax + bx, ay + by, az + bz
        h7, h8, h9 = grad[7, c], grad[8, c], two * grad[9, c]
        # by a1: directly, and through v and dv, whose gradients are f and e
        ex = h7 * m[1, c] + h8 * m[1, d] + h9 * vx
        ey = h7 * m[2, c] + h8 * m[2, d] + h9 * vy
        ez = h7 * m[3, c] + h8 * m[3, d] + h9 * vz
        fx = h7 * dm[1, c] + h8 * dm[1, d] + h9 * dx
        fy = h7 * dm[2, c] + h8 * dm[2, d] + h9 * dy
        fz = h7 * dm[3, c] + h8 * dm[3, d] + h9 * dz
        g[1, c] += h7 * dx
        g[2, c] += h7 * dy
        g[3, c] += h7 * dz
        g[1, d] += h8 * dx
        g[2, d] += h8 * dy
        g[3, d] += h8 * dz
        _contract_back(m, m, c, fx, fy, fz, g)
        _contract_back(dm, dm, c, ex, ey, ez, g)


@njit(inline="always", fastmath=True)
def _contract(tensor, vector, c):
    """A2·A1 of channel ``c``, A2 from one set of moments and A1 from another."""
    x, y, z = vector[1, c], vector[2, c], vector[3, c]
    return (
        tensor[4, c] * x + tensor[7, c] * y + tensor[8, c] * z,
        tensor[7, c] * x + tensor[5, c] * y + tensor[9, c] * z,
        tensor[8, c] * x + tensor[9, c] * y + tensor[6, c] * z,
    )


@njit(inline="always", fastmath=True)
def _contract_back(tensor, vector, c, hx, hy, hz, g):
    """Add the gradient of h · `_contract` by either factor to ``g``."""
    x, y, z = vector[1, c], vector[2, c], vector[3, c]
    g[1, c] += tensor[4, c] * hx + tensor[7, c] * hy + tensor[8, c] * hz
    g[2, c] += tensor[7, c] * hx + tensor[5, c] * hy + tensor[9, c] * hz
    g[3, c] += tensor[8, c] * hx + tensor[9, c] * hy + tensor[6, c] * hz
    g[4, c] += hx * x
    g[5, c] += hy * y
    g[6, c] += hz * z
    g[7, c] += hx * y + hy * x
    g[8, c] += hx * z + hz * x
    g[9, c] += hy * z + hz * y


@njit(fastmath=True)
def _bound(x, dx, shift, scale, bound):
    """`mts_driver.potentials.student.bounded` of the scaled invariants, and its change."""
    one = x.dtype.type(1)
    for k in range(x.shape[0]):
        for c in range(x.shape[1]):
            y = (x[k, c] - shift[k, c]) * scale[k, c]
            s = one / math.sqrt(one + (y / bound) * (y / bound))
            x[k, c] = y * s
            dx[k, c] *= scale[k, c] * s * s * s


@njit(fastmath=True)
def _bound_back(x, dx, scale, bound, grad, dgrad):
    """Turn gradients by bounded inputs into those by the invariants, in place.

    With s² = 1 − (x/b)²: dx/dy = s³ and d²x/dy² = −3 s⁴ x/b².
    """
    one = x.dtype.type(1)
    three, tiny = one + one + one, x.dtype.type(1e-12)
    for k in range(x.shape[0]):
        for c in range(x.shape[1]):
            ss = max(one - (x[k, c] / bound) * (x[k, c] / bound), tiny)
            slope = ss * math.sqrt(ss)
            curved = -three * ss * ss * x[k, c] / (bound * bound) * (dx[k, c] / slope)
            grad[k, c] = scale[k, c] * (slope * grad[k, c] + curved * dgrad[k, c])
            dgrad[k, c] *= scale[k, c] * slope
