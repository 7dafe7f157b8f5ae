"""Polynomials through what is known at the ends: what any network has to beat."""

from collections.abc import Sequence

import numpy as np
from scipy.interpolate import BPoly

from mts_driver.errors import UserError
from mts_driver.super_resolution.frames import Gaps

SPLINES = {"linear": 1, "cubic": 2, "quintic": 3}
"""How much each knows of an end: positions, velocities, accelerations."""


def spline(gaps: Gaps, times_fs: Sequence[float] | np.ndarray, kind: str) -> np.ndarray:
    """Fill gaps by Hermite's polynomial of lowest degree.

    Parameters
    ----------
    gaps : Gaps
        With velocities for ``cubic``, and accelerations for ``quintic``.
    times_fs : sequence of float
        From the left ends on, within the gaps.
    kind : str
        ``linear``, ``cubic`` or ``quintic``.

    Returns
    -------
    array, shape (times, G, N, 3)
        Å.

    Raises
    ------
    UserError
        If ``kind`` is another, its data are not known, or a time lies outside.
    """
    if kind not in SPLINES:
        raise UserError(f"kind={kind!r}: use {', '.join(SPLINES)}.")
    times = np.asarray(times_fs, float)
    if not ((times >= 0.0) & (times <= gaps.duration_fs)).all():
        raise UserError(f"times_fs={times.tolist()}: they must be within {gaps.duration_fs:g} fs.")
    known = gaps.known(SPLINES[kind], f"a {kind} spline")
    ends = [np.stack(known.left), np.stack(known.right)]
    return np.asarray(BPoly.from_derivatives([0.0, gaps.duration_fs], ends)(times))
