"""Stored frames, and the gaps between some of them."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from ase.data import atomic_masses

from mts_driver.errors import UserError
from mts_driver.units import EV_FS2_A2_PER_AMU

ATOMS_AT_ONCE = 4096
"""Of all gaps that are filled side by side, about."""


@dataclass(frozen=True, eq=False)
class Frames:
    """A trajectory at even intervals.

    Attributes
    ----------
    numbers : array of int, shape (N,)
        Atomic numbers.
    timestep_fs : float
        Between frames.
    positions_A : array, shape (T, N, 3)
        Not wrapped into a cell.
    velocities_A_fs : array, shape (T, N, 3), or None
        Where they are known.
    accelerations_A_fs2 : array, shape (T, N, 3), or None
        Forces over masses, where they are known.
    masses : array, shape (N,), or None
        Of the run, eV fs²/Å²; None: natural ones.
    cell_A : array, shape (3, 3), or None
        Of a periodic system.
    """

    numbers: np.ndarray
    timestep_fs: float
    positions_A: np.ndarray
    velocities_A_fs: np.ndarray | None = None
    accelerations_A_fs2: np.ndarray | None = None
    masses: np.ndarray | None = None
    cell_A: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not self.timestep_fs > 0:
            raise UserError(f"timestep_fs={self.timestep_fs}: it must be positive.")
        shape = self.positions_A.shape
        if len(shape) != 3 or shape[1:] != (len(self.numbers), 3):
            raise UserError(
                f"positions_A has the shape {shape}; it must be (T, {len(self.numbers)}, 3)."
            )
        for name in ("positions_A", "velocities_A_fs", "accelerations_A_fs2"):
            values = getattr(self, name)
            if values is None:
                continue
            if values.shape != shape:
                raise UserError(f"{name} has the shape {values.shape}; it must be {shape}.")
            if not (finite := np.isfinite(values).all(axis=(1, 2))).all():
                raise UserError(
                    f"{name} of frame {int(finite.argmin())} is not finite: cut the trajectory "
                    "there."
                )

    def __len__(self) -> int:
        return len(self.positions_A)

    @property
    def inertia(self) -> np.ndarray:
        """Masses (N,), eV fs²/Å²."""
        if self.masses is not None:
            return self.masses
        natural: np.ndarray = atomic_masses[self.numbers] * EV_FS2_A2_PER_AMU
        return natural

    def part(self, start: int, end: int, every: int = 1) -> "Frames":
        """Return frames ``start`` to ``end``, every so many of them."""
        names = ("positions_A", "velocities_A_fs", "accelerations_A_fs2")
        cut: dict[str, Any] = {
            n: None if (a := getattr(self, n)) is None else a[start:end:every] for n in names
        }
        return replace(self, timestep_fs=every * self.timestep_fs, **cut)

    def split(self, test_share: float) -> "tuple[Frames, Frames]":
        """Return the part of a trajectory that is trained on, and the later one that is not."""
        cut = round((1.0 - test_share) * len(self))
        return self.part(0, cut), self.part(cut, len(self))

    @property
    def gaps_at_once(self) -> int:
        """How many gaps are filled side by side."""
        return max(1, ATOMS_AT_ONCE // len(self.numbers))

    def series(self, most: int = 3) -> list[np.ndarray]:
        """Return positions and as many of their derivatives, up to ``most``, as are known."""
        known = [self.positions_A]
        for more in (self.velocities_A_fs, self.accelerations_A_fs2):
            if more is None:
                break
            known.append(more)
        return known[:most]


@dataclass(frozen=True, eq=False)
class Piece:
    """Frames one after the other, without a gap.

    Attributes
    ----------
    first : int
        Number of its first frame, counted at the new interval from the start of the trajectory.
    positions_A, velocities_A_fs : array, shape (F, N, 3)
        Velocities are None where stored frames have none.
    stored : bool array, shape (F,)
        Which of them were stored.
    begins : bool
        Whether the frame before is missing, or there is none.
    """

    first: int
    positions_A: np.ndarray
    velocities_A_fs: np.ndarray | None
    stored: np.ndarray
    begins: bool


@dataclass(frozen=True, eq=False)
class Gaps:
    """Gaps of one length side by side, each known by the states at its ends.

    Attributes
    ----------
    duration_fs : float
        From the left end to the right.
    left, right : tuple of array, each (G, N, 3)
        Positions, and as many of their derivatives by time as are known: velocities,
        accelerations. Å and fs.
    before, after : tuple of array, each (W - 1, G, N, 3)
        The same of the frames in front of the left end and behind the right one, at the intervals
        of the frames within, for what wants to see more than an end.
    first : array of int, shape (G,), or (0,)
        Numbers of the frames that they begin at, where they are known.
    """

    duration_fs: float
    left: tuple[np.ndarray, ...]
    right: tuple[np.ndarray, ...]
    before: tuple[np.ndarray, ...] = ()
    after: tuple[np.ndarray, ...] = ()
    first: np.ndarray = field(default_factory=lambda: np.zeros(0, int))

    def known(self, count: int, what: str) -> "Gaps":
        """Return them with positions and ``count - 1`` derivatives.

        Raises
        ------
        UserError
            If these are not known; ``what`` needs them.
        """
        if len(self.left) < count:
            missing = ("positions", "velocities", "accelerations (forces)")[count - 1]
            raise UserError(f"{what} needs {missing} of the stored frames, which have none.")
        left, right, before, after = (
            side[:count] for side in (self.left, self.right, self.before, self.after)
        )
        return Gaps(self.duration_fs, left, right, before, after, self.first)

    def turned(self) -> "Gaps":
        """Return them with time turned round: ends change places, velocities their sign."""
        left, right, before, after = (
            tuple(-x if k == 1 else x for k, x in enumerate(side))
            for side in (self.left, self.right, self.before, self.after)
        )
        before, after = (tuple(x[::-1] for x in side) for side in (before, after))
        return Gaps(self.duration_fs, right, left, after, before)

    def part(self, start: int, end: int) -> "Gaps":
        """Return some of them."""
        left, right = (tuple(x[start:end] for x in side) for side in (self.left, self.right))
        before, after = (tuple(x[:, start:end] for x in side) for side in (self.before, self.after))
        return Gaps(self.duration_fs, left, right, before, after, self.first[start:end])

    def __len__(self) -> int:
        return len(self.left[0])

    @property
    def window(self) -> int:
        """Frames that are known at each end, the end included."""
        return 1 + (len(self.before[0]) if self.before else 0)


def gaps(frames: Frames, stride: int, window: int = 1) -> tuple[Gaps, np.ndarray]:
    """Return the gaps between every ``stride``-th frame, and the frames within them.

    The first ends where there are ``window`` frames, and the last where there are as many behind.

    Returns
    -------
    Gaps, array of shape (stride - 1, G, N, 3)
        What is known, and the truth.

    Raises
    ------
    UserError
        If ``stride`` leaves no gap.
    """
    most = len(frames) - 1 - 2 * (window - 1)
    count = most // stride if stride > 1 else 0
    if count < 1:
        raise UserError(
            f"stride={stride}: give 2 to {most}, for {len(frames)} frames and a window of {window}."
        )
    starts = window - 1 + stride * np.arange(count)
    return gaps_from(frames, starts, stride, window)


def gaps_from(
    frames: Frames, starts: np.ndarray, stride: int, window: int = 1
) -> tuple[Gaps, np.ndarray]:
    """Return the gaps that begin at some frames, as `gaps`."""
    known, inside = frames.series(), np.arange(1, stride)[:, None]
    around = np.arange(1 - window, 0)[:, None]
    found = Gaps(
        stride * frames.timestep_fs,
        tuple(a[starts] for a in known),
        tuple(a[starts + stride] for a in known),
        tuple(a[starts + around] for a in known),
        tuple(a[starts + stride - around[::-1]] for a in known),
        starts,
    )
    return found, frames.positions_A[starts + inside]
