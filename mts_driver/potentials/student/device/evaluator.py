"""A student evaluated by its kernels on a device: one list of launches over arrays that stay."""

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
        Atomic energies without those of free atoms, eV, behind `run`; zeros of direct students.
    forces, virials : float64 Tensors, shapes (M, 3) and (M, 3, 3)
        eV/Å and eV, behind `run`.
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
        self._launches = Launches(device)
        add, wp = self._launches.add, warp()
        double = dtype == torch.float64
        sums, nets = sum_kernels(double), network_kernels(double)
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
        forces, virials = shared(self.forces, wp.vec3d), shared(self.virials, wp.mat33d)
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
        m1, x1 = array(atoms, 10, c), array(atoms, 10, c)
        a1, h1, a2, h2 = (array(atoms, hidden) for _ in range(4))
        bound, told = INPUT_BOUND**-2, MESSAGE_BOUND**-2
        scaling = (t.detach().view(kinds, 10, c) for t in (model.shift, model.scale))
        shift, scale = scaling
        add(sums.moments, (atoms, c), *of_pairs, table, pairs, none2, m1, self.energy)
        add(sums.inputs, (atoms, c), kind, m1, shift, scale, bound, x1)
        flat1, wide = x1.flatten(1), (atoms, hidden)
        add(nets.layer, wide, kind, flat1, weight(model.w1), weight(model.b1), 0, ACTIVATE, a1, h1)
        w2, b2 = weight(w[:, :hidden]), weight(model.b2)
        add(nets.layer, wide, kind, h1, w2, b2, 0, PLAIN if p else ACTIVATE, a2, h2)
        if p:
            table2 = radial_table(model, model.radial2).detach().contiguous().flatten(0, 1)
            shift2, scale2 = (t.detach().view(kinds, 10, p) for t in (model.shift2, model.scale2))
            raw, message, by_message = (array(atoms, p) for _ in range(3))
            m2, x2 = array(atoms, 10, p), array(atoms, 10, p)
            wq, w2b = weight(model.wq), weight(w[:, hidden:])
            add(nets.layer, (atoms, p), kind, h1, wq, none2, 0, PLAIN, raw, none2)
            add(nets.message, (atoms, p), raw, told, message)
            add(sums.moments, (atoms, p), *of_pairs, table2, none4, message, m2, self.energy)
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
        add(nets.energy, (atoms,), kind, h2, w3, self.energy)
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
            parts = shared(array(atoms, p, 3), three), shared(array(atoms, p, 3, 3), matrix)
            add(
                *(sums.pull, (atoms, p), *of_pairs, table2, none4, message, per_A, by_m2),
                *(*parts, by_message),
            )
            add(sums.add_up, (atoms,), *parts, 0, forces, virials)
            add(nets.message_back, (atoms, p), raw, told, by_message)
            add(nets.layer, wide, kind, by_message, weight(wq.mT), none2, 1, SLOPE, g1, a1)
        by_x1, by_m1 = array(atoms, 10, c), array(atoms, 10, c)
        add(
            *(nets.layer, (atoms, 10 * c), kind, g1, weight(model.w1.mT), none2, 0, PLAIN),
            *(by_x1.flatten(1), none2),
        )
        add(sums.gradient, (atoms, c), kind, m1, scale, bound, x1, by_x1, by_m1)
        parts = shared(array(atoms, c, 3), three), shared(array(atoms, c, 3, 3), matrix)
        add(
            *(sums.pull, (atoms, c), *of_pairs, table, pairs, none2, per_A, by_m1),
            *(*parts, none2),
        )
        add(sums.add_up, (atoms,), *parts, 1 if p else 0, forces, virials)

    def run(self) -> None:
        """Launch all kernels; returns before a GPU has done them."""
        self._launches.run()
