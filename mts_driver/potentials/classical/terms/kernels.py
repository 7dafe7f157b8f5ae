"""Compiled loops over pairs: which are near, and from radial functions to forces and back.

Everything that does not depend on parameters is here; the radial functions are torch's, so that
parameters can be fitted. With n = d/r for d = x_j − x_i and a smooth switch s(r), a pair's energy
is e = φ s, the force on i is e′ n, and a vector a over atoms is pulled back through the forces by

    Σ F·a = −Σ e′ w,   w = n·(a_j − a_i),
    ∂/∂d = −(e″ − e′/r) w n − (e′/r) (a_j − a_i).

Atoms of all replicas are numbered through.
"""

import numpy as np
from numba import njit


@njit(cache=True)
def near(x, i, j, image, shifts, start, cutoff):
    """Pairs of the list that are closer than the cutoff, with the switch and its derivatives.

    The switch is 1 − 10 t³ + 15 t⁴ − 6 t⁵ with t = (r − start)/(cutoff − start), 1 before.
    """
    first, second = np.empty(i.size, np.int64), np.empty(i.size, np.int64)
    kept = np.empty(i.size, np.int64)
    vectors, distances = np.empty((i.size, 3)), np.empty(i.size)
    switch = np.empty((i.size, 3))
    width = max(cutoff - start, 1e-300)
    n, closest, whose = 0, np.inf, 0
    for p in range(i.size):
        a, b, s = i[p], j[p], image[p]
        dx = x[b, 0] + shifts[s, 0] - x[a, 0]
        dy = x[b, 1] + shifts[s, 1] - x[a, 1]
        dz = x[b, 2] + shifts[s, 2] - x[a, 2]
        r2 = dx * dx + dy * dy + dz * dz
        if r2 < cutoff * cutoff:
            if r2 < closest:
                closest, whose = r2, a
            r = np.sqrt(r2)
            first[n], second[n], kept[n] = a, b, p
            vectors[n, 0], vectors[n, 1], vectors[n, 2] = dx, dy, dz
            distances[n] = r
            switch[n, 0], switch[n, 1], switch[n, 2] = 1.0, 0.0, 0.0
            if r > start:
                t = (r - start) / width
                switch[n, 0] = 1.0 - t * t * t * (10.0 - t * (15.0 - 6.0 * t))
                switch[n, 1] = -30.0 * (t * (1.0 - t)) ** 2 / width
                switch[n, 2] = -60.0 * t * (1.0 - t) * (1.0 - 2.0 * t) / width**2
            n += 1
    found = first[:n], second[:n], kept[:n], vectors[:n], distances[:n], switch[:n]
    return found, np.sqrt(closest), whose


@njit(cache=True)
def nearest_images(x, i, j, cells, inverses, atoms):
    """Vectors from atoms i to the nearest images of atoms j, and their lengths."""
    vectors, distances = np.empty((i.size, 3)), np.empty(i.size)
    for p in range(i.size):
        cell, inverse = cells[i[p] // atoms], inverses[i[p] // atoms]
        for k in range(3):
            vectors[p, k] = x[j[p], k] - x[i[p], k]
        dx, dy, dz = vectors[p]
        for m in range(3):
            turns = np.rint(dx * inverse[0, m] + dy * inverse[1, m] + dz * inverse[2, m])
            for k in range(3):
                vectors[p, k] -= turns * cell[m, k]
        dx, dy, dz = vectors[p]
        distances[p] = np.sqrt(dx * dx + dy * dy + dz * dz)
    return vectors, distances


@njit(cache=True)
def spread(i, j, vectors, distances, switch, value, slope, replicas, atoms):
    """Energies (R,), forces (M, 3) and virials (R, 3, 3) from φ and φ′ of every pair."""
    energies, virials = np.zeros(replicas), np.zeros((replicas, 3, 3))
    forces = np.zeros((replicas * atoms, 3))
    for p in range(i.size):
        a, b = i[p], j[p]
        replica = a // atoms
        energies[replica] += value[p] * switch[p, 0]
        f = (slope[p] * switch[p, 0] + value[p] * switch[p, 1]) / distances[p]
        for k in range(3):
            pull = f * vectors[p, k]
            forces[a, k] += pull
            forces[b, k] -= pull
            for m in range(3):
                virials[replica, k, m] -= pull * vectors[p, m]
    return energies, forces, virials


@njit(cache=True)
def pull_back(i, j, vectors, distances, switch, value, slope, curve, along):
    """(∂F/∂x)ᵀ a, (M, 3), and the derivatives (P,) of Σ F·a with respect to φ and φ′."""
    pulled = np.zeros_like(along)
    by_value, by_slope = np.empty(i.size), np.empty(i.size)
    for p in range(i.size):
        a, b, r = i[p], j[p], distances[p]
        s0, s1, s2 = switch[p, 0], switch[p, 1], switch[p, 2]
        ux, uy, uz = along[b, 0] - along[a, 0], along[b, 1] - along[a, 1], along[b, 2] - along[a, 2]
        nx, ny, nz = vectors[p, 0] / r, vectors[p, 1] / r, vectors[p, 2] / r
        w = nx * ux + ny * uy + nz * uz
        by_value[p], by_slope[p] = -w * s1, -w * s0
        first = (slope[p] * s0 + value[p] * s1) / r
        radial = w * (curve[p] * s0 + 2.0 * slope[p] * s1 + value[p] * s2 - first)
        gx, gy, gz = radial * nx + first * ux, radial * ny + first * uy, radial * nz + first * uz
        pulled[a, 0] += gx
        pulled[a, 1] += gy
        pulled[a, 2] += gz
        pulled[b, 0] -= gx
        pulled[b, 1] -= gy
        pulled[b, 2] -= gz
    return pulled, by_value, by_slope
