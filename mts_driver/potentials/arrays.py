"""Potentials that take and give numpy arrays at their core, and tensors where a caller has them.

A driver hands on what came through a socket: a tensor on the way would cost each call a copy, and
each driver of a model without torch the seconds in which torch loads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np

from mts_driver.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from integrators.state import Evaluation

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]


def require_atoms(potential: object, positions: Tensor) -> None:
    """Refuse positions (..., N, 3) of another number of atoms than a potential is bound to.

    Raises
    ------
    UserError
        Before kernels would read beyond arrays.
    """
    numbers = getattr(potential, "numbers", None)
    if numbers is not None and positions.shape[-2:] != (len(numbers), 3):
        raise UserError(
            f"positions have shape {tuple(positions.shape)}, but the model is bound to "
            f"{len(numbers)} atoms: load one for these atoms."
        )


class ArrayPotential(ABC):
    """A `integrators.state.Potential` that is made of one method on arrays."""

    @abstractmethod
    def evaluate(self, positions_A: np.ndarray, cells_A: np.ndarray) -> Arrays:
        """Energies (R,) eV, forces (R, N, 3) eV/Å and virials (R, 3, 3) eV of all replicas.

        Parameters
        ----------
        positions_A : ndarray, shape (R, N, 3)
            Å.
        cells_A : ndarray, shape (R, 3, 3)
            Rows are lattice vectors, Å; zeros for an isolated system.
        """

    def __call__(self, positions: Tensor, cell: Tensor) -> Evaluation:
        """Evaluate every replica; shapes and units as in `integrators.state.Potential`."""
        import torch

        from integrators.state import Evaluation

        require_atoms(self, positions)
        shape = positions.shape[:-2]
        x = positions.detach().double().cpu().numpy().reshape(-1, *positions.shape[-2:])
        cells = cell.detach().double().cpu().expand(*shape, 3, 3).reshape(-1, 3, 3).numpy()
        energies, forces, virials = self.evaluate(x, cells)
        return Evaluation(
            # of whole systems: they need float64 even where the forces do not
            torch.from_numpy(energies).double().reshape(shape).to(positions.device),
            torch.from_numpy(forces).reshape(positions.shape).to(positions),
            torch.from_numpy(virials).reshape(*shape, 3, 3).to(positions),
        )
