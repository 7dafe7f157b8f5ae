"""Van der Waals functions of a distance, with first and second derivatives written out.

Each takes distances r (P,), an order n and parameters, scalars or (P,), and returns φ and its first
n derivatives.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from mts_driver.errors import UserError

Mixing = Callable[[Tensor, Tensor], Tensor]


def lennard_jones(
    r: Tensor, order: int, *, epsilon_eV: Tensor, sigma_A: Tensor
) -> tuple[Tensor, ...]:
    """φ = 4ε [(σ/r)¹² − (σ/r)⁶]."""
    s2 = (sigma_A / r).square()
    s6 = s2 * s2 * s2
    depth = 4.0 * epsilon_eV * s6
    found = [depth * (s6 - 1.0)]
    if order > 0:
        found.append(depth * (6.0 - 12.0 * s6) / r)
    if order > 1:
        found.append(depth * (156.0 * s6 - 42.0) / r.square())
    return tuple(found)


def soft_core(
    r: Tensor,
    order: int,
    *,
    epsilon_eV: Tensor,
    sigma_A: Tensor,
    softness: Tensor,
    coupling: Tensor,
) -> tuple[Tensor, ...]:
    """φ = 4ελ (u² − u), 1/u = α(1 − λ) + (r/σ)⁶; finite at r = 0 for λ < 1.

    α is ``softness`` and λ ``coupling``; λ = 1 is the Lennard-Jones function. Beutler et al., Chem.
    Phys. Lett. 222, 529 (1994), with the exponents 1, 1 and 6.
    """
    x = (r / sigma_A).pow(6)
    u = 1.0 / (softness * (1.0 - coupling) + x)
    depth = 4.0 * epsilon_eV * coupling
    found = [depth * (u * u - u)]
    if order > 0:
        slope = 6.0 * depth * x * u * u
        found.append(slope * (1.0 - 2.0 * u) / r)
    if order > 1:
        found.append(slope * (5.0 * (1.0 - 2.0 * u) - 12.0 * x * u * (1.0 - 3.0 * u)) / r.square())
    return tuple(found)


def double_exponential(
    r: Tensor, order: int, *, epsilon_eV: Tensor, r_min_A: Tensor, alpha: Tensor, beta: Tensor
) -> tuple[Tensor, ...]:
    """φ = ε/(α − β) [β exp(α(1 − r/r_m)) − α exp(β(1 − r/r_m))], of depth ε at r_m.

    Wu and Brooks, AIP Advances 9, 065304 (2019); as a force field Horton et al., Digital Discovery
    2, 1178 (2023). With α = 16.766 and β = 4.427 it is close to the Lennard-Jones function.
    """
    ratio = 1.0 - r / r_min_A
    near, far = torch.exp(alpha * ratio), torch.exp(beta * ratio)
    depth = epsilon_eV / (alpha - beta)
    found = [depth * (beta * near - alpha * far)]
    slope = depth * alpha * beta / r_min_A
    if order > 0:
        found.append(slope * (far - near))
    if order > 1:
        found.append(slope / r_min_A * (alpha * near - beta * far))
    return tuple(found)


def buckingham(
    r: Tensor, order: int, *, A_eV: Tensor, B_per_A: Tensor, C_eV_A6: Tensor, wall_A: float
) -> tuple[Tensor, ...]:
    """φ = A exp(−B r) − C/r⁶, continued within ``wall_A`` by its Taylor series of second order.

    Without that it falls to −∞ at r = 0. The wall must be where the function is repulsive and
    curved upwards, so that the continuation is a repulsion; φ″ is continuous.

    Raises
    ------
    UserError
        If the function is not so at the wall.
    """
    wall = r.new_tensor(wall_A)
    _, slope, curve = _exp_6(wall, A_eV.detach(), B_per_A.detach(), C_eV_A6.detach())
    if not bool((slope < 0.0).all() & (curve > 0.0).all()):
        raise UserError(
            f"wall_A={wall_A:g} is where A exp(−B r) − C/r⁶ is no repulsion for A_eV="
            f"{A_eV.tolist()}, B_per_A={B_per_A.tolist()}, C_eV_A6={C_eV_A6.tolist()}: give a wall "
            "further out, but within the repulsion, or other parameters."
        )
    beyond = r.clamp_min(wall_A)
    within = r - beyond
    found = _exp_6(beyond, A_eV, B_per_A, C_eV_A6)
    value, slope, curve = found
    found = (value + within * (slope + 0.5 * within * curve), slope + within * curve, curve)
    return found[: order + 1]


def _exp_6(r: Tensor, a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    repulsion, inverse = a * torch.exp(-b * r), r.reciprocal()
    attraction = c * inverse.square().pow(3)
    return (
        repulsion - attraction,
        6.0 * attraction * inverse - b * repulsion,
        b * b * repulsion - 42.0 * attraction * inverse.square(),
    )


def harmonic(q: Tensor, order: int, k: Tensor, rest: Tensor) -> tuple[Tensor, ...]:
    """φ = ½ k (q − q₀)² of a distance or an angle."""
    away = q - rest
    pull = k * away
    return (0.5 * pull * away, pull, k * torch.ones_like(q))[: order + 1]


def arithmetic(first: Tensor, second: Tensor) -> Tensor:
    """Mean."""
    return 0.5 * (first + second)


def geometric(first: Tensor, second: Tensor) -> Tensor:
    """√(ab)."""
    return torch.sqrt(first * second)


def of_inverses(first: Tensor, second: Tensor) -> Tensor:
    """2/(1/a + 1/b)."""
    return 2.0 * first * second / (first + second)


class Form(NamedTuple):
    """A van der Waals function and what its parameters are.

    Attributes
    ----------
    function : callable
        ``function(r, order, **parameters)``.
    of_types : dict of str to callable
        Parameters of each type of atoms, and how two make that of a pair (Lorentz-Berthelot).
    shared : dict of str to float
        Parameters that all types have in common, with their defaults.
    constants : tuple of str
        Numbers in common that are never fitted.
    """

    function: Callable[..., tuple[Tensor, ...]]
    of_types: dict[str, Mixing]
    shared: dict[str, float] = {}  # noqa: RUF012 (never modified)
    constants: tuple[str, ...] = ()


FORMS = {
    "lennard-jones": Form(lennard_jones, {"epsilon_eV": geometric, "sigma_A": arithmetic}),
    "soft-core": Form(
        soft_core,
        {"epsilon_eV": geometric, "sigma_A": arithmetic},
        {"softness": 0.5, "coupling": 0.9},
    ),
    "double-exponential": Form(
        double_exponential,
        {"epsilon_eV": geometric, "r_min_A": arithmetic},
        {"alpha": 16.766, "beta": 4.427},
    ),
    "buckingham": Form(
        buckingham,
        {"A_eV": geometric, "B_per_A": of_inverses, "C_eV_A6": geometric},
        constants=("wall_A",),
    ),
}
"""By the names that files give them."""
