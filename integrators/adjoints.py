"""Every operation of a splitting backwards: the state before it, and the gradient by that state.

With a loss L, λ = ∂L/∂x and μ = ∂L/∂v, going back through an operation means

    Drift   x ← x − dt v                μ ← μ + dt λ
    OU      v ← (v − width ξ)/c         μ ← c μ          with the noise ξ that it had
    Kick    v ← v − dt F(x)/m           λ ← λ + (∂F/∂x)ᵀ u,  ∂L/∂p ← ∂L/∂p + (∂F/∂p)ᵀ u,  u = dt μ/m

A pull is linear in u, and positions stay between two drifts: kicks there, of neighbouring inner
steps and of all levels, are added up before each potential is pulled once. The scheme of Greener,
PNAS 2025, 122, e2426058122, is this for one splitting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from integrators.bath import Bath
from integrators.levels import Levels
from integrators.linearized import Linearized, linearized
from integrators.noise import Noise
from integrators.propagators import decay_and_width, drift, kick
from integrators.splitting import OU, Drift, Kick, Operation
from integrators.state import MDState


@dataclass(frozen=True, eq=False)
class Adjoint:
    """Gradient of a loss by the present state and by parameters.

    Attributes
    ----------
    positions, velocities : Tensor, shape (..., N, 3)
        By the state, without what ``pending`` still adds.
    parameters : tuple of Tensor
        By the parameters, as far as the trajectory has been walked back.
    pending : mapping
        Potentials at the present positions, by their identity, each with the direction along which
        its forces are to be pulled.
    """

    positions: Tensor
    velocities: Tensor
    parameters: tuple[Tensor, ...]
    pending: Mapping[int, tuple[Linearized, Tensor]] = field(default_factory=dict)

    def plus(self, positions: Tensor, velocities: Tensor) -> Adjoint:
        """Return it with what a loss at the present time adds."""
        return replace(
            self, positions=self.positions + positions, velocities=self.velocities + velocities
        )

    def times(self, factor: Tensor) -> Adjoint:
        """Return it with the gradient by the state scaled."""
        return replace(self, positions=factor * self.positions, velocities=factor * self.velocities)

    def pulled(self) -> Adjoint:
        """Return it with nothing pending: every potential is pulled, once."""
        positions, parameters = self.positions, list(self.parameters)
        for found, along in self.pending.values():
            by_positions, by_parameters = found.pull(along)
            positions = positions + by_positions
            for k, more in enumerate(by_parameters):
                if more is not None:
                    parameters[k] = parameters[k] + more
        return replace(self, positions=positions, parameters=tuple(parameters), pending={})


def step_back(
    state: MDState,
    adjoint: Adjoint,
    levels: Levels,
    splitting: Sequence[Operation],
    parameters: Sequence[Tensor],
    *,
    timestep: float,
    bath: Bath | None,
    noise: Noise | None,
) -> tuple[MDState, Adjoint]:
    """Undo one outer step, from the last operation to the first.

    Parameters
    ----------
    state, adjoint : MDState and Adjoint
        After the step.
    levels, splitting, timestep, bath, noise
        Those of the step.
    parameters : sequence of Tensor
        Leaves by which the gradient is taken.

    Returns
    -------
    MDState, Adjoint
        Before the step; its energies, heat and counters are not those of that time.
    """
    state = replace(state, step=state.step - 1)
    for k, op in reversed(list(enumerate(splitting))):
        dt = float(op.weight) * timestep
        match op:
            case Kick(level=level):
                state, adjoint = undo_kick(state, adjoint, dt, levels, level, parameters)
            case Drift():
                state, adjoint = undo_drift(state, adjoint, dt)
            case OU():
                assert bath is not None and noise is not None
                xi = noise(state.step, k, state.velocities)
                state, adjoint = undo_ornstein_uhlenbeck(state, adjoint, dt, bath, xi)
    return state, adjoint


def stepped_back(
    state: MDState,
    levels: Levels,
    splitting: Sequence[Operation],
    *,
    timestep: float,
    bath: Bath | None,
    noise: Noise | None,
) -> MDState:
    """Undo one outer step without a gradient; arguments as of `step_back`."""
    state = replace(state, step=state.step - 1)
    for k, op in reversed(list(enumerate(splitting))):
        dt = float(op.weight) * timestep
        match op:
            case Kick(level=level):
                state = levels.evaluate(state, level)
                state = kick(state, -dt, state.evaluations[level])
            case Drift():
                state = drift(state, -dt)
            case OU():
                assert bath is not None and noise is not None
                xi = noise(state.step, k, state.velocities)
                state = _without_noise(state, *decay_and_width(state, dt, bath), xi)
    return state


def undo_kick(
    state: MDState,
    adjoint: Adjoint,
    dt: float,
    levels: Levels,
    level: str,
    parameters: Sequence[Tensor],
) -> tuple[MDState, Adjoint]:
    """Undo `integrators.propagators.kick`; what is pulled is pulled at the drift before it."""
    pending, along = dict(adjoint.pending), dt * adjoint.velocities / state.masses[:, None]
    forces = torch.zeros_like(state.velocities)
    for potential, factor in levels.parts(level):
        key = id(potential)
        if key not in pending:
            found = linearized(potential, state.positions, state.cell, parameters)
            pending[key] = found, torch.zeros_like(along)
        found, so_far = pending[key]
        forces = forces + factor * found.evaluation.forces
        pending[key] = found, so_far + factor * along
    velocities = state.velocities - dt * forces / state.masses[:, None]
    return replace(state, velocities=velocities), replace(adjoint, pending=pending)


def undo_drift(state: MDState, adjoint: Adjoint, dt: float) -> tuple[MDState, Adjoint]:
    """Undo `integrators.propagators.drift`; before it, all kicks at its end are pulled."""
    adjoint = adjoint.pulled()
    velocities = adjoint.velocities + dt * adjoint.positions
    return drift(state, -dt), replace(adjoint, velocities=velocities)


def undo_ornstein_uhlenbeck(
    state: MDState, adjoint: Adjoint, dt: float, bath: Bath, noise: Tensor
) -> tuple[MDState, Adjoint]:
    """Undo `integrators.propagators.ornstein_uhlenbeck` with the noise that it had."""
    c, width = decay_and_width(state, dt, bath)
    return (
        _without_noise(state, c, width, noise),
        replace(adjoint, velocities=c * adjoint.velocities),
    )


def _without_noise(state: MDState, c: Tensor, width: Tensor, noise: Tensor) -> MDState:
    return replace(state, velocities=(state.velocities - width * noise) / c)
