"""``mts check``: whether a student is good for a system."""

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
            help="so3lr, ase:MODULE:CALLABLE?key=value, metatomic:FILE, classical:FILE or "
            "socket:NAME; none runs the student alone, where a system is too large."
        ),
    ] = "so3lr",
    picoseconds: Annotated[float, typer.Option("--ps", help="Length of the run, ps.")] = 10.0,
    outer_fs: Annotated[float, typer.Option(help="Outer time step (teacher), fs.")] = 6.0,
    inner_fs: Annotated[
        float | None,
        typer.Option(
            help="Inner time step (student), fs (default: about 1, 2 with held bonds, 4 with rigid "
            "water; a part of the outer)."
        ),
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
    thermostat: Annotated[
        str,
        typer.Option(
            help="langevin: white noise; high-pass: coloured, damps fast vibrations only; auto: "
            "the second beyond 6 fs, as `mts prepare`."
        ),
    ] = "auto",
    high_friction_per_ps: Annotated[
        float | None,
        typer.Option(help="Of the coloured noise on fast motion, 1/ps (default: 50).", min=0.0),
    ] = None,
    constrain_hydrogens: Annotated[
        bool,
        typer.Option(
            "--constrain-hydrogens",
            help="Hold bonds to hydrogen at their averages over 1 ps of the student.",
        ),
    ] = False,
    rigid_water: Annotated[
        bool,
        typer.Option(
            "--rigid-water", help="The same, and the distance of both hydrogens of a water."
        ),
    ] = False,
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
    from mts_driver.cli.stages import StageProgress
    from mts_driver.validation.check_student import check as run

    console = plain_console(quiet=quiet)
    with StageProgress(console) as progress:
        found = run(
            student,
            structure,
            teacher=teacher,
            picoseconds=picoseconds,
            outer_fs=outer_fs,
            inner_fs=inner_fs,
            hydrogen_mass_Da=hydrogen_mass_Da,
            temperature_K=temperature_K,
            friction_per_ps=friction_per_ps,
            hydrogen_friction_per_ps=hydrogen_friction_per_ps,
            thermostat=thermostat,
            high_friction_per_ps=high_friction_per_ps,
            constrain_hydrogens=constrain_hydrogens,
            rigid_water=rigid_water,
            equilibrate_ps=equilibrate_ps,
            seed=seed,
            device=device,
            json_file=json_file,
            work=work,
            force=force,
            command=shlex.join(["mts", *sys.argv[1:]]),
            tell=console.print,
            report=progress,
        )
    console.print(_table(found.results))
    files = (found.json_file, *found.frames)
    console.print(f"written: {', '.join(map(str, files))}")
    if found.problems:
        console.print(Text("not good:", "bold red"), "; ".join(found.problems))
        if found.frames and teacher != "none":
            folder = str(found.frames[0].parent)
            words = ["mts", "distill", str(structure), "--from", student, "--from-run", folder]
            command = shlex.join([*words, "-o", "better.safetensors"])
            console.print(f"learn from its failures: {command}")
    else:
        simulated_ps = found.results["simulated_ps"]
        console.print(Text("good:", "bold green"), f"no fault in {simulated_ps:.4g} ps")


def _table(found: dict[str, Any]) -> Table:
    title = f"{found['student']} for {found['structure']}, {found['atoms']} atoms"
    table = Table(title=title, show_header=False)

    def row(name: str, value: Any, text: str) -> None:
        if value is not None:
            table.add_row(name, text.format(value))

    row("simulated", found["simulated_ps"], "{:.4g} ps")
    table.add_row("outer, inner step", f"{found['outer_fs']:g}, {found['inner_fs']:.4g} fs")
    row("noise", found["thermostat"], "{}")
    for kind, length_A in (found["bond_lengths_A"] or {}).items():
        table.add_row(f"held, {kind}", f"{length_A:.4f} Å")
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
