"""Elastic constants of a crystal, from the curvature of its energy."""

from typing import NamedTuple

import torch
from torch import Tensor

from mts_driver.errors import UserError
from mts_driver.refinement.observables.arguments import Energy
from mts_driver.refinement.observables.estimators.frames import volume_A3
from mts_driver.refinement.observables.estimators.strain import (
    carries_gradients,
    check_graph,
    strained,
)
from mts_driver.units import EV_A3_GPA

VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
"""xx, yy, zz, yz, xz, xy; of the last three a strain is twice the component."""
SOFTEST = 1e-8
"""Relative to the stiffest mode: an atom on which no force acts is softer than any bound one."""


class ElasticConstants(NamedTuple):
    """In Voigt's order xx, yy, zz, yz, xz, xy, GPa.

    Attributes
    ----------
    relaxed : Tensor, shape (6, 6)
        Atoms follow the strain to where no force acts on them: what is measured.
    clamped : Tensor, shape (6, 6)
        Atoms are strained like the cell.
    stress : Tensor, shape (6,)
        Of the unstrained cell, positive under tension.
    """

    relaxed: Tensor
    clamped: Tensor
    stress: Tensor


def elastic_constants(
    energy: Energy, positions: Tensor, cell: Tensor, *, largest_force_eV_A: float = 1e-3
) -> ElasticConstants:
    """Return C = C0 - Λ H⁺ Λᵀ at zero temperature, with gradients to the energy's parameters.

    For Lagrangian strain η, displacements u and the volume V, C0 = ∂²U/∂η∂η / V, Λ = ∂²U/∂η∂u / √V
    and H = ∂²U/∂u∂u (Born and Huang 1954; Lutsko, J. Appl. Phys. 1989, 65, 2991). Under stress
    these differ from the slopes of stress against strain by terms of the stress; without it they
    are the same. Gradients are those at fixed positions and cell: where a parameter also moves the
    equilibrium, fit the stress to zero alongside.

    Parameters
    ----------
    energy : callable
        ``energy(positions (N, 3), cell (3, 3)) -> ()``, eV, twice differentiable.
    positions : Tensor, shape (N, 3)
        At rest, Å. The cost is that of 3N + 6 gradients.
    cell : Tensor, shape (3, 3)
        Å, periodic in three directions.
    largest_force_eV_A : float
        At which atoms still count as at rest.

    Raises
    ------
    UserError
        If the cell has no volume, the energy no graph to the cell, a force is larger, or the
        positions are no minimum of the energy.
    """
    if positions.ndim != 2 or positions.shape[-1] != 3:
        raise UserError(f"positions have shape {tuple(positions.shape)}: need (N, 3), one crystal.")
    x, box = positions.detach().double(), cell.detach().double()
    volume = volume_A3(box, "elastic constants")
    keep = carries_gradients(energy, x, box)
    with torch.enable_grad():
        strain = torch.zeros(6, dtype=x.dtype, device=x.device, requires_grad=True)
        shifts = torch.zeros(x.numel(), dtype=x.dtype, device=x.device, requires_grad=True)
        moved, changed = strained(x + shifts.view_as(x), box, _deformation(strain))
        total = energy(moved, changed)
        check_graph(total, changed)
        by_strain, by_shift = torch.autograd.grad(total, (strain, shifts), create_graph=True)
        _check_forces(by_shift.detach().view(-1, 3), largest_force_eV_A)
        mixed = [_slope(g, (strain, shifts), keep) for g in by_strain]
        hessian = torch.stack([_slope(g, (shifts,), keep)[0] for g in by_shift])
    clamped = torch.stack([row[0] for row in mixed])
    internal = torch.stack([row[1] for row in mixed])
    relaxation = internal @ torch.linalg.solve(_without_translations(hessian), internal.T)
    unit = EV_A3_GPA / volume
    stress = by_strain if keep else by_strain.detach()
    return ElasticConstants(unit * (clamped - relaxation), unit * clamped, unit * stress)


def _deformation(strain: Tensor) -> Tensor:
    """Return F = √(1 + 2η) to second order, which is all that two derivatives see."""
    eta = strain.new_zeros(3, 3)
    for k, (a, b) in enumerate(VOIGT):
        unit = torch.zeros_like(eta)
        unit[a, b] = unit[b, a] = 1.0 if a == b else 0.5
        eta = eta + strain[k] * unit
    return torch.eye(3).to(eta) + eta - 0.5 * eta @ eta


def _slope(gradient: Tensor, variables: tuple[Tensor, ...], keep: bool) -> tuple[Tensor, ...]:
    """Return second derivatives; zero where an energy is at most linear in a variable."""
    if not gradient.requires_grad:
        return tuple(torch.zeros_like(v) for v in variables)
    return torch.autograd.grad(
        gradient, variables, retain_graph=True, create_graph=keep, materialize_grads=True
    )


def _check_forces(gradient: Tensor, largest_eV_A: float) -> None:
    force = float(gradient.norm(dim=-1).max())
    if not force <= largest_eV_A:
        raise UserError(
            f"positions are not at rest: the largest force is {force:.3g} eV/Å, allowed are "
            f"{largest_eV_A:g} (largest_force_eV_A); relax them first."
        )


def _without_translations(hessian: Tensor) -> Tensor:
    """Return H with the three translations made stiff: they take no part in what follows."""
    atoms = len(hessian) // 3
    translations = torch.eye(3).to(hessian).repeat(atoms, 1) / atoms**0.5
    # a lattice of one atom has no other mode, and nothing to compare with
    stiffness = hessian.detach().diagonal().abs().mean().clamp(min=1e-9)
    stiff: Tensor = hessian + stiffness * translations @ translations.T
    modes = torch.linalg.eigvalsh(stiff.detach())
    if not float(modes[0]) > SOFTEST * float(modes[-1]):
        raise UserError(
            f"positions are no minimum of the energy: the softest mode has {float(modes[0]):.3g} "
            "eV/Å²; relax them from a slightly distorted start, and leave out atoms that "
            "interact with none."
        )
    return stiff
