"""How the forces of one atom's sums change along a direction: second derivatives of the student.

numba functions on lanes for `mts_driver.potentials.student.cpu.hessian.kernels`, beside those of
`mts_driver.potentials.student.cpu.tangent_sums`; a name with a d before it is the derivative along
the direction.
"""

from numba import njit

from mts_driver.potentials.student.cpu.neighbor_sums import grid_cell, invariants_back, load_ten
from mts_driver.potentials.student.cpu.simd import largest, load, root, size, store, total
from mts_driver.potentials.student.cpu.tangent_sums import (
    dinvariants,
    dinvariants_back,
    unbound,
)


@njit(fastmath=True)
def put_change(m, d, inputs, dinputs, at, scale, of_kind, input_bound):
    """Write how network inputs, which are known, change as the moments ``m`` move by ``d``."""
    one, channels, nothing = inputs.dtype.type(1), size(m[0]), m[0] - m[0]
    change = dinvariants(m, d)
    for k in range(10):
        here = k * channels
        x = load(inputs, at + here, m[0])
        rest = largest(one - input_bound * (x * x), nothing)
        y = change[k] * load(scale, of_kind + here, m[0])
        store(dinputs, at + here, y * rest * root(rest))


@njit(fastmath=True)
def gradients_by_moments(
    m, d, inputs, dinputs, at, grad, dgrad, grad_at, scale, of_kind, input_bound
):
    """Return dE/d(moments), ten lanes, and their change, from those by the inputs."""
    nothing = m[0] - m[0]
    # `unbound` goes back from E's change: its gradient by dx is E's by x, its own by x the change
    unbound(inputs, dinputs, at, dgrad, grad, grad_at, scale, of_kind, input_bound, nothing)
    h, dh = load_ten(grad, grad_at, m[0]), load_ten(dgrad, grad_at, m[0])
    return invariants_back(m, h), dinvariants_back(m, d, h, invariants_back(m, dh))


@njit(fastmath=True)
def pull_change(a, near, along, radial, sent, g, dg, forces, dgrad_message, basis, grad_radial):
    """Add the change of what `mts_driver.potentials.student.cpu.neighbor_sums.pull` adds.

    Parameters
    ----------
    sent : tuple of arrays, shape (M, C)
        What neighbours tell, and its change; empty in the first sum.
    g, dg : ten lanes
        The energy's gradient by the moments of atom ``a``, and its change.
    forces, dgrad_message : arrays, shapes (M, 3) and (M, C)
        Changes, which are added to.
    basis : array, shape (G, 4, K)
        Cubics of the basis functions that radial functions are made of.
    grad_radial : array, shape (E, E, K, C)
        Change of the energy's gradient by their weights, which is added to; empty: none is asked
        for.
    """
    first, last, neighbors, vectors, kind = near
    (table, pairs, r0, inverse_h), (message, dmessage) = radial, sent
    number, like, channels = table.dtype.type, g[0], size(g[0])
    half, two, three, six = number(0.5), number(2), number(3), number(6)
    third, per_A = number(1) / number(3), number(inverse_h)
    # with symmetric Q: Σ_k x_k g_k = Q:(û⊗û − 1/3) + g₁·û + g₀
    trace, dtrace = third * (g[4] + g[5] + g[6]), third * (dg[4] + dg[5] + dg[6])
    fx = fy = fz = 0.0
    for p in range(first[a], last[a]):
        b = neighbors[p]
        i, j = kind[a], kind[b]
        k, s = grid_cell(vectors[p, 3], table, r0, inverse_h)
        w = number(1) / number(vectors[p, 3])
        x, y, z = number(vectors[p, 0]) * w, number(vectors[p, 1]) * w, number(vectors[p, 2]) * w
        dx, dy, dz = along[b, 0] - along[a, 0], along[b, 1] - along[a, 1], along[b, 2] - along[a, 2]
        dr = x * dx + y * dy + z * dz
        dx, dy, dz = (dx - x * dr) * w, (dy - y * dr) * w, (dz - z * dr) * w
        ds = dr * per_A
        # radial functions, their slopes, and how both change
        at = ((i * table.shape[1] + j) * table.shape[2] + k) * 4 * channels
        c1, c2 = load(table, at + channels, like), load(table, at + 2 * channels, like)
        c3 = load(table, at + 3 * channels, like)
        f = load(table, at, like) + s * (c1 + s * (c2 + s * c3))
        slope = c1 + s * (two * c2 + (three * s) * c3)
        df, dslope = ds * slope, ds * (two * c2 + (six * s) * c3)
        # Q·û, the gradient by û, and Σ_k x_k g_k
        hx, hy, hz = half * x, half * y, half * z
        qx = x * g[4] + hy * g[7] + hz * g[8]
        qy = hx * g[7] + y * g[5] + hz * g[9]
        qz = hx * g[8] + hy * g[9] + z * g[6]
        e = g[0] - trace + x * (g[1] + qx) + y * (g[2] + qy) + z * (g[3] + qz)
        gx, gy, gz = g[1] + qx + qx, g[2] + qy + qy, g[3] + qz + qz
        # and how these change
        qx = x * dg[4] + hy * dg[7] + hz * dg[8]
        qy = hx * dg[7] + y * dg[5] + hz * dg[9]
        qz = hx * dg[8] + hy * dg[9] + z * dg[6]
        de = dg[0] - dtrace + x * (dg[1] + qx) + y * (dg[2] + qy) + z * (dg[3] + qz)
        de += dx * gx + dy * gy + dz * gz
        dgx = dg[1] + qx + qx + ((dx + dx) * g[4] + dy * g[7] + dz * g[8])
        dgy = dg[2] + qy + qy + (dx * g[7] + (dy + dy) * g[5] + dz * g[9])
        dgz = dg[3] + qz + qz + (dx * g[8] + dy * g[9] + (dz + dz) * g[6])
        by_f, by_df = de, e
        if message.size:
            at = b * channels
            store(dgrad_message, at, load(dgrad_message, at, like) + de * f + e * df)
            received, dreceived = load(message, at, like), load(dmessage, at, like)
            by_f, by_df = de * received + e * dreceived, e * received
            df = df * received + f * dreceived
            dslope = dslope * received + slope * dreceived
            f, slope = f * received, slope * received
        if grad_radial.size:
            at = (i * table.shape[1] + j) * basis.shape[2] * channels
            for n in range(basis.shape[2]):
                b1, b2, b3 = basis[k, 1, n], basis[k, 2, n], basis[k, 3, n]
                value = basis[k, 0, n] + s * (b1 + s * (b2 + s * b3))
                change = ds * (b1 + s * (two * b2 + (three * s) * b3))
                here = at + n * channels
                store(
                    grad_radial, here, load(grad_radial, here, like) + value * by_f + change * by_df
                )
        # dE/dr at fixed direction, and the gradient in the direction
        steep, dsteep = total(e * slope), total(de * slope + e * dslope)
        if pairs.size:
            p2, p3 = pairs[i, j, k, 2], pairs[i, j, k, 3]
            steep += pairs[i, j, k, 1] + s * (two * p2 + three * s * p3)
            dsteep += ds * (two * p2 + six * s * p3)
        tx, ty, tz = total(f * gx), total(f * gy), total(f * gz)
        dtx, dty, dtz = (
            total(df * gx + f * dgx),
            total(df * gy + f * dgy),
            total(df * gz + f * dgz),
        )
        inward = tx * x + ty * y + tz * z
        dinward = dtx * x + dty * y + dtz * z + tx * dx + ty * dy + tz * dz
        dw = -dr * w * w
        bond = steep * per_A - inward * w
        dbond = dsteep * per_A - dinward * w - inward * dw
        px = dbond * x + bond * dx + dtx * w + tx * dw
        py = dbond * y + bond * dy + dty * w + ty * dw
        pz = dbond * z + bond * dz + dtz * w + tz * dw
        fx += px
        fy += py
        fz += pz
        forces[b, 0] -= px
        forces[b, 1] -= py
        forces[b, 2] -= pz
    forces[a, 0] += fx
    forces[a, 1] += fy
    forces[a, 2] += fz
