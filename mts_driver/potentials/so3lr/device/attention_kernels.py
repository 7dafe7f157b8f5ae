"""SO3LR's attention on a device: its kernels."""

from functools import cache
from typing import Any, NamedTuple

from integrators.device.launches import warp
from mts_driver.potentials.so3lr.attention import FEATURES, HEADS, WIDTH
from mts_driver.potentials.so3lr.device.attention_source import (
    GATHER,
    GATHER_BACK,
    PAIRS,
    SCORE,
    SLOPES,
    source,
)

PAIR_THREADS, GATHER_THREADS, ATOM_THREADS = HEADS * WIDTH, 160, FEATURES
"""Of a block on a GPU: one for each feature that an atom has, or gets."""


class AttentionKernels(NamedTuple):
    """Kernels with threads for each atom, and how many these are."""

    pair_threads: int
    gather_threads: int
    atom_threads: int
    score: Any
    gather: Any
    slopes: Any
    gather_back: Any


@cache
def attention_kernels(double: bool, device: str) -> AttentionKernels:
    """Return the kernels in float64 or float32, for ``cpu`` or ``cuda``."""
    wp = warp()
    threads = (1, 1, 1) if device == "cpu" else (PAIR_THREADS, GATHER_THREADS, ATOM_THREADS)
    number, real = (wp.float64 if double else wp.float32), wp.float64
    numbers, numbers_2d, numbers_3d = (wp.array(dtype=number, ndim=n) for n in (1, 2, 3))
    long, whole, whole_2d = wp.array(dtype=wp.int64), wp.array(dtype=int), wp.array2d(dtype=int)
    kernel = wp.kernel(enable_backward=False, module="unique", grid_stride=False)

    def text(body: str, threads: int) -> str:
        return source(body, double=double, threads=threads)

    @wp.func_native(text(PAIRS + SCORE, threads[0]))
    def score_pairs(
        n: int, t: int, j: long, r: numbers_2d, cutoff: numbers_2d, atoms: numbers_2d,
        extra: numbers_2d, extras: int, table: numbers_3d, r0: real, per_A: real, scale: numbers,
        ends: whole, mine: whole, filters: numbers_2d, scores: numbers_2d,
    ): ...  # fmt: skip

    # filters of pairs, and what both atoms score with each other
    @kernel
    def score(
        j: long, r: numbers_2d, cutoff: numbers_2d, atoms: numbers_2d, extra: numbers_2d,
        extras: int, table: numbers_3d, r0: real, per_A: real, scale: numbers, ends: whole,
        mine: whole, filters: numbers_2d, scores: numbers_2d,
    ):  # fmt: skip
        n, t = wp.tid()
        score_pairs(
            n, t, j, r, cutoff, atoms, extra, extras, table, r0, per_A, scale, ends, mine, filters,
            scores,
        )  # fmt: skip

    @wp.func_native(text(GATHER, threads[1]))
    def gather_atom(
        n: int, t: int, to_i: numbers_2d, parity: numbers, atoms: numbers_2d, degrees: whole,
        entries: whole_2d, others: whole_2d, count: whole, scores: numbers_2d, inv: numbers_2d,
        ev: numbers_2d,
    ): ...  # fmt: skip

    # values and harmonics, weighted by scores
    @kernel
    def gather(
        to_i: numbers_2d, parity: numbers, atoms: numbers_2d, degrees: whole, entries: whole_2d,
        others: whole_2d, count: whole, scores: numbers_2d, inv: numbers_2d, ev: numbers_2d,
    ):  # fmt: skip
        n, t = wp.tid()
        gather_atom(n, t, to_i, parity, atoms, degrees, entries, others, count, scores, inv, ev)

    @wp.func_native(text(PAIRS + SLOPES, threads[0]))
    def slopes_of_pairs(
        n: int, t: int, j: long, r: numbers_2d, cutoff: numbers_2d, to_i: numbers_2d,
        parity: numbers, atoms: numbers_2d, filters: numbers_2d, table: numbers_3d, r0: real,
        per_A: real, scale: numbers, degrees: whole, ends: whole, mine: whole, by_inv: numbers_2d,
        by_ev: numbers_2d, filtered: int, by_to_i: numbers_2d, by_filter: numbers_2d,
        factors: numbers_2d, of_heads: numbers_2d,
    ): ...  # fmt: skip

    # gradients by what belongs to pairs
    @kernel
    def slopes(
        j: long, r: numbers_2d, cutoff: numbers_2d, to_i: numbers_2d, parity: numbers,
        atoms: numbers_2d, filters: numbers_2d, table: numbers_3d, r0: real, per_A: real,
        scale: numbers, degrees: whole, ends: whole, mine: whole, by_inv: numbers_2d,
        by_ev: numbers_2d, filtered: int, by_to_i: numbers_2d, by_filter: numbers_2d,
        factors: numbers_2d, of_heads: numbers_2d,
    ):  # fmt: skip
        n, t = wp.tid()
        slopes_of_pairs(
            n, t, j, r, cutoff, to_i, parity, atoms, filters, table, r0, per_A, scale, degrees,
            ends, mine, by_inv, by_ev, filtered, by_to_i, by_filter, factors, of_heads,
        )  # fmt: skip

    @wp.func_native(text(GATHER_BACK, threads[2]))
    def gather_back_atom(
        n: int, t: int, atoms: numbers_2d, filters: numbers_2d, entries: whole_2d,
        others: whole_2d, count: whole, ends: whole, mine: whole, factors: numbers_2d,
        by_inv: numbers_2d, of_heads: numbers_2d, by_atoms: numbers_2d, by_r: numbers_2d,
        by_cutoff: numbers_2d,
    ): ...  # fmt: skip

    # gradients by what belongs to atoms
    @kernel
    def gather_back(
        atoms: numbers_2d, filters: numbers_2d, entries: whole_2d, others: whole_2d, count: whole,
        ends: whole, mine: whole, factors: numbers_2d, by_inv: numbers_2d, of_heads: numbers_2d,
        by_atoms: numbers_2d, by_r: numbers_2d, by_cutoff: numbers_2d,
    ):  # fmt: skip
        n, t = wp.tid()
        gather_back_atom(
            n, t, atoms, filters, entries, others, count, ends, mine, factors, by_inv, of_heads,
            by_atoms, by_r, by_cutoff,
        )  # fmt: skip

    return AttentionKernels(*threads, score, gather, slopes, gather_back)
