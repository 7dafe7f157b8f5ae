"""``mts prepare``: from a structure to a folder that ``mts run`` and i-PI understand."""

import shlex
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from mts_driver.cli.console import plain_console
from mts_driver.errors import UserError
from mts_driver.files import require_writable


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
        float | None,
        typer.Option(
            "--hydrogen-mass-Da",
            help="Mass of hydrogens, Da, taken from their heavy atoms; 0: off (default: 4; 0 with "
            "--beads).",
        ),
    ] = None,
    temperature: Annotated[float, typer.Option("--temperature-K", help="Temperature, K.")] = 300.0,
    friction_per_ps: Annotated[float, typer.Option(help="Of the Langevin thermostat, 1/ps.")] = 1.0,
    hydrogen_friction_per_ps: Annotated[
        float | None,
        typer.Option(help="The same for hydrogens, 10 to 50 for 10 fs (default: as all atoms)."),
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
            help="How i-PI talks to the drivers: unix, shm, or zmq, where the student's takes all "
            "inner steps of an outer one at once."
        ),
    ] = "unix",
    device_steps: Annotated[
        int,
        typer.Option(
            help="With --mode zmq: one driver holds both models and takes so many outer steps a "
            "message; 0 for none.",
            min=0,
        ),
    ] = 0,
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
    force: Annotated[bool, typer.Option("--force", help="Write into a folder with files.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only errors.")] = False,
) -> None:
    """Write input.xml and start.extxyz for a multiple time-step run under i-PI.

    Example: mts prepare water.xyz --student water -o run && mts run run/input.xml
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())) and not force:
        raise UserError(
            f"-o {output} exists and is not empty: give a new folder, or --force to write into it."
        )
    require_writable(output, name=f"-o {output}")
    # what loads torch comes after what takes no time
    from mts_driver.cli.settle import find, framed, settle
    from mts_driver.potentials import load_potential
    from mts_driver.potentials.load import spec_for
    from mts_driver.potentials.virial import gives_virial
    from mts_driver.runs.input.settings import Protocol
    from mts_driver.runs.input.write import VELOCITIES_FILE, ZMQ_FILE, ZMQ_TEXT, input_xml
    from mts_driver.structures.files import read_structure, write_start, write_velocities
    from mts_driver.structures.fixed import held_atoms, moving_atoms
    from mts_driver.structures.masses import repartitioned_masses

    console = plain_console(stderr=True, quiet=quiet)
    if mode not in ("unix", "shm", "zmq"):
        raise UserError(f"--mode {mode!r} is not supported here: use unix, shm or zmq.")
    if mode == "zmq" and find_spec("zmq") is None:
        raise UserError("--mode zmq needs pyzmq: pip install 'mts-driver[zmq]'.")
    if velocities not in ("redraw", "keep"):
        raise UserError(f"--velocities {velocities!r}: use redraw or keep.")
    keep = velocities == "keep"
    atoms = read_structure(structure, tell=console.print, keep_velocities=keep)
    if keep and not atoms.has("momenta"):
        raise UserError(
            f"--velocities keep: {structure} has no velocities (ASE's column momenta): leave the "
            "option out for thermal ones."
        )
    atoms = framed(console, structure, atoms)
    teacher = spec_for(teacher, atoms)
    spec, file = find(student)
    if spec and not spec.startswith("student:"):
        spec = spec_for(spec, atoms)
    inner_fs = inner_fs if spec else outer_fs
    if hmr is None:
        hmr = 4.0 if beads == 1 else 0.0
    protocol = Protocol(
        teacher=teacher,
        student=f"student:{file.name}" if file else spec,
        outer_fs=outer_fs,
        inner_fs=inner_fs,
        hydrogen_mass=hmr,
        temperature_K=temperature,
        friction_per_ps=friction_per_ps,
        hydrogen_friction_per_ps=hydrogen_friction_per_ps,
        beads=beads,
        teacher_beads=teacher_beads,
        pressure_bar=pressure_bar,
        exchange_K=tuple(exchange_K or ()),
        steps=steps,
        stride=stride,
        seed=seed,
        on_hole=on_hole,
        mode=mode,
        device_steps=device_steps,
        device=device,
        periodic=bool(atoms.pbc.all()),
        held=tuple(held_atoms(atoms).tolist()),
        keep_velocities=keep,
        hydrogens=int((moving_atoms(atoms) & (atoms.numbers == 1)).sum()),
    )
    if keep and equilibrate_ps and spec:
        raise UserError(
            f"--velocities keep with --equilibrate-ps {equilibrate_ps:g}: after an equilibration "
            "the velocities are others; give --equilibrate-ps 0."
        )
    masses = repartitioned_masses(atoms, hmr)
    # loading both now finds unknown elements before anything is written
    numbers = atoms.numbers.tolist()
    fast = load_potential(spec, numbers, device=device) if spec else None
    potential = load_potential(teacher, numbers, device=device)
    if pressure_bar is not None:
        student_too = fast is None or gives_virial(fast, atoms)
        protocol.require_virials(gives_virial(potential, atoms), student_too)
    atoms = settle(
        console,
        atoms,
        masses,
        potential,
        fast,
        minimise=minimise,
        equilibrate_ps=equilibrate_ps,
        protocol=protocol,
    )
    with tempfile.TemporaryDirectory() as scratch:
        # everything is complete before the folder sees the first file
        write_start(Path(scratch) / "start.extxyz", atoms, masses)
        (Path(scratch) / "input.xml").write_text(input_xml(protocol, output))
        if keep:
            write_velocities(Path(scratch) / VELOCITIES_FILE, atoms)
        if file:
            shutil.copy(file, scratch)
        if mode == "zmq" and spec:
            (Path(scratch) / ZMQ_FILE).write_text(ZMQ_TEXT)
        output.mkdir(parents=True, exist_ok=True)
        for made in sorted(Path(scratch).iterdir()):
            shutil.copyfile(made, output / made.name)
    console.print(
        f"{output}: {len(atoms)} atoms, {protocol.n_inner} × {inner_fs:g} fs inside {outer_fs:g} "
        f"fs, {steps * outer_fs / 1000:g} ps. Run it with: "
        f"{shlex.join(['mts', 'run', str(output / 'input.xml')])}"
    )
