"""Neighbours of an atom per length, at each distance."""

from torch import Tensor

from integrators.reversible import Snapshots
from mts_driver.refinement.observables.arguments import Indices, Numbers
from mts_driver.refinement.observables.estimators.histogram import as_points, smooth_histogram
from mts_driver.refinement.observables.estimators.kernel import CUT
from mts_driver.refinement.observables.estimators.pairs import AtomPairs


class PairDensity:
    """Neighbours per length: n(r) = Σ_pairs K(r - d) over the number of first atoms, 1/Å.

    It is 4π ρ r² g(r) in a liquid. It needs no volume, so that isolated systems have it too. K is
    a Gaussian cut at 4 widths.

    Parameters
    ----------
    first, second : array of int
        Indices of atoms, as `select` finds them; the same ones for like atoms.
    r_A : array of float, shape (B,)
        Where n is estimated, ascending; need not be even.
    width_A : float
        Standard deviation of the kernel.
    molecules : array of int, shape (N,), optional
        Number of each atom's molecule: pairs within one are left out.

    Raises
    ------
    UserError
        If a selection is empty, r_A does not ascend, or no pair is left; when called, if
        the largest r and 4 widths reach beyond half the smallest width of the cell.
    """

    def __init__(
        self,
        first: Indices,
        second: Indices,
        *,
        r_A: Numbers,
        width_A: float,
        molecules: Indices | None = None,
    ) -> None:
        self.r_A = as_points(r_A, width_A, "r_A", "width_A")
        self.width_A = width_A
        self.pairs = AtomPairs(first, second, molecules)

    def of_each(self, snapshots: Snapshots) -> Tensor:
        """Return n of every snapshot and replica, shape (K, ..., B), 1/Å."""
        reach = float(self.r_A[-1]) + CUT * self.width_A
        found = self.pairs.within(snapshots, reach, "r_A with 4 widths of the kernel")
        leading = snapshots.positions.shape[:-2]
        counted = smooth_histogram(
            found.values_A,
            found.weights,
            found.frames,
            self.r_A,
            width=self.width_A,
            n_rows=leading.numel(),
        )
        return (counted / len(self.pairs.first)).view(*leading, -1)

    def __call__(self, snapshots: Snapshots) -> Tensor:
        """Return the mean of `of_each` over snapshots and replicas, shape (B,)."""
        return self.of_each(snapshots).flatten(0, -2).mean(0)
