"""``mts run``: one command that runs i-PI with all its drivers."""

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from mts_driver.cli.console import plain_console


def run(
    file: Annotated[Path, typer.Argument(metavar="INPUT", help="i-PI input (input.xml).")],
    restart: Annotated[
        bool, typer.Option("--restart", help="Continue from RESTART or the newest checkpoint.")
    ] = False,
    steps: Annotated[
        int | None, typer.Option(help="Total outer steps, instead of <total_steps>.", min=1)
    ] = None,
    baseline_steps: Annotated[
        int, typer.Option(help="Single steps of 1 fs to time for the speed-up; 0: none.", min=0)
    ] = 10,
    elsewhere: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=ADDRESS",
            help="You start this driver, on another machine: HOST:PORT of this one, where i-PI "
            "listens, or tcp://HOST:PORT, where a driver over ZeroMQ does; may be repeated.",
        ),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Another place for the summary.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only errors.")] = False,
) -> None:
    """Run i-PI with the drivers that the input's <ffsocket> blocks name in <parameters>.

    Outputs, logs and summary.json land next to the input. Files of an earlier run are kept under
    i-PI's names for backups (#name#0#), and --restart continues them. Ctrl-C stops cleanly.
    """
    from mts_driver.cli.progress import RunProgress
    from mts_driver.runs.input.elsewhere import parse_elsewhere
    from mts_driver.runs.launcher import Interrupted
    from mts_driver.runs.run import run as start

    console = plain_console(stderr=True, quiet=quiet)
    try:
        with RunProgress(console) as progress:
            found = start(
                file,
                restart=restart,
                steps=steps,
                baseline_steps=baseline_steps,
                elsewhere=parse_elsewhere(elsewhere or []),
                json_file=json_file,
                tell=progress.tell,
                on_event=progress.on_event,
            )
    except Interrupted as stopped:
        console.print(str(stopped))
        sys.exit(130)
    summary = found.summary
    _print_summary(console, summary, found.summary_file)
    console.print(f"picture: {found.picture}" if found.picture else found.no_picture)
    if not summary["completed"]:
        step, total = summary["first_step"] + summary["steps"], summary["total_steps"]
        # the last line, and also where nothing else is printed: the run is not what was asked for
        plain_console(stderr=True).print(
            f"ended by {summary['ended_by']} at step {step} of {total}. {found.restart_hint}"
        )


def _print_summary(console: Console, summary: dict[str, Any], target: Path) -> None:
    from mts_driver.runs.run import holes_in_words

    def shown(key: str, form: str) -> str:
        value = summary.get(key)
        return "-" if value is None else format(value, form)

    console.print(
        f"{summary['steps']} steps of {summary['outer_timestep_fs']:g} fs in "
        f"{summary['wall_s']:.1f} s: {summary['ns_per_day']:.3f} ns/day"
    )
    console.print(
        f"teacher {shown('teacher_calls', 'd')} calls of {shown('teacher_ms', '.1f')} ms, student "
        f"{shown('student_calls', 'd')} of {shown('student_ms', '.2f')} ms, overhead "
        f"{shown('overhead_fraction', '.1%')}"
    )
    console.print(
        f"speed-up over single steps of the teacher: {shown('speedup_vs_single_step', '.2f')} "
        f"(1 fs), {shown('speedup_vs_single_step_2fs_hmr', '.2f')} (2 fs with HMR), "
        f"{shown('speedup_vs_single_step_4fs_constrained', '.2f')} (4 fs with held bonds)"
    )
    temperatures = summary["temperatures_K"] or {}
    console.print(
        "T at O: "
        + (", ".join(f"{name} {value:.0f} K" for name, value in temperatures.items()) or "-")
        + f"; drift {shown('conserved_drift_meV_atom_ps', '.2g')} meV/atom/ps; max |F_T-F_S| "
        f"{shown('max_force_difference_eV_A', '.2f')} eV/Å, {shown('clip_events', 'd')} clipped"
    )
    for line in holes_in_words(summary):
        console.print(line)
    console.print(f"summary: {target}  ({time.strftime('%H:%M:%S')})")
