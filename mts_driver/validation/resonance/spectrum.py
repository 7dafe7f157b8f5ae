"""Vibrational density of states of hydrogens, to see what masses and friction do to it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms
from scipy.signal import welch

from integrators.splitting import OU, Operation
from integrators.state import MDState
from mts_driver.structures.fixed import moving_atoms

MOST_HYDROGENS = 300
HIGHEST_CM1 = 4500.0
STRETCHES_CM1 = 1800.0
"""X-H stretches lie above, for 4 Da at about 2000; bends and librations below."""
WINDOW_PS = 1.0
SHORTEST_PS = 0.2
"""Of a window that tells slow motion from vibrations."""
_CM1_PER_FS = 33356.40952
"""1/(c × 1 fs), 1/cm."""


@dataclass(frozen=True)
class Spectrum:
    """Density of states.

    Attributes
    ----------
    wavenumber_cm1 : array, shape (K,)
        From 0 to 4500.
    density : array, shape (K,)
        With a mean of one.
    stretch_peak_cm1, stretch_width_cm1 : float or None
        Highest point above 1800 1/cm, and the full width where half of it is reached; None where
        bonds are held.
    """

    wavenumber_cm1: np.ndarray
    density: np.ndarray
    stretch_peak_cm1: float | None
    stretch_width_cm1: float | None


class Velocities:
    """Remembers the velocities of hydrogens at every inner step.

    Parameters
    ----------
    atoms : ase.Atoms
        Evenly spread 300 of its hydrogens that move are watched.
    inner_fs : float
        Time between two of their thermostat steps.
    stretches : bool
        Whether bonds to hydrogen can stretch; where they are held, no peak is looked for.
    """

    def __init__(self, atoms: Atoms, inner_fs: float, *, stretches: bool = True) -> None:
        hydrogens = np.flatnonzero((atoms.numbers == 1) & moving_atoms(atoms))
        self._watched = torch.tensor(hydrogens[:: max(1, len(hydrogens) // MOST_HYDROGENS)])
        self._inner_fs, self._seen = inner_fs, list[np.ndarray]()
        self._stretches = stretches

    def on_op(self, op: Operation, state: MDState) -> None:
        """See the state after an operation of the splitting."""
        if isinstance(op, OU) and len(self._watched):
            seen = state.velocities[..., self._watched, :]
            self._seen.append(seen.detach().cpu().float().numpy())

    def spectrum(self, discarded: float) -> Spectrum | None:
        """Welch's estimate behind the first part ``discarded``; None from less than a window."""
        length = round(1e3 * WINDOW_PS / self._inner_fs)
        kept = self._seen[int(discarded * len(self._seen)) :]
        if len(kept) < length:
            return None
        per_fs, power = welch(np.array(kept), 1.0 / self._inner_fs, nperseg=length, axis=0)
        wavenumber = per_fs * _CM1_PER_FS
        shown = wavenumber <= HIGHEST_CM1
        density = power.reshape(len(power), -1).mean(axis=1)[shown]
        density /= density.mean()
        peak = _peak(wavenumber[shown], density) if self._stretches else (None, None)
        return Spectrum(wavenumber[shown], density, *peak)

    def mean_over_motion(
        self, discarded: float, of_wavenumber: Callable[[np.ndarray], np.ndarray]
    ) -> float | None:
        """Return the mean of a function of the wavenumber, 1/cm, over the kinetic energy.

        What there is of it at every frequency is its weight, slow motion included. None without
        hydrogens, or from less than 0.2 ps.
        """
        kept = self._seen[int(discarded * len(self._seen)) :]
        length = min(len(kept), round(1e3 * WINDOW_PS / self._inner_fs))
        if length < 1e3 * SHORTEST_PS / self._inner_fs:
            return None
        per_fs, power = welch(
            np.array(kept), 1.0 / self._inner_fs, nperseg=length, axis=0, detrend=False
        )
        weights = power.reshape(len(power), -1).sum(axis=1)
        return float((of_wavenumber(per_fs * _CM1_PER_FS) * weights).sum() / weights.sum())


def _peak(wavenumber: np.ndarray, density: np.ndarray) -> tuple[float | None, float | None]:
    stretches = np.flatnonzero(wavenumber > STRETCHES_CM1)
    if not len(stretches):
        return None, None
    top = int(stretches[density[stretches].argmax()])
    low = np.flatnonzero(density < 0.5 * density[top])
    below, above = low[low < top], low[low > top]
    if not len(below) or not len(above):
        return float(wavenumber[top]), None

    def crossing(outside: int, inside: int) -> float:
        share = (0.5 * density[top] - density[outside]) / (density[inside] - density[outside])
        return float(wavenumber[outside] + share * (wavenumber[inside] - wavenumber[outside]))

    left = crossing(below[-1], below[-1] + 1)
    return float(wavenumber[top]), crossing(above[0], above[0] - 1) - left
