"""A student's energy in plain torch, to be differentiated as often as one likes.

Stress and elastic constants are derivatives by the cell, and their fit takes one more; the fused
kernels give forces and their pulls only.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mts_driver.potentials.student.model import StudentModel
from mts_driver.potentials.student.potential import kinds_of
from mts_driver.structures.neighbors import VerletList


class StudentEnergy:
    """``energy(positions (..., N, 3), cell (3, 3)) -> (...)``, eV, without free-atom offsets.

    Parameters
    ----------
    model : StudentModel
        In any precision, on the CPU, with an energy.
    numbers : sequence of int, length N
        Atomic numbers.
    name : str
        What error messages call it.
    """

    def __init__(
        self, model: StudentModel, numbers: Sequence[int], *, name: str = "the student"
    ) -> None:
        self.model = model
        self._kind = torch.from_numpy(kinds_of(model, numbers, name))

    def __call__(self, positions: Tensor, cell: Tensor) -> Tensor:
        """Return energies with a graph to positions, cell and weights."""
        flat = positions.reshape(-1, *positions.shape[-2:])
        return torch.stack([self._one(x, cell) for x in flat]).view(positions.shape[:-2])

    def _one(self, x: Tensor, cell: Tensor) -> Tensor:
        cutoff_A = self.model.config.cutoff_A
        verlet = VerletList(cutoff_A=cutoff_A, skin_A=0.0)
        now = x.detach().double().numpy(), cell.detach().double().numpy()
        found, cells = verlet.stored(*now), verlet.cells()
        shifts = cells[found.image]
        images = torch.from_numpy(np.concatenate((shifts, -shifts))).to(x)
        first, second = (torch.from_numpy(a.astype(np.int64)) for a in (found.i, found.j))
        i, j = torch.cat((first, second)), torch.cat((second, first))
        order = i.argsort(stable=True)
        i, j, images = i[order], j[order], images[order]
        counts = torch.bincount(i, minlength=len(x))
        width = max(int(counts.max()), 1)
        slot = torch.arange(len(i)) - (counts.cumsum(0) - counts)[i]
        neighbors = torch.zeros(len(x), width, dtype=torch.int64)
        neighbors[i, slot] = j
        vectors = torch.full((len(x), width, 3), 2.0 * cutoff_A).to(x)
        vectors = vectors.index_put((i, slot), x[j] + images @ cell.to(x) - x[i])
        return self.model.energies(self._kind, neighbors, vectors.to(self.model.w1)).double().sum()
