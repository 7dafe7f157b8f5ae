"""Algorithm 1 of Cattin et al., arXiv:2510.06562, written out literally in numpy."""

import numpy as np


def algorithm1(x, v, m, large, small, *, dt, n, gamma, kT, steps, noise):
    """Positions and velocities after ``steps`` outer steps; ``noise`` yields arrays like v."""
    m = m[:, None]
    decay = np.exp(-gamma * dt / n)
    f_large, f_small = large(x), small(x)
    for _ in range(steps):
        v = v + dt / (2 * m) * (f_large - f_small)
        for _ in range(n):
            v = v + dt / (2 * m * n) * f_small
            x = x + dt / (2 * n) * v
            v = decay * v + np.sqrt(kT / m * (1 - decay**2)) * next(noise)
            x = x + dt / (2 * n) * v
            f_small = small(x)
            v = v + dt / (2 * m * n) * f_small
        f_large = large(x)
        v = v + dt / (2 * m) * (f_large - f_small)
    return x, v
