"""Hydrogen mass repartitioning: pure mass logic, given the bonds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# a methyl carbon with three hydrogens of 4 Da keeps 3.0 Da and is fine; methane's would vanish
_LIGHTEST_HEAVY_ATOM = 1.0


def repartition_hydrogen_mass(
    numbers: NDArray[np.integer],
    masses: NDArray[np.floating],
    bonds: Sequence[tuple[int, int]] | NDArray[np.integer],
    *,
    hydrogen_mass: float = 4.0,
) -> NDArray[np.float64]:
    """Move mass from heavy atoms to the hydrogens bonded to them.

    Each hydrogen gets ``hydrogen_mass`` and its heavy neighbour loses what it gains, so that the
    total mass and all configurational averages stay as they are (Hopkins et al., JCTC 2015, 11,
    1864) while X-H vibrations slow down.

    Parameters
    ----------
    numbers : array of int, shape (N,)
        Atomic numbers; hydrogen is known by 1, deuterium included.
    masses : array, shape (N,)
        Masses, Da.
    bonds : pairs of int, shape (M, 2)
        Atom indices, each bond once in either order. Those without a hydrogen are ignored.
    hydrogen_mass : float
        New mass of each hydrogen, Da.

    Returns
    -------
    array, shape (N,)
        New masses, Da.

    Raises
    ------
    ValueError
        If a hydrogen is bonded to no heavy atom or to several, if ``hydrogen_mass`` is below the
        present mass of a hydrogen, or if a heavy atom would be left with less than 1 Da.
    """
    numbers = np.asarray(numbers)
    new = np.array(masses, dtype=np.float64)
    if numbers.shape != new.shape or new.ndim != 1:
        raise ValueError(f"numbers have shape {numbers.shape}, masses {new.shape}; need (N,) both")
    hydrogens = np.flatnonzero(numbers == 1)
    pairs = np.asarray(bonds, dtype=np.int64).reshape(-1, 2)
    if pairs.size and (pairs.min() < 0 or pairs.max() >= len(numbers)):
        raise ValueError(f"bonds name an atom outside 0..{len(numbers) - 1}")
    owners: dict[int, list[int]] = {int(h): [] for h in hydrogens}
    for i, j in pairs.tolist():
        for h, heavy in ((i, j), (j, i)):
            if h in owners and heavy not in owners:
                owners[h].append(heavy)
    for h, heavy_atoms in owners.items():
        if len(set(heavy_atoms)) != 1:
            raise ValueError(
                f"hydrogen {h} is bonded to {len(set(heavy_atoms))} heavy atoms; repartitioning "
                "needs exactly one. Check the structure, or run without repartitioning"
            )
        if hydrogen_mass < new[h]:
            raise ValueError(
                f"hydrogen_mass is {hydrogen_mass:g} Da, atom {h} has {new[h]:g} Da already; "
                "repartitioning makes hydrogens heavier"
            )
        new[heavy_atoms[0]] -= hydrogen_mass - new[h]
        new[h] = hydrogen_mass
    for heavy in sorted({heavy_atoms[0] for heavy_atoms in owners.values()}):
        if new[heavy] < _LIGHTEST_HEAVY_ATOM:
            raise ValueError(
                f"hydrogen_mass {hydrogen_mass:g} Da would leave heavy atom {heavy} with "
                f"{new[heavy]:.3g} Da, less than a hydrogen; choose a smaller one"
            )
    return new
