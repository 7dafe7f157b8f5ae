"""Bring a structure to where dynamics can start: relaxed if need be, then equilibrated."""

from collections.abc import Callable

import numpy as np
from ase import Atoms

from integrators.levels import DEFAULT_CLIP
from integrators.state import Potential
from mts_driver.errors import UserError
from mts_driver.progress import Progress
from mts_driver.simulation.equilibrate import (
    EQUILIBRATION_FRICTION_PER_PS,
    equilibrate,
    largest_difference,
)
from mts_driver.simulation.relax import largest_force, relax

RELAX_ABOVE_EV_A = 6.0
"""Liquid water at 300 K stays below; overlaps as packmol leaves them are far above."""
RELAX_STEPS = 200

Tell = Callable[[str], None]


def settle(
    atoms: Atoms,
    masses_Da: np.ndarray,
    teacher: Potential,
    student: Potential | None,
    *,
    minimise: bool,
    equilibrate_ps: float,
    temperature_K: float,
    timestep_fs: float,
    seed: int,
    tell: Tell,
    report: Progress,
) -> Atoms:
    """Relax with the teacher if a force is too large, then equilibrate with the student.

    Parameters
    ----------
    masses_Da : ndarray, shape (N,)
        Those of the run to come.
    teacher, student : Potential
        Bound to the atoms; without a student there is no equilibration.
    minimise : bool
        Whether to relax at all.
    equilibrate_ps, temperature_K, timestep_fs, seed
        Of the equilibration; 0 ps for none.
    tell : callable
        Takes sentences for the user.
    report : callable
        ``report(stage, done, total)``.

    Returns
    -------
    ase.Atoms
        A copy with other positions, or the same atoms.

    Raises
    ------
    UserError
        If forces stay too large, or the student leaves the teacher's surface.
    """
    if minimise:
        atoms = _relaxed(atoms, teacher, tell, report)
    if equilibrate_ps and student is None:
        tell(
            "not equilibrated, which is done with a student: leave out the first picoseconds of "
            "the run, or start from the end of another one"
        )
    if not equilibrate_ps or student is None:
        return atoms
    atoms = equilibrate(
        atoms,
        masses_Da,
        student,
        temperature_K=temperature_K,
        picoseconds=equilibrate_ps,
        timestep_fs=timestep_fs,
        seed=seed,
        report=lambda step, of: report("equilibration with the student", step, of),
    )
    force = largest_force(atoms, teacher)
    if not force <= 2 * RELAX_ABOVE_EV_A:  # also true of NaN
        raise UserError(
            f"the equilibration with the student ended with a force of {force:.3g} eV/Å on an "
            "atom: the student does not hold this structure together. Train a better one with `mts "
            "distill` on this system, or start as it is with equilibrate_ps=0."
        )
    gap = largest_difference(atoms, teacher, student)
    if not gap < DEFAULT_CLIP:
        raise UserError(
            "the student left the teacher's surface while it equilibrated the structure: they "
            f"differ by {gap:.1f} eV/Å. Start from an equilibrated structure with "
            "equilibrate_ps=0, or distil a student from this one."
        )
    tell(
        f"equilibrated for {equilibrate_ps:g} ps with the student (friction "
        f"{EQUILIBRATION_FRICTION_PER_PS:g}/ps): it differs from the teacher by at most "
        f"{gap:.2f} eV/Å"
    )
    return atoms


def _relaxed(atoms: Atoms, teacher: Potential, tell: Tell, report: Progress) -> Atoms:
    before = largest_force(atoms, teacher)
    if before <= RELAX_ABOVE_EV_A:
        tell(f"largest force {before:.1f} eV/Å: no relaxation needed")
        return atoms
    atoms, after = relax(
        atoms,
        teacher,
        steps=RELAX_STEPS,
        report=lambda step, force: report(f"relaxation, {force:.1f} eV/Å", step, RELAX_STEPS),
    )
    if after > RELAX_ABOVE_EV_A:
        raise UserError(
            f"the structure has forces of {before:.1f} eV/Å, and {after:.1f} after relaxation: "
            "repair overlapping atoms, or insist with minimise=False."
        )
    tell(f"largest force {before:.1f} eV/Å: relaxed with the teacher to {after:.1f}")
    return atoms
