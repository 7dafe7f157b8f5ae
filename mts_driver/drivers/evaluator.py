"""From i-PI's arrays in atomic units to a potential in Å and eV, and back."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from mts_driver.drivers.counters import Stats
from mts_driver.drivers.first_look import FirstLook
from mts_driver.drivers.ipi_socket.protocol import check_natoms
from mts_driver.drivers.limits import check_cells, check_positions
from mts_driver.errors import UserError
from mts_driver.potentials.arrays import ArrayPotential
from mts_driver.units import BOHR_A, HARTREE_EV, HARTREE_PER_BOHR_EV_A

if TYPE_CHECKING:
    from integrators.state import Potential

Results = tuple[np.ndarray, np.ndarray, np.ndarray]
SMALLEST_BOHR3 = 1e-5
"""A cell of less volume is none, but for rounding."""


class Evaluator:
    """Evaluate a potential on structures in atomic units.

    Parameters
    ----------
    potential : Potential
        Takes Å, returns eV.
    natoms : int
        Number of atoms that the potential was built for.
    stats : Stats
        Counts the calls and the time spent in the model.
    periodic : bool, optional
        Whether the atoms are: i-PI and others send a cell with an isolated molecule, too, which is
        then not looked at, and its virial is zero. By default every request's cell decides.

    Attributes
    ----------
    first_look : FirstLook or None
        Sees the next call, and none after it.
    """

    def __init__(
        self, potential: Potential, natoms: int, *, stats: Stats, periodic: bool | None = None
    ) -> None:
        self.periodic = periodic
        self.first_look: FirstLook | None = None
        self.potential = potential
        self.natoms = natoms
        self.stats = stats
        self._checked = b""

    def __call__(self, positions: np.ndarray, cells: np.ndarray) -> Results:
        """Energies (B,), forces (B, N, 3) and virials (B, 3, 3) in atomic units.

        Parameters
        ----------
        positions : ndarray, shape (B, N, 3)
            Bohr.
        cells : ndarray, shape (B, 3, 3)
            Rows are lattice vectors, Bohr.

        Raises
        ------
        UserError
            If the number of atoms is wrong, or positions, cells or results are not finite, or a
            cell is none where the atoms are periodic.
        """
        batch, natoms = positions.shape[:2]
        check_natoms(natoms, self.natoms)
        check_positions(positions)
        if (sent := cells.tobytes()) != self._checked:  # most cells are the last ones
            check_cells(self._cells(cells), natoms)
            self._checked = sent
        if self.periodic is False:
            cells = np.zeros_like(cells)
        look, self.first_look = self.first_look, None
        if look is not None:
            look.check_order(positions[0] * BOHR_A)
        # i-PI fills incomplete batches with copies of the last structure: evaluate it once
        real = batch
        while real > 1 and all(
            np.array_equal(a[real - 1], a[real - 2]) for a in (positions, cells)
        ):
            real -= 1
        start = time.perf_counter()
        results = self._evaluate(positions[:real] * BOHR_A, cells[:real] * BOHR_A)
        self.stats.count(real, time.perf_counter() - start)
        energies, forces, virials = results
        for name, values in (("energy", energies), ("forces", forces), ("virial", virials)):
            if not np.isfinite(values.sum()):
                raise UserError(
                    f"the model {self.stats.model!r} returned a {name} that is not finite at call "
                    f"{self.stats.calls}: atoms overlap or the structure lies outside what the "
                    "model knows. Nothing was sent to the server; restart from the last checkpoint "
                    "with a shorter time step."
                )
        if look is not None:
            look.doubt(positions[0] * BOHR_A, cells[0] * BOHR_A, forces[0])
        if real < batch:
            copies = np.minimum(np.arange(batch), real - 1)
            energies, forces, virials = energies[copies], forces[copies], virials[copies]
        return energies / HARTREE_EV, forces / HARTREE_PER_BOHR_EV_A, virials / HARTREE_EV

    def _cells(self, cells: np.ndarray) -> np.ndarray:
        """Return the cells that the model sees."""
        if self.periodic is False:
            return np.zeros_like(cells)
        if self.periodic and not (np.abs(np.linalg.det(cells)) > SMALLEST_BOHR3).all():
            raise UserError(
                "the server sent a cell without volume, but --structure is periodic: give the "
                "server its cell, or make --structure an isolated molecule (pbc='F F F')."
            )
        return cells

    def _evaluate(self, positions: np.ndarray, cells: np.ndarray) -> Results:
        if isinstance(self.potential, ArrayPotential):
            energies, forces, virials = self.potential.evaluate(positions, cells)
        else:
            energies, forces, virials = through_torch(self.potential, positions, cells)
        return energies, forces, np.zeros_like(virials) if self.periodic is False else virials


def through_torch(potential: Potential, positions: np.ndarray, cells: np.ndarray) -> Results:
    """Evaluate structures in Å by a potential that takes tensors; eV."""
    import torch

    if len(positions) == 1:  # without the batch axis, where potentials are fastest
        positions, cells = positions[0], cells[0]
    # float64 whatever the precision of the model, which knows where it can afford less
    found = potential(torch.from_numpy(positions), torch.from_numpy(cells))
    energies, forces, virials = (
        values.detach().cpu().double().numpy()
        for values in (found.energy, found.forces, found.virial)
    )
    many = positions.reshape(-1, *positions.shape[-2:]).shape
    return np.atleast_1d(energies), forces.reshape(many), virials.reshape(-1, 3, 3)
