"""Neighbours of an atom within a distance."""

import torch
from torch import Tensor

from integrators.reversible import Snapshots
from mts_driver.errors import UserError
from mts_driver.refinement.observables.arguments import Indices
from mts_driver.refinement.observables.estimators.histogram import as_points
from mts_driver.refinement.observables.estimators.kernel import CUT, cumulative
from mts_driver.refinement.observables.estimators.pairs import AtomPairs


class CoordinationNumber:
    """Mean number of second atoms within a distance of a first one.

    The step at the distance is smooth: the integral of the kernel of `PairDensity`, so that the
    number is the integral of the pair density up to there.

    Parameters
    ----------
    first, second : array of int
        Indices of atoms.
    within_A : float
        The distance, for example that of the first minimum of g(r).
    width_A : float
        Of the kernel.
    molecules : array of int, shape (N,), optional
        Number of each atom's molecule: neighbours in the same one do not count.

    Raises
    ------
    UserError
        If a selection is empty, or no pair is left; if a length is not positive; when called, if
        the distance and 4 widths reach beyond half the smallest width of the cell.
    """

    def __init__(
        self,
        first: Indices,
        second: Indices,
        *,
        within_A: float,
        width_A: float,
        molecules: Indices | None = None,
    ) -> None:
        as_points([within_A], width_A, "within_A", "width_A")
        if within_A <= CUT * width_A:
            raise UserError(
                f"within_A is {within_A} and 4 widths are {CUT * width_A:g} Å: choose a larger "
                "distance or a smaller width_A."
            )
        self.within_A, self.width_A = within_A, width_A
        self.pairs = AtomPairs(first, second, molecules)

    def of_each(self, snapshots: Snapshots) -> Tensor:
        """Return the number in every snapshot and replica, shape (K, ...)."""
        reach = self.within_A + CUT * self.width_A
        found = self.pairs.within(snapshots, reach, "within_A with 4 widths of the kernel")
        leading = snapshots.positions.shape[:-2]
        counted = found.weights * cumulative((self.within_A - found.values_A) / self.width_A)
        total = torch.zeros(leading.numel(), dtype=counted.dtype, device=counted.device)
        return (total.index_add(0, found.frames, counted) / len(self.pairs.first)).view(leading)

    def __call__(self, snapshots: Snapshots) -> Tensor:
        """Return the mean number over snapshots and replicas, shape ()."""
        return self.of_each(snapshots).mean()
