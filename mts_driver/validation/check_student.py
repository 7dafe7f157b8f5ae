"""What a student is worth for a system, from files to a report: `check`."""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from mts_driver.errors import UserError
from mts_driver.files import check_output, require_writable, write_json
from mts_driver.potentials import load_potential
from mts_driver.potentials.backends import file_and_options
from mts_driver.potentials.load import spec_for
from mts_driver.potentials.student.file import find_student
from mts_driver.processes import keep_memory
from mts_driver.progress import Progress
from mts_driver.structures.files import read_structure, require_file
from mts_driver.thermostats import chosen, high_friction
from mts_driver.time_steps import HELD_INNER_FS, RIGID_INNER_FS, inner_fs_near
from mts_driver.validation.check import CheckSettings, finish
from mts_driver.validation.check import check as run_check
from mts_driver.validation.criteria import problems


@dataclass(frozen=True, eq=False)
class CheckResult:
    """What a check found.

    Attributes
    ----------
    results : dict
        The content of the report: temperatures at the thermostat step (K), errors of forces (eV/Å),
        holes, bonds, energies; None for what could not be measured.
    problems : tuple of str
        What is not good, in words; empty for a good student.
    json_file : Path
        The report.
    frames : tuple of Path
        Files of frames at which the student was wrong, for `distill`.
    """

    results: dict[str, Any]
    problems: tuple[str, ...]
    json_file: Path
    frames: tuple[Path, ...]


def check(
    student: str,
    structure: str | Path,
    *,
    teacher: str = "so3lr",
    picoseconds: float = 10.0,
    outer_fs: float = 6.0,
    inner_fs: float | None = None,
    hydrogen_mass_Da: float = 4.0,
    temperature_K: float = 300.0,
    friction_per_ps: float = 1.0,
    hydrogen_friction_per_ps: float | None = None,
    thermostat: str = "auto",
    high_friction_per_ps: float | None = None,
    constrain_hydrogens: bool = False,
    rigid_water: bool = False,
    equilibrate_ps: float = 0.5,
    seed: int = 1,
    device: str = "cpu",
    json_file: str | Path | None = None,
    work: str | Path | None = None,
    force: bool = False,
    command: str = "mts_driver.check",
    tell: Callable[[str], None] = print,
    report: Progress = lambda *_: None,
) -> CheckResult:
    """Run teacher and student together in this process, and judge the student; `mts check` is this.

    A check that was killed continues where it was at the same call.

    Parameters
    ----------
    student : str
        File of `mts distill`, or name of a packaged student.
    structure : path
        Any file that ASE reads; its last frame.
    teacher : str
        A specification (see `mts_driver.load_potential`), or ``"none"`` for the student alone.
    picoseconds : float
        Length of the run, ps.
    outer_fs, inner_fs : float
        Time steps of teacher and student, fs; the inner one is about 1 by default, 2 where bonds
        to hydrogen are held, and 4 with rigid water.
    hydrogen_mass_Da : float
        Mass of hydrogens, Da, taken from their heavy atoms; 0: natural.
    temperature_K, friction_per_ps, hydrogen_friction_per_ps : float
        Of the Langevin thermostat, K and 1/ps.
    thermostat : str
        ``langevin`` or ``high-pass``; ``auto``: what `mts_driver.prepare` would take.
    high_friction_per_ps : float, optional
        Of coloured noise, what it has more on fast motion, 1/ps; 50 by default.
    constrain_hydrogens, rigid_water : bool
        Whether bonds to hydrogen are held, and the distance of both hydrogens of a water molecule
        as well, at their averages over 1 ps of the student.
    equilibrate_ps : float
        Dynamics with the student before, ps; 0 for none.
    seed : int
        Of velocities and noise.
    device : str
        ``cpu`` or ``cuda:0``, of both models.
    json_file : path, optional
        The report; by default ``STUDENT-STRUCTURE-check.json`` here.
    work : path, optional
        Folder of holes and state; by default that of the report, without its suffix.
    force : bool
        Whether to replace a report, or the state of another check.
    command : str
        Kept in the report.
    tell, report : callable
        Take sentences for the user, and ``(stage, done, total)``.

    Returns
    -------
    CheckResult
        The findings.

    Raises
    ------
    UserError
        If something cannot be, or ``work`` holds the state of another check.

    Notes
    -----
    What is judged, and with which bounds, is in `mts_driver.validation.criteria`.
    """
    name, options = file_and_options(str(student).removeprefix("student:"))
    file = find_student(name)
    atoms = read_structure(structure, tell=tell)
    name = require_file(structure, name="structure").stem
    target = Path(f"{file.stem}-{name}-check.json") if json_file is None else Path(json_file)
    check_output(target, name="json_file", suffix=".json", force=force)
    folder = target.with_suffix("") if work is None else Path(work)
    require_writable(folder, name=f"work={str(folder)!r}")
    if inner_fs is None:
        held_fs = HELD_INNER_FS if constrain_hydrogens else 1.0
        inner_fs = inner_fs_near(RIGID_INNER_FS if rigid_water else held_fs, outer_fs)
    thermostat = chosen(
        thermostat,
        outer_fs=outer_fs,
        friction_per_ps=friction_per_ps,
        hydrogen_friction=hydrogen_friction_per_ps is not None,
    )
    settings = CheckSettings(
        student=student,
        student_sha256=sha256(file.read_bytes()).hexdigest(),
        teacher=teacher,
        picoseconds=picoseconds,
        outer_fs=outer_fs,
        inner_fs=inner_fs,
        hydrogen_mass_Da=hydrogen_mass_Da,
        temperature_K=temperature_K,
        friction_per_ps=friction_per_ps,
        hydrogen_friction_per_ps=(
            friction_per_ps if hydrogen_friction_per_ps is None else hydrogen_friction_per_ps
        ),
        equilibrate_ps=equilibrate_ps,
        seed=seed,
        thermostat=thermostat,
        high_friction_per_ps=high_friction(
            high_friction_per_ps, high_pass=thermostat == "high-pass"
        ),
        constrain_hydrogens=constrain_hydrogens,
        rigid_water=rigid_water,
    )
    if settings.constrained and hydrogen_friction_per_ps not in (None, friction_per_ps):
        raise UserError(
            "hydrogen_friction_per_ps with constrained hydrogens: atoms whose bond is held must "
            "have one friction; leave one of the two out."
        )
    numbers = atoms.numbers.tolist()
    settings.protocol(numbers)  # finds impossible numbers before models are loaded
    fast = load_potential(f"student:{file}{options}", numbers, device=device)
    slow = None
    if teacher != "none":
        slow = load_potential(spec_for(teacher, atoms), numbers, device=device)
    keep_memory()
    found = run_check(atoms, slow, fast, settings, work=folder, report=report, force=force)
    found = {"structure": str(structure), **found, "problems": problems(found), "command": command}
    write_json(target, found)
    finish(folder)
    frames = tuple(sorted(folder.glob("h*.extxyz")))
    return CheckResult(found, tuple(found["problems"]), target, frames)
