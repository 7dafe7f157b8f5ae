"""The student as a potential: the fused kernels on the CPU, plain torch on other devices."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from integrators.linearized import Linearized
from mts_driver.potentials.arrays import ArrayPotential, Arrays
from mts_driver.potentials.elements import check_elements
from mts_driver.potentials.student.cpu.evaluator import ByElement, FusedStudent
from mts_driver.potentials.student.cpu.hessian.product import HessianProduct
from mts_driver.potentials.student.cpu.rows import Rows, compress
from mts_driver.potentials.student.linearized import fused_pull, names_of, reference_pull
from mts_driver.potentials.student.model import StudentModel
from mts_driver.structures.neighbors import VerletList

SKIN_A = 1.0


class Student(ArrayPotential):
    """A trained student bound to one set of atoms; ``student(positions, cell) -> Evaluation``.

    Parameters
    ----------
    model : StudentModel
        The trained model.
    numbers : sequence of int, length N
        Atomic numbers.
    device, dtype : str
        Torch device; ``float32`` or ``float64``.
    name : str
        What error messages call it.

    Raises
    ------
    UserError
        If an element is not one that the student was trained for.
    """

    def __init__(
        self,
        model: StudentModel,
        numbers: Sequence[int],
        *,
        device: str = "cpu",
        dtype: str = "float32",
        name: str = "the student",
    ) -> None:
        self._kind, self.numbers = kinds_of(model, numbers, name), np.array(numbers, np.int64)
        self.device, self.dtype = torch.device(device), getattr(torch, dtype)
        self.model = model.to(self.device, self.dtype).requires_grad_(False)
        # free-atom energies are some 10⁴ eV: added in float64, apart from what the network sums
        self.offset_eV = float(model.offset.double().cpu()[self._kind].sum())
        self._lists: list[VerletList] = []
        self._builds = self._replicas = 0
        self._kernels = FusedStudent(self.model) if self.device.type == "cpu" else None
        self._hessian: HessianProduct | None = None

    @property
    def has_virial(self) -> bool:
        """Whether forces come from an energy; direct ones have no virial."""
        return not self.model.config.direct

    def evaluate(self, positions_A: np.ndarray, cells_A: np.ndarray) -> Arrays:
        """Evaluate all replicas at once; see `ArrayPotential.evaluate`."""
        self._update_neighbors(positions_A, cells_A)
        evaluate = self._torch if self._kernels is None else self._fused
        energies, forces, virials = evaluate(positions_A.reshape(-1, 3))
        forces = forces.reshape(positions_A.shape)
        return (
            energies + self.offset_eV,
            forces if self.has_virial else without_mean(forces),
            virials,
        )

    def linearized(
        self, positions: Tensor, cell: Tensor, parameters: Sequence[Tensor]
    ) -> Linearized:
        """Evaluate the student so that its forces can be pulled back.

        Forces from an energy are differentiated by fused kernels on the CPU; elsewhere, and direct
        ones, by torch in the reference model.

        Parameters
        ----------
        positions, cell
            As of a call.
        parameters : sequence of Tensor
            By which else the pull differentiates: weights of the model, and any others, which the
            student does not depend on.

        Raises
        ------
        UserError
            If a weight is frozen (see `mts_driver.potentials.student.trainable`), or is part of
            the scaling of inputs, which is not trained.
        """
        names = names_of(self.model, parameters)
        evaluation = self(positions, cell)
        atoms = len(self.numbers)
        if self._kernels is None or self.model.config.direct:
            x = positions.detach().double().cpu().numpy().reshape(-1, 3)
            pull = reference_pull(self.model, self._graph(x), atoms, parameters, names)
            return Linearized(evaluation, pull)
        if self._hessian is None or self._hessian.fused is not self._kernels:
            self._hessian = HessianProduct(self._kernels)
        near = self._kernels.near
        assert near is not None
        pull = fused_pull(self._hessian, near, self._rows.by_element, atoms, names)
        return Linearized(evaluation, pull)

    def _update_neighbors(self, x: np.ndarray, cells: np.ndarray) -> None:
        """Compressed lists of all replicas, skin included, every pair in both directions."""
        while len(self._lists) < len(x):
            cutoff_A = self.model.config.cutoff_A
            self._lists.append(VerletList(cutoff_A=cutoff_A, skin_A=SKIN_A))
        n, lists = len(self.numbers), self._lists[: len(x)]
        stored = [verlet.stored(*a) for verlet, *a in zip(lists, x, cells, strict=True)]
        shifts = [verlet.shifts(cell) for verlet, cell in zip(lists, cells, strict=True)]
        self._shifts = shifts[0] if len(x) == 1 else np.concatenate(shifts)
        builds = sum(verlet.builds for verlet in lists)
        if (builds, len(x)) == (self._builds, self._replicas):
            return
        i, j = (np.concatenate([s[k] + r * n for r, s in enumerate(stored)]) for k in range(2))
        start = np.cumsum([0, *(len(shift) for shift in shifts)])
        forth = [s.image + k for s, k in zip(stored, start, strict=False)]
        back = [s.last - s.image + k for s, k in zip(stored, start, strict=False)]
        both = np.concatenate(forth), np.concatenate(back)
        self._builds, self._replicas = builds, len(x)
        kind = np.tile(self._kind, len(x))
        by_element = ByElement.of(kind, len(self.model.config.elements))
        first, neighbors, images = compress(i, j, *both, n * len(x))
        names = np.tile(np.arange(n), len(x))
        self._rows = Rows(first, neighbors, images, kind, by_element, names)

    def _fused(self, x: np.ndarray) -> Arrays:
        assert self._kernels is not None
        n = len(self.numbers)
        near = self._rows.near(x, self._shifts, self.model.config.cutoff_A)
        energy, forces, virial = self._kernels(near, self._rows.by_element, n)
        return energy.astype(np.float64).reshape(-1, n).sum(1), forces, virial

    def _graph(self, x: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Kinds, neighbours and vectors of all replicas for the model in plain torch."""
        first, neighbors, images, kinds, *_ = self._rows
        center = np.repeat(np.arange(len(x)), np.diff(first))
        vectors = x[neighbors] + self._shifts[images] - x[center]
        near = np.linalg.norm(vectors, axis=1) < self.model.config.cutoff_A
        first = np.append(0, np.cumsum(np.bincount(center[near], minlength=len(x))))
        padded = pad_neighbors(first, neighbors[near], vectors[near], self.model.config.cutoff_A)
        kind, j, d = (torch.from_numpy(a).to(self.device) for a in (kinds, *padded))
        return kind, j, d.to(self.dtype)

    def _torch(self, x: np.ndarray) -> Arrays:
        n, (kind, j, d) = len(self.numbers), self._graph(x)
        replicas = len(x) // n
        if self.model.config.direct:
            forces = self.model.direct_forces(kind, j, d)
            return np.zeros(replicas), _numpy(forces), np.zeros((replicas, 3, 3))
        d.requires_grad_()
        with torch.enable_grad():
            energy = self.model.energies(kind, j, d)
            (pull,) = torch.autograd.grad(energy.sum(), d)
        forces = pull.sum(1).index_add(0, j.flatten(), -pull.flatten(0, 1))
        virial = -torch.einsum("rka,rkb->rab", *(v.reshape(replicas, -1, 3) for v in (d, pull)))
        return _numpy(energy.double().view(-1, n).sum(1)), _numpy(forces), _numpy(virial)


def kinds_of(model: StudentModel, numbers: Sequence[int], name: str) -> np.ndarray:
    """Index of every atom's element; refuses those that the student was not trained for."""
    check_elements(numbers, model.config.elements, model=name)
    known = [int(z) for z in model.z]
    return np.array([known.index(int(z)) for z in numbers])


def without_mean(forces_eV_A: np.ndarray) -> np.ndarray:
    """Take the mean over atoms off direct forces (R, N, 3), which add up to no pull then."""
    return forces_eV_A - forces_eV_A.mean(1, keepdims=True)


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().cpu().numpy()


def pad_neighbors(
    first: np.ndarray, neighbors: np.ndarray, vectors: np.ndarray, cutoff_A: float
) -> tuple[np.ndarray, np.ndarray]:
    """Neighbours (M, K) and vectors (M, K, 3) in rows of equal length, for the torch model."""
    counts = np.diff(first)
    filled = np.arange(counts.max(initial=1)) < counts[:, None]
    padded = np.zeros(filled.shape, np.int64)
    padded[filled] = neighbors
    long = np.full((*filled.shape, 3), 2.0 * cutoff_A)
    long[filled] = vectors
    return padded, long
