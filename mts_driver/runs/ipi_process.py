"""i-PI's process under ``mts run``: ``python -m mts_driver.runs.ipi_process SETTINGS``.

``SETTINGS`` is JSON; events go to the parent as JSON lines through the pipe ``events_fd``, and the
parent says on stdin when the drivers are ready. i-PI reads the input before that, and opens its
sockets and outputs after: a model that cannot be loaded leaves the folder as it was.
"""

import contextlib
import json
import os
import signal
import sys
import threading
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
from ase.io import write

from mts_driver.processes import die_with_parent
from mts_driver.runs.atoms_of_run import check_systems, structure_for
from mts_driver.runs.checkpoints import write_checkpoints_well
from mts_driver.runs.ending import Ending
from mts_driver.runs.input.elsewhere import put_elsewhere
from mts_driver.runs.ipi_polling import ask_directly
from mts_driver.runs.measured.connections import watch_connections
from mts_driver.runs.measured.hole_recorder import watched_systems
from mts_driver.runs.measured.measurements import RunMonitor
from mts_driver.runs.measured.single_step_timing import time_single_steps
from mts_driver.runs.measured.solutes import watch_solutes


class Engine:
    """One i-PI simulation and what it reports.

    Parameters
    ----------
    settings : dict
        ``input``, ``elsewhere`` (for `put_elsewhere`), ``structures`` (by force field: where to
        write the atoms for its driver, and whether they are periodic), ``stats`` (the same:
        files), ``teachers`` (the same: specifications, empty where they are not known; none without
        students), ``students`` (names), ``baseline_steps``, ``total_steps`` (or None),
        ``events_fd``, ``parent``.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.monitor: RunMonitor | None = None
        self.baseline: tuple[float | None, str] = (None, "")
        self.ending = Ending(self.send, self.measured)
        self.structures: list[tuple[str, tuple[str, bool]]] = list(settings["structures"].items())
        self._pipe = threading.Lock()
        self._told_to_stop = False

    def send(self, event: dict[str, Any]) -> None:
        """Tell the parent; a parent that is gone is no reason to stop before RESTART is written."""
        line = json.dumps(event).encode() + b"\n"
        with self._pipe, contextlib.suppress(BrokenPipeError):
            while line:
                line = line[os.write(self.settings["events_fd"], line) :]

    def run(self) -> None:
        """Load, measure the baseline, step to the end, and report."""
        from ipi.engine.simulation import Simulation
        from ipi.utils.softexit import softexit

        from integrators.ipi.plugin import register
        from integrators.ipi.replacements import take_resets_for_ends

        register()
        take_resets_for_ends()
        write_checkpoints_well()
        self.ending.watch()
        root = ET.parse(self.settings["input"]).getroot()
        put_elsewhere(root, self.settings["elsewhere"])
        simulation = Simulation.load_from_xml(
            ET.tostring(root, "unicode"),
            request_banner=True,
            post_init_hook=self.hold_until_drivers_are_ready,
        )
        _listen_once(signal.SIGTERM)
        if self._told_to_stop:  # i-PI's own handler has come after the signal
            softexit._kill_handler(signal.SIGTERM, None)
        isolated = [name for name, (_, periodic) in self.structures if not periodic]
        watch_solutes(simulation, isolated)
        stats = {name: [Path(p) for p in paths] for name, paths in self.settings["stats"].items()}
        self.monitor = RunMonitor(
            simulation,
            stats,
            self.send,
            watched=watched_systems(
                simulation,
                teachers=self.settings["teachers"],
                students=self.settings["students"],
                isolated=isolated,
            ),
        )
        # last in the list of clean-up functions, so that RESTART is in place when it reports
        softexit.register_function(self.ending.report)
        softexit.register_function(lambda: _remove_sockets(simulation))
        # once the outputs are safe, end at once: threads that wait for a dead driver never would
        softexit.hard_exit = True
        watch_connections(simulation, self.settings["stats"], self.send)
        self.send({"event": "started"})
        if self.settings["teachers"]:
            self.baseline = time_single_steps(
                simulation, list(self.settings["teachers"]), steps=self.settings["baseline_steps"]
            )
        self.monitor.count_calls()
        for system in simulation.syslist:
            _evaluate_all(system.forces)
        simulation.outputs.append(self.monitor)
        self.monitor.start()
        simulation.run()
        softexit.trigger(status=simulation.exit_status, message=simulation.exit_message)

    def hold_until_drivers_are_ready(self, simulation: Any) -> None:
        """Between reading the input and opening sockets: write the atoms, wait for the word."""
        if self.settings["total_steps"]:
            simulation.tsteps = self.settings["total_steps"]
        ask_directly(simulation, set(self.settings["stats"]))
        check_systems(simulation)
        for name, (file, periodic) in self.structures:
            write(file, structure_for(simulation, name, periodic=periodic), format="extxyz")
        self.send({"event": "loaded", "step": int(simulation.step), "total": simulation.tsteps})
        if sys.stdin.readline().strip() != "go":
            os._exit(0)  # nobody is there to report to
        signal.signal(signal.SIGTERM, self._stop_later)

    def _stop_later(self, *_: object) -> None:
        self._told_to_stop = True

    def measured(self) -> dict[str, Any]:
        """Return the measurements so far; empty before the first step."""
        if self.monitor is None:
            return {}
        seconds, reason = self.baseline
        return {
            "baseline_s": seconds,
            "baseline_reason": reason,
            **self.monitor.now(),
            **self.monitor.results(),
        }


def _listen_once(number: int) -> None:
    """Let i-PI hear a signal once: a second one would end it before RESTART is written.

    The kernel sends it when ``mts run`` dies, and whoever else cleans up may send it too; ``mts
    run`` itself kills an engine that takes too long.
    """
    native: Any = signal.getsignal(number)
    heard = False

    def handle(number: int, frame: Any) -> None:
        nonlocal heard
        if not heard:
            heard = True
            native(number, frame)

    signal.signal(number, handle)


def _evaluate_all(forces: Any) -> None:
    """Have every level's forces of the first structure, so that the clock sees whole steps only."""
    for level in forces.mts_forces:
        np.asarray(level.f)


def _remove_sockets(simulation: Any) -> None:
    """Unlink what i-PI leaves after a soft exit; ``mts run`` may not be there any more to do it."""
    for forcefield in simulation.fflist.values():
        server = getattr(forcefield, "socket", None)
        if server is not None and server.mode in ("unix", "shm"):
            Path(server.sockets_prefix + server.address).unlink(missing_ok=True)


def main() -> None:
    """Run one engine; errors go to the parent as an event and to the log as a traceback."""
    settings = json.loads(sys.argv[1])
    die_with_parent(settings["parent"])
    engine = Engine(settings)
    try:
        engine.run()
    except (Exception, SystemExit) as error:
        engine.ending.failed(error)


if __name__ == "__main__":
    main()
