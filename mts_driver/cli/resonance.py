"""``mts resonance``: how far the outer step can go, measured before a long run."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mts_driver.cli.console import plain_console
from mts_driver.thermostats import HIGH_FRICTION_PER_PS

COLUMNS = {
    **{"outer/ inner (fs)": 6, "H (Da)": 4, "γ(H) (1/ps)": 6, "T(H) (K)": 4, "T(heavy) (K)": 8},
    **{"heating (K)": 7, "⟨X–H⟩ (Å)": 6, "var. ratio": 6, "max ΔF": 5, "D ratio": 5, "speed": 5},
    "": 0,
}
"""Of the table, and their widths on a narrow terminal: 80 columns cut no number."""
_LOG_WIDTH = 150
"""The table's, where there is no terminal to know the width of."""


def resonance(
    structure: Annotated[Path, typer.Argument(help="Any file that ASE reads; its last frame.")],
    teacher: Annotated[
        str,
        typer.Option(
            help="so3lr, ase:MODULE:CALLABLE?key=value, metatomic:FILE, classical:FILE or "
            "socket:NAME."
        ),
    ] = "so3lr",
    student: Annotated[
        str, typer.Option(help="File of `mts distill`, or a packaged student such as water.")
    ] = "water",
    outer_fs: Annotated[
        list[float] | None,
        typer.Option(help="Outer step, fs; may be repeated (default: 2 3 4 5 6 8 10 12)."),
    ] = None,
    inner_fs: Annotated[float, typer.Option(help="Inner step, about, fs.")] = 1.0,
    hydrogen_mass_Da: Annotated[
        list[float] | None,
        typer.Option(
            "--hydrogen-mass-Da",
            help="Mass of hydrogens, Da, taken from their heavy atoms; 0: natural; may be repeated "
            "(default: 0 4).",
        ),
    ] = None,
    friction_per_ps: Annotated[float, typer.Option(help="Of the Langevin thermostat, 1/ps.")] = 1.0,
    hydrogen_friction_per_ps: Annotated[
        list[float] | None,
        typer.Option(help="More friction on the heaviest hydrogens, 1/ps (default: 20)."),
    ] = None,
    high_pass: Annotated[
        bool,
        typer.Option(
            "--high-pass/--no-high-pass",
            help="Scan coloured noise, too, which damps fast vibrations only, on the heaviest "
            "hydrogens.",
        ),
    ] = True,
    constrain_hydrogens: Annotated[
        bool | None,
        typer.Option(
            "--constrain-hydrogens/--no-constrain-hydrogens",
            help="Scan held bonds to the heaviest hydrogens, too (default: where there are any).",
        ),
    ] = None,
    rigid_water: Annotated[
        bool,
        typer.Option(
            "--rigid-water",
            help="With held bonds, hold the distance of both hydrogens of a water, too.",
        ),
    ] = False,
    constrained_inner_fs: Annotated[
        float, typer.Option(help="Inner step with held bonds, fs.")
    ] = 2.0,
    purpose: Annotated[
        str,
        typer.Option(
            "--for",
            help="What to recommend: dynamics (slow motion is left alone) or sampling (more "
            "friction on hydrogens is welcome).",
        ),
    ] = "dynamics",
    temperature_K: Annotated[float, typer.Option("--temperature-K", help="Temperature, K.")] = (
        300.0
    ),
    picoseconds: Annotated[float, typer.Option("--ps", help="Length of every run, ps.")] = 2.0,
    equilibrate_ps: Annotated[
        float, typer.Option(min=0, help="Dynamics with the student before, ps.")
    ] = 1.0,
    replicas: Annotated[
        int | None,
        typer.Option(min=1, help="Runs in one batch (default: 1 on a CPU, 8 on a GPU)."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of velocities and noise.")] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda:0, for both models.")] = "cpu",
    json_file: Annotated[
        Path | None,
        typer.Option("--json", help="The scan (default: STRUCTURE-resonance.json here)."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an older scan.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only errors.")] = False,
) -> None:
    """Scan outer steps on your own teacher, student and system, and recommend the largest safe one.

    Every point is a short run with the thermostat (temperatures where it acts, X–H bonds, largest
    force difference, rough diffusion, vibrations) and one without it (drift of the energy, which
    predicts heating), compared with single steps of the teacher. A killed scan continues at the
    same command.
    """
    from mts_driver.cli.stages import StageProgress
    from mts_driver.validation.resonance.resonance import OUTER_FS
    from mts_driver.validation.resonance.resonance import resonance as run

    console = plain_console(quiet=quiet)
    if not console.is_terminal:
        console.width = _LOG_WIDTH
    with StageProgress(console) as progress:
        found = run(
            structure,
            teacher=teacher,
            student=student,
            outer_fs=outer_fs or OUTER_FS,
            inner_fs=inner_fs,
            hydrogen_mass_Da=hydrogen_mass_Da or (0.0, 4.0),
            friction_per_ps=friction_per_ps,
            hydrogen_friction_per_ps=hydrogen_friction_per_ps or (20.0,),
            high_pass=high_pass,
            constrain_hydrogens=constrain_hydrogens,
            rigid_water=rigid_water,
            constrained_inner_fs=constrained_inner_fs,
            purpose=purpose,
            temperature_K=temperature_K,
            picoseconds=picoseconds,
            equilibrate_ps=equilibrate_ps,
            replicas=replicas,
            seed=seed,
            device=device,
            json_file=json_file,
            force=force,
            command=shlex.join(["mts", *sys.argv[1:]]),
            tell=console.print,
            report=progress,
        )
    console.print(_table(found.results, narrow=console.width < _LOG_WIDTH))
    _say(console, found.results)
    picture = f", {found.picture}" if found.picture else f" ({found.no_picture})"
    console.print(f"written: {found.json_file}{picture}")


def _say(console: Console, found: dict[str, Any]) -> None:
    asked = found["purpose"]
    (other,) = set(found["recommended"]) - {asked}
    best, second = found["recommended"][asked], found["recommended"][other]
    if best is None:
        what = "no outer step of the scan is safe" + (f" for {asked}:" if second else ":")
        console.print(Text(what, "bold red"), "distil a better student")
    else:
        what = f"recommended for {asked}, {best['outer_fs']:g} fs:"
        console.print(Text(what, "bold green"), f"mts prepare {best['options']}")
    if second is not None and second != best:
        console.print(f"for {other}, {second['outer_fs']:g} fs: mts prepare {second['options']}")


def _table(found: dict[str, Any], *, narrow: bool) -> Table:
    title = f"{found['student']} for {found['structure']}, {found['atoms']} atoms"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    for column, width in COLUMNS.items():
        table.add_column(
            column, justify="right", overflow="fold", width=width if narrow and width else None
        )
    for row in (found["reference"], *found["scan"]):
        table.add_row(
            f"{row['outer_fs']:g}/{row['inner_fs']:.2g}",
            (f"{row['hmr']:g}" if row["hmr"] else "nat.") + _held(row),
            _friction(row, found["friction_per_ps"]),
            _shown(row["T_H"], ".0f", row["T_H_error"]),
            _shown(row["T_heavy"], ".0f", row["T_heavy_error"]),
            _shown(row["predicted_heating_K"], ".1f"),
            _shown(row["xh_mean"], ".4f"),
            _shown(row["xh_var_ratio"], ".2f", row["xh_var_ratio_error"]),
            _shown(row["max_dF"], ".2f"),
            _shown(row["diffusion_ratio"], ".1f", row["diffusion_ratio_error"]),
            _shown(row["speedup"], ".1f"),
            Text("safe", "green") if row["safe"] else Text(", ".join(row["faults"]), "red"),
        )
    return table


def _held(row: dict[str, Any]) -> str:
    if not row["constrained"]:
        return ""
    return " rigid" if row["rigid_water"] else " held"


def _friction(row: dict[str, Any], friction_per_ps: float) -> str:
    if row["high_pass"]:  # of slow motion, and of fast
        return f"{friction_per_ps:g}–{friction_per_ps + HIGH_FRICTION_PER_PS:g}"
    return f"{row['friction']:g}"


def _shown(value: float | None, form: str, error: float | None = None) -> str:
    if value is None:
        return "-"
    return format(value, form) + ("" if error is None else f" ± {error:{form}}")
