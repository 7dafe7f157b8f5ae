"""What coloured noise is to motion of a frequency: friction, and for slow motion inertia.

A drift matrix A acts on velocities through the memory K(t) of its extra ones,

    m dv/dt = F - m ∫ K(t') v(t - t') dt',   K̂(z) = a_vv - a_vs (a_ss + z)⁻¹ a_sv.

Its real part at z = iω is the friction of motion at ω. To motion that is slow beside the memory
K̂ is a friction and an inertia, K̂ = γ + i z: the mass is heavier by a share i, and everything
slow takes √(1 + i) times as long. Averages do not depend on masses, diffusion does.
"""

import numpy as np


def friction(drift_matrix: np.ndarray, angular_frequency: np.ndarray) -> np.ndarray:
    """Return the friction at angular frequencies (F,), in the units of A (k + 1, k + 1)."""
    a, at = np.asarray(drift_matrix, float), np.asarray(angular_frequency, float)
    extra = len(a) - 1
    inner = a[1:, 1:] + 1j * at[:, None, None] * np.eye(extra)
    seen = np.linalg.solve(inner, np.broadcast_to(a[1:, :1], (len(at), extra, 1)))
    found: np.ndarray = a[0, 0] - (a[:1, 1:] @ seen)[:, 0, 0].real
    return found


def inertia(drift_matrix: np.ndarray) -> float:
    """Return the share i by which slow motion is heavier, a_vs a_ss⁻² a_sv; A in any unit.

    For the high-pass noise of `integrators.gle.high_pass` it is γ / √2 λ.

    Raises
    ------
    ValueError
        If the memory of A does not end.
    """
    a = np.asarray(drift_matrix, float)
    try:
        inverse = np.linalg.inv(a[1:, 1:])
    except np.linalg.LinAlgError as error:
        raise ValueError("the memory of this noise does not end") from error
    return float(a[0, 1:] @ inverse @ inverse @ a[1:, 0])


def slowdown(drift_matrix: np.ndarray) -> float:
    """Return how many times as long slow motion takes, √(1 + i)."""
    return float(np.sqrt(1.0 + inertia(drift_matrix)))
