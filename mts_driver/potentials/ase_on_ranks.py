"""An ASE calculator with energies of atoms, whose atoms are shared out among ranks."""

from collections.abc import Sequence

import numpy as np
from ase import Atoms

from mts_driver.potentials.arrays import Arrays
from mts_driver.potentials.ase import AsePotential, make_calculator
from mts_driver.potentials.ranks.exchange import Ranks, sum_over_ranks
from mts_driver.potentials.ranks.pieces import Pieces, require_reach


class AseOnRanks(AsePotential):
    """A calculator that every rank asks about its own piece of a structure.

    Parameters
    ----------
    spec : str
        ``MODULE:CALLABLE?key=value&receptive_field_A=R``, where atoms beyond R Å are of no matter
        to an atomic energy: the cutoff, or that of a layer times the layers that pass messages.
    numbers : sequence of int, length N
        Atomic numbers.
    ranks : Ranks
        Processes that evaluate each structure together.

    Raises
    ------
    UserError
        As `make_calculator` does, or if there are no energies of atoms, or R is not given.

    Notes
    -----
    A rank asks about its atoms and all within 2R of them, and keeps energies and forces of its own:
    ASE cannot be asked for the gradient of some energies only, for which R would do. Nothing tells
    a stress of the whole from those of overlapping pieces, so that the virial is zero and constant
    pressure is refused.
    """

    def __init__(self, spec: str, numbers: Sequence[int], *, ranks: Ranks) -> None:
        calculator, reach_A = make_calculator(spec)
        super().__init__(calculator, numbers, name=f"ase:{spec}")
        offered = getattr(calculator, "implemented_properties", [])
        require_reach(self.name, reach_A or np.inf, per_atom="energies" in offered)
        assert reach_A is not None
        self.has_virial = False
        self._reach_A, self._ranks = 2.0 * reach_A, ranks
        self._pieces: list[Pieces] = []

    def evaluate(self, positions_A: np.ndarray, cells_A: np.ndarray) -> Arrays:
        """Evaluate replicas one after the other; see `ArrayPotential.evaluate`.

        Raises
        ------
        UserError
            If the calculator fails.
        """
        while len(self._pieces) < len(positions_A):
            self._pieces.append(Pieces(self._ranks, reach_A=self._reach_A))
        energies, forces = np.zeros(len(positions_A)), np.zeros(positions_A.shape)
        for r, (x, cell) in enumerate(zip(positions_A, cells_A, strict=True)):
            energies[r], forces[r] = self._own(self._pieces[r], x, cell)
        energies, forces = sum_over_ranks(self._ranks, energies, forces)
        return energies, forces, np.zeros((len(positions_A), 3, 3))

    def _own(self, pieces: Pieces, x: np.ndarray, cell: np.ndarray) -> tuple[float, np.ndarray]:
        """Energy and forces of this rank's atoms, and zeros elsewhere."""
        piece, forces = pieces.of(x, cell), np.zeros(x.shape)
        if not len(piece.own):  # there are more ranks than atoms
            return 0.0, forces
        atoms = Atoms(self.numbers[piece.atoms], x[piece.atoms], cell=cell, pbc=bool(cell.any()))
        energies, found = self._ask(atoms, Atoms.get_potential_energies)
        forces[piece.atoms[piece.own]] = found[piece.own]
        return float(np.asarray(energies)[piece.own].sum()), forces
