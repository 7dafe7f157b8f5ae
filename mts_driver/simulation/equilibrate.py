"""Bring a starting structure to its temperature, with the student.

Forces don't tell whether a structure needs it: molecules that packmol has placed at random have
relaxed bonds and small forces, and heat up to 800 K within a picosecond when they find partners.
"""

from collections.abc import Callable

import numpy as np
import torch
from ase import Atoms

from integrators.bath import Bath
from integrators.engine import StepObserver, run
from integrators.levels import SingleLevel
from integrators.splitting import baoab
from integrators.state import MDState, Potential
from mts_driver.simulation.thermal_state import thermal_state
from mts_driver.structures.tensors import cell_of

EQUILIBRATION_FRICTION_PER_PS = 10.0
"""High, so that the energy of a bad start is gone within half a picosecond."""


def equilibrate(
    atoms: Atoms,
    masses_Da: np.ndarray,
    potential: Potential,
    *,
    temperature_K: float,
    picoseconds: float,
    timestep_fs: float,
    seed: int,
    report: Callable[[int, int], None] | None = None,
) -> Atoms:
    """Langevin dynamics (BAOAB, 10/ps) with one potential, usually the student.

    Parameters
    ----------
    masses_Da : array, shape (N,)
        Those of the run to come.
    report : callable, optional
        ``report(step, steps)``.

    Returns
    -------
    ase.Atoms
        A copy with the last positions.
    """
    steps = round(1000 * picoseconds / timestep_fs)

    def show(state: MDState) -> None:
        if report is not None:
            report(state.step, steps)

    state = damped_run(
        *(atoms, masses_Da, potential),
        temperature_K=temperature_K,
        steps=steps,
        timestep_fs=timestep_fs,
        seed=seed,
        on_step=show,
    )
    equilibrated = atoms.copy()
    equilibrated.positions = state.positions.numpy()
    return equilibrated


def damped_run(
    atoms: Atoms,
    masses_Da: np.ndarray,
    potential: Potential,
    *,
    temperature_K: float,
    steps: int,
    timestep_fs: float,
    seed: int,
    on_step: StepObserver,
) -> MDState:
    """Take single steps of BAOAB with the friction of an equilibration, from thermal velocities."""
    return run(
        thermal_state(atoms, masses_Da, temperature_K=temperature_K, seed=seed),
        SingleLevel(potential),
        baoab(),
        steps=steps,
        timestep=timestep_fs,
        bath=Bath.from_temperature(
            temperature_K=temperature_K, friction_per_ps=EQUILIBRATION_FRICTION_PER_PS
        ),
        seed=seed,
        on_step=on_step,
    )


def largest_difference(atoms: Atoms, teacher: Potential, student: Potential) -> float:
    """Return the largest |F_teacher − F_student| of an atom, eV/Å."""
    x, cell = torch.tensor(atoms.positions), cell_of(atoms)
    return float((teacher(x, cell).forces - student(x, cell).forces).norm(dim=-1).max())
