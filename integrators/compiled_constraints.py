"""SHAKE and RATTLE of the loop of a driver, compiled: what :mod:`integrators.constraints` does.

A cluster of up to K distances that share atoms is solved for at once by Newton's method.
"""

import math

import numpy as np
from numba import njit

from integrators.constraints import BONDS_LOST, MOST_ITERATIONS, TOLERANCE

# sums may be taken in any order; what is not a number stays so
ANY_ORDER = {"reassoc", "nsz", "contract"}


@njit(cache=True, fastmath=ANY_ORDER)
def _solve(matrix, right, n):
    """Solve a small system in place; matrices are nearly symmetric and positive definite."""
    for i in range(n):
        for j in range(i + 1, n):
            factor = matrix[j, i] / matrix[i, i]
            for k in range(i, n):
                matrix[j, k] -= factor * matrix[i, k]
            right[j] -= factor * right[i]
    for i in range(n - 1, -1, -1):
        for k in range(i + 1, n):
            right[i] -= matrix[i, k] * right[k]
        right[i] /= matrix[i, i]


@njit(cache=True, fastmath=ANY_ORDER)
def bonds_of(q, pairs, images, counts, bonds):
    """Write the vectors of all distances at positions (N, 3) into ``bonds`` (C, K, 3)."""
    for c in range(counts.size):
        for k in range(counts[c]):
            for x in range(3):
                bonds[c, k, x] = q[pairs[c, k, 0], x] - q[pairs[c, k, 1], x] - images[c, k, x]


@njit(cache=True, fastmath=ANY_ORDER)
def shake(q, p, m, dt, lead, pairs, squares, images, shared, counts):
    """Bring positions and momenta behind a free drift back onto the manifold, along ``lead``."""
    most = squares.shape[1]
    bonds, matrix, off = np.empty(lead.shape), np.empty((most, most)), np.empty(most)
    bonds_of(q, pairs, images, counts, bonds)
    for c in range(counts.size):
        n, now = counts[c], bonds[c]
        for iteration in range(MOST_ITERATIONS + 1):
            done = True
            for k in range(n):
                length = now[k, 0] ** 2 + now[k, 1] ** 2 + now[k, 2] ** 2
                off[k] = 0.5 * (length - squares[c, k])
                if not abs(off[k]) <= TOLERANCE * squares[c, k]:
                    done = False
            if done:
                break
            if iteration == MOST_ITERATIONS:
                raise ValueError(BONDS_LOST)
            for k in range(n):
                for o in range(n):
                    matrix[k, o] = shared[c, k, o] * (
                        now[k, 0] * lead[c, o, 0]
                        + now[k, 1] * lead[c, o, 1]
                        + now[k, 2] * lead[c, o, 2]
                    )
            _solve(matrix, off, n)
            for o in range(n):
                i, j = pairs[c, o, 0], pairs[c, o, 1]
                for x in range(3):
                    push = off[o] * lead[c, o, x]
                    q[i, x] -= push / m[i, x]
                    q[j, x] += push / m[j, x]
                    p[i, x] -= push / dt
                    p[j, x] += push / dt
                for k in range(n):
                    for x in range(3):
                        now[k, x] -= shared[c, k, o] * off[o] * lead[c, o, x]


@njit(cache=True, fastmath=ANY_ORDER)
def rattle(q, p, m, pairs, images, shared, counts):
    """Project momenta onto the tangent space at ``q``; return the kinetic energy that goes."""
    most = pairs.shape[1]
    bonds, matrix = np.empty((counts.size, most, 3)), np.empty((most, most))
    grows, push = np.empty(most), np.empty(most)
    bonds_of(q, pairs, images, counts, bonds)
    lost = 0.0
    for c in range(counts.size):
        n = counts[c]
        for k in range(n):
            i, j = pairs[c, k, 0], pairs[c, k, 1]
            grows[k] = 0.0
            for x in range(3):
                grows[k] += bonds[c, k, x] * (p[i, x] / m[i, x] - p[j, x] / m[j, x])
            push[k] = grows[k]
            for o in range(n):
                matrix[k, o] = shared[c, k, o] * (
                    bonds[c, k, 0] * bonds[c, o, 0]
                    + bonds[c, k, 1] * bonds[c, o, 1]
                    + bonds[c, k, 2] * bonds[c, o, 2]
                )
        _solve(matrix, push, n)
        for k in range(n):
            i, j = pairs[c, k, 0], pairs[c, k, 1]
            lost += 0.5 * grows[k] * push[k]
            for x in range(3):
                p[i, x] -= push[k] * bonds[c, k, x]
                p[j, x] += push[k] * bonds[c, k, x]
    return lost


@njit(cache=True, fastmath=ANY_ORDER)
def fill_across(q, p, m, kT, noise, pairs, images, shared, counts):
    """Give momenta a thermal part across the manifold; return the kinetic energy that comes in."""
    thermal, tangent = np.empty(p.shape), np.empty(p.shape)
    for a in range(p.shape[0]):
        for x in range(3):
            thermal[a, x] = tangent[a, x] = math.sqrt(kT * m[a, x]) * noise[a, x]
    gained = rattle(q, tangent, m, pairs, images, shared, counts)
    for a in range(p.shape[0]):
        for x in range(3):
            p[a, x] += thermal[a, x] - tangent[a, x]
    return gained
