"""SO3LR's electrostatics and dispersion on a device, with all their derivatives in one kernel.

The equations of `mts_driver.potentials.so3lr.longrange`, in float64. A block of threads shares the
neighbours of an atom, and nothing is added to by two of them.
"""

from functools import cache
from string import Template
from typing import Any, NamedTuple

import torch
from torch import Tensor

from integrators.device.launches import ADDED_UP, IN_BLOCKS, launch, shared, warp
from mts_driver.potentials.ranks.pairs import Share
from mts_driver.potentials.so3lr.device.pairs import NEIGHBORS
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

THREADS = 128
"""Of an atom on a GPU: some 1,000 neighbours within the cutoff and the skin."""

RESIDENT = 512
"""Threads that a multiprocessor of a GPU has registers for at least."""


class DeviceLongRange:
    """The sum over one list of neighbours within 12 Å and a skin.

    Parameters
    ----------
    model : LongRange
        Its constants and tables.
    near : NeighborMatrix
        As it is in its present generation.
    replicas : int
        R.
    share : Share, optional
        Of one replica: the list is of its atoms, and the sum over this process's.

    Attributes
    ----------
    forces, virials : float64 Tensors, shapes (M, 3) and (M, 3, 3)
        Of the last call, at fixed charges and volume ratios, eV/Å and eV.
    """

    def __init__(
        self, model: LongRange, near: NeighborMatrix, replicas: int, share: Share | None = None
    ) -> None:
        self._near, device = near, near.neighbors.device
        atoms = slice(None) if share is None else share.atoms
        self._count = len(near.neighbors) if share is None else len(share.own)
        self._kernel = longrange_kernel(device.type)

        def constant(values: Any) -> Tensor:
            return torch.as_tensor(values).to(device).contiguous()

        self._of_atoms = (
            constant(model.alpha[atoms]).double().repeat(replicas),
            constant(model.kind[atoms]).int().repeat(replicas),
        )
        self._tables = constant(model.c6).double(), *map(constant, model.tables)
        self._root = constant(model.root)
        self.forces, self.virials = torch.zeros(2, 0)

    def __call__(self, charges: Tensor, volumes: Tensor, x: Tensor, cells: Tensor) -> Tensor:
        """Energies (R,), eV, differentiable in charges and volume ratios (R, N).

        Parameters
        ----------
        charges, volumes : Tensors, shape (R, N)
        x, cells : float64 Tensors, shapes (R, N, 3) and (R, 3, 3)
            Å.
        """
        found: Tensor = _Function.apply(charges, volumes, x, cells, self)
        return found

    def run(
        self, charges: Tensor, volumes: Tensor, x: Tensor, cells: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Launch the kernel; energies of atoms (M,), and slopes by charges and volumes (M,)."""
        near, wp, kernel, atoms = self._near, warp(), self._kernel, charges.numel()
        of_network = (t.detach().double().contiguous().flatten() for t in (charges, volumes))
        room = x.new_empty if self._count == atoms else x.new_zeros
        energy, by_charge, by_volume = (room(atoms) for _ in range(3))
        self.forces, self.virials = room(atoms, 3), room(atoms, 3, 3)
        launch(
            *(kernel.sum_up, (self._count, kernel.threads), shared(x.view(-1, 3), wp.vec3d)),
            *(shared(cells, wp.mat33d), x.shape[1], near.neighbors, near.count),
            *(shared(near.images, wp.vec3i), *of_network, *self._of_atoms, *self._tables),
            self._root,
            *(energy, by_charge, by_volume, shared(self.forces, wp.vec3d)),
            shared(self.virials, wp.mat33d),
            block=kernel.threads,
        )
        return energy, by_charge, by_volume


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx, charges, volumes, x, cells, far):
        energy, by_charge, by_volume = far.run(charges, volumes, x, cells)
        ctx.save_for_backward(by_charge, by_volume)
        ctx.like = charges
        return energy.view(charges.shape).sum(-1)

    @staticmethod
    def backward(ctx, grad):
        by_charge, by_volume = (t.view(ctx.like.shape) * grad[:, None] for t in ctx.saved_tensors)
        return by_charge.to(ctx.like.dtype), by_volume.to(ctx.like.dtype), None, None, None


class LongRangeKernel(NamedTuple):
    """The kernel, and how many threads the block of an atom has."""

    threads: int
    sum_up: Any


_SOURCE = """
constexpr int T = $threads, SUMS = 12;
$added_up
$neighbors
// of the spline through values and scaled slopes
const auto hermite = [](const double* table, int points, double low, double high, double at,
                        double& slope) {
    const int cells = points - 1;
    const double per = cells / (high - low);
    const double u = wp::min(wp::max((at - low) * per, 0.0), cells - 1e-6);
    const int k = wp::min(wp::max((int)u, 0), cells - 1);  // also of what is not a number
    const double s = u - k, *y = table + 2 * k;
    const double q2 = 3.0 * (y[2] - y[0]) - 2.0 * y[1] - y[3];
    const double q3 = 2.0 * (y[0] - y[2]) + y[1] + y[3];
    slope = (y[1] + s * (2.0 * q2 + 3.0 * s * q3)) * per;
    return y[0] + s * (y[1] + s * (q2 + s * q3));
};
// energy, slopes by charge and volume ratio, pull, strain: xx, yy, zz, xy, xz, yz
double sum[SUMS] = {};
const double qa = q.data[a], ha = h.data[a], polar = alpha.data[a];
for (int k = t; k < there; k += T) {
    const int b = row[k];
    double d[3];
    vector(k, d);
    const double r = wp::sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2]);
    if (!(r < $cutoff)) continue;
    double dg, dw = 0.0, w = 1.0, dt;
    const double g = hermite(coulomb.data, coulomb.shape[0], 0.2, $cutoff, r, dg);
    if (r > $onset) w = hermite(damping.data, damping.shape[0], 9.0, $cutoff, r, dw);
    const double hb = h.data[b], qb = $coulomb * q.data[b];
    const double mean = 0.5 * (polar * ha + alpha.data[b] * hb);
    const double root7 = hermite(root.data, root.shape[0], 0.2, 60.0, mean, dt);
    // 1 / 2 gamma is the square of a polynomial
    const double v = $vdw * root7;
    const double sigma = ((-0.00078893 * v + 0.04125273) * v + 0.24428889) * v - 0.00433008;
    const double slope = (-3.0 * 0.00078893 * v + 2.0 * 0.04125273) * v + 0.24428889;
    const double f = 2.0 * sigma * sigma, df = 4.0 * sigma * slope * $vdw;
    const double big = r / $bohr, r2 = big * big, r4 = r2 * r2;
    const double p = $scale * root7, p2 = p * p, p4 = p2 * p2;
    const double by6 = 1.0 / (r4 * r2 + p4 * p2), by8 = 1.0 / (r4 * r4 + p4 * p4);
    const double by10 = 1.0 / (r4 * r4 * r2 + p4 * p4 * p2);
    const double k6 = by6, k8 = 5.0 * f * by8, k10 = 30.625 * f * f * by10;
    const double l6 = 6.0 * k6 * by6, l8 = 8.0 * k8 * by8, l10 = 10.0 * k10 * by10;
    const double well = k6 + k8 + k10;
    const double d_big = -(l6 * r4 + l8 * r4 * r2 + l10 * r4 * r4) * big;
    const double d_t = -(l6 * p4 + l8 * p4 * p2 + l10 * p4 * p4) * $scale * p
        + (k8 + 2.0 * k10) * df / f;
    const double depth = -$hartree * c6.data[c6.shape[1] * kind.data[a] + kind.data[b]];
    sum[0] += 0.5 * (qa * qb * g + depth * ha * hb * w * well);
    sum[1] += qb * g;
    sum[2] += depth * hb * w * (well + 0.5 * ha * d_t * dt * polar);
    const double along = qa * qb * dg + depth * ha * hb * (dw * well + w * d_big / $bohr);
    for (int n = 0; n < 3; ++n) {
        const double pull = along / r * d[n];
        sum[3 + n] += pull;
        sum[6 + n] += 0.5 * d[n] * pull;
        if (n > 0) sum[8 + n] += 0.5 * d[0] * pull;
    }
    sum[11] += 0.5 * d[1] * d[2] * along / r;
}
added_up(sum);
for (int n = t; n < SUMS; n += T) {
    const double found = sum[n];
    double *force = (double*)forces.data + 3 * a, *virial = (double*)virials.data + 9 * a;
    if (n == 0) energy.data[a] = found;
    else if (n == 1) by_charge.data[a] = found;
    else if (n == 2) by_volume.data[a] = found;
    else if (n < 6) force[n - 3] = found;
    else if (n < 9) virial[4 * (n - 6)] = -found;
    else {
        const int i = n == 11 ? 1 : 0, j = n == 9 ? 1 : 2;
        virial[3 * i + j] = virial[3 * j + i] = -found;
    }
}
"""


@cache
def longrange_kernel(device: str) -> LongRangeKernel:
    """Return the kernel for ``cpu`` or ``cuda``."""
    wp = warp()
    threads = 1 if device == "cpu" else THREADS
    numbers, vectors, matrices, whole = (
        wp.array(dtype=kind) for kind in (wp.float64, wp.vec3d, wp.mat33d, int)
    )
    numbers_2d, whole_2d, images_2d = (
        wp.array2d(dtype=kind) for kind in (wp.float64, int, wp.vec3i)
    )
    source = IN_BLOCKS + Template(_SOURCE).substitute(
        threads=threads,
        added_up=ADDED_UP,
        neighbors=NEIGHBORS,
        cutoff=CUTOFF_A,
        onset=CUTOFF_A - DAMPING_A,
        coulomb=COULOMB_EV_A,
        bohr=BOHR_A,
        hartree=HARTREE_EV,
        vdw=VDW,
        scale=5.08 * DISPERSION_SCALE,
    )

    @wp.func_native(source)
    def sum_up_atom(
        a: int, t: int, x: vectors, cells: matrices, atoms: int, neighbors: whole_2d, count: whole,
        images: images_2d, q: numbers, h: numbers, alpha: numbers, kind: whole, c6: numbers_2d,
        coulomb: numbers_2d, damping: numbers_2d, root: numbers_2d, energy: numbers,
        by_charge: numbers, by_volume: numbers, forces: vectors, virials: matrices,
    ): ...  # fmt: skip

    how = {} if threads == 1 else {"launch_bounds": (threads, RESIDENT // threads)}

    @wp.kernel(enable_backward=False, module="unique", grid_stride=False, **how)
    def sum_up(
        x: vectors, cells: matrices, atoms: int, neighbors: whole_2d, count: whole,
        images: images_2d, q: numbers, h: numbers, alpha: numbers, kind: whole, c6: numbers_2d,
        coulomb: numbers_2d, damping: numbers_2d, root: numbers_2d, energy: numbers,
        by_charge: numbers, by_volume: numbers, forces: vectors, virials: matrices,
    ):  # fmt: skip
        a, t = wp.tid()
        sum_up_atom(
            a, t, x, cells, atoms, neighbors, count, images, q, h, alpha, kind, c6, coulomb,
            damping, root, energy, by_charge, by_volume, forces, virials,
        )  # fmt: skip

    return LongRangeKernel(threads, sum_up)
