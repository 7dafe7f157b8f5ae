"""``mts distill``: make a student from a teacher."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

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
    minutes: Annotated[float, typer.Option(min=0.5, help="For sampling and training.")] = 10.0,
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
    device: Annotated[str, typer.Option(help="cpu or cuda:0, for teacher and training.")] = "cpu",
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
    from mts_driver.distillation.distill import Settings
    from mts_driver.distillation.distill import distill as make
    from mts_driver.distillation.improve import frames_to_learn, until_clean
    from mts_driver.distillation.train import PLAIN_KINDS
    from mts_driver.errors import UserError
    from mts_driver.memory import keep_memory
    from mts_driver.structures.files import read_systems

    if output.suffix != ".safetensors":
        raise UserError(f"--output {output} must end in .safetensors.")
    if output.exists() and not force:
        raise UserError(f"--output {output} exists: choose another name, or give --force.")
    if not output.parent.is_dir():
        raise UserError(f"--output {output}: the folder '{output.parent}' does not exist.")
    if dtype not in ("float32", "float64"):
        raise UserError(f"--dtype {dtype} is not supported: use float32 or float64.")
    for kind in without or ():
        if kind not in (*PLAIN_KINDS, "stiff"):
            allowed = ", ".join((*PLAIN_KINDS, "stiff"))
            raise UserError(f"--without {kind}: there is no such kind of labels; use {allowed}.")
    extra: list[Any] = []
    if from_run is not None:
        from_run = from_run.parent if from_run.is_file() else from_run
        extra = frames_to_learn(from_run)
        structures = structures or [from_run / "start.extxyz"]
        base = base or _student_of(from_run / "input.xml")
    if not structures:
        raise UserError("STRUCTURES is missing: give a structure file, or --from-run FOLDER.")
    systems = [atoms for path in structures for atoms in read_systems(path)]
    settings = Settings(
        structures=tuple(path.name for path in structures),
        teacher=teacher,
        base=base,
        minutes=minutes,
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
    console = Console()
    with StageProgress(console) as progress:
        arguments: dict[str, Any] = {
            "output": output,
            "work": work or output.with_suffix(""),
            "command": shlex.join(["mts", *sys.argv[1:]]),
            "report": progress,
            "json_file": json_file,
        }
        summary = make(systems, settings, extra=extra, **arguments)
        if until_clean_ps:
            summary = until_clean(systems, settings, picoseconds=until_clean_ps, **arguments)
    console.print(_table(summary))
    for failure in summary["failed_labels"][:3]:
        console.print(f"left out: {failure}", highlight=False)
    if summary["training_s"] < SHORT_TRAINING * summary["sampling_s"]:
        console.print(
            f"[yellow]only {summary['training_s']:.0f} s of training[/] after "
            f"{summary['sampling_s']:.0f} s of sampling: for a better student of the same labels "
            f"give --work {arguments['work']}, another --output and more --minutes."
        )
    target = json_file or output.with_suffix(".json")
    console.print(f"written: {output}, {target}, {output.with_suffix('.html')} and .png")


def _student_of(run_input: Path) -> str:
    """Return the file or name of the student that a run used."""
    from mts_driver.drivers.run_input import read_input
    from mts_driver.errors import UserError

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
