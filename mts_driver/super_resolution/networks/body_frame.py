"""Where a molecule is and how it is turned, so that networks need not learn either."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class BodyFrames:
    """Axes that move with the centre of mass of a molecule, one set a gap.

    Attributes
    ----------
    origin, velocity : array, shape (G, 1, 3)
        Of the centre of mass at the end where time is 0, Å and Å/fs.
    turn : array, shape (G, 3, 3)
        Rotation that brings the molecule there onto the reference, by ``x @ turn``.
    """

    origin: np.ndarray
    velocity: np.ndarray
    turn: np.ndarray

    @classmethod
    def of(
        cls, x: np.ndarray, v: np.ndarray, masses: np.ndarray, reference: np.ndarray
    ) -> "BodyFrames":
        """Return those of positions and velocities (G, N, 3).

        The rotation is Kabsch's (Acta Cryst. 1976, A32, 922), atoms weighted by their masses;
        ``reference`` (N, 3) has its centre of mass at the origin.
        """
        share = (masses / masses.sum())[:, None]
        origin, velocity = ((share * a).sum(-2, keepdims=True) for a in (x, v))
        left, _, right = np.linalg.svd((share * (x - origin)).swapaxes(-2, -1) @ reference)
        # no reflection: the axis that matters least is turned round instead
        left[..., 2] *= np.sign(np.linalg.det(left @ right))[:, None]
        return cls(origin, velocity, left @ right)

    def inwards(
        self, x: np.ndarray, v: np.ndarray, times_fs: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Turn positions and velocities (T, G, N, 3) at some times into these axes."""
        t = times_fs[:, None, None, None]
        return (x - self.origin - t * self.velocity) @ self.turn, (v - self.velocity) @ self.turn

    def places(self, times_fs: np.ndarray) -> np.ndarray:
        """Return the centre of mass (T, G, 1, 3) at some times, moving evenly."""
        found: np.ndarray = self.origin + times_fs[:, None, None, None] * self.velocity
        return found
