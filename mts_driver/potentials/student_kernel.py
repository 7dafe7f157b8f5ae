"""Fused CPU kernels of the student: moments and invariants of every atom, and back to forces.

The same equations as `mts_driver.potentials.student`, with the radial functions read from cubic
splines. An atom's neighbours are visited one after the other and nothing of the size of the pair
list times the channels is ever stored; the derivative of the invariants is written out by hand.
"""

import math

import numpy as np
from numba import njit, prange

CHUNKS = 8
"""Blocks of atoms that threads share; fixed, so that sums don't depend on the thread count."""


@njit(parallel=True, cache=True, fastmath=True)
def neighborhoods(x, first, neighbors, shifts, cutoff):
    """Pairs closer than ``cutoff`` now: ends of rows (M,), atoms (P,), vectors and lengths (P, 4).

    Row a of the result starts at ``first[a]``, as in the list with the skin.
    """
    atoms = first.size - 1
    last = np.empty(atoms, np.int64)
    near = np.empty(neighbors.size, np.int64)
    vectors = np.empty((neighbors.size, 4))
    for chunk in prange(CHUNKS):
        for a in range(atoms * chunk // CHUNKS, atoms * (chunk + 1) // CHUNKS):
            n = first[a]
            for p in range(first[a], first[a + 1]):
                b = neighbors[p]
                dx = x[b, 0] + shifts[p, 0] - x[a, 0]
                dy = x[b, 1] + shifts[p, 1] - x[a, 1]
                dz = x[b, 2] + shifts[p, 2] - x[a, 2]
                r2 = dx * dx + dy * dy + dz * dz
                # always written and sometimes kept: a branch would be guessed wrong half the time
                near[n], vectors[n, 3] = b, r2
                vectors[n, 0], vectors[n, 1], vectors[n, 2] = dx, dy, dz
                n += r2 < cutoff * cutoff
            last[a] = n
            for p in range(first[a], n):
                vectors[p, 3] = math.sqrt(vectors[p, 3])
    return last, near, vectors


@njit(parallel=True, cache=True, fastmath=True)
def forward(first, last, near, vectors, kind, row, table, r0, inverse_h, shift, scale, bound, sent):
    """Moments (M, 10, C), network inputs (M, 10, C) and pair energies (M,) of every atom.

    The first arguments are those of `neighborhoods`; atom a's inputs go to ``row[a]``.
    ``table`` (T, G, 4, C + 1) holds the cubics of the radial functions in every grid cell, from
    ``r0`` on, the pair energy last. Inputs are the invariants, shifted and scaled by element and
    bounded. ``sent`` (M, C) is what every atom tells its neighbours; it is empty in the first sum.
    """
    atoms, channels = first.size - 1, table.shape[3] - 1
    kinds = int(math.sqrt(table.shape[0]) + 0.5)
    moments = np.zeros((atoms, 10, channels), table.dtype)
    inputs = np.empty((atoms, 10, channels), table.dtype)
    pair_energy = np.zeros(atoms, table.dtype)
    for chunk in prange(CHUNKS):
        radial = np.empty(channels + 1, table.dtype)
        scratch = np.empty((10, channels + 2), table.dtype)
        shape = np.empty(10, table.dtype)
        for a in range(atoms * chunk // CHUNKS, atoms * (chunk + 1) // CHUNKS):
            m = moments[a]
            for p in range(first[a], last[a]):
                r, b = vectors[p, 3], near[p]
                pair = table[kind[a] * kinds + kind[b]]
                _radial(pair, (r - r0) * inverse_h, radial)
                pair_energy[a] += radial[channels]
                if sent.size:
                    for c in range(channels):
                        radial[c] *= sent[b, c]
                _angular(vectors[p], r, shape)
                for k in range(10):
                    s = shape[k]
                    for c in range(channels):
                        m[k, c] += s * radial[c]
            out = inputs[row[a]]
            _invariants(m, scratch, out)
            _bound(out, shift[kind[a]], scale[kind[a]], bound)
    return moments, inputs, pair_energy


@njit(parallel=True, cache=True, fastmath=True)
def backward(
    first,
    last,
    near,
    vectors,
    kind,
    row,
    table,
    r0,
    inverse_h,
    shift,
    scale,
    bound,
    sent,
    moments,
    inputs,
    grad,
    atoms_per_replica,
):
    """Return forces (M, 3), virials (R, 3, 3) and dE/d(sent) from ``grad`` = dE/d(inputs)."""
    atoms, channels = first.size - 1, table.shape[3] - 1
    kinds = int(math.sqrt(table.shape[0]) + 0.5)
    replicas = atoms // atoms_per_replica
    forces = np.zeros((CHUNKS, atoms, 3))
    virials = np.zeros((CHUNKS, replicas, 3, 3))
    answer = np.zeros((CHUNKS, sent.shape[0], channels), table.dtype)
    zero = table.dtype.type(0.0)
    for chunk in prange(CHUNKS):
        radial = np.empty(channels + 1, table.dtype)
        slope = np.empty(channels + 1, table.dtype)
        scratch = np.empty((10, channels + 2), table.dtype)
        shape = np.empty(10, table.dtype)
        felt = np.empty(channels, table.dtype)
        g = np.empty((10, channels + 2), table.dtype)
        d = np.empty(3)
        for a in range(atoms * chunk // CHUNKS, atoms * (chunk + 1) // CHUNKS):
            _bound_back(inputs[row[a]], scale[kind[a]], bound, grad[row[a]])
            _invariants_back(moments[a], scratch, grad[row[a]], g)
            for p in range(first[a], last[a]):
                r, b = vectors[p, 3], near[p]
                pair = table[kind[a] * kinds + kind[b]]
                _radial_slope(pair, (r - r0) * inverse_h, radial, slope)
                _angular(vectors[p], r, shape)
                _felt(g, shape, felt)
                if sent.size:
                    for c in range(channels):
                        answer[chunk, b, c] += felt[c] * radial[c]
                    for c in range(channels):
                        radial[c] *= sent[b, c]
                        slope[c] *= sent[b, c]
                ux, uy, uz = shape[1], shape[2], shape[3]
                # one sum over channels a component: dE/dr at fixed direction, and
                # the gradient in the direction, of which the part across the bond counts
                x2, y2, z2 = ux + ux, uy + uy, uz + uz
                along, gx, gy, gz = slope[channels], zero, zero, zero
                for c in range(channels):
                    turn = radial[c]
                    along += felt[c] * slope[c]
                    gx += turn * (g[1, c] + g[4, c] * x2 + g[7, c] * uy + g[8, c] * uz)
                    gy += turn * (g[2, c] + g[5, c] * y2 + g[7, c] * ux + g[9, c] * uz)
                    gz += turn * (g[3, c] + g[6, c] * z2 + g[8, c] * ux + g[9, c] * uy)
                along *= inverse_h
                across = gx * ux + gy * uy + gz * uz
                d[0] = along * ux + (gx - across * ux) / r
                d[1] = along * uy + (gy - across * uy) / r
                d[2] = along * uz + (gz - across * uz) / r
                for k in range(3):
                    forces[chunk, a, k] += d[k]
                    forces[chunk, b, k] -= d[k]
                    for n in range(3):
                        virials[chunk, a // atoms_per_replica, n, k] -= vectors[p, n] * d[k]
    return forces.sum(0), virials.sum(0), answer.sum(0)


@njit(inline="always", fastmath=True)
def _felt(g, shape, out):
    """Set ``out`` (C,) to the derivative of the energy by a pair's radial functions."""
    for c in range(out.size):
        out[c] = (
            g[0, c]
            + g[1, c] * shape[1]
            + g[2, c] * shape[2]
            + g[3, c] * shape[3]
            + g[4, c] * shape[4]
            + g[5, c] * shape[5]
            + g[6, c] * shape[6]
            + g[7, c] * shape[7]
            + g[8, c] * shape[8]
            + g[9, c] * shape[9]
        )


@njit(fastmath=True)
def _bound(x, shift, scale, bound):
    """X ← y/√(1 + (y/bound)²) with y = (x − shift)·scale, `student.bounded`."""
    one = x.dtype.type(1)
    for k in range(x.shape[0]):
        for c in range(x.shape[1]):
            y = (x[k, c] - shift[k, c]) * scale[k, c]
            x[k, c] = y / math.sqrt(one + (y / bound) * (y / bound))


@njit(fastmath=True)
def _bound_back(x, scale, bound, grad):
    """Turn dE/dx of bounded inputs into dE/d(invariants), in place: dx/dy = (1 − (x/b)²)^{3/2}."""
    one = x.dtype.type(1)
    for k in range(x.shape[0]):
        for c in range(x.shape[1]):
            rest = one - (x[k, c] / bound) * (x[k, c] / bound)
            grad[k, c] *= scale[k, c] * rest * math.sqrt(max(rest, one - one))


@njit(inline="always", fastmath=True)
def _radial(table, u, value):
    """Cubic splines of all channels at ``u`` grid cells from the start of the table."""
    k = min(max(int(u), 0), table.shape[0] - 1)
    s = table.dtype.type(u - k)
    a = table[k]
    for c in range(value.size):
        value[c] = a[0, c] + s * (a[1, c] + s * (a[2, c] + s * a[3, c]))


@njit(inline="always", fastmath=True)
def _radial_slope(table, u, value, slope):
    """Evaluate the splines and their slopes, per grid cell."""
    # numba multiplies float32 with an integer in float64
    two, three = table.dtype.type(2), table.dtype.type(3)
    k = min(max(int(u), 0), table.shape[0] - 1)
    s = table.dtype.type(u - k)
    a = table[k]
    for c in range(value.size):
        value[c] = a[0, c] + s * (a[1, c] + s * (a[2, c] + s * a[3, c]))
        slope[c] = a[1, c] + s * (two * a[2, c] + three * s * a[3, c])


@njit(inline="always", fastmath=True)
def _angular(vector, r, out):
    """1, u and u⊗u − 1/3 of the direction u."""
    x, y, z = vector[0] / r, vector[1] / r, vector[2] / r
    third = 1.0 / 3.0
    out[0] = 1.0
    out[1], out[2], out[3] = x, y, z
    out[4], out[5], out[6] = x * x - third, y * y - third, z * z - third
    out[7], out[8], out[9] = x * y, x * z, y * z


@njit(fastmath=True)
def _wrapped(m, w):
    """Copy ``m`` (10, C) to ``w`` (10, C + 2), the first two channels again at the end."""
    channels = m.shape[1]
    for k in range(10):
        for c in range(channels):
            w[k, c] = m[k, c]
        w[k, channels], w[k, channels + 1] = m[k, 0], m[k, 1 % channels]


@njit(fastmath=True)
def _invariants(m, w, out):
    """`mts_driver.potentials.student.invariants` of one atom; ``w`` is scratch (10, C + 2)."""
    two = m.dtype.type(2)
    _wrapped(m, w)
    for c in range(m.shape[1]):
        out[0, c] = w[0, c]
        for k in range(3):
            d = c + k
            out[1 + k, c] = w[1, c] * w[1, d] + w[2, c] * w[2, d] + w[3, c] * w[3, d]
            out[4 + k, c] = (
                w[4, c] * w[4, d]
                + w[5, c] * w[5, d]
                + w[6, c] * w[6, d]
                + two * (w[7, c] * w[7, d] + w[8, c] * w[8, d] + w[9, c] * w[9, d])
            )
        x, y, z = w[1, c], w[2, c], w[3, c]
        vx = w[4, c] * x + w[7, c] * y + w[8, c] * z
        vy = w[7, c] * x + w[5, c] * y + w[9, c] * z
        vz = w[8, c] * x + w[9, c] * y + w[6, c] * z
        out[7, c] = x * vx + y * vy + z * vz
        out[8, c] = w[1, c + 1] * vx + w[2, c + 1] * vy + w[3, c + 1] * vz
        out[9, c] = vx * vx + vy * vy + vz * vz


@njit(fastmath=True)
def _invariants_back(m, w, grad, g):
    """dE/d(moments) of one atom into ``g`` (10, C + 2), from dE/d(invariants) ``grad``."""
    _wrapped(m, w)
    channels, one = m.shape[1], m.dtype.type(1)
    g[:] = 0
    # one store a loop, so that each runs over the channels in vectors
    for k in range(3):
        for q in range(1, 4):
            for c in range(channels):
                g[q, c] += grad[1 + k, c] * w[q, c + k]
            for c in range(channels):
                g[q, c + k] += grad[1 + k, c] * w[q, c]
        for q in range(4, 10):
            twice = one if q < 7 else one + one
            for c in range(channels):
                g[q, c] += twice * grad[4 + k, c] * w[q, c + k]
            for c in range(channels):
                g[q, c + k] += twice * grad[4 + k, c] * w[q, c]
    for c in range(channels):
        g[0, c] = grad[0, c]
        x, y, z = w[1, c], w[2, c], w[3, c]
        vx = w[4, c] * x + w[7, c] * y + w[8, c] * z
        vy = w[7, c] * x + w[5, c] * y + w[9, c] * z
        vz = w[8, c] * x + w[9, c] * y + w[6, c] * z
        h7, h8, h9 = grad[7, c], grad[8, c], grad[9, c] + grad[9, c]
        hx = h7 * x + h8 * w[1, c + 1] + h9 * vx
        hy = h7 * y + h8 * w[2, c + 1] + h9 * vy
        hz = h7 * z + h8 * w[3, c + 1] + h9 * vz
        g[1, c] += h7 * vx + w[4, c] * hx + w[7, c] * hy + w[8, c] * hz
        g[2, c] += h7 * vy + w[7, c] * hx + w[5, c] * hy + w[9, c] * hz
        g[3, c] += h7 * vz + w[8, c] * hx + w[9, c] * hy + w[6, c] * hz
        g[1, c + 1] += h8 * vx
        g[2, c + 1] += h8 * vy
        g[3, c + 1] += h8 * vz
        g[4, c] += hx * x
        g[5, c] += hy * y
        g[6, c] += hz * z
        g[7, c] += hx * y + hy * x
        g[8, c] += hx * z + hz * x
        g[9, c] += hy * z + hz * y
    for q in range(1, 10):
        g[q, 0] += g[q, channels]
        g[q, 1 % channels] += g[q, channels + 1]
