"""SO3LR's attention, in plain torch and as a fused CPU kernel: all derivatives in one pass back.

Per pair only the two atoms' rows and the pair's filter are touched, so that none of the arrays of
the size pairs x features of a plain torch version exists. The radial part of the filters depends on
r alone and is read from cubic splines instead of running two networks for every pair.
"""

import copy
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from mts_driver.errors import UserError

CHUNKS = 4
"""Blocks of pairs that threads share; fixed, so that sums don't depend on the thread count."""
FEATURES, HEADS, WIDTH = 128, 8, 32
"""Of SO3LR: invariant features, heads (half of them for the Euclidean features), their width."""
KEY, VALUE = HEADS * WIDTH, 2 * HEADS * WIDTH
"""Where keys and values start in the row of an atom; queries come first."""
TABLE_START_A = 0.2
CELLS = {torch.float32: 512, torch.float64: 4096}
"""Interpolation errors are below the rounding of float32, and below 1e-10 in float64."""


class PlainAttention:
    """Attention of every atom to its neighbours in plain torch, which others are tested against.

    Parameters
    ----------
    block : torch.nn.Module
        The packaged attention block, in the precision of the run.
    rbf : torch.nn.Module
        The packaged radial basis.
    """

    def __init__(self, block: Any, rbf: Any) -> None:
        self._block, self._rbf = block, rbf

    def project(self, inv: Tensor) -> Tensor:
        """Return queries, Euclidean ones, keys, Euclidean ones and values of features, (M, 5 F)."""
        block = self._block

        def projected(weight: Tensor) -> Tensor:
            heads = inv.view(-1, weight.shape[0], weight.shape[1])
            return torch.einsum("nhd,hde->nhe", heads, weight).reshape(inv.shape)

        asks = block.W_q_inv, block.W_q_ev, block.W_k_inv, block.W_k_ev
        parts = [block.qk_non_linearity(projected(weight)) for weight in asks]
        return torch.cat((*parts, projected(block.W_v_inv)), -1)

    def shapes(self, ev: Tensor, i: Tensor, j: Tensor) -> Tensor:
        """Return invariants (P, 4) of the differences of Euclidean features (M, 24)."""
        invariants: Tensor = self._block.so3_conv_invariants(
            ev.index_select(0, i) - ev.index_select(0, j)
        )
        return invariants

    def filters(self, shape: Tensor) -> Tensor:
        """Return the part of both filters (P, 2 F) that comes from Euclidean features."""
        nets = self._block.filter_net_inv, self._block.filter_net_ev
        return torch.cat([net.mlp_ev(shape) for net in nets], -1)

    def __call__(
        self, i: Tensor, j: Tensor, r: Tensor, cutoff: Tensor, to_i: Tensor, parity: Tensor,
        atoms: Tensor, ev_filter: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Return the changes of the invariant (M, F) and Euclidean (M, 24) features.

        Both directions of a pair share a filter.

        Parameters
        ----------
        r, cutoff : Tensor, shape (P, 1)
            Distances and cutoff function.
        to_i : Tensor, shape (P, 24)
            Spherical harmonics of x_i − x_j; ``parity`` (24,) turns them round.
        atoms : Tensor, shape (M, 5 F)
            As `project` returns them.
        ev_filter : Tensor, shape (P, 2 F) or (1, 2 F)
            The part of both filters that does not come from r.
        """
        block, basis = self._block, self._rbf(r)
        nets = block.filter_net_inv, block.filter_net_ev
        filters = torch.cat([net.mlp_rbf(basis) for net in nets], -1) + ev_filter
        filter_inv, filter_ev = filters.split(FEATURES, -1)
        filter_inv = filter_inv * (cutoff / block.att_norm_inv)
        filter_ev = filter_ev * (cutoff / block.att_norm_ev)
        q_i, qe_i, k_i, ke_i, v_i = atoms.index_select(0, i).split(FEATURES, -1)
        q_j, qe_j, k_j, ke_j, v_j = atoms.index_select(0, j).split(FEATURES, -1)

        def heads(product: Tensor) -> Tensor:
            return product.view(-1, HEADS // 2, WIDTH).sum(-1)

        def message(a: Tensor, values: Tensor) -> Tensor:
            return (a[:, :, None] * values.view(-1, HEADS // 2, WIDTH)).reshape(-1, FEATURES)

        def spread(a: Tensor) -> Tensor:
            return a.repeat_interleave(block.degree_repeats, -1, output_size=to_i.shape[1])

        d_inv = atoms.new_zeros(atoms.shape[0], FEATURES)
        d_inv = d_inv.index_add(0, i, message(heads(q_i * filter_inv * k_j), v_j))
        d_inv = d_inv.index_add(0, j, message(heads(q_j * filter_inv * k_i), v_i))
        d_ev = atoms.new_zeros(atoms.shape[0], to_i.shape[1])
        d_ev = d_ev.index_add(0, i, spread(heads(qe_i * filter_ev * ke_j)) * to_i)
        d_ev = d_ev.index_add(0, j, spread(heads(qe_j * filter_ev * ke_i)) * to_i * parity)
        return d_inv, d_ev


class FusedAttention(PlainAttention):
    """The same by kernels for the CPU.

    Parameters
    ----------
    block : torch.nn.Module
        The packaged attention block, in the precision of the run.
    rbf : torch.nn.Module
        The packaged radial basis.
    cutoff_A : float
        Where it ends, Å.
    """

    def __init__(self, block: Any, rbf: Any, cutoff_A: float) -> None:
        super().__init__(block, rbf)
        dtype = block.W_q_inv.dtype
        cells = CELLS[dtype]
        r = torch.linspace(TABLE_START_A, cutoff_A, cells + 1, dtype=torch.float64)
        step = float(r[1] - r[0])
        self.grid = (TABLE_START_A, 1.0 / step)
        nets = [_double(net.mlp_rbf) for net in (block.filter_net_inv, block.filter_net_ev)]
        basis = _double(rbf)

        def curves(r: Tensor) -> Tensor:
            b = basis(r[:, None])
            return torch.cat([net(b) for net in nets], -1)

        with torch.no_grad():
            values = curves(r)
        slopes = torch.autograd.functional.jvp(curves, r, torch.ones_like(r))[1] * step
        self.table = torch.stack((values, slopes), 1).to(dtype).numpy()
        self.degree = np.repeat(np.arange(block.ev_heads), block.degree_repeats.cpu().numpy())
        norms = [block.att_norm_inv] * block.inv_heads + [block.att_norm_ev] * block.ev_heads
        self.scale = (1.0 / np.array(norms)).astype(self.table.dtype)
        if (block.inv_features_dim, len(norms), block.inv_head_dim) != (FEATURES, HEADS, WIDTH):
            raise UserError(
                "the SO3LR weights of this so3krates-torch have another architecture than those "
                "that mts-driver was written for: pip install so3krates-torch==0.2.1"
            )

    def __call__(
        self, i: Tensor, j: Tensor, r: Tensor, cutoff: Tensor, to_i: Tensor, parity: Tensor,
        atoms: Tensor, ev_filter: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """See `PlainAttention`."""
        return _Function.apply(self, i, j, r, cutoff, to_i, parity, atoms, ev_filter)


@lru_cache(maxsize=4)
def fused_layers(packaged: Any) -> tuple[FusedAttention, ...]:
    """Return all layers of a packaged model; its tables are made once."""
    blocks = [layer.euclidean_attention_block for layer in packaged.euclidean_transformers]
    return tuple(
        FusedAttention(b, packaged.radial_embedding, float(packaged.r_max)) for b in blocks
    )


def _double(module: Any) -> Any:
    return copy.deepcopy(module).cpu().double()


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx, layer, i, j, r, cutoff, to_i, parity, atoms, ev_filter):
        tensors = (i, j, r[:, 0], cutoff[:, 0], to_i, parity, atoms, ev_filter)
        ctx.arrays = [t.detach().contiguous().numpy() for t in tensors]
        ctx.layer = layer
        out = _forward(*ctx.arrays, layer.table, *layer.grid, layer.degree, layer.scale)
        return torch.from_numpy(out[0]), torch.from_numpy(out[1])

    @staticmethod
    def backward(ctx, grad_inv, grad_ev):
        layer = ctx.layer
        found = _backward(
            *ctx.arrays, layer.table, *layer.grid, layer.degree, layer.scale,
            grad_inv.contiguous().numpy(), grad_ev.contiguous().numpy(),
        )  # fmt: skip
        d_r, d_cutoff, d_to_i, d_atoms, d_filter = (torch.from_numpy(a) for a in found)
        shape = d_filter if ctx.needs_input_grad[8] else None
        return None, None, None, d_r[:, None], d_cutoff[:, None], d_to_i, None, d_atoms, shape


@njit(inline="always", fastmath=True)
def _filter(table, u, extra, value):
    """Radial filter from its spline at ``u`` cells, plus ``extra``."""
    k = min(max(int(u), 0), table.shape[0] - 2)
    s = table.dtype.type(u - k)
    low, high = table[k], table[k + 1]
    # weights of the two values and slopes are the same for all features
    t = 1 - s
    a0, a1, b0, b1 = (1 + 2 * s) * t * t, (1 + 2 * t) * s * s, s * t * t, -t * s * s
    for c in range(KEY):
        value[c] = a0 * low[0, c] + b0 * low[1, c] + a1 * high[0, c] + b1 * high[1, c] + extra[c]


@njit(inline="always", fastmath=True)
def _slope(table, u, value):
    """Take the derivative of the radial filter, per cell."""
    k = min(max(int(u), 0), table.shape[0] - 2)
    s = table.dtype.type(u - k)
    low, high = table[k], table[k + 1]
    a, b0, b1 = 6 * s * (1 - s), (1 - s) * (1 - 3 * s), s * (3 * s - 2)
    for c in range(KEY):
        value[c] = a * (high[0, c] - low[0, c]) + b0 * low[1, c] + b1 * high[1, c]


# In the kernels a loop writes to one array and reads few others, so that LLVM can prove or check
# that they do not overlap and uses vector instructions; widths are compile-time constants.


@njit(inline="always", fastmath=True)
def _dots(a, b, w, s_ij, s_ji):
    """Unscaled attention of every head in both directions: Σ q_i w k_j and Σ q_j w k_i."""
    for h in range(HEADS):
        x = y = a.dtype.type(0.0)
        for d in range(h * WIDTH, (h + 1) * WIDTH):
            x += a[d] * w[d] * b[KEY + d]
            y += b[d] * w[d] * a[KEY + d]
        s_ij[h], s_ji[h] = x, y


@njit(inline="always", fastmath=True)
def _spread(per_head, out):
    """One value a head to one value a feature."""
    for h in range(out.size // WIDTH):
        for d in range(h * WIDTH, (h + 1) * WIDTH):
            out[d] = per_head[h]


@njit(inline="always", fastmath=True)
def _add_product(out, x, y):
    for d in range(x.size):
        out[d] += x[d] * y[d]


@njit(parallel=True, cache=True, fastmath=True)
def _forward(i, j, r, cutoff, to_i, parity, atoms, ev_filter, table, r0, inverse_h, degree, scale):
    d_inv = np.zeros((CHUNKS, atoms.shape[0], FEATURES), atoms.dtype)
    d_ev = np.zeros((CHUNKS, atoms.shape[0], to_i.shape[1]), atoms.dtype)
    for chunk in prange(CHUNKS):
        w = np.empty(KEY, atoms.dtype)
        s_ij, s_ji = np.empty(HEADS, atoms.dtype), np.empty(HEADS, atoms.dtype)
        e_ij, e_ji = np.empty(FEATURES, atoms.dtype), np.empty(FEATURES, atoms.dtype)
        for p in range(r.size * chunk // CHUNKS, r.size * (chunk + 1) // CHUNKS):
            a, b = atoms[i[p]], atoms[j[p]]
            _filter(table, (r[p] - r0) * inverse_h, ev_filter[p % ev_filter.shape[0]], w)
            _dots(a, b, w, s_ij, s_ji)
            for h in range(HEADS):
                s_ij[h] *= scale[h] * cutoff[p]
                s_ji[h] *= scale[h] * cutoff[p]
            _spread(s_ij, e_ij)
            _spread(s_ji, e_ji)
            _add_product(d_inv[chunk, i[p]], e_ij, b[VALUE:])
            _add_product(d_inv[chunk, j[p]], e_ji, a[VALUE:])
            for m in range(to_i.shape[1]):
                h = HEADS // 2 + degree[m]
                d_ev[chunk, i[p], m] += s_ij[h] * to_i[p, m]
                d_ev[chunk, j[p], m] += s_ji[h] * to_i[p, m] * parity[m]
    return d_inv.sum(0), d_ev.sum(0)


@njit(parallel=True, cache=True, fastmath=True)
def _backward(
    i,
    j,
    r,
    cutoff,
    to_i,
    parity,
    atoms,
    ev_filter,
    table,
    r0,
    inverse_h,
    degree,
    scale,
    g_inv,
    g_ev,
):
    d_r, d_cutoff = np.empty_like(r), np.empty_like(cutoff)
    d_to_i, d_filter = np.empty_like(to_i), np.empty((r.size, KEY), atoms.dtype)
    d_atoms = np.zeros((CHUNKS, atoms.shape[0], atoms.shape[1]), atoms.dtype)
    zero = atoms.dtype.type(0.0)
    for chunk in prange(CHUNKS):
        w, slope = np.empty(KEY, atoms.dtype), np.empty(KEY, atoms.dtype)
        s_ij, s_ji = np.empty(HEADS, atoms.dtype), np.empty(HEADS, atoms.dtype)
        g_ij, g_ji = np.empty(HEADS, atoms.dtype), np.empty(HEADS, atoms.dtype)
        e_ij, e_ji = np.empty(FEATURES, atoms.dtype), np.empty(FEATURES, atoms.dtype)
        f_ij, f_ji = np.empty(KEY, atoms.dtype), np.empty(KEY, atoms.dtype)
        for p in range(r.size * chunk // CHUNKS, r.size * (chunk + 1) // CHUNKS):
            a, b, hi, hj = atoms[i[p]], atoms[j[p]], g_inv[i[p]], g_inv[j[p]]
            ga, gb = d_atoms[chunk, i[p]], d_atoms[chunk, j[p]]
            u = (r[p] - r0) * inverse_h
            _filter(table, u, ev_filter[p % ev_filter.shape[0]], w)
            _dots(a, b, w, s_ij, s_ji)
            # derivative in the attention of every head: from the values, and from the harmonics
            for h in range(HEADS // 2):
                x = y = zero
                for d in range(h * WIDTH, (h + 1) * WIDTH):
                    x += hi[d] * b[VALUE + d]
                    y += hj[d] * a[VALUE + d]
                g_ij[h], g_ji[h] = x, y
            g_ij[HEADS // 2 :], g_ji[HEADS // 2 :] = 0, 0
            for m in range(to_i.shape[1]):
                h = HEADS // 2 + degree[m]
                g_ij[h] += g_ev[i[p], m] * to_i[p, m]
                g_ji[h] += g_ev[j[p], m] * to_i[p, m] * parity[m]
            dc = zero
            for h in range(HEADS):
                dc += (g_ij[h] * s_ij[h] + g_ji[h] * s_ji[h]) * scale[h]
                factor = scale[h] * cutoff[p]
                s_ij[h], s_ji[h] = s_ij[h] * factor, s_ji[h] * factor
                g_ij[h], g_ji[h] = g_ij[h] * factor, g_ji[h] * factor
            d_cutoff[p] = dc
            for m in range(to_i.shape[1]):
                h = HEADS // 2 + degree[m]
                d_to_i[p, m] = s_ij[h] * g_ev[i[p], m] + s_ji[h] * g_ev[j[p], m] * parity[m]
            _spread(s_ij, e_ij)
            _spread(s_ji, e_ji)
            _add_product(gb[VALUE:], e_ij, hi)
            _add_product(ga[VALUE:], e_ji, hj)
            _spread(g_ij, f_ij)
            _spread(g_ji, f_ji)
            dw = d_filter[p]
            for d in range(KEY):
                dw[d] = f_ij[d] * a[d] * b[KEY + d] + f_ji[d] * b[d] * a[KEY + d]
            for d in range(KEY):
                f_ij[d] *= w[d]
            for d in range(KEY):
                f_ji[d] *= w[d]
            _add_product(ga[:KEY], f_ij, b[KEY:VALUE])
            _add_product(ga[KEY:VALUE], f_ji, b[:KEY])
            _add_product(gb[:KEY], f_ji, a[KEY:VALUE])
            _add_product(gb[KEY:VALUE], f_ij, a[:KEY])
            _slope(table, u, slope)
            x = zero
            for d in range(KEY):
                x += dw[d] * slope[d]
            d_r[p] = x * inverse_h
    return d_r, d_cutoff, d_to_i, d_atoms.sum(0), d_filter
