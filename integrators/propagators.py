"""The exact sub-steps that splittings are made of, on tensors.

Every function takes a state and returns a new one; ``dt`` is the length of the sub-step in fs.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from integrators.bath import Bath
from integrators.constraints import Constraints
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


def drift(state: MDState, dt: float, constraints: Constraints | None = None) -> MDState:
    """Apply ``x <- x + dt v``, along the manifold of constraints, and forget the old forces."""
    if constraints is None:
        return replace(state, positions=state.positions + dt * state.velocities, evaluations={})
    x, v = constraints.drift(state.positions, state.velocities, state.masses, dt)
    return replace(state, positions=x, velocities=v, evaluations={})


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


def generalised_langevin(state: MDState, dt: float, bath: Bath, noise: Tensor) -> MDState:
    """Apply ``(v, s) <- T (v, s) + S sqrt(kT / m) xi`` of coloured noise, `integrators.gle`.

    Parameters
    ----------
    noise : Tensor, shape (k + 1, ..., N, 3)
        The standard normal numbers xi, those of v first.
    """
    assert bath.coloured is not None and state.extra is not None
    both = torch.cat([state.velocities[None], state.extra])
    decay, spread = (torch.tensor(a).to(both) for a in bath.coloured.propagator(dt))
    width = torch.sqrt(bath.kT / state.masses[:, None])
    found = torch.tensordot(decay, both, 1) + width * torch.tensordot(spread, noise, 1)
    gained = kinetic_energy(found[0], state.masses) - kinetic_energy(both[0], state.masses)
    return replace(state, velocities=found[0], extra=found[1:], heat=state.heat + gained)


def thermal_extra(state: MDState, bath: Bath, noise: Tensor) -> MDState:
    """Give a state the extra velocities of coloured noise at equilibrium, from ``noise``."""
    return replace(state, extra=torch.sqrt(bath.kT / state.masses[:, None]) * noise)


def fill_across(state: MDState, bath: Bath, constraints: Constraints, noise: Tensor) -> MDState:
    """Give velocities the thermal part across the manifold that coloured noise starts from.

    `project` takes it away behind the step; see :mod:`integrators.constraints`.

    Parameters
    ----------
    noise : Tensor, shape (..., N, 3)
        Standard normal numbers.
    """
    thermal = torch.sqrt(bath.kT / state.masses[:, None]) * noise
    across = constraints.across(state.positions, thermal, state.masses)
    gained = kinetic_energy(across, state.masses)  # at right angles to what is there
    return replace(state, velocities=state.velocities + across, heat=state.heat + gained)


def project(state: MDState, constraints: Constraints, *, thermostat: bool) -> MDState:
    """Take from velocities what would change a held length; behind a thermostat that is heat."""
    velocities = constraints.tangent(state.positions, state.velocities, state.masses)
    heat = state.heat
    if thermostat:
        heat = heat + kinetic_energy(velocities, state.masses)
        heat = heat - kinetic_energy(state.velocities, state.masses)
    return replace(state, velocities=velocities, heat=heat)


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
