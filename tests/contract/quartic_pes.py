"""A potential for i-PI's <ffdirect>: k/2 x² + q/4 x⁴ for every coordinate, atomic units."""

from ipi.pes.dummy import Dummy_driver

__DRIVER_NAME__ = "quartic"
__DRIVER_CLASS__ = "Quartic"


class Quartic(Dummy_driver):
    """Counts its calls, so that tests can ask how often i-PI evaluated it."""

    def __init__(self, k=0.0, q=0.0, energies=1, virial=1, *args, **kwargs):
        self.k, self.q, self.calls = k, q, 0
        self.energies, self.virial = energies, virial
        super().__init__(*args, **kwargs)

    def compute_structure(self, cell, pos):
        """Energy, forces, virial and extras of one structure."""
        self.calls += 1
        forces = -self.k * pos - self.q * pos**3
        energy = float((0.5 * self.k * pos**2 + 0.25 * self.q * pos**4).sum())
        virial = self.energies * self.virial * pos.T @ forces
        return self.energies * energy, forces, virial, "{}"
