"""``mts prepare``: from a structure to a folder that ``mts run`` and i-PI understand."""

import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from mts_driver.errors import UserError

_RELAX_ABOVE_EV_A = 6.0
"""Liquid water at 300 K stays below; overlaps as packmol leaves them are far above."""


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
    hmr: Annotated[
        float, typer.Option(help="Mass of hydrogens, Da, taken from their heavy atoms; 0: off.")
    ] = 4.0,
    temperature: Annotated[float, typer.Option("--temperature-K", help="Temperature, K.")] = 300.0,
    friction_per_ps: Annotated[float, typer.Option(help="Of the Langevin thermostat, 1/ps.")] = 1.0,
    hydrogen_friction_per_ps: Annotated[
        float | None,
        typer.Option(help="The same for hydrogens, 10 to 50 for 10 fs [default: as all atoms]."),
    ] = None,
    steps: Annotated[int, typer.Option(help="Outer steps.", min=1)] = 3000,
    stride: Annotated[int, typer.Option(help="Outer steps between frames.", min=1)] = 5,
    seed: Annotated[int, typer.Option(help="Random seed.", min=0)] = 20260,
    mode: Annotated[str, typer.Option(help="unix or shm.")] = "unix",
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
    force: Annotated[bool, typer.Option("--force", help="Write into a folder with files.")] = False,
    quiet: Annotated[bool, typer.Option(help="Print only errors.")] = False,
) -> None:
    """Write input.xml and start.extxyz for a multiple time-step run under i-PI.

    Example: mts prepare water.xyz --student water -o run && mts run run/input.xml
    """
    from mts_driver.cli.stages import StageProgress
    from mts_driver.equilibrate import equilibrate, largest_difference
    from mts_driver.inputs import CLIP_EV_A, Protocol, input_xml
    from mts_driver.potentials import load_potential
    from mts_driver.structures import boxed, read_structure, repartitioned_masses, write_start

    console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
    if output.exists() and (not output.is_dir() or any(output.iterdir())) and not force:
        raise UserError(
            f"-o {output} exists and is not empty: give a new folder, or --force to write into it."
        )
    if mode not in ("unix", "shm"):
        raise UserError(f"--mode {mode!r} is not supported here: use unix or shm.")
    spec, file = _student(student)
    inner_fs = inner_fs if spec else outer_fs
    protocol = Protocol(
        teacher=teacher,
        student=f"student:{file.name}" if file else spec,
        outer_fs=outer_fs,
        inner_fs=inner_fs,
        hydrogen_mass=hmr,
        temperature_K=temperature,
        friction_per_ps=friction_per_ps,
        hydrogen_friction_per_ps=hydrogen_friction_per_ps,
        steps=steps,
        stride=stride,
        seed=seed,
        mode=mode,
        device=device,
    )
    atoms, made_box = boxed(read_structure(structure))
    if made_box:
        console.print(
            f"{structure} has no cell: put into a box of "
            f"{' × '.join(f'{x:.0f}' for x in atoms.cell.lengths())} Å, since i-PI needs one"
        )
    masses = repartitioned_masses(atoms, hmr)
    # loading both now finds unknown elements before anything is written
    numbers = atoms.numbers.tolist()
    fast = load_potential(spec, numbers, device=device) if spec else None
    potential = load_potential(teacher, numbers, device=device)
    if minimise:
        atoms = _relax_if_needed(console, atoms, potential)
    if equilibrate_ps and fast is not None:
        with StageProgress(console) as progress:
            atoms = equilibrate(
                atoms,
                masses,
                fast,
                temperature_K=temperature,
                picoseconds=equilibrate_ps,
                timestep_fs=inner_fs,
                seed=seed,
                report=lambda step, of: progress("equilibration with the student", step, of),
            )
        _check_equilibrated(atoms, potential)
        gap = largest_difference(atoms, potential, fast)
        if not gap < CLIP_EV_A:
            raise UserError(
                f"the student {student!r} left the teacher's surface while it equilibrated the "
                f"structure: they differ by {gap:.1f} eV/Å. Start from an equilibrated structure "
                "with --equilibrate-ps 0, or distil a student from this one."
            )
        console.print(
            f"equilibrated for {equilibrate_ps:g} ps with the student (friction 10/ps): it differs "
            f"from the teacher by at most {gap:.2f} eV/Å"
        )
    with tempfile.TemporaryDirectory() as scratch:
        # everything is complete before the folder sees the first file
        write_start(Path(scratch) / "start.extxyz", atoms, masses)
        (Path(scratch) / "input.xml").write_text(input_xml(protocol, output))
        if file:
            shutil.copy(file, scratch)
        output.mkdir(parents=True, exist_ok=True)
        for made in sorted(Path(scratch).iterdir()):
            shutil.copyfile(made, output / made.name)
    console.print(
        f"{output}: {len(atoms)} atoms, {protocol.n_inner} × {inner_fs:g} fs inside {outer_fs:g} "
        f"fs, {steps * outer_fs / 1000:g} ps. Run it with: mts run {output}/input.xml"
    )


def _student(student: str) -> tuple[str | None, Path | None]:
    """Specification (None: no student) and, for a file outside the package, its path."""
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


def _check_equilibrated(atoms: Any, potential: Any) -> None:
    """Ask the teacher what it thinks of the structure that the student has made."""
    from mts_driver.relax import largest_force

    force = largest_force(atoms, potential)
    if not force <= 2 * _RELAX_ABOVE_EV_A:  # also true of NaN
        raise UserError(
            f"the equilibration with the student ended with a force of {force:.3g} eV/Å on an "
            "atom: the student does not hold this structure together. Train a better one with `mts "
            "distill` on this system, or start as it is with --equilibrate-ps 0."
        )


def _relax_if_needed(console: Console, atoms: Any, potential: Any) -> Any:
    from mts_driver.relax import largest_force, relax

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
