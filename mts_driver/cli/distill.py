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
            help="The model to imitate: so3lr, ase:MODULE:CALLABLE?key=value, metatomic:FILE, "
            "classical:FILE or socket:NAME (a client of i-PI's protocol); {charge} in it stands "
            "for the charge of a fragment."
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
    cutoff_A: Annotated[
        float | None,
        typer.Option(
            "--cutoff-A",
            help="Distance at which the student's atoms see each other (default: 3.5; its size is "
            "that of --from where there is one).",
        ),
    ] = None,
    channels: Annotated[
        int | None, typer.Option(help="Radial functions of the student (default: 16).")
    ] = None,
    messages: Annotated[
        int | None,
        typer.Option(
            help="The same of its message pass; 0: none, at 0.6 of the cost (default: 8)."
        ),
    ] = None,
    hidden: Annotated[
        int | None, typer.Option(help="Width of the student's networks (default: 64).")
    ] = None,
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
    from mts_driver.distillation.make_student import plan
    from mts_driver.distillation.warm_up import compilations, compiled

    console = plain_console()
    task = plan(
        structures or (),
        output,
        teacher=teacher,
        minutes=minutes,
        updates=updates,
        frames=frames,
        base=base,
        from_run=from_run,
        until_clean_ps=until_clean_ps,
        temperature_K=temperature_K,
        outer_fs=outer_fs,
        cutoff_A=cutoff_A,
        channels=channels,
        messages=messages,
        hidden=hidden,
        direct=direct,
        dtype=dtype,
        fragment_radius_A=fragment_radius_A,
        without=without or (),
        seed=seed,
        device=device,
        work=work,
        json_file=json_file,
        force=force,
        tell=console.print,
    )
    settings, work = task.settings, task.work
    by_steps = settings.updates is not None
    if by_steps and COMPILED not in os.environ and compiled(task.systems, settings):
        _start_again()
    with StageProgress(console) as progress, compilations() as late:
        command = shlex.join(["mts", *sys.argv[1:]])
        found = task.carry_out(command=command, report=progress)
    summary = found.results
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
    page = output.with_suffix(".html")
    drawn = f", {page} and .png" if page.is_file() else ""
    console.print(f"written: {output}, {found.json_file}{drawn}")


def _start_again() -> None:
    """Replace this process: kernels compiled in it round differently from those of later ones."""
    os.environ[COMPILED] = "1"
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


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
