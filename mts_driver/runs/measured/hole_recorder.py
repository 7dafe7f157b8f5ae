"""The frames of a run under i-PI at which the student was wrong: ``holes.extxyz``, ``hard.extxyz``.

Written while the run goes on, a frame at a time, so that a run that dies leaves them.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ase import Atoms

from mts_driver.runs.atoms_of_run import atoms_of
from mts_driver.simulation.frame_file import FrameFile
from mts_driver.simulation.holes import HARD_FILE, HOLE_EV_A, HOLES_FILE, Label, Seen, Watch
from mts_driver.units import BOHR_A, HARTREE_EV, HARTREE_PER_BOHR_EV_A


@dataclass(frozen=True)
class Watched:
    """A system in which a student can be compared with its teacher.

    Attributes
    ----------
    number : int
        Of the system in the input.
    system : ipi.engine.system.System
        Bound.
    start : ase.Atoms
        Its atoms, periodic or not.
    teacher : str
        Specification of the teacher, for the frames; empty if it is not known.
    timestep_fs : float
        Of an outer step, fs.
    threshold_eV_A : float
        |F_teacher − F_student| of an atom that is a hole, eV/Å.
    """

    number: int
    system: Any
    start: Atoms
    teacher: str
    timestep_fs: float
    threshold_eV_A: float


def watched_systems(
    simulation: Any,
    *,
    teachers: Mapping[str, str],
    students: Collection[str],
    isolated: Collection[str],
) -> list[Watched]:
    """Return the systems of a bound simulation that have a teacher and a student.

    Parameters
    ----------
    teachers : mapping of str to str
        Specifications by force field; empty where they are not known.
    students, isolated : collection of str
        Force fields that are students, and those whose driver sees no cell.
    """
    from integrators.ipi.plugin import integrators

    guards = {id(i.beads): i.guard for i in integrators(simulation)}
    found = []
    for number, system in enumerate(simulation.syslist):
        used = {part.ffield for part in system.forces.mforces}
        its_teachers = [name for name in teachers if name in used]
        if not (its_teachers and used & set(students)):
            continue
        guard = guards.get(id(system.beads))
        found.append(
            Watched(
                number,
                system,
                atoms_of(system, periodic=not used & set(isolated)),
                teachers[its_teachers[0]] if len(its_teachers) == 1 else "",
                timestep_fs(system),
                guard.threshold_eV_A if guard else HOLE_EV_A,
            )
        )
    return found


def timestep_fs(system: Any) -> float:
    """Outer time step of a system, fs; 0 where it has none."""
    from ipi.utils.units import unit_to_internal

    dt = float(getattr(system.motion, "dt", 0.0))
    return dt / unit_to_internal("time", "femtosecond", 1.0)


class HoleRecorder:
    """Watches all systems of a simulation that have a teacher and a student.

    Parameters
    ----------
    watched : sequence of Watched
        At least one.
    folder : Path
        Of the run. Files of another run are set aside as i-PI does with its own; a restarted run
        continues them, and steps that they hold already are not written again.
    restarted : bool
        Whether this is one.
    several : bool
        Whether there are other systems, so that frames say which they are of.
    """

    def __init__(
        self, watched: Sequence[Watched], folder: Path, *, restarted: bool, several: bool
    ) -> None:
        self._files = {
            name: FrameFile(folder / name, restarted=restarted) for name in (HOLES_FILE, HARD_FILE)
        }
        self._several = several
        self._watches = [
            (one, Watch(one.start, partial(self._keep, one), hole_eV_A=one.threshold_eV_A))
            for one in watched
        ]

    def look(self, step: int) -> dict[int, str | None]:
        """See the end of an outer step, when i-PI knows all forces at the new positions.

        Returns
        -------
        dict of int to str or None
            By the number of a system: why the step is a hole of it.
        """
        from ipi.utils.depend import dstrip

        from integrators.ipi.force_differences import force_differences

        reasons = {}
        for one, watch in self._watches:
            system = one.system
            positions = dstrip(system.beads.q)
            seen = Seen(
                step=step,
                time_fs=round(step * one.timestep_fs, 6),
                positions=positions.reshape(len(positions), -1, 3) * BOHR_A,
                cell=dstrip(system.cell.h).T * BOHR_A,
                differences=force_differences(system.forces) * HARTREE_PER_BOHR_EV_A,
                teacher=partial(_label, system.forces),
            )
            reasons[one.number] = watch.look(seen)
        return reasons

    def close(self) -> None:
        """Write what is still held back; harmless if repeated."""
        for _, watch in self._watches:
            watch.close()

    def results(self) -> dict[str, Any]:
        """Return the counts of this process: outer steps with a hole, and hard frames written."""
        return {
            "holes": sum(watch.holes for _, watch in self._watches),
            "hard_frames": sum(watch.hard_frames for _, watch in self._watches),
            # the lowest, where systems have different ones
            "hole_threshold_eV_A": min(one.threshold_eV_A for one, _ in self._watches),
        }

    def _keep(self, one: Watched, name: str, frame: Atoms) -> bool:
        if self._several:
            frame.info["system"] = one.number
        if one.teacher:
            frame.info["teacher"] = one.teacher
        return self._files[name].add(frame)


def _label(forces: Any, bead: int) -> Label | None:
    from integrators.ipi.force_differences import teacher_label

    found = teacher_label(forces, bead)
    return found and (found[0] * HARTREE_EV, found[1] * HARTREE_PER_BOHR_EV_A)
