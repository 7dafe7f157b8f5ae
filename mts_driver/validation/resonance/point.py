"""One point of the scan: a few picoseconds at one outer step, watched."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms

from integrators.bath import Bath
from integrators.constraints import BondsLost, Distances
from integrators.engine import run
from integrators.levels import TwoLevel
from integrators.splitting import SLOW, Operation, respa_baoab
from integrators.state import MDState, Potential
from mts_driver.analysis.statistics import BlockAverage, block_average
from mts_driver.simulation.dynamics import BlownUp, bath_of, friction_of
from mts_driver.simulation.thermal_state import held_thermal_state
from mts_driver.structures.masses import repartitioned_masses
from mts_driver.thermostats import high_pass_noise
from mts_driver.time_steps import TimeSteps
from mts_driver.units import LIGHT_CM_FS
from mts_driver.validation.resonance.diffusion import diffusion_cm2_s
from mts_driver.validation.resonance.observer import Observer
from mts_driver.validation.resonance.points import Point
from mts_driver.validation.resonance.spectrum import Spectrum, Velocities

_FS_PER_PS = 1000.0
DISCARDED = 0.2
"""Part of a run that goes by before averages are taken."""


@dataclass(frozen=True)
class Measured:
    """What a run showed; averages leave out its first fifth.

    Attributes
    ----------
    temperatures_K : dict of str to BlockAverage
        At O, of the groups of `mts_driver.structures.solutes.temperature_groups`.
    degrees : dict of str to float
        Degrees of freedom of the groups.
    lost_degrees : ndarray, shape (N,)
        Degrees of freedom that atoms have lost to held distances.
    high_pass_friction_H_per_ps : float or None
        What high-pass noise would have as friction on hydrogens that move as in this run, 1/ps:
        the mean of γ(ω) over their kinetic energy. None from coloured noise itself, whose jitter
        on slow motion would count as fast, and from runs of less than 0.25 ps.
    xh_mean, xh_variance : BlockAverage or None
        Of the lengths of X-H bonds at the ends of outer steps, over bonds and time, Å and Å²;
        bonds that are held have no variance.
    max_dF : float
        Largest |F_teacher - F_student| of an atom, eV/Å.
    diffusion_cm2_s : BlockAverage or None
        Of the heavy atoms; rough, from mean square displacements over 0.3 to 1 ps.
    s_per_ps : float
        Wall clock of one replica.
    blown_up : bool
        Whether the run ended early.
    vdos : Spectrum or None
        Vibrations of the hydrogens.
    """

    temperatures_K: dict[str, BlockAverage]
    degrees: dict[str, float]
    lost_degrees: np.ndarray
    high_pass_friction_H_per_ps: float | None
    xh_mean: BlockAverage | None
    xh_variance: BlockAverage | None
    max_dF: float
    diffusion_cm2_s: BlockAverage | None
    s_per_ps: float
    blown_up: bool
    vdos: Spectrum | None


def run_point(
    atoms: Atoms,
    teacher: Potential,
    student: Potential,
    point: Point,
    *,
    temperature_K: float,
    picoseconds: float,
    replicas: int,
    seed: int,
    report: Callable[[int, int], None],
    held: Distances | None = None,
) -> Measured:
    """Run RESPA-BAOAB from an equilibrated frame, and look at every outer step.

    Parameters
    ----------
    atoms : ase.Atoms
        Equilibrated; velocities are drawn anew.
    teacher, student : Potential
        Bound to these atoms.
    replicas : int
        Runs in one batch, each with velocities and noise of its own.
    report : callable
        ``report(outer_steps_done, of)``.
    held : Distances, optional
        Of a point that is constrained; the run starts on their manifold.

    Raises
    ------
    UserError
        If the atoms are too far from the manifold.
    """
    n = TimeSteps(point.outer_fs, point.inner_fs).n_inner
    steps = max(1, round(1e3 * picoseconds / point.outer_fs))
    masses_Da = repartitioned_masses(atoms, point.hydrogen_mass_Da)
    state, constraints = held_thermal_state(
        atoms, masses_Da, held, temperature_K=temperature_K, seed=seed, replicas=replicas
    )
    lost = torch.zeros(len(atoms), dtype=torch.float64)
    if constraints is not None:
        lost = constraints.lost_degrees(state.positions.reshape(-1, len(atoms), 3)[0], state.masses)
    observer = Observer(atoms, temperature_K, lost)
    vibrations = Velocities(atoms, point.inner_fs, stretches=not point.constrained)
    largest = 0.0

    def on_step(state: MDState) -> None:
        nonlocal largest
        largest = float(state.max_force_difference)
        observer.on_step(state)
        report(state.step, steps)

    def on_op(k: int, op: Operation, state: MDState) -> None:
        observer.on_op(k, op, state)
        vibrations.on_op(op, state)

    levels = TwoLevel(teacher, student)
    state = levels.evaluate(state, SLOW)  # models compile in their first call
    start, blown_up = time.perf_counter(), False
    try:
        run(
            state,
            levels,
            respa_baoab(n),
            steps=steps,
            timestep=point.outer_fs,
            bath=_bath(point, atoms.numbers, temperature_K),
            seed=seed,
            on_step=on_step,
            on_op=on_op,
            constraints=constraints,
        )
    except (BlownUp, BondsLost):
        blown_up = True
    wall = time.perf_counter() - start
    done = max(len(observer.heavy_positions), 1)
    return Measured(
        temperatures_K={
            name: average
            for name, values in observer.temperatures.items()
            if (average := _average(values)) is not None
        },
        degrees=observer.degrees,
        lost_degrees=lost.numpy(),
        high_pass_friction_H_per_ps=None
        if blown_up or point.high_pass
        else _high_pass_friction(point, vibrations),
        xh_mean=_average(observer.bond_mean),
        xh_variance=None
        if point.constrained
        else _variance(observer.bond_mean, observer.bond_square),
        max_dF=largest,
        diffusion_cm2_s=None
        if blown_up or not atoms.pbc.all()
        else diffusion_cm2_s(np.array(observer.heavy_positions), 1e-3 * point.outer_fs),
        s_per_ps=wall / (1e-3 * point.outer_fs * done * replicas),
        blown_up=blown_up,
        vdos=None if blown_up else vibrations.spectrum(DISCARDED),
    )


def _bath(point: Point, numbers: np.ndarray, temperature_K: float) -> Bath:
    if point.high_pass:
        return bath_of(temperature_K, point.friction_per_ps, high_pass=True)
    friction = friction_of(numbers, point.friction_per_ps, point.hydrogen_friction_per_ps)
    return bath_of(temperature_K, friction, high_pass=False)


def _high_pass_friction(point: Point, vibrations: Velocities) -> float | None:
    noise = high_pass_noise(point.friction_per_ps)

    def at(wavenumber_cm1: np.ndarray) -> np.ndarray:
        return _FS_PER_PS * noise.friction(2.0 * math.pi * LIGHT_CM_FS * wavenumber_cm1)

    return vibrations.mean_over_motion(DISCARDED, at)


def _kept(values: list[float] | None) -> np.ndarray:
    return np.array((values or [])[int(DISCARDED * len(values or [])) :])


def _average(values: list[float] | None) -> BlockAverage | None:
    kept = _kept(values)
    return block_average(kept) if len(kept) else None


def _variance(means: list[float], squares: list[float]) -> BlockAverage | None:
    """Average the squared distance from the mean of all bonds and steps.

    That within every step would be nothing for a single bond, and half of it for two.
    """
    mean, square = _kept(means), _kept(squares)
    return block_average(square - mean.mean() * (2 * mean - mean.mean())) if len(mean) else None
