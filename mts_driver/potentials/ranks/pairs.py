"""Neighbours of this rank's atoms only, from a search among them and what lies around them."""

import numpy as np

from mts_driver.potentials.ranks.bricks import bricks
from mts_driver.potentials.ranks.exchange import Ranks, Share
from mts_driver.structures.neighbors import Floats, Short, VerletList, search


class SharedList:
    """A list of pairs in which each rank has those of its own atoms.

    All ranks call it with the same positions, and so agree when it is built anew and atoms are
    shared out anew.

    Parameters
    ----------
    ranks : Ranks
        Who shares.
    cutoff_A, skin_A : float
        As `VerletList` takes them, Å.
    both : bool
        Whether a pair of atoms of two ranks is in the list of both; otherwise it is in one of them.

    Attributes
    ----------
    verlet : VerletList
        Pairs of this rank, with the numbers of atoms that the whole has.
    share : Share
        Who has which atoms, since the list was built.
    """

    share: Share

    def __init__(self, ranks: Ranks, *, cutoff_A: float, skin_A: float, both: bool) -> None:
        self._ranks, self._both = ranks, both
        self.verlet = VerletList(cutoff_A=cutoff_A, skin_A=skin_A, find=self._find)

    def _find(
        self, positions_A: Floats, cell_A: Floats, reach_A: float
    ) -> tuple[Short, Short, Short]:
        found = bricks(positions_A, cell_A, self._ranks.size)
        counts = tuple(len(atoms) for atoms in found.atoms)
        self.share = Share(self._ranks, np.concatenate(found.atoms), counts)
        owner = np.empty(len(positions_A), np.int64)
        for brick, atoms in enumerate(found.atoms):
            owner[atoms] = brick
        if not counts[self._ranks.rank]:
            none = np.zeros(0, np.int32)
            return none, none, np.zeros((0, 3), np.int32)
        near = found.within_reach(self._ranks.rank, reach_A)
        i, j, s = search(positions_A[near], cell_A, reach_A)
        # ascending, so that i ≤ j still
        i, j = near[i].astype(np.int32), near[j].astype(np.int32)
        mine = (owner[i] == self._ranks.rank, owner[j] == self._ranks.rank)
        # of a pair of two ranks one has it, every other time that of its second atom
        kept = mine[0] | mine[1] if self._both else np.where((i + j) % 2, mine[1], mine[0])
        return i[kept], j[kept], s[kept]
