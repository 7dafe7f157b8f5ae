"""Where a check starts: relaxed and equilibrated with the student, then beside the teacher."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from ase import Atoms

from integrators.state import MDState, Potential
from mts_driver.progress import Progress
from mts_driver.simulation.bond_lengths import average_lengths
from mts_driver.simulation.dynamics import DynamicsSettings, advance, thermal_start
from mts_driver.simulation.equilibrate import EQUILIBRATION_FRICTION_PER_PS
from mts_driver.simulation.relax import relax
from mts_driver.structures.held_bonds import held_pairs
from mts_driver.structures.masses import repartitioned_masses
from mts_driver.time_steps import MOST_FLEXIBLE_FS
from mts_driver.validation.held import Held

RELAX_STEPS = 200
SETTLING_SHARE, LONGEST_SETTLING_PS = 0.2, 1.0
"""The liquid that a student has equilibrated gives off heat when the teacher joins. It does so with
strong friction, for so long in proportion to the run, before anything is measured."""


def settled(
    atoms: Atoms,
    teacher: Potential | None,
    student: Potential,
    protocol: DynamicsSettings,
    picoseconds: float,
    report: Progress,
    hold: Callable[[Atoms], Held] | None = None,
) -> tuple[Atoms | None, Held | None]:
    """Relax and equilibrate with the student, then settle beside the teacher.

    Parameters
    ----------
    picoseconds : float
        Of the student alone; 0 leaves the atoms where they are.
    hold : callable, optional
        Makes what is held from the atoms that the student has equilibrated; bonds are flexible
        until then.

    Returns
    -------
    ase.Atoms or None, Held or None
        The atoms, None if that blew up; what is held.
    """
    if picoseconds == 0:
        return atoms, hold and hold(atoms)
    relaxed, force = relax(
        atoms,
        student,
        steps=RELAX_STEPS,
        report=lambda step, force: report(f"relaxation, {force:.1f} eV/Å", step, RELAX_STEPS),
    )
    if not math.isfinite(force):
        return None, None
    first = replace(_gentle(protocol, 1), picoseconds=picoseconds)
    if hold is not None:
        inner_fs = protocol.outer_fs / math.ceil(protocol.outer_fs / MOST_FLEXIBLE_FS)
        first = replace(first, inner_fs=min(protocol.inner_fs, inner_fs))
    there = _advanced(relaxed, None, student, first, "equilibration with the student", report)
    if there is None:
        return None, None
    held = hold and hold(there)
    settling_ps = min(SETTLING_SHARE * protocol.picoseconds, LONGEST_SETTLING_PS)
    if teacher is None or 1e3 * settling_ps < protocol.outer_fs:
        return there, held
    second = replace(_gentle(protocol, 2), picoseconds=settling_ps)
    stage = "settling beside the teacher"
    return _advanced(there, teacher, student, second, stage, report, held), held


def _advanced(
    atoms: Atoms,
    teacher: Potential | None,
    student: Potential,
    protocol: DynamicsSettings,
    stage: str,
    report: Progress,
    held: Held | None = None,
) -> Atoms | None:
    """Return a copy where a run from thermal velocities ends; None if it blew up."""
    end = advance(
        *(thermal_start_of(atoms, protocol, held), teacher, student, protocol),
        look=lambda state: report(stage, state.step, protocol.steps),
        constraints=None if held is None else held.constraints,
    )
    if end is None:
        return None
    there: Atoms = atoms.copy()
    there.positions = end.positions.numpy()
    return there


def averages_held(
    atoms: Atoms,
    student: Potential,
    protocol: DynamicsSettings,
    *,
    rigid_water: bool,
    report: Progress,
) -> Callable[[Atoms], Held]:
    """Return what holds bonds at the average lengths of the student, for `settled`."""
    masses_Da = repartitioned_masses(atoms, protocol.hydrogen_mass_Da)

    def hold(equilibrated: Atoms) -> Held:
        lengths_A = average_lengths(
            *(equilibrated, masses_Da, student, held_pairs(atoms, rigid_water=rigid_water)),
            temperature_K=protocol.temperature_K,
            seed=protocol.seed,
            report=lambda step, of: report("average bond lengths", step, of),
        )
        return Held(atoms, masses_Da, lengths_A, rigid_water)

    return hold


def thermal_start_of(atoms: Atoms, protocol: DynamicsSettings, held: Held | None) -> MDState:
    """Return the atoms with thermal velocities, on the manifold of what is held."""
    if held is None:
        return thermal_start(atoms, protocol)
    return held.start(atoms, temperature_K=protocol.temperature_K, seed=protocol.seed)


def _gentle(protocol: DynamicsSettings, number: int) -> DynamicsSettings:
    return replace(
        protocol,
        friction_per_ps=EQUILIBRATION_FRICTION_PER_PS,
        high_pass=False,
        seed=protocol.seed + number,
    )
