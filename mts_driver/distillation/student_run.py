"""The dynamics of a student beside its teacher in one process, watched for what goes wrong."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from integrators.bath import Bath
from integrators.engine import run
from integrators.levels import FULL, TwoLevel
from integrators.propagators import kinetic_energy
from integrators.splitting import FAST, OU, SLOW, Operation, respa_baoab
from integrators.state import MDState, Potential, initial_state
from mts_driver.errors import UserError
from mts_driver.holes import Seen, Watch
from mts_driver.structures import repartitioned_masses
from mts_driver.units import BOLTZMANN_EV_K, EV_FS2_A2_PER_AMU

Report = Callable[[str, int, int], None]
"""``report(stage, done, total)``: called after every outer step."""

MOST_HOLES = 20
"""Outer steps with a hole after which a trajectory is given up."""
HOTTEST = 5.0
"""Multiple of the target temperature at which a trajectory has blown up."""


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
    report: Report,
) -> Watched:
    """Run RESPA-BAOAB with teacher and student in this process, and keep the student's failures.

    Stops at the first blow-up: a number that is not finite, five times the target temperature, or
    more than 20 outer steps with a hole (see `mts_driver.holes`).

    Parameters
    ----------
    atoms : ase.Atoms
        Equilibrated start; velocities are drawn at the target temperature.
    teacher, student : Potential
        Bound to these atoms.
    picoseconds : float
        Length of the run, ps.
    outer_fs, inner_fs : float
        Outer and inner time step, fs; the first is a multiple of the second.
    temperature_K : float
        Target, K.
    friction_per_ps : float or Tensor of shape (N,)
        Of the Langevin thermostat, 1/ps.
    hydrogen_mass_Da : float
        Mass of hydrogens after repartitioning, Da; 0 for natural masses.
    seed : int
        Of velocities and noise.
    report : callable
        Told about every outer step.

    Raises
    ------
    UserError
        If a number is not positive, or the outer step is no multiple of the inner one.
    """
    _require_positive(
        picoseconds=picoseconds, outer_fs=outer_fs, inner_fs=inner_fs, temperature_K=temperature_K
    )
    n_inner = round(outer_fs / inner_fs)
    if n_inner < 1 or abs(outer_fs / inner_fs - n_inner) > 1e-9:
        raise UserError(
            f"outer_fs={outer_fs:g} is no multiple of inner_fs={inner_fs:g}: the outer step is "
            "made of whole inner steps."
        )
    watcher = _Watcher(atoms, round(1e3 * picoseconds / outer_fs), outer_fs, temperature_K, report)
    state = _start(atoms, temperature_K, hydrogen_mass_Da, seed)
    levels = TwoLevel(teacher, student)
    blown_up = False
    try:
        state = levels.evaluate(state, SLOW)
        watcher.look(state)
        run(
            state,
            levels,
            respa_baoab(n_inner),
            steps=watcher.steps,
            timestep=outer_fs,
            bath=Bath.from_temperature(
                temperature_K=temperature_K, friction_per_ps=friction_per_ps
            ),
            seed=seed,
            on_step=watcher.look,
            on_op=watcher.check_heat,
        )
    except _BlownUp:
        blown_up = True
    watcher.watch.close(blown_up=blown_up)
    return Watched(
        frames=sorted(watcher.frames, key=lambda frame: int(frame.info["step"])),
        clean_ps=1e-3 * outer_fs * (watcher.done if watcher.hole is None else watcher.hole),
        blown_up=blown_up,
        max_force_difference_eV_A=watcher.watch.largest_eV_A,
    )


class _BlownUp(Exception):
    """Ends a trajectory from within."""


class _Watcher:
    """Observers of the engine, and what they saw: frames, steps done, step of the first hole."""

    def __init__(
        self, atoms: Atoms, steps: int, outer_fs: float, temperature_K: float, report: Report
    ) -> None:
        self.steps, self._outer_fs, self._report = steps, outer_fs, report
        self._hottest_eV = HOTTEST * 1.5 * len(atoms) * BOLTZMANN_EV_K * temperature_K
        self.watch = Watch(atoms, self._keep)
        self.frames: list[Atoms] = []
        self.done = 0
        self.hole: int | None = None

    def _keep(self, _: str, frame: Atoms) -> bool:
        self.frames.append(frame)
        return True

    def look(self, state: MDState) -> None:
        teacher, student = state.evaluations[FULL], state.evaluations[FAST]
        difference = (teacher.forces - student.forces).double().cpu().numpy()
        seen = Seen(
            step=state.step,
            time_fs=round(state.step * self._outer_fs, 6),
            positions=state.positions.cpu().numpy()[None],
            cell=state.cell.cpu().numpy(),
            differences=difference[None],
            teacher=lambda _: (float(teacher.energy), teacher.forces.double().cpu().numpy()),
        )
        reason = self.watch.look(seen)
        if reason is not None and self.hole is None:
            self.hole = state.step
        self.done = state.step
        self._report("student dynamics", state.step, self.steps)
        if reason == "not finite" or self.watch.holes > MOST_HOLES:
            raise _BlownUp

    def check_heat(self, _: int, op: Operation, state: MDState) -> None:
        """Stop before a model is given positions that are lost; O stands between any two calls."""
        if isinstance(op, OU):
            kinetic_eV = float(kinetic_energy(state.velocities, state.masses))
            if not kinetic_eV < self._hottest_eV:
                raise _BlownUp


def _require_positive(**values: float) -> None:
    for name, value in values.items():
        if not (np.isfinite(value) and value > 0):
            raise UserError(f"{name}={value:g}: give a finite number above 0.")


def _start(atoms: Atoms, temperature_K: float, hydrogen_mass_Da: float, seed: int) -> MDState:
    masses = torch.tensor(repartitioned_masses(atoms, hydrogen_mass_Da) * EV_FS2_A2_PER_AMU)
    width = (BOLTZMANN_EV_K * temperature_K / masses).sqrt()[:, None]
    velocities = width * torch.tensor(np.random.default_rng(seed).normal(size=(len(atoms), 3)))
    cell = torch.tensor(np.array(atoms.cell) * atoms.pbc[:, None])
    return initial_state(torch.tensor(atoms.positions), velocities, masses, cell)
