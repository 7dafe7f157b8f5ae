"""SO3LR's equivariant transformer on half neighbour lists.

Source: the layers of So3krates (Frank et al., Nat. Commun. 15, 6539 (2024)) and SO3LR (Kabylda
et al., J. Am. Chem. Soc. 2025), with the weights of the package ``so3krates-torch``. Its filters
depend on a pair only through r_ij and |ev_i − ev_j|², both symmetric, so that they are computed
once a pair instead of twice; spherical harmonics of the reversed pair follow from (−1)^l.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mts_driver.potentials.ranks.pairs import Share
from mts_driver.potentials.so3lr.attention import PlainAttention, fused_layers

ALL = slice(None)


class Geometry(NamedTuple):
    """What the network reads of pairs.

    Attributes
    ----------
    r, cutoff : Tensor, shape (P, 1)
        Distances, Å, and cutoff function.
    to_i : Tensor, shape (P, 24)
        Spherical harmonics of x_i − x_j.
    repulsion : Tensor, shape (P,)
        Of nuclei, eV.
    """

    r: Tensor
    cutoff: Tensor
    to_i: Tensor
    repulsion: Tensor


class HalfListTransformer:
    """Atomic energies, partial charges and Hirshfeld ratios from pairs listed once.

    Parameters
    ----------
    packaged : torch.nn.Module
        The model from ``so3krates_torch``; its layers are used as they are.
    numbers : Tensor, shape (N,)
        Atomic numbers of one replica.
    charge : float
        Total charge of a replica, e.
    attention : sequence of PlainAttention, optional
        What works out that of every layer; by default the kernels for the CPU.
    geometry : callable, optional
        What evaluates the `Geometry` of pairs, if it is not torch.
    """

    def __init__(
        self,
        packaged: Any,
        numbers: Tensor,
        charge: float,
        *,
        attention: Sequence[PlainAttention] | None = None,
        geometry: Callable[[Tensor, Tensor, Tensor, Tensor], Geometry] | None = None,
    ) -> None:
        dtype = next(packaged.parameters()).dtype
        degrees = torch.tensor(packaged.degrees)
        self.charge = charge
        self._geometry = geometry or self._plain_geometry
        self.cutoff = packaged.cutoff_fn
        self.layers = packaged.euclidean_transformers
        self.attention = attention or fused_layers(packaged)
        self.energy = packaged.atomic_energy_output_block
        self.charges = packaged.partial_charges_output_block
        self.volumes = packaged.hirshfeld_output_block
        self.zbl = packaged.zbl_repulsion
        self.numbers = numbers
        parity = ((-1.0) ** degrees).repeat_interleave(2 * degrees + 1)
        self.parity = parity.to(numbers.device, dtype)
        # what depends on the elements and the charge alone: a constant of the run
        one_hot = nn.functional.one_hot(numbers - 1, packaged.num_elements).to(dtype)
        segment = torch.zeros_like(numbers)
        with torch.no_grad():
            embedding = packaged.inv_feature_embedding(one_hot).clone()
            for block, psi in ((packaged.charge_embedding, charge), (packaged.spin_embedding, 0.0)):
                value = torch.tensor([psi], dtype=dtype, device=numbers.device)
                embedding = embedding + block(one_hot, value, segment, 1)
            self.embedding = embedding / packaged.embedding_scale
            self.energy_scale = self.energy.energy_scales(one_hot)[:, 0]
            self.charge_bias = self.charges.atomic_embedding(numbers)[:, 0]
            self.volume_bias = self.volumes.v_shift_embedding(numbers)[:, 0]
            self.volume_query = self.volumes.q_embedding(numbers)

    def __call__(
        self, i: Tensor, j: Tensor, vectors: Tensor, *, replicas: int, share: Share | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Energies without offsets, partial charges and volume ratios, each of shape (R, N).

        With a ``share`` of the atoms of one replica, energies (1, n + 1) of this rank's n atoms and
        of its pairs, charges and ratios (1, M) of all atoms that it knows of.

        Parameters
        ----------
        i, j : Tensor, shape (P,)
            Pairs within the short cutoff; atom n of replica r has the index r·N + n. With a
            ``share``, those of this rank, by its numbers.
        vectors : Tensor, shape (P, 3)
            x_j − x_i, Å.
        replicas : int
            R, the number of copies of the atoms.
        share : Share, optional
            Of the ranks that evaluate one replica together: what is worked out atom by atom is each
            rank's for its own.
        """
        atoms, own = self._places(share)
        numbers = self.numbers[atoms]
        r, cutoff, to_i, repulsion = self._geometry(i, j, vectors, numbers.repeat(replicas))
        edges = _Edges(i, j, r, cutoff, to_i, self.parity)
        inv = self.embedding[own].repeat(replicas, 1)
        ev = to_i.new_zeros(inv.shape[0], to_i.shape[1])
        for layer, attention in zip(self.layers, self.attention, strict=True):
            inv, ev = _layer(layer, attention, inv, ev, edges, share)

        hidden = inv
        for linear in self.energy.layers:
            hidden = self.energy.non_linearity(linear(hidden))
        energy = self.energy.final_layer(hidden)[:, 0] * self.energy_scale[own].repeat(replicas)

        charge = self.charges.transform_inv_features(inv)[:, 0].view(replicas, -1)
        charge = charge + self.charge_bias[own]
        query = self.volume_query[own]
        key = self.volumes.transform_features(inv).view(replicas, *query.shape)
        volume = self.volume_bias[own] + (query * key).sum(-1) / key.shape[-1] ** 0.5
        total = charge.sum(-1, keepdim=True)
        if share is None:
            energy = energy.index_add(0, i, repulsion)
        else:
            energy = torch.cat((energy, repulsion.double().sum()[None]))
            total = share.all.total(total)
        charge = charge + (self.charge - total) / len(self.numbers)
        if share is not None:
            charge, volume = share.all.gather(torch.stack((charge[0], volume[0]), -1)).T[:, None]
        return energy.view(replicas, -1), charge, volume.abs()

    def _places(self, share: Share | None) -> tuple[Tensor | slice, Tensor | slice]:
        """Return where the atoms that this rank knows of are, and its own."""
        if share is None:
            return ALL, ALL
        found = (torch.from_numpy(a).to(self.numbers.device) for a in (share.atoms, share.own))
        return next(found), next(found)

    def _plain_geometry(self, i: Tensor, j: Tensor, vectors: Tensor, numbers: Tensor) -> Geometry:
        r = vectors.norm(dim=-1, keepdim=True)
        # So3krates points its harmonics from the sender to the receiver: x_i − x_j for atom i
        cutoff, to_i = self.cutoff(r), harmonics(-vectors / r)
        return Geometry(r, cutoff, to_i, _zbl(self.zbl, numbers[i], numbers[j], r, cutoff))


class _Edges(NamedTuple):
    i: Tensor
    j: Tensor
    r: Tensor
    cutoff: Tensor
    to_i: Tensor
    parity: Tensor


def _layer(
    layer: Any,
    attention: PlainAttention,
    inv: Tensor,
    ev: Tensor,
    edges: _Edges,
    share: Share | None,
) -> tuple[Tensor, Tensor]:
    """One Euclidean transformer layer (Frank et al. 2024, Eqs. 13-27)."""
    d_inv, d_ev = _attention(layer.euclidean_attention_block, attention, inv, ev, edges, share)
    inv, ev = inv + d_inv, ev + d_ev
    if layer.layer_normalization_1:
        inv = layer.layer_norm_inv_1(inv)
    if layer.residual_mlp_1:
        inv = inv + layer.mlp_1(inv)
    d_inv, d_ev = layer.interaction_block(inv, ev)
    inv, ev = inv + d_inv, ev + d_ev
    if layer.residual_mlp_2:
        inv = inv + layer.mlp_2(inv)
    if layer.layer_normalization_2:
        inv = layer.layer_norm_inv_2(inv)
    return inv, ev


def _attention(
    block: Any,
    attention: PlainAttention,
    inv: Tensor,
    ev: Tensor,
    e: _Edges,
    share: Share | None,
) -> tuple[Tensor, Tensor]:
    """Attention of every atom to its neighbours; both directions of a pair share a filter."""
    atoms = attention.project(inv)
    # Euclidean features start at zero: before the first layer all pairs share one filter
    first = not ev.requires_grad
    if share is not None:
        atoms = share.near.gather(atoms)
        ev = ev.new_zeros(1, ev.shape[1]) if first else share.near.gather(ev)
    shape = block.so3_conv_invariants(ev[:1]) if first else attention.shapes(ev, e.i, e.j)
    ev_filter = attention.filters(shape)
    changes = attention(e.i, e.j, e.r, e.cutoff, e.to_i, e.parity, atoms, ev_filter)
    if share is None:
        return changes
    return share.near.scatter_sum(changes[0]), share.near.scatter_sum(changes[1])


def _zbl(zbl: Any, of_i: Tensor, of_j: Tensor, r: Tensor, cutoff: Tensor) -> Tensor:
    """Ziegler-Biersack-Littmark repulsion of every pair, eV, shape (P,)."""
    softplus = nn.functional.softplus
    decay = softplus(torch.cat((zbl.a1_raw, zbl.a2_raw, zbl.a3_raw, zbl.a4_raw)))
    share = softplus(torch.cat((zbl.c1_raw, zbl.c2_raw, zbl.c3_raw, zbl.c4_raw)))
    power, length = softplus(zbl.p_raw), softplus(zbl.d_raw)
    z_i, z_j = of_i.to(r.dtype)[:, None], of_j.to(r.dtype)[:, None]
    screening = torch.exp(-decay * r * (z_i**power + z_j**power) * length) @ (share / share.sum())
    pair = zbl.ke * cutoff * z_i * z_j / r * switch_off(r, 0.0, 1.5)
    return pair[:, 0] * screening


def harmonics(unit: Tensor) -> Tensor:
    """Real spherical harmonics of degrees 1 to 4 of unit vectors (P, 3), shape (P, 24)."""
    x, y, z = unit.unbind(-1)
    xx, yy, zz, xy, xz, yz = x * x, y * y, z * z, x * y, x * z, y * z
    d, s = xx - yy, 7 * zz - 1
    table = (
        (3 / 4, (y, z, x)),
        (15 / 4, (xy, yz, (3 * zz - 1) / 12**0.5, xz, d / 2)),
        (105 / 4, (
            y * (3 * xx - yy) / 24**0.5, xy * z, y * (5 * zz - 1) / 40**0.5,
            z * (5 * zz - 3) / 60**0.5, x * (5 * zz - 1) / 40**0.5, d * z / 2,
            x * (xx - 3 * yy) / 24**0.5,
        )),
        (315 / 16, (
            xy * d, yz * (3 * xx - yy) / 2**0.5, xy * s / 7**0.5, yz * (s - 2) / 14**0.5,
            (35 * zz * zz - 30 * zz + 3) / 560**0.5, xz * (s - 2) / 14**0.5, d * s / 28**0.5,
            xz * (xx - 3 * yy) / 2**0.5, (d * d - 4 * xy * xy) / 4,
        )),
    )  # fmt: skip
    return torch.stack([(c / math.pi) ** 0.5 * f for c, parts in table for f in parts], -1)


def switch_off(r: Tensor, start: float, end: float) -> Tensor:
    """Smooth step from 1 at ``start`` to 0 at ``end``, all derivatives continuous."""
    x = (r - start) / (end - start)
    rise, fall = _sigma(x), _sigma(1.0 - x)
    return fall / (fall + rise + 1e-12)


def _sigma(x: Tensor) -> Tensor:
    return torch.where(x > 0, torch.exp(-1.0 / x.clamp_min(1e-12)), torch.zeros_like(x))
