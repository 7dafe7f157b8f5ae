"""How much the Euclidean features of two atoms differ, degree by degree, on a device."""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from integrators.device.launches import launch, warp

THREADS, DEGREES = 128, 4


def contrast(
    ev: Tensor, i: Tensor, j: Tensor, rows: Any, factors: Tensor, degree: Tensor
) -> Tensor:
    """Return Σ_m c_m (ev_i − ev_j)² over the components of each degree, of every pair.

    Parameters
    ----------
    ev : Tensor, shape (M, 24)
        Euclidean features; the result can be differentiated by them.
    i, j : int64 Tensor, shape (P,)
        Atoms of pairs.
    rows : Rows
        Of the same.
    factors : Tensor, shape (24,)
        Of the components.
    degree : int32 Tensor, shape (24,)
        Of the components, from 0 on.
    """
    found: Tensor = _Function.apply(ev, i, j, rows, factors, degree)
    return found


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx, ev, i, j, rows, factors, degree):
        ev = ev.contiguous()
        out = ev.new_zeros(len(i), DEGREES)
        forth, _ = contrast_kernels(ev.dtype == torch.float64)
        launch(forth, tuple(out.shape), ev, i, j, factors, degree, out, block=THREADS)
        ctx.rows = rows
        ctx.save_for_backward(ev, factors, degree)
        return out

    @staticmethod
    def backward(ctx, by_out):
        ev, factors, degree = ctx.saved_tensors
        _, back = contrast_kernels(ev.dtype == torch.float64)
        by_ev, (entries, others, count, *_) = torch.empty_like(ev), ctx.rows
        given = ev, entries, others, count, factors, degree, by_out.contiguous()
        launch(back, tuple(ev.shape), *given, by_ev, block=THREADS)
        return by_ev, None, None, None, None, None


@cache
def contrast_kernels(double: bool) -> tuple[Any, Any]:
    """Return the kernels forth and back, in float64 or float32."""
    wp = warp()
    number = wp.float64 if double else wp.float32
    numbers, numbers_2d = wp.array(dtype=number), wp.array2d(dtype=number)
    whole, whole_2d, long = wp.array(dtype=int), wp.array2d(dtype=int), wp.array(dtype=wp.int64)
    kernel = wp.kernel(enable_backward=False, module="unique")

    # (P, degrees)
    @kernel
    def forth(ev: numbers_2d, i: long, j: long, factors: numbers, degree: whole, out: numbers_2d):
        p, order = wp.tid()
        a, b, total = int(i[p]), int(j[p]), number(0.0)
        for m in range(ev.shape[1]):
            if degree[m] == order:
                d = ev[a, m] - ev[b, m]
                total += factors[m] * d * d
        out[p, order] = total

    # (M, 24): every atom gathers from its pairs
    @kernel
    def back(
        ev: numbers_2d,
        entries: whole_2d,
        others: whole_2d,
        count: whole,
        factors: numbers,
        degree: whole,
        by_out: numbers_2d,
        by_ev: numbers_2d,
    ):
        a, m = wp.tid()
        total = number(0.0)
        for k in range(count[a]):
            total += by_out[entries[a, k] // 2, degree[m]] * (ev[a, m] - ev[others[a, k], m])
        by_ev[a, m] = number(2.0) * factors[m] * total

    return forth, back
