"""The state of a simulation and the interface that a potential offers to the integrators.

Units are any consistent set; ``mts_driver`` uses Å, fs and eV, so masses are in eV fs²/Å².
"""

from typing import NamedTuple, Protocol

from torch import Tensor


class Evaluation(NamedTuple):
    """What a potential returns for a batch of replicas.

    Attributes
    ----------
    energy : Tensor, shape (...,)
        Potential energy, eV.
    forces : Tensor, shape (..., N, 3)
        Minus the gradient of the energy, eV/Å.
    virial : Tensor, shape (..., 3, 3)
        Minus the derivative of the energy with respect to strain, eV (i-PI's sign).
    """

    energy: Tensor
    forces: Tensor
    virial: Tensor


class Potential(Protocol):
    """A model bound to one set of atoms: ``potential(positions, cell) -> Evaluation``.

    ``positions`` has shape (..., N, 3); ``cell`` has shape (3, 3) or (..., 3, 3), rows are lattice
    vectors, and all zeros mean an isolated system. Inputs are never modified.
    """

    def __call__(self, positions: Tensor, cell: Tensor) -> Evaluation:
        """Energies, forces and virials of every replica."""
        ...
