"""``mts run``: one command that runs i-PI with all its drivers."""

import shlex
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from mts_driver.cli.console import plain_console
from mts_driver.errors import UserError


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
    json: Annotated[Path | None, typer.Option(help="Another place for the summary.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only errors.")] = False,
) -> None:
    """Run i-PI with the drivers that the input's <ffsocket> blocks name in <parameters>.

    Outputs, logs and summary.json land next to the input. Files of an earlier run are kept under
    i-PI's names for backups (#name#0#), and --restart continues them. Ctrl-C stops cleanly.
    """
    from mts_driver.cli.progress import RunProgress
    from mts_driver.files import check_output, write_json
    from mts_driver.runs.checkpoints import newest_checkpoint
    from mts_driver.runs.launcher import Interrupted, Launcher, load

    console = plain_console(stderr=True, quiet=quiet)
    wanted = load(file)
    target = file.parent / "summary.json"
    check_output(target, name="the summary of a run")
    if json is not None:
        check_output(json, name="--json")
    go_on = f"mts run {shlex.quote(str(file))} --restart" + (f" --steps {steps}" if steps else "")
    if restart:
        checkpoint, done = newest_checkpoint(wanted)
        total = steps or wanted.total_steps
        if done >= total:
            raise UserError(
                f"--restart: {checkpoint.name} has done {done} of {total} steps: ask for more with "
                f"--steps {2 * done}."
            )
        console.print(f"continuing from {checkpoint.name} at step {done} of {total}")
        wanted, steps = load(checkpoint), total
    elif (file.parent / f"{wanted.prefix}.out").exists() or (file.parent / "RESTART").exists():
        console.print("outputs of an earlier run are kept as #name#0# (--restart continues them)")
    with RunProgress(console) as progress:
        launcher = Launcher(
            wanted,
            baseline_steps=baseline_steps,
            total_steps=steps,
            tell=progress.tell,
            on_event=progress.on_event,
            go_on=go_on,
        )
        try:
            summary = launcher.execute()
        except Interrupted:
            if launcher.partial_summary:
                write_json(target, launcher.partial_summary, keep=True)
            progress.stop()
            console.print(f"stopped. {launcher.restart_hint}".strip())
            sys.exit(130)
        except UserError:
            if launcher.partial_summary:
                write_json(target, launcher.partial_summary, keep=True)
                progress.stop()
                _print_holes(console, launcher.partial_summary)
            raise
    write_json(target, summary, keep=True)
    if json is not None:
        write_json(json, summary)
    _print_summary(console, summary, target)
    _draw_report(console, file.parent)
    if not summary["completed"]:
        step, total = summary["first_step"] + summary["steps"], summary["total_steps"]
        # the last line, and also where nothing else is printed: the run is not what was asked for
        plain_console(stderr=True).print(
            f"ended by {summary['ended_by']} at step {step} of {total}. {launcher.restart_hint}"
        )


def _draw_report(console: Console, folder: Path) -> None:
    """Make the picture where the analysis extra is installed; a run never fails for its sake."""
    command = f"mts report {shlex.quote(str(folder))}"
    try:
        from mts_driver.analysis.report import available, write_report

        if not available():
            console.print(f"no picture: pip install 'mts-driver[analysis]', then {command}")
            return
        console.print(f"picture: {write_report(folder).picture}")
    except UserError as error:
        console.print(f"no picture: {error}")
    except Exception as error:
        console.print(f"no picture ({type(error).__name__}: {error}); try again with {command}")


def _print_summary(console: Console, summary: dict[str, Any], target: Path) -> None:
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
        f"(1 fs), {shown('speedup_vs_single_step_2fs_hmr', '.2f')} (2 fs with HMR)"
    )
    temperatures = summary["temperatures_K"] or {}
    console.print(
        "T at O: "
        + (", ".join(f"{name} {value:.0f} K" for name, value in temperatures.items()) or "-")
        + f"; drift {shown('conserved_drift_meV_atom_ps', '.2g')} meV/atom/ps; max |F_T-F_S| "
        f"{shown('max_force_difference_eV_A', '.2f')} eV/Å, {shown('clip_events', 'd')} clipped"
    )
    _print_holes(console, summary)
    console.print(f"summary: {target}  ({time.strftime('%H:%M:%S')})")


def _print_holes(console: Console, summary: dict[str, Any]) -> None:
    """Say at how many steps the student was wrong, and where the frames are."""
    from mts_driver.simulation.holes import HARD_FILE, HOLES_FILE

    if summary["holes"] is None:
        return
    shown = []
    for key, what, file in (
        ("holes", "steps with a hole of the student", HOLES_FILE),
        ("hard_frames", "hard frames", HARD_FILE),
    ):
        where = f" ({file})" if summary[key] else ""
        shown.append(f"{what}: {summary[key]}{where}")
    console.print(", ".join(shown))
    outer_steps = max((event["outer_steps"] for event in summary["hole_events"]), default=1)
    if outer_steps > 1:
        first = next(e for e in summary["hole_events"] if e["outer_steps"] > 1)
        console.print(
            f"the outer step was shortened from step {first['step']} on ({first['reason']}), in "
            f"the end to 1/{outer_steps} of the time step"
        )
