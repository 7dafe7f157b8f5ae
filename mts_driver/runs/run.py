"""A whole run under i-PI, with all its drivers, its summary and its picture: `run`."""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mts_driver.errors import UserError
from mts_driver.files import check_output, write_json
from mts_driver.runs.checkpoints import changes, newest_checkpoint
from mts_driver.runs.input.read import RunInput
from mts_driver.runs.launcher import Interrupted, Launcher, load
from mts_driver.runs.stale_sockets import only_run_in
from mts_driver.simulation.holes import HARD_FILE, HOLES_FILE

SUMMARY_FILE = "summary.json"


@dataclass(frozen=True, eq=False)
class RunResult:
    """A run that has ended.

    Attributes
    ----------
    summary : dict
        The content of ``summary.json``: speed, calls and their times, temperatures at the
        thermostat step (K), holes of the student, drift; None for what a run cannot give, with the
        reason under ``<key>_reason``.
    summary_file : Path
        Beside the input, with all outputs.
    picture : Path or None
        Of what the run gained and whether its physics held.
    no_picture : str
        Why there is none; empty if there is one.
    restart_hint : str
        How to go on where a run ended before all steps were done.
    """

    summary: dict[str, Any]
    summary_file: Path
    picture: Path | None
    no_picture: str
    restart_hint: str


def run(
    file: str | Path,
    *,
    restart: bool = False,
    steps: int | None = None,
    baseline_steps: int = 10,
    elsewhere: Mapping[str, str] | None = None,
    json_file: str | Path | None = None,
    tell: Callable[[str], None] = print,
    on_event: Callable[[dict[str, Any]], None] = lambda _: None,
) -> RunResult:
    """Run i-PI with the drivers that its input asks for, to the end; `mts run` calls this.

    Parameters
    ----------
    file : path
        The i-PI input, such as that of `prepare`. Outputs, logs and ``summary.json`` land beside
        it; files of an earlier run are kept under i-PI's names for backups.
    restart : bool
        Whether to continue from RESTART or the newest checkpoint.
    steps : int, optional
        Outer steps in all, instead of the input's ``<total_steps>``.
    baseline_steps : int
        Single steps of 1 fs that are timed for the speed-up; 0 for none.
    elsewhere : mapping of str to str, optional
        Drivers that somebody starts on other machines, by name of the force field: ``HOST:PORT`` of
        this machine where i-PI listens for it, or ``tcp://HOST:PORT`` where it listens itself (an
        ``<ffdirect>`` over ZeroMQ). Whatever the input or checkpoint says of its address gives way.
    json_file : path, optional
        Another place for the summary, beside ``summary.json``.
    tell : callable
        Takes sentences about what is done.
    on_event : callable
        Takes what i-PI's process reports, a dictionary with ``event``: ``loaded``, ``started``,
        ``step``, ``end``.

    Returns
    -------
    RunResult
        The summary, and where things are.

    Raises
    ------
    UserError
        If the input is wrong or a process fails; i-PI has written RESTART by then if it could.
    mts_driver.runs.launcher.Interrupted
        After Ctrl-C, SIGTERM or SIGUSR1, and a clean stop; it says how to go on. Call it from the
        main thread, which alone hears signals.
    """
    path = Path(file)
    for name, value, least in (("steps", steps, 1), ("baseline_steps", baseline_steps, 0)):
        if value is not None and value < least:
            raise UserError(f"{name}={value}: give {least} or more.")
    wanted = load(path, elsewhere)
    with only_run_in(path.parent):
        return _run(
            path, wanted, restart=restart, steps=steps, baseline_steps=baseline_steps,
            elsewhere=elsewhere, json_file=json_file, tell=tell, on_event=on_event,
        )  # fmt: skip


def _run(
    path: Path,
    wanted: RunInput,
    *,
    restart: bool,
    steps: int | None,
    baseline_steps: int,
    elsewhere: Mapping[str, str] | None,
    json_file: Path | str | None,
    tell: Callable[[str], None],
    on_event: Callable[[dict[str, Any]], None],
) -> RunResult:
    """Do as `run` says, in a folder that no other run is in."""
    target = path.parent / SUMMARY_FILE
    check_output(target, name="the summary of a run")
    if json_file is not None:
        check_output(Path(json_file), name="json_file")
    go_on = f"mts run {shlex.quote(str(path))} --restart" + (f" --steps {steps}" if steps else "")
    go_on += "".join(f" --elsewhere {name}={at}" for name, at in (elsewhere or {}).items())
    if restart:
        checkpoint, done = newest_checkpoint(wanted)
        total = steps or wanted.total_steps
        if done >= total:
            raise UserError(
                f"restart=True: {checkpoint.name} has done {done} of {total} steps: ask for more "
                f"with steps={2 * done}."
            )
        goes_on = load(checkpoint, elsewhere)
        if changed := changes(wanted, goes_on):
            raise UserError(
                f"restart=True: {path.name} is not what {checkpoint.name} goes on with: "
                f"{'; '.join(changed)}. Put it back as it was, or start anew without restart."
            )
        tell(f"continuing from {checkpoint.name} at step {done} of {total}")
        wanted, steps = goes_on, total
    elif (path.parent / f"{wanted.prefix}.out").exists() or (path.parent / "RESTART").exists():
        tell("outputs of an earlier run are kept as #name#0# (--restart continues them)")
    launcher = Launcher(
        wanted,
        baseline_steps=baseline_steps,
        total_steps=steps,
        elsewhere=elsewhere,
        tell=tell,
        on_event=on_event,
        go_on=go_on,
    )
    try:
        summary = launcher.execute()
    except Interrupted:
        if launcher.partial_summary:
            write_json(target, launcher.partial_summary, keep=True)
        raise Interrupted(f"stopped. {launcher.restart_hint}".strip()) from None
    except UserError:
        if launcher.partial_summary:
            write_json(target, launcher.partial_summary, keep=True)
            for line in holes_in_words(launcher.partial_summary):
                tell(line)
        raise
    write_json(target, summary, keep=True)
    if json_file is not None:
        write_json(Path(json_file), summary)
    picture, no_picture = _drawn(path.parent)
    return RunResult(summary, target, picture, no_picture, launcher.restart_hint)


def _drawn(folder: Path) -> tuple[Path | None, str]:
    """Make the picture where the analysis extra is installed; a run never fails for its sake."""
    command = f"mts report {shlex.quote(str(folder))}"
    try:
        from mts_driver.analysis.report import available, report

        if not available():
            return None, f"no picture: pip install 'mts-driver[analysis]', then {command}"
        return report(folder).picture, ""
    except UserError as error:
        return None, f"no picture: {error}"
    except Exception as error:
        return None, f"no picture ({type(error).__name__}: {error}); try again with {command}"


def holes_in_words(summary: dict[str, Any]) -> list[str]:
    """Say at how many steps the student was wrong, and where the frames are."""
    if summary["holes"] is None:
        return []
    shown = []
    for key, what, file in (
        ("holes", "steps with a hole of the student", HOLES_FILE),
        ("hard_frames", "hard frames", HARD_FILE),
    ):
        where = f" ({file})" if summary[key] else ""
        shown.append(f"{what}: {summary[key]}{where}")
    lines = [", ".join(shown)]
    outer_steps = max((event["outer_steps"] for event in summary["hole_events"]), default=1)
    if outer_steps > 1:
        first = next(e for e in summary["hole_events"] if e["outer_steps"] > 1)
        lines.append(
            f"the outer step was shortened from step {first['step']} on ({first['reason']}), in "
            f"the end to 1/{outer_steps} of the time step"
        )
    return lines
