"""Energies of a pair as functions of its distance, by the names of their parameters.

All end at the cutoff, where the factor (1 − x²)³ of x = r/r_cut takes them to zero with two
continuous derivatives, so that forces and their slopes are those of the energy everywhere.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

COULOMB_EV_A = 14.399645
"""e²/(4π ε₀), eV Å."""

Function = Callable[..., Tensor]


def cut(r: Tensor, cutoff_A: float) -> Tensor:
    """(1 − (r/cutoff)²)³ within the cutoff, zero beyond."""
    return (1.0 - (r / cutoff_A) ** 2).clamp_min(0.0) ** 3


def lennard_jones(r: Tensor, epsilon_eV: Tensor, sigma_A: Tensor) -> Tensor:
    """4ε((σ/r)¹² − (σ/r)⁶)."""
    sixth = (sigma_A / r) ** 6
    return 4.0 * epsilon_eV * (sixth * sixth - sixth)


def soft_core(r: Tensor, epsilon_eV: Tensor, sigma_A: Tensor, softness: Tensor) -> Tensor:
    """Lennard-Jones with (r/σ)⁶ + softness for (r/σ)⁶: finite at r = 0.

    Beutler et al., Chem. Phys. Lett. 1994, 222, 529, where softness is α(1 − λ)² at λ = 1.
    """
    inverse = 1.0 / ((r / sigma_A) ** 6 + softness)
    return 4.0 * epsilon_eV * (inverse * inverse - inverse)


def buckingham(r: Tensor, A_eV: Tensor, rho_A: Tensor, C_eV_A6: Tensor) -> Tensor:
    """Exp-6, A exp(−r/ρ) − C/r⁶, with the attraction damped at short r, where it would win.

    The damping is that of Tang and Toennies, J. Chem. Phys. 1984, 80, 3726, with b = 1/ρ: at equal
    decay the energy stays finite, and positive where A is large enough.
    """
    x = r / rho_A
    terms, one = torch.ones_like(x), torch.ones_like(x)
    for k in range(1, 7):
        one = one * x / k
        terms = terms + one
    return A_eV * torch.exp(-x) - C_eV_A6 / r**6 * (1.0 - torch.exp(-x) * terms)


def double_exponential(
    r: Tensor, epsilon_eV: Tensor, minimum_A: Tensor, alpha: Tensor, beta: Tensor
) -> Tensor:
    """ε/(α − β) (β e^{α(1 − r/r_m)} − α e^{β(1 − r/r_m)}), whose minimum is −ε at r_m.

    Man et al., J. Chem. Theory Comput. 2021, 17, 5515; α = 16.766, β = 4.427 resemble 12-6.
    """
    x = 1.0 - r / minimum_A
    return epsilon_eV / (alpha - beta) * (beta * torch.exp(alpha * x) - alpha * torch.exp(beta * x))


def damped_coulomb(r: Tensor, charges_e2: Tensor, damping_A: float, cutoff_A: float) -> Tensor:
    """Damped shifted force of Fennell and Gezelter, J. Chem. Phys. 2006, 124, 234104.

    Energy and force go to zero at the cutoff; the slope of the force has a step there.
    """
    at_cut = math.erfc(damping_A * cutoff_A) / cutoff_A
    gaussian = 2.0 * damping_A / math.sqrt(math.pi) * math.exp(-((damping_A * cutoff_A) ** 2))
    slope = (at_cut + gaussian) / cutoff_A
    inside = torch.erfc(damping_A * r) / r - at_cut + slope * (r - cutoff_A)
    return COULOMB_EV_A * charges_e2 * inside


def arithmetic(a: Tensor, b: Tensor) -> Tensor:
    """Mean."""
    return 0.5 * (a + b)


def geometric(a: Tensor, b: Tensor) -> Tensor:
    """Geometric mean."""
    return (a * b).sqrt()


@dataclass(frozen=True)
class Form:
    """A form of the van der Waals energy.

    Attributes
    ----------
    function : callable
        Of the distance and its parameters.
    mixing : mapping of str to callable
        By the parameters of a kind of atom: how those of two kinds are combined.
    shared : mapping of str to float
        Parameters that all kinds share, and their usual values.
    """

    function: Function
    mixing: Mapping[str, Callable[[Tensor, Tensor], Tensor]]
    shared: Mapping[str, float]


FORMS = {
    "lennard-jones": Form(lennard_jones, {"epsilon_eV": geometric, "sigma_A": arithmetic}, {}),
    "soft-core": Form(
        soft_core, {"epsilon_eV": geometric, "sigma_A": arithmetic}, {"softness": 0.05}
    ),
    "buckingham": Form(
        buckingham, {"A_eV": geometric, "rho_A": arithmetic, "C_eV_A6": geometric}, {}
    ),
    "double-exponential": Form(
        double_exponential,
        {"epsilon_eV": geometric, "minimum_A": arithmetic},
        {"alpha": 16.766, "beta": 4.427},
    ),
}
"""Lorentz-Berthelot mixing, and its analogue for exp-6."""
