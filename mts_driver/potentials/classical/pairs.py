"""Which pairs of atoms are near each other, in all replicas at once."""

import numpy as np
import torch
from torch import Tensor

from mts_driver.potentials.classical.terms import Groups
from mts_driver.structures.neighbors import Stored, VerletList

SKIN_A = 1.0


class NearPairs:
    """Pairs within a cutoff, each once, from lists that are kept while atoms move little.

    Parameters
    ----------
    cutoff_A : float
        Largest distance, Å.
    excluded : set of (int, int)
        Pairs (i < j) that are left out in any image, such as bonded ones.
    """

    def __init__(self, cutoff_A: float, excluded: set[tuple[int, int]] | None = None) -> None:
        self.cutoff_A = cutoff_A
        self._excluded = sorted(excluded or ())
        self._lists: list[VerletList] = []
        self._builds = (-1, 0)
        self._stored: tuple[Tensor, ...] = ()

    def __call__(self, x: Tensor, cells: Tensor) -> Groups:
        """Find them for positions (R, N, 3) in cells (R, 3, 3), with a graph of shifts to cells."""
        atoms = x.shape[1]
        while len(self._lists) < len(x):
            self._lists.append(VerletList(cutoff_A=self.cutoff_A, skin_A=SKIN_A))
        lists = self._lists[: len(x)]
        where = zip(
            *(t.detach().double().cpu().numpy() for t in (x, cells)),
            strict=True,
        )
        stored = [one.stored(*here) for one, here in zip(lists, where, strict=True)]
        builds = (sum(one.builds for one in lists), len(x))
        if builds != self._builds:
            self._builds = builds
            parts = [self._part(k, one, lists[k], atoms) for k, one in enumerate(stored)]
            self._stored = tuple(torch.cat(same) for same in zip(*parts, strict=True))
        i, j, images, replica = self._stored
        flat = x.flatten(0, 1)
        shifts = (images.to(x)[:, None] @ cells[replica]).squeeze(1)
        apart = (flat[j] - flat[i] + shifts).detach()
        near = (apart.square().sum(-1) < self.cutoff_A**2).nonzero().squeeze(1)
        return Groups(i[near], j[near][:, None], shifts[near][:, None], replica[near])

    def _part(self, k: int, stored: Stored, verlet: VerletList, atoms: int) -> tuple[Tensor, ...]:
        i, j = stored.i.astype(np.int64), stored.j.astype(np.int64)
        images = verlet.cells()[stored.image]
        if self._excluded:
            bonded = np.array(self._excluded)
            low, high = np.minimum(i, j), np.maximum(i, j)
            kept = ~np.isin(low * atoms + high, bonded[:, 0] * atoms + bonded[:, 1])
            i, j, images = i[kept], j[kept], images[kept]
        return (
            torch.from_numpy(i + k * atoms),
            torch.from_numpy(j + k * atoms),
            torch.from_numpy(np.ascontiguousarray(images)),
            torch.full((len(i),), k, dtype=torch.int64),
        )
