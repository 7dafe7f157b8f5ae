"""Diffusion coefficients with their errors (the only module that imports kinisi).

Of every kind of molecule that there are enough of, from the mean squared displacement of centres of
mass, relative to that of the whole system: MSD(t) = 6 D t + c where it has become a straight line.
kinisi fits the line by Bayesian regression with the covariances that mean squared displacements of
Brownian motion have (McCluskey et al., J. Chem. Theory Comput. 2025, 21, 79): points of one MSD are
strongly correlated, and the errors of a plain fit are far too small.
"""

import importlib.util
import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms

from mts_driver.analysis.trajectory import Trajectory
from mts_driver.structures.bonds import molecules
from mts_driver.units import BOLTZMANN_EV_K, EV_J

FEWEST = 8
"""Molecules of a kind."""
LEAST_FRAMES = 40
LAGS = 40
"""On a logarithmic scale, up to half of the run."""
FARTHEST = 0.4
"""Of the narrowest width of the cell, between frames; beyond a half the image is not known."""
STRAIGHT = 0.1
"""An MSD that grows as t^1 within this much is a straight line."""
GOOD = 0.10
"""Relative error of a D that is worth having."""
YEH_HUMMER = 2.837297
_A2_PS = 10.0
"""1 Å²/ps in 1e-5 cm²/s."""


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

    Molecules are those of the first frame, kinds are chemical formulas. Atoms that never move are
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
    moves = unwrapped_displacements(trajectory)
    if isinstance(moves, str):
        return {}, moves
    held = ~moves.any(axis=(0, 2))
    atoms = trajectory.first()
    masses, member = atoms.get_masses(), molecules(atoms)
    if not held.any():  # a thermostat pushes the whole system about
        moves = moves - np.average(moves, axis=1, weights=masses)[:, None]
    total = np.bincount(member, weights=masses)
    centres = np.zeros((len(moves), len(total), 3))
    np.add.at(centres, (slice(None), member), moves * masses[:, None])
    centres /= total[:, None]
    kinds = _kinds(atoms, member, held)
    if not kinds:
        return {}, f"no kind of molecule occurs {FEWEST} times, or all are held"
    volume = float(np.abs(np.linalg.det(trajectory.cells)).mean())
    apart_A = (volume / len(total)) ** (1 / 3)
    frame_ps = step_ps * float(np.diff(trajectory.steps)[0])
    return {name: _fit(centres[:, of], frame_ps, apart_A) for name, of in kinds.items()}, None


def _unfit(trajectory: Trajectory, step_ps: float | None) -> str | None:
    if importlib.util.find_spec("kinisi") is None:
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


def unwrapped_displacements(trajectory: Trajectory) -> np.ndarray | str:
    """Return displacements from the first frame, (F, N, 3), Å, or why they cannot be known.

    Each frame is wrapped into its own cell, and steps between frames go to the nearest image, so
    that cells may fluctuate (von Bülow et al., J. Chem. Phys. 2020, 153, 021101).
    """
    cells = trajectory.cells
    inverse = np.linalg.inv(cells)
    # widths of a cell are the inverse lengths of the columns of its inverse
    limit = FARTHEST / np.linalg.norm(inverse, axis=1).max()
    scaled = (trajectory.positions @ inverse) % 1.0
    apart = np.diff(scaled, axis=0)
    steps = (apart - np.round(apart)) @ cells[1:]
    farthest = float(np.linalg.norm(steps, axis=2).max())
    if farthest > limit:
        return (
            f"an atom moves {farthest:.1f} Å between two stored frames, in a cell of "
            f"{limit / FARTHEST:.1f} Å, and may have moved by an image: store frames more often "
            "(mts prepare --stride)"
        )
    moved = np.zeros_like(trajectory.positions)
    np.cumsum(steps, axis=0, out=moved[1:])
    return moved


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
    import scipp as sc
    from kinisi.diffusion import Diffusion as Regression
    from kinisi.displacement import calculate_msd
    from kinisi.parser import Parser

    longest = len(moved) - 1
    lags = np.unique(np.geomspace(1, longest // 2, LAGS).round().astype(int))
    # in a box so large that kinisi has nothing to unwrap
    box = 10.0 * (np.abs(moved).max() + 1.0)
    parsed = Parser(
        coords=sc.array(dims=["time", "particle", "dimension"], values=moved / box),
        latt=sc.array(
            dims=["time", "row", "column"],
            values=np.broadcast_to(box * np.eye(3), (len(moved), 3, 3)).copy(),
            unit="angstrom",
        ),
        time_step=sc.scalar(frame_ps, unit="ps"),
        step_skip=sc.scalar(1),
        dt=sc.array(dims=["time interval"], values=frame_ps * lags, unit="ps"),
        specie_indices=sc.arange("particle", moved.shape[1]),
        drift_indices=sc.array(dims=["particle"], values=np.zeros(0, int)),
    )
    found = calculate_msd(parsed, progress=False)
    # kinisi takes the longest lag for the length of the run when it counts independent samples
    missed = longest / lags[-1]
    found["da"].variances = found["da"].variances / missed
    found["da"].coords["n_samples"] = found["da"].coords["n_samples"] * missed
    msd, error = found["da"].values, np.sqrt(found["da"].variances)
    times = found["da"].coords["time interval"].values
    start, exponent = _straight_from(times, msd, error)
    line = Regression(found)
    state = np.random.get_state()  # which kinisi sets
    try:
        line.bayesian_regression(
            start_dt=sc.scalar(times[start] * (1 - 1e-9), unit="ps"),
            progress=False,
            random_state=np.random.RandomState(1),
        )
    finally:
        np.random.set_state(state)
    D = line.gradient.values * _A2_PS / 6
    low, high = np.percentile(D, [2.5, 97.5])
    mean, stderr = float(D.mean()), float(D.std())
    return Diffusion(
        count=moved.shape[1],
        D=mean,
        stderr=stderr,
        interval=(float(low), float(high)),
        offset_A2=float(line.intercept.values.mean()),
        start_ps=float(times[start]),
        lags_ps=times,
        msd_A2=msd,
        msd_stderr_A2=error,
        warnings=tuple(_warnings(mean, stderr, exponent, math.sqrt(msd[-1]), apart_A)),
    )


def _straight_from(
    times: np.ndarray, msd: np.ndarray, error: np.ndarray
) -> tuple[int, float | None]:
    """Return the lag from which the MSD is straight, and the exponent where it never becomes so.

    The exponent of t between a lag and its double is 1 where molecules diffuse, 2 where they fly
    and less than 1 in their cages; between the last two it passes 1, so that what counts is that it
    stays 1 from there on.
    """
    double = np.searchsorted(times, 2 * times * (1 - 1e-9))
    count = int((double < len(times)).sum())
    near, far = np.arange(count), double[:count]
    growth = np.log(times[far] / times[near])
    exponent = np.log(msd[far] / msd[near]) / growth
    relative = (error / msd) ** 2
    # of Brownian motion, whose MSDs are correlated
    noise = np.sqrt(np.maximum(relative[far] - relative[near], 0.0)) / growth
    bent = np.flatnonzero(np.abs(exponent - 1.0) > np.maximum(STRAIGHT, 3 * noise))
    if not len(bent):
        return 0, None
    start = int(bent[-1]) + 1
    return (start, None) if start < count else (count - 1, float(exponent[-1]))


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
