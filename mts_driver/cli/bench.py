"""``mts bench``: measure, don't assert."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table


def bench(
    name: Annotated[str, typer.Argument(help="Which benchmark: speedup.")],
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
    """Time single and multiple time steps of the same teacher under i-PI, in turn.

    Example: mts bench speedup --structure inputs/water216/start.extxyz --json speedup.json
    """
    from mts_driver.bench.speedup import measure, variants, write
    from mts_driver.errors import UserError
    from mts_driver.structures import read_structure

    if name != "speedup":
        raise UserError(f"benchmark {name!r} is not known: use 'speedup'.")
    try:
        steps = [float(part) for part in outer_fs.split(",")]
    except ValueError:
        raise UserError(f"--outer-fs {outer_fs!r}: give numbers such as 3,4,6.") from None
    spec = str(Path(student).resolve()) if Path(student).is_file() else student
    console = Console()
    if not console.is_terminal:
        console.width = 130  # a table in a file is not folded
    with console.status("") as status:
        result = measure(
            read_structure(structure),
            variants(teacher, f"student:{spec}", steps),
            rounds=rounds,
            seconds=seconds,
            report=status.update,
        )
    table = Table(title=f"{result['environment']['atoms']} atoms, {result['environment']['cpu']}")
    for column in (
        "variant", "s per ps", "(min to max)", "ns/day", "× 1 fs", "× 2 fs HMR", "teacher ms",
        "student ms", "overhead",
    ):  # fmt: skip
        table.add_column(column, justify="left" if column == "variant" else "right")
    for row in result["rows"]:
        student_ms, overhead = row["student_ms"], row["overhead_fraction"]
        table.add_row(
            row["variant"],
            f"{row['s_per_ps']:.1f}",
            f"{row['s_per_ps_min']:.1f} to {row['s_per_ps_max']:.1f}",
            f"{row['ns_per_day']:.3f}",
            f"{row['speedup vs 1 fs']:.2f}",
            f"{row['speedup vs 2 fs HMR']:.2f}",
            f"{row['teacher_ms']:.1f}",
            "-" if student_ms is None else f"{student_ms:.2f}",
            "-" if overhead is None else f"{overhead:.1%}",
        )
    console.print(table)
    if json_file is not None:
        write(result, json_file)
