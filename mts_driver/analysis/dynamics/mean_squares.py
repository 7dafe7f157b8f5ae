"""Mean squared displacements, and the straight line in them (the only module that imports kinisi).

MSD(t) = 6 D t + c where molecules diffuse. kinisi fits the line by Bayesian regression with the
covariances that the mean squared displacements of Brownian motion have (McCluskey et al., J. Chem.
Theory Comput. 2025, 21, 79): points of one MSD are strongly correlated, and the errors of a plain
fit are far too small.
"""

import importlib.util
import warnings
from typing import Any

import numpy as np

LAGS = 40
"""On a logarithmic scale, up to half of the run."""
STRAIGHT = 0.1
"""An MSD that grows as t^1 within this much is a straight line."""
SAMPLES, BURNT = 400, 400
"""By each of 32 walkers; two parameters need no more, and a sample takes kinisi a millisecond."""
_A2_PS = 10.0
"""1 Å²/ps in 1e-5 cm²/s."""


def available() -> bool:
    """Whether kinisi is installed."""
    return importlib.util.find_spec("kinisi") is not None


def mean_squares(moved: np.ndarray, frame_ps: float) -> Any:
    """Return kinisi's mean squared displacements, and what it knows of them."""
    import scipp as sc
    from kinisi.displacement import calculate_msd
    from kinisi.parser import Parser

    longest = len(moved) - 1
    lags = np.unique(np.geomspace(1, longest // 2, LAGS).round().astype(int))
    # in a box so large that kinisi has nothing to unwrap
    box = 10.0 * (np.abs(moved).max() + 1.0)
    parsed = Parser(
        coords=sc.array(dims=["time", "particle", "dimension"], values=moved / box),
        latt=sc.array(
            dims=["time", "row", "column"],
            values=np.broadcast_to(box * np.eye(3), (len(moved), 3, 3)).copy(),
            unit="angstrom",
        ),
        time_step=sc.scalar(frame_ps, unit="ps"),
        step_skip=sc.scalar(1),
        dt=sc.array(dims=["time interval"], values=frame_ps * lags, unit="ps"),
        specie_indices=sc.arange("particle", moved.shape[1]),
        drift_indices=sc.array(dims=["particle"], values=np.zeros(0, int)),
    )
    found = calculate_msd(parsed, progress=False)
    # kinisi takes the longest lag for the length of the run when it counts independent samples
    missed = longest / lags[-1]
    found["da"].variances = found["da"].variances / missed
    found["da"].coords["n_samples"] = found["da"].coords["n_samples"] * missed
    return found


def line(mean_squares: Any, start_ps: float) -> tuple[np.ndarray, float]:
    """Return samples of D, 1e-5 cm²/s, and the offset of the line, Å²."""
    import scipp as sc
    from kinisi.diffusion import Diffusion as Regression

    fitted = Regression(mean_squares)
    state = np.random.get_state()  # which kinisi sets
    try:
        with warnings.catch_warnings():  # matrices that statsmodels has made as good as they can be
            warnings.simplefilter("ignore")
            fitted.bayesian_regression(
                start_dt=sc.scalar(start_ps * (1 - 1e-9), unit="ps"),
                n_samples=SAMPLES,
                n_burn=BURNT,
                progress=False,
                random_state=np.random.RandomState(1),
            )
    finally:
        np.random.set_state(state)
    assert fitted.gradient is not None and fitted.intercept is not None
    return fitted.gradient.values * _A2_PS / 6, float(fitted.intercept.values.mean())


def straight_from(
    times: np.ndarray, msd: np.ndarray, error: np.ndarray
) -> tuple[int, float | None]:
    """Return the lag from which the MSD is straight, and the exponent where it never becomes so.

    The exponent of t between a lag and its double is 1 where molecules diffuse, 2 where they fly
    and less than 1 in their cages; between the last two it passes 1, so that what counts is that it
    stays 1 from there on.
    """
    double = np.searchsorted(times, 2 * times * (1 - 1e-9))
    count = int((double < len(times)).sum())
    near, far = np.arange(count), double[:count]
    growth = np.log(times[far] / times[near])
    exponent = np.log(msd[far] / msd[near]) / growth
    relative = (error / msd) ** 2
    # of Brownian motion, whose MSDs are correlated
    noise = np.sqrt(np.maximum(relative[far] - relative[near], 0.0)) / growth
    bent = np.flatnonzero(np.abs(exponent - 1.0) > np.maximum(STRAIGHT, 3 * noise))
    if not len(bent):
        return 0, None
    start = int(bent[-1]) + 1
    return (start, None) if start < count else (count - 1, float(exponent[-1]))
