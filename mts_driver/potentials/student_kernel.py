"""Fused CPU kernels of the student: moments and invariants of every atom, and back to forces.

The same equations as `mts_driver.potentials.student`, with the radial functions read from cubic
splines. An atom's neighbours are visited one after the other and nothing of the size of the pair
list times the channels is ever stored; the derivative of the invariants is written out by hand.
"""

import numpy as np
from numba import njit, prange

CHUNKS = 8
"""Blocks of atoms that threads share; fixed, so that sums don't depend on the thread count."""


@njit(parallel=True, cache=True, fastmath=True)
def forward(first, neighbors, vectors, distances, pair_kind, row, table, r0, inverse_h):
    """Moments (M, 10, C), invariants (M, 10, C) and pair energies (M,) of every atom.

    ``first`` (M + 1,) and ``neighbors`` (P,) are a compressed neighbour list with every pair in
    both directions; ``table`` (T, G, 4, C + 1) holds the cubics of the radial functions in every
    grid cell, from ``r0`` on, the pair energy last.
    """
    atoms, channels = first.size - 1, table.shape[3] - 1
    moments = np.zeros((atoms, 10, channels), table.dtype)
    invariants = np.empty((atoms, 10, channels), table.dtype)
    pair_energy = np.zeros(atoms, table.dtype)
    for chunk in prange(CHUNKS):
        radial = np.empty(channels + 1, table.dtype)
        scratch = np.empty((10, channels + 2), table.dtype)
        shape = np.empty(10, table.dtype)
        for a in range(atoms * chunk // CHUNKS, atoms * (chunk + 1) // CHUNKS):
            m = moments[a]
            for p in range(first[a], first[a + 1]):
                r = distances[p]
                _radial(table[pair_kind[p]], (r - r0) * inverse_h, radial)
                _angular(vectors[p], r, shape)
                for k in range(10):
                    s = shape[k]
                    for c in range(channels):
                        m[k, c] += s * radial[c]
                pair_energy[a] += radial[channels]
            _invariants(m, scratch, invariants[row[a]])
    return moments, invariants, pair_energy


@njit(parallel=True, cache=True, fastmath=True)
def backward(
    first,
    neighbors,
    vectors,
    distances,
    pair_kind,
    row,
    table,
    r0,
    inverse_h,
    moments,
    grad,
    atoms_per_replica,
):
    """Return forces (M, 3) and virials (R, 3, 3) from ``grad`` = dE/d(invariants) (M, 10, C)."""
    atoms, channels = first.size - 1, table.shape[3] - 1
    replicas = atoms // atoms_per_replica
    forces = np.zeros((CHUNKS, atoms, 3))
    virials = np.zeros((CHUNKS, replicas, 3, 3))
    zero = table.dtype.type(0.0)
    for chunk in prange(CHUNKS):
        radial = np.empty(channels + 1, table.dtype)
        slope = np.empty(channels + 1, table.dtype)
        scratch = np.empty((10, channels + 2), table.dtype)
        shape = np.empty(10, table.dtype)
        g = np.empty((10, channels + 2), table.dtype)
        d = np.empty(3)
        for a in range(atoms * chunk // CHUNKS, atoms * (chunk + 1) // CHUNKS):
            _invariants_back(moments[a], scratch, grad[row[a]], g)
            for p in range(first[a], first[a + 1]):
                r, b = distances[p], neighbors[p]
                _radial_slope(table[pair_kind[p]], (r - r0) * inverse_h, radial, slope)
                _angular(vectors[p], r, shape)
                x, y, z = shape[1], shape[2], shape[3]
                # Σ_c first over moments, then one sum a component: dE/dr at fixed direction, and
                # the gradient in the direction, of which the part across the bond counts
                along, gx, gy, gz = slope[channels], zero, zero, zero
                for c in range(channels):
                    radius, turn = zero, radial[c]
                    for k in range(10):
                        radius += g[k, c] * shape[k]
                    along += radius * slope[c]
                    gx += turn * (g[1, c] + 2 * g[4, c] * x + g[7, c] * y + g[8, c] * z)
                    gy += turn * (g[2, c] + 2 * g[5, c] * y + g[7, c] * x + g[9, c] * z)
                    gz += turn * (g[3, c] + 2 * g[6, c] * z + g[8, c] * x + g[9, c] * y)
                along *= inverse_h
                across = gx * x + gy * y + gz * z
                d[0] = along * x + (gx - across * x) / r
                d[1] = along * y + (gy - across * y) / r
                d[2] = along * z + (gz - across * z) / r
                for k in range(3):
                    forces[chunk, a, k] += d[k]
                    forces[chunk, b, k] -= d[k]
                    for n in range(3):
                        virials[chunk, a // atoms_per_replica, n, k] -= vectors[p, n] * d[k]
    return forces.sum(0), virials.sum(0)


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
    k = min(max(int(u), 0), table.shape[0] - 1)
    s = table.dtype.type(u - k)
    a = table[k]
    for c in range(value.size):
        value[c] = a[0, c] + s * (a[1, c] + s * (a[2, c] + s * a[3, c]))
        slope[c] = a[1, c] + s * (2 * a[2, c] + 3 * s * a[3, c])


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
                + 2 * (w[7, c] * w[7, d] + w[8, c] * w[8, d] + w[9, c] * w[9, d])
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
    channels = m.shape[1]
    g[:] = 0
    for k in range(3):
        for c in range(channels):
            d = c + k
            h = grad[1 + k, c]
            for q in range(1, 4):
                g[q, c] += h * w[q, d]
                g[q, d] += h * w[q, c]
            h = grad[4 + k, c]
            for q in range(4, 7):
                g[q, c] += h * w[q, d]
                g[q, d] += h * w[q, c]
            for q in range(7, 10):
                g[q, c] += 2 * h * w[q, d]
                g[q, d] += 2 * h * w[q, c]
    for c in range(channels):
        g[0, c] = grad[0, c]
        x, y, z = w[1, c], w[2, c], w[3, c]
        vx = w[4, c] * x + w[7, c] * y + w[8, c] * z
        vy = w[7, c] * x + w[5, c] * y + w[9, c] * z
        vz = w[8, c] * x + w[9, c] * y + w[6, c] * z
        h7, h8, h9 = grad[7, c], grad[8, c], 2 * grad[9, c]
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
