"""A student evaluated by its fused CPU kernels: energies and forces, and nothing for autograd."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from mts_driver.potentials.ranks.exchange import Halo
from mts_driver.potentials.student.cpu.kernels import CHUNKS, kernels
from mts_driver.potentials.student.cpu.networks import ROWS, WIDE
from mts_driver.potentials.student.cpu.splines import (
    START_A,
    cells_per_A,
    radial_table,
    repulsion_table,
)
from mts_driver.potentials.student.model import (
    INPUT_BOUND,
    MESSAGE_BOUND,
    StudentConfig,
    StudentModel,
)


class Near(NamedTuple):
    """Neighbours of all atoms, now within the cutoff, as the kernels take them.

    Attributes
    ----------
    first, last : int64 arrays, shapes (M + 1,) and (M,)
        Row a holds the entries ``first[a]`` to ``last[a]``.
    neighbors : int64 array, shape (P,)
        The neighbours.
    vectors : array, shape (P, 4)
        To the neighbour and its length, Å.
    kind : int64 array, shape (M,)
        Index of every atom's element.
    """

    first: np.ndarray
    last: np.ndarray
    neighbors: np.ndarray
    vectors: np.ndarray
    kind: np.ndarray


class ByElement(NamedTuple):
    """Atoms sorted by element.

    Attributes
    ----------
    order, row : int64 arrays, shape (M,)
        The atoms in that order, and the inverse.
    counts : list of int
        Atoms of every element.
    blocks : tuple of int64 arrays, shapes (B, ROWS) and (B,)
        The atoms in blocks of one element, −1 where there is none, and the elements.
    """

    order: np.ndarray
    row: np.ndarray
    counts: list[int]
    blocks: tuple[np.ndarray, np.ndarray]

    @classmethod
    def of(cls, kind: np.ndarray, kinds: int, atoms: np.ndarray | None = None) -> "ByElement":
        """Sort atoms of ``kind`` (M,): all, or the ``atoms`` of these numbers."""
        here = kind if atoms is None else kind[atoms]
        order = np.argsort(here, kind="stable")
        order = order if atoms is None else atoms[order]
        counts = np.bincount(here, minlength=kinds)
        rows = [
            np.pad(atoms, (0, -len(atoms) % ROWS), constant_values=-1).reshape(-1, ROWS)
            for atoms in np.split(order, np.cumsum(counts)[:-1])
        ]
        element = np.repeat(np.arange(kinds), [len(r) for r in rows])
        return cls(order, np.argsort(order), counts.tolist(), (np.concatenate(rows), element))


class Weights(NamedTuple):
    """Matrices of the networks, one an element, padded with zeros to whole registers.

    ``w2`` and ``w2b`` take the state and the invariants of the second sum; a t at the end means
    transposed.
    """

    w1: np.ndarray
    b1: np.ndarray
    wq: np.ndarray
    w2: np.ndarray
    w2b: np.ndarray
    b2: np.ndarray
    w3: np.ndarray
    w1t: np.ndarray
    wqt: np.ndarray
    w2t: np.ndarray
    w2bt: np.ndarray

    @classmethod
    def of(cls, model: StudentModel) -> "Weights":
        """Take the weights of a model as they are now."""
        hidden, empty = model.config.hidden, model.w1.new_zeros(len(model.w1), 0, 0)
        w2 = model.w2[:, :hidden], model.w2[:, hidden:]
        wq = model.wq if model.config.messages else empty
        straight = (model.w1, model.b1, wq, *w2, model.b2, model.w3)
        transposed = (t.mT for t in (model.w1, wq, *w2))
        return cls(*(_padded(t.detach()) for t in (*straight, *transposed)))


def _padded(t: Tensor) -> np.ndarray:
    """Widen all axes but the first, that of elements, to multiples of `WIDE`."""
    widths = [n for size in reversed(t.shape[1:]) for n in (0, -size % WIDE)]
    return pad(t, widths).contiguous().numpy()


class Workspace(NamedTuple):
    """What the loops leave for each other and for the caller; rows of blocks but where M is named.

    Attributes
    ----------
    energy : array, shape (M,)
        Atomic energies, eV.
    moments, inputs, a1, a2, g1 : arrays, shapes (R, ...)
        Of the first sum; both layers before their nonlinearity; gradient by the first.
    message_raw, message, grad_message : arrays, shapes (M, P), (M, P), (CHUNKS, M, P)
        What atoms tell before and after it is bounded, and the gradient by it.
    forces, virials : float64 arrays, shapes (CHUNKS, M, 3), (CHUNKS, replicas, 3, 3)
        eV/Å and eV, to be summed over the chunks.
    """

    energy: np.ndarray
    moments: np.ndarray
    inputs: np.ndarray
    a1: np.ndarray
    a2: np.ndarray
    g1: np.ndarray
    message_raw: np.ndarray
    message: np.ndarray
    grad_message: np.ndarray
    forces: np.ndarray
    virials: np.ndarray

    @classmethod
    def of(
        cls, config: StudentConfig, weights: Weights, *, atoms: int, rows: int, replicas: int
    ) -> "Workspace":
        """Allocate it."""
        c, p, dtype = config.channels, config.messages, weights.w1.dtype
        stride, hidden = weights.w1.shape[1:]
        return cls(
            energy=np.zeros(atoms, dtype),
            moments=np.zeros((rows, 10, c), dtype),
            inputs=np.zeros((rows, stride), dtype),  # wider than 10 C, and zero there
            a1=np.zeros((rows, hidden), dtype),
            a2=np.zeros((rows, hidden), dtype),
            g1=np.zeros((rows, hidden), dtype),
            message_raw=np.zeros((atoms, p), dtype),
            message=np.zeros((atoms, p), dtype),
            grad_message=np.zeros((CHUNKS, atoms, p), dtype),
            forces=np.zeros((CHUNKS, atoms, 3)),
            virials=np.zeros((CHUNKS, replicas, 3, 3)),
        )


class FusedStudent:
    """The kernels and networks of one model with its weights as they are now.

    Parameters
    ----------
    model : StudentModel
        On the CPU. Build another `FusedStudent` when the weights have changed.

    Attributes
    ----------
    weights, first, second
        What the kernels take: weights of the networks, radial functions and scaling of both sums.
    near, work : Near and Workspace
        The neighbours of the last call, and what the loops have left behind; None before it.
    """

    def __init__(self, model: StudentModel) -> None:
        self.model, config = model, model.config
        self.weights = Weights.of(model)
        self._kernels = kernels(config.channels, config.messages, config.direct)
        self.near: Near | None = None
        self.work: Workspace | None = None
        self._sizes: dict[str, int] = {}
        self.first = self._level(model.radial, model.shift, model.scale, not config.direct)
        self.second = self.first
        if config.messages:
            self.second = self._level(model.radial2, model.shift2, model.scale2, False)

    @torch.no_grad()
    def _level(self, radial, shift, scale, repulsion):
        """Radial functions and scaling of a sum, as the kernels take them."""
        pairs = repulsion_table(self.model)
        pairs = pairs if repulsion else pairs[:0]
        grid = START_A, cells_per_A(self.model.config.cutoff_A)
        input_bound = self.weights.w1.dtype.type(INPUT_BOUND**-2)
        scaling = (t.view(len(t), 10, -1).numpy() for t in (shift, scale))
        table = radial_table(self.model, radial).contiguous().numpy()
        return (table, pairs.numpy(), *grid), (*scaling, input_bound)

    def __call__(
        self, near: Near, by_element: ByElement, atoms_per_replica: int, halo: Halo | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Atomic energies (M,) eV, forces (M, 3) eV/Å and virials (R, 3, 3) eV.

        With a ``halo``, of which ``by_element`` names none: what this rank's atoms, which come
        first, have of each.
        """
        atoms, rows = len(near.kind), by_element.blocks[0].size
        sizes = {"atoms": atoms, "rows": rows, "replicas": max(atoms // atoms_per_replica, 1)}
        if self.work is None or sizes != self._sizes:
            self.work = Workspace.of(self.model.config, self.weights, **sizes)
            self._sizes = sizes
        self.near, work = near, self.work
        for array in (work.grad_message, work.forces, work.virials):
            array[:] = 0
        message_bound = work.energy.dtype.type(MESSAGE_BOUND**-2)
        here = (near, by_element.blocks)
        net = (self.weights, work)
        direct, told = self.model.config.direct, halo if self.model.config.messages else None
        self._kernels.read(*here, *self.first, *net, message_bound)
        if told:
            work.message[:] = told.gathered(work.message[: told.own_count])
        self._kernels.decide(*here, *self.second, *net, atoms_per_replica)
        if not direct:
            if told:
                gradient = told.scattered_sum(work.grad_message.sum(0))
                work.grad_message[:] = 0
                work.grad_message[0, : told.own_count] = gradient
            self._kernels.pull_back(*here, *self.first, *net, message_bound, atoms_per_replica)
        energy, forces, virials = work.energy.copy(), work.forces.sum(0), work.virials.sum(0)
        return (np.zeros_like(energy) if direct else energy), forces, virials
