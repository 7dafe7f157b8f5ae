"""How fast heavy atoms diffuse, from runs of picoseconds: rough, for comparisons within a scan.

Molecules of a liquid leave their cages after some picoseconds. Before, mean square displacements
grow faster than they do later: the slope is not the diffusion coefficient that a long run has.
"""

import math

import numpy as np

from mts_driver.analysis.statistics import MIN_BLOCKS, BlockAverage, block_average

LAGS_PS = (0.3, 1.0)
_A2_PER_PS_IN_CM2_PER_S = 1e-4


def diffusion_cm2_s(positions: np.ndarray, spacing_ps: float) -> BlockAverage | None:
    """Slope of the mean square displacement over six, between 0.3 and 1 ps.

    Parameters
    ----------
    positions : array, shape (T, ..., M, 3)
        Å, not wrapped; a dimension between are replicas.
    spacing_ps : float
        Between two frames.

    Returns
    -------
    BlockAverage or None
        cm²/s, with the standard error that the scatter of replicas shows, or, where they are few,
        that of blocks of time, which is a lower bound for runs of less than some ten picoseconds.
        None for a series that is shorter than twice the longest lag, or without atoms.
    """
    first, last = (max(1, round(lag / spacing_ps)) for lag in LAGS_PS)
    if len(positions) < 2 * last or last == first or positions.size == 0:
        return None
    lags = np.unique(np.linspace(first, last, 8).round().astype(int))
    # a slope is a sum over lags, so that every time of origin has one, of every replica
    times = lags * spacing_ps - lags.mean() * spacing_ps
    weights = times / np.square(times).sum()
    origins = len(positions) - last
    slopes = sum(
        weight * np.square(positions[k : k + origins] - positions[:origins]).sum(-1).mean(-1)
        for k, weight in zip(lags, weights, strict=True)
    )
    found = _A2_PER_PS_IN_CM2_PER_S / 6 * np.asarray(slopes, float).reshape(origins, -1)
    replicas = found.mean(axis=0)
    if len(replicas) < MIN_BLOCKS:
        return block_average(found.mean(axis=1))
    error = float(replicas.std(ddof=1) / math.sqrt(len(replicas)))
    return BlockAverage(float(replicas.mean()), error, origins, len(replicas), True)
