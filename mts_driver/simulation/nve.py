"""One constant-energy run with two force levels, and how fast its energy drifts."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from ase import Atoms

from integrators.constraints import BondsLost, Constraints, Distances
from integrators.engine import conserved_energy, step
from integrators.levels import TwoLevel
from integrators.propagators import still_center
from integrators.splitting import SLOW, respa_baoab
from integrators.state import Evaluation, MDState, Potential
from mts_driver.simulation.thermal_state import held_thermal_state
from mts_driver.structures.masses import repartitioned_masses

ENERGY_BOUND_EV = 0.25
"""Change of the energy per atom that ends a run: about six times the thermal energy at 300 K."""
FORCE_BOUND_EV_A = 60.0
"""|F_teacher - F_student| that ends a run: the atoms are on top of one another."""
FLIGHT_BOUND_A = 200.0
"""Displacement that ends a run, before a neighbour list is asked for atoms that are far away."""


@dataclass(frozen=True)
class NveRun:
    """What one run showed.

    Attributes
    ----------
    drift_meV_atom_ps : float
        Slope of K + U_teacher per moving atom; infinite if the run blew up.
    max_force_difference_eV_A : float
        Largest |F_teacher - F_student| on an atom, before clipping.
    clip_events : int
        Slow forces that were clipped.
    """

    drift_meV_atom_ps: float
    max_force_difference_eV_A: float
    clip_events: int


def nve_run(
    start: MDState,
    teacher: Potential,
    student: Potential,
    *,
    outer_fs: float,
    inner_steps: int,
    steps: int,
    on_step: Callable[[int], None] | None = None,
    constraints: Constraints | None = None,
) -> NveRun:
    """Run RESPA without a thermostat; a run that blows up ends there.

    Parameters
    ----------
    start : MDState
        See `nve_start`.
    teacher, student : Potential
        Bound to its atoms.
    outer_fs : float
        Step of the teacher; the student gets ``inner_steps`` in each.
    steps : int
        Outer steps.
    on_step : callable, optional
        ``on_step(steps_done)``.
    constraints : Constraints, optional
        Distances that are held, with the start on their manifold.
    """
    levels = TwoLevel(_Guarded(teacher, start), _Guarded(student, start))
    splitting = respa_baoab(inner_steps).without_ou()
    state = levels.evaluate(start, SLOW)
    energies = [_energy_per_atom(state)]
    try:
        _check(state, energies)
        for done in range(1, steps + 1):
            state = step(state, levels, splitting, timestep=outer_fs, constraints=constraints)
            energies.append(_energy_per_atom(state))
            _check(state, energies)
            if on_step is not None:
                on_step(done)
    except (_BlowUp, BondsLost):
        slope = math.inf
    else:
        time_ps = 1e-3 * outer_fs * np.arange(len(energies))
        slope = 1e3 * float(np.polyfit(time_ps, energies, 1)[0])
    return NveRun(slope, float(state.max_force_difference), int(state.clip_events))


def nve_start(
    atoms: Atoms,
    *,
    temperature_K: float,
    hydrogen_mass_Da: float,
    seed: int,
    held: Distances | None = None,
) -> tuple[MDState, Constraints | None]:
    """Return the frame with Maxwell-Boltzmann velocities, and no total momentum if all can move.

    And the constraints for ``held``, on whose manifold the frame then is.
    """
    mass = hydrogen_mass_Da if bool((atoms.numbers == 1).any()) else 0.0
    masses_Da = repartitioned_masses(atoms, mass)
    start, constraints = held_thermal_state(
        atoms, masses_Da, held, temperature_K=temperature_K, seed=seed
    )
    # what stops here is not heat of a thermostat
    return replace(still_center(start), heat=start.heat), constraints


class _BlowUp(Exception):
    """The run cannot go on."""


@dataclass(frozen=True)
class _Guarded:
    """A potential that is not asked about atoms that have flown away in the inner loop."""

    potential: Potential
    start: MDState

    def __call__(self, positions: torch.Tensor, cell: torch.Tensor) -> Evaluation:
        # NaN compares false: it ends the run as well
        if not bool((positions - self.start.positions).abs().max() < FLIGHT_BOUND_A):
            raise _BlowUp
        return self.potential(positions, cell)


def _check(state: MDState, energies: Sequence[float]) -> None:
    """End a run whose energy or force difference is beyond the bounds."""
    if not (
        abs(energies[-1] - energies[0]) < ENERGY_BOUND_EV
        and float(state.max_force_difference) < FORCE_BOUND_EV_A
    ):
        raise _BlowUp


def _energy_per_atom(state: MDState) -> float:
    return float(conserved_energy(state)) / max(int(state.masses.isfinite().sum()), 1)
