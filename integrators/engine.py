"""Molecular dynamics on tensors: apply a splitting from left to right, again and again."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from integrators.bath import Bath
from integrators.constraints import Constraints
from integrators.levels import FULL, Levels
from integrators.noise import CounterNoise, Noise
from integrators.propagators import (
    drift,
    fill_across,
    generalised_langevin,
    kick,
    kinetic_energy,
    ornstein_uhlenbeck,
    project,
    still_center,
    thermal_extra,
)
from integrators.splitting import OU, Drift, Kick, Operation, Splitting
from integrators.state import MDState

OpObserver = Callable[[int, Operation, MDState], None]
"""``on_op(k, op, state)``: called after operation ``k`` of the splitting."""
StepObserver = Callable[[MDState], None]
"""``on_step(state)``: called after each outer step."""


def step(
    state: MDState,
    levels: Levels,
    splitting: Splitting | Sequence[Operation],
    *,
    timestep: float,
    bath: Bath | None = None,
    noise: Noise | None = None,
    on_op: OpObserver | None = None,
    fixcom: bool = False,
    constraints: Constraints | None = None,
) -> MDState:
    """Advance one outer step, applying the splitting from left to right.

    Parameters
    ----------
    state : MDState
        Left as it is.
    levels : Levels
        Where the forces come from, e.g. ``TwoLevel(teacher, student)``.
    splitting : Splitting
        E.g. ``respa_baoab(6)``.
    timestep : float
        Outer time step, fs.
    bath, noise : Bath and Noise, optional
        The thermostat, for splittings that have one.
    on_op : callable, optional
        Sees the state after each operation; a thermometer belongs here, behind the OU steps.
    fixcom : bool
        Whether the centre of mass is kept still, after every kick and every OU step as in i-PI.
    constraints : Constraints, optional
        Distances that are held; the state is on their manifold.

    Returns
    -------
    MDState
        With ``step`` one higher.
    """
    for k, op in enumerate(splitting):
        dt = float(op.weight) * timestep
        match op:
            case Kick(level=level):
                state = levels.evaluate(state, level)
                state = kick(state, dt, state.evaluations[level])
            case Drift():
                state = drift(state, dt, constraints)
            case OU():
                if bath is None or noise is None:
                    raise ValueError("the splitting has a thermostat: give bath= and noise=")
                state = _thermostat(state, dt, bath, noise, k, len(splitting), constraints)
        if constraints is not None and not isinstance(op, Drift):
            state = project(state, constraints, thermostat=isinstance(op, OU))
        if fixcom and not isinstance(op, Drift):
            state = still_center(state)
        if on_op is not None:
            on_op(k, op, state)
    return replace(state, step=state.step + 1)


def _thermostat(
    state: MDState,
    dt: float,
    bath: Bath,
    noise: Noise,
    k: int,
    start: int,
    constraints: Constraints | None,
) -> MDState:
    if bath.coloured is None:
        return ornstein_uhlenbeck(state, dt, bath, noise(state.step, k, state.velocities))
    held = constraints is not None and constraints.count > 0
    draws = bath.coloured.draws(held=held)
    like = state.velocities.new_empty((draws, *state.velocities.shape))
    if state.extra is None:
        # no operation has this number
        first = noise(state.step, start, like[: bath.coloured.extra])
        state = thermal_extra(state, bath, first)
    drawn = noise(state.step, k, like)
    if constraints is not None and held:
        state = fill_across(state, bath, constraints, drawn[-1])
    return generalised_langevin(state, dt, bath, drawn[: bath.coloured.extra + 1])


def run(
    state: MDState,
    levels: Levels,
    splitting: Splitting,
    *,
    steps: int,
    timestep: float,
    bath: Bath | None = None,
    seed: int | None = None,
    on_step: StepObserver | None = None,
    on_op: OpObserver | None = None,
    constraints: Constraints | None = None,
) -> MDState:
    """Advance ``steps`` outer steps and return the last state.

    A run continued from any state with the same seed is the run that was never interrupted: the
    noise depends on (seed, step, operation) only.

    Raises
    ------
    ValueError
        If the levels are not those of the splitting, the time step is not positive, the splitting
        has a thermostat and ``bath`` or ``seed`` is missing, or it has none and ``bath`` is given;
        or atoms whose distance is held have baths that differ.
    """
    if set(splitting.levels) != set(levels.names):
        raise ValueError(
            f"splitting {splitting.name!r} kicks with the levels {splitting.levels}, the forces "
            f"offer {levels.names}; use TwoLevel with respa_baoab and SingleLevel with baoab, obabo"
        )
    if not (math.isfinite(timestep) and timestep > 0):
        raise ValueError(f"timestep is {timestep}; it must be positive (fs)")
    if steps < 0:
        raise ValueError(f"steps is {steps}; it must be zero or positive")
    if splitting.has_ou and (bath is None or seed is None):
        raise ValueError(
            f"splitting {splitting.name!r} has a thermostat: give bath= and seed=, "
            "or use splitting.without_ou()"
        )
    if bath is not None and not splitting.has_ou:
        raise ValueError(f"splitting {splitting.name!r} has no thermostat: leave bath out")
    noise = None if seed is None else CounterNoise(seed)
    if constraints is not None and bath is not None:
        friction = np.broadcast_to(np.asarray(bath.friction, float), state.masses.shape)
        constraints.require_one_friction(friction)
    for _ in range(steps):
        state = step(
            state,
            levels,
            splitting,
            timestep=timestep,
            bath=bath,
            noise=noise,
            on_op=on_op,
            constraints=constraints,
        )
        if on_step is not None:
            on_step(state)
    return state


def potential_energy(state: MDState) -> Tensor:
    """Return the energy of the teacher (or of the only potential) of each replica, eV.

    Raises
    ------
    ValueError
        If it is not known at the present positions, as before the first step.
    """
    if FULL not in state.evaluations:
        raise ValueError("the potential energy is not known yet: call levels.evaluate first")
    return state.evaluations[FULL].energy


def conserved_energy(state: MDState) -> Tensor:
    """Return kinetic + teacher energy - heat of each replica, eV: constant but for the error.

    The error is of second order without a thermostat and for a single inner step. With the
    thermostat inside ``n > 1`` inner steps the slow force does work on velocities that O changes
    between two slow kicks. Its spread is a random walk, of first order in the outer step, and its
    mean climbs, by γ Δt² <F_slow²> / (12 m) per degree of freedom and time: what a slow kick adds
    to velocities is taken back by the next one, but for the part that the friction γ took before.
    That is no heating, and does not bias averages; measure drifts without a thermostat.
    """
    return kinetic_energy(state.velocities, state.masses) + potential_energy(state) - state.heat
