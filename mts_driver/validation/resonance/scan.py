"""The scan over outer steps, masses, thermostats and held bonds; resumable after every point."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ase import Atoms

from integrators.constraints import Distances
from integrators.state import Potential
from mts_driver.progress import Progress
from mts_driver.simulation.bond_lengths import average_lengths
from mts_driver.simulation.equilibrate import equilibrate
from mts_driver.structures.files import fingerprint
from mts_driver.structures.held_bonds import distances, held_pairs
from mts_driver.structures.masses import repartitioned_masses
from mts_driver.thermostats import HIGH_PASS_NAME
from mts_driver.time_steps import MOST_FLEXIBLE_FS
from mts_driver.validation.drift import nve_respa_drift
from mts_driver.validation.resonance.judge import faults, recommend
from mts_driver.validation.resonance.point import run_point
from mts_driver.validation.resonance.points import Point, ScanSettings
from mts_driver.validation.resonance.row import as_row
from mts_driver.validation.resonance.scan_state import ScanState


def scan(
    atoms: Atoms,
    teacher: Potential,
    student: Potential,
    settings: ScanSettings,
    *,
    state_file: Path,
    report: Progress,
) -> dict[str, Any]:
    """Run all points that ``state_file`` does not hold yet, and judge them.

    Returns
    -------
    dict
        What `recommend` returns, the settings, ``bond_lengths_A`` of points with held bonds,
        ``reference`` and ``scan``, a row a point.

    Raises
    ------
    UserError
        If ``state_file`` belongs to other settings, masses cannot be repartitioned, or bonds cannot
        be held.
    """
    noise = {"noise": HIGH_PASS_NAME} if settings.high_pass else {}
    identity = {**asdict(settings), "structure": fingerprint(atoms), **noise}
    state = ScanState.load(state_file, identity)
    points = list(settings.points())
    for mass in settings.hydrogen_mass_Da:
        repartitioned_masses(atoms, mass)  # finds what cannot be repartitioned before any work
    start = _equilibrated(atoms, student, settings, report)
    for point in points[len(state.rows) :]:
        held = _held(start, student, settings, state, report) if point.constrained else None
        row = _row(start, teacher, student, settings, point, held, state.rows, report)
        state.rows.append(row)
        state.save()
    for row in state.rows:
        row["faults"] = faults(row, settings.temperature_K)
        row["safe"] = not row["faults"]
    reference, *rest = state.rows
    return {
        **recommend(rest, settings.friction_per_ps, settings.temperature_K),
        **asdict(settings),
        "atoms": len(atoms),
        "bond_lengths_A": state.lengths_A,
        "reference": reference,
        "scan": rest,
    }


def _equilibrated(
    atoms: Atoms, student: Potential, settings: ScanSettings, report: Progress
) -> Atoms:
    if settings.equilibrate_ps == 0:
        return atoms
    return equilibrate(
        atoms,
        repartitioned_masses(atoms, 0.0),
        student,
        temperature_K=settings.temperature_K,
        picoseconds=settings.equilibrate_ps,
        timestep_fs=min(settings.inner_fs, MOST_FLEXIBLE_FS),
        seed=settings.seed,
        report=lambda step, of: report("equilibration with the student", step, of),
    )


def _held(
    atoms: Atoms, student: Potential, settings: ScanSettings, state: ScanState, report: Progress
) -> Distances:
    """Return bonds to hydrogen at the average lengths of the student, which are kept."""
    pairs = held_pairs(atoms, rigid_water=settings.rigid_water)
    if state.lengths_A is None:
        state.lengths_A = average_lengths(
            atoms,
            repartitioned_masses(atoms, settings.heaviest_Da),
            student,
            pairs,
            temperature_K=settings.temperature_K,
            timestep_fs=min(settings.inner_fs, MOST_FLEXIBLE_FS),
            seed=settings.seed,
            report=lambda step, of: report("average bond lengths", step, of),
        )
        state.save()
    return distances(pairs, state.lengths_A)


def _row(
    atoms: Atoms,
    teacher: Potential,
    student: Potential,
    settings: ScanSettings,
    point: Point,
    held: Distances | None,
    before: list[dict[str, Any]],
    report: Progress,
) -> dict[str, Any]:
    name = f"{point.outer_fs:g} fs, {point.setup.label(settings.friction_per_ps)}"
    measured = run_point(
        atoms,
        teacher,
        student,
        point,
        temperature_K=settings.temperature_K,
        picoseconds=settings.picoseconds,
        replicas=settings.replicas,
        seed=settings.seed,
        report=lambda step, of: report(name, step, 2 * of),
        held=held,
    )
    # without a thermostat its friction is no matter
    same = (point.outer_fs, point.inner_fs, point.hydrogen_mass_Da, point.constrained)
    known = [row for row in before if _without_a_thermostat(row) == same]
    if known:
        drift = known[0]["drift_meV_atom_ps"]
    else:
        found = nve_respa_drift(
            [atoms],
            teacher,
            student,
            outer_fs=point.outer_fs,
            inner_fs=point.inner_fs,
            picoseconds=settings.picoseconds,
            temperature_K=settings.temperature_K,
            hydrogen_mass_Da=point.hydrogen_mass_Da,
            held=held,
            seeds=(settings.seed,),
            report=lambda _, step, of: report(name, of + step, 2 * of),
        ).mean
        drift = found if math.isfinite(found) else None
    return as_row(atoms, settings, point, measured, drift, before)


def _without_a_thermostat(row: dict[str, Any]) -> tuple[float, float, float, bool]:
    return row["outer_fs"], row["inner_fs"], row["hmr"], row["constrained"]
