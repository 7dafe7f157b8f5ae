"""``mts bench``: measure, don't assert."""

import importlib
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from mts_driver.cli.console import plain_console
from mts_driver.errors import UserError
from mts_driver.files import check_output

BENCHMARKS = {
    "speedup": "MTS under i-PI against single steps, and against what free overhead would allow",
    "overhead": "what a run spends outside the models, by transport",
    "inside": "what a call costs inside multiple time steps, beside the same call alone",
    "kernels": "the models alone: time of a call, scaling and memory",
    "beads": "path integrals: what a bead costs",
    "peers": "the same models in OpenMM, ASE and plain i-PI",
    "mpi": "one call shared out among several processes",
    "scaling": "what processes tell each other, and a model of many",
    "codes": "one trajectory through every code that our models work in",
    "gradients": "through trajectories: how exact, how dear, and what they find",
    "gpu": "models and whole outer steps that stay on a device",
}


def bench(
    name: Annotated[
        str,
        typer.Argument(
            help="; ".join(f"{name}: {what}" for name, what in BENCHMARKS.items()) + "."
        ),
    ],
    structure: Annotated[
        list[Path],
        typer.Option(help="An equilibrated structure; may be given more than once for kernels."),
    ],
    teacher: Annotated[str, typer.Option(help="The expensive model.")] = "so3lr",
    student: Annotated[
        str, typer.Option(help="A packaged student or a file; for kernels several: a,b.")
    ] = "water",
    device: Annotated[str, typer.Option(help="Of all models: cpu, cuda or cuda:0.")] = "cpu",
    threads: Annotated[
        int, typer.Option(help="CPU threads of every model; 0 takes all cores.", min=0)
    ] = 0,
    rounds: Annotated[int, typer.Option(help="Times that everything is measured.", min=1)] = 3,
    seconds: Annotated[
        float, typer.Option(help="Aimed-at length of every measurement, s.", min=0.1)
    ] = 15.0,
    outer_fs: Annotated[
        str | None,
        typer.Option(
            help="Teacher's time steps, fs: 3,4,6; 6 by default, 3 for beads, 6,10 for speedup. "
            "Not for kernels."
        ),
    ] = None,
    inner_fs: Annotated[
        float | None,
        typer.Option(
            help="Student's time step, fs; 1 by default, 0.75 for beads. Not for kernels."
        ),
    ] = None,
    friction_outer_fs: Annotated[
        str | None,
        typer.Option(help="More --outer-fs, with a friction of 20/ps on hydrogens. For speedup."),
    ] = None,
    constrained_outer_fs: Annotated[
        str | None,
        typer.Option(
            help="More --outer-fs, with bonds to hydrogen held; 12 by default. For speedup and gpu."
        ),
    ] = None,
    constrained_inner_fs: Annotated[
        float | None,
        typer.Option(help="Their inner steps, about, fs; 2 by default.", min=0.1),
    ] = None,
    rigid_outer_fs: Annotated[
        str | None,
        typer.Option(
            help="The same with rigid water as well and inner steps of about 4 fs, for water. For "
            "speedup."
        ),
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            help="Of MTS: unix (default), shm, zmq (inner steps in the student's driver) or device "
            "(outer steps in one driver). For speedup, beads and peers."
        ),
    ] = None,
    atoms: Annotated[
        str | None,
        typer.Option(
            help="Sizes; 192,648,1536,5184,12288 by default. For kernels, gpu and mpi; for scaling "
            "the one size of a rank."
        ),
    ] = None,
    beads: Annotated[
        str | None,
        typer.Option(help="Numbers of beads; 1,2,4,8,16,32 by default. For beads and gpu."),
    ] = None,
    ranks: Annotated[
        str | None,
        typer.Option(
            help="Numbers of MPI processes; 1,2 by default, 1,2,4,8 for scaling. For mpi, scaling "
            "and codes."
        ),
    ] = None,
    model_atoms: Annotated[
        int | None, typer.Option(help="Of the large system; 1,000,000. For scaling.", min=1)
    ] = None,
    model_ranks: Annotated[
        int | None, typer.Option(help="As many as it may have; 64. For scaling.", min=1)
    ] = None,
    rank_speed: Annotated[
        float | None,
        typer.Option(help="Of these ranks, in cores of this machine; 50. For scaling.", min=0.01),
    ] = None,
    link_gb_s: Annotated[
        float | None, typer.Option(help="Between them; 25. For scaling.", min=0.001)
    ] = None,
    latency_us: Annotated[
        float | None, typer.Option(help="Of a message; 10. For scaling.", min=0)
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            help="Outer steps of every trajectory, instead of --seconds, for codes and gpu; of the "
            "longest, 10,000, for gradients.",
            min=1,
        ),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the table here.")] = None,
) -> None:
    """Measure on this machine: all variants side by side, in turn, with medians and spread.

    speedup: seconds a picosecond under i-PI of single steps (1 fs; 2 fs with hydrogens of 4 Da;
    4 fs with bonds to them held as well) and of multiple time steps (beyond 6 fs with high-pass
    noise), the ratios, and the ceiling (outer step)/(1 + n student/teacher).

    overhead: the same multiple time steps through unix sockets, shared memory, ZeroMQ, and with
    both models in one process.

    inside: single steps, multiple time steps and both models alone at the same positions, in turn
    within seconds: what a call costs inside, and the speed-up with its standard error.

    kernels: milliseconds, memory and scaling of teacher and students in boxes made by repeating the
    structure; a student's arithmetic against the peak of the machine. A size at which one call
    would take longer than --seconds is left out.

    beads: teacher and student asked for all beads at once and one by one, and whole runs.

    peers: our MTS beside OpenMM's, i-PI's own with ASE's socket clients, and ASE's Langevin.

    mpi: teacher and student on several processes of one thread each, beside one process of one
    thread and one of as many threads; time, memory of a process, and how far forces are off.

    scaling: what the processes of teacher and student tell each other in a call, as the system
    grows with their number; and from it a model of many, and from where on more do not pay.

    codes: multiple time steps under i-PI with sockets and with MPI drivers (--ranks, 2 by default),
    by ASE, OpenMM and in one process: speed, temperatures, energies and g(r), with errors. Each
    round is a trajectory of its own, whose first fifth is left out.

    gradients: reversed trajectories beside autograd and central differences (harmonic bonds, a
    Lennard-Jones liquid, water, a student under multiple time steps), how far they return to
    themselves, memory and time against length, and parameters of a liquid from its g(r), beside
    reweighting.

    gpu: teacher and student on --device alone, by size and by number of beads, and trajectories of
    single and multiple time steps that stay there; share of the time outside the models; labels and
    updates of a distillation.

    Example: mts bench speedup --structure inputs/water216/start.extxyz --json speedup.json
    """
    if name not in BENCHMARKS:
        raise UserError(f"benchmark {name!r} is not known: use {', '.join(BENCHMARKS)}.")
    if json_file is not None:
        check_output(json_file, name="--json")
    if threads:
        # for drivers under i-PI, which inherit it; before anything reads it
        os.environ["NUMBA_NUM_THREADS"] = str(threads)
    from mts_driver.bench import table
    from mts_driver.bench.settings import BenchSettings
    from mts_driver.potentials.devices import check_device
    from mts_driver.potentials.load import spec_for
    from mts_driver.structures.files import read_structure
    from mts_driver.structures.fixed import held_atoms

    check_device(device)
    benchmark = importlib.import_module(f"mts_driver.bench.{name}")
    given: dict[str, Any] = {
        "outer_fs": _numbers("--outer-fs", outer_fs, float),
        "inner_fs": inner_fs,
        "friction_outer_fs": _numbers("--friction-outer-fs", friction_outer_fs, float),
        "constrained_outer_fs": _numbers("--constrained-outer-fs", constrained_outer_fs, float),
        "constrained_inner_fs": constrained_inner_fs,
        "rigid_outer_fs": _numbers("--rigid-outer-fs", rigid_outer_fs, float),
        "mode": mode,
        "atoms": _numbers("--atoms", atoms, int),
        "beads": _numbers("--beads", beads, int),
        "ranks": _numbers("--ranks", ranks, int),
        "model_atoms": model_atoms,
        "model_ranks": model_ranks,
        "rank_speed": rank_speed,
        "link_GB_s": link_gb_s,
        "latency_us": latency_us,
        "steps": steps,
    }
    given = {key: value for key, value in given.items() if value is not None}
    for key in given:
        if key not in benchmark.DEFAULTS:
            takes = ", ".join(_option(k) for k in benchmark.DEFAULTS)
            raise UserError(
                f"{_option(key)} is not for {name!r}, which takes {takes}: leave it out."
            )
    if given.get("mode", "unix") not in ("unix", "shm", "zmq", "device"):
        raise UserError(f"--mode {mode!r}: use unix, shm, zmq or device.")
    students = tuple(_student(part) for part in student.split(","))
    if name != "kernels" and (len(students) > 1 or len(structure) > 1):
        raise UserError(f"{name!r} takes one --student and one --structure: leave the others out.")
    console = plain_console()
    systems = [read_structure(path, tell=console.print) for path in structure]
    for path, system in zip(structure, systems, strict=True):
        if len(held_atoms(system)) or not system.pbc.all():
            raise UserError(
                f"--structure {path}: benchmarks take periodic systems whose atoms all move: leave "
                "constraints out, and give a cell."
            )
    teachers = {spec_for(teacher, system) for system in systems}
    if len(teachers) > 1:
        raise UserError(
            f"--structure: systems of different charge or spin need {', '.join(sorted(teachers))}: "
            "give those of one charge at a time."
        )
    if not console.is_terminal:
        console.width = 300  # a table in a file is not folded
    with console.status("") as status:
        settings = BenchSettings(
            structures=tuple(systems),
            teacher=teachers.pop(),
            students=students,
            device=device,
            threads=threads,
            rounds=rounds,
            seconds=seconds,
            report=status.update,
            **{**benchmark.DEFAULTS, **given},
        )
        result = benchmark.measure(settings)
    table.show(result, benchmark.COLUMNS, console)
    if json_file is not None:
        table.write(result, json_file)


def _option(key: str) -> str:
    return "--" + key.replace("_", "-").lower()


def _numbers(option: str, text: str | None, kind: type) -> tuple[Any, ...] | None:
    if text is None:
        return None
    try:
        found = tuple(kind(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) <= 0:
        what = "whole numbers" if kind is int else "numbers"
        raise UserError(f"{option} {text!r}: give {what} above 0, such as 3,4,6.")
    return found


def _student(name: str) -> str:
    """Return the specification of a student, with the full path of a file."""
    from mts_driver.potentials.backends import file_and_options

    file, options = file_and_options(name.removeprefix("student:"))
    return f"student:{Path(file).resolve() if Path(file).is_file() else file}{options}"
