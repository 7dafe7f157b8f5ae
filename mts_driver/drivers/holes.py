"""The frames of a run under i-PI at which the student was wrong: ``holes.extxyz``, ``hard.extxyz``.

Written while the run goes on, a frame at a time, so that a run that dies leaves them.
"""

import io
import os
import re
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.io import write

from mts_driver.files import keep_backup
from mts_driver.holes import HARD_FILE, HOLES_FILE, MOST_FRAMES, Label, Seen, Watch
from mts_driver.units import BOHR_A, HARTREE_EV, HARTREE_PER_BOHR_EV_A


class HoleRecorder:
    """Watches every system of a simulation with a teacher and a student.

    Parameters
    ----------
    simulation : ipi.engine.simulation.Simulation
        Bound.
    folder : Path
        Of the run. Files of another run are set aside as i-PI does with its own; a restarted run
        continues them, and steps that they hold already are not written again.
    timestep_fs : float
        Of an outer step, fs.
    teacher : str
        Specification of the teacher, for the frames; empty if it is not known.
    """

    def __init__(self, simulation: Any, folder: Path, *, timestep_fs: float, teacher: str) -> None:
        self._systems = simulation.syslist
        self._timestep_fs, self._teacher = timestep_fs, teacher
        self._files = {
            name: FrameFile(folder / name, restarted=int(simulation.step) > 0)
            for name in (HOLES_FILE, HARD_FILE)
        }
        self._watches = [
            Watch(_start(system), partial(self._keep, number if len(self._systems) > 1 else None))
            for number, system in enumerate(self._systems)
        ]

    def look(self, step: int) -> list[str | None]:
        """See the end of an outer step, when i-PI knows all forces at the new positions.

        Returns
        -------
        list of str or None
            For each system, why the step is a hole.
        """
        from ipi.utils.depend import dstrip

        from integrators.ipi_holes import force_differences

        reasons = []
        for system, watch in zip(self._systems, self._watches, strict=True):
            positions = dstrip(system.beads.q)
            seen = Seen(
                step=step,
                time_fs=round(step * self._timestep_fs, 6),
                positions=positions.reshape(len(positions), -1, 3) * BOHR_A,
                cell=dstrip(system.cell.h).T * BOHR_A,
                differences=force_differences(system.forces) * HARTREE_PER_BOHR_EV_A,
                teacher=partial(_label, system.forces),
            )
            reasons.append(watch.look(seen))
        return reasons

    def close(self) -> None:
        """Write what is still held back; harmless if repeated."""
        for watch in self._watches:
            watch.close()

    def results(self) -> dict[str, int]:
        """Return the counts of this process: outer steps with a hole, and hard frames written."""
        return {
            "holes": sum(watch.holes for watch in self._watches),
            "hard_frames": sum(watch.hard_frames for watch in self._watches),
        }

    def _keep(self, system: int | None, name: str, frame: Atoms) -> bool:
        if system is not None:
            frame.info["system"] = system
        if self._teacher:
            frame.info["teacher"] = self._teacher
        return self._files[name].add(frame)


class FrameFile:
    """An extended-XYZ file of at most 200 frames that grows frame by frame, no step twice.

    Parameters
    ----------
    path : Path
        Created with the first frame.
    restarted : bool
        Whether to continue a file that is there; a frame that a kill cut short is taken off it.
    """

    def __init__(self, path: Path, *, restarted: bool) -> None:
        self.path = path
        self._known: set[tuple[int, int]] = set()
        if not path.exists():
            return
        if restarted:
            self._known, end = _complete_frames(path)
            os.truncate(path, end)
        else:
            keep_backup(path)
            path.unlink()

    def add(self, frame: Atoms) -> bool:
        """Append a frame, unless the file is full or holds its step; return whether it did."""
        key = (frame.info["step"], frame.info.get("system", 0))
        if key in self._known or len(self._known) >= MOST_FRAMES:
            return False
        self._known.add(key)
        text = io.StringIO()
        write(text, frame, format="extxyz")
        # in one piece, so that a kill hardly ever leaves half a frame
        with open(self.path, "a") as stream:
            stream.write(text.getvalue())
        return True


def _complete_frames(path: Path) -> tuple[set[tuple[int, int]], int]:
    """Step and system of all complete frames, and the position in the file where they end."""
    found, end = set(), 0
    with open(path, "rb") as stream:
        while (count := stream.readline()).strip().isdigit():
            comment = stream.readline()
            rows = list(islice(stream, int(count)))
            if len(rows) < int(count) or not rows[-1].endswith(b"\n"):
                break
            step, system = (
                re.search(rb"\b%s=(\d+)" % key, comment) for key in (b"step", b"system")
            )
            if step:
                found.add((int(step[1]), int(system[1]) if system else 0))
            end = stream.tell()
    return found, end


def _start(system: Any) -> Atoms:
    from ipi.utils.depend import dstrip

    positions = dstrip(system.beads.q)[0].reshape(-1, 3) * BOHR_A
    names = [str(name) for name in system.beads.names]
    return Atoms(names, positions, cell=dstrip(system.cell.h).T * BOHR_A, pbc=True)


def _label(forces: Any, bead: int) -> Label | None:
    from integrators.ipi_holes import teacher_label

    found = teacher_label(forces, bead)
    return found and (found[0] * HARTREE_EV, found[1] * HARTREE_PER_BOHR_EV_A)
