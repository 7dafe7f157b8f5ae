"""The student in four launches: what an atom needs of others ends one.

A block of threads has an atom. What one of them writes the others read behind `together`, so that
the kernels of one launch cost no more than a wait of a block; on the CPU an atom has one thread.
"""

from functools import cache
from typing import Any, NamedTuple

from integrators.device.launches import together, warp
from mts_driver.potentials.student.device.invariants import invariants
from mts_driver.potentials.student.device.networks import networks
from mts_driver.potentials.student.device.sums import sums


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
def stages(double: bool) -> Stages:
    """Return the kernels in float64 or float32."""
    wp, wait = warp(), together()
    number = wp.float64 if double else wp.float32
    kernel = wp.kernel(enable_backward=False, module="unique")
    numbers, numbers_2d, numbers_3d, numbers_4d = (
        wp.array(dtype=number, ndim=axes) for axes in (1, 2, 3, 4)
    )
    vectors, matrices = wp.array(dtype=wp.vec3d), wp.array(dtype=wp.mat33d)
    doubles_2d, doubles_3d = (wp.array(dtype=wp.float64, ndim=axes) for axes in (2, 3))
    integers = wp.array(dtype=int)
    Near, place, moments, gather, pull, add_up = sums(double)
    inputs, gradient, push = invariants(double)
    layer, total, silu, silu_slope, shrinks = networks(double)

    @wp.struct
    class Network:
        """Weights (E, inputs, outputs) and tables of a model with C channels, P messages and H
        hidden numbers; ``w2`` makes both what the second layer reads of the first and messages,
        ``back2`` is the transposed of its first part and of ``w2b``."""

        table1: numbers_4d
        table2: numbers_4d
        pairs: numbers_4d
        shift1: numbers_2d
        scale1: numbers_2d
        shift2: numbers_2d
        scale2: numbers_2d
        w1: numbers_3d
        b1: numbers_2d
        w2: numbers_3d
        b2: numbers_2d
        w2b: numbers_3d
        w3: numbers_3d
        back2: numbers_3d
        back_message: numbers_3d
        back1: numbers_3d
        input_bound: number
        message_bound: number

    @wp.struct
    class Work:
        """What the threads write: of atoms (M, W), and of each thread of an atom (M, S, W)."""

        m1: numbers_2d
        x1: numbers_2d
        a1: numbers_2d
        h1: numbers_2d
        a2: numbers_2d
        raw: numbers_2d
        message: numbers_2d
        m2: numbers_2d
        x2: numbers_2d
        h2: numbers_2d
        g2: numbers_2d
        g1: numbers_2d
        by_x2: numbers_2d
        by_m2: numbers_2d
        by_message: numbers_2d
        by_x1: numbers_2d
        by_m1: numbers_2d
        repulsion: numbers_2d
        moments1: numbers_3d
        layer1: numbers_3d
        layer2: numbers_3d
        moments2: numbers_3d
        layer2b: numbers_3d
        layer3: numbers_3d
        layer1_back: numbers_3d
        pulled: numbers_3d
        pulled_on: numbers_3d
        told: numbers_3d
        halves: doubles_3d

    # vectors to neighbours, the first sum and layer, and what an atom tells the others
    @kernel
    def first(
        x: vectors,
        cells: matrices,
        atoms: int,
        reference: vectors,
        skin: wp.float64,
        left: integers,
        near: Near,
        net: Network,
        work: Work,
        nothing: numbers_2d,
        threads: int,
    ):
        a, t = wp.tid()
        e, hidden = near.kind[a], work.a1.shape[1]
        # written so that what is not a number counts
        if t == 0 and not (wp.float64(2.0) * wp.length(x[a] - reference[a]) < skin):
            left[0] = 1
        place(a, t, threads, x, cells[a // atoms], net.table1.shape[1], near)
        wait()
        how = work.moments1
        moments(a, t, threads, near, net.table1, net.pairs, nothing, how, work.repulsion)
        wait()
        gather(a, t, threads, work.moments1, work.m1)
        wait()
        inputs(a, t, threads, e, work.m1, net.shift1, net.scale1, net.input_bound, work.x1)
        wait()
        layer(a, t, threads, e, work.x1, net.w1, work.layer1)
        wait()
        for h in range(t, hidden, threads):
            s = net.b1[e, h] + total(work.layer1, a, h)
            work.a1[a, h] = s
            work.h1[a, h] = silu(s)
        wait()
        layer(a, t, threads, e, work.h1, net.w2, work.layer2)
        wait()
        for w in range(t, net.w2.shape[2], threads):
            s = total(work.layer2, a, w)
            if w < hidden:
                work.a2[a, w] = net.b2[e, w] + s
            else:
                work.raw[a, w - hidden] = s
                work.message[a, w - hidden] = number(1.0) + s * shrinks(s, net.message_bound)

    # the second sum, weighted by what neighbours tell, and what the second layer makes of both
    @wp.func
    def decide(a: int, t: int, threads: int, near: Near, net: Network, work: Work):
        e = near.kind[a]
        how = work.moments2
        moments(a, t, threads, near, net.table2, net.pairs, work.message, how, work.repulsion)
        wait()
        gather(a, t, threads, work.moments2, work.m2)
        wait()
        inputs(a, t, threads, e, work.m2, net.shift2, net.scale2, net.input_bound, work.x2)
        wait()
        layer(a, t, threads, e, work.x2, net.w2b, work.layer2b)
        wait()
        for h in range(t, work.h2.shape[1], threads):
            s = work.a2[a, h] + total(work.layer2b, a, h)
            work.a2[a, h] = s
            work.h2[a, h] = silu(s)

    # up to the energy, and back to the gradient by the second sum
    @kernel
    def second(near: Near, net: Network, work: Work, energy: numbers, whole: int, threads: int):
        a, t = wp.tid()
        e, hidden = near.kind[a], work.h2.shape[1]
        decide(a, t, threads, near, net, work)
        for h in range(t, hidden, threads):
            work.g2[a, h] = net.w3[e, h, 0] * silu_slope(work.a2[a, h])
        wait()
        if whole == 1 and t == 0:
            s = number(0.0)
            for k in range(work.repulsion.shape[1]):
                s += work.repulsion[a, k]
            for h in range(hidden):
                s += work.h2[a, h] * net.w3[e, h, 0]
            energy[a] = s
        layer(a, t, threads, e, work.g2, net.back2, work.layer3)
        wait()
        for w in range(t, net.back2.shape[2], threads):
            s = total(work.layer3, a, w)
            if w < hidden:
                work.g1[a, w] = s
            else:
                work.by_x2[a, w - hidden] = s
        wait()
        bound = net.input_bound
        gradient(a, t, threads, e, work.m2, net.scale2, bound, work.x2, work.by_x2, work.by_m2)

    # forces of a direct student
    @kernel
    def direct(near: Near, net: Network, work: Work, forces: doubles_2d, threads: int):
        a, t = wp.tid()
        decide(a, t, threads, near, net, work)
        wait()
        layer(a, t, threads, near.kind[a], work.h2, net.w3, work.layer3)
        wait()
        # the weights of A1 and A2·A1 of both sums
        gather(a, t, threads, work.layer3, work.g2)
        wait()
        if t == 0:
            f = push(work.m1, work.g2, 0, a) + push(work.m2, work.g2, work.m1.shape[1] // 5, a)
            for axis in range(3):
                forces[a, axis] = wp.float64(f[axis])

    # force, and minus the virial, from the parts of an atom
    @wp.func
    def put(
        a: int,
        t: int,
        threads: int,
        more: int,
        whole: int,
        halves: doubles_3d,
        forces: doubles_2d,
        virials: doubles_2d,
    ):
        for w in range(t, 3 + 9 * whole, threads):
            s = wp.float64(0.0)
            for k in range(halves.shape[1]):
                s += halves[a, k, w]
            if w < 3:
                if more == 1:
                    s += forces[a, w]
                forces[a, w] = s
            else:
                s = -s
                if more == 1:
                    s += virials[a, w - 3]
                virials[a, w - 3] = s

    # what the second sums pull, and back through the first layer
    @kernel
    def back(
        near: Near,
        net: Network,
        work: Work,
        whole: int,
        forces: doubles_2d,
        virials: doubles_2d,
        threads: int,
    ):
        a, t = wp.tid()
        e, table, on = near.kind[a], net.table2, work.pulled_on
        message, told = work.message, work.told
        pull(a, t, threads, near, table, net.pairs, message, work.by_m2, whole, on, told)
        wait()
        add_up(a, t, threads, 3 + 9 * whole, on, work.halves)
        for c in range(t, message.shape[1], threads):
            s = shrinks(work.raw[a, c], net.message_bound)
            work.by_message[a, c] = total(told, a, c) * s * s * s
        wait()
        put(a, t, threads, 0, whole, work.halves, forces, virials)
        for h in range(t, work.g1.shape[1], threads):
            s = work.g1[a, h]
            for c in range(message.shape[1]):
                s += work.by_message[a, c] * net.back_message[e, c, h]
            work.g1[a, h] = s * silu_slope(work.a1[a, h])
        wait()
        layer(a, t, threads, e, work.g1, net.back1, work.layer1_back)
        wait()
        gather(a, t, threads, work.layer1_back, work.by_x1)
        wait()
        bound = net.input_bound
        gradient(a, t, threads, e, work.m1, net.scale1, bound, work.x1, work.by_x1, work.by_m1)

    # what the first sums pull
    @kernel
    def last(
        near: Near,
        net: Network,
        work: Work,
        nothing: numbers_2d,
        whole: int,
        forces: doubles_2d,
        virials: doubles_2d,
        threads: int,
    ):
        a, t = wp.tid()
        parts, told = work.pulled, work.told
        pull(a, t, threads, near, net.table1, net.pairs, nothing, work.by_m1, whole, parts, told)
        wait()
        add_up(a, t, threads, 3 + 9 * whole, parts, work.halves)
        wait()
        put(a, t, threads, 1, whole, work.halves, forces, virials)

    return Stages(Near, Network, Work, first, second, direct, back, last)
