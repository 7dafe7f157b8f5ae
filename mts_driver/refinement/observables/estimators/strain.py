"""Energies of a strained cell, for stress and elastic constants."""

import torch
from torch import Tensor

from mts_driver.errors import UserError
from mts_driver.refinement.observables.arguments import Energy


def strained(positions: Tensor, cell: Tensor, deformation: Tensor) -> tuple[Tensor, Tensor]:
    """Return positions and cell, rows x, as x F for a deformation F (3, 3)."""
    return positions @ deformation, cell @ deformation


def carries_gradients(energy: Energy, positions: Tensor, cell: Tensor) -> bool:
    """Whether parameters or positions ask for gradients, so that derivatives need a graph."""
    return torch.is_grad_enabled() and energy(positions, cell).requires_grad


def check_graph(energy: Tensor, cell: Tensor) -> None:
    """Raise a `UserError` if an energy does not depend on the cell as autograd sees it.

    Its strain derivative would lack the pairs across the faces of the cell.
    """
    (found,) = (
        torch.autograd.grad(energy, cell, retain_graph=True, allow_unused=True)
        if energy.requires_grad
        else (None,)
    )
    if found is None:
        raise UserError(
            "energy has no graph to the cell, so that stress and elastic constants cannot be "
            "found: compute images of atoms from the cell in torch, and detach neither."
        )
