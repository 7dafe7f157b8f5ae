"""``mts distill``: make a student from a teacher."""

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from mts_driver.cli.console import plain_console

DEFAULT_MINUTES = 10.0
COMPILED = "MTS_KERNELS_COMPILED"
"""Set for the process that takes over from the one that has compiled all kernels."""
SHORT_TRAINING = 0.5
"""Of the time for sampling: less is worth a word."""


def distill(
    structures: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Structures to learn from, any ASE format; of a file whose frames have names "
            "(info 'system') every frame is one, of others the last.",
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The student to write, NAME.safetensors.")
    ] = Path("student.safetensors"),
    teacher: Annotated[
        str,
        typer.Option(
            help="The model to imitate: so3lr or ase:MODULE:CALLABLE?key=value; {charge} in it "
            "stands for the charge of a fragment."
        ),
    ] = "so3lr",
    minutes: Annotated[
        float | None,
        typer.Option(help="For sampling and training (default: 10)."),
    ] = None,
    updates: Annotated[
        int | None,
        typer.Option(
            help="With --frames, instead of --minutes: steps of the training. The same seed then "
            "gives the same student on any day, with the same number of threads."
        ),
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(help="With --updates: labels that the sampling makes in all, about."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            "--from", help="Student to fine-tune: a file, or a packaged one such as general."
        ),
    ] = None,
    from_run: Annotated[
        Path | None,
        typer.Option(
            help="Folder of an `mts run`: learn from the frames at which its student was wrong; "
            "its start and its student are the defaults of STRUCTURES and --from."
        ),
    ] = None,
    until_clean_ps: Annotated[
        float,
        typer.Option(
            min=0.0,
            help="Then run teacher and student together for so long, learn from the holes, and "
            "repeat until there is none.",
        ),
    ] = 0.0,
    temperature_K: Annotated[
        float, typer.Option("--temperature-K", min=1.0, help="Temperature of the later runs.")
    ] = 300.0,
    outer_fs: Annotated[
        float,
        typer.Option(min=1.0, help="Outer step of the later runs; the drift there is minimised."),
    ] = 6.0,
    channels: Annotated[int, typer.Option(help="Radial functions of the student.")] = 16,
    messages: Annotated[
        int, typer.Option(help="The same of its message pass; 0: none, at 0.6 of the cost.")
    ] = 8,
    hidden: Annotated[int, typer.Option(help="Width of the student's networks.")] = 64,
    direct: Annotated[
        bool,
        typer.Option("--direct", help="Forces straight from the network, at half the cost."),
    ] = False,
    dtype: Annotated[str, typer.Option(help="float32 or float64, of training and weights.")] = (
        "float32"
    ),
    fragment_radius_A: Annotated[
        float | None,
        typer.Option(
            "--fragment-radius-A",
            min=0.0,
            help="Cut structures into pieces of this radius; 0: never (default: 10 above 2000 "
            "atoms).",
        ),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(help="Leave out labels of a kind, such as stretched or stiff, in training."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 1,
    device: Annotated[
        str, typer.Option(help="cpu or cuda:0, for the teacher; students train on the CPU.")
    ] = "cpu",
    work: Annotated[
        Path | None,
        typer.Option(help="Folder of labels and checkpoints (default: OUTPUT without its suffix)."),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the report here (default: beside OUTPUT).")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing OUTPUT.")] = False,
) -> None:
    """Distil a student: sample with the teacher, train, and report what the student is worth.

    A killed run continues where it was when the same command is given again.
    """
    from mts_driver.cli.stages import StageProgress
    from mts_driver.distillation.active_learning import frames_to_learn, unfinished, until_clean
    from mts_driver.distillation.distill import distill as make
    from mts_driver.distillation.labels.kinds import PLAIN, Kind
    from mts_driver.distillation.settings import Settings
    from mts_driver.distillation.warm_up import compilations, compiled
    from mts_driver.errors import UserError
    from mts_driver.files import check_output, require_writable
    from mts_driver.potentials.devices import check_device
    from mts_driver.processes import keep_memory
    from mts_driver.structures.files import read_systems

    work = work or output.with_suffix("")
    goes_on = bool(until_clean_ps) and unfinished(work, output)
    check_output(output, name="--output", suffix=".safetensors", force=force or goes_on)
    require_writable(work, name=f"--work {work}")
    if json_file is not None:
        check_output(json_file, name="--json")
    check_device(device)
    if dtype not in ("float32", "float64"):
        raise UserError(f"--dtype {dtype} is not supported: use float32 or float64.")
    for kind in without or ():
        if kind not in (*PLAIN, Kind.STIFF):
            allowed = ", ".join((*PLAIN, Kind.STIFF))
            raise UserError(f"--without {kind}: there is no such kind of labels; use {allowed}.")
    extra: list[Any] = []
    if from_run is not None:
        from_run = from_run.parent if from_run.is_file() else from_run
        extra = frames_to_learn(from_run)
        structures = structures or [from_run / "start.extxyz"]
        base = base or _student_of(from_run / "input.xml")
    if not structures:
        raise UserError("STRUCTURES is missing: give a structure file, or --from-run FOLDER.")
    console = plain_console()
    systems = [atoms for path in structures for atoms in read_systems(path, tell=console.print)]
    settings = Settings(
        structures=tuple(path.name for path in structures),
        teacher=teacher,
        base=base,
        minutes=DEFAULT_MINUTES if minutes is updates is frames is None else minutes,
        updates=updates,
        frames=frames,
        temperature_K=temperature_K,
        outer_fs=outer_fs,
        channels=channels,
        messages=messages,
        hidden=hidden,
        direct=direct,
        dtype=dtype,
        without=tuple(without or ()),
        seed=seed,
        device=device,
        fragment_radius_A=fragment_radius_A,
    )
    keep_memory()
    if settings.updates is not None and COMPILED not in os.environ and compiled(systems, settings):
        _start_again()
    with StageProgress(console) as progress, compilations() as late:
        arguments: dict[str, Any] = {
            "output": output,
            "work": work,
            "command": shlex.join(["mts", *sys.argv[1:]]),
            "report": progress,
            "json_file": json_file,
            "extra": extra,
        }
        if until_clean_ps:
            summary = until_clean(systems, settings, picoseconds=until_clean_ps, **arguments)
        else:
            summary = make(systems, settings, **arguments)
    console.print(_table(summary))
    for failure in summary["failed_labels"][:3]:
        console.print(f"left out: {failure}")
    if settings.minutes and summary["training_s"] < SHORT_TRAINING * summary["sampling_s"]:
        console.print(
            Text(f"only {summary['training_s']:.0f} s of training", "yellow"),
            f"after {summary['sampling_s']:.0f} s of sampling: for a better student of the same "
            f"labels give --work {shlex.quote(str(work))}, another --output and more --minutes.",
        )
    if settings.updates is not None and late:
        console.print(
            Text("kernels were compiled during this run", "yellow"),
            ": the same command will give the same student, but for the last digits.",
        )
    target = json_file or output.with_suffix(".json")
    page = output.with_suffix(".html")
    drawn = f", {page} and .png" if page.is_file() else ""
    console.print(f"written: {output}, {target}{drawn}")


def _start_again() -> None:
    """Replace this process: kernels compiled in it round differently from those of later ones."""
    os.environ[COMPILED] = "1"
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _student_of(run_input: Path) -> str:
    """Return the file or name of the student that a run used."""
    from mts_driver.errors import UserError
    from mts_driver.runs.input.read import read_input

    found = read_input(run_input)
    for driver in found.drivers:
        if driver.name == found.student and driver.model.startswith("student:"):
            file = driver.model.removeprefix("student:")
            beside = run_input.parent / file
            return str(beside) if beside.is_file() else file
    raise UserError(
        f"--from-run {run_input.parent}: its input names no student of this package to start from: "
        "give one with --from."
    )


def _table(summary: dict[str, Any]) -> Table:
    table = Table("on held-out frames", "")
    before = summary.get("force_rmse_before_eV_A") or {}
    for name, value in (summary["force_rmse_eV_A"] or {}).items():
        was = f" ({before[name]:.3f} before)" if name in before else ""
        table.add_row(f"force RMSE, {name}", f"{value:.3f} eV/Å{was}")
    for key, name in (("xh", "X–H"), ("heavy", "heavy bonds'")):
        if (error := summary[f"{key}_force_constant_error"]) is not None:
            text = f"{error['mean']:+.2%} mean, {error['rms']:.2%} rms"
            table.add_row(f"{name} force constants", text)
    for outer, drift in (summary["nve_respa_drift_meV_atom_ps"] or {}).items():
        if drift["mean"] is None:
            text = "blew up"
        else:
            heating = summary["predicted_heating_K"][outer]
            text = f"{drift['mean']:+.2f} meV/atom/ps"
            text += "" if heating is None else f", {heating:+.1f} K at γ = 1/ps"
        table.add_row(f"NVE-RESPA drift, {float(outer):g} fs", text)
    holes = [bond for bond, c in (summary["stretch"] or {}).items() if c["unsafe_lengths_A"]]
    table.add_row("holes along stretched bonds", ", ".join(holes) or "none")
    if summary["max_force_difference_eV_A"] is not None:
        table.add_row("largest |ΔF|", f"{summary['max_force_difference_eV_A']:.2f} eV/Å")
    table.add_row("student", f"{summary['student_ms']:.2f} ms a call")
    table.add_row("teacher", f"{summary['teacher_ms']:.1f} ms a call")
    return table
