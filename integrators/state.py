"""The state of a simulation and the interface that a potential offers to the integrators.

Units are any consistent set; ``mts_driver`` uses Å, fs and eV, so masses are in eV fs²/Å².
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Evaluation(NamedTuple):
    """What a potential returns for a batch of replicas.

    Attributes
    ----------
    energy : Tensor, shape (...,)
        Potential energy, eV.
    forces : Tensor, shape (..., N, 3)
        Minus the gradient of the energy, eV/Å.
    virial : Tensor, shape (..., 3, 3)
        Minus the derivative of the energy with respect to strain, eV (i-PI's sign).
    """

    energy: Tensor
    forces: Tensor
    virial: Tensor


class Potential(Protocol):
    """A model bound to one set of atoms: ``potential(positions, cell) -> Evaluation``.

    ``positions`` has shape (..., N, 3); ``cell`` has shape (3, 3) or (..., 3, 3), rows are lattice
    vectors, and all zeros mean an isolated system. Inputs are never modified.
    """

    def __call__(self, positions: Tensor, cell: Tensor) -> Evaluation:
        """Energies, forces and virials of every replica."""
        ...


@dataclass(frozen=True, eq=False)
class MDState:
    """Everything that the next step depends on; never modified, each sub-step returns a new one.

    Attributes
    ----------
    positions : Tensor, shape (..., N, 3)
        Å, not wrapped. Leading dimensions are independent replicas.
    velocities : Tensor, shape (..., N, 3)
        Å/fs.
    masses : Tensor, shape (N,)
        eV fs²/Å²; infinite for atoms that are held in place, which no force and no noise moves.
    cell : Tensor, shape (3, 3) or (..., 3, 3)
        Å, rows are lattice vectors; all zeros for an isolated system.
    evaluations : mapping of str to Evaluation
        Forces known at ``positions``: ``"fast"``, ``"slow"`` and ``"full"`` (the teacher). A drift
        empties it.
    heat : Tensor, shape (...,)
        Energy that the thermostat has put in, eV: kinetic + teacher energy - heat is conserved.
    step : int
        Outer steps done; together with the seed it determines the noise.
    extra : Tensor, shape (k, ..., N, 3), or None
        Extra velocities of coloured noise, Å/fs; None before its first step.
    clip_events : Tensor, shape (), int64
        How many per-atom slow forces have been clipped.
    max_force_difference : Tensor, shape ()
        Largest norm of teacher - student on an atom so far, before clipping, eV/Å.
    """

    positions: Tensor
    velocities: Tensor
    masses: Tensor
    cell: Tensor
    heat: Tensor
    clip_events: Tensor
    max_force_difference: Tensor
    evaluations: Mapping[str, Evaluation] = field(default_factory=dict)
    step: int = 0
    extra: Tensor | None = None


def initial_state(
    positions: Tensor, velocities: Tensor, masses: Tensor, cell: Tensor | None = None
) -> MDState:
    """Check the arrays and return the state of step 0.

    Parameters
    ----------
    positions, velocities : Tensor, shape (..., N, 3)
        Å and Å/fs.
    masses : Tensor, shape (N,)
        eV fs²/Å², positive; infinite for atoms that are held in place.
    cell : Tensor, shape (3, 3) or (..., 3, 3), optional
        Å; left out for an isolated system.

    Raises
    ------
    ValueError
        If shapes do not agree, a mass is not positive, or a number is not finite.
    """
    if positions.ndim < 2 or positions.shape[-1] != 3:
        raise ValueError(f"positions have shape {tuple(positions.shape)}; need (..., N, 3)")
    if velocities.shape != positions.shape:
        raise ValueError(
            f"velocities have shape {tuple(velocities.shape)}, "
            f"positions {tuple(positions.shape)}; they must be the same"
        )
    if masses.shape != positions.shape[-2:-1]:
        raise ValueError(
            f"masses have shape {tuple(masses.shape)}; need ({positions.shape[-2]},), one per atom"
        )
    if not bool((masses > 0).all()):
        raise ValueError(f"masses must be positive; the smallest is {masses.min().item():g}")
    cell = positions.new_zeros(3, 3) if cell is None else cell
    if cell.shape[-2:] != (3, 3):
        raise ValueError(f"cell has shape {tuple(cell.shape)}; need (3, 3) or (..., 3, 3)")
    if bool(velocities[..., masses.isinf(), :].any()):
        raise ValueError("atoms of infinite mass are held in place; their velocities must be zero")
    named = {"positions": positions, "velocities": velocities, "cell": cell}
    for name, values in named.items():
        if not bool(torch.isfinite(values).all()):
            raise ValueError(f"{name} hold a number that is not finite; check the structure")
    return MDState(
        positions=positions,
        velocities=velocities,
        masses=masses,
        cell=cell,
        heat=positions.new_zeros(positions.shape[:-2]),
        clip_events=torch.zeros((), dtype=torch.int64, device=positions.device),
        max_force_difference=positions.new_zeros(()),
    )
