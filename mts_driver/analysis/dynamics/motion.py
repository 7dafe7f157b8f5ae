"""What the velocities of a run tell: vibrations, and how long velocities are remembered."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mts_driver.analysis.statistics import MIN_BLOCKS
from mts_driver.analysis.vdos import DensityOfStates, autocorrelation, density_of_states, pieces

SEGMENT_FS = 2000.0
"""Of a run that is long enough: lines are about 25/cm wide."""
SHORTEST_SEGMENT_FS = 1000.0
"""Of one that is not, and still gets errors."""
LONGEST_LAG_FS = 500.0


@dataclass(frozen=True, eq=False)
class Motion:
    """What velocities tell of a run.

    Attributes
    ----------
    density_of_states : DensityOfStates
        Of all atoms.
    lags_fs, autocorrelation : array, shape (L,)
        Of mass-weighted velocities, 1 at lag 0.
    autocorrelation_stderr : array, shape (L,)
        From consecutive blocks; NaN for fewer than 5.
    autocorrelation_by_element : dict of str to array, shape (L,)
        Of the atoms of each element, 1 at lag 0.
    interval_fs, picoseconds : float
        Between frames, and of the part of the run that was taken.
    frames : str
        Where they are from, in words.
    """

    density_of_states: DensityOfStates
    lags_fs: np.ndarray
    autocorrelation: np.ndarray
    autocorrelation_stderr: np.ndarray
    autocorrelation_by_element: dict[str, np.ndarray]
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
            "clearest_peaks_cm": states.clearest_peaks_cm().tolist(),
            "wavenumbers_cm": states.wavenumbers_cm.tolist(),
            "density_cm": states.density.tolist(),
            "density_stderr_cm": states.stderr.tolist(),
            "density_by_element_cm": {k: v.tolist() for k, v in states.by_element.items()},
            "lags_fs": self.lags_fs.tolist(),
            "velocity_autocorrelation": self.autocorrelation.tolist(),
            "velocity_autocorrelation_stderr": self.autocorrelation_stderr.tolist(),
            "velocity_autocorrelation_by_element": {
                k: v.tolist() for k, v in self.autocorrelation_by_element.items()
            },
        }


def motion(
    parts: Sequence[np.ndarray],
    masses: np.ndarray,
    symbols: np.ndarray,
    *,
    interval_fs: float,
    frames: str,
) -> Motion:
    """Return what velocities tell of a run, of all atoms and by element.

    Parameters
    ----------
    parts : sequence of array, shape (T, N, 3)
        Velocities without a gap, in any unit; the longest decides how fine the spectrum is.
    masses, symbols : array, shape (N,)
        Masses in any unit, 0 for atoms that are held.
    interval_fs : float
        Between frames.
    frames : str
        Where they are from, in words.

    Raises
    ------
    UserError
        If there are too few frames.
    """
    # a piece of n intervals has n + 1 frames
    length_fs = interval_fs * (max(len(v) for v in parts) - 1)
    segment_fs = min(SEGMENT_FS, length_fs, max(length_fs / MIN_BLOCKS, SHORTEST_SEGMENT_FS))
    states = density_of_states(
        parts, masses, interval_fs=interval_fs, longest_fs=segment_fs, symbols=symbols
    )
    longest = int(min(LONGEST_LAG_FS, 0.5 * length_fs) / interval_fs)
    moving = [str(e) for e in np.unique(symbols) if masses[symbols == e].any()]
    count = max(1, len(states.blocks))
    shorter = [v for part in parts for v in pieces(part, max(1, len(part) // count))]
    blocks = [autocorrelation([v], masses, longest=longest) for v in shorter if len(v) > longest]
    return Motion(
        states,
        interval_fs * np.arange(longest + 1),
        autocorrelation(parts, masses, longest=longest),
        np.std(blocks, axis=0, ddof=1) / math.sqrt(len(blocks))
        if len(blocks) >= MIN_BLOCKS
        else np.full(longest + 1, np.nan),
        {
            e: autocorrelation(
                [v[:, symbols == e] for v in parts], masses[symbols == e], longest=longest
            )
            for e in moving
        },
        interval_fs,
        1e-3 * length_fs,
        frames,
    )


def compare_motions(run: Motion, reference: Motion) -> dict[str, Any]:
    """Return how much two spectra have in common, for JSON."""
    mine, theirs = run.density_of_states, reference.density_of_states
    return {
        "density_of_states_overlap": mine.overlap(theirs),
        "density_of_states_overlap_stderr": mine.overlap_stderr(theirs),
        "density_of_states_overlap_of_noise_alone": mine.overlap_of_noise(theirs),
    }
