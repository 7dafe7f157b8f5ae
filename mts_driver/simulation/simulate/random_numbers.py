"""Velocities and seeds as i-PI draws them, so that one seed gives one trajectory in both."""

import numpy as np

from mts_driver.units import BOLTZMANN_EV_K


class RandomNumbers:
    """What a run draws, in the order of `mts run` with whole outer steps in a driver.

    Parameters
    ----------
    seed : int
        Of the run.
    """

    def __init__(self, seed: int) -> None:
        (sequence,) = np.random.SeedSequence(seed).spawn(1)
        self._generator = np.random.Generator(np.random.MT19937(sequence))

    def velocities(self, masses: np.ndarray, temperature_K: float) -> np.ndarray:
        """Draw Maxwell-Boltzmann velocities (N, 3), Å/fs, for masses (N,) in eV fs²/Å².

        Atoms of infinite mass are at rest.
        """
        normal = self._generator.standard_normal((len(masses), 3))
        spread = np.sqrt(BOLTZMANN_EV_K * temperature_K / masses)
        velocities: np.ndarray = spread[:, None] * normal
        return velocities

    def extra_momenta(self, extra: int, natoms: int, kT: float) -> np.ndarray:
        """Draw those of coloured noise at equilibrium, over √m, shape (extra, N, 3).

        i-PI draws the momenta themselves with them, and leaves these alone.
        """
        normal = self._generator.standard_normal((extra + 1, 3 * natoms))[1:]
        momenta: np.ndarray = np.sqrt(kT) * normal.reshape(extra, natoms, 3)
        return momenta

    def normal(self, shape: tuple[int, ...]) -> np.ndarray:
        """Draw standard normal numbers."""
        return self._generator.standard_normal(shape)

    def skip(self, steps: int) -> None:
        """Pass over the seeds of steps that have been taken."""
        self._generator.uniform(size=steps)

    def seed(self) -> int:
        """Draw the seed of an outer step's noise."""
        return int(self._generator.uniform() * 2**53)
