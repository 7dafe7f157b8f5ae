"""The exact sub-steps that splittings are made of, on tensors.

Every function takes a state and returns a new one; ``dt`` is the length of the sub-step in fs.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from integrators.bath import Bath
from integrators.state import Evaluation, MDState


def kinetic_energy(velocities: Tensor, masses: Tensor) -> Tensor:
    """Return the kinetic energy of each replica, eV, shape (...,).

    Atoms of infinite mass are held in place and have none.
    """
    moving = masses.where(masses.isfinite(), 0.0)
    return 0.5 * (moving[:, None] * velocities.square()).sum(dim=(-2, -1))


def kick(state: MDState, dt: float, evaluation: Evaluation) -> MDState:
    """Apply ``v <- v + dt F / m`` with the forces of ``evaluation``, known at these positions."""
    velocities = state.velocities + dt * evaluation.forces / state.masses[:, None]
    return replace(state, velocities=velocities)


def drift(state: MDState, dt: float) -> MDState:
    """Apply ``x <- x + dt v`` and forget the forces of the old positions."""
    return replace(state, positions=state.positions + dt * state.velocities, evaluations={})


def ornstein_uhlenbeck(state: MDState, dt: float, bath: Bath, noise: Tensor) -> MDState:
    """Apply ``v <- c v + sqrt((1 - c²) kT / m) xi`` with ``c = exp(-gamma dt)``.

    The exact solution of the thermostat's part of the Langevin equation for any ``dt``, with a
    friction of its own for each atom if the bath has one. The kinetic energy that it adds goes to
    ``heat``.

    Parameters
    ----------
    noise : Tensor, shape (..., N, 3)
        The standard normal numbers xi.
    """
    v = state.velocities
    c, width = decay_and_width(state, dt, bath)
    velocities = c * v + width * noise
    gained = kinetic_energy(velocities, state.masses) - kinetic_energy(v, state.masses)
    return replace(state, velocities=velocities, heat=state.heat + gained)


def decay_and_width(state: MDState, dt: float, bath: Bath) -> tuple[Tensor, Tensor]:
    """Return c = exp(-gamma dt) and sqrt((1 - c²) kT / m) of every atom, shape (N or 1, 1)."""
    like = state.velocities
    friction = torch.as_tensor(bath.friction, dtype=like.dtype, device=like.device).reshape(-1, 1)
    # expm1 keeps 1 - c² accurate for a weak friction in single precision
    width = torch.sqrt(-torch.expm1(-2.0 * friction * dt) * bath.kT / state.masses[:, None])
    return torch.exp(-friction * dt), width


def still_center(state: MDState) -> MDState:
    """Take away the motion of the centre of mass of each replica; its energy leaves as heat.

    Where atoms are held in place, the centre of mass rests in them.
    """
    if not bool(state.masses.isfinite().all()):
        return state
    share = state.masses[:, None] / state.masses.sum()
    center = (share * state.velocities).sum(dim=-2, keepdim=True)
    lost = 0.5 * state.masses.sum() * center.square().sum(dim=(-2, -1))
    return replace(state, velocities=state.velocities - center, heat=state.heat - lost)
