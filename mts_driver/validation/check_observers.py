"""The observers of a check: what they see, remember over a kill, and report."""

import time
from typing import Any

from ase import Atoms

from integrators.state import MDState
from mts_driver.progress import Progress
from mts_driver.simulation.dynamics import DynamicsSettings
from mts_driver.simulation.frame_file import FrameFile
from mts_driver.simulation.holes import HARD_FILE, HOLES_FILE
from mts_driver.simulation.resumable_watch import ResumableWatch
from mts_driver.simulation.watched_run import Watcher
from mts_driver.validation.averages import Tally
from mts_driver.validation.check_state import StateFile
from mts_driver.validation.held import Held


class CheckRun:
    """What observes a trajectory, from its first step or from a saved one.

    Parameters
    ----------
    atoms : ase.Atoms
        The system as it was given.
    protocol : DynamicsSettings
        How it is run.
    file : StateFile
        Written to now and then; frames go beside it.
    saved : dict or None
        What the file held.
    report : callable
        ``report(stage, done, total)``.
    labelled : bool
        Whether there is a teacher.
    held : Held, optional
        Bonds that are held.

    Attributes
    ----------
    watcher : Watcher
        Finds holes.
    tally : Tally
        Sums up averages.
    """

    def __init__(
        self,
        atoms: Atoms,
        protocol: DynamicsSettings,
        file: StateFile,
        saved: dict[str, Any] | None,
        report: Progress,
        *,
        labelled: bool,
        held: Held | None = None,
    ) -> None:
        self._held = held
        self._protocol, self._file, self._report = protocol, file, report
        self._labelled = labelled
        self._frames = {
            name: FrameFile(file.path.parent / name, restarted=saved is not None)
            for name in (HOLES_FILE, HARD_FILE)
        }
        self._watch = ResumableWatch(atoms, self._keep)
        self.watcher = Watcher(self._watch, protocol, labelled=labelled)
        lost = None if held is None else held.lost_degrees
        self.tally = Tally(atoms, steps=protocol.steps, labelled=labelled, lost_degrees=lost)
        self._clip_events, self._wall_s = 0, 0.0
        self._since: float | None = None
        if saved is not None:
            self._watch.restore(saved["watch"])
            self.watcher.hole, self.watcher.done = saved["hole"], saved["done"]
            self.tally.sums = saved["sums"]
            self._clip_events, self._wall_s = saved["clip_events"], saved["wall_s"]

    def look(self, state: MDState) -> None:
        """See the first state, and that after every outer step, with all forces known."""
        self.tally.end_step(state.step)
        # saved before the state is looked at: a restart evaluates this state again, and looks again
        self._file.save(lambda: self._memory(state))
        self.watcher.look(state)
        self._clip_events = int(state.clip_events)
        largest = self._watch.largest_eV_A
        details = f", max |ΔF| {largest:.2f} eV/Å" if self._labelled else ""
        self._report(
            f"dynamics, {self._watch.holes} holes{details}", state.step, self._protocol.steps
        )
        self.watcher.give_up()
        self.tally.look(state)
        self._since = self._since or time.monotonic()  # models compile in their first call

    def results(self) -> dict[str, Any]:
        """Return the findings with the keys of the report."""
        simulated_ps = 1e-3 * self._protocol.outer_fs * self.watcher.done
        wall_s = self._elapsed_s()
        return {
            "steps": self.watcher.done,
            "simulated_ps": simulated_ps,
            "clean_ps": self.watcher.clean_ps,
            "holes": self._watch.holes,
            "hard_frames": self._watch.hard_frames,
            "clip_events": self._clip_events if self._labelled else None,
            "max_force_difference_eV_A": self._watch.largest_eV_A if self._labelled else None,
            **self.tally.results(),
            "wall_s": wall_s,
            "s_per_ps": wall_s / simulated_ps if simulated_ps else None,
        }

    def close(self, *, blown_up: bool) -> None:
        """Keep the frames that are still held back."""
        self._watch.close(blown_up=blown_up)

    def _memory(self, state: MDState) -> dict[str, Any]:
        return {
            "step": state.step,
            "positions": state.positions,
            "velocities": state.velocities,
            "heat": state.heat,
            "extra": state.extra,
            "clip_events": self._clip_events,
            "wall_s": self._elapsed_s(),
            "hole": self.watcher.hole,
            "done": self.watcher.done,
            "watch": self._watch.saved(),
            "sums": self.tally.sums,
            "lengths_A": None if self._held is None else self._held.lengths_A,
        }

    def _elapsed_s(self) -> float:
        return self._wall_s + (0.0 if self._since is None else time.monotonic() - self._since)

    def _keep(self, name: str, frame: Atoms) -> bool:
        self._frames[name].add(frame)  # one that was written before a kill is there already
        return True
