"""Energies that are sums over groups of atoms, and what is derived from them.

A group is a center and k atoms around it; its energy is a function of the k vectors from the center
to them, v (k, 3), and of parameters. For a sum E of such energies and a direction u of all atoms,
with w = u_around − u_center, the slope along u is s = Σ (∂E/∂v)·w, and one derivative of s gives
both what a pull needs: ∂s/∂v, which goes to the atoms like a force, and ∂s/∂p.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Groups(NamedTuple):
    """Groups of atoms of all replicas, which are numbered through.

    Attributes
    ----------
    center : Tensor, shape (M,)
        Atoms, in R replicas of N from 0 to R N.
    around : Tensor, shape (M, k)
        The others.
    shifts : Tensor, shape (M, k, 3)
        Of their images, Å.
    replica : Tensor, shape (M,)
        Which one a group is of.
    """

    center: Tensor
    around: Tensor
    shifts: Tensor
    replica: Tensor

    def vectors(self, x: Tensor) -> Tensor:
        """From the center to the others, for positions (R N, 3), shape (M, k, 3), Å."""
        return x[self.around] - x[self.center][:, None] + self.shifts

    def directions(self, u: Tensor) -> Tensor:
        """Return the same for displacements, (M, k, 3)."""
        return u[self.around] - u[self.center][:, None]

    def to_atoms(self, by_vectors: Tensor, like: Tensor) -> Tensor:
        """From a gradient by vectors (M, k, 3) to that by positions (R N, 3)."""
        found = torch.zeros_like(like)
        found.index_add_(0, self.around.flatten(), by_vectors.flatten(0, 1))
        return found.index_add_(0, self.center, -by_vectors.sum(1))

    def virials(self, vectors: Tensor, by_vectors: Tensor, replicas: int) -> Tensor:
        """Minus the derivative of the energy by strain, eV, shape (R, 3, 3)."""
        each = -torch.einsum("mka,mkb->mab", vectors, by_vectors)
        return each.new_zeros(replicas, 3, 3).index_add_(0, self.replica, each)


Energies = Callable[[Tensor], Tensor]


class Term(NamedTuple):
    """Groups and their energies.

    Attributes
    ----------
    groups : Groups
        Which atoms.
    energies : callable
        Of vectors (M, k, 3), or, where the term is radial, of distances (M,); returns (M,), eV.
    radial : bool
        Whether pairs have energies of their distance: derivatives are taken of M numbers then.
    """

    groups: Groups
    energies: Energies
    radial: bool = False

    def of(self, x: Tensor) -> Tensor:
        """Energies of the groups at positions (R N, 3), with a graph to them, (M,)."""
        v = self.groups.vectors(x)
        return self.energies(v.squeeze(1).norm(dim=-1) if self.radial else v)


class Found(NamedTuple):
    """A term at some positions.

    Attributes
    ----------
    energies : Tensor, shape (M,)
        Of the groups, eV.
    by_vectors : Tensor, shape (M, k, 3)
        Their slopes by the vectors, eV/Å.
    vectors : Tensor, shape (M, k, 3)
        Å.
    pull : callable
        From w (M, k, 3) and parameters to ∂s/∂v (M, k, 3) and ∂s/∂p.
    """

    energies: Tensor
    by_vectors: Tensor
    vectors: Tensor
    pull: Callable[[Tensor, Sequence[Tensor]], tuple[Tensor, tuple[Tensor | None, ...]]]


def found_at(term: Term, x: Tensor, *, keep: bool) -> Found:
    """Evaluate a term at positions (R N, 3); ``keep``: so that it can be pulled."""
    vectors = term.groups.vectors(x.detach())
    if term.radial:
        return _radial(term, vectors, keep)
    with torch.enable_grad():
        v = vectors.requires_grad_()
        energies = term.energies(v)
        (slope,) = torch.autograd.grad(energies.sum(), v, create_graph=keep)

    def pull(w: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        by_v, *by_p = torch.autograd.grad(slope, (v, *parameters), w, allow_unused=True)
        return torch.zeros_like(v) if by_v is None else by_v, tuple(by_p)

    return Found(energies.detach(), slope.detach(), vectors.detach(), pull)


def _radial(term: Term, vectors: Tensor, keep: bool) -> Found:
    v = vectors.squeeze(1)
    with torch.enable_grad():
        r = v.norm(dim=-1).requires_grad_()
        energies = term.energies(r)
        (slope,) = torch.autograd.grad(energies.sum(), r, create_graph=keep)
    unit, first = v / r.detach()[:, None], slope.detach()[:, None]

    def pull(w: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        along = (unit * w.squeeze(1)).sum(-1)
        second, *by_p = torch.autograd.grad(slope, (r, *parameters), along, allow_unused=True)
        # d(φ' û·w)/dv: along û what φ'' gives, across it what turns û
        across = (w.squeeze(1) - along[:, None] * unit) * (first / r.detach()[:, None])
        if second is not None:
            across = across + second[:, None] * unit
        return across[:, None], tuple(by_p)

    return Found(energies.detach(), (first * unit)[:, None], vectors, pull)
