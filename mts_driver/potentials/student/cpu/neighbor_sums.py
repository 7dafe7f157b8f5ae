"""The student's sums over neighbours, its invariants, and their way back, for one atom each.

The equations of `mts_driver.potentials.student.model` on lanes, one a channel (`simd`): the ten
moments of an atom, and ten gradients, stay in registers while its neighbours pass. These are numba
functions, called by the kernels of `mts_driver.potentials.student.cpu.kernels`. What they share:

near : tuple
    The arrays of `mts_driver.potentials.student.cpu.evaluator.Near`.
radial : tuple
    ``table`` (E, E, G, 4, C), the cubics of the radial functions in every grid cell; ``pairs``
    (E, E, G, 4), those of half the repulsion, or empty; ``r0`` and ``inverse_h``, the grid.
message : array, shape (M, C)
    What neighbours tell; empty in the first sum.
like : Lanes
    Zeros, as many as there are channels.
"""

from numba import njit

from mts_driver.potentials.student.cpu.simd import (
    inverse,
    largest,
    load,
    roll,
    root,
    size,
    store,
    total,
)


@njit(fastmath=True)
def grid_cell(r, table, r0, inverse_h):
    """Grid cell of a distance, and the position in it."""
    u = (r - r0) * inverse_h
    k = min(max(int(u), 0), table.shape[2] - 1)
    return k, table.dtype.type(u - k)


@njit(fastmath=True)
def spline(table, at, s, like):
    """Radial functions at the position ``s`` of a grid cell, and their slopes per cell."""
    number, channels = table.dtype.type, size(like)
    c1, c2 = load(table, at + channels, like), load(table, at + 2 * channels, like)
    c3 = load(table, at + 3 * channels, like)
    value = load(table, at, like) + s * (c1 + s * (c2 + s * c3))
    return value, c1 + s * (number(2) * c2 + (number(3) * s) * c3)


@njit(fastmath=True)
def _direction(vectors, p, table):
    """Return the unit vector to the neighbour, and the inverse of its distance."""
    number = table.dtype.type
    w = number(1) / number(vectors[p, 3])
    return number(vectors[p, 0]) * w, number(vectors[p, 1]) * w, number(vectors[p, 2]) * w, w


@njit(fastmath=True)
def moments(a, near, radial, message, like):
    """Return the ten moments of atom ``a``, and half of its pair energies."""
    first, last, neighbors, vectors, kind = near
    table, pairs, r0, inverse_h = radial
    number, channels = table.dtype.type, size(like)
    third, energy = number(1) / number(3), number(0)
    m0 = m1 = m2 = m3 = m4 = m5 = m6 = m7 = m8 = m9 = like
    for p in range(first[a], last[a]):
        b = neighbors[p]
        i, j = kind[a], kind[b]
        k, s = grid_cell(vectors[p, 3], table, r0, inverse_h)
        at = ((i * table.shape[1] + j) * table.shape[2] + k) * 4 * channels
        f = load(table, at + 2 * channels, like) + s * load(table, at + 3 * channels, like)
        f = load(table, at, like) + s * (load(table, at + channels, like) + s * f)
        if message.size:
            f = f * load(message, b * channels, like)
        if pairs.size:
            energy += pairs[i, j, k, 0] + s * (
                pairs[i, j, k, 1] + s * (pairs[i, j, k, 2] + s * pairs[i, j, k, 3])
            )
        x, y, z, _ = _direction(vectors, p, table)
        m0 += f
        m1 += x * f
        m2 += y * f
        m3 += z * f
        m4 += (x * x - third) * f
        m5 += (y * y - third) * f
        m6 += (z * z - third) * f
        m7 += (x * y) * f
        m8 += (x * z) * f
        m9 += (y * z) * f
    return (m0, m1, m2, m3, m4, m5, m6, m7, m8, m9), energy


@njit(fastmath=True)
def pull(a, near, radial, message, g, forces, virial, grad_message):
    """Add to all forces what the energy's gradient by the moments of atom ``a`` pulls.

    ``g`` is that gradient, ten lanes; ``forces`` (M, 3), ``virial`` (3, 3) and ``grad_message``
    (M, C), the gradient by what neighbours tell, are added to.
    """
    first, last, neighbors, vectors, kind = near
    table, pairs, r0, inverse_h = radial
    number, like, channels = table.dtype.type, g[0], size(g[0])
    two, three, third = number(2), number(3), number(1) / number(3)
    fx = fy = fz = 0.0
    for p in range(first[a], last[a]):
        b = neighbors[p]
        i, j = kind[a], kind[b]
        k, s = grid_cell(vectors[p, 3], table, r0, inverse_h)
        at = ((i * table.shape[1] + j) * table.shape[2] + k) * 4 * channels
        f, slope = spline(table, at, s, like)
        x, y, z, w = _direction(vectors, p, table)
        grad_radial = g[0] + x * g[1] + y * g[2] + z * g[3]
        grad_radial += (x * x - third) * g[4] + (y * y - third) * g[5] + (z * z - third) * g[6]
        grad_radial += (x * y) * g[7] + (x * z) * g[8] + (y * z) * g[9]
        if message.size:
            at = b * channels
            store(grad_message, at, load(grad_message, at, like) + grad_radial * f)
            received = load(message, at, like)
            f, slope = f * received, slope * received
        # dE/dr at fixed direction, and the gradient in the direction, of which the part across
        # the bond counts
        along = total(grad_radial * slope)
        if pairs.size:
            along += pairs[i, j, k, 1] + s * (
                two * pairs[i, j, k, 2] + three * s * pairs[i, j, k, 3]
            )
        gx = total(f * (g[1] + (x + x) * g[4] + y * g[7] + z * g[8]))
        gy = total(f * (g[2] + (y + y) * g[5] + x * g[7] + z * g[9]))
        gz = total(f * (g[3] + (z + z) * g[6] + x * g[8] + y * g[9]))
        along = along * number(inverse_h) - (gx * x + gy * y + gz * z) * w
        dx, dy, dz = along * x + gx * w, along * y + gy * w, along * z + gz * w
        fx += dx
        fy += dy
        fz += dz
        forces[b, 0] -= dx
        forces[b, 1] -= dy
        forces[b, 2] -= dz
        for n in range(3):
            virial[n, 0] -= vectors[p, n] * dx
            virial[n, 1] -= vectors[p, n] * dy
            virial[n, 2] -= vectors[p, n] * dz
    forces[a, 0] += fx
    forces[a, 1] += fy
    forces[a, 2] += fz


@njit(fastmath=True)
def dot(m, n, k):
    """Return A1·A1 of one atom, the second factor of channel c + k."""
    return m[1] * roll(n[1], k) + m[2] * roll(n[2], k) + m[3] * roll(n[3], k)


@njit(fastmath=True)
def double_dot(m, n, k):
    """Return A2:A2 of one atom, the second factor of channel c + k."""
    mixed = m[7] * roll(n[7], k) + m[8] * roll(n[8], k) + m[9] * roll(n[9], k)
    return m[4] * roll(n[4], k) + m[5] * roll(n[5], k) + m[6] * roll(n[6], k) + mixed + mixed


@njit(fastmath=True)
def contracted(m):
    """Return the vector A2·A1."""
    return (
        m[4] * m[1] + m[7] * m[2] + m[8] * m[3],
        m[7] * m[1] + m[5] * m[2] + m[9] * m[3],
        m[8] * m[1] + m[9] * m[2] + m[6] * m[3],
    )


@njit(fastmath=True)
def invariants(m):
    """`mts_driver.potentials.student.model.invariants` of one atom's moments ``m``, ten lanes."""
    x, y, z = contracted(m)
    return (
        m[0],
        dot(m, m, 0),
        dot(m, m, 1),
        dot(m, m, 2),
        double_dot(m, m, 0),
        double_dot(m, m, 1),
        double_dot(m, m, 2),
        m[1] * x + m[2] * y + m[3] * z,
        roll(m[1], 1) * x + roll(m[2], 1) * y + roll(m[3], 1) * z,
        x * x + y * y + z * z,
    )


@njit(fastmath=True)
def of_products(m, h0, h1, h2):
    """Gradient by ``m`` of h0 m m + h1 m roll(m, 1) + h2 m roll(m, 2), summed over lanes."""
    near = h1 * roll(m, 1) + roll(h1 * m, -1)
    return h0 * m + h0 * m + near + h2 * roll(m, 2) + roll(h2 * m, -2)


@njit(fastmath=True)
def through_contraction(m, x, y, z):
    """Gradient by A1 and A2, nine lanes, from (x, y, z), that by the vector A2·A1."""
    return (
        m[4] * x + m[7] * y + m[8] * z,
        m[7] * x + m[5] * y + m[9] * z,
        m[8] * x + m[9] * y + m[6] * z,
        x * m[1],
        y * m[2],
        z * m[3],
        x * m[2] + y * m[1],
        x * m[3] + z * m[1],
        y * m[3] + z * m[2],
    )


@njit(fastmath=True)
def invariants_back(m, h):
    """From ``h``, ten lanes of dE/d(invariants), to those of dE/d(moments)."""
    x, y, z = contracted(m)
    twice = h[9] + h[9]
    v = through_contraction(
        m,
        h[7] * m[1] + h[8] * roll(m[1], 1) + twice * x,
        h[7] * m[2] + h[8] * roll(m[2], 1) + twice * y,
        h[7] * m[3] + h[8] * roll(m[3], 1) + twice * z,
    )
    g7 = of_products(m[7], h[4], h[5], h[6])
    g8 = of_products(m[8], h[4], h[5], h[6])
    g9 = of_products(m[9], h[4], h[5], h[6])
    return (
        h[0],
        of_products(m[1], h[1], h[2], h[3]) + h[7] * x + roll(h[8] * x, -1) + v[0],
        of_products(m[2], h[1], h[2], h[3]) + h[7] * y + roll(h[8] * y, -1) + v[1],
        of_products(m[3], h[1], h[2], h[3]) + h[7] * z + roll(h[8] * z, -1) + v[2],
        of_products(m[4], h[4], h[5], h[6]) + v[3],
        of_products(m[5], h[4], h[5], h[6]) + v[4],
        of_products(m[6], h[4], h[5], h[6]) + v[5],
        g7 + g7 + v[6],
        g8 + g8 + v[7],
        g9 + g9 + v[8],
    )


@njit(fastmath=True)
def put_inputs(m, inputs, at, shift, scale, of_kind, input_bound):
    """Write network inputs: the invariants of ``m``, shifted, scaled and bounded.

    That is x = y/√(1 + y²/b²), `mts_driver.potentials.student.model.bounded`; ``input_bound`` is
    1/b², ``of_kind`` the flat index of the atom's element in ``shift`` and ``scale``.
    """
    one, channels = inputs.dtype.type(1), size(m[0])
    found = invariants(m)
    for k in range(10):
        here = k * channels
        y = found[k] - load(shift, of_kind + here, m[0])
        y = y * load(scale, of_kind + here, m[0])
        store(inputs, at + here, y * inverse(root(one + input_bound * (y * y))))


@njit(fastmath=True)
def take_gradient(m, grad, at, inputs, inputs_at, scale, of_kind, input_bound):
    """Return dE/d(moments) from dE/d(inputs): dx/dy = (1 − x²/b²)^(3/2); ten lanes each."""
    one, channels, nothing = inputs.dtype.type(1), size(m[0]), m[0] - m[0]
    for k in range(10):
        here = k * channels
        x = load(inputs, inputs_at + here, m[0])
        # rounding may take x a little beyond b
        rest = largest(one - input_bound * (x * x), nothing)
        y = load(grad, at + here, m[0]) * load(scale, of_kind + here, m[0])
        store(grad, at + here, y * rest * root(rest))
    return invariants_back(m, load_ten(grad, at, m[0]))


@njit(fastmath=True)
def load_ten(array, at, like):
    """Ten rows of a (10, C) block that starts at a flat index."""
    c = size(like)
    return (
        load(array, at, like),
        load(array, at + c, like),
        load(array, at + 2 * c, like),
        load(array, at + 3 * c, like),
        load(array, at + 4 * c, like),
        load(array, at + 5 * c, like),
        load(array, at + 6 * c, like),
        load(array, at + 7 * c, like),
        load(array, at + 8 * c, like),
        load(array, at + 9 * c, like),
    )


@njit(fastmath=True)
def store_ten(array, at, m):
    """Write what `load_ten` reads."""
    for k in range(10):
        store(array, at + k * size(m[0]), m[k])
