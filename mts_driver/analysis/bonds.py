"""Lengths of the bonds to hydrogen: where a bad student shows first."""

from dataclasses import dataclass

import numpy as np
from ase.geometry import find_mic

from mts_driver.analysis.statistics import BlockAverage, block_average
from mts_driver.analysis.trajectory import Trajectory
from mts_driver.structures.masses import hydrogen_bonds_to_heavy

BROKEN_A = 1.6
"""Å; far beyond thermal stretching, and where students without stretched-bond data fail."""


@dataclass(frozen=True)
class BondLengths:
    """X–H bond lengths of a run.

    Attributes
    ----------
    lengths : array, shape (F, B)
        Å, after the equilibration.
    mean : BlockAverage
        Of the frames' means, Å.
    std, min, max : float
        Over all bonds and frames, Å; the last two, like ``broken``, with the equilibration.
    broken : int
        Bonds that are longer than 1.6 Å in any frame.
    """

    lengths: np.ndarray
    mean: BlockAverage
    std: float
    min: float
    max: float
    broken: int


def bond_lengths(trajectory: Trajectory, *, equilibrated: np.ndarray) -> BondLengths | None:
    """Follow the bonds of the first frame through a run.

    Parameters
    ----------
    trajectory : Trajectory
        The whole run; its first frame tells which heavy atom each hydrogen belongs to.
    equilibrated : array of bool, shape (F,)
        The frames that averages are taken over, at least one.

    Returns
    -------
    BondLengths or None
        None if there is no hydrogen.

    Raises
    ------
    UserError
        If a hydrogen of the first frame has no heavy atom within 1.9 Å.
    """
    if not (trajectory.symbols == "H").any():
        return None
    hydrogen, heavy = hydrogen_bonds_to_heavy(trajectory.first()).T
    lengths = np.array(
        [
            find_mic(x[hydrogen] - x[heavy], cell, pbc=True)[1]
            for x, cell in zip(trajectory.positions, trajectory.cells, strict=True)
        ]
    )
    kept = lengths[equilibrated]
    return BondLengths(
        lengths=kept,
        mean=block_average(kept.mean(axis=1)),
        std=float(kept.std()),
        min=float(lengths.min()),
        max=float(lengths.max()),
        broken=int((lengths > BROKEN_A).any(axis=0).sum()),
    )
