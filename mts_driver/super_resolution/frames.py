"""Stored frames, and the gaps between some of them."""

from dataclasses import dataclass

import numpy as np

from mts_driver.errors import UserError


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
    """

    numbers: np.ndarray
    timestep_fs: float
    positions_A: np.ndarray
    velocities_A_fs: np.ndarray | None = None
    accelerations_A_fs2: np.ndarray | None = None

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
    """

    duration_fs: float
    left: tuple[np.ndarray, ...]
    right: tuple[np.ndarray, ...]

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
        return Gaps(self.duration_fs, self.left[:count], self.right[:count])


def gaps(frames: Frames, stride: int) -> tuple[Gaps, np.ndarray]:
    """Return the gaps between every ``stride``-th frame, and the frames within them.

    Frames behind the last that is a multiple of ``stride`` are left out.

    Returns
    -------
    Gaps, array of shape (stride - 1, G, N, 3)
        What is known, and the truth.

    Raises
    ------
    UserError
        If ``stride`` leaves no gap.
    """
    count = (len(frames) - 1) // stride if stride > 1 else 0
    if count < 1:
        raise UserError(f"stride={stride}: give 2 to {len(frames) - 1}, for {len(frames)} frames.")
    series = [frames.positions_A]
    if frames.velocities_A_fs is not None:
        series.append(frames.velocities_A_fs)
        if frames.accelerations_A_fs2 is not None:
            series.append(frames.accelerations_A_fs2)
    ends = [one[: count * stride + 1 : stride] for one in series]
    inside = frames.positions_A[: count * stride].reshape(count, stride, *ends[0].shape[1:])
    found = Gaps(
        stride * frames.timestep_fs,
        tuple(one[:-1] for one in ends),
        tuple(one[1:] for one in ends),
    )
    return found, inside[:, 1:].swapaxes(0, 1)
