"""Energies, forces and virials of the whole, from what every rank has of them."""

import numpy as np

from mts_driver.potentials.ranks.exchange import Ints, Ranks


class Total:
    """What this rank adds to each replica, in one array, so that ranks add up once.

    Parameters
    ----------
    ranks : Ranks
        Who shares.
    replicas, atoms : int
        R and N.
    """

    def __init__(self, ranks: Ranks, *, replicas: int, atoms: int) -> None:
        self._ranks = ranks
        self._all = np.zeros((replicas, 10 + 3 * atoms))

    def add(
        self,
        replica: int,
        energy_eV: float,
        atoms: Ints,
        forces_eV_A: np.ndarray,
        virial_eV: np.ndarray,
    ) -> None:
        """Add an energy, forces (M, 3) on some of the atoms, each once, and a virial (3, 3)."""
        row = self._all[replica]
        row[0] += energy_eV
        row[1:10] += virial_eV.ravel()
        row[10:].reshape(-1, 3)[atoms] += forces_eV_A

    def over_all_ranks(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Energies (R,) eV, forces (R, N, 3) eV/Å and virials (R, 3, 3) eV; by all ranks."""
        self._ranks.add_up(self._all)
        replicas = len(self._all)
        energies, virials, forces = np.split(self._all, (1, 10), axis=1)
        return energies[:, 0], forces.reshape(replicas, -1, 3), virials.reshape(replicas, 3, 3)
