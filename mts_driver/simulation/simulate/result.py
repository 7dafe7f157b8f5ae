"""What a trajectory gives back."""

from dataclasses import dataclass, field

import numpy as np
from ase import Atoms


@dataclass(frozen=True)
class Holes:
    """Where the student was wrong.

    Attributes
    ----------
    steps : int
        Outer steps at which |F_teacher − F_student| of an atom exceeded 3 eV/Å, or a bond to
        hydrogen left its range.
    hard_frames : int
        Frames of the largest differences of a trajectory that is otherwise in order.
    clip_events : int
        Forces of atoms that were scaled back to the bound, 6.5 eV/Å.
    max_force_difference_eV_A : float
        Largest |F_teacher − F_student| of an atom, before clipping, eV/Å.
    frames : tuple of ase.Atoms
        Holes and hard frames, at most 50 of each, with the array ``teacher_forces`` (eV/Å) and in
        ``info`` ``teacher_energy`` (eV), ``step``, ``time_fs``, ``max_force_difference_eV_A``,
        ``atom`` and ``reason``. A student learns from them.
    """

    steps: int
    hard_frames: int
    clip_events: int
    max_force_difference_eV_A: float
    frames: tuple[Atoms, ...] = ()


@dataclass(frozen=True)
class Timings:
    """Where the time went, over all processes of a trajectory that was continued.

    Attributes
    ----------
    wall_s : float
        Of the steps, without the first evaluation, which compiles kernels.
    teacher_s, student_s : float
        In the models, within ``wall_s``. Where both take steps on a device, all of these are the
        teacher's.
    teacher_calls, student_calls : int
        Within ``wall_s``.
    steps_s : tuple of float
        The last outer steps that this process has taken, at most 10,000. The first ones compile
        kernels and find how much room lists need.
    """

    wall_s: float
    teacher_s: float
    student_s: float
    teacher_calls: int
    student_calls: int
    steps_s: tuple[float, ...] = field(default=(), compare=False)

    @property
    def overhead_fraction(self) -> float:
        """Share of the time outside the models."""
        inside = self.teacher_s + self.student_s
        return 1.0 - inside / self.wall_s if self.wall_s > 0 else 0.0


@dataclass(frozen=True, eq=False)
class SimulationResult:
    """A trajectory that has ended.

    Attributes
    ----------
    atoms : ase.Atoms
        The last frame: positions, not wrapped, velocities, and the teacher's energy and forces in a
        ``SinglePointCalculator``. Masses are those of the run; ``physical_masses`` are beside them
        where they differ. Given to `simulate` again, they go on with their velocities.
    properties : dict of str to ndarray
        Arrays of equal length over time, a value every ``stride`` outer steps and one at the start:

        - ``step``, ``time_ps``: outer steps, and ps;
        - ``potential_energy_eV``: of the teacher;
        - ``kinetic_energy_eV``: of the velocities at the end of the step;
        - ``conserved_energy_eV``: their sum without the heat of the thermostat; its drift is the
          error of the time step;
        - ``max_force_difference_eV_A``: largest |F_teacher − F_student| of an atom since the value
          before;
        - ``temperature_K``, ``temperature_H_K``, ``temperature_heavy_K``, and of a solute in a
          solvent ``temperature_solute_H_K``, ``temperature_solute_heavy_K``: means over the
          thermostat steps since the value before, of the atoms there are; NaN at the start.
    temperatures_K : dict of str to float
        Means over all thermostat steps, where they are unbiased, of ``all`` atoms, ``H`` and
        ``heavy``, and of a solute ``solute H`` and ``solute heavy``, K; as in ``summary.json`` of
        `mts run`.
    temperature_errors_K : dict of str to float or None
        Their standard errors, K: of block averages, and at least what the thermostat can have
        exchanged in the time, unless a solvent exchanges more; None where nothing is known.
    ns_per_day : float
        Simulated time in a day of steps; 0 if none was taken.
    holes : Holes
        Where the student was wrong.
    timings : Timings
        Where the time went.
    """

    atoms: Atoms
    properties: dict[str, np.ndarray]
    temperatures_K: dict[str, float]
    temperature_errors_K: dict[str, float | None]
    ns_per_day: float
    holes: Holes
    timings: Timings
