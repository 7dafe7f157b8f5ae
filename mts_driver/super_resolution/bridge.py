"""Fill gaps by the potential that the atoms moved in: shots from both ends, mended by splines.

A spline knows the ends only. Between them lies a trajectory of a potential, of which a student
knows most at a fraction of the cost, for molecules and boxes of any size. What a shot with it
misses is small and smooth, and a spline is good enough for that.
"""

import numpy as np
import torch

from integrators.levels import SingleLevel
from integrators.splitting import baoab
from integrators.state import Potential, initial_state
from integrators.walk import run_and_keep
from mts_driver.errors import UserError
from mts_driver.super_resolution.frames import Gaps
from mts_driver.super_resolution.splines import SPLINES, spline


def bridge(
    gaps: Gaps,
    potential: Potential,
    masses: np.ndarray,
    *,
    steps: int,
    cell_A: np.ndarray | None = None,
) -> np.ndarray:
    """Fill gaps by velocity Verlet, forwards from the left and backwards from the right.

    Each shot reaches the other end a little astray. To it is added the spline through what is then
    missing at both ends, of positions, velocities and, where they are known, accelerations, so that
    the error is that of a spline for the difference of two potentials. Of the two the nearer counts
    more: astray grows as the square of time, and so the weights are the fourth powers of the times
    to the other end.

    Parameters
    ----------
    gaps : Gaps
        With velocities.
    potential : Potential
        Evaluates all gaps at once, as replicas.
    masses : array, shape (N,)
        eV fs²/Å².
    steps : int
        Time steps in a gap.
    cell_A : array, shape (3, 3), optional
        Left out for an isolated molecule.

    Returns
    -------
    array, shape (steps - 1, G, N, 3)
        Positions between the steps, Å.

    Raises
    ------
    UserError
        If velocities are not known, a gap has no step within, or a shot blows up.
    """
    if steps < 2:
        raise UserError(f"steps={steps}: give at least 2, or nothing lies between the ends.")
    known = gaps.known(max(2, len(gaps.left)), "a bridge")
    back = Gaps(gaps.duration_fs, _turned(known.right), _turned(known.left))
    with torch.no_grad():
        forwards, backwards = (
            _shot(one, potential, masses, steps, cell_A) for one in (known, back)
        )
    t = np.arange(1, steps).reshape(-1, 1, 1, 1) / steps
    near, far = (1.0 - t) ** 4, t**4
    return (near * forwards + far * backwards[::-1]) / (near + far)


def _turned(state: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """Turn time round: velocities change their sign."""
    return tuple(-x if k == 1 else x for k, x in enumerate(state))


def _shot(
    gaps: Gaps,
    potential: Potential,
    masses: np.ndarray,
    steps: int,
    cell_A: np.ndarray | None,
) -> np.ndarray:
    """Run from the left ends, and add the spline through what is missing at both."""
    x, v, m = (torch.as_tensor(a, dtype=torch.float64) for a in (*gaps.left[:2], masses))
    cell = None if cell_A is None else torch.as_tensor(cell_A, dtype=torch.float64)
    start = initial_state(x, v, m, cell)
    timestep_fs = gaps.duration_fs / steps
    last, states = run_and_keep(
        *(start, SingleLevel(potential), baoab().without_ou(), range(1, steps)),
        steps=steps,
        timestep=timestep_fs,
    )
    if not bool(last.positions.isfinite().all()):
        raise UserError(f"steps={steps}: a shot blew up; take more steps, or another potential.")
    missing = [
        tuple(
            known - np.asarray(shot)
            for known, shot in zip(
                ends,
                (
                    state.positions,
                    state.velocities,
                    potential(state.positions, start.cell).forces / m[:, None],
                ),
                strict=False,
            )
        )
        for ends, state in ((gaps.left, start), (gaps.right, last))
    ]
    kind = {count: name for name, count in SPLINES.items()}[len(gaps.left)]
    times = timestep_fs * np.arange(1, steps)
    rest = spline(Gaps(gaps.duration_fs, *missing), times, kind)
    return np.stack([np.asarray(states[n].positions) for n in range(1, steps)]) + rest
