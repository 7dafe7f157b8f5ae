"""The student's sums and invariants together with their change along a direction.

numba functions on lanes, one a channel, beside those of
`mts_driver.potentials.student.cpu.neighbor_sums`, for gradients by weights (training) and by
positions (`mts_driver.potentials.student.cpu.hessian.kernels`). A name with a d before it is the
derivative along the direction, along which atom a moves by ``along[a]``.
"""

from numba import njit

from mts_driver.potentials.student.cpu.neighbor_sums import (
    contracted,
    dot,
    double_dot,
    grid_cell,
    invariants,
    of_products,
    spline,
    through_contraction,
)
from mts_driver.potentials.student.cpu.simd import inverse, largest, load, roll, root, size, store


@njit(fastmath=True)
def shapes(vector, here, there, table):
    """1, u and u⊗u − 1/3 of a pair, their change as its ends move, and that of its length."""
    number = table.dtype.type
    w = number(1) / number(vector[3])
    x, y, z = number(vector[0]) * w, number(vector[1]) * w, number(vector[2]) * w
    dx, dy, dz = there[0] - here[0], there[1] - here[1], there[2] - here[2]
    dr = x * dx + y * dy + z * dz
    dx, dy, dz = (dx - x * dr) * w, (dy - y * dr) * w, (dz - z * dr) * w
    third, zero = number(1) / number(3), number(0)
    shape = (
        *(number(1), x, y, z),
        *(x * x - third, y * y - third, z * z - third, x * y, x * z, y * z),
    )
    xdx, ydy, zdz = x * dx, y * dy, z * dz
    dshape = (
        *(zero, dx, dy, dz, xdx + xdx, ydy + ydy, zdz + zdz),
        *(x * dy + y * dx, x * dz + z * dx, y * dz + z * dy),
    )
    return shape, dshape, dr


@njit(fastmath=True)
def moments_and_change(a, near, along, grid, message, dmessage, like):
    """Return the ten moments of atom ``a``, and their change.

    ``grid`` is the table of radial functions, ``r0`` and ``inverse_h``; messages are empty in the
    first sum.
    """
    first, last, neighbors, vectors, kind = near
    table, r0, inverse_h = grid
    kinds, cells, channels = table.shape[0], table.shape[2], size(like)
    m = d = like, like, like, like, like, like, like, like, like, like
    for p in range(first[a], last[a]):
        b = neighbors[p]
        x, dx, dr = shapes(vectors[p], along[a], along[b], table)
        k, s = grid_cell(vectors[p, 3], table, r0, inverse_h)
        at = ((kind[a] * kinds + kind[b]) * cells + k) * 4 * channels
        ds = table.dtype.type(dr * inverse_h)
        f, slope = spline(table, at, s, like)
        df = ds * slope
        if message.size:
            at = b * channels
            received, dreceived = load(message, at, like), load(dmessage, at, like)
            df = df * received + f * dreceived
            f = f * received
        m, d = _plus(m, x, f), _plus_change(d, x, dx, f, df)
    return m, d


@njit(fastmath=True)
def change_of_moments(a, near, along, grid, like):
    """Return only the change of the moments in the first sum."""
    first, last, neighbors, vectors, kind = near
    table, r0, inverse_h = grid
    kinds, cells, channels = table.shape[0], table.shape[2], size(like)
    d = like, like, like, like, like, like, like, like, like, like
    for p in range(first[a], last[a]):
        b = neighbors[p]
        x, dx, dr = shapes(vectors[p], along[a], along[b], table)
        k, s = grid_cell(vectors[p, 3], table, r0, inverse_h)
        at = ((kind[a] * kinds + kind[b]) * cells + k) * 4 * channels
        f, slope = spline(table, at, s, like)
        d = _plus_change(d, x, dx, f, table.dtype.type(dr * inverse_h) * slope)
    return d


@njit(fastmath=True)
def _plus(m, x, f):
    """Ten lanes m + x f."""
    return (
        m[0] + x[0] * f,
        m[1] + x[1] * f,
        m[2] + x[2] * f,
        m[3] + x[3] * f,
        m[4] + x[4] * f,
        m[5] + x[5] * f,
        m[6] + x[6] * f,
        m[7] + x[7] * f,
        m[8] + x[8] * f,
        m[9] + x[9] * f,
    )


@njit(fastmath=True)
def _plus_change(d, x, dx, f, df):
    """Ten lanes d + dx f + x df."""
    return (
        d[0] + x[0] * df,
        d[1] + dx[1] * f + x[1] * df,
        d[2] + dx[2] * f + x[2] * df,
        d[3] + dx[3] * f + x[3] * df,
        d[4] + dx[4] * f + x[4] * df,
        d[5] + dx[5] * f + x[5] * df,
        d[6] + dx[6] * f + x[6] * df,
        d[7] + dx[7] * f + x[7] * df,
        d[8] + dx[8] * f + x[8] * df,
        d[9] + dx[9] * f + x[9] * df,
    )


@njit(fastmath=True)
def weighted(x, g):
    """Σ_k x_k g_k of ten numbers and ten lanes."""
    s = x[0] * g[0] + x[1] * g[1] + x[2] * g[2] + x[3] * g[3] + x[4] * g[4]
    return s + x[5] * g[5] + x[6] * g[6] + x[7] * g[7] + x[8] * g[8] + x[9] * g[9]


@njit(fastmath=True)
def _dcontracted(m, d):
    """Change of A2·A1."""
    one = contracted((m[0], m[1], m[2], m[3], d[4], d[5], d[6], d[7], d[8], d[9]))
    two = contracted((m[0], d[1], d[2], d[3], m[4], m[5], m[6], m[7], m[8], m[9]))
    return one[0] + two[0], one[1] + two[1], one[2] + two[2]


@njit(fastmath=True)
def dinvariants(m, d):
    """Change of the invariants of one atom as its moments ``m`` move by ``d``, ten lanes each."""
    x, y, z = contracted(m)
    dx, dy, dz = _dcontracted(m, d)
    quartic = x * dx + y * dy + z * dz
    return (
        d[0],
        dot(m, d, 0) + dot(d, m, 0),
        dot(m, d, 1) + dot(d, m, 1),
        dot(m, d, 2) + dot(d, m, 2),
        double_dot(m, d, 0) + double_dot(d, m, 0),
        double_dot(m, d, 1) + double_dot(d, m, 1),
        double_dot(m, d, 2) + double_dot(d, m, 2),
        (d[1] * x + d[2] * y + d[3] * z) + (m[1] * dx + m[2] * dy + m[3] * dz),
        (roll(d[1], 1) * x + roll(d[2], 1) * y + roll(d[3], 1) * z)
        + (roll(m[1], 1) * dx + roll(m[2], 1) * dy + roll(m[3], 1) * dz),
        quartic + quartic,
    )


@njit(fastmath=True)
def dinvariants_back(m, d, h, g):
    """Add to ten lanes ``g`` the gradient by ``m`` of Σ h · `dinvariants`."""
    x, y, z = contracted(m)
    dx, dy, dz = _dcontracted(m, d)
    twice = h[9] + h[9]
    # through A2·A1 and its change
    f = through_contraction(
        m,
        h[7] * d[1] + h[8] * roll(d[1], 1) + twice * dx,
        h[7] * d[2] + h[8] * roll(d[2], 1) + twice * dy,
        h[7] * d[3] + h[8] * roll(d[3], 1) + twice * dz,
    )
    e = through_contraction(
        d,
        h[7] * m[1] + h[8] * roll(m[1], 1) + twice * x,
        h[7] * m[2] + h[8] * roll(m[2], 1) + twice * y,
        h[7] * m[3] + h[8] * roll(m[3], 1) + twice * z,
    )
    g7 = of_products(d[7], h[4], h[5], h[6])
    g8 = of_products(d[8], h[4], h[5], h[6])
    g9 = of_products(d[9], h[4], h[5], h[6])
    return (
        g[0],
        g[1] + of_products(d[1], h[1], h[2], h[3]) + h[7] * dx + roll(h[8] * dx, -1) + f[0] + e[0],
        g[2] + of_products(d[2], h[1], h[2], h[3]) + h[7] * dy + roll(h[8] * dy, -1) + f[1] + e[1],
        g[3] + of_products(d[3], h[1], h[2], h[3]) + h[7] * dz + roll(h[8] * dz, -1) + f[2] + e[2],
        g[4] + of_products(d[4], h[4], h[5], h[6]) + f[3] + e[3],
        g[5] + of_products(d[5], h[4], h[5], h[6]) + f[4] + e[4],
        g[6] + of_products(d[6], h[4], h[5], h[6]) + f[5] + e[5],
        g[7] + g7 + g7 + f[6] + e[6],
        g[8] + g8 + g8 + f[7] + e[7],
        g[9] + g9 + g9 + f[8] + e[8],
    )


@njit(fastmath=True)
def put_inputs_and_change(m, d, inputs, dinputs, at, shift, scale, of_kind, input_bound):
    """Do as `mts_driver.potentials.student.cpu.neighbor_sums.put_inputs`, and give the change."""
    one, channels = inputs.dtype.type(1), size(m[0])
    found, change = invariants(m), dinvariants(m, d)
    for k in range(10):
        here = k * channels
        steep = load(scale, of_kind + here, m[0])
        y = (found[k] - load(shift, of_kind + here, m[0])) * steep
        s = inverse(root(one + input_bound * (y * y)))
        store(inputs, at + here, y * s)
        store(dinputs, at + here, change[k] * steep * s * s * s)


@njit(fastmath=True)
def unbound(inputs, dinputs, at, grad, dgrad, grad_at, scale, of_kind, input_bound, like):
    """Turn gradients by inputs and their change into those by the invariants, in place.

    With s² = 1 − (x/b)²: dx/dy = s³ and d²x/dy² = −3 s⁴ x/b².
    """
    number, channels = inputs.dtype.type, size(like)
    one, least = number(1), like + number(1e-12)
    for k in range(10):
        here = k * channels
        x, steep = load(inputs, at + here, like), load(scale, of_kind + here, like)
        ss = largest(one - input_bound * (x * x), least)
        slope = ss * root(ss)
        curved = number(-3) * input_bound * ss * ss * x * load(dinputs, at + here, like)
        to = grad_at + here
        d = load(dgrad, to, like)
        more = curved * inverse(slope) * d
        store(grad, to, steep * (slope * load(grad, to, like) + more))
        store(dgrad, to, steep * slope * d)
