"""The student in plain torch: what its fused kernels are compared with."""

from collections.abc import Sequence

import torch
from torch import Tensor

from integrators.state import Evaluation
from mts_driver.potentials.student.cpu.rows import compress
from mts_driver.potentials.student.file import find_student, read_student
from mts_driver.potentials.student.potential import SKIN_A, pad_neighbors
from mts_driver.structures.neighbors import VerletList


class EagerStudent:
    """A student evaluated by `StudentModel` and autograd, in float32 on the CPU.

    Parameters
    ----------
    file : str
        As in ``student:FILE``.
    numbers : sequence of int, length N
        Atomic numbers.
    """

    def __init__(self, file: str, numbers: Sequence[int]) -> None:
        model, _ = read_student(find_student(file))
        self.model = model.float().requires_grad_(False)
        known = [int(z) for z in model.z]
        self.kind = torch.tensor([known.index(z) for z in numbers])
        self.pairs = VerletList(cutoff_A=model.config.cutoff_A, skin_A=SKIN_A)

    def __call__(self, positions: Tensor, cell: Tensor) -> Evaluation:
        """Energy without free atoms, forces (N, 3) and virial (3, 3) of one replica."""
        found = self.pairs.pairs(positions.numpy(), cell.numpy())
        first, j, d = compress(found.i, found.j, found.vectors, -found.vectors, len(self.kind))
        j, d = pad_neighbors(first, j, d, self.model.config.cutoff_A)
        neighbors, vectors = torch.from_numpy(j), torch.from_numpy(d).float()
        nothing = torch.zeros(3, 3)
        if self.model.config.direct:
            forces = self.model.direct_forces(self.kind, neighbors, vectors)
            return Evaluation(torch.zeros(()), forces - forces.mean(0), nothing)
        vectors.requires_grad_()
        energy = self.model.energies(self.kind, neighbors, vectors).double().sum()
        (pull,) = torch.autograd.grad(energy, vectors)
        forces = pull.sum(1).index_add(0, neighbors.flatten(), -pull.flatten(0, 1))
        virial = -torch.einsum("akx,aky->xy", vectors.detach(), pull)
        return Evaluation(energy.detach(), forces, virial)
