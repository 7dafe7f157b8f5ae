"""Distances between two selections of atoms, in all frames, with gradients to the positions."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from integrators.reversible import Snapshots
from mts_driver.errors import UserError
from mts_driver.refinement.observables.arguments import Indices
from mts_driver.refinement.observables.estimators.frames import (
    check_snapshots,
    frames,
    longest_distance_A,
)
from mts_driver.refinement.observables.selections import as_atoms, check_atoms
from mts_driver.structures.neighbors import search


class Distances(NamedTuple):
    """Pairs that are close to one another, of all frames.

    Attributes
    ----------
    values_A : Tensor, shape (P,)
        Their lengths, which carry gradients to the positions.
    weights : Tensor, shape (P,)
        How many ordered pairs of (first, second) each one is: 1 or 2.
    frames : int64 Tensor, shape (P,)
        Counts snapshots and, within one, replicas.
    """

    values_A: Tensor
    weights: Tensor
    frames: Tensor


class AtomPairs:
    """Ordered pairs of an atom of one selection and another one of a second.

    Parameters
    ----------
    first, second : array of int
        Indices of atoms; may be the same, or overlap.
    molecules : array of int, shape (N,), optional
        Number of each atom's molecule, as `mts_driver.structures.bonds.molecules` gives it: pairs
        within one are left out.

    Raises
    ------
    UserError
        If a selection is empty or not one of indices, or no pair is left.
    """

    def __init__(
        self,
        first: Indices,
        second: Indices,
        molecules: Indices | None = None,
    ) -> None:
        self.first, self.second = as_atoms(first, "first"), as_atoms(second, "second")
        self.either, inverse = torch.cat([self.first, self.second]).unique(return_inverse=True)
        belongs = torch.zeros(2, len(self.either), dtype=torch.bool)
        belongs[0, inverse[: len(self.first)]] = True
        belongs[1, inverse[len(self.first) :]] = True
        self._belongs = belongs
        self._atoms = None if molecules is None else len(molecules)
        self._part = self._parts(molecules)
        self.count = self._count()
        if not self.count:
            raise UserError(
                f"first and second (of {len(self.first)} and {len(self.second)} atoms) form no "
                "pair of different atoms, or none between molecules: select more, or leave "
                "molecules out."
            )

    def _parts(self, molecules: Indices | None) -> Tensor:
        """Of pairs within one of these parts there are none: molecules, or each atom alone."""
        if molecules is None:
            return torch.arange(len(self.either))
        numbers = torch.as_tensor(molecules)
        check_atoms(self.either, len(numbers), "a selection")
        parts: Tensor = numbers[self.either].unique(return_inverse=True)[1]
        return parts

    def _count(self) -> int:
        of_first, of_second = (self._part[belongs].bincount(minlength=len(self._part))
                               for belongs in self._belongs)  # fmt: skip
        return len(self.first) * len(self.second) - int((of_first * of_second).sum())

    def within(self, snapshots: Snapshots, reach_A: float, why: str) -> Distances:
        """Return the pairs that are closer than ``reach_A``, nearest images.

        Raises
        ------
        UserError
            If the reach (``why`` says what it is made of) is beyond half the smallest width of
            the cell, or the atoms are not those of the snapshots.
        """
        check_snapshots(snapshots)
        atoms, longest = snapshots.positions.shape[-2], longest_distance_A(snapshots.cell)
        check_atoms(self.either, atoms, "a selection")
        if self._atoms not in (None, atoms):
            raise UserError(
                f"molecules are of {self._atoms} atoms, the snapshots of {atoms}: give one number "
                "an atom."
            )
        if reach_A > longest:
            raise UserError(
                f"{why} reaches to {reach_A:.6g} Å, but nearest images are unique only up to "
                f"{longest:.6g} Å, half the smallest width of the cell: choose less, or simulate a "
                "larger cell."
            )
        chosen = frames(snapshots.positions).flatten(0, 1)[:, self.either.to(_device(snapshots))]
        cell = snapshots.cell.to(chosen)
        found = [self._of_frame(x, cell, reach_A) for x in chosen]
        values, weights = (torch.cat([f[k] for f in found]) for k in (0, 1))
        lengths = torch.tensor([len(f[0]) for f in found], device=chosen.device)
        number = torch.arange(len(found), device=chosen.device).repeat_interleave(lengths)
        return Distances(values, weights, number)

    def _of_frame(self, x: Tensor, cell: Tensor, reach_A: float) -> tuple[Tensor, Tensor]:
        """Distances and weights of one frame, (S, 3) of the selected atoms."""
        to_numpy = (x.detach().cpu().double().numpy(), cell.detach().cpu().double().numpy())
        i, j, shifts = (torch.from_numpy(np.array(a)).long() for a in search(*to_numpy, reach_A))
        (i_first, i_second), (j_first, j_second) = self._belongs[:, i], self._belongs[:, j]
        weights = (i_first & j_second).long() + (j_first & i_second).long()
        kept = (weights > 0) & (self._part[i] != self._part[j])
        i, j, shifts, weights = (a[kept].to(x.device) for a in (i, j, shifts, weights))
        apart = x[j] - x[i] + shifts.to(x) @ cell
        return apart.norm(dim=-1), weights.to(x)


def _device(snapshots: Snapshots) -> torch.device:
    return snapshots.positions.device
