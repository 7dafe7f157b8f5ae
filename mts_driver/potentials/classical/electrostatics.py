"""Damped shifted electrostatics of charges, without a lattice sum."""

import math

import torch
from torch import Tensor

from mts_driver.units import BOHR_A, HARTREE_EV

COULOMB_EV_A = HARTREE_EV * BOHR_A
"""e²/4πε₀, eV Å."""


def damped_shifted_force(
    r: Tensor, order: int, *, alpha_per_A: float, cutoff_A: float
) -> tuple[Tensor, ...]:
    """V = erfc(αr)/r − erfc(αR)/R + F (r − R), where F makes v′(R) = 0.

    Fennell and Gezelter, J. Chem. Phys. 124, 234104 (2006), without the energy of charges with
    themselves.

    Parameters
    ----------
    r : Tensor, shape (P,)
        Å.
    order : int
        How many derivatives are returned behind v, in 1/Å.
    alpha_per_A, cutoff_A : float
        α and R.
    """
    gauss = 2.0 * alpha_per_A / math.sqrt(math.pi)
    at_end = math.erfc(alpha_per_A * cutoff_A) / cutoff_A
    pull = (at_end + gauss * math.exp(-((alpha_per_A * cutoff_A) ** 2))) / cutoff_A
    inverse = 1.0 / r
    screened = torch.erfc(alpha_per_A * r) * inverse
    found = [screened + (pull * r - (at_end + pull * cutoff_A))]
    if order > 0:
        density = gauss * torch.exp(-((alpha_per_A * r).square()))
        falling = (screened + density) * inverse
        found.append(pull - falling)
    if order > 1:
        found.append(2.0 * (falling * inverse + alpha_per_A**2 * density))
    return tuple(found)
