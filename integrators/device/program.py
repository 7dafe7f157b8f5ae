"""Operations of a splitting between two forces in one launch, a thread for each group of atoms.

A group is a cluster of atoms whose distances are held, or one atom: no operation but the stop of
the centre of mass needs what another group does. Where one block has all of them the stop is an
operation like others; else momenta are added up in one launch, and taken away in the next. No two
threads add to one number, so that a run has the same bits every time.

The kernel is C++ for Warp, which compiles it for the CPU, where a block is one thread, and for
CUDA; how many atoms and distances a group has at most, and how many extra momenta coloured noise,
is known then.
"""

from functools import cache
from typing import Any, NamedTuple

import torch

from integrators.device.launches import warp
from integrators.device.program_source import GROUPS, source

MOST_GROUPS = 1024
"""Of a block alone: a GPU waits longer for a launch than for more threads of a block."""


class Block(NamedTuple):
    """How many threads a block has, and whether it has all groups, each in a thread."""

    threads: int
    alone: bool


def block_of(device: torch.device, groups: int) -> Block:
    """Return what a device does best; a CPU has one thread for the groups of a block."""
    if device.type == "cpu":
        return Block(1, alone=False)
    if groups > MOST_GROUPS:
        return Block(GROUPS, alone=False)
    return Block(max(32, 1 << (groups - 1).bit_length()), alone=True)


class ProgramKernel(NamedTuple):
    """Structures, and the kernel of P beads, B blocks and the threads of a block, (P, B, T)."""

    State: Any
    Bonds: Any
    Program: Any
    walk: Any


@cache
def program_kernel(*, atoms: int, most: int, extra: int, block: Block) -> ProgramKernel:
    """Return the kernel.

    Parameters
    ----------
    atoms, most : int
        That a group has at most, and the distances that are held in it.
    extra : int
        Extra momenta of coloured noise; 0 for white noise.
    block : Block
        Of `block_of`.
    """
    wp = warp()
    numbers, numbers_2d, numbers_3d = (wp.array(dtype=wp.float64, ndim=n) for n in (1, 2, 3))
    vectors_2d, vectors_3d, vectors_4d = (wp.array(dtype=wp.vec3d, ndim=n) for n in (2, 3, 4))
    integers, integers_2d, integers_3d = (wp.array(dtype=int, ndim=axes) for axes in (1, 2, 3))

    @wp.struct
    class State:
        """What is moved, what moves it, and what is kept of that.

        ``members`` (G, A) of groups are ``sizes`` each.
        """

        q: vectors_2d
        v: vectors_2d
        more: vectors_3d
        m: numbers
        inverse: numbers
        members: integers_2d
        sizes: integers
        decay: numbers_2d
        width: numbers_2d
        noise: vectors_4d
        heat: numbers_2d
        twice: numbers_3d
        lost: integers
        mass: wp.float64

    @wp.struct
    class Bonds:
        """Of `Constraints`, and width (N,), that of a thermal velocity of an atom."""

        pairs: integers_3d
        images: vectors_2d
        counts: integers
        squares: numbers_2d
        width: numbers

    @wp.struct
    class Program:
        """Operations, their times, which random numbers they have, and what modes turn by.

        The turns are (n, 3, P). ``stops`` has the centre stopped before, from sums that the launch
        before has made; ``adds`` has momenta added up behind. A slow force is the difference of two
        if ``differs``, and no longer than ``clip`` if that is above 0.
        """

        codes: integers
        times: numbers
        draws: integers
        turns: numbers_3d
        stops: int
        adds: int
        differs: int
        clip: wp.float64

    @wp.func_native(source(atoms=atoms, most=most, extra=extra, **block._asdict()))
    def group(
        p: int,
        block: int,
        t: int,
        s: State,
        bonds: Bonds,
        program: Program,
        fast: vectors_2d,
        slow: vectors_2d,
        sums: numbers_2d,
        new_sums: numbers_2d,
    ): ...

    how = {"launch_bounds": (block.threads, 1)} if block.alone else {}

    @wp.kernel(enable_backward=False, module="unique", grid_stride=False, **how)
    def walk(
        s: State,
        bonds: Bonds,
        program: Program,
        fast: vectors_2d,
        slow: vectors_2d,
        sums: numbers_2d,
        new_sums: numbers_2d,
    ):
        p, block, t = wp.tid()
        group(p, block, t, s, bonds, program, fast, slow, sums, new_sums)

    return ProgramKernel(State, Bonds, Program, walk)
