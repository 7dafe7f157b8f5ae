"""Real spherical harmonics in a dozen operations, where each costs a GPU a launch.

Those of degree l are sums of products of those of degrees l − 1 and 1, and the gradient of
rˡ Y_l is a sum of rˡ⁻¹ Y_{l−1}, which takes four operations for all degrees. The constants of
both are fitted to `mts_driver.potentials.so3lr.network.harmonics`, which says what is meant.
"""

from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mts_driver.potentials.so3lr.network import harmonics

DEGREES = 4
POINTS = 200


class _Constants(NamedTuple):
    """First degree (3, 3), products by degree, and the gradient (1 + 3 + 5 + 7, 3 · 24)."""

    first: Tensor
    products: tuple[Tensor, ...]
    gradient: Tensor


def fast_harmonics(unit: Tensor) -> Tensor:
    """Those of degrees 1 to 4 of unit vectors (P, 3), shape (P, 24).

    Gradients differ from those of `harmonics` along the vectors alone, which a unit vector never
    follows.
    """
    found: Tensor = _Function.apply(unit)
    return found


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, unit: Tensor) -> Tensor:
        constants = _constants(unit.device, unit.dtype)
        found = [unit @ constants.first]
        for product in constants.products:
            both = (found[-1][:, :, None] * found[0][:, None, :]).flatten(1)
            found.append(both @ product)
        out = torch.cat(found, -1)
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (out,) = ctx.saved_tensors
        lower = torch.cat((torch.ones_like(out[:, :1]), out[:, : -2 * DEGREES - 1]), -1)
        slopes = lower @ _constants(out.device, out.dtype).gradient
        return (slopes.view(len(out), 3, -1) * grad[:, None, :]).sum(-1)


@cache
@torch.enable_grad()
def _constants(device: torch.device, dtype: torch.dtype) -> _Constants:
    generator = torch.Generator().manual_seed(1)
    points = torch.randn(POINTS, 3, dtype=torch.float64, generator=generator)
    points = (points / points.norm(dim=-1, keepdim=True)).requires_grad_()
    sizes = [2 * degree + 1 for degree in range(1, DEGREES + 1)]
    r = points.norm(dim=-1, keepdim=True)
    by_degree = harmonics(points / r).split(sizes, -1)
    solid = [r ** (k + 1) * y for k, y in enumerate(by_degree)]

    def fitted(to: Tensor, what: Tensor) -> Tensor:
        # gelsd: products of harmonics depend on each other on a sphere
        return torch.linalg.lstsq(to, what, driver="gelsd").solution

    def slope(y: Tensor) -> Tensor:
        columns = [torch.autograd.grad(c.sum(), points, retain_graph=True)[0] for c in y.unbind(-1)]
        return torch.stack(columns, -1)  # (POINTS, 3, 2l + 1)

    gradient = torch.zeros(1 + sum(sizes[:-1]), 3, sum(sizes), dtype=torch.float64)
    lower = [torch.ones_like(r.detach()), *(y.detach() for y in by_degree[:-1])]
    row = column = 0
    for below, y, size in zip(lower, solid, sizes, strict=True):
        found = fitted(below, slope(y).flatten(1)).view(below.shape[1], 3, size)
        gradient[row : row + below.shape[1], :, column : column + size] = found
        row, column = row + below.shape[1], column + size
    values = [y.detach() for y in by_degree]
    products = [
        fitted((a[:, :, None] * values[0][:, None, :]).flatten(1), b) for a, b in pairwise(values)
    ]
    first, slopes = fitted(points.detach(), values[0]), gradient.flatten(1)
    made = (t.to(device, dtype).contiguous() for t in (first, *products, slopes))
    one, *more, last = made
    return _Constants(one, tuple(more), last)
