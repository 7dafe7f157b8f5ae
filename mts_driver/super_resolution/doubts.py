"""Gaps between frames that cannot be of one trajectory: jumps, noise, atoms that changed places."""

import numpy as np

from mts_driver.super_resolution.frames import Gaps

OUTLIER = 25.0
"""Times that an atom of an element goes astray at the median, beyond which a gap is doubtful."""
FLOOR_A = 0.02
"""Going astray by less is never a doubt."""
NOISY = 5.0
"""Times what explains going astray at the median, beyond which all frames are said to be noisy."""
LEAST_NOISE_A = 1e-3


def astray_A(gaps: Gaps) -> np.ndarray:
    """Return how far positions are from where what is known takes the atoms, (G, N), Å.

    From one end to the other by the rule of trapezes with the end correction of Euler and
    Maclaurin, as far as derivatives are known; without velocities, the distances themselves.
    """
    t = gaps.duration_fs
    off = gaps.right[0] - gaps.left[0]
    if len(gaps.left) > 1:
        off = off - 0.5 * t * (gaps.left[1] + gaps.right[1])
    if len(gaps.left) > 2:
        off = off + t**2 / 12.0 * (gaps.right[2] - gaps.left[2])
    found: np.ndarray = np.linalg.norm(off, axis=-1)
    return found


def bounds_A(astray: np.ndarray, numbers: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """Return beyond what an atom goes astray as those of its element never do, (N,), Å.

    25 medians over all gaps and atoms of the element that move, and at least 0.02 Å.
    """
    found = np.full(len(numbers), FLOOR_A)
    for element in np.unique(numbers[moves]):
        own = (numbers == element) & moves
        found[own] = max(FLOOR_A, OUTLIER * float(np.median(astray[:, own])))
    return found


def unexplained(astray: float, expected: float) -> bool:
    """Tell whether frames go astray by more than the errors of a student's forces explain.

    Parameters
    ----------
    astray, expected : float
        Medians, Å. Noise of a thermostat is not expected; less than 0.001 Å is not suspicious.
    """
    return astray > max(LEAST_NOISE_A, NOISY * expected)
