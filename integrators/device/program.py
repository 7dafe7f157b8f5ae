"""Operations of a splitting between two forces in one launch, a thread for each group of atoms.

A group is a cluster of atoms whose distances are held, or one atom: no operation but `STOP` needs
what another group does. No two threads add to one number, so that a run has the same bits every
time.
"""

from functools import cache
from typing import Any, NamedTuple

from integrators.device.free import free_moves
from integrators.device.held import held_moves
from integrators.device.launches import together, warp

KICK, SLOW_KICK, LEAD, DRIFT, ACROSS, TANGENT, THERMOSTAT, STOP, MEASURE = range(9)
"""Operations: `LEAD` before a drift and `TANGENT` behind all that changes velocities, whose time is
the share of its energy that counts as heat, keep distances that are held; `ACROSS` is for coloured
noise. `STOP` stands first, where the launch before has added momenta up."""

GROUPS = 128
"""Of a block, whose momenta are added up by one thread an axis."""


class ProgramKernel(NamedTuple):
    """Structures, and the kernel of P beads, B blocks and the threads of a block, (P, B, T)."""

    State: Any
    Bonds: Any
    Program: Any
    walk: Any


@cache
def program_kernel(extra: int, most: int) -> ProgramKernel:
    """Return the kernel for ``extra`` extra momenta of coloured noise, or 0 for white noise.

    And for clusters of up to ``most`` distances.
    """
    wp, wait = warp(), together()
    numbers, numbers_2d, numbers_3d = (wp.array(dtype=wp.float64, ndim=n) for n in (1, 2, 3))
    vectors_1d, vectors_2d, vectors_3d, vectors_4d = (
        wp.array(dtype=wp.vec3d, ndim=n) for n in (1, 2, 3, 4)
    )
    integers, integers_2d = (wp.array(dtype=int, ndim=axes) for axes in (1, 2))
    Bonds, lead, grows_by, grows_by_noise, project = held_moves(max(most, 1))
    kick, drift, white, coloured = free_moves(extra)
    heated = coloured if extra else white
    kick_, slow_kick, lead_, drift_, across, tangent, thermostat, stop, measure = (
        wp.constant(wp.int32(code)) for code in range(9)
    )
    groups_of_block = wp.constant(wp.int32(GROUPS))

    @wp.struct
    class State:
        """Positions, velocities, extra momenta, masses and their inverses, the members (G, A) of
        groups and how many they are; what moves them; and what is kept of it."""

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
        momenta: vectors_1d
        mass: wp.float64

    @wp.struct
    class Program:
        """Operations, with the times and numbers of random numbers that they have, and what modes
        turn by (n, 3, P); and whether momenta are added up behind them."""

        codes: integers
        times: numbers
        draws: integers
        turns: numbers_3d
        adds: int

    @wp.kernel(enable_backward=False, module="unique")
    def walk(
        s: State,
        bonds: Bonds,
        program: Program,
        fast: vectors_2d,
        slow: vectors_2d,
        sums: numbers_2d,
        new_sums: numbers_2d,
        threads: int,
    ):
        p, block, t = wp.tid()
        first = block * groups_of_block
        end = wp.min(first + groups_of_block, s.members.shape[0])
        for g in range(first + t, end, threads):
            size, heat = s.sizes[g], wp.float64(0.0)
            for k in range(program.codes.shape[0]):
                code, time, n = program.codes[k], program.times[k], program.draws[k]
                if wp.static(most > 0):
                    if code == lead_:
                        lead(p, g, s.q, s.v, bonds, s.inverse, time, s.lost)
                    elif code == across or code == tangent:
                        # one place, since the compiler puts a copy of a function where it is called
                        sign, share = wp.float64(-1.0), wp.float64(time)
                        grows = grows_by(p, g, s.q, s.v, bonds)
                        if code == across:
                            sign, share = wp.float64(1.0), wp.float64(1.0)
                            numbers_across = s.noise[n]
                            last = numbers_across[numbers_across.shape[0] - 1]
                            grows = grows_by_noise(p, g, s.q, last, bonds)
                        energy = project(p, g, s.q, grows, s.v, bonds, s.inverse, sign)
                        heat += sign * share * energy
                if code == kick_:
                    for i in range(size):
                        kick(p, s.members[g, i], s.v, fast, s.inverse, time)
                elif code == slow_kick:
                    for i in range(size):
                        kick(p, s.members[g, i], s.v, slow, s.inverse, time)
                elif code == drift_:
                    for i in range(size):
                        drift(p, s.members[g, i], s.q, s.v, program.turns[k])
                elif code == thermostat:
                    numbers_now = s.noise[n]
                    for i in range(size):
                        a = s.members[g, i]
                        how = numbers_now
                        heat += heated(p, a, s.v, s.more, s.decay, s.width, how, s.m, s.inverse)
                elif code == stop:
                    # the first mode loses the velocity of the centre; its energy leaves as heat
                    if p == 0:
                        c = wp.vec3d()
                        for b in range(sums.shape[0]):
                            c += wp.vec3d(sums[b, 0], sums[b, 1], sums[b, 2])
                        c = c / s.mass
                        for i in range(size):
                            s.v[0, s.members[g, i]] -= c
                        if g == 0:
                            heat -= wp.float64(0.5) * s.mass * wp.dot(c, c)
                elif code == measure:
                    for i in range(size):
                        a = s.members[g, i]
                        s.twice[n, p, a] = s.m[a] * wp.dot(s.v[p, a], s.v[p, a])
            s.heat[p, g] += heat
            if program.adds == 1 and p == 0:
                total = wp.vec3d()
                for i in range(size):
                    a = s.members[g, i]
                    total += s.m[a] * s.v[0, a]
                s.momenta[g] = total
        wait()
        if program.adds == 1 and p == 0:
            for axis in range(t, 3, threads):
                part = wp.float64(0.0)
                for g in range(first, end):
                    part += s.momenta[g][axis]
                new_sums[block, axis] = part

    return ProgramKernel(State, Bonds, Program, walk)
