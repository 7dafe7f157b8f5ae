"""SO3LR's attention on a device: what :mod:`mts_driver.potentials.so3lr.attention` works out.

The kernels are C++ for Warp, which compiles them for the CPU, where a block is one thread, and for
CUDA. A pair is worked on once, both ways; then every atom gathers from its pairs, so that nothing
is added to by two threads.
"""

from functools import cache
from string import Template
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from integrators.device.launches import launch, warp
from mts_driver.potentials.so3lr.attention import (
    FEATURES,
    HEADS,
    KEY,
    VALUE,
    WIDTH,
    FusedAttention,
    PlainAttention,
    fused_layers,
)
from mts_driver.potentials.so3lr.device.contrast import Contrast

PAIR_THREADS, GATHER_THREADS, ATOM_THREADS = HEADS * WIDTH, 160, FEATURES
"""Of a block on a GPU: one for each feature that an atom has, or gets."""


class Rows(NamedTuple):
    """Pairs of every atom.

    Attributes
    ----------
    entries, others : int32 Tensor, shape (M, K)
        Twice the number of a pair, and one more where the atom is its second; the other atom.
    count : int32 Tensor, shape (M,)
        How many there are.
    ends, mine : int32 Tensor, shape (M,)
        Where the pairs end whose first is the atom, and how many they are. Arrays of pairs may be
        longer than the last of the ends.
    """

    entries: Tensor
    others: Tensor
    count: Tensor
    ends: Tensor
    mine: Tensor


class DeviceAttention(PlainAttention):
    """The attention of one layer.

    Parameters
    ----------
    block : torch.nn.Module
        The packaged attention block, on the device, in the precision of the run.
    layer : FusedAttention
        Of it, whose tables are taken.

    Attributes
    ----------
    rows : Rows
        Of the pairs that it will be called with.
    """

    rows: Rows

    def __init__(self, block: Any, layer: FusedAttention) -> None:
        device, self.grid, self._block = block.W_q_inv.device, layer.grid, block
        asks = block.W_q_inv, block.W_q_ev, block.W_k_inv, block.W_k_ev, block.W_v_inv
        # one product of matrices is faster than five of their blocks, most of which are zero
        self._weights = torch.cat([torch.block_diag(*weight) for weight in asks], 1)
        nets = [net.mlp_ev for net in (block.filter_net_inv, block.filter_net_ev)]
        linears = [[m for m in net.modules() if isinstance(m, nn.Linear)] for net in nets]
        first, second = zip(*linears, strict=True)
        self._first = torch.cat([m.weight.T for m in first], 1), torch.cat([m.bias for m in first])
        self._second = (
            torch.block_diag(*(m.weight.T for m in second)),
            torch.cat([m.bias for m in second]),
        )
        contraction = block.so3_conv_invariants
        self._factors = contraction.cg_rep.to(block.W_q_inv)
        self._degree = contraction.segment_ids.to(torch.int32)
        self.table = torch.from_numpy(layer.table).to(device)
        self.scale = torch.from_numpy(layer.scale).to(device)
        self.ends = torch.from_numpy(np.cumsum(np.bincount(layer.degree, minlength=HEADS // 2)))
        self.ends = self.ends.to(device, torch.int32)

    def project(self, inv: Tensor) -> Tensor:
        """See `PlainAttention`."""
        atoms = inv @ self._weights
        if isinstance(self._block.qk_non_linearity, nn.Identity):
            return atoms
        asks = self._block.qk_non_linearity(atoms[:, :VALUE])
        return torch.cat((asks, atoms[:, VALUE:]), -1)

    def shapes(self, ev: Tensor, i: Tensor, j: Tensor) -> Tensor:
        """See `PlainAttention`."""
        how = self._factors, self._degree, len(self.ends)
        found: Tensor = Contrast.apply(ev, i, j, self.rows, *how)
        return found

    def filters(self, shape: Tensor) -> Tensor:
        """See `PlainAttention`."""
        (w1, b1), (w2, b2) = self._first, self._second
        return torch.addmm(b2, nn.functional.silu(torch.addmm(b1, shape, w1)), w2)

    def __call__(
        self, i: Tensor, j: Tensor, r: Tensor, cutoff: Tensor, to_i: Tensor, parity: Tensor,
        atoms: Tensor, ev_filter: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """See `PlainAttention`."""
        changes: tuple[Tensor, Tensor] = _Function.apply(
            self, i, j, r, cutoff, to_i, parity, atoms, ev_filter
        )
        return changes


def device_layers(packaged: Any) -> tuple[DeviceAttention, ...]:
    """Return all layers of a packaged model on its device, for one set of pairs."""
    blocks = [layer.euclidean_attention_block for layer in packaged.euclidean_transformers]
    pairs = zip(blocks, fused_layers(packaged), strict=True)
    return tuple(DeviceAttention(block, layer) for block, layer in pairs)


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx, layer, i, j, r, cutoff, to_i, parity, atoms, ev_filter):
        given = [t.contiguous() for t in (i, j, r, cutoff, to_i, parity, atoms, ev_filter)]
        pairs, many, rows = len(i), len(atoms), layer.rows
        kernels = attention_kernels(atoms.dtype == torch.float64, atoms.device.type)
        filters, scores = atoms.new_empty(pairs, KEY), atoms.new_empty(pairs, 2 * HEADS)
        inv, ev = atoms.new_empty(many, FEATURES), atoms.new_empty(many, to_i.shape[1])
        i, j, r, cutoff, to_i, parity, atoms, ev_filter = given
        launch(
            *(kernels.score, (many, kernels.pair_threads), j, r, cutoff, atoms, ev_filter),
            *(len(ev_filter), layer.table, *layer.grid, layer.scale, rows.ends, rows.mine),
            *(filters, scores),
            block=kernels.pair_threads,
        )
        launch(
            *(kernels.gather, (many, kernels.gather_threads), to_i, parity, atoms, layer.ends),
            *(*rows[:3], scores, inv, ev),
            block=kernels.gather_threads,
        )
        ctx.layer, ctx.filtered, ctx.rows = layer, ctx.needs_input_grad[8], rows
        ctx.save_for_backward(*given[:7], filters)
        return inv, ev

    @staticmethod
    def backward(ctx, by_inv, by_ev):
        layer, rows = ctx.layer, ctx.rows
        i, j, r, cutoff, to_i, parity, atoms, filters = ctx.saved_tensors
        by_inv, by_ev = by_inv.contiguous(), by_ev.contiguous()
        kernels = attention_kernels(atoms.dtype == torch.float64, atoms.device.type)
        pairs, many = len(i), len(atoms)
        by_r, by_cutoff, by_to_i = (torch.empty_like(t) for t in (r, cutoff, to_i))
        by_filter = atoms.new_empty(pairs if ctx.filtered else 0, KEY)
        factors, by_atoms = atoms.new_empty(pairs, 4 * HEADS), torch.empty_like(atoms)
        of_heads = atoms.new_empty(pairs, 2 * HEADS)
        launch(
            *(kernels.slopes, (many, kernels.pair_threads), j, r, cutoff, to_i, parity),
            *(atoms, filters, layer.table, *layer.grid, layer.scale, layer.ends),
            *(rows.ends, rows.mine, by_inv, by_ev, int(ctx.filtered)),
            *(by_to_i, by_filter, factors, of_heads),
            block=kernels.pair_threads,
        )
        launch(
            *(kernels.gather_back, (many, kernels.atom_threads), atoms, filters, *rows),
            *(factors, by_inv, of_heads, by_atoms, by_r, by_cutoff),
            block=kernels.atom_threads,
        )
        of_filter = by_filter if ctx.filtered else None
        return None, None, None, by_r, by_cutoff, by_to_i, None, by_atoms, of_filter


_HEAD = """
using number = $number;
constexpr int T = $threads, LANES = T < 32 ? 1 : 32, TEAMS = T / LANES;
constexpr int F = $F, HEADS = $H, KEY = $K, VALUE = $V, ROW = VALUE + F, WIDTH = $W;
"""

# pairs of the first atom ``n``, of whose heads a team of lanes has one
_PAIRS = """
constexpr int EACH = WIDTH / LANES;
const int team = t / LANES, lane = t % LANES, pairs = r.shape[0], all = ends.data[ends.shape[0] - 1];
const int last = wp::min(ends.data[n], pairs), start = ends.data[n] - mine.data[n];
const auto over_lanes = [](number s) {
#if defined(__CUDA_ARCH__)
    for (int o = LANES / 2; o > 0; o /= 2) s += __shfl_xor_sync(0xffffffff, s, o);
#endif
    return s;
};
const number* a = atoms.data + ROW * n;
const auto cell_of = [&](int p, number& s) {
    const double u = (double(r.data[p]) - r0) * per_A;
    const int cell = wp::min(wp::max((int)u, 0), table.shape[0] - 2);
    s = number(u - cell);
    return table.data + 2 * KEY * cell;
};
"""

_SCORE = """
for (int h = team; h < HEADS; h += TEAMS) {
    const int d0 = WIDTH * h + lane;
    number q[EACH], k[EACH];
    for (int e = 0; e < EACH; ++e) {
        q[e] = a[d0 + LANES * e];
        k[e] = a[KEY + d0 + LANES * e];
    }
    for (int p = start; p < last; ++p) {
        const number* b = atoms.data + ROW * j.data[p];
        const number* more = extra.data + (extras > 1 ? KEY * p : 0);
        number s, x = 0, y = 0;
        const number *low = cell_of(p, s), *high = low + 2 * KEY;
        const number v = 1 - s, a0 = (1 + 2 * s) * v * v, a1 = (1 + 2 * v) * s * s;
        const number b0 = s * v * v, b1 = -v * s * s;
        for (int e = 0; e < EACH; ++e) {
            const int d = d0 + LANES * e;
            const number w = a0 * low[d] + b0 * low[KEY + d] + a1 * high[d] + b1 * high[KEY + d]
                + more[d];
            filters.data[KEY * p + d] = w;
            x += q[e] * w * b[KEY + d];
            y += b[d] * w * k[e];
        }
        const number factor = scale.data[h] * cutoff.data[p];
        x = over_lanes(x) * factor;
        y = over_lanes(y) * factor;
        if (lane == 0) {
            scores.data[2 * HEADS * p + h] = x;
            scores.data[2 * HEADS * p + HEADS + h] = y;
        }
    }
}
"""

_GATHER = """
const int E = to_i.shape[1], length = entries.shape[1];
const int *row = entries.data + length * n, *other = others.data + length * n;
for (int o = t; o < F + E; o += T) {
    int head = o / WIDTH;
    const int m = o - F;
    if (m >= 0)
        for (head = HEADS / 2; m >= degrees.data[head - HEADS / 2]; ++head) {}
    number sum = 0;
    for (int k = 0; k < count.data[n]; ++k) {
        const int p = row[k] / 2, back = row[k] % 2;
        const number score = scores.data[2 * HEADS * p + HEADS * back + head];
        if (m < 0) sum += score * atoms.data[ROW * other[k] + VALUE + o];
        else sum += score * to_i.data[E * p + m] * (back ? parity.data[m] : number(1));
    }
    if (m < 0) inv.data[F * n + o] = sum;
    else ev.data[E * n + m] = sum;
}
"""

_SLOPES = """
const int E = to_i.shape[1];
const number *of_i = by_inv.data + F * n, *ev_i = by_ev.data + E * n;
for (int h = team; h < HEADS; h += TEAMS) {
    const bool inv = h < HEADS / 2;
    const int d0 = WIDTH * h + lane, degree = h - HEADS / 2;
    const int m0 = degree > 0 ? degrees.data[degree - 1] : 0, m1 = inv ? 0 : degrees.data[degree];
    number q[EACH], k[EACH], v[EACH], g[EACH];
    for (int e = 0; e < EACH; ++e) {
        const int d = d0 + LANES * e;
        q[e] = a[d];
        k[e] = a[KEY + d];
        v[e] = inv ? a[VALUE + d] : 0;
        g[e] = inv ? of_i[d] : 0;
    }
    for (int p = start; p < last; ++p) {
        // scores, and the gradient by them, from the values and from the harmonics
        const number *b = atoms.data + ROW * j.data[p], *of_j = by_inv.data + F * j.data[p];
        const number *filter = filters.data + KEY * p, *ev_j = by_ev.data + E * j.data[p];
        number x = 0, y = 0, by_x = 0, by_y = 0, z = 0, s;
        for (int e = 0; e < EACH; ++e) {
            const int d = d0 + LANES * e;
            x += q[e] * filter[d] * b[KEY + d];
            y += b[d] * filter[d] * k[e];
            if (inv) {
                by_x += g[e] * b[VALUE + d];
                by_y += of_j[d] * v[e];
            }
        }
        for (int m = m0 + lane; m < m1; m += LANES) {
            by_x += ev_i[m] * to_i.data[E * p + m];
            by_y += ev_j[m] * to_i.data[E * p + m] * parity.data[m];
        }
        x = over_lanes(x);
        y = over_lanes(y);
        by_x = over_lanes(by_x);
        by_y = over_lanes(by_y);
        const number factor = scale.data[h] * cutoff.data[p];
        if (lane == 0) of_heads.data[2 * HEADS * p + h] = (by_x * x + by_y * y) * scale.data[h];
        x *= factor;
        y *= factor;
        by_x *= factor;
        by_y *= factor;
        if (lane == 0) {
            number* to = factors.data + 4 * HEADS * p + h;
            to[0] = x;
            to[HEADS] = y;
            to[2 * HEADS] = by_x;
            to[3 * HEADS] = by_y;
        }
        for (int m = m0 + lane; m < m1; m += LANES)
            by_to_i.data[E * p + m] = x * ev_i[m] + y * ev_j[m] * parity.data[m];
        const number *low = cell_of(p, s), *high = low + 2 * KEY;
        const number rise = 6 * s * (1 - s), rise0 = (1 - s) * (1 - 3 * s), rise1 = s * (3 * s - 2);
        for (int e = 0; e < EACH; ++e) {
            const int d = d0 + LANES * e;
            const number by_w = by_x * q[e] * b[KEY + d] + by_y * b[d] * k[e];
            if (filtered) by_filter.data[KEY * p + d] = by_w;
            const number slope = rise * (high[d] - low[d]) + rise0 * low[KEY + d];
            z += by_w * (slope + rise1 * high[KEY + d]);
        }
        z = over_lanes(z);
        if (lane == 0) of_heads.data[2 * HEADS * p + HEADS + h] = z * number(per_A);
    }
}
// room that no pair has
for (int p = all + n; p < pairs; p += ends.shape[0]) {
    for (int d = t; d < KEY && filtered; d += T) by_filter.data[KEY * p + d] = 0;
    for (int m = t; m < E; m += T) by_to_i.data[E * p + m] = 0;
    for (int h = t; h < 2 * HEADS; h += T) of_heads.data[2 * HEADS * p + h] = 0;
}
"""

_GATHER_BACK = """
const int length = entries.shape[1], pairs = of_heads.shape[0], all = ends.data[ends.shape[0] - 1];
const int *row = entries.data + length * n, *others_of = others.data + length * n;
for (int o = t; o < F; o += T) {
    // of what the atom asks, of its keys, and of its value; for invariant and Euclidean heads
    number asks[2] = {}, keys[2] = {}, value = 0;
    for (int k = 0; k < count.data[n]; ++k) {
        const int p = row[k] / 2, back = row[k] % 2, head = o / WIDTH;
        const number* other = atoms.data + ROW * others_of[k];
        const number* of = factors.data + 4 * HEADS * p + head;
        value += of[back ? 0 : HEADS] * by_inv.data[F * others_of[k] + o];
        for (int e = 0; e < 2; ++e) {
            const int d = F * e + o, h = HEADS / 2 * e;
            const number w = filters.data[KEY * p + d];
            asks[e] += of[(back ? 3 : 2) * HEADS + h] * w * other[KEY + d];
            keys[e] += of[(back ? 2 : 3) * HEADS + h] * w * other[d];
        }
    }
    number* to = by_atoms.data + ROW * n;
    for (int e = 0; e < 2; ++e) {
        to[F * e + o] = asks[e];
        to[KEY + F * e + o] = keys[e];
    }
    to[VALUE + o] = value;
}
// what all heads of a pair have found; and of room that no pair has
const auto put = [&](int p) {
    number by_c = 0, by = 0;
    for (int h = 0; h < HEADS; ++h) {
        by_c += of_heads.data[2 * HEADS * p + h];
        by += of_heads.data[2 * HEADS * p + HEADS + h];
    }
    by_cutoff.data[p] = by_c;
    by_r.data[p] = by;
};
for (int p = ends.data[n] - mine.data[n] + t; p < wp::min(ends.data[n], pairs); p += T) put(p);
for (int p = all + n + ends.shape[0] * t; p < pairs; p += ends.shape[0] * T) put(p);
"""


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
        sizes = {"F": FEATURES, "H": HEADS, "K": KEY, "V": VALUE, "W": WIDTH}
        kind = "double" if double else "float"
        return Template(_HEAD).substitute(sizes, number=kind, threads=threads) + body

    @wp.func_native(text(_PAIRS + _SCORE, threads[0]))
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

    @wp.func_native(text(_GATHER, threads[1]))
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

    @wp.func_native(text(_PAIRS + _SLOPES, threads[0]))
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

    @wp.func_native(text(_GATHER_BACK, threads[2]))
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
