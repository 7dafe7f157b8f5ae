"""The dynamics of a student beside its teacher in one process, watched for what goes wrong."""

from dataclasses import dataclass

from ase import Atoms
from torch import Tensor

from integrators.levels import FULL
from integrators.splitting import FAST
from integrators.state import MDState, Potential
from mts_driver.progress import Progress
from mts_driver.simulation.dynamics import BlownUp, DynamicsSettings, advance, thermal_start
from mts_driver.simulation.holes import Seen, Watch

"""``report(stage, done, total)``: called after every outer step."""

MOST_HOLES = 20
"""Outer steps with a hole after which a trajectory is given up."""


@dataclass(frozen=True)
class Watched:
    """What the dynamics of a student showed.

    Attributes
    ----------
    frames : list of ase.Atoms
        Holes and hard frames in the order of time, with the array ``teacher_forces`` (eV/Å), and
        in ``info`` ``teacher_energy`` (eV), ``step``, ``time_fs``, ``max_force_difference_eV_A``,
        ``atom`` and ``reason``.
    clean_ps : float
        Time until the first hole or the blow-up, ps; the whole time if there was neither.
    blown_up : bool
        Whether the trajectory was ended early: not finite, too hot, or too many holes.
    max_force_difference_eV_A : float
        Largest |F_teacher − F_student| of an atom, eV/Å.
    """

    frames: list[Atoms]
    clean_ps: float
    blown_up: bool
    max_force_difference_eV_A: float


def run_and_watch(
    atoms: Atoms,
    teacher: Potential,
    student: Potential,
    *,
    picoseconds: float,
    outer_fs: float,
    inner_fs: float,
    temperature_K: float,
    friction_per_ps: float | Tensor,
    hydrogen_mass_Da: float,
    seed: int,
    report: Progress,
) -> Watched:
    """Run RESPA-BAOAB with teacher and student in this process, and keep the student's failures.

    Stops at the first blow-up: a number that is not finite, five times the target temperature, or
    more than 20 outer steps with a hole (see `mts_driver.simulation.holes`).

    Parameters
    ----------
    atoms : ase.Atoms
        Equilibrated start; velocities are drawn at the target temperature.
    teacher, student : Potential
        Bound to these atoms.
    picoseconds, outer_fs, inner_fs, temperature_K, friction_per_ps, hydrogen_mass_Da, seed
        See `mts_driver.simulation.dynamics.DynamicsSettings`.
    report : callable
        Told about every outer step.

    Raises
    ------
    UserError
        If a number is not positive, or the outer step is no multiple of the inner one.
    """
    protocol = DynamicsSettings(
        picoseconds=picoseconds,
        outer_fs=outer_fs,
        inner_fs=inner_fs,
        temperature_K=temperature_K,
        friction_per_ps=friction_per_ps,
        hydrogen_mass_Da=hydrogen_mass_Da,
        seed=seed,
    )
    frames: list[Atoms] = []

    def keep(_: str, frame: Atoms) -> bool:
        frames.append(frame)
        return True

    watcher = Watcher(Watch(atoms, keep), protocol, labelled=True)

    def look(state: MDState) -> None:
        watcher.look(state)
        report("student dynamics", state.step, protocol.steps)
        watcher.give_up()

    end = advance(thermal_start(atoms, protocol), teacher, student, protocol, look=look)
    watcher.watch.close(blown_up=end is None)
    return Watched(
        frames=sorted(frames, key=lambda frame: int(frame.info["step"])),
        clean_ps=watcher.clean_ps,
        blown_up=end is None,
        max_force_difference_eV_A=watcher.watch.largest_eV_A,
    )


class Watcher:
    """Shows the end of every outer step to a `Watch`.

    Parameters
    ----------
    watch : Watch
        Judges the steps and keeps frames.
    protocol : DynamicsSettings
        Tells the time of a step.
    labelled : bool
        Whether there is a teacher, whose forces belong to the frames.

    Attributes
    ----------
    done, hole : int, int or None
        Outer steps seen, and the first of them with a hole.
    """

    def __init__(self, watch: Watch, protocol: DynamicsSettings, *, labelled: bool) -> None:
        self.watch = watch
        self.done = 0
        self.hole: int | None = None
        self._reason: str | None = None
        self._outer_fs, self._labelled = protocol.outer_fs, labelled

    def look(self, state: MDState) -> None:
        """See a state whose forces are known."""
        teacher, student = state.evaluations[FULL], state.evaluations[FAST]
        difference = (teacher.forces - student.forces).double().cpu().numpy()
        label = (float(teacher.energy), teacher.forces.double().cpu().numpy())
        seen = Seen(
            step=state.step,
            time_fs=round(state.step * self._outer_fs, 6),
            positions=state.positions.cpu().numpy()[None],
            cell=state.cell.cpu().numpy(),
            differences=difference[None],
            teacher=lambda _: label if self._labelled else None,
        )
        self._reason = self.watch.look(seen)
        if self._reason is not None and self.hole is None:
            self.hole = state.step
        self.done = state.step

    def give_up(self) -> None:
        """End a trajectory that has shown something not finite, or too many holes."""
        if self._reason == "not finite" or self.watch.holes > MOST_HOLES:
            raise BlownUp

    @property
    def clean_ps(self) -> float:
        """Time until the first hole, or seen so far, ps."""
        return 1e-3 * self._outer_fs * (self.done if self.hole is None else self.hole)
