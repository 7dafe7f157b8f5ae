"""``mts check``: whether a student is good for a system."""

import math
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from mts_driver.cli.console import plain_console


def check(
    student: Annotated[
        str, typer.Argument(help="File of `mts distill`, or a packaged student such as water.")
    ],
    structure: Annotated[Path, typer.Argument(help="Any file that ASE reads; its last frame.")],
    teacher: Annotated[
        str,
        typer.Option(
            help="so3lr or ase:MODULE:CALLABLE?key=value; none runs the student alone, where a "
            "system is too large."
        ),
    ] = "so3lr",
    picoseconds: Annotated[float, typer.Option("--ps", help="Length of the run, ps.")] = 10.0,
    outer_fs: Annotated[float, typer.Option(help="Outer time step (teacher), fs.")] = 6.0,
    inner_fs: Annotated[
        float | None,
        typer.Option(help="Inner time step (student), fs (default: about 1, a part of the outer)."),
    ] = None,
    hydrogen_mass_Da: Annotated[
        float,
        typer.Option(
            "--hydrogen-mass-Da",
            min=0,
            help="Mass of hydrogens, Da, taken from their heavy atoms; 0: natural.",
        ),
    ] = 4.0,
    temperature_K: Annotated[float, typer.Option("--temperature-K", help="Temperature, K.")] = (
        300.0
    ),
    friction_per_ps: Annotated[float, typer.Option(help="Of the Langevin thermostat, 1/ps.")] = 1.0,
    hydrogen_friction_per_ps: Annotated[
        float | None, typer.Option(help="The same for hydrogens (default: as all atoms).")
    ] = None,
    equilibrate_ps: Annotated[
        float,
        typer.Option(
            min=0,
            help="Dynamics with the student after relaxing with it, ps; a fifth of the run, at "
            "most 1 ps, beside the teacher follows; 0: none of these.",
        ),
    ] = 0.5,
    seed: Annotated[int, typer.Option(min=0, help="Of velocities and noise.")] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda:0, for both models.")] = "cpu",
    json_file: Annotated[
        Path | None,
        typer.Option("--json", help="The report (default: STUDENT-STRUCTURE-check.json here)."),
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(
            "--work", "-o", help="Folder of holes and state (default: the report's, no suffix)."
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a report, or the state of another check.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only errors.")] = False,
) -> None:
    """Run teacher and student together in this process and report what the student is worth.

    A killed check continues where it was when the same command is given again.
    """
    from hashlib import sha256

    from mts_driver.cli.stages import StageProgress
    from mts_driver.files import check_output, require_writable, write_json
    from mts_driver.potentials import load_potential
    from mts_driver.potentials.load import spec_for
    from mts_driver.potentials.student.file import find_student
    from mts_driver.processes import keep_memory
    from mts_driver.structures.files import read_structure
    from mts_driver.validation.check import Settings, finish
    from mts_driver.validation.check import check as run_check
    from mts_driver.validation.criteria import problems

    file = find_student(student.removeprefix("student:"))
    console = plain_console(quiet=quiet)
    atoms = read_structure(structure, tell=console.print)
    target = json_file or Path(f"{file.stem}-{structure.stem}-check.json")
    check_output(target, name="--json", suffix=".json", force=force)
    work = work or target.with_suffix("")
    require_writable(work, name=f"--work {work}")
    if inner_fs is None:
        inner_fs = outer_fs / max(1, round(outer_fs)) if math.isfinite(outer_fs) else outer_fs
    settings = Settings(
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
    )
    numbers = atoms.numbers.tolist()
    settings.protocol(numbers)  # finds impossible numbers before models are loaded
    fast = load_potential(f"student:{file}", numbers, device=device)
    slow = None
    if teacher != "none":
        slow = load_potential(spec_for(teacher, atoms), numbers, device=device)
    keep_memory()
    with StageProgress(console) as progress:
        found = run_check(atoms, slow, fast, settings, work=work, report=progress, force=force)
    found = {"structure": str(structure), **found, "problems": problems(found)}
    found["command"] = shlex.join(["mts", *sys.argv[1:]])
    write_json(target, found)
    finish(work)
    console.print(_table(found))
    console.print(f"written: {target}{_frames(work)}")
    if found["problems"]:
        console.print(Text("not good:", "bold red"), "; ".join(found["problems"]))
        if _frames(work) and slow is not None:
            words = ["mts", "distill", str(structure), "--from", student, "--from-run", str(work)]
            command = shlex.join([*words, "-o", "better.safetensors"])
            console.print(f"learn from its failures: {command}")
    else:
        console.print(Text("good:", "bold green"), f"no fault in {found['simulated_ps']:.4g} ps")


def _frames(work: Path) -> str:
    """Return the files of frames that a check has left, for the last line."""
    return "".join(f", {path}" for path in sorted(work.glob("h*.extxyz")))


def _table(found: dict[str, Any]) -> Table:
    title = f"{found['student']} for {found['structure']}, {found['atoms']} atoms"
    table = Table(title=title, show_header=False)

    def row(name: str, value: Any, text: str) -> None:
        if value is not None:
            table.add_row(name, text.format(value))

    row("simulated", found["simulated_ps"], "{:.4g} ps")
    table.add_row("outer, inner step", f"{found['outer_fs']:g}, {found['inner_fs']:.4g} fs")
    for name, measured in found["temperature_at_O_K"].items():
        row(f"temperature at O, {name} atoms", measured, _with_error(measured, ".1f") + " K")
    table.add_row("holes, hard frames", f"{found['holes']}, {found['hard_frames']}")
    row("clean for", found["clean_ps"], "{:.4g} ps")
    row("clipped forces", found["clip_events"], "{}")
    row("largest |ΔF|", found["max_force_difference_eV_A"], "{:.2f} eV/Å")
    for name, value in (found["force_rmse_eV_A"] or {}).items():
        row(f"force RMSE, {name}", value, "{:.3f} eV/Å")
    row("longest X–H bond over covalent radii", found["longest_xh_bond_ratio"], "{:.2f}")
    row("longest heavy bond over its start", found["longest_heavy_bond_ratio"], "{:.2f}")
    table.add_row(
        "broken heavy bonds, new bonds",
        f"{found['broken_bonds']}, {sum(found['new_bonds'].values())}",
    )
    energy = found["mean_potential_energy_eV"]
    row("mean potential energy", energy, _with_error(energy, ".3f") + " eV")
    row("wall clock", found["s_per_ps"], "{:.1f} s/ps")
    return table


def _with_error(measured: dict[str, float | None] | None, form: str) -> str:
    if measured is None:
        return ""
    error = measured["stderr"]
    return f"{measured['mean']:{form}}" + ("" if error is None else f" ± {error:{form}}")
