"""A potential whose atoms several processes share out: what all such models have in common."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from mts_driver.potentials.arrays import ArrayPotential, Arrays
from mts_driver.potentials.ranks.exchange import Ranks, sum_over_ranks
from mts_driver.potentials.ranks.pairs import SharedList


class Part(NamedTuple):
    """What a rank has of one structure.

    Attributes
    ----------
    energy_eV : float
        Of its atoms and pairs.
    forces_eV_A : array, shape (M, 3)
        Derivative of that, for all atoms that it knows of; see `Share`.
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
    """A model on the CPUs of all ranks, which call it alike and have the same results.

    Parameters
    ----------
    numbers : sequence of int, length N
        Atomic numbers.
    ranks : Ranks
        Who shares.
    offset_eV : float
        Energy that does not depend on where atoms are.
    """

    def __init__(self, numbers: Sequence[int], ranks: Ranks, *, offset_eV: float) -> None:
        self.numbers, self.offset_eV = np.array(numbers, np.int64), offset_eV
        self._ranks = ranks
        self._replicas: list[Replica] = []

    @abstractmethod
    def _replica(self) -> Replica:
        """Make what evaluates one more structure of a batch."""

    def evaluate(self, positions_A: np.ndarray, cells_A: np.ndarray) -> Arrays:
        """Evaluate replica after replica; see `ArrayPotential.evaluate`."""
        while len(self._replicas) < len(positions_A):
            self._replicas.append(self._replica())
        energies, forces = np.zeros(len(positions_A)), np.zeros(positions_A.shape)
        virials = np.zeros((len(positions_A), 3, 3))
        for k, (x, cell) in enumerate(zip(positions_A, cells_A, strict=True)):
            replica = self._replicas[k]
            replica.pairs.update(x, cell)
            atoms = replica.pairs.share.atoms
            energies[k], forces[k, atoms], virials[k] = replica.part(x[atoms], cell)
        energies, forces, virials = sum_over_ranks(self._ranks, energies, forces, virials)
        return energies + self.offset_eV, forces, virials
