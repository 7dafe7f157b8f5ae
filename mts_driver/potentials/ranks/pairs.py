"""Neighbours of this rank's atoms only, from a search among them and what lies around them.

Or these atoms alone, for what looks for pairs itself, on a GPU.
"""

from typing import NamedTuple

import numpy as np

from mts_driver.potentials.ranks.bricks import Bricks, bricks
from mts_driver.potentials.ranks.exchange import Halo, Ranks
from mts_driver.structures.neighbors import Floats, Ints, Pairs, Short, Stored, VerletList, search


class Share(NamedTuple):
    """The atoms that a rank knows of, numbered from 0 on: its own, then those near them, the rest.

    Attributes
    ----------
    atoms : int array, shape (M,)
        Which atoms of the whole they are.
    near, all : Halo
        Of those near this rank's, which come first, and of all.
    """

    atoms: Ints
    near: Halo
    all: Halo

    @property
    def own(self) -> Ints:
        """Of this rank."""
        return self.atoms[: self.all.own_count]


class SharedList:
    """A list of pairs in which each rank has those of its own atoms, by their numbers in `Share`.

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
    near_A : float, optional
        Pairs up to this distance have their atoms among the near ones, Å; by default all have.
    find_pairs : bool
        Otherwise the list is empty, and `Share` has all atoms near the box of this rank's.

    Attributes
    ----------
    share : Share
        Who has which atoms, since the list was built.
    """

    share: Share

    def __init__(
        self,
        ranks: Ranks,
        *,
        cutoff_A: float,
        skin_A: float,
        both: bool,
        near_A: float | None = None,
        find_pairs: bool = True,
    ) -> None:
        self._ranks, self._both, self._find_pairs = ranks, both, find_pairs
        self._near_A = cutoff_A if near_A is None else near_A
        self._verlet = VerletList(cutoff_A=cutoff_A, skin_A=skin_A, find=self._find)
        self._held: Bricks | None = None

    @property
    def builds(self) -> int:
        """How often it was built."""
        return self._verlet.builds

    @property
    def stored(self) -> Stored:
        """All pairs within the cutoff, and some beyond."""
        return self._verlet.last

    def update(self, positions_A: Floats, cell_A: Floats) -> Floats:
        """Build it anew where it must be, for positions (N, 3) of all atoms.

        Returns positions (M, 3) of those of `Share`.
        """
        self._held = None
        self._verlet.stored(positions_A, cell_A)
        return positions_A[self.share.atoms]

    def hold(self, found: Bricks, positions_A: Floats, cell_A: Floats) -> None:
        """Build it with these bricks, which are kept while each rank gives its own atoms only."""
        self._held = found
        self._verlet.build(positions_A, cell_A)

    def update_own(self, positions_A: Floats, cell_A: Floats) -> Floats:
        """Do as `update`, for positions (n, 3) of this rank's atoms; others tell theirs."""
        own = self.share.own
        stale = np.array([not self._verlet.is_valid(positions_A, cell_A, own)], np.float64)
        self._ranks.add_up(stale)
        if stale[0]:
            whole = np.zeros((self._count, 3))
            whole[own] = positions_A
            self._ranks.add_up(whole)
            self._verlet.build(whole, cell_A)
        return self.share.all.gathered(positions_A)

    def within(self, positions_A: Floats, cell_A: Floats) -> Pairs:
        """Pairs within the cutoff, for positions (M, 3) of the atoms of `Share`."""
        return self._verlet.within(positions_A, cell_A)

    def shifts(self, cell_A: Floats) -> Floats:
        """Shifts of images; see `VerletList.shifts`."""
        return self._verlet.shifts(cell_A)

    def _find(
        self, positions_A: Floats, cell_A: Floats, reach_A: float
    ) -> tuple[Short, Short, Short]:
        self._count, rank = len(positions_A), self._ranks.rank
        if self._held is None:
            found = bricks(positions_A, cell_A, self._ranks.size)
        else:
            found = self._held = self._held.follow(positions_A, cell_A)
        owner = np.empty(len(positions_A), np.int32)
        for brick, atoms in enumerate(found.atoms):
            owner[atoms] = brick
        own = found.atoms[rank]
        near_reach_A = self._near_A + reach_A - self._verlet.cutoff_A
        i = j = np.zeros(0, np.int64)
        s = np.zeros((0, 3), np.int32)
        if len(own) and self._find_pairs:
            around = found.within_reach(rank, reach_A)
            first, second, s = search(positions_A[around], cell_A, reach_A)
            i, j = around[first], around[second]
            mine = (owner[i] == rank, owner[j] == rank)
            # of a pair of two ranks one has it, every other time that of its second atom
            kept = mine[0] | mine[1] if self._both else np.where((i + j) % 2, mine[1], mine[0])
            i, j, s = i[kept], j[kept], s[kept]
        if self._find_pairs:
            distances = np.linalg.norm(positions_A[j] + s @ cell_A - positions_A[i], axis=1)
            is_near = distances < near_reach_A
            near = _of_others(owner, rank, i[is_near], j[is_near])
            all_others = _of_others(owner, rank, i, j)
        else:
            near, all_others = (
                np.setdiff1d(found.within_reach(rank, reach), own, assume_unique=True)
                for reach in (near_reach_A, reach_A)
            )
        far = np.setdiff1d(all_others, near, assume_unique=True)
        atoms = np.concatenate((own, near, far))
        near_halo = Halo(self._ranks, own, near, owner)
        all_halo = near_halo
        if self._near_A < self._verlet.cutoff_A:
            all_halo = Halo(self._ranks, own, atoms[len(own) :], owner)
        self.share = Share(atoms, near_halo, all_halo)
        place = np.empty(len(positions_A), np.int32)
        place[atoms] = np.arange(len(atoms))
        return place[i], place[j], s


def _of_others(owner: np.ndarray, rank: int, i: Ints, j: Ints) -> Ints:
    """Atoms of these pairs that other ranks have, in ascending order."""
    marked = np.zeros(len(owner), bool)
    marked[i] = marked[j] = True
    return np.flatnonzero(marked & (owner != rank))
