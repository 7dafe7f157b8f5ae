"""The density of vibrational states, from velocities."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.signal import find_peaks, welch

from mts_driver.errors import UserError
from mts_driver.units import LIGHT_CM_FS

PADDING = 8
"""Zeros behind a segment, in lengths of it: lines are drawn smoothly."""
ATOMS_AT_ONCE = 32
LEAST_PEAK = 0.02
"""Of the highest."""


@dataclass(frozen=True, eq=False)
class DensityOfStates:
    """Kinetic energy by wavenumber.

    Attributes
    ----------
    wavenumbers_cm : array, shape (W,)
        1/cm, from 0 to half of what the interval resolves.
    density : array, shape (W,)
        cm; its integral is 1.
    """

    wavenumbers_cm: np.ndarray
    density: np.ndarray

    def peaks_cm(self) -> np.ndarray:
        """Return where it has its peaks of at least 2 % of the highest, 1/cm."""
        places, _ = find_peaks(self.density, height=LEAST_PEAK * self.density.max())
        y = self.density[np.stack([places - 1, places, places + 1])]
        # the top of a parabola
        shift = 0.5 * (y[0] - y[2]) / (y[0] - 2.0 * y[1] + y[2])
        found: np.ndarray = self.wavenumbers_cm[1] * (places + shift)
        return found

    def overlap(self, other: "DensityOfStates") -> float:
        """Return the area below both, 0 to 1; 1 if they are the same."""
        below = np.minimum(
            self.density, np.interp(self.wavenumbers_cm, other.wavenumbers_cm, other.density)
        )
        return float(np.trapezoid(below, self.wavenumbers_cm))


@dataclass(frozen=True, eq=False)
class Motion:
    """What velocities tell of a run.

    Attributes
    ----------
    density_of_states : DensityOfStates
        Of all atoms.
    lags_fs, autocorrelation : array, shape (L,)
        Of mass-weighted velocities, 1 at lag 0.
    interval_fs, picoseconds : float
        Between frames, and of the part of the run that was taken.
    frames : str
        Where they are from, in words.
    """

    density_of_states: DensityOfStates
    lags_fs: np.ndarray
    autocorrelation: np.ndarray
    interval_fs: float
    picoseconds: float
    frames: str

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        states = self.density_of_states
        return {
            "frames": self.frames,
            "interval_fs": self.interval_fs,
            "picoseconds": self.picoseconds,
            "peaks_cm": states.peaks_cm().tolist(),
            "wavenumbers_cm": states.wavenumbers_cm.tolist(),
            "density_cm": states.density.tolist(),
            "lags_fs": self.lags_fs.tolist(),
            "velocity_autocorrelation": self.autocorrelation.tolist(),
        }


def autocorrelation(parts: Sequence[np.ndarray], masses: np.ndarray, *, longest: int) -> np.ndarray:
    """Return the autocorrelation of mass-weighted velocities, 1 at lag 0, shape (longest + 1,).

    Parameters
    ----------
    parts : sequence of array, shape (T, N, 3)
        Trajectories without a gap, longer than the lags; others are left out.
    longest : int
        Lag, in frames.
    """
    total, pairs = np.zeros(longest + 1), np.zeros(longest + 1)
    for v in parts:
        if len(v) <= longest:
            continue
        for w in _blocks(v, masses):
            # zeros behind it keep the end from meeting the beginning
            power = np.square(np.abs(np.fft.rfft(w, n=2 * len(w), axis=0))).sum((1, 2))
            total += np.fft.irfft(power)[: longest + 1]
        pairs += len(v) - np.arange(longest + 1)
    found: np.ndarray = total / pairs
    return found / found[0]


def _blocks(v: np.ndarray, masses: np.ndarray) -> Iterator[np.ndarray]:
    """Mass-weighted velocities of a few atoms at a time, which bounds memory."""
    for start in range(0, v.shape[1], ATOMS_AT_ONCE):
        some = slice(start, start + ATOMS_AT_ONCE)
        yield v[:, some] * np.sqrt(masses[some])[:, None]


def density_of_states(
    parts: Sequence[np.ndarray], masses: np.ndarray, *, interval_fs: float, longest_fs: float
) -> DensityOfStates:
    """Return the density of states of trajectories without a gap.

    By Welch's method (scipy): the power spectra of mass-weighted velocities in segments that
    overlap by a half, under Hann's window.

    Parameters
    ----------
    parts : sequence of array, shape (T, N, 3)
        Velocities, in any unit; those that are shorter than a segment are left out.
    masses : array, shape (N,)
        In any unit.
    interval_fs : float
        Between frames.
    longest_fs : float
        Of a segment; lines are about 1.5/(c longest_fs) wide.

    Raises
    ------
    UserError
        If no part is as long as a segment.
    """
    segment = round(longest_fs / interval_fs)
    long = [v for v in parts if len(v) >= segment]
    if not long or segment < 2:
        most = max((len(v) for v in parts), default=0) * interval_fs
        raise UserError(
            f"longest_fs={longest_fs:g}: the longest trajectory without a gap has {most:g} fs."
        )
    total: np.ndarray | None = None
    for v in long:
        for w in _blocks(v, masses):
            frequencies, power = welch(
                w,
                fs=1.0 / interval_fs,
                nperseg=segment,
                nfft=PADDING * segment,
                detrend=False,
                axis=0,
            )
            own = len(v) * power.sum((1, 2))
            total = own if total is None else total + own
    assert total is not None
    wavenumbers = frequencies / LIGHT_CM_FS
    return DensityOfStates(wavenumbers, total / np.trapezoid(total, wavenumbers))
