"""Radial distribution functions."""

from torch import Tensor

from integrators.reversible import Snapshots
from mts_driver.refinement.observables.estimators.frames import check_snapshots, volume_A3
from mts_driver.refinement.observables.estimators.kernel import shell_A2
from mts_driver.refinement.observables.pair_density import PairDensity


class RadialDistribution(PairDensity):
    """g(r) of pairs of two selections, by a smooth histogram.

    g(r) = V / (n s(r)) Σ_pairs K(r - d), for n ordered pairs in the volume V, where K is a
    Gaussian cut at 4 widths and s(r) = 4π ∫ d² K(r - d) dd. Atoms without correlation, of any
    number, give g = 1 in expectation at every r. What is found is the true g smoothed by the
    kernel; `MeasuredRDF.smoothed` does the same to a measured one.

    Parameters and errors are those of `PairDensity`; pairs within a molecule are not counted in n.
    """

    def of_each(self, snapshots: Snapshots) -> Tensor:
        """Return g of every snapshot and replica, shape (K, ..., B)."""
        check_snapshots(snapshots)
        volume = volume_A3(snapshots.cell, "the density that g(r) compares with")
        found, pairs = super().of_each(snapshots), self.pairs
        shell = shell_A2(self.r_A, self.width_A).to(found)
        return found * (volume * len(pairs.first) / pairs.count / shell)
