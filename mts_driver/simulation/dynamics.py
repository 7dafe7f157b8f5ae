"""Dynamics of a student in this process, beside its teacher or alone, to the end or a blow-up."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from integrators.bath import Bath
from integrators.constraints import BondsLost, Constraints
from integrators.degrees_of_freedom import hottest_by_chance
from integrators.engine import OpObserver, StepObserver, run
from integrators.levels import SingleLevel, TwoLevel
from integrators.propagators import kinetic_energy
from integrators.splitting import FAST, OU, SLOW, Operation, fast_part, respa_baoab
from integrators.state import MDState, Potential
from mts_driver.errors import UserError
from mts_driver.simulation.thermal_state import thermal_state
from mts_driver.structures.masses import repartitioned_masses
from mts_driver.thermostats import HIGH_FRICTION_PER_PS, high_pass_noise
from mts_driver.time_steps import TimeSteps
from mts_driver.units import BOLTZMANN_EV_K

HOTTEST = 5.0
"""Multiple of the target temperature at which a trajectory has blown up, where atoms are many."""


class BlownUp(Exception):
    """Ends a trajectory from within; observers may raise it."""


def hottest(degrees_of_freedom: float) -> float:
    """Return the multiple of the target at which so many degrees of freedom have blown up."""
    return max(HOTTEST, hottest_by_chance(degrees_of_freedom))


@dataclass(frozen=True, eq=False)
class DynamicsSettings:
    """How the student is run.

    Attributes
    ----------
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
    high_pass : bool
        Whether the noise is coloured, with ``friction_per_ps``, one number, on slow motion.
    high_friction_per_ps : float
        What it has more on fast motion, 1/ps.

    Raises
    ------
    UserError
        If a number is not positive, or the outer step is no multiple of the inner one.
    """

    picoseconds: float
    outer_fs: float
    inner_fs: float
    temperature_K: float
    friction_per_ps: float | Tensor
    hydrogen_mass_Da: float
    seed: int
    high_pass: bool = False
    high_friction_per_ps: float = HIGH_FRICTION_PER_PS

    def __post_init__(self) -> None:
        TimeSteps(self.outer_fs, self.inner_fs)
        for name in ("picoseconds", "temperature_K"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0):
                raise UserError(f"{name}={value:g}: give a finite number above 0.")
        friction = torch.as_tensor(self.friction_per_ps)
        if not bool((torch.isfinite(friction) & (friction >= 0)).all()):
            raise UserError(
                f"friction_per_ps={float(friction.min()):g}: give a finite number, 0 or above."
            )
        if self.steps < 1:
            raise UserError(
                f"picoseconds={self.picoseconds:g} is less than one outer step of "
                f"{self.outer_fs:g} fs: give a longer time."
            )

    def bath(self) -> Bath:
        """Return the thermostat."""
        return bath_of(
            self.temperature_K,
            self.friction_per_ps,
            high_pass=self.high_pass,
            high_friction_per_ps=self.high_friction_per_ps,
        )

    @property
    def n_inner(self) -> int:
        """Inner steps an outer step."""
        return TimeSteps(self.outer_fs, self.inner_fs).n_inner

    @property
    def steps(self) -> int:
        """Outer steps."""
        return round(1e3 * self.picoseconds / self.outer_fs)


def bath_of(
    temperature_K: float,
    friction_per_ps: float | Tensor,
    *,
    high_pass: bool,
    high_friction_per_ps: float = HIGH_FRICTION_PER_PS,
) -> Bath:
    """Return white noise, or coloured noise with one ``friction_per_ps`` on slow motion."""
    if not high_pass:
        return Bath.from_temperature(temperature_K=temperature_K, friction_per_ps=friction_per_ps)
    coloured = high_pass_noise(float(friction_per_ps), high_friction_per_ps)
    return Bath.from_temperature(temperature_K=temperature_K, coloured=coloured)


def friction_of(
    numbers: Sequence[int] | np.ndarray, friction_per_ps: float, hydrogen_friction_per_ps: float
) -> Tensor:
    """Return the friction of every atom, hydrogens apart, 1/ps, shape (N,)."""
    hydrogen = torch.as_tensor(numbers) == 1
    friction = torch.full(hydrogen.shape, friction_per_ps, dtype=torch.float64)
    friction[hydrogen] = hydrogen_friction_per_ps
    return friction


def thermal_start(atoms: Atoms, protocol: DynamicsSettings) -> MDState:
    """Return the atoms with their masses and with velocities drawn at the target temperature.

    Raises
    ------
    UserError
        If the masses cannot be repartitioned.
    """
    masses_Da = repartitioned_masses(atoms, protocol.hydrogen_mass_Da)
    return thermal_state(atoms, masses_Da, temperature_K=protocol.temperature_K, seed=protocol.seed)


def advance(
    state: MDState,
    teacher: Potential | None,
    student: Potential,
    protocol: DynamicsSettings,
    *,
    look: StepObserver,
    on_op: OpObserver | None = None,
    constraints: Constraints | None = None,
) -> MDState | None:
    """Run RESPA-BAOAB from a state of any step to the last one of the protocol.

    Parameters
    ----------
    teacher : Potential or None
        None runs the student alone, with the same inner steps.
    look : callable
        Sees the state with all forces known: the one given, and that after every outer step.
    on_op : callable, optional
        Sees the state after every operation of the splitting.
    constraints : Constraints, optional
        Distances that are held; the state is on their manifold.

    Returns
    -------
    MDState or None
        None if the trajectory blew up: too hot (see `hottest`), bonds that are held were lost, or
        ``look`` said so.
    """
    levels = SingleLevel(student) if teacher is None else TwoLevel(teacher, student)
    atoms = int(state.masses.isfinite().sum())
    hottest_eV = hottest(3 * max(atoms, 1)) * 1.5 * atoms * BOLTZMANN_EV_K * protocol.temperature_K

    def watch_heat(k: int, op: Operation, now: MDState) -> None:
        # stops before a model is given positions that are lost; O stands between any two calls
        if isinstance(op, OU) and not float(kinetic_energy(now.velocities, now.masses)) < (
            hottest_eV
        ):
            raise BlownUp
        if on_op is not None:
            on_op(k, op, now)

    try:
        state = levels.evaluate(state, FAST if teacher is None else SLOW)
        look(state)
        return run(
            state,
            levels,
            respa_baoab(protocol.n_inner) if teacher is not None else fast_part(protocol.n_inner),
            steps=protocol.steps - state.step,
            timestep=protocol.outer_fs,
            bath=protocol.bath(),
            seed=protocol.seed,
            on_step=look,
            on_op=watch_heat,
            constraints=constraints,
        )
    except (BlownUp, BondsLost):
        return None
