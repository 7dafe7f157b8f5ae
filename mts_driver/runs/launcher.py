"""``mts run``: start i-PI and the drivers that its input asks for, and see that all of them end.

The processes, each in a session of its own::

    mts run ── engine (i-PI, runs/ipi_process.py)
            ├─ driver of each <ffsocket> with a model (mts serve)

Whoever dies first is reported, with its last lines. i-PI always gets the chance to write RESTART:
it is asked with SIGTERM, also by the kernel when ``mts run`` itself is killed.
"""

import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mts_driver.drivers.counters import read_stats
from mts_driver.errors import UserError
from mts_driver.files import check_output
from mts_driver.processes import Child
from mts_driver.runs.checkpoints import set_aside_checkpoints
from mts_driver.runs.driver_process import load, start_driver, stats_file, structure_file
from mts_driver.runs.input.read import Driver, RunInput, check_ipi_version
from mts_driver.runs.ipi_child import EngineProcess
from mts_driver.runs.measured.connections import in_words
from mts_driver.runs.measured.summary import summarise
from mts_driver.runs.stale_sockets import free_address

ENGINE_PATIENCE_S = 35.0
"""i-PI waits for the force that is being computed before it writes RESTART, and gives up itself."""
DRIVER_PATIENCE_S = 5.0
_GRACE_S = 3.0


class Interrupted(Exception):
    """The user stopped the run; everything has been wound up."""


class Launcher:
    """One run.

    Parameters
    ----------
    run : RunInput
        The input, or the checkpoint to continue from.
    baseline_steps : int
        Single steps to time for ``speedup_vs_single_step``; 0 for none.
    total_steps : int, optional
        Replaces the input's ``<total_steps>``.
    elsewhere : mapping of str to str, optional
        That ``run`` was loaded with.
    tell : callable
        Takes lines for the user.
    on_event : callable
        Takes the engine's events: ``loaded``, ``started``, ``step``, ``end``.
    go_on : str
        The command that continues this run, for messages.
    """

    def __init__(
        self,
        run: RunInput,
        *,
        baseline_steps: int = 10,
        total_steps: int | None = None,
        elsewhere: Mapping[str, str] | None = None,
        tell: Callable[[str], None] = lambda _: None,
        on_event: Callable[[dict[str, Any]], None] = lambda _: None,
        go_on: str = "mts run input.xml --restart",
    ) -> None:
        self.run = run
        self.baseline_steps = baseline_steps
        self.total_steps = total_steps
        self.elsewhere = dict(elsewhere or {})
        self.tell = tell
        self.on_event = on_event
        self.go_on = go_on
        self.folder = run.path.resolve().parent
        self.engine: EngineProcess | None = None
        self.drivers: dict[str, Child] = {}
        self.last: dict[str, Any] = {}
        self._end: dict[str, Any] | None = None
        self.ended_by = ""
        self._may_have_restart = False

    def execute(self) -> dict[str, Any]:
        """Run to the end.

        Returns
        -------
        dict
            The summary.

        Raises
        ------
        UserError
            If a process fails; i-PI has written RESTART by then if it could.
        Interrupted
            On Ctrl-C, SIGTERM or SIGUSR1, after a clean stop.
        """
        check_ipi_version()
        for name in ("i-pi", *(driver.name for driver in self.run.drivers)):
            check_output(self.folder / f"{name}.log", name="the log of a run")
        for address in self.run.addresses:
            if free_address(address):
                self.tell(f"removed the stale socket {address} of a run that was killed")
        if self._remove_exit():
            self.tell(f"removed the file EXIT in {self.folder}, which would end this run at once")
        self.scratch = Path(tempfile.mkdtemp(prefix="mts-run-"))
        # batch systems announce the end of a job by one that the job names, often USR1
        stops = {one: signal.signal(one, _interrupt) for one in (signal.SIGTERM, signal.SIGUSR1)}
        try:
            self._start_engine()
            self._until("loaded")
            self._start_drivers()
            self._until_drivers_are_ready()
            assert self.engine is not None
            if self.run.step == 0:
                set_aside_checkpoints(self.run)
            self._may_have_restart = True
            self.engine.tell("go")
            self._until("end")
            if self._end is not None and not self._end["done"]:
                self._blame_a_driver()
            self._wind_up()
        except KeyboardInterrupt as stopped:
            self.ended_by = str(stopped) or "Ctrl-C or SIGTERM"
            self._stop_all()
            raise Interrupted from None
        finally:
            self._stop_all()
            for number, previous in stops.items():
                signal.signal(number, previous)
            self._remove_exit()
            shutil.rmtree(self.scratch, ignore_errors=True)
        assert self._end is not None
        if self._end["stopped"]:
            raise UserError(
                f"stopped, as <on_hole> asks, after {self._end['stopped']}. Continue with "
                f"`{self.go_on}`, with <on_hole> shorten in RESTART if you like, or teach the "
                "student with `mts distill --from-run`."
            )
        return self._summary(self._end)

    def _remove_exit(self) -> bool:
        """Remove the file that asks i-PI to end, which would end the next run as well."""
        file = self.folder / "EXIT"
        if not file.is_file():
            return False
        file.unlink()
        return True

    def _summary(self, end: dict[str, Any]) -> dict[str, Any]:
        return summarise(self.run, {**end, "ended_by": self.ended_by or end.get("ended_by", "")})

    @property
    def partial_summary(self) -> dict[str, Any] | None:
        """Summary of a run that was stopped or failed, if it had started stepping."""
        return self._summary(self._end) if self._end else None

    @property
    def restart_hint(self) -> str:
        """A sentence on how to go on, once i-PI has begun; empty before."""
        if not self._may_have_restart:
            return ""
        if (self.folder / "RESTART").exists():
            return f"RESTART has been written: continue with `{self.go_on}`."
        if (self._end or self.last).get("step"):
            return f"`{self.go_on}` continues from the newest checkpoint."
        return ""

    def _start_engine(self) -> None:
        settings = {
            "input": self.run.path.name,
            "elsewhere": self.elsewhere,
            "structures": {
                driver.name: [str(structure_file(self.scratch, driver)), driver.periodic]
                for driver in self.run.drivers
            },
            "stats": {d.name: [str(stats_file(self.scratch, d))] for d in self.run.drivers},
            # those of a teacher alone have nothing to be compared with
            "teachers": {name: self.run.models.get(name, "") for name in self.run.teachers}
            if self.run.students
            else {},
            "students": self.run.students,
            "baseline_steps": self.baseline_steps,
            "total_steps": self.total_steps,
        }
        self.engine = EngineProcess(settings, self.folder)

    def _start_drivers(self) -> None:
        served: set[str] = set()
        for driver in self.run.drivers:
            if driver.name in served:
                continue
            first, second = self._at_the_same_address(driver)
            served |= {one.name for one in (first, second) if one}
            device = first.options.get("device", "cpu")
            self.tell(f"starting {first.name}: {first.model} on {device}")
            self.drivers[first.name] = start_driver(
                first, self.folder, self.scratch, student=second
            )
        for address in self.run.addresses:
            if address not in [driver.address for driver in self.run.drivers]:
                self.tell(f"waiting for a driver that you start yourself, at {address}")

    def _at_the_same_address(self, driver: Driver) -> tuple[Driver, Driver | None]:
        """Return the driver to start, and the student that it serves as well."""
        both = [d for d in self.run.drivers if d.address == driver.address]
        if driver.address.mode != "zmq" or len(both) == 1:
            return driver, None
        student, teacher = sorted(both, key=lambda one: one.name in self.run.teachers)
        return teacher, student

    def _until_drivers_are_ready(self) -> None:
        waiting = {driver.name: driver for driver in self.run.drivers}
        while waiting:
            self._check_processes()
            for name, driver in list(waiting.items()):
                if read_stats(stats_file(self.scratch, driver)).get("state") == "ready":
                    del waiting[name]
            time.sleep(0.02)

    def _until(self, wanted: str) -> None:
        """Take events until the one that is wanted; raise if a process fails before."""
        assert self.engine is not None
        while True:
            for event in self.engine.read(wait_s=0.1):
                self._take(event)
                self.on_event(event)
                if event["event"] == wanted:
                    return
            self._check_processes()
            if self._end is not None:  # heard of there, behind the end of a driver
                self.on_event(self._end)
                return

    def _check_processes(self) -> None:
        """Raise if a process has died that should not have."""
        self._blame_a_driver()
        ended = [child for child in self.drivers.values() if child.code == 0]
        assert self.engine is not None
        if ended or self.engine.code is not None:
            asked = self._hear_the_engine_out()
            if self._end is None or asked:
                self._explain(ended[0] if asked else self.engine)

    def _blame_a_driver(self) -> None:
        """Raise if a driver has failed."""
        failed = [child for child in self.drivers.values() if child.code not in (None, 0)]
        if failed:
            self._explain(failed[0])

    def _hear_the_engine_out(self) -> bool:
        """Wait for the engine's last event: drivers leave in peace when i-PI ends.

        Returns
        -------
        bool
            Whether it had none to send, and was asked to end: i-PI had dropped a driver.
        """
        patience, asked = time.monotonic() + _GRACE_S, False
        assert self.engine is not None
        while self._end is None:
            events = self.engine.read(wait_s=0.1)
            for event in events:
                self._take(event)
            if self.engine.code is not None and not events:
                break
            if time.monotonic() > patience:
                if asked:
                    break
                self.engine.process.terminate()
                patience, asked = time.monotonic() + ENGINE_PATIENCE_S, True
        return asked

    def _take(self, event: dict[str, Any]) -> None:
        """Keep an event of the engine; raise if it is an error."""
        self.last.update(event)
        if event["event"] == "drivers":
            self.tell(in_words(event))
        if event["event"] == "error":
            self._end = event["measured"] or None
            raise UserError(self._engine_error(event))
        if event["event"] == "end":
            if "steps" not in event:
                raise UserError(f"i-PI ended without a result: see {self.folder / 'i-pi.log'}.")
            self._end = event

    def _engine_error(self, event: dict[str, Any]) -> str:
        self.ended_by = str(event["message"])
        if event["kind"] == "UserError" and not self._may_have_restart:
            return str(event["message"])
        message = f"i-PI stopped: {event['message']} (details: {self.folder / 'i-pi.log'})"
        done = event["measured"].get("steps", 0)
        return f"{message}\n{self.restart_hint}" if done and self.restart_hint else message

    def _explain(self, culprit: Child) -> None:
        """Stop everything, then raise an error that says what happened and how to go on."""
        who, words = f"{culprit.name} (process {culprit.process.pid})", culprit.last_words()
        what = f"{who} {culprit.how_it_ended()}"
        if culprit is not self.engine and culprit.code == 0:
            what = (
                f"i-PI dropped the connection to {who} and goes on waiting for another driver: "
                "give the <ffsocket> a longer <timeout> if an evaluation takes longer than it says"
            )
        self.ended_by = what
        self._stop_all()
        step = (self._end or self.last).get("step")
        lines = [f"{what}, at step {step}." if step else f"{what}."]
        if words:
            lines += [f"Its last lines ({culprit.log}):", words]
        if self.restart_hint:
            lines.append(self.restart_hint)
        raise UserError("\n".join(lines))

    def _wind_up(self) -> None:
        """After i-PI's last event: everyone should leave now."""
        assert self.engine is not None
        self.engine.wait(patience=ENGINE_PATIENCE_S)
        for driver in self.run.drivers:
            child = self.drivers.get(driver.name)
            if child is None:
                continue
            if driver.address.mode == "zmq":  # it serves whoever asks, and waits for the next
                child.stop(patience=DRIVER_PATIENCE_S)
            child.wait(patience=DRIVER_PATIENCE_S)

    def _stop_all(self) -> None:
        """End all processes: i-PI first, so that it can write RESTART.

        A second Ctrl-C does not interrupt this, which is bounded in time.
        """
        previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
        try:
            self._stop_one_by_one()
        finally:
            signal.signal(signal.SIGINT, previous)

    def _stop_one_by_one(self) -> None:
        if self.engine is not None and self.engine.code is None:
            self.tell("stopping i-PI ...")
            if not self.engine.stop(patience=ENGINE_PATIENCE_S):
                self.tell("i-PI did not stop and was killed: continue from a checkpoint")
        if self.engine is not None:
            while self._end is None and (events := self.engine.read(wait_s=0)):
                for event in events:
                    if event["event"] in ("end", "error"):
                        found = event.get("measured", event)
                        self._end = found if "steps" in found else None
            self.engine.close()
        for child in self.drivers.values():
            child.stop(patience=DRIVER_PATIENCE_S)
        for address in self.run.addresses:
            # i-PI removes them when it ends by itself or by a soft exit, but not when it is killed
            if address.mode != "inet" and self.engine is not None:
                Path(address.path).unlink(missing_ok=True)
        self.engine = None


def _interrupt(number: int, _: object) -> None:
    raise KeyboardInterrupt("SIGUSR1" if number == signal.SIGUSR1 else "")


__all__ = ["Interrupted", "Launcher", "load"]
