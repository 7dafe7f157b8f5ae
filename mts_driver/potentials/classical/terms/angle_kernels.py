"""Compiled loops over angles: from functions of θ to forces and back.

Between d₁ = x_i − x_b = r₁ n₁ and d₂ = x_k − x_b = r₂ n₂ the angle has c = cos θ = n₁·n₂ and
∂θ/∂d₁ = g₁ = −(n₂ − c n₁)/(r₁ sin θ). Its change along a displacement u, which the transposed
second derivative needs, follows from those of n₁, n₂, c and r₁.
"""

import numpy as np
from numba import njit


@njit(cache=True)
def measure(first, second):
    """Angles (A,) between vectors (A, 3) and their gradients (A, 3) with respect to both."""
    angles, by_first, by_second = np.empty(len(first)), np.empty(first.shape), np.empty(first.shape)
    for t in range(len(first)):
        d1, d2 = first[t], second[t]
        r1, r2 = np.sqrt((d1 * d1).sum()), np.sqrt((d2 * d2).sum())
        n1, n2 = d1 / r1, d2 / r2
        c = (n1 * n2).sum()
        s = np.sqrt(((n2 - c * n1) ** 2).sum())
        angles[t] = np.arctan2(s, c)
        by_first[t] = (c * n1 - n2) / (r1 * s)
        by_second[t] = (c * n2 - n1) / (r2 * s)
    return angles, by_first, by_second


@njit(cache=True)
def spread(i, b, k, vectors, gradients, value, slope, replicas, atoms):
    """Energies (R,), forces (M, 3) and virials (R, 3, 3) from φ and φ′ of every angle."""
    energies, virials = np.zeros(replicas), np.zeros((replicas, 3, 3))
    forces = np.zeros((replicas * atoms, 3))
    for t in range(i.size):
        replica = b[t] // atoms
        energies[replica] += value[t]
        for end, atom in ((0, i[t]), (1, k[t])):
            for m in range(3):
                force = -slope[t] * gradients[end, t, m]
                forces[atom, m] += force
                forces[b[t], m] -= force
                for n in range(3):
                    virials[replica, m, n] += force * vectors[end, t, n]
    return energies, forces, virials


@njit(cache=True)
def pull_back(i, b, k, vectors, gradients, angles, slope, curve, along):
    """(∂F/∂x)ᵀ a, (M, 3), and the derivative (A,) of Σ F·a with respect to φ′."""
    pulled, by_slope = np.zeros_like(along), np.empty(i.size)
    for t in range(i.size):
        c, s = np.cos(angles[t]), np.sin(angles[t])
        u = np.empty((2, 3))
        u[0], u[1] = along[i[t]] - along[b[t]], along[k[t]] - along[b[t]]
        r, stretch, n, turn = np.empty(2), np.empty(2), np.empty((2, 3)), np.empty((2, 3))
        w = 0.0
        for end in range(2):
            r[end] = np.sqrt((vectors[end, t] ** 2).sum())
            n[end] = vectors[end, t] / r[end]
            stretch[end] = (n[end] * u[end]).sum()
            turn[end] = (u[end] - stretch[end] * n[end]) / r[end]
            w += (gradients[end, t] * u[end]).sum()
        by_slope[t] = -w
        for end, atom in ((0, i[t]), (1, k[t])):
            g = gradients[end, t]
            change = (c * turn[end] - s * w * n[end] - turn[1 - end]) / (r[end] * s)
            change -= g * (stretch[end] / r[end] + c * w / s)
            out = -(curve[t] * w * g + slope[t] * change)
            pulled[atom] += out
            pulled[b[t]] -= out
    return pulled, by_slope
