"""Diffusion coefficients with their errors.

Of every kind of molecule that there are enough of, from the mean squared displacement of centres of
mass, relative to that of the whole system.
"""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from scipy.sparse import coo_matrix

from mts_driver.analysis.dynamics.mean_squares import available, line, mean_squares, straight_from
from mts_driver.analysis.trajectory import Trajectory, displacements
from mts_driver.units import BOLTZMANN_EV_K, EV_J

FEWEST = 8
"""Molecules of a kind."""
LEAST_FRAMES = 40
GOOD = 0.10
"""Relative error of a D that is worth having."""
DIFFERENT = 2.0
"""Standard errors between the two halves of a run."""
YEH_HUMMER = 2.837297


@dataclass(frozen=True, eq=False)
class Diffusion:
    """How one kind of molecule diffuses.

    Attributes
    ----------
    count : int
        Molecules of the kind.
    D, stderr : float
        Self-diffusion coefficient in the periodic cell, with its standard error, 1e-5 cm²/s.
    interval : tuple of float
        95 %, 1e-5 cm²/s.
    halves : tuple of float
        D of the first and the second half of the run, 1e-5 cm²/s. Where they differ, the error is
        that of two blocks, since molecules are not as independent as kinisi takes them for.
    offset_A2 : float
        Of the straight line at lag 0.
    start_ps : float
        Lag from which the line is fitted.
    lags_ps, msd_A2, msd_stderr_A2 : array, shape (L,)
        Mean squared displacements.
    warnings : tuple of str
        Why not to trust it.
    """

    count: int
    D: float
    stderr: float
    interval: tuple[float, float]
    halves: tuple[float, float]
    offset_A2: float
    start_ps: float
    lags_ps: np.ndarray
    msd_A2: np.ndarray
    msd_stderr_A2: np.ndarray
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "molecules": self.count,
            "diffusion_1e5_cm2_s": self.D,
            "stderr_1e5_cm2_s": self.stderr,
            "interval_95_1e5_cm2_s": list(self.interval),
            "halves_1e5_cm2_s": list(self.halves),
            "fitted_from_ps": self.start_ps,
            "lags_ps": self.lags_ps.tolist(),
            "msd_A2": self.msd_A2.tolist(),
            "msd_stderr_A2": self.msd_stderr_A2.tolist(),
            "warnings": list(self.warnings),
        }


def diffusion(
    trajectory: Trajectory, *, step_ps: float | None
) -> tuple[dict[str, Diffusion], str | None]:
    """Return the diffusion of every kind of at least 8 molecules, and why there is none.

    Kinds of molecules are chemical formulas. Atoms that never move are
    held, and so are their molecules. Wrapped and unwrapped trajectories are the same.

    Parameters
    ----------
    trajectory : Trajectory
        Without the equilibration.
    step_ps : float or None
        Time of a step; None where a run did not print it.
    """
    why = _unfit(trajectory, step_ps)
    if why is not None:
        return {}, why
    assert step_ps is not None
    moves = displacements(trajectory)
    if isinstance(moves, str):
        return {}, moves
    held = np.asarray(~moves.any(axis=(0, 2)))
    atoms = trajectory.first()
    masses, member = atoms.get_masses(), trajectory.molecules()
    if not held.any():  # a thermostat pushes the whole system about
        moves = moves - np.average(moves, axis=1, weights=masses)[:, None]
    total = np.bincount(member, weights=masses)
    share = coo_matrix((masses / total[member], (member, np.arange(len(masses)))))
    centres = np.stack([share @ x for x in moves])
    kinds = _kinds(atoms, member, held)
    if not kinds:
        return {}, f"no kind of molecule occurs {FEWEST} times, or all are held"
    volume = float(np.abs(np.linalg.det(trajectory.cells)).mean())
    apart_A = (volume / len(total)) ** (1 / 3)
    frame_ps = step_ps * float(np.diff(trajectory.steps)[0])
    found = {}
    for name, of in kinds.items():
        try:
            found[name] = _fit(centres[:, of], frame_ps, apart_A)
        except ValueError as error:  # of kinisi and numpy, for what no line fits
            return {}, f"no line fits the mean squared displacements of {name} ({error})"
    return found, None


def _unfit(trajectory: Trajectory, step_ps: float | None) -> str | None:
    if not available():
        return "diffusion coefficients need kinisi: pip install kinisi"
    if step_ps is None:
        return "the run does not print its time: add time to <properties>"
    apart = np.diff(trajectory.steps)
    if (apart == 0).any():
        return "a path integral samples and has no dynamics in real time"
    if len(trajectory) < LEAST_FRAMES:
        return f"{len(trajectory)} frames after the equilibration: {LEAST_FRAMES} are needed"
    if (apart != apart[0]).any():
        return "frames are not evenly apart in time"
    return None


def _kinds(atoms: Atoms, member: np.ndarray, held: np.ndarray) -> dict[str, np.ndarray]:
    """Return the molecules of each formula, the commonest first."""
    symbols = np.array(atoms.get_chemical_symbols())
    order = np.argsort(member, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(member[order])) + 1)
    names = [
        None if held[part].any() else Atoms(symbols[part].tolist()).get_chemical_formula()
        for part in parts
    ]
    return {
        name: np.array([k for k, n in enumerate(names) if n == name])
        for name, count in Counter(names).most_common()
        if name is not None and count >= FEWEST
    }


def _fit(moved: np.ndarray, frame_ps: float, apart_A: float) -> Diffusion:
    """Fit the line of displacements (F, M, 3) of M molecules that are apart_A apart."""
    found = mean_squares(moved, frame_ps)
    msd, error = found["da"].values, np.sqrt(found["da"].variances)
    times = found["da"].coords["time interval"].values
    start, exponent = straight_from(times, msd, error)
    D, offset = line(found, times[start])
    mean, stderr = float(D.mean()), float(D.std())
    interval = np.percentile(D, [2.5, 97.5])
    halves = []
    for half in np.array_split(moved, 2):
        of_half = mean_squares(half - half[0], frame_ps)
        lags = of_half["da"].coords["time interval"].values
        halves.append(line(of_half, min(times[start], 0.5 * lags[-1]))[0])
    (one, s1), (other, s2) = ((float(h.mean()), float(h.std())) for h in halves)
    uneven = abs(one - other) > DIFFERENT * math.hypot(s1, s2)
    if uneven and 0.5 * abs(one - other) > stderr:
        # molecules are not as independent as in Brownian motion: two blocks know it better
        interval = mean + (interval - mean) * 0.5 * abs(one - other) / stderr
        stderr = 0.5 * abs(one - other)
    warnings = _warnings(mean, stderr, exponent, math.sqrt(msd[-1]), apart_A)
    if uneven:
        warnings.insert(
            0,
            f"{one:.2g} in the first and {other:.2g} in the second half: too short a run, or not "
            "equilibrated",
        )
    return Diffusion(
        count=moved.shape[1],
        D=mean,
        stderr=stderr,
        interval=(max(0.0, float(interval[0])), float(interval[1])),
        halves=(one, other),
        offset_A2=offset,
        start_ps=float(times[start]),
        lags_ps=times,
        msd_A2=msd,
        msd_stderr_A2=error,
        warnings=tuple(warnings),
    )


def _warnings(
    D: float, stderr: float, exponent: float | None, moved_A: float, apart_A: float
) -> list[str]:
    found = []
    if exponent is not None:
        found.append(f"not diffusive yet: the MSD still grows as t^{exponent:.2f} at the end")
    if moved_A < 0.5 * apart_A:
        found.append(
            f"molecules move {moved_A:.1f} Å in half of the run and are {apart_A:.1f} Å apart: "
            "a solid, or too short a run"
        )
    if stderr > GOOD * D > 0:
        found.append(
            f"error {100 * stderr / D:.0f} %: a run {(stderr / D / GOOD) ** 2:.2g} times as long "
            f"has {100 * GOOD:.0f} %"
        )
    return found


def finite_size_term(cells: np.ndarray, temperature_K: float | None) -> float | None:
    """Return what the periodic images take from D at a viscosity of 1 mPa s, 1e-5 cm²/s.

    D(infinite) = D + 2.837297 k T / (6 π η L) in a cubic cell of edge L (Yeh and Hummer, J. Phys.
    Chem. B 2004, 108, 15873). None in other cells (F, 3, 3), Å, and without a temperature.
    """
    mean = cells.mean(axis=0)
    edge = float(np.trace(mean)) / 3
    if temperature_K is None or not np.allclose(mean, edge * np.eye(3), atol=1e-3 * edge):
        return None
    energy_J = BOLTZMANN_EV_K * temperature_K * EV_J
    # 1 m²/s is 1e9 times 1e-5 cm²/s
    return 1e9 * YEH_HUMMER * energy_J / (6 * math.pi * 1e-3 * edge * 1e-10)


def water_viscosity_mPa_s(temperature_K: float) -> float | None:
    """Return the measured viscosity of liquid water at 1 bar within 2.5 %, from 273 to 373 K."""
    if not 273.0 <= temperature_K <= 373.0:
        return None
    return 0.02414 * 10.0 ** (247.8 / (temperature_K - 140.0))
