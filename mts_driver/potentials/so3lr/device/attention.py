"""SO3LR's attention on a device: what :mod:`mts_driver.potentials.so3lr.attention` works out.

A pair is worked on once, both ways; then every atom gathers from its pairs, so that nothing is
added to by two threads.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from integrators.device.launches import launch
from mts_driver.potentials.so3lr.attention import (
    FEATURES,
    HEADS,
    KEY,
    VALUE,
    FusedAttention,
    PlainAttention,
    fused_layers,
)
from mts_driver.potentials.so3lr.device.attention_kernels import attention_kernels
from mts_driver.potentials.so3lr.device.contrast import contrast


class Rows(NamedTuple):
    """Pairs of every atom.

    Attributes
    ----------
    entries, others : int32 Tensor, shape (M, K)
        Twice the number of a pair, and one more where the atom is its second; the other atom.
    counts : int32 Tensor, shape (M,)
        How many there are.
    ends, mine : int32 Tensor, shape (M,)
        Where the pairs end whose first is the atom, and how many they are. Arrays of pairs may be
        longer than the last of the ends.
    """

    entries: Tensor
    others: Tensor
    counts: Tensor
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
        return contrast(ev, i, j, self.rows, self._factors, self._degree)

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
