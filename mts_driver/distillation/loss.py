"""What the student is fitted to: the teacher's forces and its X-H force constants."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mts_driver.distillation.dataset import Graph, StiffPair, collate
from mts_driver.potentials.student import StudentModel

STIFFNESS_WEIGHT = 30.0
"""Puts a 2 % error of the force constants on a par with the force error of a good student."""
LARGE_FORCE_EV_A = 4.0
"""Forces beyond this count less: close contacts and torn bonds need the sign, not the digits."""


def student_forces(model: StudentModel, graph: Graph, *, create_graph: bool) -> Tensor:
    """Return the student's forces on all atoms of a graph, eV/Å, shape (M, 3)."""
    vectors = graph.vectors.detach().requires_grad_()
    energy = model(graph.kind, graph.neighbors, vectors).sum()
    (pull,) = torch.autograd.grad(energy, vectors, create_graph=create_graph)
    return pull.sum(1).index_add(0, graph.neighbors.flatten(), -pull.flatten(0, 1))


def force_constants(pair: StiffPair, plus: Tensor, minus: Tensor) -> Tensor:
    """−(F₊ − F₋)·b / 2δ of every displaced hydrogen from the forces on the two frames, eV/Å²."""
    return -((plus - minus)[pair.hydrogens] * pair.units).sum(-1) / (2 * pair.delta_A)


def loss(
    model: StudentModel, frames: Sequence[Graph], pairs: Sequence[StiffPair], *, force_rms: float
) -> tuple[Tensor, Tensor]:
    """Force and stiffness parts of the loss, each without units.

    Parameters
    ----------
    frames, pairs : sequences
        One batch; the frames of the pairs count for the forces too.
    force_rms : float
        Root mean square of the teacher's forces, eV/Å.

    Returns
    -------
    tuple of Tensor
        Mean of |ΔF|²/3 over force_rms², atoms with large forces discounted, and
        ``STIFFNESS_WEIGHT`` times the mean of (Δk/k)².
    """
    graphs = [*frames, *(g for p in pairs for g in (p.plus, p.minus))]
    batch = collate(graphs)
    forces = student_forces(model, batch, create_graph=True)
    weight = 1.0 / (1.0 + batch.forces.square().sum(-1) / LARGE_FORCE_EV_A**2)
    squared = (forces - batch.forces).square().mean(-1)
    force_part = (weight * squared).mean() / force_rms**2
    parts = forces.split([len(g.kind) for g in graphs])[len(frames) :]
    errors = []
    for pair, plus, minus in zip(pairs, parts[::2], parts[1::2], strict=True):
        off = force_constants(pair, plus, minus) - pair.constants
        errors.append(off / pair.constants.mean())
    if not errors:
        return force_part, torch.zeros_like(force_part)
    return force_part, STIFFNESS_WEIGHT * torch.cat(errors).square().mean()
