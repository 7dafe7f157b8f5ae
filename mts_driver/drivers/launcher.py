"""``mts run``: start i-PI and the drivers that its input asks for, and see that all of them end.

The processes, each in a session of its own::

    mts run ── engine (i-PI, drivers/engine.py)
            ├─ driver of each <ffsocket> with a model (mts serve)

Whoever dies first is reported, with its last lines. i-PI always gets the chance to write RESTART:
it is asked with SIGTERM, also by the kernel when ``mts run`` itself is killed.
"""

import json
import os
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mts_driver.drivers.checkpoints import set_aside_checkpoints
from mts_driver.drivers.children import KEEP_MEMORY, WAIT_BRIEFLY, Child
from mts_driver.drivers.run_input import Driver, RunInput, check_ipi_version, read_input
from mts_driver.drivers.sockets import free_address
from mts_driver.drivers.stats import read_stats
from mts_driver.drivers.summary import summarise
from mts_driver.errors import UserError

ENGINE_PATIENCE_S = 30.0
"""i-PI waits for the force that is being computed before it writes RESTART."""
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
        tell: Callable[[str], None] = lambda _: None,
        on_event: Callable[[dict[str, Any]], None] = lambda _: None,
        go_on: str = "mts run input.xml --restart",
    ) -> None:
        self.run = run
        self.baseline_steps = baseline_steps
        self.total_steps = total_steps
        self.tell = tell
        self.on_event = on_event
        self.go_on = go_on
        self.folder = run.path.resolve().parent
        self.engine: Child | None = None
        self.drivers: dict[str, Child] = {}
        self.last: dict[str, Any] = {}
        self._end: dict[str, Any] | None = None
        self._pending = b""

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
            On Ctrl-C or SIGTERM, after a clean stop.
        """
        check_ipi_version()
        for address in self.run.addresses:
            if free_address(address):
                self.tell(f"removed the stale socket {address} of a run that was killed")
        self.scratch = Path(tempfile.mkdtemp(prefix="mts-run-"))
        self.events, self._events_end = os.pipe()
        previous = signal.signal(signal.SIGTERM, _interrupt)
        try:
            self._start_engine()
            self._until("loaded")
            self._start_drivers()
            self._until_drivers_are_ready()
            assert self.engine is not None
            if self.run.step == 0:
                set_aside_checkpoints(self.run)
            self.engine.tell("go")
            self._until("end")
            self._wind_up()
        except KeyboardInterrupt:
            self._stop_all()
            raise Interrupted from None
        finally:
            signal.signal(signal.SIGTERM, previous)
            self._stop_all()
            os.close(self.events)
            shutil.rmtree(self.scratch, ignore_errors=True)
        assert self._end is not None
        if self._end["stopped"]:
            raise UserError(
                f"stopped, as <on_hole> asks, after {self._end['stopped']}. Continue with "
                f"`{self.go_on}`, with <on_hole> shorten in RESTART if you like, or teach the "
                "student with `mts distill --from-run`."
            )
        return summarise(self.run, self._end)

    @property
    def partial_summary(self) -> dict[str, Any] | None:
        """Summary of a run that was stopped or failed, if it had started stepping."""
        return summarise(self.run, self._end) if self._end else None

    def _stats_file(self, driver: Driver) -> Path:
        return self.scratch / f"{driver.name}.json"

    def _start_engine(self) -> None:
        models = {driver.name: driver.model for driver in self.run.drivers}
        teacher = self.run.teacher if self.run.student else None
        settings = {
            "input": self.run.path.name,
            "structure": str(self.scratch / "atoms.extxyz"),
            "scratch": str(self.scratch),
            "stats": {d.name: [str(self._stats_file(d))] for d in self.run.drivers},
            "teacher": teacher,
            "teacher_model": models.get(teacher, "") if teacher else None,
            "baseline_steps": self.baseline_steps,
            "total_steps": self.total_steps,
            "events_fd": self._events_end,
            "parent": os.getpid(),
        }
        self.engine = Child(
            "i-PI",
            "mts_driver.drivers.engine",
            [json.dumps(settings)],
            log=self.folder / "i-pi.log",
            # i-PI's own linear algebra is small: more threads would only take the models' cores
            environment={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            pass_fds=(self._events_end,),
        )
        os.close(self._events_end)

    def _start_drivers(self) -> None:
        shared = self._beside_the_teacher()
        for driver in self.run.drivers:
            options = {"device": "cpu", "dtype": "float32", "threads": "0", **driver.options}
            where = driver.address
            if driver is shared:
                continue
            arguments = [driver.model, "--mode", where.mode, "--address", str(where)]
            if where.mode == "zmq":
                arguments = [driver.model, "--zmq", f"ipc://{where}"]
                if shared is not None and shared.address == where:
                    arguments += ["--student", shared.model]
                    arguments += ["--student-stats", str(self._stats_file(shared))]
            arguments += ["--structure", str(self.scratch / "atoms.extxyz")]
            for key in ("device", "dtype", "threads"):
                arguments += [f"--{key}", options[key]]
            arguments += ["--stats", str(self._stats_file(driver)), "--parent", str(os.getpid())]
            self.tell(f"starting {driver.name}: {driver.model} on {options['device']}")
            self.drivers[driver.name] = Child(
                driver.name,
                "mts_driver.cli.serve",
                arguments,
                log=self.folder / f"{driver.name}.log",
                environment={**WAIT_BRIEFLY, **KEEP_MEMORY},
            )
        for address in self.run.addresses:
            if address not in [driver.address for driver in self.run.drivers]:
                self.tell(f"waiting for a driver that you start by hand at {address}")

    def _beside_the_teacher(self) -> Driver | None:
        """Return the student if the teacher's driver serves it as well."""
        named = {driver.name: driver for driver in self.run.drivers}
        teacher, student = (named.get(str(name)) for name in (self.run.teacher, self.run.student))
        if teacher is None or student is None or teacher.address != student.address:
            return None
        return student

    def _until_drivers_are_ready(self) -> None:
        waiting = {driver.name: driver for driver in self.run.drivers}
        while waiting:
            self._check_processes()
            for name, driver in list(waiting.items()):
                if read_stats(self._stats_file(driver)).get("state") == "ready":
                    del waiting[name]
            time.sleep(0.02)

    def _until(self, wanted: str) -> None:
        """Take events until the one that is wanted; raise if a process fails before."""
        while True:
            readable, _, _ = select.select([self.events], [], [], 0.1)
            for event in self._read_events() if readable else ():
                self.last.update(event)
                if event["event"] == "error":
                    raise UserError(self._engine_error(event))
                self.on_event(event)
                if event["event"] == "end":
                    self._end = event
                if event["event"] == wanted:
                    return
            self._check_processes()

    def _read_events(self) -> list[dict[str, Any]]:
        self._pending += os.read(self.events, 1 << 16)
        *lines, self._pending = self._pending.split(b"\n")
        return [json.loads(line) for line in lines]

    def _check_processes(self) -> None:
        """Raise if a process has died that should not have."""
        failed = [child for child in self.drivers.values() if child.code not in (None, 0)]
        if failed:
            self._explain(failed[0])
        ended = [child for child in self.drivers.values() if child.code == 0]
        assert self.engine is not None
        if ended or self.engine.code is not None:
            self._drain()
            if self._end is None:
                # a driver leaves in peace when i-PI dies or says goodbye
                culprit = self.engine if self.engine.code is not None else ended[0]
                self._explain(culprit)

    def _drain(self) -> None:
        """Give the engine's last event time to arrive: drivers may end a moment before it."""
        deadline = time.monotonic() + _GRACE_S
        assert self.engine is not None
        while self._end is None and time.monotonic() < deadline:
            readable, _, _ = select.select([self.events], [], [], 0.1)
            events = self._read_events() if readable else []
            for event in events:
                if event["event"] == "error":
                    raise UserError(self._engine_error(event))
                self.last.update(event)
                if event["event"] == "end":
                    self._end = event
            if self.engine.code is not None and not events:
                return

    def _engine_error(self, event: dict[str, Any]) -> str:
        self._end = event["measured"] or None
        message = event["message"] or event["kind"]
        return f"i-PI stopped: {message} (details: {self.folder / 'i-pi.log'})"

    def _explain(self, culprit: Child) -> None:
        """Stop everything, then raise an error that says what happened and how to go on."""
        how, words = culprit.how_it_ended(), culprit.last_words()
        pid = culprit.process.pid
        self._stop_all()
        step = (self._end or self.last).get("step")
        lines = [f"{culprit.name} (process {pid}) {how}" + (f" at step {step}." if step else ".")]
        if words:
            lines += [f"Its last lines ({culprit.log}):", words]
        restart = self.folder / "RESTART"
        if self._end is not None and restart.exists():
            lines.append(f"RESTART has been written: continue with `{self.go_on}`.")
        elif step:
            lines.append(f"`{self.go_on}` continues from the newest checkpoint.")
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
        """End all processes: i-PI first, so that it can write RESTART."""
        if self.engine is not None and self.engine.code is None:
            self.tell("stopping i-PI ...")
            if not self.engine.stop(patience=ENGINE_PATIENCE_S):
                self.tell("i-PI did not stop and was killed: continue from a checkpoint")
        if self.engine is not None and self._end is None:
            self._collect_end()
        for child in self.drivers.values():
            child.stop(patience=DRIVER_PATIENCE_S)
        for address in self.run.addresses:
            # i-PI removes them when it ends by itself or by a soft exit, but not when it is killed
            if address.mode != "inet" and self.engine is not None:
                Path(address.path).unlink(missing_ok=True)
        self.engine = None

    def _collect_end(self) -> None:
        while select.select([self.events], [], [], 0)[0]:
            events = self._read_events()
            if not events:
                return
            self._end = next((e for e in events if e["event"] == "end"), self._end)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def load(path: Path) -> RunInput:
    """Read an input and check that its models can be found, before anything starts.

    Raises
    ------
    UserError
        If the input or a model's file is missing or wrong.
    """
    run = read_input(path)
    for driver in run.drivers:
        kind, _, rest = driver.model.partition(":")
        if kind.partition("?")[0] not in ("so3lr", "student", "ase"):
            raise UserError(
                f"<ffsocket name={driver.name!r}> asks for the model {driver.model!r}: use so3lr, "
                "student:FILE or ase:MODULE:CALLABLE?key=value."
            )
        looks_like_file = "/" in rest or rest.endswith(".safetensors")
        if kind == "student" and looks_like_file and not (path.parent / rest).is_file():
            raise UserError(
                f"<ffsocket name={driver.name!r}> asks for the student {rest!r}, which is not in "
                f"{path.parent.resolve()}: copy it there, or correct the model."
            )
    return run


__all__ = ["Interrupted", "Launcher", "load"]
