"""Mean squared displacements, and the diffusion coefficients that they give."""

import math

import torch
from torch import Tensor

from integrators.reversible import Snapshots
from mts_driver.errors import UserError
from mts_driver.refinement.observables.arguments import Indices
from mts_driver.refinement.observables.estimators.centres import lag_curve
from mts_driver.refinement.observables.estimators.correlation import (
    LagCurve,
    squared_displacement,
)
from mts_driver.refinement.observables.estimators.frames import check_volume
from mts_driver.units import A2_FS_M2_S, BOLTZMANN_EV_K, EV_J

CUBIC_LATTICE = 2.837297
"""ξ, the Madelung constant of a cubic lattice of charges in a background."""


def mean_squared_displacement(
    snapshots: Snapshots,
    atoms: Indices,
    *,
    longest_lag_fs: float,
    molecules: Indices | None = None,
    remove_drift: bool = False,
) -> LagCurve:
    """Return <|x(t + lag) - x(t)|²>, Å², over all origins t.

    Parameters
    ----------
    snapshots : Snapshots
        Evenly spaced, positions not wrapped.
    atoms : array of int
        Indices of the atoms that are followed.
    longest_lag_fs : float
        Of a trajectory's length T, lags beyond T/2 have few independent origins.
    molecules : array of int, shape (N,), optional
        Number of each atom's molecule: follows the centres of mass of molecules instead.
    remove_drift : bool
        Subtract the motion of the centre of mass of all atoms.

    Raises
    ------
    UserError
        If snapshots are not evenly spaced or shorter than the longest lag, atoms are not theirs, or
        a centre of mass is asked for where atoms are held in place.
    """
    return lag_curve(
        *(squared_displacement, snapshots.positions, snapshots, atoms),
        longest_lag_fs=longest_lag_fs,
        molecules=molecules,
        remove_drift=remove_drift,
    )


def diffusion_coefficient(displacement: LagCurve, *, window_fs: tuple[float, float]) -> Tensor:
    """Return Einstein's D, a sixth of the slope of a line through a window of lags, m²/s, shape ().

    Parameters
    ----------
    displacement : LagCurve
        Of `mean_squared_displacement`.
    window_fs : tuple of two float
        First and last lag of the fit, where the displacement is linear. The line need not pass
        through the origin.

    Raises
    ------
    UserError
        If the window is not within the lags, or has fewer than two of them.
    """
    lags, values = displacement
    start, end = window_fs
    slack = 1e-9 * float(lags[-1])
    inside = (lags >= start - slack) & (lags <= end + slack)
    if start < 0 or end > float(lags[-1]) + slack or int(inside.sum()) < 2:
        raise UserError(
            f"window_fs is {start:g} to {end:g} and has {int(inside.sum())} of the lags, which go "
            f"from 0 to {float(lags[-1]):g} fs: choose a window with at least two of them."
        )
    time = lags[inside] - lags[inside].mean()
    return A2_FS_M2_S / 6.0 * (time * values[inside]).sum() / time.square().sum()


def finite_size_correction(cell: Tensor, *, temperature_K: float, viscosity_Pa_s: float) -> float:
    """Return what is to be added to D in a cubic cell for that of an infinite one, m²/s.

    k_B T ξ / (6π η L) (Yeh and Hummer, J. Phys. Chem. B 2004, 108, 15873).

    Parameters
    ----------
    cell : Tensor, shape (3, 3)
        Cubic, Å.
    temperature_K : float
        Of the simulation.
    viscosity_Pa_s : float
        η of the simulated liquid; that of the real one if the model is meant to have it.

    Raises
    ------
    UserError
        If the cell is not cubic, or a number is not positive.
    """
    for name, value in (("temperature_K", temperature_K), ("viscosity_Pa_s", viscosity_Pa_s)):
        if not 0 < value < math.inf:
            raise UserError(f"{name} is {value}: give a number above 0.")
    check_volume(cell, "the size of a cubic cell")
    metric = (cell @ cell.T).detach().double()
    length_A = float(metric.diagonal().mean().sqrt())
    if float((metric / length_A**2 - torch.eye(3).to(metric)).abs().max()) > 1e-4:
        raise UserError(
            f"cell {cell.tolist()} is not cubic, for which alone the correction is known here: "
            "give none, or simulate a cube."
        )
    thermal_J = BOLTZMANN_EV_K * EV_J * temperature_K
    return thermal_J * CUBIC_LATTICE / (6 * math.pi * viscosity_Pa_s * length_A * 1e-10)
