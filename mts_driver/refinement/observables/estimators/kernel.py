"""The kernel of smooth histograms: a Gaussian, cut off where it is small.

k(u) = (exp(-s) - exp(-s') (1 + s' - s)) / A with s = u²/2 for |u| < c = 4, s' = c²/2, and zero
beyond; A makes its integral one. Neither it nor its slope has a step at the cut, so that gradients
of what is estimated are continuous, too. Its standard deviation is 0.991.
"""

import math

import torch
from torch import Tensor

CUT = 4.0
"""In widths."""
_S = 0.5 * CUT**2
_FLOOR = math.exp(-_S)
_ROOT = math.sqrt(0.5 * math.pi)
_WHOLE = _ROOT * math.erf(CUT / math.sqrt(2.0))
AREA = 2.0 * (_WHOLE - _FLOOR * ((1.0 + _S) * CUT - CUT**3 / 6.0))


def density(u: Tensor) -> Tensor:
    """Return k(u)."""
    s = 0.5 * u.square()
    return torch.where(s < _S, (torch.exp(-s) - _FLOOR * (1.0 + _S - s)) / AREA, 0.0)


def slope(u: Tensor) -> Tensor:
    """Return dk/du."""
    s = 0.5 * u.square()
    return torch.where(s < _S, -u * (torch.exp(-s) - _FLOOR) / AREA, 0.0)


def cumulative(u: Tensor) -> Tensor:
    """Return the integral of k from -∞ to u: a smooth step from 0 to 1."""
    v = u.clamp(-CUT, CUT)
    gaussian = _ROOT * torch.erf(v / math.sqrt(2.0))
    return 0.5 + (gaussian - _FLOOR * ((1.0 + _S) * v - v**3 / 6.0)) / AREA


def shell_A2(r_A: Tensor, width_A: float) -> Tensor:
    """Return 4π ∫ d² K(r - d) dd over d > 0, the volume per length of an estimate at r, Å².

    K(x) = k(x/w)/w has the width w. It is 4π (r² + w²) and a little less, but near r = 0, where
    a part of the kernel reaches to negative distances and is lost.
    """
    r = r_A.double()
    a = (-r / width_A).clamp(-CUT, CUT)
    edge = torch.exp(-0.5 * a.square())
    gaussian = _WHOLE - _ROOT * torch.erf(a / math.sqrt(2.0))
    # moments of k over a < u < c: those of the Gaussian, less those of what takes it to zero
    zeroth = gaussian - _floor_moment(a, 0)
    first = edge - _FLOOR - _floor_moment(a, 1)
    second = gaussian + a * edge - CUT * _FLOOR - _floor_moment(a, 2)
    moments = r.square() * zeroth + 2.0 * r * width_A * first + width_A**2 * second
    return (4.0 * math.pi / AREA * moments).to(r_A.dtype)


def _floor_moment(a: Tensor, n: int) -> Tensor:
    """Return ∫ uⁿ exp(-s') (1 + s' - u²/2) du from a to the cut."""
    low = (1.0 + _S) * (CUT ** (n + 1) - a ** (n + 1)) / (n + 1)
    return _FLOOR * (low - 0.5 * (CUT ** (n + 3) - a ** (n + 3)) / (n + 3))
