"""How ``mts prepare`` finds its student, and brings a structure to where dynamics can start."""

from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from rich.console import Console

from mts_driver.errors import UserError
from mts_driver.runs.input.settings import Protocol

_RELAX_ABOVE_EV_A = 6.0
"""Liquid water at 300 K stays below; overlaps as packmol leaves them are far above."""


def find(student: str) -> tuple[str | None, Path | None]:
    """Return the specification (None: no student) and, for a file of the user, its path."""
    if student == "none":
        return None, None
    rest = student.removeprefix("student:")
    if Path(rest).is_file():
        return f"student:{rest}", Path(rest)
    if rest == student and student.partition(":")[0] in ("ase", "so3lr"):
        return student, None
    if "/" in rest or rest.endswith(".safetensors"):
        raise UserError(
            f"--student {student!r} does not exist: make one with `mts distill`, or use the "
            "packaged one, water."
        )
    return f"student:{rest}", None


def framed(console: Console, structure: Path, atoms: Atoms) -> Atoms:
    """Give the atoms the cell that i-PI needs, as i-PI has it, and say so."""
    from mts_driver.structures.files import along_axes, boxed

    atoms, made_box = boxed(atoms)
    if made_box:
        console.print(
            f"{structure}: not periodic: i-PI has it in a box of "
            f"{' × '.join(f'{x:.0f}' for x in atoms.cell.lengths())} Å, which the models do not see"
        )
    atoms, turned = along_axes(atoms)
    if turned:
        console.print(
            f"{structure}: turned with its cell, as i-PI needs a along x and b in the plane of x, y"
        )
    return atoms


def settle(
    console: Console,
    atoms: Atoms,
    masses: np.ndarray,
    teacher: Any,
    student: Any,
    *,
    minimise: bool,
    equilibrate_ps: float,
    protocol: Protocol,
) -> Atoms:
    """Relax with the teacher if need be, then equilibrate with the student.

    Raises
    ------
    UserError
        If forces stay too large, or the student leaves the teacher's surface.
    """
    from mts_driver.cli.stages import StageProgress
    from mts_driver.runs.input.write import CLIP_EV_A
    from mts_driver.simulation.equilibrate import equilibrate, largest_difference

    if minimise:
        atoms = _relax_if_needed(console, atoms, teacher)
    if not equilibrate_ps or student is None:
        return atoms
    with StageProgress(console) as progress:
        atoms = equilibrate(
            atoms,
            masses,
            student,
            temperature_K=protocol.temperature_K,
            picoseconds=equilibrate_ps,
            timestep_fs=protocol.inner_fs,
            seed=protocol.seed,
            report=lambda step, of: progress("equilibration with the student", step, of),
        )
    _check_equilibrated(atoms, teacher)
    gap = largest_difference(atoms, teacher, student)
    if not gap < CLIP_EV_A:
        raise UserError(
            f"the student {protocol.student!r} left the teacher's surface while it equilibrated "
            f"the structure: they differ by {gap:.1f} eV/Å. Start from an equilibrated structure "
            "with --equilibrate-ps 0, or distil a student from this one."
        )
    console.print(
        f"equilibrated for {equilibrate_ps:g} ps with the student (friction 10/ps): it differs "
        f"from the teacher by at most {gap:.2f} eV/Å"
    )
    return atoms


def _check_equilibrated(atoms: Any, potential: Any) -> None:
    """Ask the teacher what it thinks of the structure that the student has made."""
    from mts_driver.simulation.relax import largest_force

    force = largest_force(atoms, potential)
    if not force <= 2 * _RELAX_ABOVE_EV_A:  # also true of NaN
        raise UserError(
            f"the equilibration with the student ended with a force of {force:.3g} eV/Å on an "
            "atom: the student does not hold this structure together. Train a better one with `mts "
            "distill` on this system, or start as it is with --equilibrate-ps 0."
        )


def _relax_if_needed(console: Console, atoms: Any, potential: Any) -> Any:
    from mts_driver.simulation.relax import largest_force, relax

    before = largest_force(atoms, potential)
    if before <= _RELAX_ABOVE_EV_A:
        console.print(f"largest force {before:.1f} eV/Å: no relaxation needed")
        return atoms
    with console.status("relaxing ...") as status:
        atoms, after = relax(
            atoms,
            potential,
            report=lambda step, fmax: status.update(f"relaxing: step {step}, {fmax:.1f} eV/Å"),
        )
    if after > _RELAX_ABOVE_EV_A:
        raise UserError(
            f"the structure has forces of {before:.1f} eV/Å, and {after:.1f} after relaxation: "
            "repair overlapping atoms, or insist with --no-minimise."
        )
    console.print(f"largest force {before:.1f} eV/Å: relaxed with the teacher to {after:.1f}")
    return atoms
