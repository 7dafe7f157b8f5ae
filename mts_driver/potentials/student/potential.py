"""The student as a potential: the fused kernels on the CPU, plain torch on other devices."""

from collections.abc import Sequence

import numpy as np
import torch
from numba import njit
from torch import Tensor

from mts_driver.errors import UserError
from mts_driver.potentials.arrays import ArrayPotential, Arrays
from mts_driver.potentials.elements import check_elements
from mts_driver.potentials.ranks.exchange import Ranks
from mts_driver.potentials.ranks.pairs import SharedList
from mts_driver.potentials.student.cpu import kernels
from mts_driver.potentials.student.cpu.evaluator import ByElement, FusedStudent, Near
from mts_driver.potentials.student.model import StudentModel
from mts_driver.structures.neighbors import VerletList

SKIN_A = 1.0
COINCIDE_A = 1e-6
"""Closer atoms have no direction from one to the other, which the kernels divide by."""


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
    ranks : Ranks, optional
        Processes that evaluate each structure together; all call the student alike, on the CPU.

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
        ranks: Ranks | None = None,
    ) -> None:
        elements = model.config.elements
        check_elements(numbers, elements, model=name)
        self.numbers = np.array(numbers, np.int64)
        self.device, self.dtype = torch.device(device), getattr(torch, dtype)
        self.model = model.to(self.device, self.dtype).requires_grad_(False)
        known = [int(z) for z in model.z]
        self._kind = np.array([known.index(int(z)) for z in numbers])
        # free-atom energies are some 10⁴ eV: added in float64, apart from what the network sums
        self.offset_eV = float(model.offset.double().cpu()[self._kind].sum())
        self._ranks = ranks
        self._lists: list[VerletList] = []
        self._shared: list[SharedList] = []
        self._neighbors: tuple[np.ndarray, ...] = ()
        self._builds = self._replicas = 0
        if self.device.type == "cpu":
            self._kernels = FusedStudent(self.model, ranks)

    @property
    def has_virial(self) -> bool:
        """Whether forces come from an energy; direct ones have no virial."""
        return not self.model.config.direct

    def evaluate(self, positions_A: np.ndarray, cells_A: np.ndarray) -> Arrays:
        """Evaluate all replicas at once; see `ArrayPotential.evaluate`."""
        self._update_neighbors(positions_A, cells_A)
        evaluate = self._fused if self.device.type == "cpu" else self._torch
        energies, forces, virials = evaluate(positions_A.reshape(-1, 3))
        return energies + self.offset_eV, forces.reshape(positions_A.shape), virials

    def _update_neighbors(self, x: np.ndarray, cells: np.ndarray) -> None:
        """Compressed lists of all replicas, skin included, every pair in both directions."""
        while len(self._lists) < len(x):
            self._lists.append(self._new_list())
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
        self._neighbors = compress(i, j, *both, n * len(x))
        self._builds, self._replicas = builds, len(x)
        self._kinds = np.tile(self._kind, len(x))
        own = None
        if self._shared:
            shares = [shared.share for shared in self._shared[: len(x)]]
            own = np.concatenate([share.own + r * n for r, share in enumerate(shares)])
            self._neighbors = rows_of(own, *self._neighbors)
        self._sorted = ByElement.of(self._kinds, len(self.model.config.elements), own)

    def _new_list(self) -> VerletList:
        cutoff_A = self.model.config.cutoff_A
        if self._ranks is None:
            return VerletList(cutoff_A=cutoff_A, skin_A=SKIN_A)
        shared = SharedList(self._ranks, cutoff_A=cutoff_A, skin_A=SKIN_A, both=True)
        self._shared.append(shared)
        return shared.verlet

    def _fused(self, x):
        n, (first, neighbors, images) = len(self.numbers), self._neighbors
        cutoff_A = self.model.config.cutoff_A
        found = kernels.neighborhoods(x, first, neighbors, images, self._shifts, cutoff_A)
        last, *near, closest = found
        if closest.min() < COINCIDE_A:
            raise UserError(
                f"atom {int(closest.argmin()) % n} lies where another one does, within "
                f"{COINCIDE_A} Å: the trajectory has blown up, or the structure has atoms twice. "
                "Use a shorter time step, or relax the structure first (mts prepare --minimise)."
            )
        here = Near(first, last, near[0], near[1], self._kinds)
        energy, forces, virial = self._kernels(here, self._sorted, n)
        return energy.astype(np.float64).reshape(-1, n).sum(1), forces, virial

    def _torch(self, x):
        n, (first, neighbors, images) = len(self.numbers), self._neighbors
        center = np.repeat(np.arange(len(x)), np.diff(first))
        vectors = x[neighbors] + self._shifts[images] - x[center]
        near = np.linalg.norm(vectors, axis=1) < self.model.config.cutoff_A
        first = np.append(0, np.cumsum(np.bincount(center[near], minlength=len(x))))
        padded = pad_neighbors(first, neighbors[near], vectors[near], self.model.config.cutoff_A)
        j, d = (torch.from_numpy(a).to(self.device) for a in padded)
        kind = torch.from_numpy(self._kinds).to(self.device)
        d = d.to(self.dtype)
        if self.model.config.direct:
            forces = self.model.direct_forces(kind, j, d).view(-1, n, 3)
            forces = forces - forces.mean(1, keepdim=True)
            nothing = np.zeros(len(forces)), np.zeros((len(forces), 3, 3))
            return nothing[0], _numpy(forces), nothing[1]
        d.requires_grad_()
        with torch.enable_grad():
            energy = self.model.energies(kind, j, d)
            (pull,) = torch.autograd.grad(energy.sum(), d)
        forces = pull.sum(1).index_add(0, j.flatten(), -pull.flatten(0, 1))
        virial = -torch.einsum("rka,rkb->rab", *(v.reshape(len(x) // n, -1, 3) for v in (d, pull)))
        return _numpy(energy.double().view(-1, n).sum(1)), _numpy(forces), _numpy(virial)


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


def rows_of(
    atoms: np.ndarray, first: np.ndarray, neighbors: np.ndarray, images: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """From the rows of all atoms to those of some; the others are empty."""
    chosen = np.zeros(len(first) - 1, bool)
    chosen[atoms] = True
    counts = np.diff(first)
    kept = np.repeat(chosen, counts)
    return np.append(0, np.cumsum(counts * chosen)), neighbors[kept], images[kept]


@njit(cache=True)
def compress(i, j, forth, back, atoms):
    """From pairs listed once to rows of neighbours, (atoms + 1,), (2P,) and (2P, ...).

    Every pair appears in both directions, with what is its own ``forth`` and ``back`` (P, ...).
    """
    first = np.zeros(atoms + 1, np.int64)
    for p in range(i.size):
        first[i[p] + 1] += 1
        first[j[p] + 1] += 1
    first = np.cumsum(first)
    place = first[:-1].copy()
    neighbors = np.empty(2 * i.size, np.int64)
    both = np.empty((2 * i.size, *forth.shape[1:]), forth.dtype)
    for p in range(i.size):
        k = place[i[p]]
        place[i[p]] += 1
        n = place[j[p]]  # after that: an atom may be next to its own image
        place[j[p]] += 1
        neighbors[k], both[k] = j[p], forth[p]
        neighbors[n], both[n] = i[p], back[p]
    return first, neighbors, both
