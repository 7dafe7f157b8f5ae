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

PAIR_THREADS, ATOM_THREADS = HEADS * WIDTH, FEATURES
"""Of a block on a GPU: one for each feature."""


class Rows(NamedTuple):
    """Pairs of every atom.

    Attributes
    ----------
    entries : int32 Tensor, shape (M, K)
        Twice the number of a pair, and one more where the atom is its second.
    count : int32 Tensor, shape (M,)
        How many there are.
    pairs : int32 Tensor, shape (1,)
        How many pairs there are; arrays may be longer.
    """

    entries: Tensor
    count: Tensor
    pairs: Tensor


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
        of_layer = layer.table, *layer.grid, layer.scale
        launch(
            *(kernels.score, (pairs, kernels.pair_threads), i, j, r, cutoff, atoms, ev_filter),
            *(len(ev_filter), *of_layer, rows.pairs, filters, scores),
            block=kernels.pair_threads,
        )
        launch(
            *(kernels.gather, (many, kernels.atom_threads), i, j, to_i, parity, atoms, layer.ends),
            *(*rows[:2], rows.entries.shape[1], scores, inv, ev),
            block=kernels.atom_threads,
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
        launch(
            *(kernels.slopes, (pairs, kernels.pair_threads), i, j, r, cutoff, to_i, parity),
            *(atoms, filters, layer.table, *layer.grid, layer.scale, layer.ends, rows.pairs),
            *(by_inv, by_ev, int(ctx.filtered)),
            *(by_r, by_cutoff, by_to_i, by_filter, factors),
            block=kernels.pair_threads,
        )
        launch(
            *(kernels.gather_back, (many, kernels.atom_threads), i, j, atoms, filters),
            *(*rows[:2], rows.entries.shape[1], factors, by_inv, by_atoms),
            block=kernels.atom_threads,
        )
        of_filter = by_filter if ctx.filtered else None
        return None, None, None, by_r, by_cutoff, by_to_i, None, by_atoms, of_filter


_HEAD = """
#if defined(__CUDA_ARCH__)
#define SHARED __shared__
#define WAIT() __syncthreads()
#else
#define SHARED
#define WAIT()
#endif
using number = $number;
constexpr int T = $threads, LANES = T < 32 ? 1 : 32, TEAMS = T / LANES;
constexpr int F = $F, HEADS = $H, KEY = $K, VALUE = $V, ROW = VALUE + F, WIDTH = $W;
"""

# a team of lanes has a head
_PAIR = """
const int team = t / LANES, lane = t % LANES, found = pairs.data[0];
const auto over_lanes = [](number s) {
#if defined(__CUDA_ARCH__)
    for (int o = LANES / 2; o > 0; o /= 2) s += __shfl_xor_sync(0xffffffff, s, o);
#endif
    return s;
};
const number *a = atoms.data + ROW * i.data[p], *b = atoms.data + ROW * j.data[p];
const double u = (double(r.data[p]) - start) * per_A;
const int cell = wp::min(wp::max((int)u, 0), table.shape[0] - 2);
const number s = number(u - cell), *low = table.data + 2 * KEY * cell, *high = low + 2 * KEY;
"""

_SCORE = """
if (p >= found) return;
const number v = 1 - s, a0 = (1 + 2 * s) * v * v, a1 = (1 + 2 * v) * s * s, b0 = s * v * v;
const number b1 = -v * s * s;
const number* more = extra.data + (extras > 1 ? KEY * p : 0);
for (int h = team; h < HEADS; h += TEAMS) {
    number x = 0, y = 0;
    for (int d = WIDTH * h + lane; d < WIDTH * (h + 1); d += LANES) {
        const number w = a0 * low[d] + b0 * low[KEY + d] + a1 * high[d] + b1 * high[KEY + d]
            + more[d];
        filters.data[KEY * p + d] = w;
        x += a[d] * w * b[KEY + d];
        y += b[d] * w * a[KEY + d];
    }
    const number factor = scale.data[h] * cutoff.data[p];
    x = over_lanes(x) * factor;
    y = over_lanes(y) * factor;
    if (lane == 0) {
        scores.data[2 * HEADS * p + h] = x;
        scores.data[2 * HEADS * p + HEADS + h] = y;
    }
}
"""

_GATHER = """
const int E = to_i.shape[1], *row = entries.data + length * n;
for (int o = t; o < F + E; o += T) {
    int head = o / WIDTH;
    const int m = o - F;
    if (m >= 0)
        for (head = HEADS / 2; m >= ends.data[head - HEADS / 2]; ++head) {}
    number sum = 0;
    for (int k = 0; k < count.data[n]; ++k) {
        const int p = row[k] / 2, back = row[k] % 2;
        const number score = scores.data[2 * HEADS * p + HEADS * back + head];
        if (m < 0) sum += score * atoms.data[ROW * (back ? i : j).data[p] + VALUE + o];
        else sum += score * to_i.data[E * p + m] * (back ? parity.data[m] : number(1));
    }
    if (m < 0) inv.data[F * n + o] = sum;
    else ev.data[E * n + m] = sum;
}
"""

_SLOPES = """
const int E = to_i.shape[1];
SHARED number of_cutoff[HEADS], of_r[HEADS];
const number rise = 6 * s * (1 - s), rise0 = (1 - s) * (1 - 3 * s), rise1 = s * (3 * s - 2);
const number *of_i = by_inv.data + F * i.data[p], *of_j = by_inv.data + F * j.data[p];
const number *ev_i = by_ev.data + E * i.data[p], *ev_j = by_ev.data + E * j.data[p];
const number* filter = filters.data + KEY * p;
for (int h = team; h < HEADS; h += TEAMS) {
    // scores, and the gradient by them, from the values and from the harmonics
    number x = 0, y = 0, by_x = 0, by_y = 0, z = 0;
    const int first = WIDTH * h, end = first + WIDTH, inv_heads = HEADS / 2;
    const int m0 = h > inv_heads ? ends.data[h - inv_heads - 1] : 0;
    const int m1 = h < inv_heads ? 0 : ends.data[h - inv_heads];
    for (int d = first + lane; d < end && p < found; d += LANES) {
        x += a[d] * filter[d] * b[KEY + d];
        y += b[d] * filter[d] * a[KEY + d];
        if (h < inv_heads) {
            by_x += of_i[d] * b[VALUE + d];
            by_y += of_j[d] * a[VALUE + d];
        }
    }
    for (int m = m0 + lane; m < m1 && p < found; m += LANES) {
        by_x += ev_i[m] * to_i.data[E * p + m];
        by_y += ev_j[m] * to_i.data[E * p + m] * parity.data[m];
    }
    x = over_lanes(x);
    y = over_lanes(y);
    by_x = over_lanes(by_x);
    by_y = over_lanes(by_y);
    const number factor = scale.data[h] * cutoff.data[p];
    if (lane == 0) of_cutoff[h] = (by_x * x + by_y * y) * scale.data[h];
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
    for (int d = first + lane; d < end; d += LANES) {
        const number by_w = by_x * a[d] * b[KEY + d] + by_y * b[d] * a[KEY + d];
        if (filtered) by_filter.data[KEY * p + d] = by_w;
        const number slope = rise * (high[d] - low[d]) + rise0 * low[KEY + d];
        z += by_w * (slope + rise1 * high[KEY + d]);
    }
    z = over_lanes(z);
    if (lane == 0) of_r[h] = z;
}
WAIT();
if (t == 0) {
    number by_c = 0, by = 0;
    for (int h = 0; h < HEADS; ++h) {
        by_c += of_cutoff[h];
        by += of_r[h];
    }
    by_cutoff.data[p] = by_c;
    by_r.data[p] = by * number(per_A);
}
"""

_GATHER_BACK = """
const int* row = entries.data + length * n;
for (int o = t; o < F; o += T) {
    // of what the atom asks, of its keys, and of its value; for invariant and Euclidean heads
    number asks[2] = {}, keys[2] = {}, value = 0;
    for (int k = 0; k < count.data[n]; ++k) {
        const int p = row[k] / 2, back = row[k] % 2, head = o / WIDTH;
        const number* other = atoms.data + ROW * (back ? i : j).data[p];
        const number* of = factors.data + 4 * HEADS * p + head;
        value += of[back ? 0 : HEADS] * by_inv.data[F * (back ? i : j).data[p] + o];
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
"""


class AttentionKernels(NamedTuple):
    """Kernels with threads for each pair, or for each atom, and how many these are."""

    pair_threads: int
    atom_threads: int
    score: Any
    gather: Any
    slopes: Any
    gather_back: Any


@cache
def attention_kernels(double: bool, device: str) -> AttentionKernels:
    """Return the kernels in float64 or float32, for ``cpu`` or ``cuda``."""
    wp = warp()
    alone = device == "cpu"
    pair_threads, atom_threads = (1, 1) if alone else (PAIR_THREADS, ATOM_THREADS)
    number = wp.float64 if double else wp.float32
    numbers, numbers_2d, numbers_3d = (wp.array(dtype=number, ndim=n) for n in (1, 2, 3))
    long, whole, whole_2d = wp.array(dtype=wp.int64), wp.array(dtype=int), wp.array2d(dtype=int)
    kernel = wp.kernel(enable_backward=False, module="unique", grid_stride=False)

    def text(body: str, threads: int) -> str:
        sizes = {"F": FEATURES, "H": HEADS, "K": KEY, "V": VALUE, "W": WIDTH}
        kind = "double" if double else "float"
        return Template(_HEAD).substitute(sizes, number=kind, threads=threads) + body

    @wp.func_native(text(_PAIR + _SCORE, pair_threads))
    def score_pair(
        p: int, t: int, i: long, j: long, r: numbers_2d, cutoff: numbers_2d, atoms: numbers_2d,
        extra: numbers_2d, extras: int, table: numbers_3d, start: wp.float64, per_A: wp.float64,
        scale: numbers, pairs: whole, filters: numbers_2d, scores: numbers_2d,
    ): ...  # fmt: skip

    # filters of pairs, and what both atoms score with each other
    @kernel
    def score(
        i: long, j: long, r: numbers_2d, cutoff: numbers_2d, atoms: numbers_2d, extra: numbers_2d,
        extras: int, table: numbers_3d, start: wp.float64, per_A: wp.float64, scale: numbers,
        pairs: whole, filters: numbers_2d, scores: numbers_2d,
    ):  # fmt: skip
        p, t = wp.tid()
        score_pair(
            p, t, i, j, r, cutoff, atoms, extra, extras, table, start, per_A, scale, pairs,
            filters, scores,
        )  # fmt: skip

    @wp.func_native(text(_GATHER, atom_threads))
    def gather_atom(
        n: int, t: int, i: long, j: long, to_i: numbers_2d, parity: numbers, atoms: numbers_2d,
        ends: whole, entries: whole_2d, count: whole, length: int, scores: numbers_2d,
        inv: numbers_2d, ev: numbers_2d,
    ): ...  # fmt: skip

    # values and harmonics, weighted by scores
    @kernel
    def gather(
        i: long, j: long, to_i: numbers_2d, parity: numbers, atoms: numbers_2d, ends: whole,
        entries: whole_2d, count: whole, length: int, scores: numbers_2d, inv: numbers_2d,
        ev: numbers_2d,
    ):  # fmt: skip
        n, t = wp.tid()
        gather_atom(
            n, t, i, j, to_i, parity, atoms, ends, entries, count, length, scores, inv, ev
        )

    @wp.func_native(text(_PAIR + _SLOPES, pair_threads))
    def slopes_of_pair(
        p: int, t: int, i: long, j: long, r: numbers_2d, cutoff: numbers_2d, to_i: numbers_2d,
        parity: numbers, atoms: numbers_2d, filters: numbers_2d, table: numbers_3d,
        start: wp.float64, per_A: wp.float64, scale: numbers, ends: whole, pairs: whole,
        by_inv: numbers_2d, by_ev: numbers_2d, filtered: int, by_r: numbers_2d,
        by_cutoff: numbers_2d, by_to_i: numbers_2d, by_filter: numbers_2d, factors: numbers_2d,
    ): ...  # fmt: skip

    # gradients by what belongs to pairs
    @kernel
    def slopes(
        i: long, j: long, r: numbers_2d, cutoff: numbers_2d, to_i: numbers_2d, parity: numbers,
        atoms: numbers_2d, filters: numbers_2d, table: numbers_3d, start: wp.float64,
        per_A: wp.float64, scale: numbers, ends: whole, pairs: whole, by_inv: numbers_2d,
        by_ev: numbers_2d, filtered: int, by_r: numbers_2d, by_cutoff: numbers_2d,
        by_to_i: numbers_2d, by_filter: numbers_2d, factors: numbers_2d,
    ):  # fmt: skip
        p, t = wp.tid()
        slopes_of_pair(
            p, t, i, j, r, cutoff, to_i, parity, atoms, filters, table, start, per_A, scale, ends,
            pairs, by_inv, by_ev, filtered, by_r, by_cutoff, by_to_i, by_filter, factors,
        )  # fmt: skip

    @wp.func_native(text(_GATHER_BACK, atom_threads))
    def gather_back_atom(
        n: int, t: int, i: long, j: long, atoms: numbers_2d, filters: numbers_2d,
        entries: whole_2d, count: whole, length: int, factors: numbers_2d, by_inv: numbers_2d,
        by_atoms: numbers_2d,
    ): ...  # fmt: skip

    # gradients by what belongs to atoms
    @kernel
    def gather_back(
        i: long, j: long, atoms: numbers_2d, filters: numbers_2d, entries: whole_2d, count: whole,
        length: int, factors: numbers_2d, by_inv: numbers_2d, by_atoms: numbers_2d,
    ):  # fmt: skip
        n, t = wp.tid()
        gather_back_atom(
            n, t, i, j, atoms, filters, entries, count, length, factors, by_inv, by_atoms
        )

    return AttentionKernels(pair_threads, atom_threads, score, gather, slopes, gather_back)
