"""Standard normal numbers that a key and a counter give, the same ones on every device.

Philox4x32-10 (Salmon, Moraes, Dror, Shaw, SC'11) mixes a seed with (block, operation, step) into
128 random bits. Two uniform numbers of 53 bits each give two normal ones (Box and Muller, 1958).
Nothing is stored: a restarted or replayed run sees the same numbers, and a process that has some of
the atoms draws theirs alone.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

Noise = Callable[[int, int, Tensor], Tensor]
"""noise(step, op, like): standard normal numbers of the shape, precision and device of ``like``."""
_WORD = 0xFFFFFFFF
_FIRST_FACTOR, _SECOND_FACTOR = 0xD2511F53, 0xCD9E8D57
_FIRST_KEY_STEP, _SECOND_KEY_STEP = 0x9E3779B9, 0xBB67AE85
_ROUNDS = 10
_UNIT = 2.0**-53


class Counter(NamedTuple):
    """A step of a `CounterNoise`, whose numbers are drawn where they are needed."""

    seed: int
    step: int

    def words(self) -> list[int]:
        """Return seed and step as two words of 32 bits each, the low one first."""
        return [part for n in map(int, self) for part in (n & _WORD, n >> 32 & _WORD)]


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
        if like.device.type == "cpu":
            out = np.empty(like.numel())
            _draw(out, op, *Counter(self.seed, step).words())
            drawn = torch.from_numpy(out)
        else:
            words = torch.tensor(Counter(self.seed, step).words(), device=like.device)
            drawn = drawn_on_device(words, torch.tensor([op], device=like.device), like.numel())
        return drawn.view(like.shape).to(like.dtype)

    def of_atoms(self, step: int, op: int, shape: tuple[int, ...], atoms: np.ndarray) -> np.ndarray:
        """Draw those of some atoms alone, shape (..., A, 3), out of ``shape`` (..., N, 3)."""
        *rows, natoms, three = shape
        starts = natoms * np.arange(math.prod(rows), dtype=np.int64)[:, None] + atoms
        places = (three * starts[..., None] + np.arange(three)).reshape(-1)
        out = np.empty(places.size)
        _draw_at(out, places, op, *Counter(self.seed, step).words())
        return out.reshape(*rows, len(atoms), three)


def drawn_on_device(words: Tensor, ops: Tensor, size: int) -> Tensor:
    """Draw the numbers of several operations of a step, on the device of ``words``.

    The same as `CounterNoise` draws on the CPU, but for the last digit of logarithm and cosine.
    Waits for nothing.

    Parameters
    ----------
    words : int64 Tensor, shape (4,)
        `Counter.words` of seed and step.
    ops : int64 Tensor, shape (n,)
        The operations.
    size : int
        Numbers for each.

    Returns
    -------
    float64 Tensor, shape (n, size)
    """
    block = torch.arange((size + 1) // 2, device=words.device).expand(len(ops), -1)
    seed_low, seed_high, step_low, step_high = words.unbind()
    op = ops[:, None].expand_as(block)
    bits = _philox(block, op, step_low, step_high, seed_low, seed_high)
    first, second = (_joined(*two).double() * _UNIT for two in (bits[:2], bits[2:]))
    radius, angle = torch.sqrt(-2.0 * torch.log(1.0 - first)), 2.0 * math.pi * second
    both = torch.stack((radius * torch.cos(angle), radius * torch.sin(angle)), -1)
    return both.flatten(1)[:, :size]


def _philox(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> tuple[Any, Any, Any, Any]:
    """Return four words of 32 random bits; words are int64, as numbers or tensors.

    Products of two words overflow the sign, and wrap: their bits stay right.
    """
    for _ in range(_ROUNDS):
        first, second = _FIRST_FACTOR * c0, _SECOND_FACTOR * c2
        c0, c1, c2, c3 = (
            (second >> 32 & _WORD) ^ c1 ^ k0,
            second & _WORD,
            (first >> 32 & _WORD) ^ c3 ^ k1,
            first & _WORD,
        )
        k0, k1 = k0 + _FIRST_KEY_STEP & _WORD, k1 + _SECOND_KEY_STEP & _WORD
    return c0, c1, c2, c3


def _joined(high: Any, low: Any) -> Any:
    """Return 53 bits of two words as one number."""
    return ((high >> 5) << 26) + (low >> 6)


_compiled_philox, _compiled_joined = njit(_philox), njit(_joined)


@njit(cache=True)
def _pair(block, op, seed_low, seed_high, step_low, step_high):
    a, b, c, d = _compiled_philox(block, op, step_low, step_high, seed_low, seed_high)
    radius = math.sqrt(-2.0 * math.log(1.0 - _compiled_joined(a, b) * _UNIT))
    angle = 2.0 * math.pi * _compiled_joined(c, d) * _UNIT
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
