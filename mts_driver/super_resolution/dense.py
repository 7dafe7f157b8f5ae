"""A stored trajectory with the frames in between."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from scipy.interpolate import CubicSpline

from mts_driver.errors import UserError
from mts_driver.super_resolution.doubts import bounds_A
from mts_driver.super_resolution.fillers import Filler
from mts_driver.super_resolution.frames import Frames, Piece, gaps_from
from mts_driver.super_resolution.ways.replay import Replay

JUDGED = 200
"""Gaps, spread over the trajectory, that tell how far atoms go astray."""
NAMED_GAPS = 5


@dataclass
class Found:
    """What was noticed on the way.

    Attributes
    ----------
    gaps : int
        So far.
    left_out : list of int
        Stored frames behind which a gap was not filled.
    astray_A, expected_A : float or None
        Medians of how far shots come out from the next frame, and of what the student's errors
        explain of it; None where there are no shots.
    """

    gaps: int = 0
    left_out: list[int] = field(default_factory=list)
    astray_A: float | None = None
    expected_A: float | None = None


def intervals(stored_fs: float, every_fs: float) -> int:
    """Return into how many intervals a gap is divided.

    Raises
    ------
    UserError
        If the gap is no multiple of the interval, at least twice as long.
    """
    steps = round(stored_fs / every_fs) if every_fs > 0 else 0
    if steps < 2 or abs(steps * every_fs - stored_fs) > 1e-6 * stored_fs:
        raise UserError(
            f"every_fs={every_fs:g}: frames are stored every {stored_fs:g} fs; give a whole "
            f"fraction of it, such as {stored_fs / max(2, round(stored_fs / 0.5)):g}."
        )
    return steps


def dense(
    frames: Frames, fill: Filler, *, every_fs: float, leave_out: bool = False, found: Found
) -> Iterator[Piece]:
    """Fill all gaps of a trajectory, in the order of time.

    Velocities within a gap are the slopes of cubic splines through its positions, with the stored
    velocities at both ends, right to the fourth order of the interval.

    Parameters
    ----------
    leave_out : bool
        Whether doubtful gaps are left open instead of refused.
    found : Found
        Filled with what is noticed.

    Raises
    ------
    UserError
        If ``every_fs`` does not divide the stored interval, a gap cannot be filled, or is doubtful.
    """
    steps = intervals(frames.timestep_fs, every_fs)
    found.gaps = count = len(frames) - 1
    # a replay has proved itself when it ends where the run did
    bounds = np.inf if isinstance(fill, Replay) else _bounds(frames, fill, steps, found)
    size, begins, worst = frames.gaps_at_once, True, 0.0
    for start in range(0, count, size):
        some = np.arange(start, min(count, start + size))
        gaps, _ = gaps_from(frames, some, 1)
        filled = fill(gaps, steps)
        bad = np.any(filled.astray_A > bounds, axis=1)
        if bad.any():
            found.left_out += some[bad].tolist()
            worst = max(worst, float(filled.astray_A[bad].max()))
            if not leave_out and len(found.left_out) >= NAMED_GAPS:
                break
        for k, gap in enumerate(some):
            inside = None if bad[k] else filled.positions_A[:, k]
            yield _piece(frames, int(gap), inside, every_fs, steps, begins)
            begins = bool(bad[k])
    if found.left_out and not leave_out:
        raise UserError(_refusal(found, worst))
    last = len(frames) - 1
    v = frames.velocities_A_fs
    yield Piece(
        last * steps,
        frames.positions_A[last:],
        None if v is None else v[last:],
        np.array([True]),
        begins,
    )


def _bounds(frames: Frames, fill: Filler, steps: int, found: Found) -> np.ndarray:
    """Return beyond what an atom's going astray is a doubt, from some of the gaps."""
    some = np.unique(np.linspace(0, len(frames) - 2, JUDGED).astype(int))
    size = frames.gaps_at_once
    filled = [
        fill(gaps_from(frames, some[k : k + size], 1)[0], steps) for k in range(0, len(some), size)
    ]
    astray, moves = np.concatenate([one.astray_A for one in filled]), np.isfinite(frames.inertia)
    if filled[0].expected_A.size:
        expected = np.concatenate([one.expected_A for one in filled])
        found.astray_A = float(np.median(astray[:, moves]))
        found.expected_A = float(np.median(expected[:, moves]))
    return bounds_A(astray, frames.numbers, moves)


def _refusal(found: Found, worst_A: float) -> str:
    where = ", ".join(map(str, found.left_out[:NAMED_GAPS]))
    # it ends at the fifth
    more = " or more" if len(found.left_out) >= NAMED_GAPS else ""
    return (
        f"{len(found.left_out)}{more} of {found.gaps} gaps cannot be of one trajectory: behind "
        f"stored frame {where} an atom is up to {worst_A:.2g} Å from where it should be, far "
        "more than elsewhere. Frames may be missing or noisy, atoms in another order or wrapped "
        "into the cell: mend them, or leave these gaps open with --leave-out."
    )


def _piece(
    frames: Frames,
    gap: int,
    inside: np.ndarray | None,
    every_fs: float,
    steps: int,
    begins: bool,
) -> Piece:
    x, v = frames.positions_A[gap : gap + 2], frames.velocities_A_fs
    if inside is None:
        own = None if v is None else v[gap : gap + 1]
        return Piece(gap * steps, x[:1], own, np.array([True]), begins)
    whole = np.concatenate([x[:1], inside, x[1:]])
    slopes = None
    if v is not None:
        times = every_fs * np.arange(steps + 1)
        spline = CubicSpline(times, whole, bc_type=((1, v[gap]), (1, v[gap + 1])))
        slopes = spline(times[:-1], 1)
    return Piece(gap * steps, whole[:-1], slopes, np.arange(steps) == 0, begins)
