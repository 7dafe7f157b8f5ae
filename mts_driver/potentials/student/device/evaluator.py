"""A student evaluated by its kernels on a device: one list of launches over arrays that stay."""

from typing import Any

import torch
from torch import Tensor

from integrators.device.launches import Launches, shared, warp
from mts_driver.potentials.student.cpu.splines import (
    START_A,
    cells_per_A,
    radial_table,
    repulsion_table,
)
from mts_driver.potentials.student.device.networks import (
    ACTIVATE,
    PLAIN,
    SLOPE,
    network_kernels,
)
from mts_driver.potentials.student.device.sums import sum_kernels
from mts_driver.potentials.student.model import INPUT_BOUND, MESSAGE_BOUND, StudentModel
from mts_driver.structures.neighbor_matrix import NeighborMatrix

MOST_SLICES, THREADS = 8, 2**18
"""Threads that share the neighbours of an atom, of as many in all as keep a GPU busy."""


class DeviceKernels:
    """The kernels of one model for one list of neighbours.

    Parameters
    ----------
    model : StudentModel
        On the device, in the precision of the kernels.
    kind : int32 Tensor, shape (M,)
        Which of the model's elements every atom of all replicas is.
    near : NeighborMatrix
        As it is in its present generation.
    replicas : int
        R.

    Attributes
    ----------
    positions : float64 Tensor, shape (M, 3)
        Å; to be filled before `run`.
    cells : float64 Tensor, shape (R, 3, 3)
        Å; the same.
    energy : Tensor, shape (M,)
        Atomic energies without those of free atoms, eV, behind a whole `run`; zeros of direct
        students.
    forces, virials : float64 Tensors, shapes (M, 3) and (M, 3, 3)
        eV/Å, behind `run`, and eV, behind a whole one.
    """

    def __init__(
        self, model: StudentModel, kind: Tensor, near: NeighborMatrix, replicas: int
    ) -> None:
        device, dtype, config = kind.device, model.w1.dtype, model.config
        atoms, length = near.neighbors.shape
        c, p, hidden = config.channels, config.messages, config.hidden

        def array(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        self.positions = array(atoms, 3, dtype=torch.float64)
        self.cells = array(replicas, 3, 3, dtype=torch.float64)
        self.energy = array(atoms)
        self.forces = array(atoms, 3, dtype=torch.float64)
        self.virials = array(atoms, 3, 3, dtype=torch.float64)
        # forces alone, and everything
        self._launches = {whole: Launches(device) for whole in (False, True)}

        def add(kernel: Any, dim: tuple[int, ...], *arguments: Any, whole: bool = False) -> None:
            for each in (True,) if whole else (False, True):
                self._launches[each].add(kernel, dim, *arguments)

        wp, double = warp(), dtype == torch.float64
        sums, nets = sum_kernels(double), network_kernels(double)
        # a few threads share the neighbours of an atom where there are few atoms
        slices = 1
        while slices < MOST_SLICES and atoms * slices * c < THREADS:
            slices *= 2
        number = wp.float64 if double else wp.float32
        four, three = wp.types.vector(4, number), wp.types.vector(3, number)
        matrix = wp.types.matrix((3, 3), number)
        none2, none4 = array(0, 0), array(0, 0, 0, 0)
        kinds, per_A = len(config.elements), cells_per_A(config.cutoff_A)
        table, w = (t.detach().contiguous() for t in (radial_table(model, model.radial), model.w2))
        table = table.flatten(0, 1)
        pairs = none4 if config.direct else repulsion_table(model).to(table)
        pairs = pairs if config.direct else pairs.flatten(0, 1)[..., None]
        at, place = array(atoms, length, dtype=torch.int32), array(atoms, length)
        unit = shared(array(atoms, length, 4), four)
        forces, repulsion = shared(self.forces, wp.vec3d), array(atoms, slices)

        def gathered(parts: Tensor, *, whole: bool = False) -> Tensor:
            """Have the parts (M, S, ...) of the threads of an atom added, (M, W)."""
            if slices == 1:
                return parts.view(atoms, -1)
            out = array(atoms, parts[0, 0].numel())
            add(sums.gather, tuple(out.shape), parts.view(atoms, slices, -1), out, whole=whole)
            return out

        def sliced(*shape: int) -> Tensor:
            return array(atoms, slices, *shape)

        def pulls(
            table: Tensor, pairs: Tensor, message: Tensor, by_m: Tensor, *, more: bool
        ) -> Tensor:
            width = by_m.shape[2]
            pull, strain = sliced(width, 3), sliced(width, 3, 3)
            told = sliced(width if message.numel() else 0)
            for whole in (False, True):
                self._launches[whole].add(
                    *(sums.pull, (atoms, slices, width), *of_pairs, table, pairs, message, per_A),
                    *(by_m, shared(pull, three), int(whole), shared(strain, matrix), told),
                )
            found = gathered(pull).view(atoms, width, 3)
            add(sums.add_up, (atoms, 3), found, 1.0, int(more), self.forces)
            found = gathered(strain, whole=True).view(atoms, width, 9)
            virials = self.virials.view(atoms, 9)
            add(sums.add_up, (atoms, 9), found, -1.0, int(more), virials, whole=True)
            return gathered(told) if message.numel() else none2

        add(
            *(sums.pairs, (atoms, length), shared(self.positions, wp.vec3d)),
            *(shared(self.cells, wp.mat33d), atoms // replicas, near.neighbors, near.count),
            *(shared(near.images, wp.vec3i), shared(near.reference.flatten(0, 1), wp.vec3d)),
            *(near.skin_A, near.left, config.cutoff_A, START_A, per_A, table.shape[1]),
            *(unit, at, place),
        )
        of_pairs = (near.neighbors, near.count, unit, at, place, kind, kinds)

        def weight(t: Tensor) -> Tensor:
            return t.detach().contiguous()

        # forth
        x1, parts = array(atoms, 10, c), sliced(10, c)
        a1, h1, a2, h2 = (array(atoms, hidden) for _ in range(4))
        bound, told = INPUT_BOUND**-2, MESSAGE_BOUND**-2
        scaling = (t.detach().view(kinds, 10, c) for t in (model.shift, model.scale))
        shift, scale = scaling
        how = (table, pairs, none2, parts, repulsion)
        add(sums.moments, (atoms, slices, c), *of_pairs, *how)
        m1 = gathered(parts).view(atoms, 10, c)
        add(sums.inputs, (atoms, c), kind, m1, shift, scale, bound, x1)
        flat1, wide = x1.flatten(1), (atoms, hidden)
        add(nets.layer, wide, kind, flat1, weight(model.w1), weight(model.b1), 0, ACTIVATE, a1, h1)
        w2, b2 = weight(w[:, :hidden]), weight(model.b2)
        add(nets.layer, wide, kind, h1, w2, b2, 0, PLAIN if p else ACTIVATE, a2, h2)
        if p:
            table2 = radial_table(model, model.radial2).detach().contiguous().flatten(0, 1)
            shift2, scale2 = (t.detach().view(kinds, 10, p) for t in (model.shift2, model.scale2))
            raw, message = array(atoms, p), array(atoms, p)
            x2, parts = array(atoms, 10, p), sliced(10, p)
            wq, w2b = weight(model.wq), weight(w[:, hidden:])
            add(nets.layer, (atoms, p), kind, h1, wq, none2, 0, PLAIN, raw, none2)
            add(nets.message, (atoms, p), raw, told, message)
            how = (table2, none4, message, parts, repulsion)
            add(sums.moments, (atoms, slices, p), *of_pairs, *how)
            m2 = gathered(parts).view(atoms, 10, p)
            add(sums.inputs, (atoms, p), kind, m2, shift2, scale2, bound, x2)
            add(nets.layer, wide, kind, x2.flatten(1), w2b, none2, 1, ACTIVATE, a2, h2)
        w3 = weight(model.w3)
        if config.direct:
            weights = array(atoms, w3.shape[2])
            add(nets.layer, tuple(weights.shape), kind, h2, w3, none2, 0, PLAIN, weights, none2)
            add(sums.push, (atoms,), m1, weights, 0, forces)
            if p:
                add(sums.push, (atoms,), m2, weights, 2 * c, forces)
            return

        # back
        g1, g2 = array(atoms, hidden), array(atoms, hidden)
        add(nets.energy, (atoms,), kind, h2, w3, repulsion, self.energy, whole=True)
        add(nets.weights_back, wide, kind, a2, w3, g2)
        ends = (SLOPE, a1) if not p else (PLAIN, none2)
        add(nets.layer, wide, kind, g2, weight(w2.mT), none2, 0, ends[0], g1, ends[1])
        if p:
            by_x2, by_m2 = array(atoms, 10, p), array(atoms, 10, p)
            add(
                *(nets.layer, (atoms, 10 * p), kind, g2, weight(w2b.mT), none2, 0, PLAIN),
                *(by_x2.flatten(1), none2),
            )
            add(sums.gradient, (atoms, p), kind, m2, scale2, bound, x2, by_x2, by_m2)
            by_message = pulls(table2, none4, message, by_m2, more=False)
            add(nets.message_back, (atoms, p), raw, told, by_message)
            add(nets.layer, wide, kind, by_message, weight(wq.mT), none2, 1, SLOPE, g1, a1)
        by_x1, by_m1 = array(atoms, 10, c), array(atoms, 10, c)
        add(
            *(nets.layer, (atoms, 10 * c), kind, g1, weight(model.w1.mT), none2, 0, PLAIN),
            *(by_x1.flatten(1), none2),
        )
        add(sums.gradient, (atoms, c), kind, m1, scale, bound, x1, by_x1, by_m1)
        pulls(table, pairs, none2, by_m1, more=bool(p))

    def run(self, *, whole: bool) -> None:
        """Launch the kernels, of forces alone if not ``whole``; returns before a GPU is done."""
        self._launches[whole].run()
