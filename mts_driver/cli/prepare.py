"""``mts prepare``: from a structure to a folder that ``mts run`` and i-PI understand."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from mts_driver.cli.console import plain_console


def prepare(
    structure: Annotated[Path, typer.Argument(help="Any file that ASE reads, with its cell.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to make.")],
    teacher: Annotated[str, typer.Option(help="Model of the outer step.")] = "so3lr",
    student: Annotated[
        str, typer.Option(help="File of `mts distill`, a packaged name such as water, or none.")
    ] = "water",
    outer_fs: Annotated[float, typer.Option(help="Outer time step (teacher), fs.")] = 6.0,
    inner_fs: Annotated[
        float, typer.Option(help="Inner time step (student), fs; ignored without a student.")
    ] = 1.0,
    hydrogen_mass_Da: Annotated[
        float | None,
        typer.Option(
            "--hydrogen-mass-Da",
            help="Mass of hydrogens, Da, taken from their heavy atoms; 0: off (default: 4; 0 with "
            "--beads).",
        ),
    ] = None,
    temperature_K: Annotated[float, typer.Option("--temperature-K", help="Temperature, K.")] = (
        300.0
    ),
    friction_per_ps: Annotated[float, typer.Option(help="Of the Langevin thermostat, 1/ps.")] = 1.0,
    hydrogen_friction_per_ps: Annotated[
        float | None,
        typer.Option(help="The same for hydrogens, 10 to 50 for 10 fs (default: as all atoms)."),
    ] = None,
    thermostat: Annotated[
        str,
        typer.Option(
            help="langevin: white noise; high-pass: coloured, damps fast vibrations only; auto: "
            "the second beyond 6 fs."
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
            help="Hold bonds to hydrogen, for 12 fs (with --inner-fs 2).",
        ),
    ] = False,
    rigid_water: Annotated[
        bool,
        typer.Option("--rigid-water", help="The same, and the angles of water molecules."),
    ] = False,
    bond_lengths_A: Annotated[
        str | None,
        typer.Option(
            "--bond-lengths-A",
            help="To hold bonds at, Å: O-H=0.98,C-H=1.09 (default: averages of 1 ps).",
        ),
    ] = None,
    pressure_bar: Annotated[
        float | None, typer.Option(help="For constant pressure, bar (default: constant volume).")
    ] = None,
    beads: Annotated[int, typer.Option(help="Of path integrals, for quantum nuclei.", min=1)] = 1,
    teacher_beads: Annotated[
        int | None,
        typer.Option(help="Beads of the teacher, fewer by contraction (default: --beads).", min=1),
    ] = None,
    exchange_K: Annotated[
        list[float] | None,
        typer.Option("--exchange-K", help="Temperature of one more replica, K; may be repeated."),
    ] = None,
    steps: Annotated[int, typer.Option(help="Outer steps.", min=1)] = 3000,
    stride: Annotated[int, typer.Option(help="Outer steps between frames.", min=1)] = 5,
    seed: Annotated[int, typer.Option(help="Random seed.", min=0)] = 20260,
    on_hole: Annotated[
        str,
        typer.Option(help="When the student is wrong: log, stop, or shorten the outer step."),
    ] = "log",
    mode: Annotated[
        str,
        typer.Option(
            help="Who takes the steps: i-PI, with two drivers (unix, shm); the student's driver "
            "the inner ones (zmq); auto: the fastest way that the run permits."
        ),
    ] = "auto",
    device_steps: Annotated[
        int | None,
        typer.Option(
            help="With --mode zmq or auto: one driver has both models and takes so many outer "
            "steps a message; 0 for none (default: 5 where auto can).",
            min=0,
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:0.")] = "cpu",
    minimise: Annotated[
        bool, typer.Option(help="Relax with the teacher if a force is too large for dynamics.")
    ] = True,
    equilibrate_ps: Annotated[
        float,
        typer.Option(
            help="Dynamics with the student before the start, ps; 0: keep positions.", min=0
        ),
    ] = 2.0,
    velocities: Annotated[
        str,
        typer.Option(
            help="redraw: thermal ones; keep: those of the structure, with --equilibrate-ps 0."
        ),
    ] = "redraw",
    store_for_superres: Annotated[
        bool,
        typer.Option(
            "--store-for-superres",
            help="Positions, velocities and forces of every outer step, for `mts superres apply`.",
        ),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Write into a folder with files.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only errors.")] = False,
) -> None:
    """Write input.xml and start.extxyz for a multiple time-step run under i-PI.

    Example: mts prepare water.xyz --student water -o run && mts run run/input.xml
    """
    from mts_driver.cli.stages import StageProgress
    from mts_driver.runs.prepare import prepare as write
    from mts_driver.structures.held_bonds import parse_lengths
    from mts_driver.time_steps import TimeSteps

    console = plain_console(stderr=True, quiet=quiet)
    with StageProgress(console) as progress:
        made = write(
            structure,
            output,
            teacher=teacher,
            student=student,
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
            bond_lengths_A=parse_lengths(bond_lengths_A) if bond_lengths_A else None,
            pressure_bar=pressure_bar,
            beads=beads,
            teacher_beads=teacher_beads,
            exchange_K=exchange_K or (),
            steps=steps,
            stride=stride,
            seed=seed,
            on_hole=on_hole,
            mode=mode,
            device_steps=device_steps,
            device=device,
            minimise=minimise,
            equilibrate_ps=equilibrate_ps,
            velocities=velocities,
            store_for_superres=store_for_superres,
            force=force,
            tell=console.print,
            report=progress,
        )
    inner_steps = TimeSteps(made.outer_fs, made.inner_fs).n_inner
    console.print(
        f"{output}: {len(made.atoms)} atoms, {inner_steps} × {made.inner_fs:g} fs inside "
        f"{outer_fs:g} fs, {made.picoseconds:g} ps. Run it with: "
        f"{shlex.join(['mts', 'run', str(made.input)])}"
    )
