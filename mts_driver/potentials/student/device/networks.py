"""The layers of the student's networks for one atom, whose threads share inputs and outputs."""

from functools import cache
from typing import Any, NamedTuple

from integrators.device.launches import warp


class Networks(NamedTuple):
    """Functions for one precision."""

    layer: Any
    total: Any
    silu: Any
    silu_slope: Any
    shrinks: Any


@cache
def networks(double: bool) -> Networks:
    """Return the functions in float64 or float32."""
    wp = warp()
    number = wp.float64 if double else wp.float32
    numbers_2d, numbers_3d = (wp.array(dtype=number, ndim=axes) for axes in (2, 3))

    # parts (M, S, W): what every S-th input x (M, K) gives to x W, weights (E, K, W)
    @wp.func
    def layer(
        a: int, t: int, threads: int, e: int, x: numbers_2d, weights: numbers_3d, parts: numbers_3d
    ):
        width, slices = parts.shape[2], parts.shape[1]
        for i in range(t, width * slices, threads):
            h, part, s = i % width, i // width, number(0.0)
            for k in range(part, x.shape[1], slices):
                s += x[a, k] * weights[e, k, h]
            parts[a, part, h] = s

    @wp.func
    def total(parts: numbers_3d, a: int, h: int):
        s = number(0.0)
        for k in range(parts.shape[1]):
            s += parts[a, k, h]
        return s

    @wp.func
    def silu(x: number):
        return x / (number(1.0) + wp.exp(-x))

    @wp.func
    def silu_slope(x: number):
        s = number(1.0) / (number(1.0) + wp.exp(-x))
        return s * (number(1.0) + x * (number(1.0) - s))

    # by which x / √(1 + x²/b²) is less than x; its cube is the slope; bound is 1/b²
    @wp.func
    def shrinks(x: number, bound: number):
        return number(1.0) / wp.sqrt(number(1.0) + bound * x * x)

    return Networks(layer, total, silu, silu_slope, shrinks)
