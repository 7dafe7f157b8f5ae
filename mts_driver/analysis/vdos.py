"""The density of vibrational states, from velocities."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.signal import find_peaks, welch

from mts_driver.analysis.statistics import MIN_BLOCKS
from mts_driver.errors import UserError
from mts_driver.units import LIGHT_CM_FS

PADDING = 8
"""Zeros behind a segment, in lengths of it: lines are drawn smoothly."""
ATOMS_AT_ONCE = 32
LEAST_PEAK = 0.02
"""Of the highest."""
CLEAR = 0.1


@dataclass(frozen=True, eq=False)
class DensityOfStates:
    """Kinetic energy by wavenumber.

    Attributes
    ----------
    wavenumbers_cm : array, shape (W,)
        1/cm, from 0 to half of what the interval resolves.
    density : array, shape (W,)
        cm; its integral is 1.
    by_element : dict of str to array, shape (W,)
        What the atoms of each element add to it.
    blocks : array, shape (B, W)
        Of consecutive pieces of the trajectory, each as long as a segment.
    """

    wavenumbers_cm: np.ndarray
    density: np.ndarray
    by_element: dict[str, np.ndarray] = field(default_factory=dict)
    blocks: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))

    @property
    def stderr(self) -> np.ndarray:
        """Standard error from the blocks, shape (W,); NaN for fewer than 5."""
        count = len(self.blocks)
        if count < MIN_BLOCKS:
            return np.full(len(self.density), np.nan)
        return np.asarray(self.blocks.std(axis=0, ddof=1) / math.sqrt(count))

    def peaks_cm(self) -> np.ndarray:
        """Return where it has its peaks of at least 2 % of the highest, 1/cm."""
        places, _ = find_peaks(self.density, height=LEAST_PEAK * self.density.max())
        y = self.density[np.stack([places - 1, places, places + 1])]
        # the top of a parabola
        shift = 0.5 * (y[0] - y[2]) / (y[0] - 2.0 * y[1] + y[2])
        found: np.ndarray = self.wavenumbers_cm[1] * (places + shift)
        return found

    def clearest_peaks_cm(self) -> np.ndarray:
        """Return the peaks that rise by a tenth of the highest above what is around, 1/cm."""
        places, _ = find_peaks(self.density, prominence=CLEAR * self.density.max())
        return np.asarray(self.wavenumbers_cm[places])

    def overlap(self, other: "DensityOfStates") -> float:
        """Return the area below both, 0 to 1; 1 if they are the same."""
        return _area_below_both(self.density, other._on(self, other.density), self.wavenumbers_cm)

    def overlap_stderr(self, other: "DensityOfStates") -> float:
        """Return the standard error of the overlap, from leaving out a block of either at a time.

        NaN for fewer than 5 blocks.
        """
        if min(len(self.blocks), len(other.blocks)) < MIN_BLOCKS:
            return math.nan
        theirs = other._on(self, other.density)
        variance = 0.0
        for mine in (True, False):
            blocks = self.blocks if mine else other.blocks
            n = len(blocks)
            left = (blocks.sum(axis=0) - blocks) / (n - 1)
            found = [
                _area_below_both(one, theirs, self.wavenumbers_cm)
                if mine
                else _area_below_both(self.density, other._on(self, one), self.wavenumbers_cm)
                for one in left
            ]
            variance += (n - 1) * float(np.var(found))
        return math.sqrt(variance)

    def overlap_of_noise(self, other: "DensityOfStates") -> float:
        """Return the overlap of two runs with these errors of one and the same spectrum.

        Noise takes 1/2 ∫ <|d|> from 1, where d is normal with the errors of both; NaN without them.
        """
        error = np.hypot(self.stderr, other._on(self, other.stderr))
        return 1.0 - float(np.trapezoid(error, self.wavenumbers_cm)) / math.sqrt(2.0 * math.pi)

    def _on(self, other: "DensityOfStates", values: np.ndarray) -> np.ndarray:
        """Values of this one at the other's wavenumbers."""
        return np.interp(other.wavenumbers_cm, self.wavenumbers_cm, values, right=0.0)


def _area_below_both(a: np.ndarray, b: np.ndarray, wavenumbers_cm: np.ndarray) -> float:
    return float(np.trapezoid(np.minimum(a, b), wavenumbers_cm))


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


def pieces(v: np.ndarray, length: int) -> list[np.ndarray]:
    """Cut velocities into consecutive pieces of so many frames."""
    return [v[k : k + length] for k in range(0, len(v) - length + 1, length)]


def _blocks(v: np.ndarray, masses: np.ndarray) -> Iterator[np.ndarray]:
    """Mass-weighted velocities of a few atoms at a time, which bounds memory."""
    for start in range(0, v.shape[1], ATOMS_AT_ONCE):
        some = slice(start, start + ATOMS_AT_ONCE)
        yield v[:, some] * np.sqrt(masses[some])[:, None]


def density_of_states(
    parts: Sequence[np.ndarray],
    masses: np.ndarray,
    *,
    interval_fs: float,
    longest_fs: float,
    symbols: np.ndarray | None = None,
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
    symbols : array of str, shape (N,), optional
        Elements, for what each adds.

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
    elements, kinds = np.unique(
        np.full(len(masses), "all") if symbols is None else symbols, return_inverse=True
    )
    total: np.ndarray | float = 0.0
    blocks, wavenumbers = list[np.ndarray](), np.empty(0)
    for v in long:
        wavenumbers, own = _spectra(v, masses, kinds, segment, interval_fs)
        total = total + len(v) * own
        for piece in pieces(v, segment):
            of_piece = _spectra(piece, masses, kinds, segment, interval_fs)[1].sum(axis=1)
            blocks.append(of_piece / np.trapezoid(of_piece, wavenumbers))
    by_element = np.asarray(total)
    density = by_element.sum(axis=1)
    whole = np.trapezoid(density, wavenumbers)
    return DensityOfStates(
        wavenumbers,
        density / whole,
        {}
        if symbols is None
        else {
            str(e): by_element[:, k] / whole
            for k, e in enumerate(elements)
            if by_element[:, k].any()
        },
        np.array(blocks),
    )


def _spectra(
    v: np.ndarray, masses: np.ndarray, kinds: np.ndarray, segment: int, interval_fs: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return wavenumbers (W,), 1/cm, and the power of each kind of atom (W, K)."""
    frequencies, powers = np.empty(0), np.zeros((0, 0))
    for k, w in enumerate(_blocks(v, masses)):
        frequencies, power = welch(
            w,
            fs=1.0 / interval_fs,
            nperseg=segment,
            nfft=PADDING * segment,
            detrend=False,
            axis=0,
        )
        some = kinds[k * ATOMS_AT_ONCE : (k + 1) * ATOMS_AT_ONCE]
        own = power.sum(axis=2) @ np.eye(kinds.max() + 1)[some]
        powers = own if k == 0 else powers + own
    return frequencies / LIGHT_CM_FS, powers
