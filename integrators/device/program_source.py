"""What a launch of `integrators.device.program` does, as C++ for Warp.

Distances are held as in :mod:`integrators.constraints`.
"""

from string import Template

from integrators.constraints import MOST_ITERATIONS, TOLERANCE
from integrators.device.launches import ADDED_UP, IN_BLOCKS

CODES = (
    *("KICK", "SLOW_KICK", "LEAD", "DRIFT", "ACROSS", "TANGENT", "THERMOSTAT", "MEASURE"),
    "STOP",
)
KICK, SLOW_KICK, LEAD, DRIFT, ACROSS, TANGENT, THERMOSTAT, MEASURE, STOP = range(len(CODES))
"""Operations: `LEAD` before a drift and `TANGENT` behind all that changes velocities, whose time is
the share of its energy that counts as heat, keep distances that are held; `ACROSS` gives velocities
the part that the next `TANGENT` takes away, for coloured noise."""

GROUPS = 128
"""Of one of several blocks."""
MOST_OPERATIONS = 32
"""Of a launch."""

_ALL = """
constexpr int A = $atoms, X = $extra, T = $threads, GROUPS = $groups, SUMS = 3;
constexpr bool ALONE = $alone;
const int P = s.v.shape[0], N = s.v.shape[1], G = s.sizes.shape[0];
$added_up
SHARED double times[$operations], all_turns[3 * $operations];
SHARED int codes[$operations], draws[$operations];
const int operations = program.codes.shape[0];
for (int k = t; k < operations; k += T) {
    codes[k] = program.codes.data[k];
    draws[k] = program.draws.data[k];
    times[k] = program.times.data[k];
    for (int n = 3 * k; n < 3 * k + 3; ++n) all_turns[n] = program.turns.data[P * n + p];
}
WAIT();
const auto dot = [](const double* a, const double* b) {
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
};
const double per_mass = 1.0 / s.mass;
// the first mode loses the velocity of the centre
double centre[3] = {0.0, 0.0, 0.0};
if (program.stops && p == 0) {
    for (int other = t; other < sums.shape[0]; other += T)
        for (int x = 0; x < 3; ++x) centre[x] += sums.data[3 * other + x] * per_mass;
    added_up(centre);
}
double momentum[3] = {0.0, 0.0, 0.0};
const int first = block * GROUPS;
// a block alone has no thread that does not wait for the others
for (int g = first + t; g < (ALONE ? T : wp::min(first + GROUPS, G)); g += T) {
    const int size = g >= G ? 0 : A == 1 ? 1 : s.sizes.data[g];
    int atom[A];
    double q[A][3], v[A][3], m[A], inverse[A], heat = 0.0;
    for (int i = 0; i < A; ++i) {
        // alone, all atoms are groups in their order
        atom[i] = i >= size ? -1 : A == 1 ? g : s.members.data[A * g + i];
        m[i] = i < size ? s.m.data[atom[i]] : 0.0;
        inverse[i] = i < size ? s.inverse.data[atom[i]] : 0.0;
        for (int x = 0; x < 3; ++x) {
            q[i][x] = i < size ? ((const double*)s.q.data)[3 * (p * N + atom[i]) + x] : 0.0;
            v[i][x] = i < size ? ((const double*)s.v.data)[3 * (p * N + atom[i]) + x] : 0.0;
        }
    }
    // held atoms have no velocity to lose; what the centre had leaves as heat
    const auto lose = [&](const double* velocity) {
        for (int i = 0; i < A; ++i)
            for (int x = 0; x < 3; ++x) v[i][x] -= inverse[i] > 0.0 ? velocity[x] : 0.0;
        if (g == 0) heat -= 0.5 * s.mass * dot(velocity, velocity);
    };
    lose(centre);
    $bonds
    for (int k = 0; k < operations; ++k) {
        const int code = codes[k], n = draws[k];
        const double time = times[k];
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
            const double* turns = all_turns + 3 * k;
            for (int i = 0; i < A; ++i)
                for (int x = 0; x < 3; ++x) {
                    const double before = q[i][x];
                    q[i][x] = turns[0] * before + turns[1] * v[i][x];
                    v[i][x] = turns[0] * v[i][x] - turns[2] * before;
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
        } else if (ALONE && code == $STOP && p == 0) {
            double of_all[3] = {0.0, 0.0, 0.0};
            for (int i = 0; i < A; ++i)
                for (int x = 0; x < 3; ++x) of_all[x] += m[i] * v[i][x];
            added_up(of_all);
            for (int x = 0; x < 3; ++x) of_all[x] *= per_mass;
            lose(of_all);
        }
        $held
    }
    for (int i = 0; i < A; ++i)
        for (int x = 0; i < size && x < 3; ++x) {
            ((double*)s.q.data)[3 * (p * N + atom[i]) + x] = q[i][x];
            ((double*)s.v.data)[3 * (p * N + atom[i]) + x] = v[i][x];
            momentum[x] += m[i] * v[i][x];
        }
    if (g < G) s.heat.data[p * G + g] += heat;
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
const int count = g < G ? bonds.counts.data[g] : 0;
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


def source(*, atoms: int, most: int, extra: int, threads: int, alone: bool) -> str:
    """Return it for `integrators.device.program.program_kernel`."""
    codes = {name: str(number) for number, name in enumerate(CODES)}
    bonds = Template(_BONDS).substitute(most=most) if most else ""
    how = {"iterations": MOST_ITERATIONS, "tolerance": TOLERANCE}
    return IN_BLOCKS + Template(_ALL).substitute(
        codes,
        atoms=atoms,
        extra=extra,
        threads=threads,
        groups=GROUPS,
        operations=MOST_OPERATIONS,
        added_up=ADDED_UP,
        alone=str(alone).lower(),
        bonds=bonds,
        held=Template(_HELD).substitute(codes, **how) if most else "",
        thermostat=_COLOURED if extra else _WHITE,
    )
