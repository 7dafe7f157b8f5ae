"""SO3LR's attention as a fused CPU kernel: forward, and all derivatives in one pass backward.

Per pair only the two atoms' rows and the pair's filter are touched, so that none of the arrays of
the size pairs x features of a plain torch version exists. The radial part of the filters depends on
r alone and is read from cubic splines instead of running two networks for every pair.
"""

import numpy as np
import torch
from numba import njit, prange
from numpy.typing import NDArray
from torch import Tensor, nn

CHUNKS = 4
"""Blocks of pairs that threads share; fixed, so that sums don't depend on the thread count."""
TABLE_START_A = 0.2
CELLS = {torch.float32: 512, torch.float64: 4096}
"""Interpolation errors are below the rounding of float32, and below 1e-10 in float64."""


class FusedAttention(nn.Module):
    """`so3lr_network.attention` of one layer.

    Parameters
    ----------
    block : nn.Module
        The packaged attention block, in the precision of the run.
    rbf : nn.Module
        The packaged radial basis.
    cutoff_A : float
        Where it ends, Å.
    """

    def __init__(self, block: nn.Module, rbf: nn.Module, cutoff_A: float) -> None:
        super().__init__()
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
        self.degree = np.repeat(
            np.arange(block.ev_heads), block.degree_repeats.cpu().numpy()
        )
        self.heads = block.inv_heads
        self.norms = (float(block.att_norm_inv), float(block.att_norm_ev))

    def forward(
        self, i: Tensor, j: Tensor, r: Tensor, cutoff: Tensor, to_i: Tensor, parity: Tensor,
        atoms: Tensor, ev_filter: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Changes of the invariant (M, F) and Euclidean (M, 24) features.

        Parameters
        ----------
        r, cutoff : Tensor, shape (P, 1)
            Distances and cutoff function.
        to_i : Tensor, shape (P, 24)
            Spherical harmonics of x_i − x_j; ``parity`` (24,) turns them round.
        atoms : Tensor, shape (M, 5 F)
            Query, key, value, and query, key of the Euclidean part, of every atom.
        ev_filter : Tensor, shape (P, 2 F) or (1, 2 F)
            The part of both filters that does not come from r.
        """
        return _Function.apply(self, i, j, r, cutoff, to_i, parity, atoms, ev_filter)


def _double(module: nn.Module) -> nn.Module:
    import copy

    return copy.deepcopy(module).double()


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx, layer, i, j, r, cutoff, to_i, parity, atoms, ev_filter):  # type: ignore[no-untyped-def]
        tensors = (i, j, r[:, 0], cutoff[:, 0], to_i, parity, atoms, ev_filter)
        ctx.arrays = [t.detach().contiguous().numpy() for t in tensors]
        ctx.layer = layer
        out = _forward(*ctx.arrays, layer.table, *layer.grid, layer.heads, layer.degree, layer.norms)
        return torch.from_numpy(out[0]), torch.from_numpy(out[1])

    @staticmethod
    def backward(ctx, grad_inv, grad_ev):  # type: ignore[no-untyped-def]
        layer = ctx.layer
        found = _backward(
            *ctx.arrays, layer.table, *layer.grid, layer.heads, layer.degree, layer.norms,
            grad_inv.contiguous().numpy(), grad_ev.contiguous().numpy(),
        )  # fmt: skip
        d_r, d_cutoff, d_to_i, d_atoms, d_filter = (torch.from_numpy(a) for a in found)
        d_filter = d_filter if ctx.needs_input_grad[8] else None
        return None, None, None, d_r[:, None], d_cutoff[:, None], d_to_i, None, d_atoms, d_filter


@njit(inline="always", fastmath=True)
def _filter(table, u, extra, value):  # type: ignore[no-untyped-def]
    """Radial filter from its spline at ``u`` cells, plus ``extra``."""
    k = min(max(int(u), 0), table.shape[0] - 2)
    s = table.dtype.type(u - k)
    low, high = table[k], table[k + 1]
    for c in range(value.size):
        y0, m0, y1, m1 = low[0, c], low[1, c], high[0, c], high[1, c]
        c2, c3 = 3 * (y1 - y0) - 2 * m0 - m1, 2 * (y0 - y1) + m0 + m1
        value[c] = y0 + s * (m0 + s * (c2 + s * c3)) + extra[c]


@njit(parallel=True, cache=True, fastmath=True)
def _forward(i, j, r, cutoff, to_i, parity, atoms, ev_filter, table, r0, inverse_h, heads, degree, norms):  # type: ignore[no-untyped-def]
    size, components = table.shape[2] // 2, to_i.shape[1]
    degrees = degree.max() + 1
    width, width_ev = size // heads, size // degrees
    d_inv = np.zeros((CHUNKS, atoms.shape[0], size), atoms.dtype)
    d_ev = np.zeros((CHUNKS, atoms.shape[0], components), atoms.dtype)
    zero = atoms.dtype.type(0.0)
    for chunk in prange(CHUNKS):
        w = np.empty(2 * size, atoms.dtype)
        b_ij, b_ji = np.empty(degrees, atoms.dtype), np.empty(degrees, atoms.dtype)
        for p in range(r.size * chunk // CHUNKS, r.size * (chunk + 1) // CHUNKS):
            a, b = atoms[i[p]], atoms[j[p]]
            out_i, out_j = d_inv[chunk, i[p]], d_inv[chunk, j[p]]
            _filter(table, (r[p] - r0) * inverse_h, ev_filter[p % ev_filter.shape[0]], w)
            scale = cutoff[p] / atoms.dtype.type(norms[0])
            for h in range(heads):
                s_ij = s_ji = zero
                for d in range(h * width, (h + 1) * width):
                    s_ij += a[d] * w[d] * b[size + d]
                    s_ji += b[d] * w[d] * a[size + d]
                s_ij, s_ji = s_ij * scale, s_ji * scale
                for d in range(h * width, (h + 1) * width):
                    out_i[d] += s_ij * b[2 * size + d]
                    out_j[d] += s_ji * a[2 * size + d]
            scale = cutoff[p] / atoms.dtype.type(norms[1])
            for m in range(degrees):
                s_ij = s_ji = zero
                for d in range(m * width_ev, (m + 1) * width_ev):
                    s_ij += a[3 * size + d] * w[size + d] * b[4 * size + d]
                    s_ji += b[3 * size + d] * w[size + d] * a[4 * size + d]
                b_ij[m], b_ji[m] = s_ij * scale, s_ji * scale
            for m in range(components):
                d_ev[chunk, i[p], m] += b_ij[degree[m]] * to_i[p, m]
                d_ev[chunk, j[p], m] += b_ji[degree[m]] * to_i[p, m] * parity[m]
    return d_inv.sum(0), d_ev.sum(0)


@njit(parallel=True, cache=True, fastmath=True)
def _backward(  # type: ignore[no-untyped-def]
    i, j, r, cutoff, to_i, parity, atoms, ev_filter, table, r0, inverse_h, heads, degree, norms, g_inv, g_ev
):
    size, components = table.shape[2] // 2, to_i.shape[1]
    degrees = degree.max() + 1
    width, width_ev = size // heads, size // degrees
    d_r, d_cutoff = np.empty_like(r), np.empty_like(cutoff)
    d_to_i, d_filter = np.empty_like(to_i), np.empty((r.size, 2 * size), atoms.dtype)
    d_atoms = np.zeros((CHUNKS, atoms.shape[0], atoms.shape[1]), atoms.dtype)
    zero, step = atoms.dtype.type(0.0), atoms.dtype.type(inverse_h)
    for chunk in prange(CHUNKS):
        w = np.empty(2 * size, atoms.dtype)
        gb_ij, gb_ji = np.empty(degrees, atoms.dtype), np.empty(degrees, atoms.dtype)
        b_ij, b_ji = np.empty(degrees, atoms.dtype), np.empty(degrees, atoms.dtype)
        for p in range(r.size * chunk // CHUNKS, r.size * (chunk + 1) // CHUNKS):
            a, b = atoms[i[p]], atoms[j[p]]
            ga, gb = d_atoms[chunk, i[p]], d_atoms[chunk, j[p]]
            hi, hj = g_inv[i[p]], g_inv[j[p]]
            dw = d_filter[p]
            u = (r[p] - r0) * inverse_h
            _filter(table, u, ev_filter[p % ev_filter.shape[0]], w)
            norm = atoms.dtype.type(1.0 / norms[0])
            dc = zero
            for h in range(heads):
                s_ij = s_ji = gs_ij = gs_ji = zero
                for d in range(h * width, (h + 1) * width):
                    s_ij += a[d] * w[d] * b[size + d]
                    s_ji += b[d] * w[d] * a[size + d]
                    gs_ij += hi[d] * b[2 * size + d]
                    gs_ji += hj[d] * a[2 * size + d]
                dc += (gs_ij * s_ij + gs_ji * s_ji) * norm
                scale = cutoff[p] * norm
                s_ij, s_ji = s_ij * scale, s_ji * scale
                gs_ij, gs_ji = gs_ij * scale, gs_ji * scale
                for d in range(h * width, (h + 1) * width):
                    gb[2 * size + d] += s_ij * hi[d]
                    ga[2 * size + d] += s_ji * hj[d]
                    x, y = gs_ij * w[d], gs_ji * w[d]
                    ga[d] += x * b[size + d]
                    gb[size + d] += x * a[d]
                    gb[d] += y * a[size + d]
                    ga[size + d] += y * b[d]
                    dw[d] = gs_ij * a[d] * b[size + d] + gs_ji * b[d] * a[size + d]
            norm = atoms.dtype.type(1.0 / norms[1])
            gb_ij[:], gb_ji[:] = 0, 0
            for m in range(components):
                gb_ij[degree[m]] += g_ev[i[p], m] * to_i[p, m]
                gb_ji[degree[m]] += g_ev[j[p], m] * to_i[p, m] * parity[m]
            for m in range(degrees):
                s_ij = s_ji = zero
                for d in range(m * width_ev, (m + 1) * width_ev):
                    s_ij += a[3 * size + d] * w[size + d] * b[4 * size + d]
                    s_ji += b[3 * size + d] * w[size + d] * a[4 * size + d]
                dc += (gb_ij[m] * s_ij + gb_ji[m] * s_ji) * norm
                scale = cutoff[p] * norm
                b_ij[m], b_ji[m] = s_ij * scale, s_ji * scale
                gs_ij, gs_ji = gb_ij[m] * scale, gb_ji[m] * scale
                for d in range(m * width_ev, (m + 1) * width_ev):
                    x, y = gs_ij * w[size + d], gs_ji * w[size + d]
                    ga[3 * size + d] += x * b[4 * size + d]
                    gb[4 * size + d] += x * a[3 * size + d]
                    gb[3 * size + d] += y * a[4 * size + d]
                    ga[4 * size + d] += y * b[3 * size + d]
                    dw[size + d] = (
                        gs_ij * a[3 * size + d] * b[4 * size + d]
                        + gs_ji * b[3 * size + d] * a[4 * size + d]
                    )
            for m in range(components):
                d_to_i[p, m] = (
                    b_ij[degree[m]] * g_ev[i[p], m] + b_ji[degree[m]] * g_ev[j[p], m] * parity[m]
                )
            d_cutoff[p] = dc
            k = min(max(int(u), 0), table.shape[0] - 2)
            s = atoms.dtype.type(u - k)
            low, high = table[k], table[k + 1]
            slope = zero
            for c in range(2 * size):
                y0, m0, y1, m1 = low[0, c], low[1, c], high[0, c], high[1, c]
                c2, c3 = 3 * (y1 - y0) - 2 * m0 - m1, 2 * (y0 - y1) + m0 + m1
                slope += dw[c] * (m0 + s * (2 * c2 + 3 * s * c3))
            d_r[p] = slope * step
    return d_r, d_cutoff, d_to_i, d_atoms.sum(0), d_filter
