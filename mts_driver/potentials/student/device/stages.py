"""The student in four launches: what an atom needs of others ends one."""

from functools import cache
from typing import Any, NamedTuple

from integrators.device.launches import RANK, warp
from mts_driver.potentials.student.device import source, source_stages
from mts_driver.potentials.student.device.source import Sizes
from mts_driver.potentials.student.device.source_back import pull

RESIDENT = 640
"""Threads that a multiprocessor of a GPU has registers for at least."""


class Stages(NamedTuple):
    """Structures, and kernels with a thread for each atom and number of a thread, (M, T)."""

    Near: Any
    Network: Any
    Work: Any
    first: Any
    second: Any
    direct: Any
    back: Any
    last: Any


@cache
def stages(sizes: Sizes, *, whole: bool) -> Stages:
    """Return the kernels; with energies and virials only if ``whole``."""
    wp = warp()
    number = wp.float64 if sizes.double else wp.float32
    numbers = wp.array(dtype=number)
    integers, doubles = wp.array(dtype=int), wp.array(dtype=wp.float64)
    vectors, matrices = wp.array(dtype=wp.vec3d), wp.array(dtype=wp.mat33d)
    head, p, hidden = source.head(sizes), sizes.messages, sizes.hidden
    outputs = 2 * (sizes.channels + p)

    def kernel(function: Any) -> Any:
        how = (
            {}
            if sizes.threads == 1
            else {"launch_bounds": (sizes.threads, RESIDENT // sizes.threads)}
        )
        return wp.kernel(enable_backward=False, module="unique", grid_stride=False, **how)(function)

    @wp.struct
    class Near:
        """Neighbours (M, K), how many there are (M,), and those of them within the cutoff, packed.

        Of these the unit vector and the inverse of the distance, which atom it is, rows of tables
        for the pair and for the pair reversed, and the place in the grid cell.
        """

        neighbors: wp.array2d(dtype=int)
        count: integers
        images: wp.array2d(dtype=wp.vec3i)
        kind: integers
        kinds: int
        grid: int
        start: wp.float64
        per_length: wp.float64
        cutoff: wp.float64
        found: integers
        unit: numbers
        other: integers
        at: integers
        back: integers
        within: numbers

    @wp.struct
    class Network:
        """Weights (E, inputs, outputs) and tables.

        ``w2`` makes both what the second layer reads of the first and messages, ``back2`` is the
        transposed of its first part and of ``w2b``.
        """

        table1: numbers
        table2: numbers
        pairs: numbers
        shift1: numbers
        scale1: numbers
        shift2: numbers
        scale2: numbers
        w1: numbers
        b1: numbers
        w2: numbers
        b2: numbers
        w2b: numbers
        w3: numbers
        back2: numbers
        message: numbers
        back1: numbers
        input_bound: number
        message_bound: number

    @wp.struct
    class Work:
        """What one kernel leaves to another, of every atom."""

        m1: numbers
        x1: numbers
        a1: numbers
        a2: numbers
        raw: numbers
        message: numbers
        m2: numbers
        x2: numbers
        g1: numbers
        by_m1: numbers
        by_m2: numbers
        repulsion: numbers

    @wp.func_native(
        head
        + RANK
        + source.PLACE
        + source.moments(sizes, second=False)
        + source.contract(sizes, second=False)
        + source.inputs(sizes, second=False)
        + source.layer(sizes, "w1", 10 * sizes.channels, hidden, source_stages.FIRST_LAYER)
        + source.layer(sizes, "w2", hidden, hidden + p, source_stages.TELL)
    )
    def first_stage(
        a: int,
        t: int,
        positions: vectors,
        cells: matrices,
        atoms: int,
        reference: vectors,
        skin: wp.float64,
        told: integers,
        near: Near,
        net: Network,
        work: Work,
    ): ...

    # vectors to neighbours, the first sum and layer, and what an atom tells the others
    @kernel
    def first(
        positions: vectors,
        cells: matrices,
        atoms: int,
        reference: vectors,
        skin: wp.float64,
        told: integers,
        near: Near,
        net: Network,
        work: Work,
    ):
        a, t = wp.tid()
        first_stage(a, t, positions, cells, atoms, reference, skin, told, near, net, work)

    sums = head + source.FOUND + source_stages.second_sum(sizes)

    @wp.func_native(sums + source_stages.energy(sizes, whole=whole))
    def second_stage(a: int, t: int, near: Near, net: Network, work: Work, energy: numbers): ...

    # the second sum, weighted by what neighbours tell, up to the energy and back to its gradient
    @kernel
    def second(near: Near, net: Network, work: Work, energy: numbers):
        a, t = wp.tid()
        second_stage(a, t, near, net, work, energy)

    @wp.func_native(sums + source_stages.push(sizes, outputs))
    def direct_stage(a: int, t: int, near: Near, net: Network, work: Work, forces: doubles): ...

    # the same up to the forces of a direct student
    @kernel
    def direct(near: Near, net: Network, work: Work, forces: doubles):
        a, t = wp.tid()
        direct_stage(a, t, near, net, work, forces)

    @wp.func_native(head + source.FOUND + source_stages.first_gradient(sizes, whole=whole))
    def back_stage(
        a: int, t: int, near: Near, net: Network, work: Work, forces: doubles, virials: doubles
    ): ...

    # what the second sums pull, and back through the first layer
    @kernel
    def back(near: Near, net: Network, work: Work, forces: doubles, virials: doubles):
        a, t = wp.tid()
        back_stage(a, t, near, net, work, forces, virials)

    @wp.func_native(head + source.FOUND + pull(sizes, second=False, whole=whole, more=bool(p)))
    def last_stage(
        a: int, t: int, near: Near, net: Network, work: Work, forces: doubles, virials: doubles
    ): ...

    # what the first sums pull
    @kernel
    def last(near: Near, net: Network, work: Work, forces: doubles, virials: doubles):
        a, t = wp.tid()
        last_stage(a, t, near, net, work, forces, virials)

    return Stages(Near, Network, Work, first, second, direct, back, last)
