"""SO3LR's electrostatics and dispersion on a device, with all their derivatives in one kernel.

The equations of `mts_driver.potentials.so3lr.longrange`, in float64. A few threads share the
neighbours of an atom, and nothing is added to by two of them.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from integrators.device.launches import Launches, shared, warp
from mts_driver.potentials.so3lr.longrange import (
    BOHR_A,
    COULOMB_EV_A,
    CUTOFF_A,
    DAMPING_A,
    DISPERSION_SCALE,
    HARTREE_EV,
    VDW,
    LongRange,
)
from mts_driver.structures.neighbor_matrix import NeighborMatrix

THREADS = 16
"""That share the neighbours of an atom: some 700 of them."""


class DeviceLongRange:
    """The launches for one list of neighbours within 12 Å and a skin.

    Parameters
    ----------
    model : LongRange
        Its constants and tables.
    near : NeighborMatrix
        As it is in its present generation.
    replicas : int
        R.

    Attributes
    ----------
    positions, cells : float64 Tensors, shapes (M, 3) and (R, 3, 3)
        Å; to be filled before a call.
    forces, virials : float64 Tensors, shapes (M, 3) and (M, 3, 3)
        Behind a call, at fixed charges and volume ratios, eV/Å and eV.
    """

    def __init__(self, model: LongRange, near: NeighborMatrix, replicas: int) -> None:
        atoms, device = len(near.neighbors), near.neighbors.device

        def array(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        def constant(values: Any) -> Tensor:
            return torch.as_tensor(values).to(device).contiguous()

        self.positions, self.cells = array(atoms, 3), array(replicas, 3, 3)
        self.charges, self.volumes = array(atoms), array(atoms)
        self.energy, self.by_charge, self.by_volume = array(atoms), array(atoms), array(atoms)
        self.forces, self.virials = array(atoms, 3), array(atoms, 3, 3)
        self._launches, wp = Launches(device), warp()
        of_pairs, add_up = kernels()
        parts = [array(atoms, THREADS) for _ in range(3)]
        pulls = shared(array(atoms, THREADS, 3), wp.vec3d)
        strains = shared(array(atoms, THREADS, 3, 3), wp.mat33d)
        kind = constant(model.kind).int().repeat(replicas)
        alpha = constant(model.alpha).double().repeat(replicas)
        self._launches.add(
            *(of_pairs, (atoms, THREADS), shared(self.positions, wp.vec3d)),
            *(shared(self.cells, wp.mat33d), atoms // replicas, near.neighbors, near.count),
            *(shared(near.images, wp.vec3i), self.charges, self.volumes, alpha, kind),
            *(constant(model.c6).double(), *map(constant, model.tables), constant(model.root)),
            *(*parts, pulls, strains),
        )
        sums = (self.energy, self.by_charge, self.by_volume)
        of_atoms = shared(self.forces, wp.vec3d), shared(self.virials, wp.mat33d)
        self._launches.add(add_up, (atoms,), *parts, pulls, strains, *sums, *of_atoms)

    def __call__(self, charges: Tensor, volumes: Tensor) -> Tensor:
        """Energies (R,), eV, differentiable in charges and volume ratios (R, N)."""
        found: Tensor = _Function.apply(charges, volumes, self)
        return found

    def run(self, charges: Tensor, volumes: Tensor) -> Tensor:
        """Launch the kernels, and return energies (R,)."""
        self.charges.copy_(charges.flatten())
        self.volumes.copy_(volumes.flatten())
        self._launches.run()
        return self.energy.view(charges.shape).sum(-1)


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx, charges, volumes, launches):
        energy = launches.run(charges, volumes)
        ctx.save_for_backward(launches.by_charge.clone(), launches.by_volume.clone())
        ctx.like = charges
        return energy

    @staticmethod
    def backward(ctx, grad):
        by_charge, by_volume = (t.view(ctx.like.shape) * grad[:, None] for t in ctx.saved_tensors)
        return by_charge.to(ctx.like.dtype), by_volume.to(ctx.like.dtype), None


@cache
def kernels() -> tuple[Any, Any]:
    """Return the kernel of the pairs of an atom, and that which adds up what its threads found."""
    wp = warp()
    kernel = wp.kernel(enable_backward=False, module="unique")
    numbers, vectors, matrices, integers = (
        wp.array(dtype=kind) for kind in (wp.float64, wp.vec3d, wp.mat33d, int)
    )
    numbers_2d, vectors_2d, matrices_2d, integers_2d, images_2d = (
        wp.array2d(dtype=kind) for kind in (wp.float64, wp.vec3d, wp.mat33d, int, wp.vec3i)
    )
    coulomb_ev_A = wp.constant(wp.float64(COULOMB_EV_A))
    cutoff_A = wp.constant(wp.float64(CUTOFF_A))
    onset_A = wp.constant(wp.float64(CUTOFF_A - DAMPING_A))
    bohr_A, hartree_eV = wp.constant(wp.float64(BOHR_A)), wp.constant(wp.float64(HARTREE_EV))
    vdw, scale = wp.constant(wp.float64(VDW)), wp.constant(wp.float64(5.08 * DISPERSION_SCALE))
    c3, c2 = wp.constant(wp.float64(-0.00078893)), wp.constant(wp.float64(0.04125273))
    c1, c0 = wp.constant(wp.float64(0.24428889)), wp.constant(wp.float64(-0.00433008))
    table_start_A = wp.constant(wp.float64(0.2))
    damping_start_A, root_end = wp.constant(wp.float64(9.0)), wp.constant(wp.float64(60.0))
    almost = wp.constant(wp.float64(1.000001))
    half, one, two, three = (wp.constant(wp.float64(x)) for x in (0.5, 1.0, 2.0, 3.0))
    four, five, six, eight = (wp.constant(wp.float64(x)) for x in (4.0, 5.0, 6.0, 8.0))
    ten, many, nothing = (wp.constant(wp.float64(x)) for x in (10.0, 245.0 / 8.0, 0.0))

    @wp.func
    def hermite(table: numbers_2d, low: wp.float64, high: wp.float64, x: wp.float64):
        """Value and slope at ``x`` of the spline through values and scaled slopes."""
        cells = wp.float64(table.shape[0] - 1)
        per = cells / (high - low)
        u = wp.clamp((x - low) * per, nothing, cells + one - almost)
        k = int(u)
        s = u - wp.float64(k)
        y0, y1, m0, m1 = table[k, 0], table[k + 1, 0], table[k, 1], table[k + 1, 1]
        q2, q3 = three * (y1 - y0) - two * m0 - m1, two * (y0 - y1) + m0 + m1
        return wp.vec2d(
            y0 + s * (m0 + s * (q2 + s * q3)), (m0 + s * (two * q2 + three * s * q3)) * per
        )

    @kernel
    def of_pairs(
        x: vectors,
        cells: matrices,
        atoms: int,
        neighbors: integers_2d,
        count: integers,
        images: images_2d,
        q: numbers,
        h: numbers,
        alpha: numbers,
        kind: integers,
        c6: numbers_2d,
        coulomb: numbers_2d,
        damping: numbers_2d,
        root: numbers_2d,
        energy: numbers_2d,
        by_charge: numbers_2d,
        by_volume: numbers_2d,
        pulls: vectors_2d,
        strains: matrices_2d,
    ):
        a, thread = wp.tid()
        e, dq, dh = wp.float64(0.0), wp.float64(0.0), wp.float64(0.0)
        pull, strain = wp.vec3d(), wp.mat33d()
        cell = cells[a // atoms]
        here, ha = x[a], h[a]
        for k in range(thread, wp.min(count[a], neighbors.shape[1]), wp.static(THREADS)):
            b, s = neighbors[a, k], images[a, k]
            d = x[b] - here + wp.float64(s[0]) * cell[0]
            d += wp.float64(s[1]) * cell[1] + wp.float64(s[2]) * cell[2]
            r = wp.length(d)
            if r < cutoff_A:
                g = hermite(coulomb, table_start_A, cutoff_A, r)
                w = wp.vec2d(one, nothing)
                if r > onset_A:
                    w = hermite(damping, damping_start_A, cutoff_A, r)
                hb = h[b]
                t = hermite(root, table_start_A, root_end, half * (alpha[a] * ha + alpha[b] * hb))
                v = vdw * t[0]
                sigma = ((c3 * v + c2) * v + c1) * v + c0
                slope = (three * c3 * v + two * c2) * v + c1
                f, df = two * sigma * sigma, four * sigma * slope * vdw
                big = r / bohr_A
                r2, p2 = big * big, (scale * t[0]) * (scale * t[0])
                r4, p4 = r2 * r2, p2 * p2
                by6, by8 = one / (r4 * r2 + p4 * p2), one / (r4 * r4 + p4 * p4)
                by10 = one / (r4 * r4 * r2 + p4 * p4 * p2)
                k6, k8, k10 = by6, five * f * by8, many * f * f * by10
                well = k6 + k8 + k10
                l6, l8, l10 = six * k6 * by6, eight * k8 * by8, ten * k10 * by10
                d_big = -(l6 * r4 + l8 * r4 * r2 + l10 * r4 * r4) * big
                d_t = -(l6 * p4 + l8 * p4 * p2 + l10 * p4 * p4) * scale * scale * t[0]
                d_t += (k8 + two * k10) * df / f
                depth = -hartree_eV * c6[kind[a], kind[b]]
                qb = coulomb_ev_A * q[b]
                e += half * (q[a] * qb * g[0] + depth * ha * hb * w[0] * well)
                dq += qb * g[0]
                dh += depth * hb * w[0] * well
                dh += half * depth * ha * hb * w[0] * d_t * t[1] * alpha[a]
                along = q[a] * qb * g[1]
                along += depth * ha * hb * (w[1] * well + w[0] * d_big / bohr_A)
                here_pulled = (along / r) * d
                pull += here_pulled
                strain += half * wp.outer(d, here_pulled)
        energy[a, thread] = e
        by_charge[a, thread] = dq
        by_volume[a, thread] = dh
        pulls[a, thread] = pull
        strains[a, thread] = strain

    @kernel
    def add_up(
        energies: numbers_2d,
        by_charges: numbers_2d,
        by_volumes: numbers_2d,
        pulls: vectors_2d,
        strains: matrices_2d,
        energy: numbers,
        by_charge: numbers,
        by_volume: numbers,
        forces: vectors,
        virials: matrices,
    ):
        a = wp.tid()
        e, dq, dh = wp.float64(0.0), wp.float64(0.0), wp.float64(0.0)
        pull, strain = wp.vec3d(), wp.mat33d()
        for k in range(energies.shape[1]):
            e += energies[a, k]
            dq += by_charges[a, k]
            dh += by_volumes[a, k]
            pull += pulls[a, k]
            strain += strains[a, k]
        energy[a] = e
        by_charge[a] = dq
        by_volume[a] = dh
        forces[a] = pull
        virials[a] = -strain

    return of_pairs, add_up
