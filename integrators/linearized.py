"""Forces to first order: what a gradient through a trajectory needs of a potential.

For a direction u (..., N, 3) the *pull* of the forces F(x; p) is ``(∂F/∂x)ᵀ u`` and ``(∂F/∂p)ᵀ u``:
a product of a vector with a Jacobian, never the Jacobian itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from integrators.state import Evaluation, Potential

Pull = Callable[[Tensor], tuple[Tensor, tuple[Tensor | None, ...]]]
"""``pull(along)``: the gradient by positions (..., N, 3), and by every parameter (None: none)."""


class Linearized(NamedTuple):
    """A potential at some positions.

    Attributes
    ----------
    evaluation : Evaluation
        Energies, forces and virials, which carry no graph.
    pull : Pull
        May be called once.
    """

    evaluation: Evaluation
    pull: Pull


def linearized(
    potential: Potential, positions: Tensor, cell: Tensor, parameters: Sequence[Tensor]
) -> Linearized:
    """Evaluate a potential so that its forces can be pulled back once.

    A potential may bring a method ``linearized(positions, cell, parameters)`` of its own; of others
    torch differentiates the forces.

    Parameters
    ----------
    potential : Potential
        Called with positions that require a gradient, it returns forces that carry a graph.
    positions, cell : Tensor, shapes (..., N, 3) and (3, 3) or (..., 3, 3)
        Å.
    parameters : sequence of Tensor
        Leaves that require gradients.

    Raises
    ------
    ValueError
        If the forces carry no graph to the positions.
    """
    own = getattr(potential, "linearized", None)
    if own is not None:
        found: Linearized = own(positions, cell, parameters)
        return found
    with torch.enable_grad():
        x = positions.detach().requires_grad_()
        evaluation = potential(x, cell)
    forces = evaluation.forces
    if not forces.requires_grad:
        raise ValueError(
            f"{_name(potential)} has no second derivatives: its forces carry no graph. Give a "
            "potential that torch differentiates, such as those of mts_driver.potentials."
            "classical, or wrap one that has nothing to be fitted in ByDifferences"
        )

    def pull(along: Tensor) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        found = torch.autograd.grad(forces, (x, *parameters), along, allow_unused=True)
        by_positions = torch.zeros_like(x) if found[0] is None else found[0]
        return by_positions, tuple(found[1:])

    return Linearized(Evaluation(*(t.detach() for t in evaluation)), pull)


class ByDifferences:
    """A potential whose pull along u is the difference of its forces at x ± h u.

    The Hessian of an energy is symmetric, so that ``(∂F/∂x)ᵀ u = (∂F/∂x) u``. This serves any
    potential without a graph, behind a socket too, at two more calls a pull; its error is of second
    order in ``displacement_A`` plus the rounding of the forces over it.

    Parameters
    ----------
    potential : Potential
        Its forces must be minus the gradient of an energy; nothing in it can be fitted.
    displacement_A : float
        Longest displacement of a coordinate, Å.

    Raises
    ------
    ValueError
        If the displacement is not positive.
    """

    def __init__(self, potential: Potential, *, displacement_A: float = 1e-4) -> None:
        if not (math.isfinite(displacement_A) and displacement_A > 0):
            raise ValueError(f"displacement_A is {displacement_A}; it must be positive (Å)")
        self.potential, self.displacement_A = potential, displacement_A

    def __call__(self, positions: Tensor, cell: Tensor) -> Evaluation:
        """Return what the potential returns."""
        return self.potential(positions, cell)

    def linearized(
        self, positions: Tensor, cell: Tensor, parameters: Sequence[Tensor]
    ) -> Linearized:
        """Evaluate the potential; its pull costs two calls more."""

        def pull(along: Tensor) -> tuple[Tensor, tuple[Tensor | None, ...]]:
            none = tuple(None for _ in parameters)
            longest = along.abs().amax(dim=(-2, -1), keepdim=True)
            h = self.displacement_A / longest.where(longest > 0, 1.0)
            ahead = self.potential(positions + h * along, cell).forces
            behind = self.potential(positions - h * along, cell).forces
            return (ahead - behind) / (2.0 * h), none

        return Linearized(self.potential(positions, cell), pull)


def _name(potential: Potential) -> str:
    return type(potential).__name__
