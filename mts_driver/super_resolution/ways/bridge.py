"""Fill gaps by the potential that the atoms moved in: shots from both ends, mended by splines.

A spline knows the ends only. Between them lies a trajectory of a potential, of which a student
knows most at a fraction of the cost, for molecules and boxes of any size. What a shot with it
misses is small and smooth, and a spline is good enough for that.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from scipy.interpolate import BarycentricInterpolator

from integrators.state import Potential
from mts_driver.errors import UserError
from mts_driver.super_resolution.frames import Gaps
from mts_driver.super_resolution.ways.splines import SPLINES, spline

Accelerations = Callable[[np.ndarray], np.ndarray]
"""From positions (G, N, 3), Å, to accelerations, Å/fs²."""


@dataclass(frozen=True, eq=False)
class Bridged:
    """Gaps that have been filled.

    Attributes
    ----------
    positions_A : array, shape (steps - 1, G, N, 3)
        Between the steps, Å.
    astray_A : array, shape (G, N)
        How far from the right end's positions the shot from the left end came out, before it was
        mended, Å: what a broken trajectory shows.
    expected_A : array, shape (G, N)
        What the forces that the student misses at the ends explain of it.
    """

    positions_A: np.ndarray
    astray_A: np.ndarray
    expected_A: np.ndarray


def bridge(
    gaps: Gaps,
    student: Potential,
    masses: np.ndarray,
    *,
    steps: int,
    cell_A: np.ndarray | None = None,
    teacher: Potential | None = None,
    teacher_calls: int = 0,
) -> Bridged:
    """Fill gaps by velocity Verlet, forwards from the left and backwards from the right.

    Where accelerations of the teacher are stored, a shot moves by those of the student and a
    polynomial in time of teacher - student, which is known at both ends, and, with
    ``teacher_calls``, at so many frames between them, near Chebyshev's nodes of a path that was
    shot without them. Each shot reaches the other end a little astray. To it is added the spline
    through what is then missing at both ends, of positions, velocities and, where they are known,
    accelerations, so that the error is that of a spline for the difference of two potentials. Of
    the two shots the nearer counts more: astray grows as the square of time, and so the weights are
    the fourth powers of the times to the other end.

    Parameters
    ----------
    gaps : Gaps
        With velocities.
    student : Potential
        Evaluates all gaps at once, as replicas.
    masses : array, shape (N,)
        eV fs²/Å².
    steps : int
        Time steps in a gap.
    cell_A : array, shape (3, 3), optional
        Left out for an isolated molecule.
    teacher : Potential, optional
        The potential that the atoms moved in.
    teacher_calls : int
        Of it, a gap; odd numbers gain most. The gaps need accelerations.

    Raises
    ------
    UserError
        If ``steps`` or ``teacher_calls`` are not possible, something that is needed is not known,
        or a shot blows up.
    """
    if steps < 2:
        raise UserError(f"steps={steps}: give at least 2, or nothing lies between the ends.")
    if not 0 <= teacher_calls < steps or (teacher_calls and teacher is None):
        raise UserError(
            f"teacher_calls={teacher_calls}: give 0 to {steps - 1}, with a teacher, for gaps of "
            f"{steps} steps."
        )
    known = gaps.known(3 if teacher_calls else max(2, len(gaps.left)), "a bridge")
    fast = _accelerations(student, masses, cell_A)
    ends = [fast(side[0]) for side in (known.left, known.right)]
    missing = {
        step: side[2] - own if len(side) > 2 else np.zeros_like(own)
        for step, side, own in zip((0, steps), (known.left, known.right), ends, strict=True)
    }
    found = _path(known, fast, ends, _through(missing, steps))
    if teacher_calls:
        slow = _accelerations(cast(Potential, teacher), masses, cell_A)
        nodes = 0.5 - 0.5 * np.cos(np.pi * np.arange(1, teacher_calls + 1) / (teacher_calls + 1))
        for step in np.unique(np.rint(steps * nodes).clip(1, steps - 1).astype(int)):
            x = found.positions_A[step - 1]
            missing[int(step)] = slow(x) - fast(x)
        found = _path(known, fast, ends, _through(missing, steps))
    return found


def _accelerations(
    potential: Potential, masses: np.ndarray, cell_A: np.ndarray | None
) -> Accelerations:
    cell = torch.zeros(3, 3, dtype=torch.float64) if cell_A is None else torch.as_tensor(cell_A)

    def found(positions: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            forces = potential(torch.as_tensor(positions), cell).forces
        accelerations: np.ndarray = forces.double().cpu().numpy() / masses[:, None]
        return accelerations

    return found


def _through(values: dict[int, np.ndarray], steps: int) -> np.ndarray:
    """Return the polynomial through values at some steps, at all of them: (steps + 1, G, N, 3)."""
    at = sorted(values)
    polynomial = BarycentricInterpolator(at, np.stack([values[step] for step in at]))
    found: np.ndarray = polynomial(np.arange(steps + 1))
    return found


def _path(gaps: Gaps, fast: Accelerations, ends: list[np.ndarray], extra: np.ndarray) -> Bridged:
    """Shoot from both ends, and blend; ``ends`` are the student's accelerations there."""
    steps = len(extra) - 1
    forwards, astray = _shot(gaps, fast, ends[0], extra)
    backwards, _ = _shot(gaps.turned(), fast, ends[1], extra[::-1])
    t = np.arange(1, steps).reshape(-1, 1, 1, 1) / steps
    near, far = (1.0 - t) ** 4, t**4
    positions = (near * forwards + far * backwards[::-1]) / (near + far)
    largest = np.linalg.norm(extra, axis=-1).max(0)
    return Bridged(positions, astray, 0.5 * gaps.duration_fs**2 * largest)


def _shot(
    gaps: Gaps, fast: Accelerations, first: np.ndarray, extra: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Run from the left ends, and add the spline through what is missing at both.

    The second value is how far the right end's positions are from where the shot comes out.
    """
    steps = len(extra) - 1
    h = gaps.duration_fs / steps
    x, v = gaps.left[:2]
    a = first + extra[0]
    start, shot = (x, v, a), []
    for step in range(1, steps + 1):
        v = v + 0.5 * h * a
        x = x + h * v
        if not np.isfinite(x).all():
            raise UserError(
                f"steps={steps}: a shot blew up; take more steps, shorter gaps, or another student."
            )
        a = fast(x) + extra[step]
        v = v + 0.5 * h * a
        shot.append(x)
    ends = ((gaps.left, start), (gaps.right, (x, v, a)))
    at_left, at_right = (
        tuple(k - s for k, s in zip(known, own, strict=False)) for known, own in ends
    )
    kind = {count: name for name, count in SPLINES.items()}[len(gaps.left)]
    rest = spline(Gaps(gaps.duration_fs, at_left, at_right), h * np.arange(1, steps), kind)
    return np.stack(shot[:-1]) + rest, np.linalg.norm(at_right[0], axis=-1)
