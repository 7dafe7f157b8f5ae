"""Pairs within a cutoff, of all replicas at once, from lists that are kept while they hold."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mts_driver.errors import UserError
from mts_driver.potentials.classical.terms import kernels
from mts_driver.potentials.classical.terms.coordinates import Distances, Graphed
from mts_driver.structures.neighbors import Floats, Ints, Short, VerletList, heights, search

SKIN_A = 1.0
COINCIDE_A = 1e-6
"""Closer atoms have no direction from one to the other."""


class NearPairs:
    """All pairs of some atoms that are closer than a cutoff, with a switch that is smooth there.

    Parameters
    ----------
    atoms : int
        N, in a replica.
    cutoff_A, switch_A : float
        Where pairs end, and from where on they are switched off: energies are multiplied by
        1 − 10 t³ + 15 t⁴ − 6 t⁵ (t from 0 to 1), which has two continuous derivatives. The same
        number twice: not at all, for functions that vanish smoothly by themselves.
    members : sequence of int, optional
        The atoms that have such pairs; all if left out.
    excluded : array of int, shape (X, 2)
        Pairs of atoms that are left out, in their nearest images.
    kinds : sequence of int, length N, optional
        What atoms are; a pair is of the kind ``kinds[i] * K + kinds[j]``, with K kinds.

    Raises
    ------
    UserError
        If the lengths are not positive and in order.
    """

    def __init__(
        self,
        atoms: int,
        *,
        cutoff_A: float,
        switch_A: float,
        members: Sequence[int] | None = None,
        excluded: np.ndarray | None = None,
        kinds: Sequence[int] | None = None,
    ) -> None:
        if not 0.0 <= switch_A <= cutoff_A < np.inf or cutoff_A <= 0.0:
            raise UserError(
                f"switch_A={switch_A:g} and cutoff_A={cutoff_A:g}: both must be finite, "
                "0 ≤ switch_A ≤ cutoff_A, in Å."
            )
        self.atoms, self.cutoff_A, self.switch_A = atoms, float(cutoff_A), float(switch_A)
        self._members = None if members is None else np.asarray(members, np.int32)
        pairs = np.sort(np.zeros((0, 2), np.int64) if excluded is None else excluded, axis=1)
        self._excluded = np.unique(pairs[:, 0] * atoms + pairs[:, 1])
        self._kinds = np.zeros(atoms, np.int64) if kinds is None else np.asarray(kinds, np.int64)
        self._count = int(self._kinds.max(initial=0)) + 1
        self._lists: list[VerletList] = []
        self._state = (-1, -1)
        self._checked: Floats = np.zeros((0, 3, 3))

    def end_at(self, cutoff_A: float) -> None:
        """Take another cutoff, without a switch.

        Raises
        ------
        UserError
            If it is not positive and finite.
        """
        if not 0.0 < cutoff_A < np.inf:
            raise UserError(
                f"the cutoff has become {cutoff_A:g} Å: take smaller steps in parameters."
            )
        if cutoff_A != self.cutoff_A:
            self.cutoff_A = self.switch_A = cutoff_A
            self._lists, self._state = [], (-1, -1)

    def measure(self, x: Floats, cells: Floats) -> Distances:
        """Find the pairs of positions (R, N, 3) in cells (R, 3, 3), Å.

        Raises
        ------
        UserError
            If two atoms lie in the same place, or a cell is narrower than twice the cutoff where
            pairs are excluded.
        """
        i, j, kept, vectors, lengths, switch = self._near(x, cells)
        kinds = self._kinds_of(kept)
        return Distances(i, j, vectors, lengths, switch, kinds, len(x), self.atoms)

    def graphed(self, x: Tensor, cells: Tensor) -> Graphed:
        """Find the same with a graph to positions and cells."""
        (i, _), kept, d = self.vectors(x, cells)
        r = torch.linalg.vector_norm(d, dim=-1)
        width = max(self.cutoff_A - self.switch_A, 1e-300)
        t = ((r - self.switch_A) / width).clamp(0.0, 1.0)
        switch = 1.0 - t**3 * (10.0 - t * (15.0 - 6.0 * t))
        return Graphed(r, switch, self._kinds_of(kept), i // self.atoms)

    def vectors(self, x: Tensor, cells: Tensor) -> tuple[Tensor, Ints, Tensor]:
        """Atoms (2, P), places in the list (P,) and vectors x_j − x_i (P, 3), with a graph."""
        i, j, kept, *_ = self._near(x.detach().numpy(), cells.detach().numpy())
        turns = torch.from_numpy(self._turns[self._pairs[2][kept]])
        atoms = torch.from_numpy(np.stack((i, j)))
        flat = x.reshape(-1, 3)
        shifts = torch.einsum("pa,pab->pb", turns, cells.index_select(0, atoms[0] // self.atoms))
        return atoms, kept, flat.index_select(0, atoms[1]) - flat.index_select(0, atoms[0]) + shifts

    def _kinds_of(self, kept: Ints) -> Tensor:
        kinds = self._kind_of_pair
        return kinds[: len(kept)] if self._count == 1 else kinds[torch.from_numpy(kept)]

    def _near(self, x: Floats, cells: Floats) -> tuple[np.ndarray, ...]:
        self._update(x, cells)
        flat, (start, end) = x.reshape(-1, 3), (self.switch_A, self.cutoff_A)
        found, closest, whose = kernels.near(flat, *self._pairs, self._shifts, start, end)
        if closest < COINCIDE_A:
            raise UserError(
                f"atom {whose % self.atoms} lies where another one does, within {COINCIDE_A} Å: "
                "the trajectory has blown up, or the structure has atoms twice. Use a shorter "
                "time step, or relax the structure first."
            )
        return found

    def _require_width(self, cells: Floats) -> None:
        """Where a pair has several images, it is not clear which one is excluded."""
        for cell in cells:
            if cell.any() and heights(cell).min() < 2.0 * self.cutoff_A:
                raise UserError(
                    f"cutoff_A={self.cutoff_A:g} is more than half of the cell's smallest height, "
                    f"{heights(cell).min():.4g} Å: give a shorter cutoff or a larger cell."
                )
        self._checked = cells.copy()

    def _update(self, x: Floats, cells: Floats) -> None:
        if len(self._excluded) and not np.array_equal(cells, self._checked):
            self._require_width(cells)
        while len(self._lists) < len(x):
            self._lists.append(VerletList(cutoff_A=self.cutoff_A, skin_A=SKIN_A, find=self._find))
        lists = self._lists[: len(x)]
        stored = [verlet.stored(*a) for verlet, *a in zip(lists, x, cells, strict=True)]
        shifts = [verlet.shifts(cell) for verlet, cell in zip(lists, cells, strict=True)]
        self._shifts = shifts[0] if len(x) == 1 else np.concatenate(shifts)
        state = (sum(verlet.builds for verlet in lists), len(x))
        if state == self._state:
            return
        start = np.cumsum([0, *(len(shift) for shift in shifts)])
        first = self.atoms * np.arange(len(x))
        i = np.concatenate([s.i + k for s, k in zip(stored, first, strict=True)])
        j = np.concatenate([s.j + k for s, k in zip(stored, first, strict=True)])
        image = np.concatenate([s.image + k for s, k in zip(stored, start, strict=False)])
        self._pairs = i, j, image
        self._turns = np.concatenate([verlet.cells() for verlet in lists])
        kinds = self._kinds[i % self.atoms] * self._count + self._kinds[j % self.atoms]
        self._kind_of_pair = torch.from_numpy(kinds)
        self._state = state

    def _find(
        self, positions_A: Floats, cell_A: Floats, reach_A: float
    ) -> tuple[Short, Short, Short]:
        if self._members is None:
            i, j, s = search(positions_A, cell_A, reach_A)
        else:
            i, j, s = search(positions_A[self._members], cell_A, reach_A)
            i, j = self._members[i], self._members[j]
        if len(self._excluded):
            keys = np.minimum(i, j).astype(np.int64) * self.atoms + np.maximum(i, j)
            kept = ~np.isin(keys, self._excluded)
            i, j, s = i[kept], j[kept], s[kept]
        return i, j, s
