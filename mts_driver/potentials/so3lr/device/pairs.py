"""Pairs within the short cutoff, each once, in arrays of a fixed length on the device."""

import torch
from torch import Tensor

from mts_driver.structures.neighbor_matrix import NeighborMatrix

SPARE = 1.2
"""How many more pairs there is room for than there are in the structure as it is."""


class ShortPairs:
    """Those of a `NeighborMatrix` that are nearer than its cutoff now.

    What is left over of the arrays holds atoms beside themselves, twice the cutoff away, where
    nothing acts.

    Parameters
    ----------
    near : NeighborMatrix
        Within the cutoff and a skin; up to date.
    positions, cells : float64 Tensors, shapes (R, N, 3) and (R, 3, 3)
        From which the length of the arrays is found; this waits for the device.
    least : int
        Length that they have at least.
    """

    def __init__(
        self, near: NeighborMatrix, positions: Tensor, cells: Tensor, *, least: int = 0
    ) -> None:
        self._near = near
        atoms = len(near.neighbors)
        device = near.neighbors.device
        kept, _ = self._within(positions, cells)
        self.length = max(int(SPARE * int(kept.sum())) + 64, least)
        self._alone = torch.arange(self.length + 1, device=device) % atoms
        self._row = torch.arange(atoms, device=device)[:, None].expand(near.neighbors.shape)
        self.found = torch.zeros((), dtype=torch.int64, device=device)

    def __call__(self, positions: Tensor, cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Atoms i and j (P,) and the vectors (P, 3) from i to j, Å, float64; waits for nothing."""
        kept, vectors = self._within(positions, cells)
        kept = kept.flatten()
        place = kept.cumsum(0) - 1
        self.found.copy_(place[-1] + 1)
        # those without a place, and those too many, go to the last one, which is dropped
        place = torch.where(kept, place, self.length).clamp_max(self.length)
        i, j = self._alone.clone(), self._alone.clone()
        i.scatter_(0, place, self._row.flatten())
        j.scatter_(0, place, self._near.neighbors.flatten().long())
        apart = vectors.new_zeros(self.length + 1, 3)
        apart[:, 0] = 2.0 * self._near.cutoff_A
        apart.scatter_(0, place[:, None].expand(-1, 3), vectors.flatten(0, 1))
        return i[:-1], j[:-1], apart[:-1]

    def overflow(self) -> Tensor:
        """Tell whether the last call had more pairs than there is room for, on the device."""
        return self.found > self.length

    def _within(self, positions: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Which of the list are nearer than the cutoff, one of both directions; all vectors."""
        near = self._near
        there, j, vectors = near.vectors(positions, cells)
        atoms = torch.arange(len(j), device=j.device)[:, None]
        # of the images of an atom itself, those of the upper half
        a, b, c = near.images.unbind(-1)
        upper = (a > 0) | ((a == 0) & ((b > 0) | ((b == 0) & (c > 0))))
        once = (j > atoms) | ((j == atoms) & upper)
        return there & once & (vectors.square().sum(-1) < near.cutoff_A**2), vectors
