"""Operations of a splitting between two forces in one launch, a thread for each group of atoms.

A group is a cluster of atoms whose distances are held, or one atom: no operation but the stop of
the centre of mass needs what another group does. No two threads add to one number, so that a run
has the same bits every time. Distances are held as in :mod:`integrators.constraints`.

The kernel is C++ for Warp, which compiles it for the CPU, where a block is one thread, and for
CUDA; how many atoms and distances a group has at most, and how many extra momenta coloured noise,
is known then.
"""

from functools import cache
from string import Template
from typing import Any, NamedTuple

import torch

from integrators.constraints import MOST_ITERATIONS, TOLERANCE
from integrators.device.launches import IN_BLOCKS, warp

KICK, SLOW_KICK, LEAD, DRIFT, ACROSS, TANGENT, THERMOSTAT, MEASURE = range(8)
"""Operations: `LEAD` before a drift and `TANGENT` behind all that changes velocities, whose time is
the share of its energy that counts as heat, keep distances that are held; `ACROSS` gives velocities
the part that the next `TANGENT` takes away, for coloured noise."""

GROUPS = 128
"""Of a block, whose momenta are added up."""


def threads_of(device: torch.device) -> int:
    """Return how many threads a block has."""
    return 1 if device.type == "cpu" else GROUPS


class ProgramKernel(NamedTuple):
    """Structures, and the kernel of P beads, B blocks and the threads of a block, (P, B, T)."""

    State: Any
    Bonds: Any
    Program: Any
    walk: Any


_ALL = """
constexpr int A = $atoms, X = $extra, T = $threads, GROUPS = $groups;
const int P = s.v.shape[0], N = s.v.shape[1], axes = 3;
SHARED double shares[3 * T];
// of all threads of the block
const auto added_up = [&](double* value) {
    for (int x = 0; x < axes; ++x) shares[T * x + t] = value[x];
    WAIT();
    for (int half = T / 2; half > 0; half /= 2) {
        for (int x = 0; t < half && x < axes; ++x) shares[T * x + t] += shares[T * x + t + half];
        WAIT();
    }
    for (int x = 0; x < axes; ++x) value[x] = shares[T * x];
    WAIT();
};
const auto dot = [](const double* a, const double* b) {
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
};
// the first mode loses the velocity of the centre
double centre[3] = {0.0, 0.0, 0.0};
if (program.stops && p == 0) {
    for (int other = t; other < sums.shape[0]; other += T)
        for (int x = 0; x < 3; ++x) centre[x] += sums.data[3 * other + x] / s.mass;
    added_up(centre);
}
double momentum[3] = {0.0, 0.0, 0.0};
const int first = block * GROUPS;
for (int g = first + t; g < wp::min(first + GROUPS, s.sizes.shape[0]); g += T) {
    const int size = s.sizes.data[g];
    int atom[A];
    double q[A][3], v[A][3], m[A], inverse[A], heat = 0.0;
    for (int i = 0; i < A; ++i) {
        atom[i] = i < size ? s.members.data[A * g + i] : -1;
        m[i] = i < size ? s.m.data[atom[i]] : 0.0;
        inverse[i] = i < size ? s.inverse.data[atom[i]] : 0.0;
        for (int x = 0; x < 3; ++x) {
            q[i][x] = i < size ? ((const double*)s.q.data)[3 * (p * N + atom[i]) + x] : 0.0;
            v[i][x] = i < size ? ((const double*)s.v.data)[3 * (p * N + atom[i]) + x] : 0.0;
            v[i][x] -= i < size ? centre[x] : 0.0;
        }
    }
    if (g == 0) heat -= 0.5 * s.mass * dot(centre, centre);  // which leaves as heat
    $bonds
    for (int k = 0; k < program.codes.shape[0]; ++k) {
        const int code = program.codes.data[k], n = program.draws.data[k];
        const double time = program.times.data[k];
        if (code == $KICK || code == $SLOW_KICK) {
            for (int i = 0; i < A; ++i)
                if (i < size) {
                    const double* of_fast = (const double*)fast.data + 3 * (p * N + atom[i]);
                    const double* of_slow = (const double*)slow.data + 3 * (p * N + atom[i]);
                    double force[3], factor = time * inverse[i];
                    for (int x = 0; x < 3; ++x) {
                        force[x] = code == $KICK ? of_fast[x] : of_slow[x];
                        if (code == $SLOW_KICK && program.differs) force[x] -= of_fast[x];
                    }
                    if (code == $SLOW_KICK && program.clip > 0.0)
                        factor *= program.clip / wp::max(wp::sqrt(dot(force, force)), program.clip);
                    for (int x = 0; x < 3; ++x) v[i][x] += factor * force[x];
                }
        } else if (code == $DRIFT) {
            // free, or around the centre of a harmonic ring: cos wt, sin wt / w, w sin wt
            const double* turns = program.turns.data + 3 * P * k + p;
            for (int i = 0; i < A; ++i)
                for (int x = 0; x < 3; ++x) {
                    const double before = q[i][x];
                    q[i][x] = turns[0] * before + turns[P] * v[i][x];
                    v[i][x] = turns[0] * v[i][x] - turns[2 * P] * before;
                }
        } else if (code == $THERMOSTAT) {
            for (int i = 0; i < A; ++i)
                if (i < size) {
                    const double before = dot(v[i], v[i]);
                    $thermostat
                    heat += 0.5 * m[i] * (dot(v[i], v[i]) - before);
                }
        } else if (code == $MEASURE) {
            for (int i = 0; i < A; ++i)
                if (i < size) s.twice.data[(n * P + p) * N + atom[i]] = m[i] * dot(v[i], v[i]);
        }
        $held
    }
    for (int i = 0; i < A; ++i)
        for (int x = 0; i < size && x < 3; ++x) {
            ((double*)s.q.data)[3 * (p * N + atom[i]) + x] = q[i][x];
            ((double*)s.v.data)[3 * (p * N + atom[i]) + x] = v[i][x];
            momentum[x] += m[i] * v[i][x];
        }
    s.heat.data[p * s.sizes.shape[0] + g] += heat;
}
if (program.adds && p == 0) {
    added_up(momentum);
    for (int x = t; x < 3; x += T) new_sums.data[3 * block + x] = momentum[x];
}
"""

_WHITE = """
const double decay = s.decay.data[p * N + atom[i]], width = s.width.data[p * N + atom[i]];
const double* noise = (const double*)s.noise.data + 3 * ((n * P + p) * N + atom[i]);
for (int x = 0; x < 3; ++x) v[i][x] = decay * v[i][x] + width * noise[x];
"""

_COLOURED = """
const int draws = s.width.shape[1], rows = s.noise.shape[1];
double old[X + 1][3];
for (int j = 0; j <= X; ++j)
    for (int x = 0; x < 3; ++x) {
        const double* more = (const double*)s.more.data + 3 * (((j - 1) * P + p) * N + atom[i]);
        old[j][x] = j == 0 ? wp::sqrt(m[i]) * v[i][x] : more[x];
    }
for (int j = 0; j <= X; ++j) {
    double now[3] = {0.0, 0.0, 0.0};
    for (int o = 0; o <= X; ++o)
        for (int x = 0; x < 3; ++x) now[x] += s.decay.data[(X + 1) * j + o] * old[o][x];
    for (int o = 0; o < draws; ++o) {
        const double width = s.width.data[draws * j + o];
        const int row = (n * rows + o) * P + p;
        const double* noise = (const double*)s.noise.data + 3 * (row * N + atom[i]);
        for (int x = 0; x < 3; ++x) now[x] += width * noise[x];
    }
    double* more = (double*)s.more.data + 3 * (((j - 1) * P + p) * N + atom[i]);
    for (int x = 0; x < 3; ++x) {
        if (j == 0) v[i][x] = wp::sqrt(inverse[i]) * now[x];
        else more[x] = now[x];
    }
}
"""

_BONDS = """
constexpr int K = $most;
const int count = bonds.counts.data[g];
// +1 and -1 for the atoms of a distance; what a push along one of them changes in another
double ends[K][A], coupling[K][K], along[K][3], grows[K], a[K][K];
for (int k = 0; k < K; ++k)
    for (int i = 0; i < A; ++i) {
        const int* pair = bonds.pairs.data + 2 * (K * g + k);
        ends[k][i] = k < count && i < size ? (atom[i] == pair[0]) - (atom[i] == pair[1]) : 0;
    }
for (int k = 0; k < K; ++k)
    for (int o = 0; o < K; ++o) {
        coupling[k][o] = 0.0;
        for (int i = 0; i < A; ++i) coupling[k][o] += ends[k][i] * ends[o][i] * inverse[i];
    }
const auto between = [&](const double (&of)[A][3], int k, double* out) {
    for (int x = 0; x < 3; ++x) {
        out[x] = 0.0;
        for (int i = 0; i < A; ++i) out[x] += ends[k][i] * of[i][x];
    }
};
const auto look = [&]() {
    for (int k = 0; k < K; ++k) {
        between(q, k, along[k]);
        for (int x = 0; k < count && x < 3; ++x)
            along[k][x] -= ((const double*)bonds.images.data)[3 * (K * g + k) + x];
    }
};
// b becomes the solution of a y = b, whose rows beyond count are idle; nearly symmetric and
// positive definite
const auto solve = [&](double* b) {
    for (int i = 0; i < K; ++i) a[i][i] += i >= count;
    for (int i = 0; i < K; ++i)
        for (int j = i + 1; j < K; ++j) {
            const double factor = a[j][i] / a[i][i];
            for (int k = i; k < K; ++k) a[j][k] -= factor * a[i][k];
            b[j] -= factor * b[i];
        }
    for (int i = K - 1; i >= 0; --i) {
        for (int k = i + 1; k < K; ++k) b[i] -= a[i][k] * b[k];
        b[i] /= a[i][i];
    }
};
const auto push = [&](const double* amounts, double factor) {
    for (int i = 0; i < A; ++i)
        for (int k = 0; k < K; ++k)
            for (int x = 0; x < 3; ++x)
                v[i][x] += factor * inverse[i] * ends[k][i] * amounts[k] * along[k][x];
};
"""

_HELD = """
if (code == $LEAD) {
    // Newton's method along the bonds before a drift, whose pushes go to the velocities
    look();
    double now[K][3], pushes[K] = {}, more[K];
    for (int k = 0; k < K; ++k) {
        between(v, k, now[k]);
        for (int x = 0; x < 3; ++x) now[k][x] = along[k][x] + time * now[k][x];
    }
    bool missing = true;
    for (int round = 0; round <= $iterations && missing; ++round) {
        missing = false;
        for (int k = 0; k < K; ++k) {
            const double square = k < count ? bonds.squares.data[K * g + k] : 0.0;
            more[k] = 0.5 * (dot(now[k], now[k]) - square);
            // written so that what is not a number is not found
            missing = missing || !(wp::abs(more[k]) <= $tolerance * square);
            for (int o = 0; o < K; ++o) a[k][o] = coupling[k][o] * dot(now[k], along[o]);
        }
        if (missing) {
            solve(more);
            for (int k = 0; k < K; ++k) {
                pushes[k] += more[k];
                for (int o = 0; o < K; ++o)
                    for (int x = 0; x < 3; ++x)
                        now[k][x] -= coupling[k][o] * more[o] * along[o][x];
            }
        }
    }
    if (missing) s.lost.data[0] = 1;
    push(pushes, -1.0 / time);
} else if (code == $ACROSS || code == $TANGENT) {
    look();
    double thermal[A][3];
    const int row = (n * s.noise.shape[1] + s.noise.shape[1] - 1) * P + p;
    for (int i = 0; i < A; ++i)
        for (int x = 0; x < 3; ++x) {
            thermal[i][x] = v[i][x];
            if (code == $ACROSS && i < size)
                thermal[i][x] = bonds.width.data[atom[i]]
                    * ((const double*)s.noise.data)[3 * (row * N + atom[i]) + x];
        }
    double amounts[K], change[3];
    for (int k = 0; k < K; ++k) {
        between(thermal, k, change);
        grows[k] = amounts[k] = dot(along[k], change);
        for (int o = 0; o < K; ++o) a[k][o] = coupling[k][o] * dot(along[k], along[o]);
    }
    solve(amounts);
    const double sign = code == $ACROSS ? 1.0 : -1.0, share = code == $ACROSS ? 1.0 : time;
    push(amounts, sign);
    for (int k = 0; k < K; ++k) heat += 0.5 * sign * share * grows[k] * amounts[k];
}
"""


def _source(atoms: int, most: int, extra: int, threads: int) -> str:
    codes = {name: globals()[name] for name in _CODES}
    bonds = Template(_BONDS).substitute(most=most) if most else ""
    how = {"iterations": MOST_ITERATIONS, "tolerance": TOLERANCE}
    return IN_BLOCKS + Template(_ALL).substitute(
        codes,
        atoms=atoms,
        extra=extra,
        threads=threads,
        groups=GROUPS,
        bonds=bonds,
        held=Template(_HELD).substitute(codes, **how) if most else "",
        thermostat=_COLOURED if extra else _WHITE,
    )


_CODES = "KICK", "SLOW_KICK", "LEAD", "DRIFT", "ACROSS", "TANGENT", "THERMOSTAT", "MEASURE"


@cache
def program_kernel(*, atoms: int, most: int, extra: int, threads: int) -> ProgramKernel:
    """Return the kernel.

    Parameters
    ----------
    atoms, most : int
        That a group has at most, and the distances that are held in it.
    extra : int
        Extra momenta of coloured noise; 0 for white noise.
    threads : int
        Of a block: 1, or `GROUPS`.
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

    @wp.func_native(_source(atoms, most, extra, threads))
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

    @wp.kernel(enable_backward=False, module="unique", grid_stride=False)
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
