"""SO3LR's equivariant transformer on half neighbour lists.

Source: the layers of So3krates (Frank et al., Nat. Commun. 15, 6539 (2024)) and SO3LR (Kabylda
et al., J. Am. Chem. Soc. 2025), with the weights of the package ``so3krates-torch``. Its filters
depend on a pair only through r_ij and |ev_i − ev_j|², both symmetric, so that they are computed
once a pair instead of twice; spherical harmonics of the reversed pair follow from (−1)^l.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class HalfListTransformer(nn.Module):
    """Atomic energies, partial charges and Hirshfeld ratios from pairs listed once.

    Parameters
    ----------
    packaged : nn.Module
        The model from ``so3krates_torch``; its layers are used as they are.
    numbers : Tensor, shape (N,)
        Atomic numbers of one replica.
    charge : float
        Total charge of a replica, e.
    """

    def __init__(self, packaged: nn.Module, numbers: Tensor, charge: float) -> None:
        super().__init__()
        dtype = next(packaged.parameters()).dtype
        degrees = torch.tensor(packaged.degrees)
        self.charge = charge
        self.cutoff = packaged.cutoff_fn
        self.rbf = packaged.radial_embedding
        self.harmonics = packaged.spherical_harmonics
        self.layers = packaged.euclidean_transformers
        self.energy = packaged.atomic_energy_output_block
        self.charges = packaged.partial_charges_output_block
        self.volumes = packaged.hirshfeld_output_block
        self.zbl = packaged.zbl_repulsion
        self.register_buffer("numbers", numbers)
        parity = ((-1.0) ** degrees).repeat_interleave(2 * degrees + 1)
        self.register_buffer("parity", parity.to(numbers.device, dtype))
        # what depends on the elements and the charge alone: a constant of the run
        one_hot = nn.functional.one_hot(numbers - 1, packaged.num_elements).to(dtype)
        segment = torch.zeros_like(numbers)
        with torch.no_grad():
            embedding = packaged.inv_feature_embedding(one_hot).clone()
            for block, psi in ((packaged.charge_embedding, charge), (packaged.spin_embedding, 0.0)):
                value = torch.tensor([psi], dtype=dtype, device=numbers.device)
                embedding = embedding + block(one_hot, value, segment, 1)
            self.register_buffer("embedding", embedding / packaged.embedding_scale)
            self.register_buffer("energy_scale", self.energy.energy_scales(one_hot)[:, 0])
            self.register_buffer("charge_bias", self.charges.atomic_embedding(numbers)[:, 0])
            self.register_buffer("volume_bias", self.volumes.v_shift_embedding(numbers)[:, 0])
            self.register_buffer("volume_query", self.volumes.q_embedding(numbers))

    def forward(
        self, i: Tensor, j: Tensor, vectors: Tensor, *, replicas: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Energies without offsets, partial charges and volume ratios, each of shape (R, N).

        Parameters
        ----------
        i, j : Tensor, shape (P,)
            Pairs within the short cutoff; atom n of replica r has the index r·N + n.
        vectors : Tensor, shape (P, 3)
            x_j − x_i, Å.
        replicas : int
            R, the number of copies of the atoms.
        """
        r = vectors.norm(dim=-1, keepdim=True)
        # So3krates points its harmonics from the sender to the receiver: x_i − x_j for atom i
        to_i = self.harmonics(-vectors)
        edges = _Edges(i, j, self.rbf(r), self.cutoff(r), to_i, to_i * self.parity)
        inv = self.embedding.repeat(replicas, 1)
        ev = to_i.new_zeros(inv.shape[0], to_i.shape[1])
        for layer in self.layers:
            inv, ev = _layer(layer, inv, ev, edges)

        hidden = inv
        for linear in self.energy.layers:
            hidden = self.energy.non_linearity(linear(hidden))
        energy = self.energy.final_layer(hidden)[:, 0] * self.energy_scale.repeat(replicas)
        repulsion = _zbl(self.zbl, self.numbers.repeat(replicas), edges, r)
        energy = energy.index_add(0, i, repulsion)

        charge = self.charges.transform_inv_features(inv)[:, 0].view(replicas, -1)
        charge = charge + self.charge_bias
        charge = charge + (self.charge - charge.sum(-1, keepdim=True)) / charge.shape[-1]

        key = self.volumes.transform_features(inv).view(replicas, *self.volume_query.shape)
        volume = self.volume_bias + (self.volume_query * key).sum(-1) / key.shape[-1] ** 0.5
        return energy.view(replicas, -1), charge, volume.abs()


class _Edges(NamedTuple):
    i: Tensor
    j: Tensor
    rbf: Tensor
    cutoff: Tensor
    to_i: Tensor
    to_j: Tensor


def _layer(layer: nn.Module, inv: Tensor, ev: Tensor, edges: _Edges) -> tuple[Tensor, Tensor]:
    """One Euclidean transformer layer (Frank et al. 2024, Eqs. 13-27)."""
    d_inv, d_ev = _attention(layer.euclidean_attention_block, inv, ev, edges)
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


def _attention(block: nn.Module, inv: Tensor, ev: Tensor, e: _Edges) -> tuple[Tensor, Tensor]:
    """Attention of every atom to its neighbours; both directions of a pair share a filter."""
    invariants = block.so3_conv_invariants(ev.index_select(0, e.i) - ev.index_select(0, e.j))
    filter_inv = block.filter_net_inv(e.rbf, invariants) * (e.cutoff / block.att_norm_inv)
    filter_ev = block.filter_net_ev(e.rbf, invariants) * (e.cutoff / block.att_norm_ev)

    def project(weight: Tensor) -> Tensor:
        heads = inv.view(-1, weight.shape[0], weight.shape[1])
        return torch.einsum("nhd,hde->nhe", heads, weight).reshape(inv.shape)

    activation = block.qk_non_linearity
    query, key = activation(project(block.W_q_inv)), activation(project(block.W_k_inv))
    query_ev, key_ev = activation(project(block.W_q_ev)), activation(project(block.W_k_ev))
    value = project(block.W_v_inv)
    size = inv.shape[1]
    atoms = torch.cat((query, key, value, query_ev, key_ev), -1)
    q_i, k_i, v_i, qe_i, ke_i = atoms.index_select(0, e.i).split(size, -1)
    q_j, k_j, v_j, qe_j, ke_j = atoms.index_select(0, e.j).split(size, -1)

    def heads(product: Tensor, count: int) -> Tensor:
        return product.view(-1, count, size // count).sum(-1)

    def message(a: Tensor, count: int, values: Tensor) -> Tensor:
        return (a[:, :, None] * values.view(-1, count, size // count)).reshape(-1, size)

    n = block.inv_heads
    d_inv = torch.zeros_like(inv)
    d_inv = d_inv.index_add(0, e.i, message(heads(q_i * filter_inv * k_j, n), n, v_j))
    d_inv = d_inv.index_add(0, e.j, message(heads(q_j * filter_inv * k_i, n), n, v_i))

    def spread(a: Tensor) -> Tensor:
        return a.repeat_interleave(block.degree_repeats, -1, output_size=ev.shape[1])

    n = block.ev_heads
    d_ev = torch.zeros_like(ev)
    d_ev = d_ev.index_add(0, e.i, spread(heads(qe_i * filter_ev * ke_j, n)) * e.to_i)
    d_ev = d_ev.index_add(0, e.j, spread(heads(qe_j * filter_ev * ke_i, n)) * e.to_j)
    return d_inv, d_ev


def _zbl(zbl: nn.Module, numbers: Tensor, e: _Edges, r: Tensor) -> Tensor:
    """Ziegler-Biersack-Littmark repulsion of every pair, eV, shape (P,)."""
    softplus = nn.functional.softplus
    decay = softplus(torch.cat((zbl.a1_raw, zbl.a2_raw, zbl.a3_raw, zbl.a4_raw)))
    share = softplus(torch.cat((zbl.c1_raw, zbl.c2_raw, zbl.c3_raw, zbl.c4_raw)))
    power, length = softplus(zbl.p_raw), softplus(zbl.d_raw)
    z_i, z_j = numbers[e.i].to(r.dtype)[:, None], numbers[e.j].to(r.dtype)[:, None]
    screening = torch.exp(-decay * r * (z_i**power + z_j**power) * length) @ (share / share.sum())
    pair = zbl.ke * e.cutoff * z_i * z_j / r * switch_off(r, 0.0, 1.5)
    return pair[:, 0] * screening


def switch_off(r: Tensor, start: float, end: float) -> Tensor:
    """Smooth step from 1 at ``start`` to 0 at ``end``, all derivatives continuous."""
    x = (r - start) / (end - start)
    rise, fall = _sigma(x), _sigma(1.0 - x)
    return fall / (fall + rise + 1e-12)


def _sigma(x: Tensor) -> Tensor:
    return torch.where(x > 0, torch.exp(-1.0 / x.clamp_min(1e-12)), torch.zeros_like(x))
