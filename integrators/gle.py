"""Coloured noise: the generalised Langevin equation, which damps some frequencies and not others.

Velocities v and k extra ones s, which nothing else moves, follow together

    d(v, s) = -A (v, s) dt + sqrt(A + Aᵀ) sqrt(kT / m) dW

which leaves both canonical, and of which every step of the thermostat is the exact solution
(Ceriotti, Bussi and Parrinello, J. Chem. Theory Comput. 2010, 6, 1170). To the atoms it is a
friction that depends on the frequency of their motion. A thermostat that takes hold of the fastest
vibrations alone carries off the heat of a resonance, and adds no friction to diffusion (Morrone,
Markland, Ceriotti and Berne, J. Chem. Phys. 2011, 134, 014103). It adds inertia, though, which
makes all slow motion slower by one known factor (:mod:`integrators.memory`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from integrators.memory import friction, slowdown

_PER_CM_IN_PER_FS = 2.0 * np.pi * 2.99792458e-5
"""Angular frequency, 1/fs, of a wavenumber of 1/cm."""
_FS_PER_PS = 1000.0


@dataclass(frozen=True)
class ColouredNoise:
    """A drift matrix, whose first row and column are those of the velocity.

    Parameters
    ----------
    drift_matrix : nested tuples, k + 1 rows and columns
        A, 1/fs (or one over any other unit of time).

    Raises
    ------
    ValueError
        If A is not square, or nothing that an equilibrium could have: A + Aᵀ has a negative
        eigenvalue, or A one that does not decay.
    """

    drift_matrix: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        a = np.array(self.drift_matrix, float)
        if a.ndim != 2 or a.shape[0] != a.shape[1] or a.size == 0 or not np.isfinite(a).all():
            raise ValueError(
                f"the drift matrix has shape {a.shape}; give a square one of finite numbers"
            )
        tiny = 1e-9 * np.abs(a).max()
        if np.linalg.eigvalsh(a + a.T).min() < -tiny:
            raise ValueError(
                "the drift matrix plus its transpose has a negative eigenvalue: no noise makes "
                "such a bath canonical"
            )
        if np.linalg.eigvals(a).real.min() < -tiny:
            raise ValueError("the drift matrix has an eigenvalue below 0: its motion would grow")

    @classmethod
    def of(cls, drift_matrix: np.ndarray) -> ColouredNoise:
        """Return that of an array, shape (k + 1, k + 1)."""
        return cls(tuple(tuple(map(float, row)) for row in drift_matrix))

    @property
    def extra(self) -> int:
        """Extra velocities of every coordinate, k."""
        return len(self.drift_matrix) - 1

    def draws(self, *, held: bool) -> int:
        """Return how many normal numbers a step needs of every coordinate, that of v first.

        Where distances are ``held``, the last is for what `integrators.constraints` says.
        """
        return self.extra + 1 + held

    def propagator(self, dt: float) -> tuple[np.ndarray, np.ndarray]:
        """Return T = exp(-A dt) and the symmetric root S of 1 - T Tᵀ, both (k + 1, k + 1).

        ``(v, s) <- T (v, s) + S sqrt(kT / m) xi`` is the exact step over ``dt``.
        """
        return _propagator(self.drift_matrix, dt)

    def friction(self, angular_frequency: np.ndarray) -> np.ndarray:
        """Return the friction at angular frequencies (F,), in the units of A."""
        return friction(np.array(self.drift_matrix), angular_frequency)

    @property
    def slowdown(self) -> float:
        """How many times as long slow motion takes as with its mass alone."""
        return slowdown(np.array(self.drift_matrix))


def high_pass(
    *, friction_per_ps: float, high_friction_per_ps: float, cutoff_per_cm: float
) -> ColouredNoise:
    """Return noise whose friction is γ₀ + γ ω⁴ / (ω⁴ + λ⁴): weak for slow motion, strong for fast.

    A = [[γ₀ + γ, √2 c, c], [√2 c, √2 λ, λ], [-c, -λ, 0]] with c² = γλ/√2, in 1/fs: Butterworth's
    filter of second order. One of first order, γ ω² / (ω² + λ²) with one extra velocity, still has
    a tenth of γ at a third of λ, where molecules of water librate, and slows their diffusion.

    Parameters
    ----------
    friction_per_ps : float
        γ₀, of motion that is slow, 1/ps.
    high_friction_per_ps : float
        γ, which comes on top for motion that is fast, 1/ps.
    cutoff_per_cm : float
        λ, where half of it does, 1/cm.

    Raises
    ------
    ValueError
        If a number is negative or not finite, or the cutoff is not positive.
    """
    numbers = (friction_per_ps, high_friction_per_ps, cutoff_per_cm)
    if not (all(np.isfinite(numbers)) and min(numbers) >= 0 and cutoff_per_cm > 0):
        raise ValueError(
            f"friction_per_ps={friction_per_ps}, high_friction_per_ps={high_friction_per_ps}, "
            f"cutoff_per_cm={cutoff_per_cm}: give finite numbers, 0 or above, and a cutoff above 0"
        )
    low, high = friction_per_ps / _FS_PER_PS, high_friction_per_ps / _FS_PER_PS
    cutoff = cutoff_per_cm * _PER_CM_IN_PER_FS
    root = float(np.sqrt(2.0))
    c = float(np.sqrt(high * cutoff / root))
    return ColouredNoise(
        ((low + high, root * c, c), (root * c, root * cutoff, cutoff), (-c, -cutoff, 0.0))
    )


@lru_cache(maxsize=64)  # every step of a run asks for the same
def _propagator(
    drift_matrix: tuple[tuple[float, ...], ...], dt: float
) -> tuple[np.ndarray, np.ndarray]:
    a = np.array(drift_matrix)
    decay = torch.linalg.matrix_exp(torch.from_numpy(-dt * a)).numpy()
    values, vectors = np.linalg.eigh(np.eye(len(a)) - decay @ decay.T)
    spread = (vectors * np.sqrt(values.clip(min=0.0))) @ vectors.T
    decay.flags.writeable = spread.flags.writeable = False
    return decay, spread
