"""The student as a potential: the fused kernels on the CPU, plain torch on other devices."""

from collections.abc import Sequence

import numpy as np
import torch
from numba import njit
from torch import Tensor

from integrators.state import Evaluation
from mts_driver.potentials import student_kernel
from mts_driver.potentials.elements import check_elements
from mts_driver.potentials.neighbors import VerletList
from mts_driver.potentials.student import StudentModel

SKIN_A = 1.0
GRID = 1024
TABLE_START_A = 0.2


class Student:
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
        elements = model.config.elements
        check_elements(numbers, elements, model=name)
        self.numbers = np.array(numbers, np.int64)
        self.device, self.dtype = torch.device(device), getattr(torch, dtype)
        self.model = model.to(self.device, self.dtype).requires_grad_(False)
        known = [int(z) for z in model.z]
        self._kind = np.array([known.index(int(z)) for z in numbers])
        # free-atom energies are some 10⁴ eV: added in float64, apart from what the network sums
        self.offset_eV = float(model.offset.double().cpu()[self._kind].sum())
        self._lists: list[VerletList] = []
        self._neighbors: tuple[np.ndarray, ...] = ()
        self._builds = self._replicas = 0
        if self.device.type == "cpu":
            self._table = radial_table(model)
            self._networks = [_Network(self.model, e) for e in range(len(elements))]

    def __call__(self, positions: Tensor, cell: Tensor) -> Evaluation:
        """Energies (…) eV, forces (…, N, 3) eV/Å and virials (…, 3, 3) eV of all replicas."""
        shape = positions.shape[:-2]
        x = positions.detach().reshape(-1, len(self.numbers), 3).double().cpu().numpy()
        cells = cell.detach().double().cpu().expand(*shape, 3, 3).reshape(-1, 3, 3).numpy()
        self._update_neighbors(x, cells)
        evaluate = self._fused if self.device.type == "cpu" else self._torch
        energy, forces, virial = evaluate(x.reshape(-1, 3))
        return Evaluation(
            (energy + self.offset_eV).reshape(shape).to(positions.device),
            forces.reshape(positions.shape).to(positions),
            virial.reshape(*shape, 3, 3).to(positions),
        )

    def _update_neighbors(self, x: np.ndarray, cells: np.ndarray) -> None:
        """Compressed lists of all replicas, skin included, every pair in both directions."""
        while len(self._lists) < len(x):
            self._lists.append(VerletList(cutoff_A=self.model.config.cutoff_A, skin_A=SKIN_A))
        n, lists = len(self.numbers), self._lists[: len(x)]
        stored = [verlet.stored(*a) for verlet, *a in zip(lists, x, cells, strict=True)]
        builds = sum(verlet.builds for verlet in lists)
        if (builds, len(x)) == (self._builds, self._replicas):
            return
        i = np.concatenate([pairs[0] + k * n for k, pairs in enumerate(stored)])
        j = np.concatenate([pairs[1] + k * n for k, pairs in enumerate(stored)])
        self._neighbors = compress(i, j, np.concatenate([pairs[2] for pairs in stored]), n * len(x))
        self._builds, self._replicas = builds, len(x)
        # rows of atoms sorted by element, so that each network gets a block of them
        self._kinds = np.tile(self._kind, len(x))
        self._order = np.argsort(self._kinds, kind="stable")
        self._row = np.argsort(self._order)
        self._ends = np.cumsum(
            np.bincount(self._kinds, minlength=len(self.model.config.elements))
        ).tolist()

    def _fused(self, x):
        n, cutoff = len(self.numbers), self.model.config.cutoff_A
        grid = (self._table, TABLE_START_A, GRID / (cutoff - TABLE_START_A))
        first, neighbors, shifts = self._neighbors
        near = student_kernel.neighborhoods(x, first, neighbors, shifts, cutoff)
        graph = (first, *near, self._kinds, self._row, *grid)
        moments, features, energy = student_kernel.forward(*graph)
        grad = torch.from_numpy(np.empty_like(features)).flatten(1)
        inputs = torch.from_numpy(features).flatten(1)
        start = 0
        for network, end in zip(self._networks, self._ends, strict=True):
            atomic = network(inputs[start:end], grad[start:end])
            energy[self._order[start:end]] += atomic.numpy()
            start = end
        slope = grad.view(features.shape).numpy()
        forces, virial = student_kernel.backward(*graph, moments, slope, n)  # type: ignore[call-arg]
        total = energy.astype(np.float64).reshape(-1, n).sum(1)
        return torch.from_numpy(total), torch.from_numpy(forces), torch.from_numpy(virial)

    def _torch(self, x):
        n, (first, neighbors, shifts) = len(self.numbers), self._neighbors
        center = np.repeat(np.arange(len(x)), np.diff(first))
        vectors = x[neighbors] + shifts - x[center]
        near = np.linalg.norm(vectors, axis=1) < self.model.config.cutoff_A
        first = np.append(0, np.cumsum(np.bincount(center[near], minlength=len(x))))
        padded = pad_neighbors(first, neighbors[near], vectors[near], self.model.config.cutoff_A)
        j, d = (torch.from_numpy(a).to(self.device) for a in padded)
        kind = torch.from_numpy(self._kinds).to(self.device)
        d = d.to(self.dtype).requires_grad_()
        with torch.enable_grad():
            energy = self.model(kind, j, d)
            (pull,) = torch.autograd.grad(energy.sum(), d)
        forces = pull.sum(1).index_add(0, j.flatten(), -pull.flatten(0, 1))
        virial = -torch.einsum("rka,rkb->rab", *(v.reshape(len(x) // n, -1, 3) for v in (d, pull)))
        return energy.detach().double().view(-1, n).sum(1), forces, virial.detach()


class _Network:
    """The network of one element, with its derivative written out and the scaling folded in."""

    def __init__(self, model: StudentModel, e: int) -> None:
        self.w1 = (model.scale[e][:, None] * model.w1[e]).contiguous()
        self.b1 = model.b1[e] - model.shift[e] @ self.w1
        self.w2, self.b2, self.w3 = model.w2[e], model.b2[e], model.w3[e]

    def __call__(self, x: Tensor, grad: Tensor) -> Tensor:
        """Energies of the atoms with features ``x`` (n, F); the derivatives go to ``grad``."""
        silu, silu_backward = torch.nn.functional.silu, torch.ops.aten.silu_backward
        a1 = torch.addmm(self.b1, x, self.w1)
        a2 = torch.addmm(self.b2, silu(a1), self.w2)
        g2 = silu_backward(self.w3.expand_as(a2), a2)
        torch.mm(silu_backward(g2 @ self.w2.T, a1), self.w1.T, out=grad)
        return silu(a2) @ self.w3


def radial_table(model: StudentModel) -> np.ndarray:
    """Cubics of R_c and of half the repulsion, (pairs of elements, GRID, 4, channels + 1)."""
    kinds = torch.arange(len(model.config.elements))
    exact = StudentModel(model.config).double()
    exact.load_state_dict({k: v.double().cpu() for k, v in model.state_dict().items()})
    r = torch.linspace(TABLE_START_A, model.config.cutoff_A, GRID + 1, dtype=torch.float64)
    step = float(r[1] - r[0])
    tables = []
    for a, b in torch.cartesian_prod(kinds, kinds):

        def curves(r: Tensor, a: Tensor = a, b: Tensor = b) -> Tensor:
            half = 0.5 * exact.repulsion(a, b, r)
            neighbor_kind = b.expand(1, len(r))
            return torch.cat(
                (exact.radial_functions(a[None], neighbor_kind, r[None])[0], half[:, None]), 1
            )

        with torch.no_grad():
            y = curves(r)
        tangent = torch.autograd.functional.jvp(curves, r, torch.ones_like(r))[1] * step
        y0, y1, m0, m1 = y[:-1], y[1:], tangent[:-1], tangent[1:]
        cubic = (y0, m0, 3 * (y1 - y0) - 2 * m0 - m1, 2 * (y0 - y1) + m0 + m1)
        tables.append(torch.stack(cubic, 1))
    return torch.stack(tables).to(model.radial.dtype).numpy()


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


@njit(cache=True)
def compress(i, j, vectors, atoms):
    """From pairs listed once to rows of neighbours, (atoms + 1,), (2P,) and (2P, 3).

    Every pair appears in both directions, its vector (or shift) with opposite signs.
    """
    first = np.zeros(atoms + 1, np.int64)
    for p in range(i.size):
        first[i[p] + 1] += 1
        first[j[p] + 1] += 1
    first = np.cumsum(first)
    place = first[:-1].copy()
    neighbors = np.empty(2 * i.size, np.int64)
    both = np.empty((2 * i.size, 3))
    for p in range(i.size):
        for a, b, sign in ((i[p], j[p], 1.0), (j[p], i[p], -1.0)):
            k = place[a]
            place[a] += 1
            neighbors[k] = b
            for n in range(3):
                both[k, n] = sign * vectors[p, n]
    return first, neighbors, both
