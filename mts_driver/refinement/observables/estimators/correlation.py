"""Correlations in time, over all origins."""

from typing import NamedTuple

import torch
from torch import Tensor

from mts_driver.errors import UserError


class LagCurve(NamedTuple):
    """A function of the time between two snapshots.

    Attributes
    ----------
    lags_fs : Tensor, shape (L,)
        0, and then evenly spaced.
    values : Tensor, shape (L,)
        Means over particles, replicas and origins.
    """

    lags_fs: Tensor
    values: Tensor


def number_of_lags(snapshots: int, spacing_fs: float, longest_lag_fs: float) -> int:
    """Return how many lags there are up to the longest one, 0 included.

    Raises
    ------
    UserError
        If it is shorter than the spacing, or longer than the trajectory.
    """
    length_fs = (snapshots - 1) * spacing_fs
    # a hair of slack, for lags that were computed
    lags = int(longest_lag_fs / spacing_fs * (1 + 1e-9)) if longest_lag_fs > 0 else 0
    if lags < 1 or lags > snapshots - 1:
        raise UserError(
            f"longest_lag_fs is {longest_lag_fs:g}, but the snapshots are {spacing_fs:g} fs apart "
            f"and span {length_fs:g} fs: choose a lag between the two, or make the trajectory "
            "longer."
        )
    return lags + 1


def autocorrelation(series: Tensor, lags: int) -> Tensor:
    """Return <Σ_a x_a(t) x_a(t + lag)> over origins t and rows, shape (lags,).

    By Fourier transform with zeros appended, so that ends do not wrap round.

    Parameters
    ----------
    series : Tensor, shape (K, M, 3)
        x, evenly spaced in time; mean over M, sum over the directions a.
    lags : int
        0, 1, ..., at most K of them.
    """
    count = len(series)
    spectrum = torch.fft.rfft(series, n=2 * count, dim=0)
    power = (spectrum.real.square() + spectrum.imag.square()).sum((-2, -1))
    summed: Tensor = torch.fft.irfft(power, n=2 * count)[:lags]
    origins = torch.arange(count, count - lags, -1, device=series.device)
    return summed / (origins * series.shape[1])


def squared_displacement(series: Tensor, lags: int) -> Tensor:
    """Return <|x(t + lag) - x(t)|²> over origins t and rows, shape (lags,).

    |x(t + lag)|² + |x(t)|² - 2 x(t + lag)·x(t), the last of which is an `autocorrelation`
    (Calandrini et al., École thématique de la SFN 2011, 12, 201).

    Parameters
    ----------
    series : Tensor, shape (K, M, 3)
        x, evenly spaced in time, float64.
    lags : int
        0, 1, ..., at most K of them.
    """
    # what all have in common cancels, but would cost digits
    x = series - series.detach().mean(0)
    count = len(x)
    squares = x.square().sum(-1).mean(1)
    before = torch.cat([squares.new_zeros(1), squares.cumsum(0)])
    lag = torch.arange(lags, device=x.device)
    both_ends = before[count - lag] + before[-1] - before[lag]
    return both_ends / (count - lag) - 2.0 * autocorrelation(x, lags)
