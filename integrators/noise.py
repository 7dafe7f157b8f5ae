"""Standard normal numbers that a key and a counter give, the same ones on every device.

Philox4x32-10 (Salmon, Moraes, Dror, Shaw, SC'11) mixes a seed with (block, operation, step) into
128 random bits. Two uniform numbers of 53 bits each give two normal ones (Box and Muller, 1958).
Nothing is stored: a restarted or replayed run sees the same numbers, and a process that has some of
the atoms draws theirs alone. `integrators.device.numbers` draws them on a device.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

Noise = Callable[[int, int, Tensor], Tensor]
"""noise(step, op, like): standard normal numbers of the shape, precision and device of ``like``."""
WORD = 0xFFFFFFFF
FIRST_FACTOR, SECOND_FACTOR = 0xD2511F53, 0xCD9E8D57
FIRST_KEY_STEP, SECOND_KEY_STEP = 0x9E3779B9, 0xBB67AE85
ROUNDS = 10
UNIT = 2.0**-53


class Counter(NamedTuple):
    """A step of a `CounterNoise`, whose numbers are drawn where they are needed."""

    seed: int
    step: int

    def words(self) -> list[int]:
        """Return seed and step as two words of 32 bits each, the low one first."""
        return [part for n in map(int, self) for part in (n & WORD, n >> 32 & WORD)]


@dataclass(frozen=True)
class CounterNoise:
    """A `Noise` that depends on (seed, step, op) and on nothing else.

    Attributes
    ----------
    seed : int
        0 to 2⁶⁴ − 1.

    Raises
    ------
    ValueError
        If it is not.
    """

    seed: int

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"seed is {self.seed}; it must be zero or positive, and below 2**64")

    def __call__(self, step: int, op: int, like: Tensor) -> Tensor:
        """Draw numbers of the shape, precision and device of ``like``."""
        out = np.empty(like.numel())
        _draw(out, op, *Counter(self.seed, step).words())
        return torch.from_numpy(out).view(like.shape).to(like)

    def of_atoms(self, step: int, op: int, shape: tuple[int, ...], atoms: np.ndarray) -> np.ndarray:
        """Draw those of some atoms alone, shape (..., A, 3), out of ``shape`` (..., N, 3)."""
        *rows, natoms, three = shape
        starts = natoms * np.arange(math.prod(rows), dtype=np.int64)[:, None] + atoms
        places = (three * starts[..., None] + np.arange(three)).reshape(-1)
        out = np.empty(places.size)
        _draw_at(out, places, op, *Counter(self.seed, step).words())
        return out.reshape(*rows, len(atoms), three)


@njit(cache=True)
def _philox(c0, c1, c2, c3, k0, k1):
    """Return four words of 32 random bits; words are int64.

    Products of two words overflow the sign, and wrap: their bits stay right.
    """
    for _ in range(ROUNDS):
        first, second = FIRST_FACTOR * c0, SECOND_FACTOR * c2
        c0, c1, c2, c3 = (
            (second >> 32 & WORD) ^ c1 ^ k0,
            second & WORD,
            (first >> 32 & WORD) ^ c3 ^ k1,
            first & WORD,
        )
        k0, k1 = k0 + FIRST_KEY_STEP & WORD, k1 + SECOND_KEY_STEP & WORD
    return c0, c1, c2, c3


@njit(cache=True)
def _joined(high, low):
    """Return 53 bits of two words as one number."""
    return ((high >> 5) << 26) + (low >> 6)


@njit(cache=True)
def _pair(block, op, seed_low, seed_high, step_low, step_high):
    a, b, c, d = _philox(block, op, step_low, step_high, seed_low, seed_high)
    radius = math.sqrt(-2.0 * math.log(1.0 - _joined(a, b) * UNIT))
    angle = 2.0 * math.pi * _joined(c, d) * UNIT
    return radius * math.cos(angle), radius * math.sin(angle)


@njit(cache=True)
def _draw(out, op, seed_low, seed_high, step_low, step_high):
    """Fill ``out``."""
    for block in range((out.size + 1) // 2):
        one, other = _pair(block, op, seed_low, seed_high, step_low, step_high)
        out[2 * block] = one
        if 2 * block + 1 < out.size:
            out[2 * block + 1] = other


@njit(cache=True)
def _draw_at(out, places, op, seed_low, seed_high, step_low, step_high):
    """Fill ``out`` with the numbers that `_draw` has at ``places``, which ascend."""
    before, one, other = -1, 0.0, 0.0
    for k in range(places.size):
        block = places[k] // 2
        if block != before:
            one, other = _pair(block, op, seed_low, seed_high, step_low, step_high)
            before = block
        out[k] = other if places[k] % 2 else one
