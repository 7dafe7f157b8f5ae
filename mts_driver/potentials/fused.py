"""A student evaluated by its fused CPU kernels: energies and forces, and nothing for autograd."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mts_driver.potentials import student_kernel
from mts_driver.potentials.radial_table import START_A, cells_per_A, radial_table
from mts_driver.potentials.student import (
    BOUND,
    LOUDEST,
    StudentModel,
    bounded,
    bounded_slope,
    direct_forces,
)

silu, silu_backward = torch.nn.functional.silu, torch.ops.aten.silu_backward


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
    """Atoms sorted by element: ``order`` (M,) lists them, ``row`` (M,) is the inverse."""

    order: np.ndarray
    row: np.ndarray
    counts: list[int]

    @classmethod
    def of(cls, kind: np.ndarray, kinds: int) -> "ByElement":
        """Sort atoms of ``kind`` (M,)."""
        order = np.argsort(kind, kind="stable")
        return cls(order, np.argsort(order), np.bincount(kind, minlength=kinds).tolist())


class FusedStudent:
    """The kernels and networks of one model with its weights as they are now.

    Parameters
    ----------
    model : StudentModel
        On the CPU. Build another `FusedStudent` when the weights have changed.
    """

    def __init__(self, model: StudentModel) -> None:
        self.model = model
        config = model.config
        grid = (START_A, cells_per_A(config.cutoff_A))
        bound = model.w1.detach().numpy().dtype.type(BOUND)
        with torch.no_grad():
            table = radial_table(model, model.radial, repulsion=not config.direct).numpy()
            self._levels = [(table, *grid, *_by_kind(model.shift, model.scale), bound)]
            if config.messages:
                table = radial_table(model, model.radial2, repulsion=False).numpy()
                self._levels.append((table, *grid, *_by_kind(model.shift2, model.scale2), bound))

    @torch.no_grad()
    def __call__(
        self, near: Near, sorted_: ByElement, atoms_per_replica: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Atomic energies (M,) eV, forces (M, 3) eV/Å and virials (R, 3, 3) eV."""
        net, hidden = self.model, self.model.config.hidden
        nothing = np.empty((0, self.model.config.channels), net.w1.detach().numpy().dtype)
        first = self._forward(0, near, sorted_.row, nothing)
        blocks = _Blocks(sorted_.counts)
        a1 = blocks(first.inputs, net.w1, net.b1)
        h = silu(a1)
        a2 = blocks(h, net.w2[:, :hidden], net.b2)
        levels = [first]
        if self.model.config.messages:
            q = blocks(h, net.wq)
            sent = (1.0 + bounded(q, LOUDEST))[sorted_.row]
            levels.append(self._forward(1, near, sorted_.row, sent.numpy()))
            a2 += blocks(levels[1].inputs, net.w2[:, hidden:])
        if self.model.config.direct:
            return self._direct(blocks(silu(a2), net.w3)[sorted_.row], levels, atoms_per_replica)
        energy = first.pairs
        energy[sorted_.order] += blocks(silu(a2), net.w3[..., None])[:, 0].numpy()

        slope = torch.cat([n.expand(c, -1) for n, c in zip(net.w3, sorted_.counts, strict=True)])
        g2 = silu_backward(slope, a2)
        g1 = blocks(g2, net.w2[:, :hidden].mT)
        forces, virials = 0.0, 0.0
        if self.model.config.messages:
            grad = blocks(g2, net.w2[:, hidden:].mT)
            forces, virials, answer = self._backward(1, near, levels[1], grad, atoms_per_replica)
            answer = torch.from_numpy(answer)[sorted_.order] * bounded_slope(q, LOUDEST)
            g1 += blocks(answer, net.wq.mT)
        grad = blocks(silu_backward(g1, a1), net.w1.mT)
        more, stress, _ = self._backward(0, near, first, grad, atoms_per_replica)
        return energy, forces + more, virials + stress

    def _forward(self, level, near, row, sent):
        args = (*near, row, *self._levels[level], sent)
        moments, inputs, pairs = student_kernel.forward(*args)
        return _Level(args, moments, torch.from_numpy(inputs).flatten(1), pairs)

    def _backward(self, level, near, done, grad, atoms_per_replica):
        shape = (len(near.kind), 10, -1)
        slope, inputs = grad.view(shape).numpy(), done.inputs.view(shape).numpy()
        result = (done.moments, inputs, slope, atoms_per_replica)
        return student_kernel.backward(*done.args, *result)  # type: ignore[call-arg]

    def _direct(self, weights, levels, atoms_per_replica):
        """Return forces of the direct student, less their mean over each replica; no energy."""
        moments = [torch.from_numpy(level.moments) for level in levels]
        total = direct_forces(weights, moments).view(-1, atoms_per_replica, 3).double()
        forces = (total - total.mean(1, keepdim=True)).flatten(0, 1).numpy()
        return np.zeros(len(forces)), forces, np.zeros((len(total), 3, 3))


class _Level(NamedTuple):
    """One of the two sums over neighbours: what went in and what came out."""

    args: tuple
    moments: np.ndarray
    inputs: Tensor
    pairs: np.ndarray


class _Blocks:
    """Matrix products in which every element has its own matrix; atoms are sorted by element."""

    def __init__(self, counts: list[int]) -> None:
        self.spans = []
        start = 0
        for e, count in enumerate(counts):
            if count:
                self.spans.append((e, slice(start, start + count)))
            start += count
        self.atoms = start

    def __call__(self, x: Tensor, matrices: Tensor, bias: Tensor | None = None) -> Tensor:
        out = x.new_empty(self.atoms, matrices.shape[-1])
        for e, span in self.spans:
            if bias is None:
                torch.mm(x[span], matrices[e], out=out[span])
            else:
                torch.addmm(bias[e], x[span], matrices[e], out=out[span])
        return out


def _by_kind(shift: Tensor, scale: Tensor) -> tuple[np.ndarray, np.ndarray]:
    return tuple(t.detach().view(len(t), 10, -1).numpy() for t in (shift, scale))  # type: ignore[return-value]
