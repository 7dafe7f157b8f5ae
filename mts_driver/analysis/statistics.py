"""Means of correlated series with their standard errors."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

MIN_BLOCKS = 5
"""Fewer block means than this say too little about their own scatter."""


@dataclass(frozen=True)
class BlockAverage:
    """A mean and its standard error.

    Attributes
    ----------
    mean : float
        Of the whole series.
    stderr : float
        Standard error of the mean; NaN for a series of fewer than 2 `MIN_BLOCKS` values.
    block_length, n_blocks : int
        The blocks that the error comes from.
    converged : bool
        Whether the blocks are long enough to be independent. If not, the error is the largest that
        any block length shows and still a lower bound: the run is too short.
    """

    mean: float
    stderr: float
    block_length: int
    n_blocks: int
    converged: bool


def block_average(values: ArrayLike) -> BlockAverage:
    """Average a stationary, correlated series.

    The series is cut into blocks of L = 1, 2, 4, ... values and the standard error s(L) estimated
    from the scatter of the block means (Flyvbjerg and Petersen, J. Chem. Phys. 1989, 91, 461). It
    grows with L until the blocks are independent. The shortest length with
    L³ > 2 N (s(L)/s(1))⁴ is taken, which balances the remaining correlation against the noise of
    few blocks (Lee et al., Phys. Rev. E 2011, 83, 066706); there are always at least `MIN_BLOCKS`.

    Parameters
    ----------
    values : array, shape (N,)
        Equally spaced in time, without the equilibration.

    Raises
    ------
    ValueError
        If the series is empty or not one-dimensional.
    """
    x = np.asarray(values, dtype=float)
    if x.ndim != 1 or len(x) == 0:
        raise ValueError(f"values has shape {x.shape}; need (N,) with N ≥ 1")
    n, mean = len(x), float(x.mean())
    if n < 2 * MIN_BLOCKS:
        return BlockAverage(mean, math.nan, 1, n, False)
    errors: list[tuple[int, float]] = []
    length = 1
    while n // length >= MIN_BLOCKS:
        errors.append((length, _standard_error(block_means(x, length))))
        length *= 2
    naive = errors[0][1]
    if naive == 0.0:
        return BlockAverage(mean, 0.0, 1, n, True)
    for length, error in errors:
        if length**3 > 2 * n * (error / naive) ** 4:
            return BlockAverage(mean, error, length, n // length, True)
    length, error = max(errors, key=lambda pair: pair[1])
    return BlockAverage(mean, error, length, n // length, False)


def block_means(values: np.ndarray, length: int) -> np.ndarray:
    """Means of consecutive blocks of ``length`` values, shape (N // length, ...).

    What does not fill a block is left out at the start, where a run is least equilibrated.
    """
    count = len(values) // length
    kept = values[len(values) - count * length :]
    return kept.reshape(count, length, *values.shape[1:]).mean(axis=1)


def _standard_error(independent: np.ndarray) -> float:
    return float(independent.std(ddof=1) / math.sqrt(len(independent)))


def with_error(value: float, stderr: float) -> str:
    """Write a number to the second digit of its standard error."""
    if not (math.isfinite(stderr) and stderr > 0):
        return f"{value:.3g}"
    digits = max(0, 1 - math.floor(math.log10(stderr)))
    return f"{value:.{digits}f} ± {stderr:.{digits}f}"


def difference_in_stderr(a: BlockAverage, b: BlockAverage) -> float:
    """Return (a - b) over the standard error of that difference; NaN if either error is unknown."""
    error = math.hypot(a.stderr, b.stderr)
    if error == 0.0:
        return 0.0 if a.mean == b.mean else math.copysign(math.inf, a.mean - b.mean)
    return (a.mean - b.mean) / error


def canonical_error_K(
    temperature_K: float, atoms: float, friction_per_ps: float, picoseconds: float
) -> float:
    """Return the standard error of a mean temperature for what the thermostat exchanges.

    N are the atoms that move, a third of their degrees of freedom.
    Energy comes and goes with the friction γ and is half kinetic, so that over a time t the
    variance is that of one reading, 2 T²/3N, over γ t. A short run shows too small a scatter.
    Zero without friction, where nothing is known.
    """
    exchanged = friction_per_ps * picoseconds
    return temperature_K * math.sqrt(2 / (3 * atoms * exchanged)) if atoms * exchanged else 0.0
