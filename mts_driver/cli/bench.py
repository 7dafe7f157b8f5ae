"""``mts bench``: measure, don't assert."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table


def bench(
    name: Annotated[str, typer.Argument(help="Which benchmark: speedup, or overhead.")],
    structure: Annotated[Path, typer.Option(help="An equilibrated structure.")],
    teacher: Annotated[str, typer.Option(help="The expensive model.")] = "so3lr",
    student: Annotated[str, typer.Option(help="A packaged student or a file.")] = "water",
    outer_fs: Annotated[
        str, typer.Option(help="Outer time steps to try, fs, separated by commas.")
    ] = "6",
    rounds: Annotated[int, typer.Option(min=1, help="Runs of every variant.")] = 3,
    seconds: Annotated[float, typer.Option(min=1.0, help="Length of each run, s.")] = 15.0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the table here.")] = None,
) -> None:
    """Time a teacher under i-PI: single and multiple time steps, or what lies between the models.

    Example: mts bench speedup --structure inputs/water216/start.extxyz --json speedup.json
    """
    from mts_driver.bench import overhead, speedup
    from mts_driver.errors import UserError
    from mts_driver.structures import read_structure

    if name not in ("speedup", "overhead"):
        raise UserError(f"benchmark {name!r} is not known: use 'speedup' or 'overhead'.")
    try:
        steps = [float(part) for part in outer_fs.split(",")]
    except ValueError:
        raise UserError(f"--outer-fs {outer_fs!r}: give numbers such as 3,4,6.") from None
    if name == "overhead" and len(steps) > 1:
        raise UserError(f"--outer-fs {outer_fs!r}: give one number for 'overhead'.")
    spec = f"student:{Path(student).resolve() if Path(student).is_file() else student}"
    atoms = read_structure(structure)
    console = Console()
    if not console.is_terminal:
        console.width = 130  # a table in a file is not folded
    with console.status("") as status:
        options: dict[str, Any] = {"rounds": rounds, "seconds": seconds, "report": status.update}
        if name == "speedup":
            todo = speedup.variants(teacher, spec, steps)
            result = speedup.measure(atoms, todo, **options)
        else:
            result = overhead.measure(
                atoms, teacher=teacher, student=spec, outer_fs=steps[0], **options
            )
    console.print(_table(result))
    if json_file is not None:
        speedup.write(result, json_file)


def _table(result: dict[str, Any]) -> Table:
    table = Table(title=f"{result['environment']['atoms']} atoms, {result['environment']['cpu']}")
    columns: dict[str, tuple[str, str]] = {
        "s per ps": ("s_per_ps", ".1f"),
        "min": ("s_per_ps_min", ".1f"),
        "max": ("s_per_ps_max", ".1f"),
        "ns/day": ("ns_per_day", ".3f"),
        "× 1 fs": ("speedup vs 1 fs", ".2f"),
        "× 2 fs HMR": ("speedup vs 2 fs HMR", ".2f"),
        "teacher ms": ("teacher_ms", ".1f"),
        "student ms": ("student_ms", ".2f"),
        "overhead": ("overhead_fraction", ".1%"),
        "ms an outer step": ("overhead_ms_an_outer_step", ".1f"),
    }
    columns = {title: how for title, how in columns.items() if how[0] in result["rows"][0]}
    table.add_column("variant")
    for title in columns:
        table.add_column(title, justify="right")
    for row in result["rows"]:
        shown = [
            "-" if row[key] is None else format(row[key], form) for key, form in columns.values()
        ]
        table.add_row(row["variant"], *shown)
    return table
