"""Measured radial distribution functions, to be fitted to."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mts_driver.errors import UserError
from mts_driver.refinement.observables.arguments import Numbers
from mts_driver.refinement.observables.estimators.histogram import as_points
from mts_driver.refinement.observables.estimators.kernel import CUT, density

WATER = ("O–O", "O–H", "H–H")
NODES = 401
"""Of the integral over a kernel."""


class MeasuredRDF(NamedTuple):
    """g(r) of one pair of elements.

    Attributes
    ----------
    r_A, g, error : Tensor, shape (R,)
        Ascending distances, values, and their standard errors.
    """

    r_A: Tensor
    g: Tensor
    error: Tensor

    def at(self, r_A: Numbers) -> "MeasuredRDF":
        """Return values and errors at other distances, between which they are linear.

        Raises
        ------
        UserError
            If a distance is outside the measured ones.
        """
        r = torch.as_tensor(r_A, dtype=torch.float64)
        self._check(r, 0.0)
        return MeasuredRDF(r, self._linear(self.g, r), self._linear(self.error, r))

    def smoothed(self, r_A: Numbers, *, width_A: float) -> "MeasuredRDF":
        """Return what `RadialDistribution` of the same width would find of this g(r).

        Errors of neighbouring distances are taken to go together, and are smoothed like g.

        Parameters
        ----------
        r_A : array of float, shape (B,)
            Where.
        width_A : float
            Standard deviation of the kernel, a Gaussian cut at 4 widths.

        Raises
        ------
        UserError
            If a kernel reaches beyond the largest measured distance.
        """
        r = as_points(r_A, width_A, "r_A", "width_A")
        self._check(r, CUT * width_A)
        u = torch.linspace(-CUT, CUT, NODES, dtype=torch.float64)
        d = (r[:, None] + width_A * u).clamp(min=0.0)
        weights = d.square() * density(u)
        weights = weights / weights.sum(1, keepdim=True)
        g, error = ((weights * self._linear(y, d)).sum(1) for y in (self.g, self.error))
        return MeasuredRDF(r, g, error)

    def _check(self, r: Tensor, reach_A: float) -> None:
        low, high = float(self.r_A[0]), float(self.r_A[-1])
        # what lies before the first distance has to be measured only if it is not the origin
        lowest = float(r.min()) - (reach_A if low > 0 else 0.0)
        if lowest < low or float(r.max()) + reach_A > high:
            raise UserError(
                f"r_A goes from {float(r.min()):g} to {float(r.max()):g} Å (and {reach_A:g} Å "
                f"beyond), but g(r) was measured from {low:g} to {high:g} Å: choose distances "
                "within."
            )

    def _linear(self, values: Tensor, r: Tensor) -> Tensor:
        k = torch.searchsorted(self.r_A, r.contiguous()).clamp(1, len(self.r_A) - 1)
        share = (r - self.r_A[k - 1]) / (self.r_A[k] - self.r_A[k - 1])
        return torch.lerp(values[k - 1], values[k], share)


def read_water_rdf(path: str | Path) -> dict[str, MeasuredRDF]:
    """Read measured g(r) of water: columns r/Å, g_OO, error, g_OH, error, g_HH, error.

    The table of Soper (ISRN Phys. Chem. 2013, 279463) has this form. Its g(r) are those between
    molecules: give the numbers of molecules to `RadialDistribution`.

    Returns
    -------
    dict of str to MeasuredRDF
        ``O–O``, ``O–H`` and ``H–H``.

    Raises
    ------
    UserError
        If there is no such file or no such table in it, distances do not ascend, or a number is
        negative or not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist: give a file with measured g(r) of water.")
    try:
        table = np.loadtxt(path, ndmin=2)
    except ValueError as error:
        raise UserError(f"{path} is not a table of numbers ({error}).") from error
    if len(table) < 2 or table.shape[1] != 7:
        raise UserError(
            f"{path} has {len(table)} rows of {table.shape[1]} numbers: need at least two rows of "
            "7: r, g_OO, error, g_OH, error, g_HH, error."
        )
    if not np.isfinite(table).all() or (table < 0).any() or (np.diff(table[:, 0]) <= 0).any():
        raise UserError(
            f"{path}: distances must ascend, and no number may be negative or not finite; repair "
            "the table."
        )
    r, *columns = torch.from_numpy(table).T.contiguous()
    return {pair: MeasuredRDF(r, *columns[2 * k : 2 * k + 2]) for k, pair in enumerate(WATER)}
