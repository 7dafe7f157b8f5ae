"""What a run measures while i-PI steps: progress for the terminal, numbers for the summary."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mts_driver.drivers.counters import read_stats
from mts_driver.runs.ending import NotRestartable
from mts_driver.runs.measured.hole_recorder import HoleRecorder, Watched, timestep_fs
from mts_driver.units import HARTREE_EV

_REPORT_EVERY_S = 0.2
_EXPLODED_K = 1e5
_STUDENT_WRONG = "; if max|F_T-F_S| grew before, the student needs training on this system"
_NO_HOLES = dict.fromkeys(("holes", "hard_frames", "hole_threshold_eV_A"))


class RunMonitor:
    """Takes part in i-PI's list of outputs, so that it sees the end of every outer step.

    Parameters
    ----------
    simulation : ipi.engine.simulation.Simulation
        Bound.
    stats : dict of str to list of Path
        Files with the counters of the drivers of each force field.
    send : callable
        Takes an event (a dictionary) for ``mts run``.
    watched : sequence of Watched
        The systems in which a student can be compared with its teacher.
    """

    def __init__(
        self,
        simulation: Any,
        stats: dict[str, list[Path]],
        send: Callable[[dict[str, Any]], None],
        *,
        watched: Sequence[Watched],
    ) -> None:
        from integrators.ipi.plugin import integrators

        self.simulation = simulation
        self.stats = stats
        self.send = send
        self.integrators = integrators(simulation)
        self.monitors = [integrator.monitor for integrator in self.integrators]
        system = simulation.syslist[0]
        self.natoms = [one.beads.natoms for one in simulation.syslist]
        self.timestep_fs = timestep_fs(system)
        self.nmts = [int(n) for n in getattr(system.motion, "nmts", [1])]
        self.first_step = int(simulation.step)
        self.steps = 0
        several = len(simulation.syslist) > 1
        restarted = self.first_step > 0
        self.holes = (
            HoleRecorder(watched, Path.cwd(), restarted=restarted, several=several)
            if watched
            else None
        )
        self._times_ps: list[float] = []
        self._conserved_meV: list[float] = []
        self._temperatures: list[dict[str, float]] = []
        self._last_report = 0.0
        # the run may be stopped before it starts
        self._start = self._end = time.perf_counter()
        self.count_calls()

    def count_calls(self) -> None:
        """Count calls from here on; those of the loop, from `start`."""
        self._calls_before = self._calls_at_start = self._counters()

    def start(self) -> None:
        """Start the clock; the forces of the first structure have been evaluated by now."""
        self._calls_at_start = self._counters()
        # a restarted run has seen its first structure before it stopped
        if self.holes is not None and self.first_step == 0:
            self.holes.look(0)
        self._start = self._end = time.perf_counter()

    def _counters(self) -> dict[str, dict[str, float]]:
        totals = {}
        for name, paths in self.stats.items():
            found = [read_stats(path) for path in paths]
            totals[name] = {
                key: sum(one.get(key, 0) for one in found) for key in ("structures", "model_s")
            }
        return totals

    def active(self) -> bool:
        """Every step counts."""
        return True

    def write(self) -> None:
        """Record the step that i-PI has just finished; i-PI calls this."""
        step = int(self.simulation.step) + 1
        if step <= self.first_step:  # outputs of the first structure are no part of a step
            self._start = self._end = time.perf_counter()
            return
        self.steps = step - self.first_step
        self._end = time.perf_counter()
        self._times_ps.append(step * self.timestep_fs * 1e-3)
        # of all systems: exchanging replicas pass energy on to one another
        econs = sum(float(system.ensemble.econs) for system in self.simulation.syslist)
        self._conserved_meV.append(econs * HARTREE_EV * 1e3 / sum(self.natoms))
        self._temperatures.append(_mean([m.temperatures_K for m in self.monitors]))
        if self.holes is not None:
            self._guard(step, self.holes.look(step))
        self._check_for_explosion(step)
        if self._end - self._last_report > _REPORT_EVERY_S:
            self._last_report = self._end
            self.send({"event": "step", **self.now()})

    def _guard(self, step: int, holes: Mapping[int, str | None]) -> None:
        """Tell the integrator of a system about a broken bond, which it cannot see itself."""
        broken = [number for number, reason in holes.items() if reason == "bond"]
        for number in broken:
            beads = self.simulation.syslist[number].beads
            for integrator in self.integrators:
                if integrator.beads is beads:
                    integrator.guard.trip(step, "a bond to hydrogen beyond its range", integrator)

    def _check_for_explosion(self, step: int) -> None:
        hottest = max((t for m in self.monitors for t in m.latest_K.values()), default=0.0)
        if not hottest < _EXPLODED_K:
            raise NotRestartable(
                f"the trajectory has blown up: {hottest:.3g} K at step {step}. Restart from an "
                "older checkpoint, or from a relaxed structure, with a shorter outer time step"
                + ("" if self.holes is None else _STUDENT_WRONG)
            )

    def now(self) -> dict[str, Any]:
        """Return the numbers for the progress line."""
        return {
            "step": self.first_step + self.steps,
            "loop_s": self._end - self._start,
            "steps": self.steps,
            "timestep_fs": self.timestep_fs,
            "temperatures_K": _mean([m.latest_K for m in self.monitors]),
            "max_force_difference_eV_A": self._largest_difference(),
        }

    def _largest_difference(self) -> float | None:
        found = [m.max_force_difference_eV_A for m in self.monitors]
        return max(found) if found else None

    def results(self) -> dict[str, Any]:
        """Return the measurements for the summary; calls include the first structure's.

        A call is the evaluation of one structure; several beads may share one message.

        The frames that are still held back are written first.
        """
        now = self._counters()
        if self.holes is not None:
            self.holes.close()
        return {
            "systems": len(self.natoms),
            "natoms": self.natoms[0] if len(set(self.natoms)) == 1 else None,
            "nbeads": int(self.simulation.syslist[0].beads.nbeads),
            "first_step": self.first_step,
            "steps": self.steps,
            "timestep_fs": self.timestep_fs,
            "done": self._done(),
            "total_steps": int(self.simulation.tsteps),
            "nmts": self.nmts,
            "wall_s": self._end - self._start,
            "calls": {
                name: int(now[name]["structures"] - before["structures"])
                for name, before in self._calls_before.items()
            },
            "loop_calls": {
                name: int(now[name]["structures"] - before["structures"])
                for name, before in self._calls_at_start.items()
            },
            "model_s": {
                name: now[name]["model_s"] - before["model_s"]
                for name, before in self._calls_at_start.items()
            },
            "clip_events": sum(m.clip_events for m in self.monitors) if self.monitors else None,
            "max_force_difference_eV_A": self._largest_difference(),
            **(self.holes.results() if self.holes else _NO_HOLES),
            "hole_events": [event for i in self.integrators for event in i.guard.events][:100],
            "stopped": next((i.guard.stopped for i in self.integrators if i.guard.stopped), ""),
            "conserved_drift_meV_atom_ps": self._drift(),
            "temperatures_K": _mean([m.temperatures_K for m in self.monitors]) or None,
            "temperatures_second_half_K": self._second_half(),
        }

    def _done(self) -> bool:
        """Whether the steps that were asked for are done, or a motion has come to its own end."""
        ended = self.simulation.finished and self.simulation.exit_status != "bad"
        return ended or self.first_step + self.steps >= self.simulation.tsteps

    def _drift(self) -> float | None:
        if self.steps < 3 or not np.isfinite(self._conserved_meV).all():
            return None
        return float(np.polyfit(self._times_ps, self._conserved_meV, 1)[0])

    def _second_half(self) -> dict[str, float] | None:
        """Mean over the second half, from the running means at its two ends."""
        half = self.steps // 2
        if not self.monitors or half == 0:
            return None
        first, last = self._temperatures[half - 1], self._temperatures[-1]
        found = {
            key: (self.steps * last[key] - half * first[key]) / (self.steps - half) for key in last
        }
        return found or None


def _mean(readings: list[dict[str, float]]) -> dict[str, float]:
    """Mean over the systems that have a reading of the name."""
    names = dict.fromkeys(name for reading in readings for name in reading)
    return {name: float(np.mean([r[name] for r in readings if name in r])) for name in names}
