"""Radial distribution functions."""

from torch import Tensor

from integrators.reversible import Snapshots
from mts_driver.refinement.observables.arguments import Indices, Numbers
from mts_driver.refinement.observables.estimators.frames import check_snapshots, volume_A3
from mts_driver.refinement.observables.estimators.kernel import shell_A2
from mts_driver.refinement.observables.pair_density import PairDensity


class RadialDistribution:
    """g(r) of pairs of two selections, by a smooth histogram.

    g(r) = V / (n s(r)) Σ_pairs K(r - d), for n ordered pairs in the volume V, where K is a
    Gaussian cut at 4 widths and s(r) = 4π ∫ d² K(r - d) dd. Atoms without correlation, of any
    number, give g = 1 in expectation at every r. What is found is the true g smoothed by the
    kernel; `MeasuredRDF.smoothed` does the same to a measured one.

    Parameters
    ----------
    first, second : array of int
        Indices of atoms, as `select` finds them; the same ones for like atoms.
    r_A : array of float, shape (B,)
        Where g is estimated, ascending; need not be even.
    width_A : float
        Standard deviation of the kernel.
    molecules : array of int, shape (N,), optional
        Number of each atom's molecule: pairs within one are left out, and not counted in n.

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
        self._neighbours = PairDensity(first, second, r_A=r_A, width_A=width_A, molecules=molecules)
        self.r_A, self.width_A = self._neighbours.r_A, width_A

    def of_each(self, snapshots: Snapshots) -> Tensor:
        """Return g of every snapshot and replica, shape (K, ..., B)."""
        check_snapshots(snapshots)
        volume = volume_A3(snapshots.cell, "the density that g(r) compares with")
        found, pairs = self._neighbours.of_each(snapshots), self._neighbours.pairs
        shell = shell_A2(self.r_A, self.width_A).to(found)
        return found * (volume * len(pairs.first) / pairs.count / shell)

    def __call__(self, snapshots: Snapshots) -> Tensor:
        """Return the mean g over snapshots and replicas, shape (B,)."""
        return self.of_each(snapshots).flatten(0, -2).mean(0)
