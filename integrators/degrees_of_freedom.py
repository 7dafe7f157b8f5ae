"""How many degrees of freedom there are to the kinetic energy of atoms, and of groups of them.

Held atoms have none. Where the centre of mass is kept still, momenta are canonical on what is left,
and every atom loses its share of the three that go::

    <m_i v_i²> = kT (3 - 3 m_i / M)

In HCl that leaves 0.08 to chlorine and 2.92 to hydrogen, whose temperatures are then one number. A
single atom has none left, and no temperature.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

FEWEST = 1e-6
"""Fewer are a rounding error: the heaviest atom beside one hydrogen has 0.01."""
_X = 32.0
"""e⁻³² of all readings, 10⁻¹⁴, is never in a run."""


def of_atoms(
    masses: np.ndarray, moves: np.ndarray, *, beads: int = 1, fixcom: bool = False
) -> np.ndarray:
    """Return the degrees of freedom of every atom, of all its beads, shape (N,).

    Parameters
    ----------
    masses : array, shape (N,)
        Any unit.
    moves : bool array, shape (N,) or (N, 3)
        Atoms or coordinates that are not held.
    beads : int
        Of ring polymers; of them only the centroid can lose its centre of mass.
    fixcom : bool
        Whether the centre of mass is kept still. It cannot be beside atoms that are held, and i-PI
        then leaves it alone.
    """
    free = moves.sum(axis=1) if moves.ndim == 2 else 3 * moves
    lost = 3.0 * masses / masses.sum() if fixcom and moves.all() else 0.0
    return beads * free.astype(float) - lost


def of_groups(groups: Mapping[str, np.ndarray], of_atoms: np.ndarray) -> dict[str, float]:
    """Return the degrees of freedom of groups, bool (N,); those without any are left out."""
    found = {name: float(of_atoms[group].sum()) for name, group in groups.items()}
    return {name: count for name, count in found.items() if count > FEWEST}


def hottest_by_chance(degrees_of_freedom: float) -> float:
    """Return the ratio to its mean that a canonical kinetic energy never exceeds.

    For a χ² distribution of k degrees of freedom P(χ² > k + 2 √(kx) + 2x) < e⁻ˣ (Laurent and
    Massart, Ann. Stat. 2000, 28, 1302): few atoms are far hotter than the mean at times.
    """
    share = _X / degrees_of_freedom
    return 1.0 + 2.0 * math.sqrt(share) + 2.0 * share
