"""Velocities correlated with themselves: spectra, and diffusion after Green and Kubo.

With the thermostat inside the step, velocities at its end are a little too slow, hydrogens more so
(`integrators.thermometer`); the shape of a spectrum does not feel it, its height does.
"""

import math

import torch
from torch import Tensor

from integrators.reversible import Snapshots
from mts_driver.errors import UserError
from mts_driver.refinement.observables.arguments import Indices, Numbers
from mts_driver.refinement.observables.estimators.centres import lag_curve
from mts_driver.refinement.observables.estimators.correlation import (
    LagCurve,
    autocorrelation,
)
from mts_driver.units import A2_FS_M2_S, LIGHT_CM_FS


def velocity_autocorrelation(
    snapshots: Snapshots,
    atoms: Indices,
    *,
    longest_lag_fs: float,
    molecules: Indices | None = None,
    remove_drift: bool = False,
) -> LagCurve:
    """Return <v(t + lag)·v(t)>, Å²/fs², over all origins t.

    Parameters and errors are those of `mean_squared_displacement`; each particle counts alike,
    whatever its mass.
    """
    return lag_curve(
        *(autocorrelation, snapshots.velocities, snapshots, atoms),
        longest_lag_fs=longest_lag_fs,
        molecules=molecules,
        remove_drift=remove_drift,
    )


def spectrum(correlation: LagCurve, wavenumbers_cm: Numbers) -> Tensor:
    """Return the spectrum of a correlation, its unit times cm, shape (W,).

    S(ν) = 4 c ∫ C(t) w(t) cos(2π c ν t) dt over t > 0, by the trapezoidal rule, where
    w(t) = cos²(π t / 2T) takes C to zero at T, one spacing beyond the last lag (Hann's window). Its
    integral over ν > 0 is C(0). Lines are about 1/(c T) wide.

    Parameters
    ----------
    correlation : LagCurve
        Of `velocity_autocorrelation`.
    wavenumbers_cm : array of float, shape (W,)
        ν, 1/cm, from 0 to what the spacing of the snapshots resolves.

    Raises
    ------
    UserError
        If a wavenumber is negative or beyond 1 / (2 c spacing).
    """
    lags, values = correlation
    nu = torch.as_tensor(wavenumbers_cm, dtype=values.dtype, device=values.device)
    spacing = float(lags[1])
    largest = 0.5 / (LIGHT_CM_FS * spacing)
    if nu.ndim != 1 or not nu.numel() or not bool(((nu >= 0) & (nu <= largest)).all()):
        raise UserError(
            f"wavenumbers_cm must lie between 0 and {largest:.6g}, what snapshots {spacing:g} fs "
            "apart can tell: choose within, or take snapshots more often."
        )
    weights = spacing * torch.cos(0.5 * math.pi * lags / (lags[-1] + spacing)).square()
    weights[0] = 0.5 * spacing
    waves = torch.cos(2 * math.pi * LIGHT_CM_FS * nu[:, None] * lags)
    return 4 * LIGHT_CM_FS * (waves @ (weights * values))


def green_kubo_diffusion(correlation: LagCurve, *, until_fs: float) -> Tensor:
    """Return D = ∫ C(t) dt / 3 from 0 to a lag, by the trapezoidal rule, m²/s, shape ().

    Parameters
    ----------
    correlation : LagCurve
        Of `velocity_autocorrelation`, of snapshots between which it changes little.
    until_fs : float
        Where the correlation has decayed.

    Raises
    ------
    UserError
        If it is shorter than the first lag or longer than the last one.
    """
    lags, values = correlation
    slack = 1e-9 * float(lags[-1])
    if not float(lags[1]) - slack <= until_fs <= float(lags[-1]) + slack:
        raise UserError(
            f"until_fs is {until_fs:g}, the lags go from {float(lags[1]):g} to "
            f"{float(lags[-1]):g} fs: choose one of these."
        )
    inside = lags <= until_fs + slack
    return A2_FS_M2_S / 3.0 * torch.trapezoid(values[inside], lags[inside])
