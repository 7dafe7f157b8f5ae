"""A potential whose atoms several processes share out: what all such models have in common."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from mts_driver.potentials.arrays import ArrayPotential, Arrays
from mts_driver.potentials.ranks.bricks import bricks
from mts_driver.potentials.ranks.exchange import Ints, Ranks, sum_over_ranks
from mts_driver.potentials.ranks.pairs import SharedList


class Part(NamedTuple):
    """What a rank has of one structure.

    Attributes
    ----------
    energy_eV : float
        Of its atoms and pairs.
    forces_eV_A : array, shape (M, 3) or (n, 3)
        Derivative of that, for all atoms that it knows of; see `Share`. Or all of the forces on its
        own n atoms, where `SharedPotential.parts_are_whole`.
    virial_eV : array, shape (3, 3)
        The same for strain.
    """

    energy_eV: float
    forces_eV_A: np.ndarray
    virial_eV: np.ndarray


class Replica(Protocol):
    """One structure on one rank."""

    pairs: SharedList

    def part(self, positions_A: np.ndarray, cell_A: np.ndarray) -> Part:
        """Evaluate this rank's part, for positions (M, 3) of the atoms that it knows of."""


class SharedPotential(ArrayPotential):
    """A model on CPUs or GPUs of all ranks, which call it alike and have the same results.

    Parameters
    ----------
    numbers : sequence of int, length N
        Atomic numbers.
    ranks : Ranks
        Who shares.
    offset_eV : float
        Energy that does not depend on where atoms are.
    """

    has_virial = True
    """Whether forces come from an energy; of direct ones the mean over atoms is taken off."""
    parts_are_whole = False
    """Whether a rank works out all of the forces on its atoms, and others have none of them."""

    def __init__(self, numbers: Sequence[int], ranks: Ranks, *, offset_eV: float) -> None:
        self.numbers, self.offset_eV = np.array(numbers, np.int64), offset_eV
        self._ranks = ranks
        self._replicas: list[Replica] = []

    @abstractmethod
    def _replica(self) -> Replica:
        """Make what evaluates one more structure of a batch."""

    def evaluate(self, positions_A: np.ndarray, cells_A: np.ndarray) -> Arrays:
        """Evaluate replica after replica; see `ArrayPotential.evaluate`."""
        self._have(len(positions_A))
        energies, forces = np.zeros(len(positions_A)), np.zeros(positions_A.shape)
        virials = np.zeros((len(positions_A), 3, 3))
        for k, (x, cell) in enumerate(zip(positions_A, cells_A, strict=True)):
            pairs = self._replicas[k].pairs
            here = pairs.update(x, cell)
            found = self._replicas[k].part(here, cell)
            energies[k], forces[k, pairs.share.atoms[: len(found.forces_eV_A)]], virials[k] = found
        energies, forces, virials = sum_over_ranks(self._ranks, energies, forces, virials)
        if not self.has_virial:
            forces = forces - forces.mean(1, keepdims=True)
        return energies + self.offset_eV, forces, virials

    def share_out(
        self, positions_A: np.ndarray, cells_A: np.ndarray, leads: Ints | None = None
    ) -> Ints:
        """Give each rank atoms to keep, as they lie in the first replica; return this rank's.

        Those with the same one of ``leads`` (N,) stay together.
        """
        self._have(len(positions_A))
        found = bricks(positions_A[0], cells_A[0], self._ranks.size, leads)
        for replica, x, cell in zip(self._replicas, positions_A, cells_A, strict=False):
            replica.pairs.hold(found, x, cell)
        return found.atoms[self._ranks.rank]

    def evaluate_own(self, positions_A: np.ndarray, cells_A: np.ndarray) -> Arrays:
        """Evaluate replicas of which each rank gives the atoms that it keeps.

        Parameters
        ----------
        positions_A : array, shape (R, n, 3)
            Of this rank's atoms, Å.
        cells_A : array, shape (R, 3, 3)
            Å.

        Returns
        -------
        energies, forces, virials
            Forces (R, n, 3) on this rank's atoms; of energies (R,) and virials (R, 3, 3) what adds
            up to those of the whole over all ranks.
        """
        energies, forces = np.zeros(len(positions_A)), np.zeros(positions_A.shape)
        virials = np.zeros((len(positions_A), 3, 3))
        for k, (x, cell) in enumerate(zip(positions_A, cells_A, strict=True)):
            pairs = self._replicas[k].pairs
            here = pairs.update_own(x, cell)
            energies[k], found, virials[k] = self._replicas[k].part(here, cell)
            forces[k] = found if self.parts_are_whole else pairs.share.all.scattered_sum(found)
        if not self.has_virial:
            forces -= self._mean(forces)
        return energies + (self.offset_eV if not self._ranks.rank else 0.0), forces, virials

    def _mean(self, forces: np.ndarray) -> np.ndarray:
        """Mean over the atoms of all ranks, shape (R, 1, 3)."""
        total = forces.sum(1, keepdims=True)
        self._ranks.add_up(total)
        return total / len(self.numbers)

    def _have(self, replicas: int) -> None:
        while len(self._replicas) < replicas:
            self._replicas.append(self._replica())
