"""``mts distill``: make a student from a teacher."""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table


def distill(
    structure: Annotated[Path, typer.Argument(help="Structure to learn from; any ASE format.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The student to write, NAME.safetensors.")
    ],
    teacher: Annotated[
        str, typer.Option(help="The model to imitate: so3lr or ase:MODULE:CALLABLE?key=value.")
    ] = "so3lr",
    minutes: Annotated[float, typer.Option(min=0.5, help="Time for sampling and training.")] = 10.0,
    temperature_K: Annotated[
        float, typer.Option("--temperature-K", min=1.0, help="Temperature of the later runs.")
    ] = 300.0,
    channels: Annotated[int, typer.Option(min=4, help="Radial functions of the student.")] = 16,
    hidden: Annotated[int, typer.Option(min=8, help="Width of the student's network.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda:0, for the teacher.")] = "cpu",
    work: Annotated[
        Path | None,
        typer.Option(help="Folder of labels and checkpoints [default: OUTPUT without its suffix]."),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the report here [default: beside OUTPUT].")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing OUTPUT.")] = False,
) -> None:
    """Distil a student: sample with the teacher, train, and report what the student is worth.

    A killed run continues where it was when the same command is given again.
    """
    from mts_driver.cli.stages import StageProgress
    from mts_driver.distillation.distill import Settings
    from mts_driver.distillation.distill import distill as make
    from mts_driver.errors import UserError
    from mts_driver.structures import read_structure

    if output.suffix != ".safetensors":
        raise UserError(f"--output {output} must end in .safetensors.")
    if output.exists() and not force:
        raise UserError(f"--output {output} exists: choose another name, or give --force.")
    if not output.parent.is_dir():
        raise UserError(f"--output {output}: the folder '{output.parent}' does not exist.")
    atoms = read_structure(structure)
    settings = Settings(
        structure=structure.name,
        teacher=teacher,
        minutes=minutes,
        temperature_K=temperature_K,
        channels=channels,
        hidden=hidden,
        seed=seed,
        device=device,
    )
    console = Console()
    with StageProgress(console) as progress:
        summary = make(
            atoms,
            settings,
            output=output,
            work=work or output.with_suffix(""),
            command=shlex.join(["mts", *sys.argv[1:]]),
            report=progress,
        )
    target = json_file or output.with_suffix(".json")
    target.write_text(json.dumps(summary, indent=2) + "\n")
    table = Table("on held-out frames", "")
    for name, value in summary["force_rmse_eV_A"].items():
        table.add_row(f"force RMSE, {name}", f"{value:.3f} eV/Å")
    if (error := summary["xh_force_constant_error"]) is not None:
        table.add_row("X–H force constants", f"{error['mean']:+.2%} mean, {error['rms']:.2%} rms")
    table.add_row("largest |ΔF|", f"{summary['max_force_difference_eV_A']:.2f} eV/Å")
    table.add_row("student", f"{summary['student_ms']:.2f} ms a call")
    table.add_row("teacher", f"{summary['teacher_ms']:.1f} ms a call")
    console.print(table)
    console.print(f"written: {output}, {target}, {output.with_suffix('.png')}")
