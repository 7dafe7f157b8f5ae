"""Kicks, drifts, thermostats and constraints of the loop of a driver, compiled.

Positions and momenta are those of the normal modes of P beads, the centroid first; for one bead
they are its own.
"""

import math

import numpy as np
from numba import njit

from integrators.compiled_constraints import ANY_ORDER, bonds_of, fill_across, rattle, shake

KICK, DRIFT, THERMOSTAT = 0, 1, 2
# compiled when this is imported, not in the middle of a run
_ADVANCE = (
    "Tuple((i8, i8, f8))(i8, i8, i8[::1], i8[::1], f8[::1], b1[::1], f8[:, :, :, ::1], "
    "f8[:, :, ::1], f8[:, :, ::1], f8[:, ::1], f8, f8[:, ::1], f8[:, :, :, :, ::1], f8[::1], b1, "
    "b1[:, ::1], f8[:, ::1], f8[:, ::1], f8[:, ::1], f8[:, :, :, ::1], "
    "i8[:, :, ::1], f8[:, ::1], f8[:, :, ::1], f8[:, :, ::1], i8[::1])"
)


@njit(cache=True, fastmath=ANY_ORDER)
def _kick(p, forces, dt):
    for b in range(p.shape[0]):
        for a in range(p.shape[1]):
            for k in range(3):
                p[b, a, k] += dt * forces[b, a, k]


@njit(cache=True, fastmath=ANY_ORDER)
def _drift(q, p, m, omega, dt):
    """Move the centroid freely, and turn the other modes, harmonic oscillators."""
    for a in range(q.shape[1]):
        for k in range(3):
            q[0, a, k] += dt * p[0, a, k] / m[a, k]
    for b in range(1, q.shape[0]):
        w = omega[b]
        c, s = math.cos(w * dt), math.sin(w * dt)
        for a in range(q.shape[1]):
            for k in range(3):
                x, y = q[b, a, k], p[b, a, k]
                q[b, a, k] = c * x + s / (w * m[a, k]) * y
                p[b, a, k] = c * y - s * w * m[a, k] * x


@njit(cache=True, fastmath=ANY_ORDER)
def _thermostat(p, m, kT, friction, noise, dt):
    """Take the exact Ornstein-Uhlenbeck step, and return the energy that it brings in."""
    twice, last, decay, spread = 0.0, 0.0, 1.0, 0.0
    for b in range(p.shape[0]):
        for a in range(p.shape[1]):
            if friction[b, a] != last:  # most are as the one before
                last = friction[b, a]
                decay, spread = math.exp(-last * dt), -math.expm1(-2.0 * last * dt) * kT
            width = math.sqrt(spread * m[a, 0])
            for k in range(3):
                before = p[b, a, k]
                after = decay * before + width * noise[b, a, k]
                p[b, a, k] = after
                twice += (after * after - before * before) / m[a, k]
    return 0.5 * twice


@njit(cache=True, fastmath=ANY_ORDER)
def _coloured(p, m, kT, decay, spread, extra, noise):
    """Take the exact step of coloured noise, and return the energy that it brings in."""
    twice, width, size = 0.0, math.sqrt(kT), decay.shape[0]
    before = np.empty(size)
    for b in range(p.shape[0]):
        for a in range(p.shape[1]):
            root = math.sqrt(m[a, 0])
            for k in range(3):
                before[0] = p[b, a, k] / root
                for i in range(1, size):
                    before[i] = extra[i - 1, b, a, k]
                for i in range(size):
                    after = 0.0
                    for j in range(size):
                        after += decay[i, j] * before[j] + width * spread[i, j] * noise[j, b, a, k]
                    if i == 0:
                        p[b, a, k] = after * root
                        twice += after * after - before[0] * before[0]
                    else:
                        extra[i - 1, b, a, k] = after
    return 0.5 * twice


@njit(cache=True, fastmath=ANY_ORDER)
def _stop(p, m):
    """Stop the centre of mass, and return the kinetic energy that it had."""
    total, mass = np.zeros(3), 0.0
    for a in range(p.shape[0]):
        mass += m[a, 0]
        for k in range(3):
            total[k] += p[a, k]
    for a in range(p.shape[0]):
        for k in range(3):
            p[a, k] -= m[a, k] / mass * total[k]
    return 0.5 * (total[0] ** 2 + total[1] ** 2 + total[2] ** 2) / mass


@njit(cache=True, fastmath=ANY_ORDER)
def weigh(p, m, groups, twice_kinetic):
    """Put Σ p²/m of every group into ``twice_kinetic`` (G,)."""
    for g in range(groups.shape[0]):
        total = 0.0
        for b in range(p.shape[0]):
            for a in range(p.shape[1]):
                if groups[g, a]:
                    for k in range(3):
                        total += p[b, a, k] * p[b, a, k] / m[a, k]
        twice_kinetic[g] = total


@njit(_ADVANCE, cache=True, fastmath=ANY_ORDER)
def advance(
    at,
    draw,
    kinds,
    which,
    dts,
    known,
    forces,
    q,
    p,
    m,
    kT,
    friction,
    noise,
    omega,
    fixcom,
    groups,
    seen,
    decay,
    spread,
    extra,
    pairs,
    squares,
    images,
    shared,
    counts,
):
    """Apply operations up to a kick whose forces are not known, and return where that is.

    Parameters
    ----------
    at, draw : int
        Operation to begin with, and thermostat steps before it.
    kinds, which, dts : arrays, shape (K,)
        Operations, the level of a kick, and the time of each.
    known : bool array, shape (L,)
        Levels whose forces are known; none are behind a drift.
    forces : array, shape (L, P, N, 3)
        Of every level.
    q, p, m : arrays, shapes (P, N, 3), (P, N, 3) and (N, 3)
        Positions, momenta, which change, and masses.
    kT, friction : float, and array of shape (P, N)
        Of the thermostat.
    noise : array, shape (n, E + 1, P, N, 3)
        Of its steps; with coloured noise and constraints E + 2, `integrators.gle`.
    omega : array, shape (P,)
        Frequencies of the free ring polymer.
    fixcom : bool
        Whether the centre of mass is kept still.
    groups, seen : arrays, shapes (G, N) and (n, G)
        Atoms of a group; Σ p²/m of it behind every thermostat step.
    decay, spread, extra : arrays, shapes (E + 1, E + 1), the same, and (E, P, N, 3)
        Of coloured noise: the matrices of its steps, which are all of one length, and its extra
        momenta over √m, which change. Without it the matrices are empty.
    pairs, squares, images, shared, counts : arrays
        Of `integrators.constraints.Constraints`, for one bead; without a cluster there are none.

    Returns
    -------
    at, draw : int
        Where the next call begins; the number of operations at the end.
    heat : float
        That came in on the way.
    """
    heat = 0.0
    held = counts.size > 0
    lead = np.empty((counts.size, squares.shape[1], 3))
    while at < kinds.size:
        kind, dt = kinds[at], dts[at]
        if kind == KICK:
            if not known[which[at]]:
                break
            _kick(p, forces[which[at]], dt)
        elif kind == DRIFT:
            if held:
                bonds_of(q[0], pairs, images, counts, lead)
            _drift(q, p, m, omega, dt)
            if held:
                shake(q[0], p[0], m, dt, lead, pairs, squares, images, shared, counts)
                rattle(q[0], p[0], m, pairs, images, shared, counts)
            known[:] = False
        elif decay.size:
            if held:
                across = noise[draw, -1, 0]
                heat += fill_across(q[0], p[0], m, kT, across, pairs, images, shared, counts)
            heat += _coloured(p, m, kT, decay, spread, extra, noise[draw])
        else:
            heat += _thermostat(p, m, kT, friction, noise[draw, 0], dt)
        if held and kind != DRIFT:
            lost = rattle(q[0], p[0], m, pairs, images, shared, counts)
            if kind == THERMOSTAT:
                heat -= lost
        if fixcom and kind != DRIFT:
            heat -= _stop(p[0], m)
        if kind == THERMOSTAT:
            weigh(p, m, groups, seen[draw])
            draw += 1
        at += 1
    return at, draw, heat
