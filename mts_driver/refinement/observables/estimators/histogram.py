"""Smooth histograms, whose memory is that of the values and not of values times points."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from mts_driver.errors import UserError
from mts_driver.refinement.observables.arguments import Numbers
from mts_driver.refinement.observables.estimators.kernel import CUT, density, slope

BLOCK = 2**18
"""Values times points that are held at a time."""


def smooth_histogram(
    values: Tensor, weights: Tensor, rows: Tensor, points: Tensor, *, width: float, n_rows: int
) -> Tensor:
    """Estimate densities: h[f, b] = Σ_{p in row f} w_p K(x_b - v_p).

    Parameters
    ----------
    values : Tensor, shape (P,)
        v; gradients go to them, once.
    weights : Tensor, shape (P,)
        w, constants.
    rows : int64 Tensor, shape (P,)
        Which histogram a value counts for.
    points : Tensor, shape (B,)
        x, ascending; see `as_points`.
    width : float
        Of the kernel K, as `kernel` has it, in the unit of the values.
    n_rows : int
        Number of histograms.

    Returns
    -------
    Tensor, shape (n_rows, B)
        Per unit of the values; the integral of a row is the sum of its weights.
    """
    x = points.to(values)
    found: Tensor = _SmoothHistogram.apply(values, weights, rows, x, width, n_rows)
    return found


def as_points(points: Numbers, width: float, name: str, width_name: str) -> Tensor:
    """Return points as ascending float64 (B,).

    Raises
    ------
    UserError
        If they are not ascending, finite and not negative, or the width is not positive.
    """
    x = torch.as_tensor(points, dtype=torch.float64).detach().contiguous()
    good = x.ndim == 1 and x.numel() > 0 and bool(x.isfinite().all())
    if not good or bool((x.diff() <= 0).any()) or float(x[0]) < 0:
        raise UserError(f"{name} must be finite and ascend from 0 or above, shape (B,): sort them.")
    if not 0 < width < torch.inf:
        raise UserError(f"{width_name} is {width}: give a length above 0, such as 0.05.")
    return x


class _SmoothHistogram(torch.autograd.Function):
    """Points that values reach, a block at a time; found again for the gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        weights: Tensor,
        rows: Tensor,
        points: Tensor,
        width: float,
        n_rows: int,
    ) -> Tensor:
        histogram = values.new_zeros(n_rows * len(points))
        for block, bins, u in _reached(values, rows, points, width):
            shares = weights[block, None] * density(u) / width
            histogram.index_add_(0, bins.flatten(), shares.flatten())
        ctx.save_for_backward(values, weights, rows, points)
        ctx.width = width
        return histogram.view(n_rows, len(points))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        values, weights, rows, points = ctx.saved_tensors
        gradient, flat = torch.empty_like(values), upstream.reshape(-1)
        for block, bins, u in _reached(values, rows, points, ctx.width):
            gradient[block] = (slope(u) * flat[bins]).sum(1) * -weights[block] / ctx.width**2
        return gradient, None, None, None, None, None


def _reached(
    values: Tensor, rows: Tensor, points: Tensor, width: float
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield blocks of values, with the bins and the (x_b - v)/width of all that they may reach."""
    reach = CUT * width
    ends = torch.searchsorted(points, points + 2 * reach, right=True)
    window = torch.arange(int((ends - torch.arange(len(points)).to(ends)).max())).to(ends)
    beyond = torch.cat([points, points.new_full((len(window),), torch.inf)])
    size = max(1, BLOCK // len(window))
    for start in range(0, len(values), size):
        block = slice(start, start + size)
        lowest = torch.searchsorted(points, (values[block] - reach).contiguous())
        reached = lowest[:, None] + window
        u = (beyond[reached] - values[block, None]) / width
        yield block, rows[block, None] * len(points) + reached.clamp(max=len(points) - 1), u
