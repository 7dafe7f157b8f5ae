"""The student's networks on a device, a thread for each atom and output."""

from functools import cache
from typing import Any, NamedTuple

from integrators.device.launches import warp

PLAIN, ACTIVATE, SLOPE = 0, 1, 2
"""How a layer ends: as it is, with x·σ(x) beside it, or times the derivative of that."""


class NetworkKernels(NamedTuple):
    """Kernels for one precision; see their comments for the shape of a launch."""

    layer: Any
    message: Any
    message_back: Any
    energy: Any
    weights_back: Any


@cache
def network_kernels(double: bool) -> NetworkKernels:
    """Return the kernels in float64 or float32."""
    wp = warp()
    number = wp.float64 if double else wp.float32
    kernel = wp.kernel(enable_backward=False, module="unique")
    numbers, numbers_2d, numbers_3d = (wp.array(dtype=number, ndim=axes) for axes in (1, 2, 3))
    integers = wp.array(dtype=int)

    @wp.func
    def sigmoid(x: number):
        return number(1.0) / (number(1.0) + wp.exp(-x))

    @wp.func
    def silu_slope(x: number):
        s = sigmoid(x)
        return s * (number(1.0) + x * (number(1.0) - s))

    # (M, out): out = start + x W of the atom's element, where start is the bias or what is there
    @kernel
    def layer(
        kind: integers,
        x: numbers_2d,
        weights: numbers_3d,
        bias: numbers_2d,
        add: int,
        end: int,
        out: numbers_2d,
        beside: numbers_2d,
    ):
        a, h = wp.tid()
        e, s = kind[a], number(0.0)
        if add == 1:
            s = out[a, h]
        elif bias.shape[0] > 0:
            s = bias[e, h]
        for k in range(x.shape[1]):
            s += x[a, k] * weights[e, k, h]
        if end == wp.static(ACTIVATE):
            beside[a, h] = s * sigmoid(s)
        elif end == wp.static(SLOPE):
            s = s * silu_slope(beside[a, h])
        out[a, h] = s

    # (M, P): what an atom tells, 1 and a bounded number; bound is 1/b²
    @kernel
    def message(raw: numbers_2d, bound: number, out: numbers_2d):
        a, c = wp.tid()
        x = raw[a, c]
        out[a, c] = number(1.0) + x / wp.sqrt(number(1.0) + bound * x * x)

    # (M, P): from the gradient by that to the one by the number before it was bounded
    @kernel
    def message_back(raw: numbers_2d, bound: number, gradient: numbers_2d):
        a, c = wp.tid()
        x = number(1.0) / wp.sqrt(number(1.0) + bound * raw[a, c] * raw[a, c])
        gradient[a, c] = gradient[a, c] * x * x * x

    # (M,): x·w, and the repulsion that the threads of an atom have found
    @kernel
    def energy(
        kind: integers,
        x: numbers_2d,
        weights: numbers_2d,
        repulsion: numbers_2d,
        out: numbers,
    ):
        a = wp.tid()
        e, s = kind[a], number(0.0)
        for k in range(repulsion.shape[1]):
            s += repulsion[a, k]
        for h in range(x.shape[1]):
            s += x[a, h] * weights[e, h]
        out[a] = s

    # (M, H): gradient of that by what was before x·σ(x)
    @kernel
    def weights_back(
        kind: integers,
        before: numbers_2d,
        weights: numbers_2d,
        out: numbers_2d,
    ):
        a, h = wp.tid()
        out[a, h] = weights[kind[a], h] * silu_slope(before[a, h])

    return NetworkKernels(layer, message, message_back, energy, weights_back)
