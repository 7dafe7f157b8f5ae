"""The kernel of smooth histograms: a Gaussian, cut off where it is small.

k(u) = (exp(-u²/2) - exp(-c²/2)) / A for |u| < c = 4, and zero beyond; A makes its integral one.
Without a step at the cut, estimates stay continuous in what they are taken of.
"""

import math

import torch
from torch import Tensor

CUT = 4.0
"""In widths."""
FLOOR = math.exp(-0.5 * CUT**2)
_GAUSSIAN_AREA = math.sqrt(2.0 * math.pi) * math.erf(CUT / math.sqrt(2.0))
AREA = _GAUSSIAN_AREA - 2.0 * CUT * FLOOR


def density(u: Tensor) -> Tensor:
    """Return k(u)."""
    return torch.where(u.abs() < CUT, (torch.exp(-0.5 * u.square()) - FLOOR) / AREA, 0.0)


def slope(u: Tensor) -> Tensor:
    """Return dk/du."""
    return torch.where(u.abs() < CUT, -u * torch.exp(-0.5 * u.square()) / AREA, 0.0)


def cumulative(u: Tensor) -> Tensor:
    """Return the integral of k from -∞ to u: a smooth step from 0 to 1."""
    inside = u.clamp(-CUT, CUT)
    gaussian = math.sqrt(0.5 * math.pi) * torch.erf(inside / math.sqrt(2.0))
    return 0.5 + (gaussian - FLOOR * inside) / AREA


def shell_A2(r_A: Tensor, width_A: float) -> Tensor:
    """Return 4π ∫ d² K(r - d) dd over d > 0, the volume per length of an estimate at r, Å².

    K(x) = k(x/w)/w has the width w. It is 4π (r² + w²) and a little less, but near r = 0, where
    a part of the kernel reaches to negative distances and is lost.
    """
    r = r_A.double()
    a = (-r / width_A).clamp(-CUT, CUT)
    edge = torch.exp(-0.5 * a.square())
    root = math.sqrt(0.5 * math.pi)
    gaussian = root * (math.erf(CUT / math.sqrt(2.0)) - torch.erf(a / math.sqrt(2.0)))
    # moments of k over a < u < c
    zeroth = gaussian - FLOOR * (CUT - a)
    first = edge - FLOOR - FLOOR * (CUT**2 - a**2) / 2
    second = gaussian + a * edge - CUT * FLOOR - FLOOR * (CUT**3 - a**3) / 3
    moments = r.square() * zeroth + 2 * r * width_A * first + width_A**2 * second
    return (4 * math.pi / AREA * moments).to(r_A.dtype)
