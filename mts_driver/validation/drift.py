"""NVE-RESPA drift: what an outer step costs in energy, measured in picoseconds.

Without a thermostat the energy K + U_teacher would stay where it is but for the error of the
splitting, which grows with |F_teacher - F_student| and with the outer step, and jumps where the
outer step meets half a period of a stiff bond. Under a Langevin thermostat the same rate of heating
is balanced by friction at ΔT = drift / (f k_B γ), long before a temperature would show it. An atom
has f = 3 degrees of freedom, less its share of the centre of mass, into which no heat goes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms

from integrators.constraints import Distances
from integrators.degrees_of_freedom import FEWEST, of_atoms
from integrators.state import Potential
from mts_driver.errors import UserError
from mts_driver.progress import Progress
from mts_driver.simulation.nve import nve_run, nve_start
from mts_driver.structures.fixed import moving_atoms
from mts_driver.time_steps import TimeSteps
from mts_driver.units import BOLTZMANN_EV_K

FEWEST_STEPS = 10
"""Outer steps below which a slope means nothing."""


@dataclass(frozen=True, kw_only=True)
class Drift:
    """Slope of the conserved energy in runs without a thermostat.

    Attributes
    ----------
    outer_fs, inner_fs, picoseconds : float
        Time steps and planned length of every run.
    values : tuple of float
        One slope a seed, meV per moving atom and ps; infinite where the run blew up.
    max_force_difference_eV_A : float
        Largest |F_teacher - F_student| on an atom in any of the runs, before clipping.
    clip_events : int
        Slow forces that were clipped, all runs together.
    degrees_per_atom : float
        Degrees of freedom that the heat goes into, a moving atom.
    """

    outer_fs: float
    inner_fs: float
    picoseconds: float
    values: tuple[float, ...]
    max_force_difference_eV_A: float
    clip_events: int
    degrees_per_atom: float = 3.0

    @property
    def blown_up(self) -> int:
        """How many of the runs did not last."""
        return sum(math.isinf(value) for value in self.values)

    @property
    def mean(self) -> float:
        """Mean slope, meV/atom/ps; infinite if any run blew up."""
        return math.inf if self.blown_up else float(np.mean(self.values))

    @property
    def standard_error(self) -> float:
        """Standard error of `mean`, meV/atom/ps; NaN for a single seed or a run that blew up."""
        if self.blown_up or len(self.values) < 2:
            return math.nan
        return float(np.std(self.values, ddof=1) / math.sqrt(len(self.values)))

    def heating_K(self, friction_per_ps: float) -> float | None:
        """Return `predicted_heating_K` of the mean; None if a run blew up, or nothing can heat."""
        if self.blown_up:
            return None
        return predicted_heating_K(self.mean, friction_per_ps, self.degrees_per_atom)

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON can hold: null stands for infinite and undefined numbers."""
        return {
            "mean": _finite(self.mean),
            "standard_error": _finite(self.standard_error),
            "values": [_finite(value) for value in self.values],
            "blown_up": self.blown_up,
            "inner_fs": self.inner_fs,
            "picoseconds": self.picoseconds,
            "max_force_difference_eV_A": _finite(self.max_force_difference_eV_A),
            "clip_events": self.clip_events,
        }


def predicted_heating_K(
    drift_meV_atom_ps: float, friction_per_ps: float, degrees_per_atom: float = 3.0
) -> float | None:
    """Return drift / (f k_B γ), the heating at which friction γ removes what the drift puts in, K.

    A Langevin thermostat takes 2γ·(f/2)k_B ΔT per atom and time from f degrees of freedom that are
    ΔT too hot. None where there are none: a single atom has nothing that could heat.
    """
    if degrees_per_atom < FEWEST:
        return None
    return 1e-3 * drift_meV_atom_ps / (degrees_per_atom * BOLTZMANN_EV_K * friction_per_ps)


def degrees_that_heat(atoms: Atoms, masses: np.ndarray) -> np.ndarray:
    """Return the degrees of freedom of every atom (N,) without a thermostat, whatever the masses.

    The total momentum is removed unless atoms are held, and stays so.
    """
    return of_atoms(masses, moving_atoms(atoms), fixcom=True)


def nve_respa_drift(
    atoms_list: Sequence[Atoms],
    teacher: Potential,
    student: Potential,
    *,
    outer_fs: float,
    inner_fs: float = 1.0,
    picoseconds: float = 2.0,
    temperature_K: float = 300.0,
    hydrogen_mass_Da: float = 4.0,
    held: Distances | None = None,
    seeds: Sequence[int] = (1, 2, 3),
    report: Progress | None = None,
) -> Drift:
    """Run RESPA without a thermostat from held-out frames and fit the slope of the energy.

    Parameters
    ----------
    atoms_list : sequence of ase.Atoms
        Frames at the temperature in question, all of the same atoms; seed k starts from frame
        k modulo their number, with new velocities.
    teacher, student : Potential
        Bound to these atoms.
    outer_fs, inner_fs : float
        Time steps of the teacher and of the student; the first is a multiple of the second.
    picoseconds : float
        Length of each run.
    temperature_K : float
        Of the Maxwell-Boltzmann velocities; the total momentum is removed.
    hydrogen_mass_Da : float
        Mass of bonded hydrogens after repartitioning; 0 for natural masses. Systems without
        hydrogen keep theirs.
    held : Distances, optional
        Distances that are held.
    seeds : sequence of int
        One run each.
    report : callable, optional
        Told about progress.

    Returns
    -------
    Drift
        A run that blows up ends early and counts as infinite.

    Raises
    ------
    UserError
        If the steps don't divide, the run is too short for a slope, or frames differ in their
        atoms.
    """
    n = TimeSteps(outer_fs, inner_fs).n_inner
    steps = round(1e3 * picoseconds / outer_fs)
    if steps < FEWEST_STEPS:
        raise UserError(
            f"picoseconds={picoseconds:g} are {max(steps, 0)} outer steps of {outer_fs:g} fs: a "
            f"drift needs at least {FEWEST_STEPS}; give {FEWEST_STEPS * outer_fs / 1e3:g} ps or "
            "more."
        )
    if not atoms_list or not seeds:
        raise UserError("a drift needs at least one frame and one seed: give both.")
    if any(not np.array_equal(a.numbers, atoms_list[0].numbers) for a in atoms_list):
        raise UserError("the frames for the drift differ in their atoms: give those of one system.")
    runs = []
    for k, seed in enumerate(seeds):
        start, constraints = nve_start(
            atoms_list[k % len(atoms_list)],
            temperature_K=temperature_K,
            hydrogen_mass_Da=hydrogen_mass_Da,
            seed=seed,
            held=held,
        )

        def tell(done: int, before: int = k * steps) -> None:
            if report is not None:
                report(f"NVE drift at {outer_fs:g} fs", before + done, len(seeds) * steps)

        runs.append(
            nve_run(
                start,
                teacher,
                student,
                outer_fs=outer_fs,
                inner_steps=n,
                steps=steps,
                on_step=tell,
                constraints=constraints,
            )
        )
    return Drift(
        outer_fs=outer_fs,
        inner_fs=inner_fs,
        picoseconds=picoseconds,
        values=tuple(run.drift_meV_atom_ps for run in runs),
        max_force_difference_eV_A=max(run.max_force_difference_eV_A for run in runs),
        clip_events=sum(run.clip_events for run in runs),
        degrees_per_atom=_degrees_per_atom(atoms_list[0], held),
    )


def _degrees_per_atom(atoms: Atoms, held: Distances | None) -> float:
    # their sum does not depend on how the mass is spread
    degrees = float(degrees_that_heat(atoms, atoms.get_masses()).sum())
    degrees -= 0 if held is None else len(held.pairs)
    return degrees / max(int(moving_atoms(atoms).sum()), 1)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
