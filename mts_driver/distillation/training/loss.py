"""What the student is fitted to: the teacher's forces and its force constants along bonds."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mts_driver.distillation.training.dataset import Graph, StiffPair, collate
from mts_driver.distillation.training.student_forces import student_forces
from mts_driver.potentials.student.model import StudentModel

STIFFNESS_WEIGHT = 30.0
"""Puts a 2 % error of the force constants on a par with the force error of a good student."""
LEAST_CONSTANT_EV_A2 = 15.0
"""Softer bonds, such as torn ones, count with their absolute error in units of this."""
LARGE_FORCE_EV_A = 4.0
"""Forces and errors beyond this count less: close contacts and torn bonds need the sign, not the
digits, and no single atom may decide where a step goes."""
LARGE_STIFFNESS_ERROR = 0.3
"""The same for relative errors of force constants."""


def loss(
    model: StudentModel,
    frames: Sequence[Graph],
    pairs: Sequence[StiffPair],
    *,
    force_rms: float,
    stiffness_weight: float = STIFFNESS_WEIGHT,
) -> tuple[Tensor, Tensor]:
    """Force and stiffness parts of the loss, each without units.

    Parameters
    ----------
    frames, pairs : sequences
        One batch; the frames of the pairs count for the forces too.
    force_rms : float
        Root mean square of the teacher's forces, eV/Å.
    stiffness_weight : float
        Of the second part.

    Returns
    -------
    tuple of Tensor
        Mean of |ΔF|²/3 over force_rms², and ``stiffness_weight`` times the mean of (Δk/k)² over
        bonds, each with the weights of atoms and bonds; large forces and errors are discounted.
    """
    graphs = [*frames, *(g for p in pairs for g in (p.plus, p.minus))]
    batch = collate(graphs)
    target, weight = batch.forces.to(model.w1.device), batch.weight.to(model.w1.device)
    forces = student_forces(model, batch)
    squared = (forces - target).square().mean(-1)
    large = target.square().sum(-1) + 3.0 * squared.detach()
    counted = weight / (1.0 + large / LARGE_FORCE_EV_A**2)
    force_part = (counted * squared).sum() / weight.sum().clamp_min(1.0) / force_rms**2
    parts = forces.cpu().split([len(g.near.kind) for g in graphs])[len(frames) :]
    errors = [
        (pair.force_constants(plus, minus) - pair.constants)
        / pair.constants.clamp_min(LEAST_CONSTANT_EV_A2)
        for pair, plus, minus in zip(pairs, parts[::2], parts[1::2], strict=True)
    ]
    if not errors:
        return force_part, torch.zeros_like(force_part)
    squared = torch.cat(errors).square()
    weight = torch.cat([pair.weight for pair in pairs])
    counted = weight / (1.0 + squared.detach() / LARGE_STIFFNESS_ERROR**2)
    return force_part, stiffness_weight * (counted * squared).sum() / weight.sum()
