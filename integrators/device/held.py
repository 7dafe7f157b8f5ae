"""SHAKE and RATTLE on a device, a thread for each cluster of distances that share atoms.

What :mod:`integrators.constraints` does; no atom is in two clusters.
"""

from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from integrators.constraints import MOST_ITERATIONS, TOLERANCE, Constraints
from integrators.device.launches import Launches, shared, warp


class HeldKernels(NamedTuple):
    """See their comments; all launches have a thread for each bead and cluster."""

    lead: Any
    project: Any


class Held:
    """Distances that are held, on a device.

    Parameters
    ----------
    constraints : Constraints
        As they are; later ones differ in images alone.
    inverse : float64 Tensor, shape (N,)
        Of masses; 0 for atoms that are held.
    beads : int
        P.

    Attributes
    ----------
    heat : Tensor, shape (P, C)
        Kinetic energy that projections of thermostat steps have brought in.
    lost : int32 Tensor, shape (1,)
        Above zero once Newton's method has not found the distances.
    """

    def __init__(self, constraints: Constraints, inverse: Tensor, beads: int) -> None:
        device, wp = inverse.device, warp()
        clusters, most = constraints.squares.shape
        self._shape, self._most, self._inverse = (beads, clusters), most, inverse
        self.heat = torch.zeros(beads, clusters, dtype=torch.float64, device=device)
        self.lost = torch.zeros(1, dtype=torch.int32, device=device)
        self._images = torch.zeros(clusters, most, 3, dtype=torch.float64, device=device)
        self.in_images_of(constraints)

        def constant(array: Any, dtype: torch.dtype) -> Tensor:
            return torch.as_tensor(array, dtype=dtype, device=device).contiguous()

        self._of_clusters = (
            constant(constraints.pairs, torch.int32),
            shared(self._images, wp.vec3d),
            constant(constraints.inverse_masses, torch.float64),
            constant(constraints.counts, torch.int32),
        )
        self._squares = constant(constraints.squares, torch.float64)
        self._ones = torch.ones_like(inverse)

    def in_images_of(self, constraints: Constraints) -> None:
        """Have bonds in the images of other positions of the same atoms."""
        self._images.copy_(torch.from_numpy(constraints.images))

    def lead(self, to: Launches, q: Any, v: Any, time: float) -> None:
        """Add what gives velocities with which a drift of this time ends on the manifold."""
        how = (self._squares, self._inverse, time, self.lost)
        to.add(held_kernels(self._most).lead, self._shape, q, v, *self._of_clusters, *how)

    def tangent(self, to: Launches, q: Any, v: Any, *, heat: bool) -> None:
        """Add what takes away from velocities what would change a length."""
        self._project(to, q, v, self._ones, v, -1.0, -1.0 if heat else 0.0)

    def across(self, to: Launches, q: Any, noise: Any, width: Tensor, v: Any) -> None:
        """Add what gives velocities the part of ``width`` · ``noise`` that `tangent` takes away."""
        self._project(to, q, noise, width, v, 1.0, 1.0)

    def _project(
        self, to: Launches, q: Any, of: Any, width: Tensor, v: Any, sign: float, heat: float
    ) -> None:
        how = (of, width, v, *self._of_clusters, self._inverse, sign, heat, self.heat)
        to.add(held_kernels(self._most).project, self._shape, q, *how)


@cache
def held_kernels(most: int) -> HeldKernels:
    """Return the kernels for clusters of up to ``most`` distances."""
    wp = warp()
    kernel = wp.kernel(enable_backward=False, module="unique")
    row, square = wp.types.vector(most, wp.float64), wp.types.matrix((most, most), wp.float64)
    rows = wp.types.matrix((most, 3), wp.float64)
    numbers, numbers_2d, numbers_3d = (wp.array(dtype=wp.float64, ndim=n) for n in (1, 2, 3))
    vectors_2d, integers = wp.array2d(dtype=wp.vec3d), wp.array(dtype=int)
    integers_3d = wp.array3d(dtype=int)

    @wp.func
    def solved(given: square, right: row, n: int):
        """Solve a small system; matrices are nearly symmetric and positive definite."""
        a, b = square(), row()
        for i in range(n):
            b[i] = right[i]
            for j in range(n):
                a[i, j] = given[i, j]
        for i in range(n):
            for j in range(i + 1, n):
                factor = a[j, i] / a[i, i]
                for k in range(i, n):
                    a[j, k] -= factor * a[i, k]
                b[j] -= factor * b[i]
        for back in range(n):
            last = n - 1 - back
            for k in range(last + 1, n):
                b[last] -= a[last, k] * b[k]
            b[last] = b[last] / a[last, last]
        return b

    @wp.func
    def along(a: rows, i: int, b: rows, j: int):
        return a[i, 0] * b[j, 0] + a[i, 1] * b[j, 1] + a[i, 2] * b[j, 2]

    # Newton's method along the bonds before a drift, whose pushes go to the velocities
    @kernel
    def lead(
        q: vectors_2d,
        v: vectors_2d,
        pairs: integers_3d,
        images: vectors_2d,
        coupling: numbers_3d,
        counts: integers,
        squares: numbers_2d,
        inverse: numbers,
        time: wp.float64,
        lost: integers,
    ):
        p, c = wp.tid()
        n = counts[c]
        before, now, pushes = rows(), rows(), row()
        for k in range(n):
            i, j = pairs[c, k, 0], pairs[c, k, 1]
            bond = q[p, i] - q[p, j] - images[c, k]
            free = bond + time * (v[p, i] - v[p, j])
            for x in range(3):
                before[k, x] = bond[x]
                now[k, x] = free[x]
        missing = wp.int32(1)
        for _ in range(wp.static(MOST_ITERATIONS + 1)):
            off, slope = row(), square()
            missing = wp.int32(0)
            for k in range(n):
                off[k] = wp.float64(0.5) * (along(now, k, now, k) - squares[c, k])
                # written so that what is not a number is not found
                if not (wp.abs(off[k]) <= wp.float64(wp.static(TOLERANCE)) * squares[c, k]):
                    missing += 1
                for o in range(n):
                    slope[k, o] = coupling[c, k, o] * along(now, k, before, o)
            if missing == 0:
                break
            more = solved(slope, off, n)
            for o in range(n):
                pushes[o] += more[o]
                for k in range(n):
                    for x in range(3):
                        now[k, x] -= coupling[c, k, o] * more[o] * before[o, x]
        if missing > 0:
            lost[0] = 1
        for k in range(n):
            one, other = pairs[c, k, 0], pairs[c, k, 1]
            push = pushes[k] / time * wp.vec3d(before[k, 0], before[k, 1], before[k, 2])
            v[p, one] -= inverse[one] * push
            v[p, other] += inverse[other] * push

    # the part across the manifold of width · of, times sign, is added to v
    @kernel
    def project(
        q: vectors_2d,
        of: vectors_2d,
        width: numbers,
        v: vectors_2d,
        pairs: integers_3d,
        images: vectors_2d,
        coupling: numbers_3d,
        counts: integers,
        inverse: numbers,
        sign: wp.float64,
        share: wp.float64,
        heat: numbers_2d,
    ):
        p, c = wp.tid()
        n = counts[c]
        bonds, grows, slope = rows(), row(), square()
        for k in range(n):
            i, j = pairs[c, k, 0], pairs[c, k, 1]
            bond = q[p, i] - q[p, j] - images[c, k]
            grows[k] = wp.dot(bond, width[i] * of[p, i] - width[j] * of[p, j])
            for x in range(3):
                bonds[k, x] = bond[x]
        for k in range(n):
            for o in range(n):
                slope[k, o] = coupling[c, k, o] * along(bonds, k, bonds, o)
        amounts = solved(slope, grows, n)
        energy = wp.float64(0.0)
        for k in range(n):
            one, other = pairs[c, k, 0], pairs[c, k, 1]
            push = sign * amounts[k] * wp.vec3d(bonds[k, 0], bonds[k, 1], bonds[k, 2])
            v[p, one] += inverse[one] * push
            v[p, other] -= inverse[other] * push
            energy += wp.float64(0.5) * grows[k] * amounts[k]
        heat[p, c] += share * energy

    return HeldKernels(lead, project)
