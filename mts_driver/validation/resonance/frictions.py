"""How strongly the thermostat of a point brakes every atom, coloured noise included."""

import math

import numpy as np

from mts_driver.simulation.dynamics import friction_of
from mts_driver.thermostats import high_pass_noise
from mts_driver.units import LIGHT_CM_FS
from mts_driver.validation.resonance.points import Point
from mts_driver.validation.resonance.spectrum import Spectrum

_FS_PER_PS = 1000.0


def frictions_per_ps(point: Point, numbers: np.ndarray, vdos: Spectrum | None) -> np.ndarray | None:
    """Return the friction of every atom (N,), 1/ps, at which it gives heat to the thermostat.

    Coloured noise takes 2 γ(ω) of the kinetic energy that motion of frequency ω has, so that
    hydrogens have the mean of γ(ω) over their density of states. Heavy atoms are counted as slow,
    which they are for the most part, and which makes the heating that is predicted the larger.

    Parameters
    ----------
    vdos : Spectrum or None
        Of the hydrogens, in the run.

    Returns
    -------
    ndarray or None
        None for coloured noise if there are hydrogens whose vibrations are not known.
    """
    slow = friction_of(numbers, point.friction_per_ps, point.hydrogen_friction_per_ps).numpy()
    hydrogen = numbers == 1
    if not point.high_pass or not hydrogen.any():
        return slow
    if vdos is None:
        return None
    angular = 2.0 * math.pi * LIGHT_CM_FS * vdos.wavenumber_cm1
    friction = _FS_PER_PS * high_pass_noise(point.friction_per_ps).friction(angular)
    mean = float((friction * vdos.density).sum() / vdos.density.sum())
    return np.where(hydrogen, mean, slow)
