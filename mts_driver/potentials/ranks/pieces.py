"""What one process evaluates of a structure, for models that give energies of atoms.

A piece is a brick of atoms and all that are within a reach of it, in the cell of the whole: the
atoms that are missing are too far away to matter, and periodic images are the model's own affair.

An atomic energy depends on the atoms within the receptive field R of a model, so that with a reach
of R the energies of a brick are those of the whole, and so is the gradient of their sum, which adds
up over bricks to the forces. Forces that can only be had of a whole piece need a reach of 2R: the
force on an atom of the brick comes from energies within R, which know atoms within 2R.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from mts_driver.errors import UserError
from mts_driver.potentials.ranks.bricks import Ints, bricks
from mts_driver.potentials.ranks.exchange import Ranks
from mts_driver.structures.neighbors import Floats, Short, VerletList

SKIN_A = 1.0
"""How much further a piece reaches, so that it stays for some steps."""


class Piece(NamedTuple):
    """Atoms that one process evaluates.

    Attributes
    ----------
    atoms : int array, shape (M,)
        Their numbers in the whole, ascending.
    own : int array, shape (m,)
        Which of them, from 0 to M − 1, are the brick.
    """

    atoms: Ints
    own: Ints


class Pieces:
    """The piece of this rank, cut anew when an atom has moved half a skin.

    All ranks call it with the same positions, and so agree on who has which atoms.

    Parameters
    ----------
    ranks : Ranks
        Who shares.
    reach_A : float
        How far from a brick atoms matter, Å.
    """

    def __init__(self, ranks: Ranks, *, reach_A: float) -> None:
        self._ranks = ranks
        # knows when an atom from beyond the skin can have come within the reach
        self._verlet = VerletList(cutoff_A=reach_A, skin_A=SKIN_A, find=self._cut)

    def of(self, positions_A: Floats, cell_A: Floats) -> Piece:
        """Return the piece of atoms (N, 3) in a cell (3, 3; zeros: isolated), or the last one."""
        self._verlet.stored(positions_A, cell_A)
        return self._piece

    def _cut(
        self, positions_A: Floats, cell_A: Floats, reach_A: float
    ) -> tuple[Short, Short, Short]:
        found = bricks(positions_A, cell_A, self._ranks.size)
        atoms = found.within_reach(self._ranks.rank, reach_A)
        own = np.searchsorted(atoms, found.atoms[self._ranks.rank])
        self._piece = Piece(atoms, own)
        none = np.zeros(0, np.int32)
        return none, none, np.zeros((0, 3), np.int32)


def require_reach(name: str, reach_A: float, *, per_atom: bool) -> None:
    """Refuse models that cannot be taken apart.

    Raises
    ------
    UserError
        If a model has no energies of atoms, or these depend on atoms at any distance.
    """
    if not per_atom:
        raise UserError(
            f"potential {name!r} gives no energies of atoms, only their sum, and cannot be shared "
            "out among ranks: run it in one process."
        )
    if not (math.isfinite(reach_A) and reach_A >= 0):
        raise UserError(
            f"potential {name!r} reaches {reach_A:g} Å, and cannot be shared out among ranks: run "
            "it in one process."
        )
