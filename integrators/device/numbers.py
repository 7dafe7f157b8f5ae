"""Random numbers of thermostat steps, sent by the host or drawn on the device."""

import math
from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from integrators import noise as philox
from integrators.device.launches import Launches, warp
from integrators.noise import Counter
from integrators.splitting import OU, Operation


class RandomNumbers:
    """Standard normal numbers at a fixed place.

    Parameters
    ----------
    splitting : iterable of Operation
        Whose thermostat steps they are for.
    device : torch.device
        Where they lie.
    """

    def __init__(self, splitting: Iterable[Operation], device: torch.device) -> None:
        ops = [k for k, op in enumerate(splitting) if isinstance(op, OU)]
        self._ops = torch.tensor(ops, dtype=torch.int32, device=device)
        self._counter = torch.zeros(4, dtype=torch.int64, device=device)
        self._drawn_here = False
        self._values = torch.zeros(0, dtype=torch.float64, device=device)
        self._launches = Launches(device)

    def __len__(self) -> int:
        return len(self._ops)

    @property
    def values(self) -> Tensor:
        """Those of every thermostat step, of the shape that was allocated."""
        return self._values

    def allocate(self, shape: tuple[int, ...]) -> None:
        """Have room for numbers of this shape for every step."""
        self._values = self._values.new_zeros((len(self), *shape))
        self._launches = Launches(self._values.device)
        if len(self):
            values = self._values.flatten(1)
            dim = len(self), (values.shape[1] + 1) // 2
            self._launches.add(draw_kernel(), dim, self._counter, self._ops, values)

    def send(self, numbers: np.ndarray | Counter) -> bool:
        """Copy numbers, or what they will be drawn from; tell if it was the other one before."""
        was, self._drawn_here = self._drawn_here, isinstance(numbers, Counter)
        if isinstance(numbers, Counter):
            self._counter.copy_(torch.tensor(numbers.words()))
        elif numbers.size:
            self._values.copy_(torch.from_numpy(numbers).view(self._values.shape))
        return was != self._drawn_here

    def draw(self) -> None:
        """Draw them where a counter was sent; waits for nothing."""
        if self._drawn_here:
            self._launches.run()


@cache
def draw_kernel() -> Any:
    """Return the kernel of `integrators.noise`, (n, ⌈size / 2⌉): its numbers to the last digits.

    From ``words`` (4,), `Counter.words` of seed and step, and the numbers of the operations (n,).
    """
    wp = warp()
    word = wp.constant(wp.uint64(philox.WORD))
    first_factor = wp.constant(wp.uint64(philox.FIRST_FACTOR))
    second_factor = wp.constant(wp.uint64(philox.SECOND_FACTOR))
    first_key_step = wp.constant(wp.uint64(philox.FIRST_KEY_STEP))
    second_key_step = wp.constant(wp.uint64(philox.SECOND_KEY_STEP))
    unit, one, two = (wp.constant(wp.float64(x)) for x in (philox.UNIT, 1.0, 2.0))
    turn = wp.constant(wp.float64(2.0 * math.pi))

    @wp.func
    def joined(high: wp.uint64, low: wp.uint64):
        bits = ((high >> wp.uint64(5)) << wp.uint64(26)) + (low >> wp.uint64(6))
        return wp.float64(bits) * unit

    @wp.kernel(enable_backward=False, module="unique")
    def draw(
        words: wp.array(dtype=wp.int64),
        ops: wp.array(dtype=int),
        out: wp.array2d(dtype=wp.float64),
    ):
        n, block = wp.tid()
        half = wp.uint64(32)
        c0, c1 = wp.uint64(block), wp.uint64(ops[n])
        c2, c3 = wp.uint64(words[2]), wp.uint64(words[3])
        k0, k1 = wp.uint64(words[0]), wp.uint64(words[1])
        for _ in range(wp.static(philox.ROUNDS)):
            first, second = first_factor * c0, second_factor * c2
            d1, d3 = second & word, first & word
            c0 = (second >> half) ^ c1 ^ k0
            c2 = (first >> half) ^ c3 ^ k1
            c1 = d1
            c3 = d3
            k0 = (k0 + first_key_step) & word
            k1 = (k1 + second_key_step) & word
        radius = wp.sqrt(-two * wp.log(one - joined(c0, c1)))
        angle = turn * joined(c2, c3)
        out[n, 2 * block] = radius * wp.cos(angle)
        if 2 * block + 1 < out.shape[1]:
            out[n, 2 * block + 1] = radius * wp.sin(angle)

    return draw
