"""One point of the scan: a few picoseconds at one outer step, watched."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms

from integrators.bath import Bath
from integrators.engine import run
from integrators.levels import TwoLevel
from integrators.splitting import SLOW, Operation, respa_baoab
from integrators.state import MDState, Potential
from integrators.thermometer import Thermometer
from mts_driver.analysis.statistics import BlockAverage, block_average
from mts_driver.simulation.dynamics import BlownUp, friction_of, hottest
from mts_driver.simulation.holes import bonds_to_hydrogen
from mts_driver.simulation.thermal_state import thermal_state
from mts_driver.structures.fixed import moving_atoms
from mts_driver.structures.masses import repartitioned_masses
from mts_driver.structures.tensors import cell_of
from mts_driver.time_steps import TimeSteps
from mts_driver.validation.resonance.spectrum import Spectrum, Velocities

DISCARDED = 0.2
"""Part of a run that goes by before averages are taken."""
DIFFUSION_LAGS_PS = (0.3, 1.0)
_A2_PER_PS_IN_CM2_PER_S = 1e-4


@dataclass(frozen=True, kw_only=True)
class Point:
    """What is run.

    Attributes
    ----------
    outer_fs, inner_fs : float
        Time steps; the same for single stepping.
    hydrogen_mass_Da : float
        0 for natural masses.
    friction_per_ps, hydrogen_friction_per_ps : float
        Of the Langevin thermostat for heavy atoms and hydrogens.
    """

    outer_fs: float
    inner_fs: float
    hydrogen_mass_Da: float
    friction_per_ps: float
    hydrogen_friction_per_ps: float


@dataclass(frozen=True)
class Measured:
    """What a run showed; averages leave out its first fifth.

    Attributes
    ----------
    T_H, T_heavy : BlockAverage or None
        Temperatures at O, K.
    xh_mean, xh_variance : BlockAverage or None
        Of the lengths of X-H bonds at the ends of outer steps, over bonds and time, Å and Å².
    max_dF : float
        Largest |F_teacher - F_student| of an atom, eV/Å.
    diffusion_cm2_s : float or None
        Of the heavy atoms; rough, from mean square displacements over 0.3 to 1 ps.
    s_per_ps : float
        Wall clock of one replica.
    blown_up : bool
        Whether the run ended early.
    vdos : Spectrum or None
        Vibrations of the hydrogens.
    """

    T_H: BlockAverage | None
    T_heavy: BlockAverage | None
    xh_mean: BlockAverage | None
    xh_variance: BlockAverage | None
    max_dF: float
    diffusion_cm2_s: float | None
    s_per_ps: float
    blown_up: bool
    vdos: Spectrum | None


class _Observer:
    """Collects one value an outer step: temperatures at O, bonds, positions."""

    def __init__(self, atoms: Atoms, temperature_K: float) -> None:
        moves = moving_atoms(atoms)
        hydrogen = torch.tensor(atoms.numbers == 1)
        groups = {"H": hydrogen, "heavy": ~hydrogen}
        groups = {name: mask for name, mask in groups.items() if bool(mask.any())}
        self._thermometer = Thermometer(groups, torch.tensor(moves))
        counts = self._thermometer.atoms
        self._hottest_K = {name: hottest(count) * temperature_K for name, count in counts.items()}
        self._heavy = torch.tensor(np.flatnonzero((atoms.numbers != 1) & moves))
        bonds = bonds_to_hydrogen(atoms)
        bonds = bonds[moves[bonds].any(axis=1)]
        self._bonds = torch.tensor(bonds)
        vectors = (
            torch.tensor(atoms.positions)[bonds[:, 0]] - torch.tensor(atoms.positions)[bonds[:, 1]]
        )
        cell = cell_of(atoms)
        # positions are not wrapped: a bond keeps the periodic image that it starts in
        self._images = torch.round(vectors @ torch.linalg.pinv(cell)) @ cell
        self.temperatures: dict[str, list[float]] = {}
        self.bond_mean: list[float] = []
        self.bond_square: list[float] = []
        self.heavy_positions: list[np.ndarray] = []

    def on_op(self, k: int, op: Operation, state: MDState) -> None:
        self._thermometer(k, op, state)

    def on_step(self, state: MDState) -> None:
        found = self._thermometer.temperatures_K
        self._thermometer.reset()
        if not all(value < self._hottest_K[name] for name, value in found.items()):
            raise BlownUp
        for name, value in found.items():
            self.temperatures.setdefault(name, []).append(value)
        x = state.positions.detach().cpu()
        if len(self._bonds):
            d = x[..., self._bonds[:, 0], :] - x[..., self._bonds[:, 1], :] - self._images
            lengths = torch.linalg.vector_norm(d, dim=-1)
            self.bond_mean.append(float(lengths.mean()))
            self.bond_square.append(float(lengths.square().mean()))
        self.heavy_positions.append(x[..., self._heavy, :].float().numpy())


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
    """
    n = TimeSteps(point.outer_fs, point.inner_fs).n_inner
    steps = max(1, round(1e3 * picoseconds / point.outer_fs))
    masses_Da = repartitioned_masses(atoms, point.hydrogen_mass_Da)
    state = thermal_state(
        atoms, masses_Da, temperature_K=temperature_K, seed=seed, replicas=replicas
    )
    observer = _Observer(atoms, temperature_K)
    vibrations = Velocities(atoms, point.inner_fs)
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
            bath=Bath.from_temperature(
                temperature_K=temperature_K,
                friction_per_ps=friction_of(
                    atoms.numbers, point.friction_per_ps, point.hydrogen_friction_per_ps
                ),
            ),
            seed=seed,
            on_step=on_step,
            on_op=on_op,
        )
    except BlownUp:
        blown_up = True
    wall = time.perf_counter() - start
    done = max(len(observer.heavy_positions), 1)
    return Measured(
        T_H=_average(observer.temperatures.get("H")),
        T_heavy=_average(observer.temperatures.get("heavy")),
        xh_mean=_average(observer.bond_mean),
        xh_variance=_variance(observer.bond_mean, observer.bond_square),
        max_dF=largest,
        diffusion_cm2_s=None
        if blown_up or not atoms.pbc.all()
        else diffusion_cm2_s(np.array(observer.heavy_positions), 1e-3 * point.outer_fs),
        s_per_ps=wall / (1e-3 * point.outer_fs * done * replicas),
        blown_up=blown_up,
        vdos=None if blown_up else vibrations.spectrum(DISCARDED),
    )


def diffusion_cm2_s(positions: np.ndarray, spacing_ps: float) -> float | None:
    """Slope of the mean square displacement over six, between 0.3 and 1 ps.

    Parameters
    ----------
    positions : array, shape (T, ..., 3)
        Å, not wrapped.
    spacing_ps : float
        Between two frames.

    Returns
    -------
    float or None
        cm²/s; None for a series that is shorter than twice the longest lag, or without atoms.
    """
    first, last = (max(1, round(lag / spacing_ps)) for lag in DIFFUSION_LAGS_PS)
    if len(positions) < 2 * last or last == first or positions.size == 0:
        return None
    lags = np.unique(np.linspace(first, last, 8).round().astype(int))
    msd = [float(((positions[k:] - positions[:-k]) ** 2).sum(-1).mean()) for k in lags]
    slope = float(np.polyfit(lags * spacing_ps, msd, 1)[0])
    return slope / 6 * _A2_PER_PS_IN_CM2_PER_S


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
